"""What an ELF file needs in order to run: its dynamic loader and libraries. Source: elf(5)."""

from __future__ import annotations

import struct
from typing import IO, Iterator, NamedTuple

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_STRSZ, _DT_RPATH, _DT_RUNPATH = 0, 1, 5, 10, 15, 29
_MOST_BYTES = 1 << 26  # of a table that is read into memory


class Elf(NamedTuple):
    """An executable or library.

    :param loader: the path of its dynamic loader, None if it names none.
    :param needed: the names of the libraries that it needs.
    :param search_path: where it has them looked up, `$ORIGIN` being its own directory.
    """

    loader: str | None
    needed: list[str]
    search_path: list[str]


class _Segment(NamedTuple):
    kind: int
    offset: int
    address: int
    size: int


def read(file: IO[bytes]) -> Elf:
    """Reads the ELF file that begins where `file` begins. Raises ValueError for any other file."""
    try:
        return _read(file)
    except (struct.error, OverflowError) as error:
        raise ValueError(f"a damaged ELF file: {error}") from error


def _read(file: IO[bytes]) -> Elf:
    start = _at(file, 0, 64)
    if start[:4] != b"\x7fELF" or start[4] not in (1, 2) or start[5] not in (1, 2):
        raise ValueError("no ELF file")
    order, wide = "<" if start[5] == 1 else ">", start[4] == 2
    segments = list(_segments(file, start, order, wide))
    loader = None
    dynamic: list[tuple[int, int]] = []
    for segment in segments:
        if segment.kind == _PT_INTERP:
            loader = _at(file, segment.offset, segment.size).rstrip(b"\0").decode(errors="replace")
        elif segment.kind == _PT_DYNAMIC:
            table = _at(file, segment.offset, segment.size)
            pair = order + ("qQ" if wide else "iI")
            size = struct.calcsize(pair)
            for at in range(0, len(table) - size + 1, size):
                tag, value = struct.unpack_from(pair, table, at)
                if tag == _DT_NULL:
                    break
                dynamic.append((tag, value))
    values = dict(dynamic)
    if _DT_STRTAB not in values:
        return Elf(loader, [], [])
    address = values[_DT_STRTAB]
    strings = b""
    for segment in segments:
        if segment.kind == _PT_LOAD and 0 <= address - segment.address < segment.size:
            strings = _at(file, segment.offset + address - segment.address, values[_DT_STRSZ])

    def text(offset: int) -> str:
        return strings[offset:].partition(b"\0")[0].decode(errors="replace")

    # RUNPATH, where there is one, takes the place of RPATH.
    path = values.get(_DT_RUNPATH, values.get(_DT_RPATH))
    return Elf(
        loader,
        [text(value) for tag, value in dynamic if tag == _DT_NEEDED],
        [] if path is None else [part for part in text(path).split(":") if part],
    )


def _segments(file: IO[bytes], start: bytes, order: str, wide: bool) -> Iterator[_Segment]:
    (table,) = struct.unpack_from(order + ("Q" if wide else "I"), start, 32 if wide else 28)
    entry_size, count = struct.unpack_from(order + "HH", start, 54 if wide else 42)
    for number in range(count):
        header = _at(file, table + number * entry_size, entry_size)
        (kind,) = struct.unpack_from(order + "I", header)
        if wide:
            offset, address = struct.unpack_from(order + "QQ", header, 8)
            (size,) = struct.unpack_from(order + "Q", header, 32)
        else:
            offset, address = struct.unpack_from(order + "II", header, 4)
            (size,) = struct.unpack_from(order + "I", header, 16)
        yield _Segment(kind, offset, address, size)


def _at(file: IO[bytes], offset: int, size: int) -> bytes:
    if size > _MOST_BYTES:
        raise ValueError("a damaged ELF file: one of its tables is too large")
    file.seek(offset)
    return file.read(size)
