"""The NAR hash of a store path whose entries come by in the order of a tar.

Both orders are depth first, but they differ where a name goes on after a directory's name with a
byte less than "/": a tar has `foo`, `foo-1.0`, `foo/bar`, a NAR `foo`, `foo/bar`, `foo-1.0`. What
comes too early for the NAR waits: small files in memory, others are read from disk again.
"""

from __future__ import annotations

from docker_nix.layer.tool.files import InputFile
from docker_nix.layer.tool.nar import NarHasher, nar_order
from docker_nix.layer.tool.tar_format import DIRECTORY

TYPE_CHECKING = False
if TYPE_CHECKING:  # at run time, `typing` alone would take as long as a small layer
    from typing import Callable, Iterable, Iterator

    from docker_nix.layer.tool.entries import Entry

# Bytes of early files that are kept in memory, per store path.
CACHE_SIZE = 8 << 20
# Above this, reading again costs less than the room it takes from smaller files.
MAX_CACHED_FILE = 1 << 20
_READ_SIZE = 1 << 20


class NarOrder:
    """Computes the NAR hash of the store path `name`, whose entries are `entries` in any order.

    Each entry must come once, parents first: a file as `begin_file`, all its bytes to what that
    returned, `end_file`; any other as `add`.
    """

    def __init__(self, name: bytes, entries: Iterable[Entry]) -> None:
        self._hasher = NarHasher()
        self._prefix = len(name) + 1
        # The next entry of the NAR is the last.
        self._queue = sorted(entries, key=lambda entry: nar_order(entry.name), reverse=True)
        self._early: dict[bytes, _EarlyFile | None] = {}
        self._cache_left = CACHE_SIZE

    def add(self, entry: Entry) -> None:
        """A directory or a symlink."""
        if entry is self._queue[-1]:
            self._add(entry)
            self._next()
        else:
            self._early[entry.name] = None

    def begin_file(self, entry: Entry, size: int) -> Callable[[memoryview], object]:
        """A file of `size` bytes; returns what takes its content, in pieces."""
        if entry is self._queue[-1]:
            self._begin_file(entry, size)
            return self._hasher.data
        early = _EarlyFile(size, keep=size <= min(MAX_CACHED_FILE, self._cache_left))
        self._cache_left -= early.kept
        self._early[entry.name] = early
        return early.data

    def end_file(self, entry: Entry) -> None:
        """The end of the content of a file."""
        if entry is self._queue[-1]:
            self._hasher.end_file()
            self._next()

    def finish(self) -> tuple[str, int]:
        """The NAR's SHA-256 (hex) and size (bytes), after all entries."""
        return self._hasher.finish()

    def _next(self) -> None:
        """Takes the entry that was next from the queue, with all early ones that follow it."""
        self._queue.pop()
        while self._queue and self._queue[-1].name in self._early:
            entry = self._queue.pop()
            early = self._early.pop(entry.name)
            if early is None:
                self._add(entry)
            else:
                self._begin_file(entry, early.size)
                for chunk in early.content(entry.path):
                    self._hasher.data(chunk)
                self._hasher.end_file()
                self._cache_left += early.kept

    def _add(self, entry: Entry) -> None:
        relative = entry.name[self._prefix :]
        if entry.kind == DIRECTORY:
            self._hasher.directory(relative)
        else:
            self._hasher.symlink(relative, entry.link)

    def _begin_file(self, entry: Entry, size: int) -> None:
        self._hasher.begin_file(entry.name[self._prefix :], size, bool(entry.mode & 0o111))


class _EarlyFile:
    """A file of `size` bytes that waits for its turn in the NAR; `kept` of them are in memory."""

    __slots__ = ("size", "kept", "_chunks")

    def __init__(self, size: int, keep: bool) -> None:
        self.size = size
        self.kept = size if keep else 0
        self._chunks: list[bytes] | None = [] if keep else None

    def data(self, chunk: memoryview) -> None:
        """The next piece of its content, while it is packed."""
        if self._chunks is not None:
            self._chunks.append(bytes(chunk))

    def content(self, path: bytes) -> Iterator[bytes | memoryview]:
        """Its content, in pieces: from memory, or else from `path`."""
        if self._chunks is not None:
            yield from self._chunks
            return
        buffer = memoryview(bytearray(_READ_SIZE))
        file = InputFile(path)
        try:
            yield from file.chunks(lambda size: buffer[:size])
        finally:
            file.close()
