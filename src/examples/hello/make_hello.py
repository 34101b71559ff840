"""Writes `hello`, a static Linux program without a C library, for the machine it runs on.

It stands for whatever compiler you use: the image needs nothing but the one file it makes.
"""

from __future__ import annotations

import os
import platform
import struct

MESSAGE = b"Hello from an image of one static program.\n"

_BASE = 0x400000
_HEADERS = 64 + 56  # the ELF header and one program header


def _x86_64(message: int, length: int) -> bytes:
    return (
        b"\xb8\x01\x00\x00\x00"  # mov eax, 1 (write)
        b"\xbf\x01\x00\x00\x00"  # mov edi, 1 (standard output)
        + b"\xbe"
        + struct.pack("<I", message)  # mov esi, message
        + b"\xba"
        + struct.pack("<I", length)  # mov edx, length
        + b"\x0f\x05"  # syscall
        b"\xb8\x3c\x00\x00\x00"  # mov eax, 60 (exit)
        b"\x31\xff"  # xor edi, edi
        b"\x0f\x05"  # syscall
    )


def _arm64(message: int, length: int) -> bytes:
    def move(register: int, value: int) -> list[int]:
        return [
            0xD2800000 | (value & 0xFFFF) << 5 | register,  # movz
            0xF2A00000 | (value >> 16) << 5 | register,  # movk, lsl 16
        ]

    system_call = 0xD4000001
    words = [*move(0, 1), *move(1, message), *move(2, length), *move(8, 64), system_call]
    words += [*move(0, 0), *move(8, 93), system_call]
    return b"".join(struct.pack("<I", word) for word in words)


def program(machine: str) -> bytes:
    """The bytes of the program for `machine` (`x86_64` or `aarch64`)."""
    code, elf_machine = {"x86_64": (_x86_64, 62), "aarch64": (_arm64, 183)}[machine]
    start = _BASE + _HEADERS
    body = code(start + len(code(0, 0)), len(MESSAGE)) + MESSAGE
    size = _HEADERS + len(body)
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 2, elf_machine, 1, start, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return ident + header + segment + body


def main() -> None:
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    with open("hello", "wb") as f:
        f.write(program(machine))
    os.chmod("hello", 0o755)


if __name__ == "__main__":
    main()
