from __future__ import annotations

import hashlib

import pytest

from docker_nix.resolve import base32


def test_vectors() -> None:
    empty = hashlib.sha256(b"").digest()
    assert base32.encode(empty) == "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73"
    assert base32.encode(b"") == ""
    assert base32.encode(b"\x1f") == "0z"
    assert base32.encode(b"\xff") == "7z"


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 6, 16, 20, 32, 64])
def test_round_trip(size: int) -> None:
    for data in (bytes(size), b"\xff" * size, hashlib.sha512(bytes([size])).digest()[:size]):
        text = base32.encode(data)
        assert len(text) == base32.encoded_length(size)
        assert set(text) <= set(base32.ALPHABET)
        assert base32.decode(text) == data


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("0e", "'e' is not one of"),
        ("0Z", "'Z' is not one of"),
        ("0", "no data has 1 characters"),
        ("000", "no data has 3 characters"),
        ("zz", "does not fit 1 bytes"),
    ],
)
def test_decode_rejects(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        base32.decode(text)
