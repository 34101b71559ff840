from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

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
    header,
    special_header,
)

# Each is a name (with slashes where marked) that sits at a limit of a header field.
_NAMES = {
    "100 bytes": b"n" * 100,
    "101 bytes, no slash": b"n" * 101,
    "prefix of 155": b"p" * 155 + b"/" + b"n" * 100,
    "prefix of 156": b"p" * 156 + b"/" + b"n" * 99,
    "name of 101": b"p" * 20 + b"/" + b"n" * 101,
    "255 bytes": b"p" * 154 + b"/" + b"n" * 100,
    "257 bytes, several slashes": b"a/" * 78 + b"n" * 101,
    "very long": b"/".join([b"component"] * 80),
    "unicode": "größe/日本語".encode(),
    "long unicode": "日".encode() * 80,
    "spaces": b" a file / with spaces ",
    "newline": b"a\nb",
}
_USTAR = {"100 bytes", "prefix of 155", "255 bytes", "unicode", "spaces", "newline"}


def _archive(*parts: bytes) -> bytes:
    return b"".join(parts) + END


def _read(archive: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return tar.getmembers()


@pytest.mark.parametrize("what", _NAMES)
def test_names_come_back(what: str) -> None:
    name = _NAMES[what]
    block = header(name, FILE, 0o444, 5)
    (member,) = _read(_archive(block, b"hello", PADDING[5]))
    assert member.name.encode("utf-8", "surrogateescape") == name
    assert (member.size, member.mode, member.mtime) == (5, 0o444, 1)
    assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
    assert (len(block) == 512) == (what in _USTAR)


@pytest.mark.parametrize("length", [98, 99, 100, 101, 154, 155, 156, 254, 255, 256, 257, 400])
@pytest.mark.parametrize("kind", [FILE, DIRECTORY, SYMLINK])
def test_names_of_every_length(kind: bytes, length: int) -> None:
    for slash in range(1, length - 1, 7):
        name = b"d" * slash + b"/" + b"n" * (length - slash - 1)
        (member,) = _read(
            _archive(header(name, kind, 0o755, link=b"x" if kind == SYMLINK else b""))
        )
        assert member.name.encode() == name
        assert member.type == kind


def test_a_directory_ends_with_a_slash_in_the_header() -> None:
    assert header(b"etc/ssl", DIRECTORY, 0o755).startswith(b"etc/ssl/\0")
    # The slash counts: 100 bytes are one too many, and there is no other place to split.
    assert len(header(b"n" * 99, DIRECTORY, 0o755)) == 512
    assert len(header(b"n" * 100, DIRECTORY, 0o755)) > 512


@pytest.mark.parametrize("length", [1, 99, 100, 101, 300, 4000])
@pytest.mark.parametrize("kind", [SYMLINK, HARDLINK])
def test_link_names_come_back(kind: bytes, length: int) -> None:
    block = header(b"link", kind, 0o777, link=b"t" * length)
    (member,) = _read(_archive(block))
    assert member.linkname == "t" * length
    assert (len(block) == 512) == (length <= 100)


def test_big_sizes_and_owners() -> None:
    largest, larger = 0o77777777777, 0o100000000000
    assert len(header(b"f", FILE, 0o444, largest)) == 512
    (member,) = _read(_archive(header(b"d", DIRECTORY, 0o755, 0, 0o7777777, 0o7777777)))
    assert (member.uid, member.gid) == (0o7777777, 0o7777777)
    (member,) = _read(_archive(header(b"d", DIRECTORY, 0o755, 0, 0o10000000, 4_000_000_000)))
    assert (member.uid, member.gid) == (0o10000000, 4_000_000_000)
    info = tarfile.TarInfo.frombuf(header(b"f", FILE, 0o444, larger)[-512:], "utf-8", "strict")
    assert info.size == 0
    assert b"19 size=%d\n" % larger in header(b"f", FILE, 0o444, larger)


def test_an_extended_header_counts_its_own_length() -> None:
    # Around 10 and 100 bytes the number of digits depends on the length it is part of.
    for length in range(101, 130):
        block = header(b"n" * length, FILE, 0o444)
        record = block[512:].partition(b"\n")[0] + b"\n"
        assert int(record.partition(b" ")[0]) == len(record)


def test_names_that_are_not_utf8_say_so() -> None:
    block = header(b"\xff" * 120, FILE, 0o444)
    assert b"21 hdrcharset=BINARY\n" in block
    assert tarfile.open(fileobj=io.BytesIO(_archive(block))).getnames() == ["\udcff" * 120]


def test_the_bytes_of_a_header() -> None:
    block = header(b"nix/store/a", FILE, 0o555, 10, 1000, 100)
    fields = [block[:11], block[100:108], block[108:116], block[116:124], block[124:136]]
    assert fields == [b"nix/store/a", b"0000555\0", b"0001750\0", b"0000144\0", b"00000000012\0"]
    assert block[136:148] == b"00000000001\0"
    assert block[156:157] == b"0"
    assert block[257:265] == b"ustar\x0000"
    assert not any(block[265:329])
    unsigned = sum(block[:148]) + 8 * ord(" ") + sum(block[156:])
    assert block[148:156] == b"%06o\0 " % unsigned


@pytest.mark.parametrize("reader", ["tar", "bsdtar"])
def test_other_readers(reader: str, tmp_path: Path) -> None:
    program = shutil.which(reader)
    if program is None:
        pytest.skip(f"{reader} is not installed")
    names = sorted(set(_NAMES.values()))
    archive = tmp_path / "a.tar"
    archive.write_bytes(_archive(*(header(name, FILE, 0o444) for name in names)))
    out = subprocess.run(
        [program, "-tf", str(archive), *(["--quoting-style=literal"] if reader == "tar" else [])],
        check=True,
        stdout=subprocess.PIPE,
        env={"LC_ALL": "C.UTF-8"},
    )
    listed = out.stdout.replace(b"\\n", b"\n")
    assert listed == b"".join(name + b"\n" for name in names)


@pytest.mark.parametrize("kind", [FILE, DIRECTORY, SYMLINK, HARDLINK])
@pytest.mark.parametrize("length", [1, 99, 100, 101, 255, 256, 400])
def test_special_headers_are_the_usual_ones_where_nothing_is_special(
    kind: bytes, length: int
) -> None:
    link = b"" if kind in (FILE, DIRECTORY) else b"l" * length
    for name in (b"n" * length, b"\xff" * length, (b"d/" * 50)[:length] + b"n"):
        entry = (name, kind, 0o640, 5, 0o7777777, 0o10000000, link)
        assert special_header(*entry) == header(*entry)


def test_devices_and_fifos() -> None:
    entries = [
        special_header(b"null", CHARACTER_DEVICE, 0o666, uid=3, device=(1, 3)),
        special_header(b"sda", BLOCK_DEVICE, 0o660, gid=6, device=(4095, 0o7777777)),
        special_header(b"pipe", FIFO, 0o600),
    ]
    assert [len(entry) for entry in entries] == [512] * 3
    null, sda, pipe = _read(_archive(*entries))
    assert (null.name, null.uid, null.devmajor, null.devminor) == ("null", 3, 1, 3)
    assert null.ischr() and null.mode == 0o666
    assert (sda.name, sda.gid, sda.devmajor, sda.devminor) == ("sda", 6, 4095, 0o7777777)
    assert sda.isblk()
    assert pipe.isfifo()
    lines = subprocess.run(
        ["tar", "--numeric-owner", "-tv"],
        input=_archive(*entries),
        check=True,
        stdout=subprocess.PIPE,
    ).stdout.splitlines()
    assert [line.split()[:3] for line in lines[:2]] == [
        [b"crw-rw-rw-", b"3/0", b"1,3"],
        [b"brw-rw----", b"0/6", b"4095,2097151"],
    ]


def test_extended_attributes_are_bytes_in_sorted_order() -> None:
    values = {
        b"user.b": b"two\nlines=\0",
        b"security.capability": b"\x01\0\0\x02\x20\xff",
        b"user.empty": b"",
    }
    block = special_header(b"f", FILE, 0o755, xattrs=values)
    (member,) = _read(_archive(block))
    found = {
        key: value.encode("utf-8", "surrogateescape")
        for key, value in member.pax_headers.items()
        if key != "hdrcharset"
    }
    assert found == {f"SCHILY.xattr.{key.decode()}": value for key, value in values.items()}
    assert list(found) == sorted(found)
    assert block == special_header(b"f", FILE, 0o755, xattrs=dict(reversed(list(values.items()))))
    # What is in the values says nothing about the character set of names.
    assert b"hdrcharset" not in block
    assert b"hdrcharset" in special_header(b"\xff" * 101, FILE, 0o755, xattrs=values)
