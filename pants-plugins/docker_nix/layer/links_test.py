from __future__ import annotations

from typing import List, Tuple

import pytest

from docker_nix.layer.links import Collision, Entry, HashesNeeded, link_farm, unfit_entry

A = "/nix/store/aaaa-a"
B = "/nix/store/bbbb-b"
ORIGINS = {A: "//:a", B: "//:b"}


def file(path: str, sha256: str = "1", kind: str = "f") -> Entry:
    return Entry(kind, path, sha256=sha256, size=1)


def farm(a: List[Entry], b: List[Entry]) -> Tuple[Tuple[str, ...], ...]:
    return link_farm([(A, a), (B, b)], ORIGINS)


def test_directories_are_merged_and_files_linked() -> None:
    assert farm(
        [file("etc/a"), Entry("d", "var/empty")], [file("etc/b"), file("etc/x/c", kind="x")]
    ) == (
        ("d", "etc"),
        ("l", "etc/a", f"{A}/etc/a"),
        ("l", "etc/b", f"{B}/etc/b"),
        ("d", "etc/x"),
        ("l", "etc/x/c", f"{B}/etc/x/c"),
        ("d", "var"),
        ("d", "var/empty"),
    )


def test_sorted_bytewise() -> None:
    names = ["a/x", "a-b", "é", "Z", "a.b"]
    links = farm([file(name) for name in names], [])
    paths = [link[1] for link in links]
    assert paths == ["Z", "a", "a-b", "a.b", "a/x", "é"]


@pytest.mark.parametrize(
    "path, target, becomes",
    [
        ("lib/so", "so.1", "so.1"),
        ("bin", "usr/bin", "usr/bin"),
        ("a/b/up", "../../c", "../../c"),
        ("etc/abs", "/proc/mounts", "/proc/mounts"),
        ("dangling", "nowhere", "nowhere"),
        ("loop", "loop", "loop"),
        # Out of its own tree: it means a place beside the store path, so it goes through it.
        ("up", "../other", f"{A}/up"),
        ("a/up", "b/../../../other", f"{A}/a/up"),
    ],
)
def test_symlinks_stay_what_they_were(path: str, target: str, becomes: str) -> None:
    links = farm([Entry("l", path, target)], [])
    assert links[-1] == ("l", path, becomes)


def test_same_file_twice_is_linked_once() -> None:
    same = [file("x/y"), Entry("l", "l", "x"), Entry("d", "e")]
    assert farm(same, list(same)) == farm(same, [])


@pytest.mark.parametrize(
    "a, b, message",
    [
        (
            file("etc/x", "1"),
            file("etc/x", "2"),
            "/etc/x is a file in //:a and a file with other content in //:b",
        ),
        (
            file("x", kind="f"),
            file("x", kind="x"),
            "/x is a file in //:a and an executable file in //:b",
        ),
        (file("x"), Entry("l", "x", "y"), "/x is a file in //:a and a symlink to y in //:b"),
        (
            Entry("l", "x", "y"),
            Entry("l", "x", "z"),
            "/x is a symlink to y in //:a and a symlink to z in //:b",
        ),
        (file("x"), file("x/y"), "/x is a file in //:a and a directory in //:b"),
        (file("x/y"), file("x"), "/x is a directory in //:a and a file in //:b"),
        (
            Entry("l", "bin", "bin"),
            file("bin/sh"),
            "/bin/sh of //:b lies below a symlink of another content that leads into the store or "
            "in a circle",
        ),
        (
            Entry("l", "etc", "/nix/store/x-etc"),
            file("etc/passwd"),
            "/etc/passwd of //:b lies below a symlink of another content that leads into the store "
            "or in a circle",
        ),
        (Entry("d", "x"), file("x"), "/x is a directory in //:a and a file in //:b"),
        (file("x"), Entry("d", "x"), "/x is a file in //:a and a directory in //:b"),
    ],
)
def test_collisions_name_both(a: Entry, b: Entry, message: str) -> None:
    with pytest.raises(Collision) as e:
        farm([a], [b])
    assert str(e.value) == message


def test_hashes_are_asked_for_where_they_decide() -> None:
    unknown, known, larger = file("x", ""), file("x", "1"), Entry("f", "x", sha256="", size=2)
    assert farm([unknown], []) == (("l", "x", f"{A}/x"),)
    for a, b, paths in ((unknown, known, (A,)), (known, unknown, (B,)), (unknown, unknown, (A, B))):
        with pytest.raises(HashesNeeded) as e:
            farm([a], [b])
        assert e.value.store_paths == paths
    for other in (larger, Entry("l", "x", "y"), file("x", "", kind="x")):
        with pytest.raises(Collision):
            farm([unknown], [other])


def test_symlinks_to_directories_are_followed() -> None:
    a = [
        Entry("l", "bin", "usr/bin"),
        Entry("l", "lib", "/usr/lib"),
        Entry("l", "usr/lib/up", "../../opt/./up"),
        file("usr/bin/sh"),
    ]
    b = [
        file("bin/app"),
        Entry("l", "bin/alias", "app"),
        Entry("d", "lib/empty"),
        file("lib/up/x"),
        file("bin/sh"),
    ]
    expected = (
        ("l", "bin", "usr/bin"),
        ("l", "lib", "/usr/lib"),
        ("d", "opt"),
        ("d", "opt/up"),
        ("l", "opt/up/x", f"{B}/lib/up/x"),
        ("d", "usr"),
        ("d", "usr/bin"),
        ("l", "usr/bin/alias", f"{B}/bin/alias"),
        ("l", "usr/bin/app", f"{B}/bin/app"),
        ("l", "usr/bin/sh", f"{A}/usr/bin/sh"),
        ("d", "usr/lib"),
        ("d", "usr/lib/empty"),
        ("l", "usr/lib/up", "../../opt/./up"),
    )
    assert farm(a, b) == expected
    # The order of contents does not matter to where things lie, only to whose file is linked.
    turned = link_farm([(B, b), (A, a)], ORIGINS)
    assert [link[1] for link in turned] == [link[1] for link in expected]


def test_unfit_entries() -> None:
    def unfit(entry: Entry) -> str:
        return str(unfit_entry(A, [entry], True))

    assert unfit_entry(A, [file("a" * 255), file("b/" * 1900 + "c")], True) is None
    assert "reserve for deleted files" in unfit(file("x/.wh.y"))
    assert "reserve for deleted files" in unfit(file(".wh..wh..opq/y"))
    assert "more than 255 bytes" in unfit(file("é" * 128))
    assert "more than the 4095" in unfit(file("dir/" * 1100 + "c"))


def test_the_store_is_not_for_contents() -> None:
    for entry in (file("nix"), file("nix/store"), Entry("d", "nix/store"), file("nix/store/a/b")):
        assert "where the image keeps" in str(unfit_entry(A, [entry], True))
        assert unfit_entry(A, [entry], False) is None
    for entry in (Entry("d", "nix"), file("nix/storey"), file("nix/var/x"), file("a/nix/store")):
        assert unfit_entry(A, [entry], True) is None
