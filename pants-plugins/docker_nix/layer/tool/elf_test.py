from __future__ import annotations

import io
import re
import struct
import subprocess
from pathlib import Path

import pytest

from docker_nix.layer.tool import elf

BASH = Path("/bin/bash")


def test_a_program_with_libraries() -> None:
    with BASH.open("rb") as file:
        found = elf.read(file)
    assert found.loader and Path(found.loader).exists()
    listed = subprocess.check_output([found.loader, "--list", str(BASH)], text=True)
    assert found.needed and set(found.needed) <= set(re.findall(r"(\S+\.so\S*) =>", listed))
    assert found.search_path == []


def test_a_static_program() -> None:
    with open("/bin/busybox", "rb") as file:
        assert elf.read(file) == elf.Elf(None, [], [])


def make(wide: bool, order: str, tags: list[tuple[int, int]], strings: bytes) -> bytes:
    """A file with a segment that is loaded at 0x1000 and holds the strings, and a dynamic one."""
    header, entry = (64, 56) if wide else (52, 32)
    table = b"".join(struct.pack(order + ("qQ" if wide else "iI"), *tag) for tag in tags)
    text_at = header + 2 * entry
    dynamic_at = text_at + len(strings)
    word = "Q" if wide else "I"

    def segment(kind: int, offset: int, address: int, size: int) -> bytes:
        rest = (offset, address, address, size, size)
        if wide:
            return struct.pack(f"{order}II6Q", kind, 0, *rest, 1)
        return struct.pack(f"{order}I5III", kind, *rest, 0, 1)

    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    fields = struct.pack(f"{order}HHI3{word}IHHH", 3, 62, 1, 0, header, 0, 0, header, entry, 2)
    return (
        (ident + fields).ljust(header, b"\0")
        + segment(1, text_at, 0x1000, len(strings))
        + segment(2, dynamic_at, 0x2000, len(table))
        + strings
        + table
    )


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("tag", [15, 29])
def test_libraries_and_where_they_are_looked_up(wide: bool, order: str, tag: int) -> None:
    strings = b"\0libone.so.1\0$ORIGIN/../lib::/opt/lib\0"
    tags = [(1, 1), (tag, 13), (5, 0x1000), (10, len(strings)), (0, 0), (1, 99)]
    found = elf.read(io.BytesIO(make(wide, order, tags, strings)))
    assert found == elf.Elf(None, ["libone.so.1"], ["$ORIGIN/../lib", "/opt/lib"])


@pytest.mark.parametrize(
    "content", [b"", b"#!/bin/sh\n", b"\x7fELF\2\1", b"\x7fELF\3\1" + bytes(58)]
)
def test_what_is_no_elf_file(content: bytes) -> None:
    with pytest.raises(ValueError):
        elf.read(io.BytesIO(content))


def test_damage_is_an_error_and_no_crash() -> None:
    content = BASH.read_bytes()
    for cut in (64, 100, 500, 5000):
        try:
            elf.read(io.BytesIO(content[:cut]))
        except ValueError:
            pass
    damaged = bytearray(content)
    damaged[32:40] = b"\xff" * 8  # where the table of segments is
    with pytest.raises(ValueError):
        elf.read(io.BytesIO(bytes(damaged)))
