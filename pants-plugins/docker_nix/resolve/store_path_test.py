from __future__ import annotations

import hashlib
import itertools

import pytest

from docker_nix.resolve import store_path as sp

HELLO_NAR = "0a430879c266f8b57f4092a0f935cf3facd48bbccde5760d4748ca405171e969"
DEP = "/nix/store/gxv3qypm353mppc37b42mzfnhcc5hczj-dep"
FOO = "/nix/store/vxjiwkjkn7x4079qvh1jkl5pn05j2aw0-foo"
LIB = "/nix/store/m12s0qn3rjipgqsqbva18jwmzfka8cay-lib"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def nar_string(data: bytes) -> bytes:
    return len(data).to_bytes(8, "little") + data + bytes(-len(data) % 8)


def nar_strings(*strings: bytes) -> bytes:
    return b"".join(map(nar_string, strings))


def test_source_path_vectors() -> None:
    expected = "/nix/store/nhbkbjb42fmcsbd97h5mqx8nya2bks1c-f.txt"
    assert sp.source_path(HELLO_NAR, "f.txt") == expected
    assert sp.fixed_output_path("sha256", HELLO_NAR, "f.txt", recursive=True) == expected
    dep_nar = nar_strings(
        b"nix-archive-1", b"(", b"type", b"regular", b"contents", b"dep-content", b")"
    )
    assert sp.source_path(sha256(dep_nar), "dep") == DEP


def test_source_path_with_reference_vector() -> None:
    contents = f"{DEP}\n".encode()
    nar = nar_strings(b"nix-archive-1", b"(", b"type", b"directory", b"entry", b"(")
    nar += nar_strings(b"name", b"f", b"node", b"(", b"type", b"regular", b"contents", contents)
    nar += nar_strings(b")", b")", b")")
    assert sp.source_path(sha256(nar), "lib", [DEP]) == LIB


def test_flat_vector() -> None:
    path = sp.fixed_output_path("sha256", sha256(b"hello"), "f.txt", recursive=False)
    assert path == "/nix/store/h3l41b48w4vk3d4g7q5raj8fgyn0vqix-f.txt"


def test_text_vector() -> None:
    assert sp.text_path(b"bar", "foo") == FOO


def test_every_input_changes_the_path() -> None:
    digest = sha256(b"tree")
    paths = [
        sp.source_path(digest, "x"),
        sp.source_path(digest, "y"),
        sp.source_path(sha256(b"other"), "x"),
        sp.source_path(digest, "x", [DEP]),
        sp.source_path(digest, "x", [DEP, FOO]),
        sp.source_path(digest, "x", self_reference=True),
        sp.source_path(digest, "x", [DEP], self_reference=True),
        sp.text_path(b"tree", "x"),
        sp.text_path(b"tree", "x", [DEP]),
        sp.fixed_output_path("sha256", digest, "x", recursive=False),
        sp.fixed_output_path("sha1", digest[:40], "x", recursive=False),
        sp.fixed_output_path("sha1", digest[:40], "x", recursive=True),
        sp.fixed_output_path("sha512", digest * 2, "x", recursive=True),
        sp.input_addressed_path("x", digest, 1),
        sp.input_addressed_path("y", digest, 1),
        sp.input_addressed_path("x", digest, 2),
        sp.input_addressed_path("x", sha256(b"other"), 1),
        sp.input_addressed_path("x", digest, 1, [DEP]),
        sp.input_addressed_path("x", digest, 1, [DEP, FOO]),
        sp.input_addressed_path("x", digest, 1, kind="unpack:tar.gz"),
        sp.input_addressed_path("x", digest, 1, kind="unpack:zip"),
    ]
    assert len(set(paths)) == len(paths)
    for path in paths:
        hash_part, name = sp.split_path(path)
        assert path == f"/nix/store/{hash_part}-{name}"
        assert len(hash_part) == 32


def test_input_addressed_path_is_stable() -> None:
    """A change of this value is a change of everybody's store paths: raise the version marker."""
    path = sp.input_addressed_path("app", sha256(b"tree"), 83, [DEP, FOO])
    assert path == "/nix/store/nbxjcdqyyys0qs3fva3mqhks8win29qd-app"


def test_references_are_a_set() -> None:
    digest = sha256(b"tree")
    for references in itertools.permutations([DEP, FOO, LIB]):
        doubled = iter([*references, references[0]])
        assert sp.source_path(digest, "x", doubled) == sp.source_path(digest, "x", [DEP, FOO, LIB])
        assert sp.input_addressed_path("x", digest, 1, references) == sp.input_addressed_path(
            "x", digest, 1, [DEP, FOO, LIB]
        )


@pytest.mark.parametrize("name", ["a", "A-z_0.9+?=", "-", "a.", "a" * 211])
def test_legal_names(name: str) -> None:
    sp.validate_name(name)
    assert sp.name_part(sp.source_path(HELLO_NAR, name)) == name


@pytest.mark.parametrize("name", ["", ".", "..", ".a", "a/b", "a b", "a\n", "é", "a:b", "a" * 212])
def test_illegal_names(name: str) -> None:
    with pytest.raises(ValueError) as error:
        sp.validate_name(name)
    assert repr(name) in str(error.value)
    assert "211" in str(error.value)
    with pytest.raises(ValueError, match="name of a store path"):
        sp.source_path(HELLO_NAR, name)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("app", "app"),
        ("src/app:bin", "src-app-bin"),
        ("src/a//:b c", "src-a-b-c"),
        ("//src/app:bin@resolve=x", "src-app-bin-resolve=x"),
        ("../.hidden", "hidden"),
        (".", "unnamed"),
        ("", "unnamed"),
        ("日本", "unnamed"),
        ("über app", "ber-app"),
        ("café", "caf"),
        ("a_b+c?d=e.f", "a_b+c?d=e.f"),
        ("Upper.Case", "Upper.Case"),
        ("x.drv", "x-drv"),
        (".drv", "drv"),
        ("a\n", "a"),
        ("\udce9x", "x"),
        ("a" * 300, "a" * 211),
        ("/" * 300 + "a", "a"),
    ],
)
def test_legal_name(text: str, name: str) -> None:
    assert sp.legal_name(text) == name
    sp.validate_name(name)
    assert sp.legal_name(name) == name


def test_legal_name_is_legal_for_every_character() -> None:
    for code in [*range(0x300), 0x2028, 0xD800, 0xFFFF, 0x1F600, 0x10FFFF]:
        for text in (chr(code), f"a{chr(code)}", f"{chr(code)}a", chr(code) * 400):
            sp.validate_name(sp.legal_name(text))


def test_parts() -> None:
    assert sp.hash_part(DEP) == "gxv3qypm353mppc37b42mzfnhcc5hczj"
    assert sp.name_part(DEP) == "dep"
    assert sp.name_part("/nix/store/gxv3qypm353mppc37b42mzfnhcc5hczj-a-b-1.0") == "a-b-1.0"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "dep",
        "/nix/store",
        "/nix/store/",
        DEP[11:],
        f"{DEP}/bin",
        f"/gnu{DEP[4:]}",
        f"{DEP}\n",
        f" {DEP}",
        DEP.replace("-", ""),
        DEP[: -len("dep")],
        DEP.replace("gxv3", "exv3"),
        DEP.replace("gxv3", "xv3"),
        DEP.replace("/nix/store/", "/nix/store/../store/"),
        f"{DEP}:/x",
    ],
)
def test_not_a_store_path(path: str) -> None:
    with pytest.raises(ValueError, match="store path") as error:
        sp.split_path(path)
    assert repr(path) in str(error.value) or "name of a store path" in str(error.value)
    with pytest.raises(ValueError, match="store path"):
        sp.source_path(HELLO_NAR, "x", [path])


@pytest.mark.parametrize("value", ["", "abc", HELLO_NAR.upper(), f"{HELLO_NAR}\n", "g" * 64])
def test_not_a_hash(value: str) -> None:
    with pytest.raises(ValueError, match="64 lower-case hex digits"):
        sp.source_path(value, "x")
    with pytest.raises(ValueError, match="64 lower-case hex digits"):
        sp.input_addressed_path("x", value, 1)
    with pytest.raises(ValueError, match="40 lower-case hex digits"):
        sp.fixed_output_path("sha1", value, "x", recursive=False)


def test_unknown_hash_algorithm() -> None:
    with pytest.raises(ValueError, match="'sha3' is not a hash of Nix"):
        sp.fixed_output_path("sha3", HELLO_NAR, "x", recursive=False)
