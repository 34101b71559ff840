from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from docker_nix.layer.tool import nix_cli, nix_store
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.nix_store import (
    check_hash,
    locate,
    read_manifest,
    read_tree,
    strip_case_hack,
)

NAME = "0123456789abcdfghijklmnpqrsvwxyz-name"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store path in a store of its own."""
    monkeypatch.setattr(nix_store, "STORE_DIR", str(tmp_path))
    return tmp_path / NAME


def nar_hash(path: Path, config: str = "") -> str:
    """The hash of the NAR that a real Nix makes of the path."""
    done = subprocess.run(
        ["nix-store", "--dump", str(path)],
        env={"PATH": os.environ["PATH"], "HOME": "/", "NIX_CONFIG": config},
        stdout=subprocess.PIPE,
        check=True,
    )
    return f"sha256:{hashlib.sha256(done.stdout).hexdigest()}"


def test_a_directory(path: Path) -> None:
    (path / "foo").mkdir(parents=True)
    (path / "empty").mkdir()
    (path / "foo/bar").write_text("bar")
    (path / "foo-1.0").write_text("x" * 3_000_000)
    (path / "größe").symlink_to("nowhere")
    (path / "run").write_text("run")
    (path / "run").chmod(0o744)
    (path / "others").write_text("")
    (path / "others").chmod(0o655)
    latin = os.fsdecode(b"\xe4")
    (path / latin).write_text("latin")
    manifest, directory = locate(NAME, "not looked at")
    assert directory == str(path)
    assert manifest == [
        ["d", ""],
        ["d", "empty"],
        ["d", "foo"],
        ["f", "foo-1.0"],
        ["f", "foo/bar"],
        ["l", "größe", "nowhere"],
        ["f", "others"],
        ["x", "run"],
        ["f", latin],
    ]
    found, _, files = read_tree(manifest, directory)
    assert f"sha256:{found}" == nar_hash(path)
    assert files["foo/bar"] == (hashlib.sha256(b"bar").hexdigest(), 3)
    assert sorted(files) == sorted(["foo-1.0", "foo/bar", "others", "run", latin])


@pytest.mark.parametrize("kind", ["file", "executable", "symlink", "empty"])
def test_a_path_that_is_one_thing(path: Path, kind: str) -> None:
    if kind == "symlink":
        path.symlink_to("/nix/store/other")
    elif kind == "empty":
        path.mkdir()
    else:
        path.write_text("content")
        path.chmod(0o555 if kind == "executable" else 0o444)
    manifest, directory = locate(NAME, "")
    expected = {
        "file": ["f", ""],
        "executable": ["x", ""],
        "symlink": ["l", "", "/nix/store/other"],
        "empty": ["d", ""],
    }
    assert manifest == [expected[kind]]
    found, size, _ = read_tree(manifest, directory)
    assert f"sha256:{found}" == nar_hash(path)
    assert size > 0


def test_a_path_that_is_not_there(path: Path) -> None:
    with pytest.raises(ToolError, match=f"^{path} is not in the Nix store of this machine$"):
        locate(NAME, "")


def test_a_fifo(path: Path) -> None:
    path.mkdir()
    os.mkfifo(path / "fifo")
    with pytest.raises(ToolError, match="/fifo is neither a file, a directory nor a symlink$"):
        locate(NAME, "")


@pytest.mark.parametrize("hacked", [True, False])
def test_case_hack(path: Path, hacked: bool) -> None:
    """Whether a suffix is one is what the NAR hash says: it is a name like any other, too."""
    (path / "Dir~nix~case~hack~1/sub").mkdir(parents=True)
    (path / "dir").mkdir()
    (path / "Dir~nix~case~hack~1/sub/File").write_text("one")
    (path / "Dir~nix~case~hack~1/sub/file~nix~case~hack~2").write_text("two")
    config = "use-case-hack = true" if hacked else "use-case-hack = false"
    expected = nar_hash(path, config)
    manifest, directory = locate(NAME, expected)
    assert f"sha256:{read_tree(manifest, directory)[0]}" == expected
    names = [entry[1] for entry in manifest]
    assert ("Dir/sub/file" in names) == hacked
    if hacked:
        on_disk = "Dir~nix~case~hack~1/sub/file~nix~case~hack~2"
        assert ["f", "Dir/sub/file", on_disk] in manifest


def test_names_without_the_suffix() -> None:
    assert strip_case_hack("Foo~nix~case~hack~12") == "Foo"
    assert strip_case_hack("Foo") == "Foo"


def test_hashes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_hash(NAME, "sha256:aa", "sha256:aa")
    monkeypatch.setattr(nix_cli, "registered_hash", lambda _: "sha256:aa")
    with pytest.raises(ToolError, match=f"^{path} is corrupted: its NAR hash is sha256:bb, but sh"):
        check_hash(NAME, "sha256:aa", "sha256:bb")
    monkeypatch.setattr(nix_cli, "registered_hash", lambda _: None)
    with pytest.raises(ToolError, match="is corrupted"):
        check_hash(NAME, "sha256:aa", "sha256:bb")
    monkeypatch.setattr(nix_cli, "registered_hash", lambda _: "sha256:bb")
    with pytest.raises(ToolError, match="on this machine, where it was built to other content"):
        check_hash(NAME, "sha256:aa", "sha256:bb")


def test_what_changed_while_it_was_read(path: Path) -> None:
    path.mkdir()
    (path / "file").write_text("x")
    manifest = read_manifest(str(path))
    (path / "file").unlink()
    with pytest.raises(ToolError, match="^cannot read .*/file: No such file or directory"):
        read_tree(manifest, str(path))
