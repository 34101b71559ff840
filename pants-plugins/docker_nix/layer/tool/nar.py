"""NAR hashes: Nix's serialisation of a tree, hashed while its entries stream by.

Source of the format: Nix manual, "Nix Archive (NAR) format". This file runs in the sandbox of a
layer's process: any Python from 3.8 on, standard library only, imports nothing of the plugin.
"""

from __future__ import annotations

import hashlib
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:  # at run time, `typing` alone would take as long as a small layer
    from typing import Callable, Iterable, Union

    Chunk = Union[bytes, bytearray, memoryview]

# From here on hashlib lets other threads run, and the cost of a call does not count any more.
_BUFFER_SIZE = 1 << 18
_READ_SIZE = 1 << 20


def nar_order(path: bytes) -> bytes:
    """The sort key which puts paths into NAR order: `sorted(paths, key=nar_order)`.

    Depth first, the names in each directory bytewise: NUL sorts before all that a name can hold.
    """
    return path.replace(b"/", b"\0")


def nar_string(data: bytes) -> bytes:
    """`data` as a NAR string: its length as 8 bytes little-endian, itself, NULs up to 8 bytes."""
    return len(data).to_bytes(8, "little") + data + bytes(-len(data) % 8)


def _tokens(*tokens: bytes) -> bytes:
    return b"".join(map(nar_string, tokens))


_MAGIC = _tokens(b"nix-archive-1")
_ENTRY = _tokens(b"entry", b"(", b"name")
_NODE = _tokens(b"node")
_DIRECTORY = _tokens(b"(", b"type", b"directory")
_SYMLINK = _tokens(b"(", b"type", b"symlink", b"target")
_FILE = _tokens(b"(", b"type", b"regular", b"contents")
_EXECUTABLE = _tokens(b"(", b"type", b"regular", b"executable", b"", b"contents")
_END = _tokens(b")")
_END_OF_ENTRY = _END * 2
_NOT_NAMES = frozenset([b"", b".", b".."])


class NarHasher:
    """Hashes one tree from events in NAR order (`nar_order`), in memory that does not grow with it.

    Paths are bytes relative to the root, without a slash at either end; the root is `b""` and
    comes first, as `directory`, `symlink` or `begin_file`. Every directory, empty or not, has its
    own event. Directories close by themselves.

    Any event out of order, for a name that no NAR may hold, or at odds with the size of a file,
    raises ValueError. The bytes also go to `sink`, if given: a buffer that is only valid during
    the call.
    """

    def __init__(self, sink: Callable[[Chunk], object] | None = None) -> None:
        self._sha256 = hashlib.sha256()
        self._sink = sink
        self._buffer = bytearray(_MAGIC)
        self._written = 0
        # Directories that are open, outermost first, each with the last name seen in it.
        self._open: list[bytes] = []
        self._last_names: list[bytes] = []
        self._started = False
        self._file: bytes | None = None
        self._size = 0
        self._remaining = 0

    def directory(self, path: bytes) -> None:
        """Opens the directory `path`: what follows may lie in it."""
        self._enter(path)
        self._buffer += _DIRECTORY
        self._open.append(path)
        self._last_names.append(b"")

    def symlink(self, path: bytes, target: bytes) -> None:
        """The symlink `path`, which may point anywhere or nowhere."""
        if not target or b"\0" in target:
            raise ValueError(f"The symlink {_show(path)} cannot have the target {target!r}.")
        self._enter(path)
        self._buffer += _SYMLINK
        self._buffer += nar_string(target)
        self._end_node()

    def begin_file(self, path: bytes, size: int, executable: bool) -> None:
        """Starts the file `path` of `size` bytes, which `data` must bring before `end_file`."""
        self._enter(path)
        self._buffer += _EXECUTABLE if executable else _FILE
        self._buffer += size.to_bytes(8, "little")
        self._file = path
        self._size = self._remaining = size

    def data(self, chunk: Chunk) -> None:
        """The next bytes of the file."""
        if self._file is None:
            raise ValueError(f"{len(chunk)} bytes belong to no file.")
        self._remaining -= len(chunk)
        if self._remaining < 0:
            raise ValueError(
                f"The file {_show(self._file)} has at least {self._size - self._remaining} bytes "
                f"instead of {self._size}."
            )
        if len(chunk) < _BUFFER_SIZE:
            self._buffer += chunk
            if len(self._buffer) >= _BUFFER_SIZE:
                self._flush()
        else:
            self._flush()
            self._write(chunk)

    def end_file(self) -> None:
        """Ends the file; raises ValueError where some of its bytes are missing."""
        if self._file is None:
            raise ValueError("There is no file to end.")
        if self._remaining:
            raise ValueError(
                f"The file {_show(self._file)} has {self._size - self._remaining} bytes instead "
                f"of {self._size}."
            )
        self._file = None
        self._buffer += bytes(-self._size % 8)
        self._end_node()

    def finish(self) -> tuple[str, int]:
        """The NAR's SHA-256 (hex) and size (bytes), after the last event."""
        self._no_open_file()
        if not self._started:
            raise ValueError("A NAR needs at least a root.")
        while self._open:
            self._close_directory()
        self._flush()
        return self._sha256.hexdigest(), self._written

    def _enter(self, path: bytes) -> None:
        """Writes what comes before the node at `path`: ends of directories, and its name."""
        self._no_open_file()
        if not path:
            if self._started:
                raise ValueError("The root of a NAR comes first, and once.")
            self._started = True
            return
        parent, slash, name = path.rpartition(b"/")
        if name in _NOT_NAMES or b"\0" in name or (slash and not parent):
            raise ValueError(f"{_show(path)} cannot be a path in a NAR.")
        if not self._open or self._open[-1] != parent:
            self._close_directories_until(parent, path)
        if name <= self._last_names[-1]:
            raise ValueError(
                f"{_show(path)} comes after {_show(self._last_names[-1])} of the same directory: "
                "names in a NAR are sorted bytewise, each once."
            )
        self._last_names[-1] = name
        self._buffer += _ENTRY
        self._buffer += nar_string(name)
        self._buffer += _NODE

    def _close_directories_until(self, parent: bytes, path: bytes) -> None:
        if parent not in self._open:
            raise ValueError(
                f"{_show(path)} is out of order: its directory is not open. Entries come depth "
                "first, each directory before what it holds."
            )
        while self._open[-1] != parent:
            self._close_directory()

    def _close_directory(self) -> None:
        self._open.pop()
        self._last_names.pop()
        self._end_node()

    def _end_node(self) -> None:
        # The root is no entry of a directory, so it has one parenthesis less to close.
        self._buffer += _END_OF_ENTRY if self._open else _END
        if len(self._buffer) >= _BUFFER_SIZE:
            self._flush()

    def _no_open_file(self) -> None:
        if self._file is not None:
            raise ValueError(f"The file {_show(self._file)} was not ended.")

    def _flush(self) -> None:
        self._write(self._buffer)
        self._buffer.clear()

    def _write(self, data: Chunk) -> None:
        self._written += len(data)
        self._sha256.update(data)
        if self._sink:
            self._sink(data)


def nar_hash_of_tree(path: str | os.PathLike[str]) -> tuple[str, int]:
    """The NAR's SHA-256 (hex) and size (bytes) of the file, directory or symlink at `path`.

    Raises ValueError for what is none of the three.
    """
    root = os.fsencode(path)
    hasher = NarHasher()
    for relative in sorted(_walk(root), key=nar_order):
        _add_node(hasher, os.path.join(root, relative) if relative else root, relative)
    return hasher.finish()


def _walk(root: bytes) -> Iterable[bytes]:
    """The paths in and under `root`, relative to it, in no particular order."""
    yield b""
    for directory, subdirectories, files in os.walk(root):
        for name in subdirectories + files:
            yield os.path.relpath(os.path.join(directory, name), root)


def _add_node(hasher: NarHasher, path: bytes, relative: bytes) -> None:
    mode = os.lstat(path).st_mode
    if stat.S_ISDIR(mode):
        hasher.directory(relative)
    elif stat.S_ISLNK(mode):
        hasher.symlink(relative, os.readlink(path))
    elif stat.S_ISREG(mode):
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            hasher.begin_file(relative, size, bool(mode & stat.S_IXUSR))
            for chunk in iter(lambda: file.read(_READ_SIZE), b""):
                hasher.data(chunk)
            hasher.end_file()
    else:
        raise ValueError(f"{_show(path)} is not a file, directory or symlink.")


def _show(path: bytes) -> str:
    return repr(os.fsdecode(path)) if path else "the root"
