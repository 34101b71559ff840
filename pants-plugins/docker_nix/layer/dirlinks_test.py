from __future__ import annotations

from typing import Dict, List, Tuple

import pytest

from docker_nix.layer import dirlinks
from docker_nix.layer.dirlinks import TooManyEntries, expand_dirlinks
from docker_nix.layer.links import Entry

STORE = "/nix/store/aaaa-a"


def tree(files: List[str], links: Dict[str, str]) -> List[Entry]:
    entries = [Entry("f", path, sha256="1", size=1) for path in files]
    return entries + [Entry("l", path, target=to) for path, to in links.items()]


def expanded(files: List[str], links: Dict[str, str]) -> List[Tuple[str, str]]:
    return sorted(
        (entry.path, entry.target or entry.kind)
        for entry in expand_dirlinks(STORE, tree(files, links))
    )


def test_a_link_to_a_directory_becomes_one() -> None:
    assert expanded(["b/x", "b/c/y"], {"a": "b", "z": "b/x"}) == [
        ("a/c/y", "f"),
        ("a/x", "f"),
        ("b/c/y", "f"),
        ("b/x", "f"),
        ("z", "b/x"),
    ]


def test_links_below_a_former_link_lead_into_the_store() -> None:
    assert expanded(["b/x"], {"b/l": "x", "deep/er/a": "../../b"}) == [
        ("b/l", "x"),
        ("b/x", "f"),
        ("deep/er/a/l", f"{STORE}/b/l"),
        ("deep/er/a/x", "f"),
    ]


def test_an_empty_directory_behind_a_link() -> None:
    entries = [Entry("d", "empty"), Entry("l", "a", target="empty")]
    assert [(e.kind, e.path) for e in expand_dirlinks(STORE, entries)] == [
        ("d", "empty"),
        ("d", "a"),
    ]


@pytest.mark.parametrize(
    "links",
    [
        {"d/up": ".."},
        {"d/self": "."},
        {"d/me": "../d"},
        {"out": "../d"},
        {"absolute": "/d"},
        {"file": "d/x"},
        {"dangling": "nothing"},
        {"circle": "round", "round": "circle"},
    ],
)
def test_links_that_stay(links: Dict[str, str]) -> None:
    assert expanded(["d/x"], links) == sorted([("d/x", "f"), *links.items()])


def test_directories_that_link_to_one_another_end() -> None:
    assert expanded(["x/f", "y/g"], {"x/l": "../y", "y/m": "../x"}) == [
        ("x/f", "f"),
        ("x/l/g", "f"),
        ("x/l/m", f"{STORE}/y/m"),
        ("y/g", "f"),
        ("y/m/f", "f"),
        ("y/m/l", f"{STORE}/x/l"),
    ]


def test_nothing_is_lost_behind_a_link_to_a_parent() -> None:
    assert expanded(["a/b/f"], {"k": "a/b", "a/b/j": "../../a"}) == [
        ("a/b/f", "f"),
        ("a/b/j", "../../a"),
        ("k/f", "f"),
        ("k/j", f"{STORE}/a/b/j"),
    ]


def test_links_that_multiply_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dirlinks, "MOST_ENTRIES", 10_000)
    links = {f"d{n}/{side}": f"../d{n + 1}" for n in range(30) for side in "ab"}
    with pytest.raises(TooManyEntries, match="more than 10000 files"):
        expand_dirlinks(STORE, tree(["d30/f"], links))
