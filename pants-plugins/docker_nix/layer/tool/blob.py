"""The layer's blob on its way to disk: cut into blocks, compressed, hashed and written, in order.

The caller fills a block with the tar stream; worker threads compress full blocks; one more thread
takes them in order, hashes them before and after compression, and writes them. Blocks are used over
and over, so memory does not grow with the blob. A blob of one block starts no threads.
"""

from __future__ import annotations

import os
from hashlib import sha256

from docker_nix.layer.tool.compress import PLAIN
from docker_nix.layer.tool.errors import ToolError

TYPE_CHECKING = False
if TYPE_CHECKING:  # at run time, `typing` alone would take as long as a small layer
    from queue import SimpleQueue
    from types import TracebackType
    from typing import Optional, Tuple, Union

    from docker_nix.layer.tool.compress import Codec

    Result = SimpleQueue[Union[bytes, memoryview, BaseException]]
    Job = Optional[Tuple["Block", Result]]

# Blocks beyond those being compressed: one being filled, one being written, one to spare.
_EXTRA_BLOCKS = 3


class BlobWriter:
    """Writes a tar stream into the new file `path` as the blob of a layer; a context manager.

    Leaving it normally completes the file, and then the digests (hexadecimal SHA-256) and sizes
    (bytes) are known. Leaving it by an exception removes the file. Raises `ToolError` where the
    file cannot be written, for instance because the disk is full.
    """

    def __init__(self, path: str, codec: Codec, threads: int) -> None:
        self._codec = codec
        self._threads = threads
        self._output = _Output(path, compressed=codec is not PLAIN)
        self._pipeline: _Serial | _Parallel | None = None
        self._block = Block(codec.block_size)
        self._block_size = codec.block_size

    @property
    def diff_digest(self) -> str:
        """The digest of the tar stream."""
        return self._output.diff_hash.hexdigest()

    @property
    def diff_size(self) -> int:
        """The size of the tar stream."""
        return self._output.diff_size

    @property
    def digest(self) -> str:
        """The digest of the blob."""
        return self._output.hash.hexdigest()

    @property
    def size(self) -> int:
        """The size of the blob."""
        return self._output.size

    def write(self, data: bytes) -> None:
        """Appends `data` to the tar stream."""
        block = self._block
        end = block.used + len(data)
        if end < self._block_size:
            block.view[block.used : end] = data
            block.used = end
            return
        rest = memoryview(data)
        while rest:
            space = self.space(len(rest))
            space[:] = rest[: len(space)]
            rest = rest[len(space) :]
            self.advance(len(space))

    def space(self, size: int) -> memoryview:
        """Memory for the next bytes of the tar stream: at least one, at most `size` bytes."""
        block = self._block
        return block.view[block.used : block.used + size]

    def advance(self, size: int) -> None:
        """Appends the first `size` bytes of what `space` returned to the tar stream."""
        block = self._block
        block.used += size
        if block.used == self._block_size:
            if self._pipeline is None:
                self._pipeline = _pipeline(self._codec, self._output, self._threads)
            self._block = self._pipeline.next(block)

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        complete = False
        try:
            pipeline = self._pipeline or _Serial(self._codec, self._output)
            if error is None and self._block.used:
                pipeline.next(self._block)
            pipeline.finish()
            self._output.close()
            complete = error is None
        finally:
            if not complete:
                self._output.discard()


class Block:
    """A piece of the tar stream: the first `used` bytes of `view`."""

    __slots__ = ("view", "used")

    def __init__(self, size: int) -> None:
        self.view = memoryview(bytearray(size))
        self.used = 0


class _Output:
    """The file of the blob; the hashes and sizes of the stream it is made from and of itself."""

    def __init__(self, path: str, compressed: bool) -> None:
        self._path = path
        self.diff_hash = sha256()
        self.hash = sha256() if compressed else self.diff_hash
        self.diff_size = self.size = 0
        try:
            self._file = open(path, "xb", buffering=0)
        except OSError as error:
            raise self._error(error) from error

    def take(self, plain: memoryview) -> None:
        """The next piece of the stream."""
        self.diff_hash.update(plain)
        self.diff_size += len(plain)

    def write(self, data: bytes | memoryview) -> None:
        """The next piece of the blob, after the piece of the stream that it comes from."""
        if self.hash is not self.diff_hash:
            self.hash.update(data)
        self.size += len(data)
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise self._error(error) from error

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            raise self._error(error) from error

    def discard(self) -> None:
        self._file.close()
        os.unlink(self._path)

    def _error(self, error: OSError) -> ToolError:
        return ToolError(f"cannot write {self._path}: {error.strerror}")


def _pipeline(codec: Codec, output: _Output, threads: int) -> _Serial | _Parallel:
    if threads == 1:
        return _Serial(codec, output)
    return _Parallel(codec, output, min(threads, codec.max_threads))


class _Serial:
    """Compresses and writes each block at once."""

    def __init__(self, codec: Codec, output: _Output) -> None:
        self._output = output
        self._compress = codec.compressor()

    def next(self, block: Block) -> Block:
        """Takes the next block of the stream; returns one to fill."""
        plain = block.view[: block.used]
        self._output.take(plain)
        self._output.write(self._compress(plain))
        block.used = 0
        return block

    def finish(self) -> None:
        """Returns when all is written."""


class _Parallel:
    """Compresses blocks in `workers` threads, and writes them in order in another."""

    def __init__(self, codec: Codec, output: _Output, workers: int) -> None:
        # Imported here because most layers are small and need none of it.
        from queue import SimpleQueue
        from threading import Thread

        self._codec = codec
        self._output = output
        self._new_result = SimpleQueue
        self._to_compress: SimpleQueue[Job] = SimpleQueue()
        self._in_order: SimpleQueue[Job] = SimpleQueue()
        self._free: SimpleQueue[Block] = SimpleQueue()
        self._spare_blocks = workers + _EXTRA_BLOCKS
        self._error: BaseException | None = None
        self._workers = [Thread(target=self._compress, daemon=True) for _ in range(workers)]
        self._writer = Thread(target=self._write, daemon=True)
        for thread in (*self._workers, self._writer):
            thread.start()

    def next(self, block: Block) -> Block:
        """Takes the next block of the stream; returns one to fill, as soon as there is one.

        Raises what went wrong with an earlier block.
        """
        job: tuple[Block, Result] = (block, self._new_result())
        self._to_compress.put(job)
        self._in_order.put(job)
        if self._spare_blocks:
            self._spare_blocks -= 1
            return Block(self._codec.block_size)
        block = self._free.get()
        if self._error:
            raise self._error
        return block

    def finish(self) -> None:
        """Returns when all is written, or raises what went wrong."""
        for _ in self._workers:
            self._to_compress.put(None)
        self._in_order.put(None)
        for thread in (*self._workers, self._writer):
            thread.join()
        if self._error:
            raise self._error

    def _compress(self) -> None:
        """A worker: each block that it takes gets a result, be it an exception."""
        compress = None
        for block, result in iter(self._to_compress.get, None):
            try:
                compress = compress or self._codec.compressor()
                result.put(compress(block.view[: block.used]))
            except BaseException as error:
                result.put(error)

    def _write(self) -> None:
        """The writer: after an error it only hands blocks back, so that nobody waits for ever."""
        for block, result in iter(self._in_order.get, None):
            if self._error is None:
                try:
                    self._write_block(block.view[: block.used], result)
                except BaseException as error:
                    self._error = error
            block.used = 0
            self._free.put(block)

    def _write_block(self, plain: memoryview, result: Result) -> None:
        self._output.take(plain)
        compressed = result.get()
        if isinstance(compressed, BaseException):
            raise compressed
        self._output.write(compressed)
