"""Nix's base 32: its own alphabet, and the bytes taken as one little-endian number."""

from __future__ import annotations

# The letters e, o, t and u are left out (Nix manual, "Store path specification").
ALPHABET = "0123456789abcdfghijklmnpqrsvwxyz"

_VALUES = {char: value for value, char in enumerate(ALPHABET)}


def encoded_length(size: int) -> int:
    """The number of characters that `size` bytes become: 20 bytes 32, 32 bytes 52."""
    return (size * 8 + 4) // 5


def encode(data: bytes) -> str:
    """`data` in Nix base 32, most significant digit first.

    Source of the rule: Nix manual, "Store path specification".
    """
    number = int.from_bytes(data, "little")
    last = encoded_length(len(data)) - 1
    return "".join(ALPHABET[number >> 5 * digit & 31] for digit in range(last, -1, -1))


def decode(text: str) -> bytes:
    """The bytes that `encode` turned into `text`.

    Raises ValueError where no bytes encode to `text`: a character outside the alphabet, a length
    that no number of bytes has, or bits set beyond the last byte.
    """
    number = 0
    for char in text:
        if char not in _VALUES:
            raise ValueError(f"{text!r} is not Nix base 32: {char!r} is not one of {ALPHABET}.")
        number = number << 5 | _VALUES[char]
    size = len(text) * 5 // 8
    if encoded_length(size) != len(text):
        raise ValueError(f"{text!r} is not Nix base 32: no data has {len(text)} characters.")
    if number >> size * 8:
        raise ValueError(f"{text!r} is not Nix base 32: it does not fit {size} bytes.")
    return number.to_bytes(size, "little")
