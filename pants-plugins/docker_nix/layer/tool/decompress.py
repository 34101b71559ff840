"""Decompression of files as streams, in memory that does not grow with them."""

from __future__ import annotations

from types import TracebackType
from typing import BinaryIO, Callable, Iterator, Protocol

from docker_nix.layer.tool.errors import ToolError

CHUNK_BYTES = 128 * 1024


class CorruptStream(Exception):
    """The file is not, or not completely, in the format it was opened as; the text says why."""


class Readable(Protocol):
    """All that is asked of a stream: `read(size)` gives at most `size` bytes, none at its end."""

    def read(self, size: int) -> bytes: ...


class Decoder(Protocol):
    """One compressed stream, with the interface that `bz2` and `lzma` decompressors share."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class Stream:
    """The decompressed bytes of a file, to be used as a context manager.

    Streams (gzip members, zstd frames, ...) that follow one another are read as one, and zero bytes
    between and after them are skipped, as the command line tools do. Other trailing bytes are an
    error: ignoring them could lose content.
    """

    def __init__(self, file: BinaryIO, new_decoder: Callable[[], Decoder] | None) -> None:
        self._file = file
        self._new_decoder = new_decoder
        self._chunks = self._decode(new_decoder) if new_decoder else self._plain()
        self._pending = b""

    def read(self, size: int) -> bytes:
        """At most `size` (> 0) bytes, none only at the end. Raises `CorruptStream`."""
        while not self._pending:
            try:
                chunk = next(self._chunks, None)
            except CorruptStream:
                raise
            except Exception as error:  # each library raises its own: zlib.error, LZMAError, ...
                raise CorruptStream(str(error)) from error
            if chunk is None:
                return b""
            self._pending = chunk
        result, self._pending = self._pending[:size], self._pending[size:]
        return result

    def drain(self) -> None:
        """Reads to the end, which is where the checksum of the compressed stream is."""
        while self.read(CHUNK_BYTES):
            pass

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def _plain(self) -> Iterator[bytes]:
        return iter(lambda: self._file.read(CHUNK_BYTES), b"")

    def _decode(self, new_decoder: Callable[[], Decoder]) -> Iterator[bytes]:
        data = self._file.read(CHUNK_BYTES)
        if not data:
            raise CorruptStream("the file is empty")
        while data:
            decoder = new_decoder()
            while not decoder.eof:
                if decoder.needs_input and not data:
                    data = self._file.read(CHUNK_BYTES)
                    if not data:
                        raise CorruptStream("the compressed data is truncated")
                yield decoder.decompress(data, CHUNK_BYTES)
                data = b""
            data = self._skip_zeros(decoder.unused_data)

    def _skip_zeros(self, data: bytes) -> bytes:
        data = data.lstrip(b"\0")
        while not data:
            read = self._file.read(CHUNK_BYTES)
            if not read:
                break
            data = read.lstrip(b"\0")
        return data


class HashedStream:
    """A stream whose SHA-256 and size (bytes) are taken while it is read."""

    def __init__(self, stream: Readable) -> None:
        import hashlib

        self._stream = stream
        self.sha256 = hashlib.sha256()
        self.size = 0

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self.sha256.update(data)
        self.size += len(data)
        return data


def open_stream(path: str, compression: str, lib_dir: str) -> Stream:
    """Opens the file at `path`, compressed with `compression`: none, gzip, bzip2, xz or zstd.

    `lib_dir` is where the tool's shared libraries are; only zstd needs it. Raises `OSError` where
    the file cannot be opened, `ToolError` where the interpreter or `lib_dir` lacks the library.
    """
    new_decoder = None if compression == "none" else _decoder_factory(compression, lib_dir)
    return Stream(open(path, "rb"), new_decoder)


def _decoder_factory(compression: str, lib_dir: str) -> Callable[[], Decoder]:
    if compression == "gzip":
        return _GzipDecoder
    try:
        if compression == "bzip2":
            import bz2

            return bz2.BZ2Decompressor
        if compression == "xz":
            import lzma

            return lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ)
    except ImportError as error:
        raise ToolError(
            f"this Python was built without {compression} support ({error}); "
            "use another Python, or another compression"
        ) from error
    if compression == "zstd":
        from docker_nix.layer.tool import zstd_reader

        return zstd_reader.decoder_factory(lib_dir)
    raise ToolError(f"unknown compression {compression!r}")


class _GzipDecoder:
    """A zlib decompressor of one gzip member in the interface of the other two."""

    def __init__(self) -> None:
        import zlib

        self._zlib = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        result = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        # A full result may mean that zlib holds more of it, even with all input consumed.
        self.needs_input = not self._zlib.unconsumed_tail and len(result) < max_length
        return result
