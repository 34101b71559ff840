from __future__ import annotations

import pytest

from docker_nix.resolve.references import (
    MalformedReference,
    Reference,
    fill,
    parse_script,
    parse_text,
    references,
)


def upper(address: str) -> str:
    return f"<{address.upper()}>"


@pytest.mark.parametrize(
    "text, filled",
    [
        ("", ""),
        ("plain", "plain"),
        ("{store_path[//a:b]}/bin/x", "<//A:B>/bin/x"),
        ("A={store_path[:x]}:{store_path[ y ]}", "A=<:X>:<Y>"),
        ("{store_path[a#b.txt@k=v]}", "<A#B.TXT@K=V>"),
        ('{{"a": {{}}}}', '{"a": {}}'),
        ("{{{store_path[a]}}}", "{<A>}"),
    ],
)
def test_text(text: str, filled: str) -> None:
    assert fill(parse_text(text), upper) == filled


@pytest.mark.parametrize(
    "text, message",
    [
        ("a{b", "a stray '{' at line 1, column 2. Write {{ for a literal brace"),
        ("a}", "a stray '}' at line 1, column 2. Write }} for a literal brace"),
        ("x\n  {store_path}", "a stray '{' at line 2, column 3"),
        ("{store_path[]}", "without an address or an end at line 1, column 1"),
        ("ab{store_path[a", "without an address or an end at line 1, column 3"),
        ("{store_path[a\n]}", "without an address or an end at line 1, column 1"),
        ("{store_path[a] {store_path[b]}", "without an address or an end at line 1, column 1"),
    ],
)
def test_malformed_text(text: str, message: str) -> None:
    with pytest.raises(MalformedReference) as e:
        parse_text(text)
    assert message in str(e.value)


@pytest.mark.parametrize(
    "script",
    [
        'x() { echo "${HOME}" "${store_path[0]}"; }; awk \'{print $1}\' {a,b}',
        "echo {store_path} {{store_paths[x]}}",
        "",
    ],
)
def test_shell_braces_stay(script: str) -> None:
    assert parse_script(script) == (script,)


def test_script_references() -> None:
    script = "ln -s {store_path[a:b]}/x y\n  cp ${X}{store_path[c]} ."
    parts = parse_script(script)
    assert references(parts) == (
        Reference("a:b", "line 1, column 7"),
        Reference("c", "line 2, column 10"),
    )
    assert fill(parts, upper) == "ln -s <A:B>/x y\n  cp ${X}<C> ."
    with pytest.raises(MalformedReference, match="line 1, column 6"):
        parse_script("echo {store_path[oops")
