from __future__ import annotations

import pytest

from docker_nix.layer.tool.entries import (
    Entry,
    check_name,
    link_entries,
    show,
    sorted_entries,
    tree_entries,
)
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.tar_format import DIRECTORY, FILE, SYMLINK

TOP = b"nix/store/x"


def _tree(*manifest: list[str]) -> dict[bytes, Entry]:
    return tree_entries(manifest, TOP, b"in/x")


def _describe(entry: Entry) -> tuple[bytes, int, bytes, bytes]:
    return entry.kind, entry.mode, entry.link, entry.path


def test_files_may_have_another_path_on_disk() -> None:
    tree = _tree(["f", "a/f", "0"], ["x", "a/x", "1"])
    assert tree[TOP + b"/a/f"].path == b"in/x/0"
    assert tree[TOP + b"/a/x"].path == b"in/x/1"


def test_tree_entries_have_the_modes_of_a_store_and_all_parents() -> None:
    tree = _tree(["f", "lib/a/f"], ["x", "bin/x"], ["l", "lib/l", "a/f"], ["d", "var/empty"])
    directory = (DIRECTORY, 0o555, b"", b"")
    assert {name: _describe(entry) for name, entry in tree.items()} == {
        TOP: directory,
        TOP + b"/lib": directory,
        TOP + b"/lib/a": directory,
        TOP + b"/lib/a/f": (FILE, 0o444, b"", b"in/x/lib/a/f"),
        TOP + b"/lib/l": (SYMLINK, 0o777, b"a/f", b""),
        TOP + b"/bin": directory,
        TOP + b"/bin/x": (FILE, 0o555, b"", b"in/x/bin/x"),
        TOP + b"/var": directory,
        TOP + b"/var/empty": directory,
    }


def test_a_store_path_may_be_a_file_a_link_or_empty() -> None:
    assert _describe(_tree(["x", ""])[TOP]) == (FILE, 0o555, b"", b"in/x")
    assert _describe(_tree(["l", "", "/elsewhere"])[TOP]) == (SYMLINK, 0o777, b"/elsewhere", b"")
    assert list(_tree()) == [TOP]
    assert _tree()[TOP].kind == DIRECTORY


def test_a_directory_may_be_listed_and_implied() -> None:
    assert len(_tree(["d", "a"], ["d", "a/b"], ["d", "a"], ["f", "a/b/c"])) == 4


@pytest.mark.parametrize(
    "manifest",
    [
        [["f", "a"], ["f", "a"]],
        [["f", "a"], ["l", "a", "b"]],
        [["f", "a"], ["f", "a/b"]],
        [["f", "a/b"], ["x", "a"]],
        [["l", "a", "t"], ["d", "a"]],
        [["f", ""], ["f", "a"]],
    ],
)
def test_contradictions(manifest: list[list[str]]) -> None:
    with pytest.raises(ToolError, match="nix/store/x.* is in its tree"):
        _tree(*manifest)


@pytest.mark.parametrize("path", ["/a", "a//b", "a/", "../a", "a/../../b", "./a", "a\0b"])
def test_paths_that_are_none(path: str) -> None:
    with pytest.raises(ToolError, match="is not a path that a layer can hold"):
        _tree(["f", path])


def test_link_entries() -> None:
    links = link_entries([["l", "etc/motd", "/nix/store/x/motd"], ["d", "tmp"]])
    assert {name: _describe(entry) for name, entry in links.items()} == {
        b"etc": (DIRECTORY, 0o755, b"", b""),
        b"etc/motd": (SYMLINK, 0o777, b"/nix/store/x/motd", b""),
        b"tmp": (DIRECTORY, 0o755, b"", b""),
    }
    assert link_entries([]) == {}


def test_links_are_no_files() -> None:
    with pytest.raises(ToolError, match="etc/motd: an entry of kind 'f' cannot be here"):
        link_entries([["f", "etc/motd"]])


def _entry(name: str, kind: bytes = DIRECTORY, uid: int = 0) -> Entry:
    return Entry(name.encode(), kind, 0o755, uid)


def test_the_order_is_bytewise_without_the_slash_of_directories() -> None:
    names = ["a", "a-b", "a/x", "a/x.d", "a/x/y", "a0", "é"]
    entries = sorted_entries([_entry(name) for name in reversed(names)], [])
    assert [entry.name.decode() for entry in entries] == names


def test_both_parts_may_have_the_directory_nix_only() -> None:
    store = [_entry("nix"), _entry("nix/store")]
    merged = sorted_entries(store, [_entry("nix", uid=5), _entry("nix/var", uid=5)])
    assert [(entry.name, entry.uid) for entry in merged] == [
        (b"nix", 0),
        (b"nix/store", 0),
        (b"nix/var", 5),
    ]
    for clash in (_entry("nix/store"), _entry("nix", SYMLINK)):
        with pytest.raises(ToolError, match="is part of the store and of the files at /"):
            sorted_entries(store, [clash])


def test_limits_of_names() -> None:
    check_name(b"n" * 255)
    check_name(b"/".join([b"n" * 255] * 15 + [b"n" * 255]))
    with pytest.raises(ToolError, match="a name in it is longer than 255 bytes"):
        check_name(b"d/" + b"n" * 256)
    with pytest.raises(ToolError, match="the path is longer than 4095 bytes"):
        check_name(b"/".join([b"n" * 255] * 16 + [b"n"]))


@pytest.mark.parametrize("name", [b".wh.a", b"d/.wh..wh..opq", b".wh.d/f"])
def test_names_of_whiteouts(name: bytes) -> None:
    with pytest.raises(ToolError, match=r"\.wh\."):
        check_name(name)
    check_name(name.replace(b".wh", b"wh"))


def test_show_is_one_line() -> None:
    assert show("größe".encode()) == "größe"
    assert show(b"a\nb\xff") == "a\\nb\\\\xff"
