from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import tarfile
import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any, Callable

import pytest

from docker_nix.layer.tool import tar_format
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.layer_members import (
    Change,
    LayerFile,
    Member,
    Opaque,
    layer_members,
    sniff_compression,
)
from docker_nix.layer.tool.testing import library_dir

DEEP = b"/".join([b"component"] * 60)


def gnu_tar(directory: Path, *args: str) -> bytes:
    return subprocess.run(
        ["tar", "--create", "--sort=name", "--directory", str(directory), *args],
        check=True,
        stdout=subprocess.PIPE,
    ).stdout


def one(name: bytes, kind: bytes = tar_format.FILE, **fields: Any) -> bytes:
    return tar_format.special_header(name, kind, 0o644, **fields)


def regular(name: bytes, data: bytes) -> bytes:
    return one(name, size=len(data)) + data + tar_format.PADDING[len(data) % 512]


def shown(change: Change) -> tuple[Any, ...]:
    """What a change does, in short; of a member with the content it must be read for now."""
    if not isinstance(change, Member):
        return ("opaque" if isinstance(change, Opaque) else "whiteout", change.path)
    data = b"".join(iter(partial(change.data.read, 1000), b"")) if change.data else None
    assert (data is not None) == (change.kind == "f")
    assert change.size == len(data or b"")
    return (change.kind, change.path, *(x for x in (change.link, data) if x))


def read(data: bytes) -> list[tuple[Any, ...]]:
    return [shown(change) for change in layer_members(io.BytesIO(data))]


def members(data: bytes) -> list[Member]:
    found = list(layer_members(io.BytesIO(data)))
    assert all(isinstance(member, Member) for member in found)
    return found  # type: ignore[return-value]


def error(data: bytes) -> str:
    with pytest.raises(ToolError) as raised:
        read(data)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def make_tree(root: Path) -> None:
    """A directory with all that the formats of tar can hold, and names that need extensions."""
    (root / "d").mkdir(parents=True)
    (root / "d/file").write_bytes(b"content" * 1000)
    (root / "d/empty").touch()
    os.link(root / "d/file", root / "d/hard")
    os.symlink("../x/" + "y" * 150, root / "d/symlink")
    os.symlink(b"\xff\xfe", os.fsencode(root) + b"/d/symlink-not-utf8")
    os.mkfifo(root / "fifo")
    os.makedirs(os.fsencode(root) + b"/" + DEEP)
    (root / os.fsdecode(DEEP) / "file").write_bytes(b"deep")
    os.link(root / os.fsdecode(DEEP) / "file", root / "to-deep")
    (root / "größe 日本").write_bytes(b"unicode")
    with open(os.fsencode(root) + b"/\xe4\xff", "wb") as file:
        file.write(b"bytes")
    (root / "d").chmod(0o1777)
    (root / "d/file").chmod(0o4755)


EXPECTED = sorted(
    [
        ("d", b""),
        ("d", b"d"),
        ("f", b"d/file", b"content" * 1000),
        ("f", b"d/empty"),
        ("h", b"d/hard", b"d/file"),
        ("l", b"d/symlink", b"../x/" + b"y" * 150),
        ("l", b"d/symlink-not-utf8", b"\xff\xfe"),
        ("p", b"fifo"),
        *(("d", b"/".join([b"component"] * depth)) for depth in range(1, 61)),
        ("f", DEEP + b"/file", b"deep"),
        ("h", b"to-deep", DEEP + b"/file"),
        ("f", "größe 日本".encode(), b"unicode"),
        ("f", b"\xe4\xff", b"bytes"),
    ]
)


@pytest.mark.parametrize("format", ["gnu", "pax", "oldgnu"])
def test_layers_that_gnu_tar_made(format: str, tmp_path: Path) -> None:
    make_tree(tmp_path)
    data = gnu_tar(tmp_path, f"--format={format}", "--owner=:70000", "--group=:4000000000", ".")
    assert sorted(read(data)) == EXPECTED
    by_path = {member.path: member for member in members(data)}
    assert by_path[b"d"].mode == 0o1777
    assert by_path[b"d/file"].mode == 0o4755
    assert {(member.uid, member.gid) for member in by_path.values()} == {(70000, 4000000000)}


def test_layers_that_bsdtar_made(tmp_path: Path) -> None:
    make_tree(tmp_path)
    (tmp_path / "tree").mkdir()
    for name in os.listdir(tmp_path):
        if name != "tree":
            (tmp_path / name).rename(tmp_path / "tree" / name)
    data = subprocess.run(
        ["bsdtar", "-c", "--format=pax", "-C", str(tmp_path / "tree"), "."],
        check=True,
        stdout=subprocess.PIPE,
        env={"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]},
    ).stdout
    found = read(data)
    # Which of two hard links is the file depends on the order in the directory.
    expected = [("f" if row[0] == "h" else row[0], row[1]) for row in EXPECTED]
    assert sorted(("f" if row[0] == "h" else row[0], row[1]) for row in found) == sorted(expected)


def test_names_are_normalised() -> None:
    data = b"".join(
        [
            one(b"./", tar_format.DIRECTORY),
            one(b"/abs"),
            one(b".//a/./b"),
            one(b"/./h", tar_format.HARDLINK, link=b"./abs"),
            one(b"i", tar_format.HARDLINK, link=b"//a/b/"),
            one(b"s", tar_format.SYMLINK, link=b".././/x/"),
        ]
    )
    assert read(data) == [
        ("d", b""),
        ("f", b"abs"),
        ("f", b"a/b"),
        ("h", b"h", b"abs"),
        ("h", b"i", b"a/b"),
        ("l", b"s", b".././/x/"),
    ]


@pytest.mark.parametrize(
    "member, says",
    [
        (one(b"../x"), '".."'),
        (one(b"a/../b"), '".."'),
        (one(b"a/.."), '".."'),
        (one(b"h", tar_format.HARDLINK, link=b"../../etc/shadow"), '".."'),
        (one(b"h", tar_format.HARDLINK, link=b"/"), "hard link"),
        (one(b"h", tar_format.HARDLINK, link=b"a/.wh.b"), "hard link"),
        (one(b"s", tar_format.SYMLINK), "symlink to nothing"),
        (one(b"n" * 120 + b"\0x"), "NUL"),
        (one(b"s", tar_format.SYMLINK, link=b"n" * 120 + b"\0x"), "symlink"),
        (one(b"."), "root of the layer"),
        (one(b""), "root of the layer"),
        (one(b"x", b"V"), "unknown type b'V'"),
        (one(b"x", b"Z"), "unknown type b'Z'"),
        (one(b"x", uid=2**32 - 1), "impossible owner"),
        (one(b"a/.wh."), "whiteout"),
        (one(b"a/.wh..."), "whiteout"),
        (one(b"a/.wh.."), "whiteout"),
        (one(b".wh.a/b"), "whiteout"),
        (one(b".wh.a/.wh..wh..opq", size=0), ""),
    ],
)
def test_what_no_layer_can_hold_is_an_error(member: bytes, says: str) -> None:
    if says:
        assert says in error(one(b"before") + member + one(b"after"))
    else:  # below a whiteout, metadata is metadata
        assert read(member) == []


def test_negative_owners_and_devices_are_errors() -> None:
    for field in ("uid", "devmajor"):
        info = tarfile.TarInfo("null")
        info.type = tarfile.CHRTYPE
        setattr(info, field, -1)
        block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        if field == "devmajor":  # which tarfile does not write
            block[329:337] = b"\xff" * 8
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
        assert "impossible" in error(bytes(block))


def test_whiteouts() -> None:
    names = [b".wh.a", b"d/.wh.b", b"d/.wh..wh..opq", b".wh..wh..opq", b"d/.wh..c", b"d/.wh.a.wh.b"]
    names += [b"d.wh.x/.wh..wh..opq", b"x.wh.y"]
    assert read(b"".join(map(one, names))) == [
        ("whiteout", b"a"),
        ("whiteout", b"d/b"),
        ("opaque", b"d"),
        ("opaque", b""),
        ("whiteout", b"d/.c"),
        ("whiteout", b"d/a.wh.b"),
        ("opaque", b"d.wh.x"),
        ("f", b"x.wh.y"),
    ]


def test_aufs_metadata_is_skipped() -> None:
    data = one(b".wh..wh.plnk", tar_format.DIRECTORY) + regular(b".wh..wh.plnk/123.45", b"abc")
    data += one(b".wh..wh.orph", tar_format.DIRECTORY)
    data += one(b".wh..wh.aufs") + one(b"d/.wh.x", tar_format.HARDLINK, link=b".wh..wh.aufs")
    assert read(data + one(b"file")) == [("whiteout", b"d/x"), ("f", b"file")]


def test_devices() -> None:
    data = one(b"n", tar_format.CHARACTER_DEVICE, device=(1, 3))
    data += one(b"b", tar_format.BLOCK_DEVICE, device=(259, 70000)) + one(b"p", tar_format.FIFO)
    assert [(member.kind, member.device) for member in members(data)] == [
        ("c", (1, 3)),
        ("b", (259, 70000)),
        ("p", (0, 0)),
    ]


def test_old_types() -> None:
    data = one(b"contiguous", b"7", size=3) + b"abc" + tar_format.PADDING[3]
    data += one(b"v7", b"\0") + one(b"v7-directory/", b"\0")
    assert read(data) == [("f", b"contiguous", b"abc"), ("f", b"v7"), ("d", b"v7-directory")]


def test_hard_links_have_no_content() -> None:
    (member,) = members(one(b"h", tar_format.HARDLINK, link=b"f", xattrs={b"user.a": b"1"}))
    assert (member.size, member.data, member.xattrs) == (0, None, {b"user.a": b"1"})


ATTRIBUTES = {
    b"security.capability": bytes.fromhex("0100000200240000000000000000000000000000"),
    b"user.all": bytes(range(256)) + b"\n12 path=evil\n",
    b"user.utf8": "größe".encode(),
    b"user.surrogates": "\udc80\ud800".encode("utf-8", "surrogatepass"),
    b"user.empty": b"",
    b"user.\xff\xfe": b"x",
    b"user.long": b"\x80" * 5000,
}


def test_attributes_are_the_exact_bytes() -> None:
    data = one(b"f", xattrs=ATTRIBUTES) + one(b"g", xattrs={b"user.other": b"\n"}) + one(b"h")
    assert [member.xattrs for member in members(data)] == [ATTRIBUTES, {b"user.other": b"\n"}, {}]


def test_attributes_that_gnu_tar_wrote(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    values = {b"user.bytes": b"\0\xff\x80=\n", b"user.text": b"x"}
    for key, value in values.items():
        os.setxattr(file, key, value)
    data = gnu_tar(tmp_path, "--xattrs", "--xattrs-include=*", "file")
    (member,) = members(data)
    assert {key: member.xattrs[key] for key in values} == values


@pytest.mark.parametrize("format", ["--format=oldgnu", "0.0", "0.1", "1.0"])
@pytest.mark.parametrize("name", ["file", "n" * 120])
def test_sparse_files_are_read_with_their_holes(format: str, name: str, tmp_path: Path) -> None:
    content = bytearray(3_000_000)
    for number in range(12):  # more pieces than one header holds
        content[number * 200_000 + 50_000 : number * 200_000 + 50_005] = b"piece"
    with open(tmp_path / name, "wb") as file:
        for at in range(0, len(content), 4096):
            if any(content[at : at + 4096]):
                file.seek(at)
                file.write(content[at : at + 4096])
        file.truncate(len(content))
    (tmp_path / "z").write_bytes(b"after")
    version = [f"--sparse-version={format}", "--format=pax"] if format[0] != "-" else [format]
    data = gnu_tar(tmp_path, "--sparse", *version, name, "z")
    assert len(data) < 1_000_000
    assert read(data) == [("f", name.encode(), bytes(content)), ("f", b"z", b"after")]


def test_ends() -> None:
    assert read(b"") == []
    assert read(tar_format.END) == []
    assert read(one(b"a")) == [("f", b"a")]
    assert read(one(b"a") + tar_format.END[:512]) == [("f", b"a")]
    assert read(one(b"a") + tar_format.END + b"anything") == [("f", b"a")]


def test_damage_is_an_error() -> None:
    whole = regular(b"a", bytes(2000)) + regular(b"b", b"hello")
    assert len(read(whole)) == 2
    ends = [0, 512 + 2048, len(whole)]
    for length in range(0, len(whole) + 1, 64):
        if length in ends:
            read(whole[:length])
        else:
            assert "complete tar" in error(whole[:length])
    for at in (0, 100, 156, 2560 + 100):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        assert "complete tar" in error(bytes(damaged))
    assert "complete tar" in error(b"<html>" * 1000)


def test_the_data_of_a_truncated_file_is_an_error() -> None:
    data = one(b"a", size=200_000) + bytes(100_000)
    member = next(layer_members(io.BytesIO(data), "layer 7"))
    assert isinstance(member, Member) and member.data
    with pytest.raises(ToolError, match="layer 7 cannot be read"):
        while member.data.read(65536):
            pass


def compressed(data: bytes, compression: str) -> bytes:
    if compression == "zstd":
        command = ["zstd", "-c"]
        return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout
    return gzip.compress(data) if compression == "gzip" else data


@pytest.fixture
def layer_file(tmp_path: Path) -> Callable[..., LayerFile]:
    def layer_file(data: bytes, diff_id: str | None = None) -> LayerFile:
        path = tmp_path / "blob"
        path.write_bytes(data)
        return LayerFile(str(path), str(library_dir()), diff_id)

    return layer_file


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_files(compression: str, layer_file: Callable[..., LayerFile]) -> None:
    tar = regular(b"a", b"x" * 700) + tar_format.END
    tar += b"what follows counts" * 50_000
    diff_id = "sha256:" + hashlib.sha256(tar).hexdigest()
    for expected in (None, diff_id):
        layer = layer_file(compressed(tar, compression), expected)
        assert [shown(change) for change in layer] == [("f", b"a", b"x" * 700)]
        assert layer.compression == compression
        assert (layer.diff_id, layer.diff_size) == (diff_id, len(tar))
    wrong = "sha256:" + "0" * 64
    with pytest.raises(ToolError, match=f"layer {wrong} in the file .* another content, {diff_id}"):
        list(layer_file(compressed(tar, compression), wrong))


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_damaged_compression(compression: str, layer_file: Callable[..., LayerFile]) -> None:
    tar = regular(b"a", os.urandom(100_000))
    whole = compressed(tar + tar_format.END, compression)
    list(layer_file(whole))
    for length in (5, 50_000, len(whole) - 1):
        with pytest.raises(ToolError, match="in the file .* cannot be read"):
            list(layer_file(whole[:length]))
    with pytest.raises(ToolError, match="cannot be read"):
        list(layer_file(whole + b"garbage"))


def test_compression_is_known_by_the_first_bytes(tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    for start, compression in [
        (b"", "none"),
        (b"\x1f", "none"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\x5a\x2a\x4d\x18\0\0\0\0", "zstd"),
        (b"*M\x18", "none"),
        (b"file", "none"),
    ]:
        blob.write_bytes(start)
        assert sniff_compression(str(blob)) == compression


def test_zstd_that_starts_with_a_frame_without_content(
    layer_file: Callable[..., LayerFile],
) -> None:
    skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc"
    data = skippable + compressed(one(b"a"), "zstd") + skippable
    assert [shown(change) for change in layer_file(data)] == [("f", b"a")]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LayerFile(str(tmp_path / "none"), "")


def test_memory_does_not_grow_with_files(layer_file: Callable[..., LayerFile]) -> None:
    layer = layer_file(compressed(regular(b"a", bytes(30_000_000)), "gzip"))
    tracemalloc.start()
    for change in layer:
        assert isinstance(change, Member) and change.data
        while change.data.read(65536):
            pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000


@pytest.mark.parametrize("length", [512, 700, 1024])
def test_the_end_is_not_behind_a_header_that_says_more_of_the_next(length: int) -> None:
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
            archive.addfile(tarfile.TarInfo("n" * 300))
        cut = buffer.getvalue()[:length]
    with pytest.raises(ToolError):
        list(layer_members(io.BytesIO(cut)))
