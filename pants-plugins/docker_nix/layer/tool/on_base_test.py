from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, List, Tuple

import pytest

from docker_nix.layer.tool.entries import Entry
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.on_base import fit
from docker_nix.layer.tool.tar_format import DIRECTORY, FILE, HARDLINK, SYMLINK

BASE: List[List[Any]] = [
    ["l", "bin", 0o777, 0, 0, "usr/bin"],
    ["d", "etc", 0o755, 0, 0],
    ["f", "etc/same", 0o644, 0, 0, 4, hashlib.sha256(b"same").hexdigest()],
    ["d", "tmp", 0o1777, 0, 0],
    ["d", "usr", 0o755, 0, 0],
    ["d", "usr/bin", 0o755, 0, 0],
    ["d", "var", 0o755, 0, 0],
    ["d", "var/mail", 0o2775, 0, 8],
]


def directory(name: str, mode: int = 0o755) -> Entry:
    return Entry(name.encode(), DIRECTORY, mode)


def file(folder: Path, name: str, content: bytes = b"new", mode: int = 0o644) -> Entry:
    path = folder / f"{name.replace('/', '_')}-{content.decode()}"
    path.write_bytes(content)
    return Entry(name.encode(), FILE, mode, path=str(path).encode())


def shape(entries: List[Entry]) -> List[Tuple[str, str]]:
    return [(entry.name.decode(), oct(entry.mode)) for entry in entries]


def test_files_go_where_symlinks_of_the_base_lead(tmp_path: Path) -> None:
    fitted = fit([directory("bin"), file(tmp_path, "bin/app", mode=0o755)], BASE)
    assert shape(fitted) == [("usr", "0o755"), ("usr/bin", "0o755"), ("usr/bin/app", "0o755")]


def test_a_hard_link_goes_along(tmp_path: Path) -> None:
    link = Entry(b"bin/b", HARDLINK, 0o755, link=b"bin/a")
    fitted = fit([directory("bin"), file(tmp_path, "bin/a"), link], BASE)
    assert [entry.name for entry in fitted][2:] == [b"usr/bin/a", b"usr/bin/b"]
    assert fitted[-1].link == b"usr/bin/a"


def test_the_first_name_of_a_file_is_the_file(tmp_path: Path) -> None:
    """Its names are in another order where the base leads them elsewhere."""
    made = [
        directory("bin"),
        file(tmp_path, "bin/made"),
        directory("tmp"),
        Entry(b"tmp/a", HARDLINK, 0o644, link=b"bin/made"),
        Entry(b"tmp/b", HARDLINK, 0o644, link=b"bin/made"),
    ]
    on_disk = made[1].path
    fitted = {entry.name: entry for entry in fit(made, BASE)}
    assert (fitted[b"tmp/a"].kind, fitted[b"tmp/a"].path) == (FILE, on_disk)
    for name in (b"tmp/b", b"usr/bin/made"):
        assert (fitted[name].kind, fitted[name].link) == (HARDLINK, b"tmp/a")


def test_behind_a_symlink_to_the_root(tmp_path: Path) -> None:
    base = [["l", "here", 0o777, 0, 0, "/"]]
    fitted = fit([directory("here"), directory("here/a"), file(tmp_path, "here/a/b")], base)
    assert [entry.name for entry in fitted] == [b"a", b"a/b"]


def test_directories_keep_what_the_base_says_of_them(tmp_path: Path) -> None:
    script = [
        directory("tmp"),
        file(tmp_path, "tmp/x"),
        directory("var"),
        directory("var/mail", 0o700),
        directory("var/new", 0o700),
    ]
    fitted = fit(script, BASE)
    assert shape(fitted) == [
        ("tmp", "0o1777"),
        ("tmp/x", "0o644"),
        ("var", "0o755"),
        ("var/mail", "0o700"),
        ("var/new", "0o700"),
    ]
    assert fit([directory("var"), directory("var/mail")], BASE) == []


def test_what_the_base_has_is_left_out(tmp_path: Path) -> None:
    etc = directory("etc")
    assert fit([etc, file(tmp_path, "etc/same", b"same")], BASE) == []
    for changed in (
        file(tmp_path, "etc/same", b"SAME"),
        file(tmp_path, "etc/same", b"same", mode=0o600),
        Entry(b"etc/same", SYMLINK, 0o777, link=b"x"),
    ):
        assert [entry.name for entry in fit([etc, changed], BASE)] == [b"etc", b"etc/same"]
    owned = file(tmp_path, "etc/same", b"same")
    owned.uid = 5
    assert [entry.name for entry in fit([etc, owned], BASE)] == [b"etc", b"etc/same"]
    # The file stays where another name of it is new.
    link = Entry(b"etc/two", HARDLINK, 0o644, link=b"etc/same")
    assert len(fit([etc, file(tmp_path, "etc/same", b"same"), link], BASE)) == 3


def test_a_symlink_of_the_script_may_replace_that_of_the_base(tmp_path: Path) -> None:
    fitted = fit([Entry(b"bin", SYMLINK, 0o777, link=b"sbin")], BASE)
    assert [(entry.name, entry.link) for entry in fitted] == [(b"bin", b"sbin")]


def test_clashes(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="/etc is a directory in the base image"):
        fit([file(tmp_path, "etc")], BASE)
    with pytest.raises(ToolError, match="/etc/same is a file in the base image, and a directory"):
        fit([directory("etc"), directory("etc/same")], BASE)
    both = [
        directory("bin"),
        file(tmp_path, "bin/app"),
        directory("usr"),
        directory("usr/bin"),
        file(tmp_path, "usr/bin/app"),
    ]
    with pytest.raises(ToolError, match="and so is another file"):
        fit(both, BASE)
