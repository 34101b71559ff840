from __future__ import annotations

import gzip
import random
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from docker_nix.layer.tool.compress import GZIP_BLOCK_SIZE, PLAIN, Codec, codec
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.testing import library_dir


def _codec(compression: str) -> Codec:
    return codec(compression, str(library_dir()))


def _blocks(size: int) -> list[bytes]:
    """Blocks of at most `size` bytes: easy, hard, and hardly any."""
    text = b"".join(b"line %d of a text\n" % number for number in range(size // 16))[:size]
    return [text, random.Random(1).getrandbits(8 * size).to_bytes(size, "big"), b"x", bytes(size)]


def test_gzip_members_can_be_read_back() -> None:
    blocks = _blocks(GZIP_BLOCK_SIZE)
    compress = _codec("gzip").compressor()
    members = [bytes(compress(memoryview(bytearray(block)))) for block in blocks]
    assert gzip.decompress(b"".join(members)) == b"".join(blocks)
    for member in members:
        # RFC 1952, 2.3: the magic, deflate, no flags (so no name), and a time of 0.
        assert member[:8] == b"\x1f\x8b\x08" + bytes(5)


def test_zstd_frames_can_be_read_back(tmp_path: Path) -> None:
    program = shutil.which("zstd")
    if program is None:
        pytest.skip("the zstd command is not installed")
    zstd = _codec("zstd")
    blocks = _blocks(zstd.block_size)
    compress = zstd.compressor()
    file = tmp_path / "blob"
    file.write_bytes(b"".join(compress(memoryview(bytearray(block))) for block in blocks))
    plain = subprocess.run([program, "-dc", str(file)], check=True, stdout=subprocess.PIPE).stdout
    assert plain == b"".join(blocks)


def test_zstd_frames_have_size_and_checksum() -> None:
    frame = bytes(_codec("zstd").compressor()(memoryview(bytearray(b"x" * 100_000))))
    # RFC 8878, 3.1.1.1.1: content size in 4 bytes, single segment, a checksum, no dictionary.
    assert frame[:5] == struct.pack("<IB", 0xFD2FB528, 0b10_1_0_0_1_00)
    assert struct.unpack("<I", frame[5:9]) == (100_000,)


def test_no_compression_leaves_blocks_alone() -> None:
    block = memoryview(bytearray(b"block"))
    assert _codec("none") is PLAIN
    assert PLAIN.compressor()(block) is block


def test_unknown_compression() -> None:
    with pytest.raises(ToolError, match="'lzma': use one of gzip, zstd, none"):
        _codec("lzma")


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_library_that_is_not_there(compression: str, tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="is not part of the layer tool"):
        codec(compression, str(tmp_path))
