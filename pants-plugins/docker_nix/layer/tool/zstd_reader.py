"""Streaming zstd decompression with the C library, which the `zstd` wheel's module exports."""

from __future__ import annotations

import ctypes
from typing import Any, Callable

from docker_nix.layer.tool.decompress import CorruptStream, Decoder
from docker_nix.layer.tool.libraries import load


class _Buffer(ctypes.Structure):
    """`ZSTD_inBuffer` and `ZSTD_outBuffer` of zstd.h: memory, its size, and how far it is used."""

    _fields_ = [("memory", ctypes.c_void_p), ("size", ctypes.c_size_t), ("used", ctypes.c_size_t)]


def decoder_factory(lib_dir: str) -> Callable[[], Decoder]:
    """A function that makes decoders of one zstd frame each.

    `lib_dir` is where the tool's shared libraries are. Raises `ToolError` if zstd is not there.
    """
    library = _typed(load("zstd", lib_dir))
    return lambda: _ZstdDecoder(library)


def _typed(library: ctypes.CDLL) -> ctypes.CDLL:
    library.ZSTD_createDStream.restype = ctypes.c_void_p
    library.ZSTD_createDStream.argtypes = []
    library.ZSTD_freeDStream.argtypes = [ctypes.c_void_p]
    library.ZSTD_decompressStream.restype = ctypes.c_size_t
    library.ZSTD_decompressStream.argtypes = [
        ctypes.c_void_p,
        ctypes.POINTER(_Buffer),
        ctypes.POINTER(_Buffer),
    ]
    library.ZSTD_isError.restype = ctypes.c_uint
    library.ZSTD_isError.argtypes = [ctypes.c_size_t]
    library.ZSTD_getErrorName.restype = ctypes.c_char_p
    library.ZSTD_getErrorName.argtypes = [ctypes.c_size_t]
    return library


class _ZstdDecoder:
    """Decompresses one frame; the interface is `decompress.Decoder`'s."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library: Any = library
        self._context = library.ZSTD_createDStream()
        if not self._context:
            raise MemoryError("zstd could not allocate a decompression context")
        self._data = b""
        self._input = _Buffer()
        self.eof = False
        self.needs_input = True

    def __del__(self) -> None:
        if getattr(self, "_context", None):
            self._library.ZSTD_freeDStream(self._context)

    @property
    def unused_data(self) -> bytes:
        return self._data[self._input.used :] if self.eof else b""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """At most `max_length` bytes; `data` may only be given while `needs_input`."""
        if data:
            # Kept as an attribute: the C side reads it until it is used up.
            self._data = data
            memory = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p)
            self._input = _Buffer(memory, len(data), 0)
        result = ctypes.create_string_buffer(max_length)
        output = _Buffer(ctypes.cast(result, ctypes.c_void_p), max_length, 0)
        status = self._library.ZSTD_decompressStream(
            self._context, ctypes.byref(output), ctypes.byref(self._input)
        )
        if self._library.ZSTD_isError(status):
            raise CorruptStream(self._library.ZSTD_getErrorName(status).decode())
        self.eof = status == 0
        self.needs_input = self._input.used == self._input.size and output.used < max_length
        return ctypes.string_at(result, output.used)
