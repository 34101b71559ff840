from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from docker_nix.layer.tool import layer_index, nix_db
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.layer_index import index_layer
from docker_nix.layer.tool.tar_format import (
    BLOCK_DEVICE,
    CHARACTER_DEVICE,
    DIRECTORY,
    END,
    FIFO,
    FILE,
    HARDLINK,
    PADDING,
    SYMLINK,
    special_header,
)
from docker_nix.layer.tool.testing import library_dir

EMPTY = hashlib.sha256().hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def file(name: bytes, data: bytes = b"", mode: int = 0o644, **fields: Any) -> bytes:
    block = special_header(name, FILE, mode, len(data), **fields)
    return block + data + PADDING[len(data) % 512]


def directory(name: bytes, mode: int = 0o755, **fields: Any) -> bytes:
    return special_header(name, DIRECTORY, mode, **fields)


def symlink(name: bytes, target: bytes) -> bytes:
    return special_header(name, SYMLINK, 0o777, link=target)


def hardlink(name: bytes, target: bytes) -> bytes:
    return special_header(name, HARDLINK, 0o600, uid=9, link=target)


@pytest.fixture(autouse=True)
def in_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def index(*members: bytes) -> dict[str, Any]:
    """The index of a layer, as the command writes it."""
    tar = b"".join(members) + END
    Path("blob").write_bytes(gzip.compress(tar))
    Path("spec.json").write_text(json.dumps({"file": "blob", "diff_id": f"sha256:{sha256(tar)}"}))
    layer_index.main(["spec.json"], "")
    result: dict[str, Any] = json.loads(Path("layer-index.json").read_text())
    return result


def entries(*members: bytes) -> list[Any]:
    found: list[Any] = index(*members)["entries"]
    return found


def paths(*members: bytes) -> list[str]:
    return [f"{kind} {path}" for kind, path, *_ in entries(*members)]


def test_the_form() -> None:
    assert entries(
        special_header(b"p", FIFO, 0o600),
        directory(b"./", 0o1777, uid=3),
        file(b"b", b"data", 0o4755, uid=1000, gid=4_000_000_000),
        special_header(b"n", CHARACTER_DEVICE, 0o666, device=(1, 3)),
        special_header(b"sda", BLOCK_DEVICE, 0o660, gid=6, device=(8, 1)),
        symlink(b"a", b"../x"),
        hardlink(b"c", b"b"),
        hardlink(b"e", b"lower/file"),
        hardlink(b"f", b"e"),
    ) == [
        ["d", "", 0o1777, 3, 0],
        ["l", "a", 0o777, 0, 0, "../x"],
        ["f", "b", 0o4755, 1000, 4_000_000_000, 4, sha256(b"data")],
        ["f", "c", 0o4755, 1000, 4_000_000_000, 4, sha256(b"data")],
        ["h", "e", 0o600, 9, 0, "lower/file"],
        ["h", "f", 0o600, 9, 0, "lower/file"],
        ["c", "n", 0o666, 0, 0, 1, 3],
        ["p", "p", 0o600, 0, 0],
        ["b", "sda", 0o660, 0, 6, 8, 1],
    ]


def test_the_bytes() -> None:
    tar = file(b"b\xff") + file(b".wh.a") + END
    Path("blob").write_bytes(tar)
    Path("spec.json").write_text('{"file": "blob", "diff_id": null}')
    layer_index.main(["spec.json"], "")
    digest = f'"sha256:{sha256(tar)}"'
    assert (
        Path("layer-index.json").read_bytes()
        == (
            f'{{"compression":"none","diff_id":{digest},"diff_size":2048,"digest":{digest},'
            f'"entries":[["f","b\\udcff",420,0,0,0,"{EMPTY}"]],"opaque":[],"size":2048,"version":1,'
            '"whiteouts":["a"]}'
        ).encode()
    )


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_digests_and_sizes(compression: str) -> None:
    # What follows the end of the archive is part of the layer, and of its diff_id.
    tar = file(b"a", b"x" * 100_000) + END + bytes(8192) + b"more" * 100_000
    blob = tar
    if compression != "none":
        command = {"gzip": ["gzip", "-n"], "zstd": ["zstd", "-c"]}[compression]
        blob = subprocess.run(command, input=tar, check=True, stdout=subprocess.PIPE).stdout
    Path("blob").write_bytes(blob)
    diff_id = f"sha256:{sha256(tar)}"
    for expected in (None, diff_id):
        assert index_layer("blob", str(library_dir()), expected) == {
            "version": 1,
            "compression": compression,
            "digest": f"sha256:{sha256(blob)}",
            "size": len(blob),
            "diff_id": diff_id,
            "diff_size": len(tar),
            "entries": [["f", "a", 0o644, 0, 0, 100_000, sha256(b"x" * 100_000)]],
            "whiteouts": [],
            "opaque": [],
        }


def test_an_empty_layer() -> None:
    for tar in (b"", END, bytes(10240)):
        Path("blob").write_bytes(tar)
        found = index_layer("blob", "", None)
        assert (found["entries"], found["diff_size"]) == ([], len(tar))


def test_paths_are_sorted_by_their_bytes_and_parents_are_not_listed() -> None:
    names = [b"a/b/c", b"a.b", b"a-b", b"a/b-", "\uffff".encode(), "\U00010000".encode(), b"\xff"]
    assert paths(*map(file, reversed(names)), directory(b"a/b")) == [
        "f a-b",
        "f a.b",
        "d a/b",
        "f a/b-",
        "f a/b/c",
        "f \uffff",
        "f \U00010000",
        "f \udcff",
    ]


def test_the_last_of_several_members_wins() -> None:
    found = entries(
        file(b"f", b"1"),
        hardlink(b"h", b"f"),
        file(b"f", b"2"),
        directory(b"d", 0o700),
        file(b"d/x", b"3"),
        directory(b"d", 0o711),
        symlink(b"s", b"d"),
        symlink(b"s", b"f"),
    )
    assert found == [
        ["d", "d", 0o711, 0, 0],
        ["f", "d/x", 0o644, 0, 0, 1, sha256(b"3")],
        ["f", "f", 0o644, 0, 0, 1, sha256(b"2")],
        ["f", "h", 0o644, 0, 0, 1, sha256(b"1")],
        ["l", "s", 0o777, 0, 0, "f"],
    ]


def test_what_was_below_a_replaced_directory_is_gone() -> None:
    below = [directory(b"d"), directory(b"d/e"), file(b"d/e/f"), file(b"d/x"), file(b"d.x")]
    assert paths(*below, file(b"d")) == ["f d", "f d.x"]
    assert paths(*below, symlink(b"d", b"e")) == ["l d", "f d.x"]
    assert paths(*below, symlink(b"d", b"e"), directory(b"d"), file(b"d/y")) == [
        "d d",
        "f d.x",
        "f d/y",
    ]
    assert paths(file(b"implied/x"), file(b"implied")) == ["f implied"]


def test_below_symlinks_of_the_layer() -> None:
    assert paths(symlink(b"bin", b"/usr/bin"), file(b"bin/sh"), directory(b"usr")) == [
        "l bin",
        "d usr",
        "f usr/bin/sh",
    ]


def test_whiteouts_are_listed_and_hide_nothing_here() -> None:
    marks = [b".wh.z", b".wh.a", b"d/.wh.x", b"d/.wh..wh..opq", b".wh.a", b".wh..wh..opq"]
    marks += [b"d/.wh..wh..opq", b".wh.\xff", b".wh..wh.plnk"]
    found = index(file(b"a"), file(b"d/x"), *map(file, marks))
    assert found["whiteouts"] == ["a", "d/x", "z", "\udcff"]
    assert found["opaque"] == ["", "d"]
    assert [path for _, path, *_ in found["entries"]] == ["a", "d/x"]


def test_a_layer_that_gnu_tar_made(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "d" / ("n" * 120)).mkdir(parents=True)
    for number in range(1000):
        (root / "d" / ("n" * 120) / f"file {number}").write_bytes(b"%d" % number)
    (root / "link").symlink_to("t" * 200)
    os.link(root / "d" / ("n" * 120) / "file 7", root / "d/zz")
    command = ["tar", "-cf", "blob", "--sort=name", "--owner=5", "--group=6", "-C", "root", "."]
    subprocess.run(command, check=True)
    found = index_layer("blob", "", None)["entries"]
    by_path = {entry[1]: entry for entry in found}
    assert len(found) == 1000 + 5
    assert by_path[""][0] == "d"
    assert by_path["link"] == ["l", "link", 0o777, 5, 6, "t" * 200]
    for number in range(1000):
        path = f"d/{'n' * 120}/file {number}"
        data = b"%d" % number
        assert by_path[path][3:] == [5, 6, len(data), sha256(data)]
    assert by_path["d/zz"][5:] == [1, sha256(b"7")]


@pytest.mark.parametrize(
    "members, says",
    [
        ([file(b"a/../b")], '".."'),
        ([file(b"f"), file(b"f/x")], "member f/x lies below f, which is not a directory"),
        ([directory(b"d"), hardlink(b"h", b"d")], "hard link to the directory d"),
        ([special_header(b"x", b"Z", 0)], "unknown type"),
    ],
)
def test_what_no_layer_can_hold(members: list[bytes], says: str) -> None:
    with pytest.raises(ToolError, match="^the layer .*in the file blob") as raised:
        index(*members)
    assert says in str(raised.value)
    assert not Path("layer-index.json").exists()


def test_damage() -> None:
    good = index(file(b"a", os.urandom(50_000)))
    Path("layer-index.json").unlink()
    whole = Path("blob").read_bytes()
    Path("blob").write_bytes(whole[:-9])
    with pytest.raises(ToolError, match="in the file blob cannot be read"):
        layer_index.main(["spec.json"], "")
    Path("blob").write_bytes(whole)
    wrong = "sha256:" + "0" * 64
    with pytest.raises(ToolError, match=f"{wrong} .* another content, {good['diff_id']}"):
        index_layer("blob", "", wrong)
    with pytest.raises(ToolError, match="usage"):
        layer_index.main([], "")
    assert not Path("layer-index.json").exists()


def test_memory_does_not_grow_with_files() -> None:
    Path("blob").write_bytes(gzip.compress(file(b"a", bytes(30_000_000)), 1))
    tracemalloc.start()
    found = index_layer("blob", "", None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found["entries"][0][5] == 30_000_000
    assert peak < 3_000_000


def test_the_valid_paths_of_a_nix_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    a, b = "/nix/store/aaa-x", "/nix/store/bbb-y"
    infos = [
        nix_db.PathInfo(b, f"sha256:{'2' * 64}", 7, [a, b]),
        nix_db.PathInfo(a, f"sha256:{'1' * 64}", 5, []),
    ]
    for content, expected in (
        (
            nix_db.database(infos),
            [[a, f"sha256:{'1' * 64}", 5, []], [b, f"sha256:{'2' * 64}", 7, [a, b]]],
        ),
        (b"no database", []),
    ):
        with tarfile.open("layer", "w") as archive:
            member = tarfile.TarInfo("nix/var/nix/db/db.sqlite")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        index = layer_index.index_layer("layer", "", None)
        assert index["nix_db"] == expected
        assert index["entries"][-1][6] == hashlib.sha256(content).hexdigest()
    assert os.listdir() == ["layer"]
