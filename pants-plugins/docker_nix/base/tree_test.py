from __future__ import annotations

from typing import Any, Dict, Sequence

from docker_nix.base.tree import BaseTree


def index(
    *entries: Sequence[Any], whiteouts: Sequence[str] = (), opaque: Sequence[str] = ()
) -> Dict[str, Any]:
    return {
        "diff_id": "sha256:0",
        "entries": entries,
        "whiteouts": whiteouts,
        "opaque": opaque,
    }


def directory(path: str, mode: int = 0o755, uid: int = 0) -> Sequence[Any]:
    return ("d", path, mode, uid, 0)


def file(path: str, sha256: str = "1") -> Sequence[Any]:
    return ("f", path, 0o644, 0, 0, 1, sha256)


def link(path: str, target: str) -> Sequence[Any]:
    return ("l", path, 0o777, 0, 0, target)


def test_directories_and_symlinks() -> None:
    tree = BaseTree.of(
        [index(link("bin", "usr/bin"), directory("tmp", 0o1777), file("usr/bin/sh"))]
    )
    assert tree.symlink("bin") == "usr/bin" and tree.directory("bin") is None
    assert tree.directory("tmp") == (0o1777, 0, 0)
    assert tree.directory("usr") == (0o755, 0, 0)
    assert tree.what("usr/bin/sh") == "a file" and tree.what("usr") is None
    assert tree.what("nothing") is None and tree.owner("nothing") is None


def test_whiteouts_of_a_layer_hide_what_is_below() -> None:
    tree = BaseTree.of(
        [
            index(file("etc/a"), file("etc/b"), file("var/lib/x"), file("var/y")),
            index(file("var/lib/z"), whiteouts=["etc/a"], opaque=["var/lib"]),
        ]
    )
    assert [entry[1] for entry in tree.entries()] == [
        *("etc", "etc/b", "var", "var/lib", "var/lib/z", "var/y"),
    ]


def test_a_hard_link_to_a_lower_layer_is_that_file() -> None:
    tree = BaseTree.of(
        [index(file("a", "7" * 64)), index(("h", "b", 0o600, 5, 5, "a"))],
    )
    assert list(tree.entries()) == [
        ["f", "a", 0o644, 0, 0, 1, "7" * 64],
        ["f", "b", 0o644, 0, 0, 1, "7" * 64],
    ]


def test_store_paths_are_known_and_left_out_of_the_entries() -> None:
    tree = BaseTree.of(
        [index(file("nix/store/aaa-x"), file("nix/store/bbb-y/bin/y"), file("nix/var/z"))]
    )
    assert tree.store_paths == {"/nix/store/aaa-x", "/nix/store/bbb-y"}
    assert [entry[1] for entry in tree.entries()] == ["nix", "nix/var", "nix/var/z"]


def test_the_uppermost_nix_database_counts_as_far_as_its_paths_are_there() -> None:
    a, b = "/nix/store/aaa-x", "/nix/store/bbb-y"
    lower = {**index(file(a[1:]), file(b[1:])), "nix_db": [[a, "sha256:1", 1, []]]}
    upper = {
        **index(whiteouts=[b[1:]]),
        "nix_db": [[a, "sha256:1", 1, []], [b, "sha256:2", 2, [a]]],
    }
    assert [info.path for info in BaseTree.of([lower, upper]).registered_paths] == [a]
    (_, info) = BaseTree.of([lower, {**upper, "whiteouts": []}]).registered_paths
    assert (info.path, info.nar_hash, info.nar_size, info.references) == (b, "sha256:2", 2, (a,))
