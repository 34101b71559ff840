from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import io
import json
import lzma
import os
import random
import shutil
import stat
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any, Callable

import pytest

from docker_nix.layer.tool import archive
from docker_nix.layer.tool.archive import listing, unpack
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.testing import library_dir

Member = Any  # (name, data) or (TarInfo, data)


def tar(*members: Member, format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as file:
        for info, data in members:
            if isinstance(info, str):
                info = special(info, tarfile.REGTYPE)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def special(name: str, type: bytes, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = type, link, mode
    return info


def executable(name: str) -> tarfile.TarInfo:
    return special(name, tarfile.REGTYPE, mode=0o4711)


def directory(name: str) -> Member:
    return special(name, tarfile.DIRTYPE, mode=0o755), b""


def symlink(name: str, target: str) -> Member:
    return special(name, tarfile.SYMTYPE, target, 0o777), b""


def hardlink(name: str, target: str) -> Member:
    return special(name, tarfile.LNKTYPE, target), b""


def file_entry(kind: str, path: str, data: bytes) -> list[Any]:
    return [kind, path, len(data), hashlib.sha256(data).hexdigest()]


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., list[Any]]:
    """Lists and unpacks an archive, checks that both say the same, and returns the listing."""

    def read(data: bytes, format: str = "tar", lib_dir: str = "") -> list[Any]:
        path, into = tmp_path / "archive", tmp_path / "into"
        path.write_bytes(data)
        shutil.rmtree(into, ignore_errors=True)
        try:
            entries = unpack(str(path), format, str(into), lib_dir)
        except ToolError as error:
            assert not into.exists()
            with pytest.raises(ToolError) as listing_error:
                listing(str(path), format, lib_dir)
            assert str(listing_error.value).replace("read:", "unpacked:") == str(error).replace(
                "read:", "unpacked:"
            )
            raise
        listed = listing(str(path), format, lib_dir)
        assert listing(str(path), format, lib_dir, hashes=False) == [
            [*entry[:3], ""] if entry[0] in "fx" else entry for entry in listed
        ]
        assert [entry[:2] if entry[0] in "fx" else entry for entry in listed] == entries
        on_disk = {
            os.path.relpath(os.path.join(folder, name), into)
            for folder, _, names in os.walk(into)
            for name in names
        }
        assert on_disk == {entry[1] for entry in entries if entry[0] in "fx"}
        for kind, name, *_ in entries:
            if kind in "fx":
                assert file_entry(kind, name, (into / name).read_bytes()) in listed
        return listed

    return read


Read = Callable[..., "list[Any]"]


def fails(read: Read, data: bytes, *parts: str, format: str = "tar") -> None:
    with pytest.raises(ToolError) as error:
        read(data, format)
    for part in (f"the {format} archive", *parts):
        assert part in str(error.value)


def test_kinds_of_entries_sorted_by_bytes(read: Read) -> None:
    data = tar(
        ("z", b"zz"),
        directory("dir/"),
        ("dir/b", b""),
        directory("empty"),
        directory("empty.d/inner"),
        symlink("l", "../../any where/ü"),
        (executable("bin/run"), b"#!"),
        ("\U00010000", b"astral"),
        ("\uffff", b"bmp"),
        hardlink("same", "./bin//run"),
        hardlink("same-link", "l"),
    )
    assert read(data) == [
        file_entry("x", "bin/run", b"#!"),
        file_entry("f", "dir/b", b""),
        ["d", "empty"],
        ["d", "empty.d/inner"],
        ["l", "l", "../../any where/ü"],
        file_entry("x", "same", b"#!"),
        ["l", "same-link", "../../any where/ü"],
        file_entry("f", "z", b"zz"),
        file_entry("f", "\uffff", b"bmp"),
        file_entry("f", "\U00010000", b"astral"),
    ]


def test_order_in_the_archive_does_not_matter(read: Read) -> None:
    members = [(f"{i % 7}/{i % 3}/{i}", b"%d" % i) for i in range(50)]
    members += [directory("7"), directory("0"), symlink("s", "0")]
    expected = read(tar(*members))
    for seed in range(5):
        random.Random(seed).shuffle(members)
        assert read(tar(*members)) == expected


def test_names_are_normalised(read: Read) -> None:
    data = tar(directory("./"), ("./a", b"1"), ("b//c", b"2"), ("d/./e", b"3"), directory("f//./"))
    assert [entry[:2] for entry in read(data)] == [
        ["f", "a"],
        ["f", "b/c"],
        ["f", "d/e"],
        ["d", "f"],
    ]


def test_the_last_of_several_members_wins(read: Read) -> None:
    data = tar(
        ("a", b"old"),
        hardlink("copy", "a"),
        (executable("./a"), b"new"),
        ("b", b"file"),
        symlink("b", "a"),
        symlink("c", "a"),
        ("c", b"file"),
        directory("d"),
        directory("d"),
        hardlink("a", "a"),
        hardlink("c", "copy"),
    )
    assert read(data) == [
        file_entry("x", "a", b"new"),
        ["l", "b", "a"],
        file_entry("f", "c", b"old"),
        file_entry("f", "copy", b"old"),
        ["d", "d"],
    ]


@pytest.mark.parametrize(
    "members, parts",
    [
        ([("/etc/passwd", b"")], ["'/etc/passwd'", "absolute"]),
        ([directory("/")], ["empty name"]),
        ([("../x", b"")], ["'../x'", '".."']),
        ([("a/../b", b"")], ["'a/../b'", '".."']),
        ([("a/..", b"")], ['".."']),
        ([(".", b"")], ["root"]),
        ([(".wh.x", b"")], ['".wh."']),
        ([directory("a/.wh..wh..opq/b")], ['".wh."']),
        ([("a/" + "n" * 256, b"")], ["255 bytes"]),
        ([("a/" + "é" * 128, b"")], ["255 bytes"]),
        ([("a/" * 2047 + "bc", b"")], ["4095 bytes"]),
        ([("a", b""), ("a/b", b"")], ["'a/b'", "'a' a directory and something else"]),
        ([("a/b", b""), ("a", b"")], ["'a' a directory and something else"]),
        ([("a/b/c", b""), ("a", b"")], ["'a' a directory and something else"]),
        ([("a", b""), directory("a")], ["'a' a directory and something else"]),
        ([directory("a"), ("a", b"")], ["'a' a directory and something else"]),
        ([directory("a"), symlink("a", "b")], ["'a' a directory and something else"]),
        ([symlink("a", "/etc"), ("a/passwd", b"")], ["through the symlink 'a' -> '/etc'"]),
        ([symlink("a", "b"), directory("a/b/c")], ["through the symlink"]),
        ([("a/passwd", b""), symlink("a", "/etc")], ["something else"]),
        ([symlink("a", "")], ["without a target"]),
        ([symlink("a", "t" * 4096)], ["4095 bytes"]),
        ([hardlink("b", "a"), ("a", b"")], ["hard link to 'a'", "not an earlier file"]),
        ([hardlink("b", "/a")], ["hard link to '/a'", "absolute"]),
        ([hardlink("b", "../a")], ["hard link to '../a'"]),
        ([directory("a"), hardlink("b", "a")], ["not an earlier file"]),
        ([symlink("a", "/etc"), hardlink("b", "a/passwd")], ["not an earlier file"]),
        ([(special("null", tarfile.CHRTYPE), b"")], ["'null'", "character device"]),
        ([(special("sda", tarfile.BLKTYPE), b"")], ["'sda'", "block device"]),
        ([(special("pipe", tarfile.FIFOTYPE), b"")], ["'pipe'", "named pipe"]),
        ([(special("what", b"Z"), b"")], ["'what'", "special file"]),
    ],
)
def test_bad_members(read: Read, members: list[Member], parts: list[str]) -> None:
    fails(read, tar(("fine", b"content"), *members), "member", *parts)


@pytest.mark.parametrize("key, part", [("path", "name"), ("linkpath", "target")])
def test_nul_bytes(read: Read, key: str, part: str) -> None:
    info, data = symlink("a", "b")
    info.pax_headers = {key: "a\0b"}
    fails(read, tar((info, data)), "NUL", part)


def test_names_that_are_not_utf8(read: Read) -> None:
    for member in (("a\udcff", b""), symlink("a", "\udcff")):
        fails(read, tar(member, format=tarfile.GNU_FORMAT), "UTF-8")


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names(read: Read, format: int) -> None:
    name, target = "n" * 120 + "/" + "é" * 90, "t" * 300
    data = tar((name, b"x"), symlink("l", target), directory("d" * 150), format=format)
    assert read(data) == [
        ["d", "d" * 150],
        ["l", "l", target],
        file_entry("f", name, b"x"),
    ]


@pytest.mark.parametrize("format", ["gnu", "posix"])
def test_sparse_files(read: Read, tmp_path: Path, format: str) -> None:
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        for position in range(9):
            file.seek(position * 1_000_000)
            file.write(b"data")
        file.truncate(10_000_000)
    made = subprocess.run(
        ["tar", "-cSf", "-", f"--format={format}", "-C", tmp_path, "sparse"],
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    assert len(made) < 1_000_000
    assert read(made) == [file_entry("f", "sparse", sparse.read_bytes())]


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout


COMPRESSED: list[Any] = [
    ("tar.gz", gzip.compress),
    ("tar.bz2", bz2.compress),
    ("tar.xz", lzma.compress),
    ("tar.zst", zstd),
]


def lib_dir(format: str) -> str:
    if format != "tar.zst":
        return ""
    if not shutil.which("zstd"):
        pytest.skip("needs the command zstd")
    return str(library_dir())


@pytest.mark.parametrize("format, compress", COMPRESSED)
def test_compressed(read: Read, format: str, compress: Callable[[bytes], bytes]) -> None:
    lib = lib_dir(format)
    content = random.Random(0).getrandbits(8 * 300_000).to_bytes(300_000, "little")
    data = tar(("random", content), ("zeros", bytes(3_000_000)))
    expected = [file_entry("f", "random", content), file_entry("f", "zeros", bytes(3_000_000))]
    assert read(compress(data), format, lib) == expected
    pieces = [compress(data[start : start + 70_000]) for start in range(0, len(data), 70_000)]
    assert read(b"".join(pieces), format, lib) == expected
    padded = b"".join(piece + bytes(4) for piece in pieces) + bytes(500_000)
    assert read(padded, format, lib) == expected
    assert read(compress(data) + compress(b"") + compress(b"more"), format, lib) == expected


@pytest.mark.parametrize("format, compress", COMPRESSED)
def test_damaged_compressed(read: Read, format: str, compress: Callable[[bytes], bytes]) -> None:
    lib = lib_dir(format)
    content = random.Random(0).getrandbits(8 * 300_000).to_bytes(300_000, "little")
    whole = compress(tar(("random", content)))
    flipped = bytearray(whole)
    flipped[150_000] ^= 1
    damaged = [whole[:size] for size in (0, 1, 10, 200_000, len(whole) - 1)]
    damaged += [bytes(flipped), whole + b"garbage", whole + whole[:100]]
    damaged += [
        b"<!DOCTYPE html>\n<html>",
        tar(("a", b"")),
        b"\0" * 1024,
        compress(b"no tar" * 999),
    ]
    for data in damaged:
        with pytest.raises(ToolError, match=f"the {format} archive .*cannot be"):
            read(data, format, lib)


def test_wrong_format_is_named(read: Read) -> None:
    fails(read, b"\n<html>", "It starts like HTML", "really a tar.gz", format="tar.gz")
    fails(read, gzip.compress(tar()), "It starts like gzip", format="tar")
    fails(read, gzip.compress(tar()), "It starts like gzip", format="zip")
    fails(read, b"", "empty", format="tar.gz")
    with pytest.raises(ToolError, match="unknown archive format 'rar'.*tar.zst"):
        read(b"", "rar")


def test_every_truncated_tar_is_an_error(read: Read) -> None:
    data = tar(("a", b"x" * 600), ("long" * 40, b"y"), directory("d"), symlink("l", "a"))
    end = len(data.rstrip(b"\0")) // 512 * 512 + 512
    assert read(data[: end + 512])
    for size in [*range(0, end, 256), end, end + 100]:
        fails(read, data[:size], "complete")


def test_random_damage_never_ends_in_a_traceback(tmp_path: Path) -> None:
    source = random.Random(1)
    names = [f"{i}/" + "n" * 30 * i for i in range(6)]
    originals = {
        "tar": tar(*((name, b"data" * 200) for name in names), symlink("l", "x" * 200)),
        "zip": zipped(*((name, b"data" * 200) for name in names)),
    }
    path = tmp_path / "archive"
    for format, original in originals.items():
        for _ in range(400):
            data = bytearray(original)
            for _ in range(source.randrange(1, 5)):
                data[source.randrange(len(data))] = source.choice([0, 255, source.randrange(256)])
            path.write_bytes(data)
            try:
                listing(str(path), format, "")
            except ToolError:
                pass


def test_empty_archives(read: Read) -> None:
    assert read(tar()) == []
    assert read(bytes(1024)) == []
    assert read(gzip.compress(tar()), "tar.gz") == []
    assert read(zipped(), "zip") == []
    assert read(tar(directory("./"))) == []
    for format in archive.FORMATS:
        if format != "tar.zst":
            fails(read, b"", "cannot be", format=format)


def zipped(*members: Member, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for info, data in members:
            file.writestr(info, data)
    return buffer.getvalue()


def zip_info(name: str, mode: int, system: int = 3) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr, info.create_system = mode << 16, system
    return info


@pytest.mark.parametrize(
    "compression",
    [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA],
)
def test_zip(read: Read, compression: int) -> None:
    data = zipped(
        ("plain", b"1"),
        (zip_info("run", 0o100755), b"2"),
        (zip_info("run-without-type", 0o700), b"3"),
        (zip_info("dos", 0o755, system=0), b"4"),
        (zip_info("link", stat.S_IFLNK | 0o777), "plain/é".encode()),
        (zip_info("dir/", stat.S_IFDIR | 0o755), b""),
        (zip_info("dir-with/", 0), b""),
        ("dir-with/ünder", b"5" * 1_000_000),
        compression=compression,
    )
    assert read(data, "zip") == [
        ["d", "dir"],
        file_entry("f", "dir-with/ünder", b"5" * 1_000_000),
        file_entry("f", "dos", b"4"),
        ["l", "link", "plain/é"],
        file_entry("f", "plain", b"1"),
        file_entry("x", "run", b"2"),
        file_entry("x", "run-without-type", b"3"),
    ]


def test_zip_names_in_the_old_code_page(read: Read) -> None:
    # 0x82 is é in code page 437.
    data = zipped(("caf_", b"")).replace(b"caf_", b"caf\x82")
    assert read(data, "zip") == [file_entry("f", "café", b"")]


def test_zip_of_several_members_of_a_name(read: Read) -> None:
    with pytest.warns(UserWarning):
        data = zipped(("a", b"old"), ("a", b"new"))
    assert read(data, "zip") == [file_entry("f", "a", b"new")]


def test_zip_with_something_in_front(read: Read) -> None:
    assert read(b"#!/usr/bin/python\n" + zipped(("a", b"1")), "zip") == [file_entry("f", "a", b"1")]


def test_bad_zip_members(read: Read) -> None:
    def fails_with(data: bytes, *parts: str) -> None:
        fails(read, data, "member", *parts, format="zip")

    encrypted = bytearray(zipped(("secret", b"1")))
    encrypted[6] |= 1
    encrypted[encrypted.index(b"PK\1\2") + 8] |= 1
    fails_with(bytes(encrypted), "'secret'", "encrypted")
    fails_with(zipped((zip_info("fifo", stat.S_IFIFO), b"")), "'fifo'", "special file")
    fails_with(zipped((zip_info("l", stat.S_IFLNK), b"")), "without a target")
    fails_with(zipped((zip_info("l", stat.S_IFLNK), b"\xff")), "UTF-8")
    fails_with(zipped((zip_info("l", stat.S_IFLNK), b"x" * 5000)), "4095")
    fails_with(zipped((zip_info("l", stat.S_IFLNK), b"/etc"), ("l/x", b"")), "through the symlink")
    fails_with(zipped(("../x", b"")), '".."')
    fails_with(zipped(("/x", b"")), "absolute")
    fails_with(zipped(("a_b", b"")).replace(b"a_b", b"a\0b"), "NUL")


def test_damaged_zip(read: Read) -> None:
    whole = zipped(("a", b"some data" * 1000), compression=zipfile.ZIP_STORED)
    flipped = bytearray(whole)
    flipped[1000] ^= 1
    fails(read, bytes(flipped), "CRC", format="zip")
    fails(read, whole[:-30], "is it complete", format="zip")
    fails(read, whole[40:], "cannot be", format="zip")


def test_names_that_the_file_system_takes_for_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lexists = os.path.lexists
    monkeypatch.setattr(os.path, "lexists", lambda path: lexists(path) or lexists(path.lower()))
    (tmp_path / "a.tar").write_bytes(tar(("name", b"1"), ("Name", b"2")))
    with pytest.raises(ToolError, match="'Name'.*file system"):
        unpack(str(tmp_path / "a.tar"), "tar", str(tmp_path / "into"), "")
    assert not (tmp_path / "into").exists()


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", full)
    (tmp_path / "a.tar").write_bytes(tar(("a", b"1"), hardlink("b", "a")))
    with pytest.raises(ToolError, match="'.*a.tar' cannot be unpacked: No space left on device"):
        unpack(str(tmp_path / "a.tar"), "tar", str(tmp_path / "into"), "")
    assert not (tmp_path / "into").exists()


def test_into_must_be_empty(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar(("a", b"1")))
    with pytest.raises(ToolError, match="is not empty"):
        unpack(str(tmp_path / "a.tar"), "tar", str(tmp_path), "")
    assert (tmp_path / "a.tar").exists()


def test_missing_archive(tmp_path: Path) -> None:
    for format in archive.FORMATS:
        if format != "tar.zst":
            with pytest.raises(ToolError, match="No such file"):
                listing(str(tmp_path / "none"), format, "")


def test_index_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Path("in/archive").write_bytes(tar(("é", b"1"), symlink("l", "é"), directory("d")))
    for hashes, digest in ((True, hashlib.sha256(b"1").hexdigest()), (False, "")):
        spec = {"file": "in/archive", "format": "tar", "hashes": hashes}
        Path("spec.json").write_text(json.dumps(spec))
        archive.main(["spec.json"], "")
        assert Path("index.json").read_text() == (
            '{"entries":[["d","d"],["l","l","\\u00e9"],["f","\\u00e9",1,"%s"]],"version":1}'
            % digest
        )
    with pytest.raises(ToolError, match="usage"):
        archive.main([], "")
