from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from docker_nix.layer.tool import nix_store
from docker_nix.layer.tool import pack as pack_module
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.nar import nar_hash_of_tree
from docker_nix.layer.tool.pack import main, thread_count
from docker_nix.layer.tool.testing import library_dir

ONE = "0123456789abcdfghijklmnpqrsvwxyz-one-1.0"
TWO = "1123456789abcdfghijklmnpqrsvwxyz-two"
LINKS_ONLY = {"uid": 0, "gid": 0, "links": [], "script": None, "store": []}


@pytest.fixture(autouse=True)
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _spec(*paths: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"compression": "gzip", "paths": list(paths), "root": None, **fields}


def _store_path(name: str, files: dict[str, bytes], *others: list[str]) -> dict[str, Any]:
    """Writes the files of a tree; those called `x` are executable."""
    entries = list(others)
    for path, content in files.items():
        file = Path("in", name, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        executable = file.name == "x"
        file.chmod(0o755 if executable else 0o644)
        entries.append(["x" if executable else "f", path])
    return {"name": name, "source": "tree", "entries": entries}


def _pack(spec: dict[str, Any], threads: str = "1") -> dict[str, Any]:
    Path("spec.json").write_text(json.dumps(spec))
    main(["--threads", threads, "spec.json"], str(library_dir()))
    metadata: dict[str, Any] = json.loads(Path("layer.json").read_text())
    return metadata


def _tar() -> bytes:
    return gzip.decompress(Path("layer.blob").read_bytes())


def _members() -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(_tar())) as tar:
        members = tar.getmembers()
    assert len({member.name for member in members}) == len(members)
    return {member.name: member for member in members}


def _two_paths() -> dict[str, Any]:
    one = _store_path(
        ONE, {"bin/x": b"#!", "lib/a": b"a" * 600, "lib-2/b": b""}, ["l", "lib/l", "a"]
    )
    two = _store_path(TWO, {"f": b"f"}, ["d", "var/empty"])
    return _spec(two, one)


def test_the_store_part() -> None:
    metadata = _pack(_two_paths())
    top = f"nix/store/{ONE}"
    lines = [
        (member.name, member.type, oct(member.mode), member.size, member.linkname)
        for member in _members().values()
    ]
    assert lines == [
        ("nix", b"5", "0o755", 0, ""),
        ("nix/store", b"5", "0o755", 0, ""),
        (top, b"5", "0o555", 0, ""),
        (f"{top}/bin", b"5", "0o555", 0, ""),
        (f"{top}/bin/x", b"0", "0o555", 2, ""),
        (f"{top}/lib", b"5", "0o555", 0, ""),
        (f"{top}/lib-2", b"5", "0o555", 0, ""),
        (f"{top}/lib-2/b", b"0", "0o444", 0, ""),
        (f"{top}/lib/a", b"0", "0o444", 600, ""),
        (f"{top}/lib/l", b"2", "0o777", 0, "a"),
        (f"nix/store/{TWO}", b"5", "0o555", 0, ""),
        (f"nix/store/{TWO}/f", b"0", "0o444", 1, ""),
        (f"nix/store/{TWO}/var", b"5", "0o555", 0, ""),
        (f"nix/store/{TWO}/var/empty", b"5", "0o555", 0, ""),
    ]
    for member in _members().values():
        assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
        assert member.mtime == 1
    tar, blob = _tar(), Path("layer.blob").read_bytes()
    assert tar.endswith(bytes(1024)) and not tar.endswith(bytes(2048))
    Path("in", ONE, "lib", "l").symlink_to("a")
    Path("in", TWO, "var", "empty").mkdir(parents=True)
    nars = {}
    for name in (ONE, TWO):
        digest, size = nar_hash_of_tree(Path("in", name))
        nars[name] = {"nar_hash": f"sha256:{digest}", "nar_size": size}
    assert metadata == {
        "version": 1,
        "compression": "gzip",
        "diff_id": f"sha256:{hashlib.sha256(tar).hexdigest()}",
        "diff_size": len(tar),
        "digest": f"sha256:{hashlib.sha256(blob).hexdigest()}",
        "size": len(blob),
        "paths": nars,
    }
    text = json.dumps(metadata, sort_keys=True, separators=(",", ":")) + "\n"
    assert Path("layer.json").read_text() == text


def test_the_bytes_do_not_depend_on_modes_umask_times_and_order() -> None:
    first = _pack(_two_paths())
    Path("layer.blob").unlink()
    os.umask(0o077)
    try:
        spec = _two_paths()
    finally:
        os.umask(0o022)
    spec["paths"].reverse()
    for path in spec["paths"]:
        path["entries"].reverse()
    for file in Path("in").rglob("*"):
        file.chmod(0o755)
        os.utime(file, (0, 0))
    assert _pack(spec) == first


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_the_bytes_do_not_depend_on_threads(compression: str) -> None:
    files = {f"d{n % 7}/f{n}": b"%d" % n * (n * 50) for n in range(300)}
    spec = _spec(_store_path(ONE, files), compression=compression)
    results = []
    for threads in ("1", "2", "3", "8", "{pants_concurrency}"):
        metadata = _pack(spec, threads)
        results.append((Path("layer.blob").read_bytes(), metadata))
        Path("layer.blob").unlink()
    assert results[0][1]["diff_size"] > 2 * 1024 * 1024
    assert all(result == results[0] for result in results)


def test_contents_come_back_across_blocks() -> None:
    files = {f"{n}": os.urandom(n) for n in (0, 1, 511, 512, 513, (1 << 20) - 512, 3 << 20)}
    _pack(_spec(_store_path(ONE, files)), "2")
    with tarfile.open(fileobj=io.BytesIO(_tar())) as tar:
        for path, content in files.items():
            file = tar.extractfile(f"nix/store/{ONE}/{path}")
            assert file is not None and file.read() == content


def test_a_store_path_that_is_a_file() -> None:
    Path("in").mkdir()
    Path("in", ONE).write_bytes(b"content")
    metadata = _pack(_spec({"name": ONE, "source": "tree", "entries": [["f", ""]]}))
    assert _members()[f"nix/store/{ONE}"].isreg()
    Path("in", ONE).chmod(0o644)
    digest, size = nar_hash_of_tree(Path("in", ONE))
    assert metadata["paths"][ONE] == {"nar_hash": f"sha256:{digest}", "nar_size": size}


def test_an_archive_is_unpacked() -> None:
    Path("in", ONE).mkdir(parents=True)
    with tarfile.open(Path("in", ONE, "a.tar.gz"), "w:gz") as tar:
        member = tarfile.TarInfo("bin/x")
        member.size, member.mode = 2, 0o755
        tar.addfile(member, io.BytesIO(b"#!"))
    _pack(
        _spec({"name": ONE, "source": "archive", "file": "a.tar.gz", "format": "tar.gz"}),
    )
    assert _members()[f"nix/store/{ONE}/bin/x"].mode == 0o555
    assert not Path("scratch").exists()


def test_nothing_is_an_empty_archive() -> None:
    metadata = _pack(_spec(compression="none"))
    assert Path("layer.blob").read_bytes() == bytes(1024)
    assert metadata["digest"] == metadata["diff_id"]
    assert metadata["paths"] == {}


def test_links_alone() -> None:
    links = [["l", "bin/sh", "/nix/store/x/bin/sh"], ["d", "tmp"]]
    _pack(_spec(root={**LINKS_ONLY, "uid": 1000, "gid": 100, "links": links}))
    assert [(m.name, m.type, oct(m.mode), m.linkname) for m in _members().values()] == [
        ("bin", b"5", "0o755", ""),
        ("bin/sh", b"2", "0o777", "/nix/store/x/bin/sh"),
        ("tmp", b"5", "0o755", ""),
    ]
    assert {(m.uid, m.gid, m.mtime) for m in _members().values()} == {(1000, 100, 1)}
    assert not Path("scratch").exists()


def test_both_parts_in_one_order() -> None:
    root = {**LINKS_ONLY, "uid": 5, "links": [["l", "etc/a", "b"], ["d", "nix/var"], ["d", "usr"]]}
    _pack(_spec(_store_path(ONE, {"f": b""}), root=root))
    assert [(m.name, m.uid) for m in _members().values()] == [
        ("etc", 5),
        ("etc/a", 5),
        ("nix", 0),
        ("nix/store", 0),
        (f"nix/store/{ONE}", 0),
        (f"nix/store/{ONE}/f", 0),
        ("nix/var", 5),
        ("usr", 5),
    ]


def _missing_file() -> dict[str, Any]:
    return {"name": ONE, "source": "tree", "entries": [["f", "a\nb"]]}


@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_missing_file(threads: str) -> None:
    big = _store_path("0" * 32 + "-big", {"f": bytes(5 << 20)})
    with pytest.raises(ToolError, match=rf"cannot read in/{ONE}/a\\nb: No such file"):
        _pack(_spec(big, _missing_file()), threads)
    assert sorted(os.listdir()) == ["in", "spec.json"]


def test_a_directory_in_place_of_a_file() -> None:
    Path("in", ONE, "d").mkdir(parents=True)
    with pytest.raises(ToolError, match=f"cannot read in/{ONE}/d: it is not a regular file"):
        _pack(_spec({"name": ONE, "source": "tree", "entries": [["f", "d"]]}))


def test_an_unreadable_file() -> None:
    spec = _spec(_store_path(ONE, {"f": b""}))
    Path("in", ONE, "f").chmod(0)
    user = os.geteuid()
    if user == 0:  # who may read anything
        Path().chmod(0o777)
        os.seteuid(65534)
    try:
        with pytest.raises(ToolError, match=f"cannot read in/{ONE}/f: Permission denied"):
            _pack(spec)
    finally:
        os.seteuid(user)


def test_a_file_that_shrinks(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = _spec(_store_path(ONE, {"f": b"content"}))
    monkeypatch.setattr(os, "readv", lambda fd, views: 0)
    with pytest.raises(ToolError, match=f"in/{ONE}/f became shorter while it was read"):
        _pack(spec)


@pytest.mark.parametrize(
    "spec, message",
    [
        (_spec(compression="lzma"), "unknown compression 'lzma'"),
        (_spec({"name": ONE, "source": "net"}), f"unknown source 'net' of {ONE}"),
        (_spec(*[{"name": ONE, "source": "tree", "entries": []}] * 2), "is in the layer twice"),
        (
            _spec(
                {"name": ONE, "source": "tree", "entries": []},
                root={**LINKS_ONLY, "links": [["l", "nix/store", "/elsewhere"]]},
            ),
            "nix/store is part of the store and of the files at /",
        ),
        (_spec(root={**LINKS_ONLY, "links": [["l", ".wh.etc", "x"]]}), r"\.wh\."),
    ],
)
def test_bad_specs(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ToolError, match=message):
        _pack(spec)
    assert os.listdir() == ["spec.json"]


def test_metadata_that_cannot_be_written_takes_the_blob_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pack_module, "METADATA", "missing/layer.json")
    with pytest.raises(FileNotFoundError):
        _pack(_spec())
    assert not Path("layer.blob").exists()


def test_arguments() -> None:
    with pytest.raises(ToolError, match="usage: pack --threads N SPEC"):
        main(["spec.json"], "lib")


def test_thread_count() -> None:
    assert thread_count("3") == 3
    assert thread_count("0") == 1
    assert thread_count("{pants_concurrency}") >= 1


@pytest.mark.parametrize("kind", ["directory", "file", "symlink"])
def test_a_path_of_a_nix_store(sandbox: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """It is read from the store, and is a layer only if it is what Nix says."""
    monkeypatch.setattr(nix_store, "STORE_DIR", str(sandbox / "store"))
    path = sandbox / "store" / ONE
    path.parent.mkdir()
    if kind == "directory":
        path.mkdir()
        (path / "x").write_text("#!")
        (path / "x").chmod(0o700)
    elif kind == "file":
        path.write_text("content")
    else:
        path.symlink_to("/nix/store/other")
    nar_hash, size = nar_hash_of_tree(path)
    spec = {"name": ONE, "source": "nix", "nar_hash": f"sha256:{nar_hash}"}
    metadata = _pack(_spec(spec))
    assert metadata["paths"] == {ONE: {"nar_hash": f"sha256:{nar_hash}", "nar_size": size}}
    top = _members()[f"nix/store/{ONE}"]
    if kind == "directory":
        assert (top.isdir(), top.mode) == (True, 0o555)
        assert _members()[f"nix/store/{ONE}/x"].mode == 0o555
    elif kind == "file":
        assert (top.isfile(), top.mode, top.size) == (True, 0o444, 7)
    else:
        assert (top.issym(), top.linkname) == (True, "/nix/store/other")

    for output in ("layer.blob", "layer.json"):
        (sandbox / output).unlink()
    with pytest.raises(ToolError, match=f"{ONE} is corrupted: its NAR hash is sha256:{nar_hash}"):
        _pack(_spec({**spec, "nar_hash": f"sha256:{'0' * 64}"}))
    assert sorted(os.listdir(sandbox)) == ["spec.json", "store"]
    with pytest.raises(ToolError, match=f"{TWO} is not in the Nix store of this machine"):
        _pack(_spec({**spec, "name": TWO}))


def test_a_script_reads_a_path_of_a_nix_store(
    sandbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nix_store, "STORE_DIR", str(sandbox / "store"))
    path = sandbox / "store" / ONE
    path.mkdir(parents=True)
    (path / "f").write_text("good")
    nar_hash, _ = nar_hash_of_tree(path)
    readable = {"name": ONE, "source": "nix", "nar_hash": f"sha256:{nar_hash}"}
    root = {**LINKS_ONLY, "script": f"cp $STORE_ROOT/nix/store/{ONE}/f f", "store": [readable]}
    _pack(_spec(root=root))
    assert _members()["f"].size == 4
    (path / "f").write_text("evil")
    with pytest.raises(ToolError, match="is corrupted"):
        _pack(_spec(root=root))
