"""Compression of a layer's blob, block by block.

The tar stream is cut into blocks of a fixed size, and each is compressed by itself into one gzip
member (RFC 1952) or one zstd frame (RFC 8878). Both formats define the concatenation of such pieces
as the concatenation of their contents. So the bytes depend neither on the number of threads nor on
the machine: libdeflate and, at this level, zstd give the same bytes on every CPU, and the versions
of both are pinned with the tool.
"""

from __future__ import annotations

import ctypes

from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.libraries import load

TYPE_CHECKING = False
if TYPE_CHECKING:  # at run time, `typing` alone would take as long as a small layer
    from typing import Any, Callable, Union

    # From a writable view of a block to its compressed bytes; for one thread at a time.
    Compressor = Callable[[memoryview], Union[bytes, memoryview]]

# Measured with two threads on 590 MB of Python distributions (MB/s; ratio): libdeflate 1 428; 3.11.
# 2 303; 3.24. 3 278; 3.28. 4 240; 3.31. 5 213; 3.39. 6 175; 3.42. pigz -6 54; 3.40.
GZIP_LEVEL = 4
GZIP_BLOCK_SIZE = 1 << 20
# zstd 3 in blocks of 1, 2 and 4 MiB: about 470; 3.52, 3.59 and 3.63. Level 5: 200; 3.66 to 3.80.
ZSTD_LEVEL = 3
ZSTD_BLOCK_SIZE = 2 << 20
PLAIN_BLOCK_SIZE = 1 << 20

_INT, _SIZE, _POINTER = ctypes.c_int, ctypes.c_size_t, ctypes.c_void_p
# From zstd.h: ZSTD_c_compressionLevel and ZSTD_c_checksumFlag.
_ZSTD_LEVEL_PARAMETER, _ZSTD_CHECKSUM_PARAMETER = 100, 201


class Codec:
    """One way to compress blocks of at most `block_size` bytes.

    `compressor` makes a compressor for one thread. `max_threads` is how many of them are of use:
    with more, reading and hashing would be the bottleneck, and memory the price.
    """

    def __init__(
        self, block_size: int, max_threads: int, compressor: Callable[[], Compressor]
    ) -> None:
        self.block_size = block_size
        self.max_threads = max_threads
        self.compressor = compressor


# Blocks stay as they are.
PLAIN = Codec(PLAIN_BLOCK_SIZE, 1, lambda: lambda block: block)


def codec(compression: str, lib_dir: str) -> Codec:
    """The codec for `compression`: "gzip", "zstd" or "none".

    `lib_dir` holds the shared libraries. Raises `ToolError` where the one needed is missing.
    """
    codecs: dict[str, Callable[[str], Codec]] = {
        "gzip": _gzip,
        "zstd": _zstd,
        "none": lambda _: PLAIN,
    }
    if compression not in codecs:
        raise ToolError(f"unknown compression {compression!r}: use one of {', '.join(codecs)}")
    return codecs[compression](lib_dir)


def _gzip(lib_dir: str) -> Codec:
    library = load("deflate", lib_dir)
    allocate = _function(library.libdeflate_alloc_compressor, _POINTER, _INT)
    bound = _function(library.libdeflate_gzip_compress_bound, _SIZE, _POINTER, _SIZE)
    compress = _function(
        library.libdeflate_gzip_compress, _SIZE, _POINTER, _POINTER, _SIZE, _POINTER, _SIZE
    )

    def compressor() -> Compressor:
        state = allocate(GZIP_LEVEL)
        if not state:
            raise MemoryError
        capacity = bound(state, GZIP_BLOCK_SIZE)
        return _compressor(
            lambda source, size, target: compress(state, source, size, target, capacity), capacity
        )

    return Codec(GZIP_BLOCK_SIZE, 8, compressor)


def _zstd(lib_dir: str) -> Codec:
    library = load("zstd", lib_dir)
    allocate = _function(library.ZSTD_createCCtx, _POINTER)
    set_parameter = _function(library.ZSTD_CCtx_setParameter, _SIZE, _POINTER, _INT, _INT)
    is_error = _function(library.ZSTD_isError, _INT, _SIZE)
    capacity = _function(library.ZSTD_compressBound, _SIZE, _SIZE)(ZSTD_BLOCK_SIZE)
    compress = _function(library.ZSTD_compress2, _SIZE, _POINTER, _POINTER, _SIZE, _POINTER, _SIZE)

    def compressor() -> Compressor:
        state = allocate()
        if not state:
            raise MemoryError
        set_parameter(state, _ZSTD_LEVEL_PARAMETER, ZSTD_LEVEL)
        set_parameter(state, _ZSTD_CHECKSUM_PARAMETER, 1)

        def compress_block(source: Any, size: int, target: Any) -> int:
            written = compress(state, target, capacity, source, size)
            return 0 if is_error(written) else int(written)

        return _compressor(compress_block, capacity)

    return Codec(ZSTD_BLOCK_SIZE, 4, compressor)


def _function(function: Any, result: Any, *arguments: Any) -> Any:
    """The C function with its types declared; calling it lets other threads run."""
    function.restype, function.argtypes = result, arguments
    return function


def _compressor(compress_block: Callable[[Any, int, Any], int], capacity: int) -> Compressor:
    """A compressor from a call (source, its size, target of `capacity` bytes) -> bytes written."""
    target = ctypes.create_string_buffer(capacity)
    output = memoryview(target)

    def compress(block: memoryview) -> bytes:
        source = (ctypes.c_char * len(block)).from_buffer(block)
        size = compress_block(source, len(block), target)
        if not size:
            raise ToolError(f"compressing a block of {len(block)} bytes failed")
        return bytes(output[:size])

    return compress
