"""Reading input files: only their content and size, as their modes mean nothing in a sandbox."""

from __future__ import annotations

import os

from docker_nix.layer.tool.entries import show
from docker_nix.layer.tool.errors import ToolError

TYPE_CHECKING = False
if TYPE_CHECKING:  # at run time, `typing` alone would take as long as a small layer
    from typing import Callable, Iterator

_TYPE_BITS, _REGULAR = 0o170000, 0o100000


def sha256_of(path: str | bytes) -> tuple[str, int]:
    """The SHA-256 (hexadecimal) and the size (bytes) of the file at `path`. Raises `OSError`."""
    from hashlib import sha256

    digest, size = sha256(), 0
    with open(path, "rb", buffering=0) as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


class InputFile:
    """The regular file at `path`, open for reading; `size` is in bytes.

    Raises `ToolError`, here and below, where it cannot be read to its end.
    """

    __slots__ = ("size", "_path", "_fd")

    def __init__(self, path: bytes) -> None:
        self._path = path
        try:
            self._fd = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise self._error(error) from error
        status = os.fstat(self._fd)
        if status.st_mode & _TYPE_BITS != _REGULAR:
            self.close()
            raise ToolError(f"cannot read {show(path)}: it is not a regular file")
        self.size = status.st_size

    def chunks(self, space: Callable[[int], memoryview]) -> Iterator[memoryview]:
        """Reads all of it into memory from `space`, and yields what was filled, piece by piece.

        `space(size)` returns a view of at least 1 and at most `size` bytes.
        """
        left = self.size
        while left:
            view = space(left)
            try:
                count = os.readv(self._fd, (view,))
            except OSError as error:
                raise self._error(error) from error
            if not count:
                raise ToolError(f"{show(self._path)} became shorter while it was read")
            left -= count
            yield view[:count]

    def close(self) -> None:
        os.close(self._fd)

    def _error(self, error: OSError) -> ToolError:
        return ToolError(f"cannot read {show(self._path)}: {error.strerror}")
