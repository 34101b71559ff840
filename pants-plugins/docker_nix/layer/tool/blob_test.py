from __future__ import annotations

import gzip
import hashlib
import os
import random
import threading
from pathlib import Path
from typing import NoReturn

import pytest

from docker_nix.layer.tool.blob import BlobWriter
from docker_nix.layer.tool.compress import Codec, codec
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.testing import library_dir

SMALL_BLOCK = 1000


def _reversing(block_size: int = SMALL_BLOCK) -> Codec:
    """A codec whose output shows where each block ended."""
    return Codec(block_size, 8, lambda: lambda block: bytes(block)[::-1] + b"|")


def _write(path: Path, codec: Codec, threads: int, data: bytes, piece: int) -> BlobWriter:
    with BlobWriter(str(path), codec, threads) as blob:
        for start in range(0, len(data), piece):
            blob.write(data[start : start + piece])
    return blob


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("piece", [7, 999, 1000, 1001, 5000])
@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 23_456])
def test_blocks_are_cut_and_ordered(size: int, piece: int, threads: int, tmp_path: Path) -> None:
    data = bytes(random.Random(size).choices(range(256), k=size))
    blob = _write(tmp_path / "blob", _reversing(), threads, data, piece)
    blocks = [data[start : start + SMALL_BLOCK] for start in range(0, size, SMALL_BLOCK)]
    expected = b"".join(block[::-1] + b"|" for block in blocks)
    assert (tmp_path / "blob").read_bytes() == expected
    assert (blob.diff_digest, blob.diff_size) == (hashlib.sha256(data).hexdigest(), size)
    assert (blob.digest, blob.size) == (hashlib.sha256(expected).hexdigest(), len(expected))


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_real_codecs_give_the_same_bytes_for_any_number_of_threads(
    compression: str, tmp_path: Path
) -> None:
    data = b"".join(b"%d squared is %d\n" % (n, n * n) for n in range(200_000))
    results = []
    for threads in (1, 2, 3, 8):
        path = tmp_path / str(threads)
        blob = _write(path, codec(compression, str(library_dir())), threads, data, 100_000)
        results.append((path.read_bytes(), blob.diff_digest, blob.digest, blob.diff_size))
    assert results.count(results[0]) == len(results)
    plain, diff_digest, digest, _ = results[0]
    assert digest == hashlib.sha256(plain).hexdigest()
    assert diff_digest == hashlib.sha256(data).hexdigest()
    if compression == "gzip":
        assert gzip.decompress(plain) == data


def test_a_blob_of_one_block_starts_no_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading.Thread, "start", lambda _: pytest.fail("a thread was started"))
    _write(tmp_path / "blob", _reversing(), 8, b"x" * (SMALL_BLOCK - 1), 100)


def test_space_and_advance(tmp_path: Path) -> None:
    with BlobWriter(str(tmp_path / "blob"), _reversing(), 2) as blob:
        blob.write(b"x" * 900)
        assert len(blob.space(50)) == 50
        space = blob.space(5000)
        assert len(space) == 100
        space[:3] = b"abc"
        blob.advance(3)
        assert len(blob.space(5000)) == 97
    assert (tmp_path / "blob").read_bytes() == b"cba" + b"x" * 900 + b"|"


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("blocks_before", [0, 3, 50])
def test_an_exception_leaves_no_file(threads: int, blocks_before: int, tmp_path: Path) -> None:
    before = threading.active_count()
    with pytest.raises(KeyError):
        with BlobWriter(str(tmp_path / "blob"), _reversing(), threads) as blob:
            blob.write(b"x" * (blocks_before * SMALL_BLOCK + 1))
            raise KeyError
    assert not list(tmp_path.iterdir())
    assert threading.active_count() == before


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("failing", [0, 1, 30])
def test_a_compressor_that_fails_ends_it_all(threads: int, failing: int, tmp_path: Path) -> None:
    def compress(block: memoryview) -> bytes:
        if block[0] == failing:
            raise ToolError(f"block {failing}")
        return bytes(block)

    before = threading.active_count()
    with pytest.raises(ToolError, match=f"block {failing}"):
        with BlobWriter(
            str(tmp_path / "blob"), Codec(SMALL_BLOCK, 8, lambda: compress), threads
        ) as blob:
            for number in range(60):
                blob.write(bytes([number]) * SMALL_BLOCK)
    assert not list(tmp_path.iterdir())
    assert threading.active_count() == before


def _no_memory() -> NoReturn:
    raise MemoryError


@pytest.mark.parametrize("threads", [1, 2])
def test_a_compressor_that_cannot_be_made(threads: int, tmp_path: Path) -> None:
    with pytest.raises(MemoryError):
        _write(tmp_path / "blob", Codec(10, 8, _no_memory), threads, b"x" * 1000, 100)
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="cannot write .*: No such file or directory"):
        BlobWriter(str(tmp_path / "missing" / "blob"), _reversing(), 1)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_full_disk(threads: int, tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with pytest.raises(ToolError, match="cannot write .*: No space left on device"):
        with BlobWriter(str(tmp_path / "blob"), _reversing(), threads) as blob:
            blob._output._file.close()
            blob._output._file = open("/dev/full", "wb", buffering=0)
            blob.write(b"x" * 10 * SMALL_BLOCK)
    assert not list(tmp_path.iterdir())
