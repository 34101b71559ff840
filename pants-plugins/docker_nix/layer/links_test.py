from __future__ import annotations

from typing import List, Optional, Tuple

import pytest

from docker_nix.layer.links import (
    Collision,
    Entry,
    HashesNeeded,
    Link,
    link_farm,
    unfit_entry,
)

A = "/nix/store/aaaa-a"
B = "/nix/store/bbbb-b"
ORIGINS = {A: "//:a", B: "//:b"}


def file(path: str, sha256: str = "1", kind: str = "f") -> Entry:
    return Entry(kind, path, sha256=sha256, size=1)


def farm(a: List[Entry], b: List[Entry]) -> Tuple[Link, ...]:
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


class Base:
    """A base image with `bin -> usr/bin`, `tmp` for everybody, a file and a dangling symlink."""

    _symlinks = {"bin": "usr/bin", "etc/mtab": "../proc/mounts", "run": "/var/run", "x": "y"}
    _directories = {"usr": 0o755, "usr/bin": 0o755, "tmp": 0o1777, "etc": 0o755, "proc": 0o555}

    def what(self, path: str) -> Optional[str]:
        return "a file" if path == "etc/motd" else None

    def symlink(self, path: str) -> Optional[str]:
        return self._symlinks.get(path)

    def directory(self, path: str) -> Optional[Tuple[int, int, int]]:
        return (self._directories[path], 0, 5) if path in self._directories else None

    def owner(self, path: str) -> Optional[Tuple[int, int]]:
        return (0, 0) if path in self._symlinks else None


def on_base(*entries: Entry, ids: Tuple[int, int] = (0, 0)) -> Tuple[Link, ...]:
    return link_farm([(A, entries)], ORIGINS, Base(), ids)


def test_symlinks_of_the_base_are_followed_and_its_directories_kept() -> None:
    assert on_base(file("bin/app"), file("tmp/x"), file("opt/y")) == (
        ("d", "opt"),
        ("l", "opt/y", f"{A}/opt/y"),
        ("d", "tmp", 0o1777, 0, 5),
        ("l", "tmp/x", f"{A}/tmp/x"),
        ("d", "usr", 0o755, 0, 5),
        ("d", "usr/bin", 0o755, 0, 5),
        ("l", "usr/bin/app", f"{A}/bin/app"),
    )


def test_what_is_behind_a_dangling_symlink_of_the_base_is_made() -> None:
    assert on_base(file("run/pid")) == (
        ("d", "var"),
        ("d", "var/run"),
        ("l", "var/run/pid", f"{A}/run/pid"),
    )


def test_what_the_base_has_is_left_out() -> None:
    same = Entry("l", "x", target="y")
    assert on_base(same, Entry("d", "tmp"), Entry("d", "bin")) == ()
    for spelled in ("usr/bin", "/usr/bin", "./usr/../usr/bin"):
        assert on_base(Entry("l", "bin", target=spelled)) == ()
    assert on_base(same, ids=(1, 0)) == (("l", "x", "y"),)
    assert on_base(Entry("l", "x", target="z")) == (("l", "x", "z"),)


def test_a_file_takes_the_place_of_one_of_the_base() -> None:
    assert on_base(file("etc/motd"), file("etc/mtab")) == (
        ("d", "etc", 0o755, 0, 5),
        ("l", "etc/motd", f"{A}/etc/motd"),
        ("l", "etc/mtab", f"{A}/etc/mtab"),
    )


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (file("tmp"), "/tmp is a directory in the base image and a file in //:a"),
        (file("bin"), "/bin is a directory in the base image and a file in //:a"),
        (
            Entry("l", "bin", target="usr/sbin"),
            "/bin is a directory in the base image and a symlink to usr/sbin in //:a",
        ),
        (
            Entry("l", "usr", target="opt"),
            "/usr is a directory in the base image and a symlink to opt in //:a",
        ),
        (file("etc/motd/x"), "/etc/motd is a file in the base image and a directory in //:a"),
    ],
)
def test_collisions_with_the_base(entry: Entry, message: str) -> None:
    with pytest.raises(Collision) as caught:
        on_base(entry)
    assert str(caught.value) == message
