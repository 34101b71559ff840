"""Unpacking archives into store paths, and listing what they would unpack to.

An entry is a list: `["f", path]` for a file, `["x", path]` for one that its owner may execute,
`["l", path, target]` for a symlink, and `["d", path]` for an empty directory; other directories are
implied. Entries are sorted by the bytes of their paths. They follow from the archive's members
alone, by the rules of `archive_tree`: not from the machine, its user, or the Python version.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from contextlib import contextmanager
from typing import Any, Iterable, Iterator, List, NamedTuple, Protocol

from docker_nix.layer.tool.archive_tree import (
    MAX_PATH_BYTES,
    BadMember,
    Node,
    Tree,
    normalise,
    symlink,
)
from docker_nix.layer.tool.decompress import CHUNK_BYTES, CorruptStream, Readable
from docker_nix.layer.tool.errors import ToolError

Entry = List[Any]

_TAR_COMPRESSIONS = {
    "tar": "none",
    "tar.gz": "gzip",
    "tar.bz2": "bzip2",
    "tar.xz": "xz",
    "tar.zst": "zstd",
}
_WHEEL = "wheel:"
FORMATS = (*_TAR_COMPRESSIONS, "zip", f"{_WHEEL}<site-packages>")


def unpack(archive_path: str, format: str, into: str, lib_dir: str) -> list[Entry]:
    """Unpacks the archive of the given format (one of `FORMATS`) and returns its entries.

    An archive of the format `wheel:lib/python3.11/site-packages` is an installed wheel, see
    `wheel`; what belongs on `sys.path` goes into that directory.

    Files are written to their paths below the directory `into`, which must be empty or absent;
    their modes mean nothing. Symlinks and empty directories are in the entries only. `lib_dir` is
    where the tool's shared libraries are.

    Raises `ToolError` where the archive is damaged, is in another format, has a member that no
    store path can hold, or where the files cannot be written; then `into` is removed.
    """
    if os.path.isdir(into) and os.listdir(into):
        raise ToolError(f"{into} is not empty; archives are unpacked into a directory of their own")
    try:
        os.makedirs(into, exist_ok=True)
        tree = _read(archive_path, format, lib_dir, _Files(into))
    except BaseException as error:
        shutil.rmtree(into, ignore_errors=True)
        if isinstance(error, OSError):
            raise ToolError(
                f"{_title(archive_path, format)} cannot be unpacked: {error.strerror or error}"
            ) from error
        raise
    return [_entry(path, node) for path, node in tree.entries()]


def listing(archive_path: str, format: str, lib_dir: str, hashes: bool = True) -> list[Entry]:
    """The entries that `unpack` would return, those of files with size in bytes and SHA-256 in hex.

    Reads the archive once and writes nothing. Without `hashes` the SHA-256 is "", and of a zip only
    the directory is read, so that damage to a member is found by `unpack` alone. Raises `ToolError`
    as `unpack` does.
    """
    try:
        tree = _read(archive_path, format, lib_dir, _Hashes() if hashes else _Sizes())
    except OSError as error:
        raise ToolError(
            f"{_title(archive_path, format)} cannot be read: {error.strerror or error}"
        ) from error
    return [_entry(path, node) + (node.content or []) for path, node in tree.entries()]


def main(args: list[str], lib_dir: str) -> None:
    """The command `index <spec.json>`: writes the listing of an archive to `index.json`.

    The spec is `{"file": path, "format": one of FORMATS, "hashes": bool}`; `index.json` is written
    to the working directory, as `{"version": 1, "entries": [...]}`, compact and with sorted keys.
    Raises as `listing` does, and then writes nothing.
    """
    if len(args) != 1:
        raise ToolError("usage: index SPEC")
    with open(args[0], encoding="utf-8") as spec_file:
        spec = json.load(spec_file)
    entries = listing(spec["file"], spec["format"], lib_dir, spec["hashes"])
    with open("index.json", "w", encoding="utf-8") as index:
        json.dump({"entries": entries, "version": 1}, index, sort_keys=True, separators=(",", ":"))


def _entry(path: str, node: Node) -> Entry:
    return [node.kind, path, node.target] if node.kind == "l" else [node.kind, path]


class _Sink(Protocol):
    """Takes the files of an archive while it is read; `write` returns their `Node.content`."""

    def write(self, path: str, data: Iterable[bytes], size: int) -> Any: ...

    def copy(self, source: str, path: str) -> None: ...

    def remove(self, path: str) -> None: ...


class _Sizes:
    def write(self, path: str, data: Iterable[bytes], size: int) -> Any:
        return [size, ""]

    def copy(self, source: str, path: str) -> None:
        pass

    def remove(self, path: str) -> None:
        pass


class _Hashes(_Sizes):
    def write(self, path: str, data: Iterable[bytes], size: int) -> Any:
        digest = hashlib.sha256()
        for chunk in data:
            digest.update(chunk)
        return [size, digest.hexdigest()]


class _Files:
    def __init__(self, root: str) -> None:
        self._root = root

    def write(self, path: str, data: Iterable[bytes], size: int) -> Any:
        with open(self._new(path), "xb") as file:
            for chunk in data:
                file.write(chunk)

    def copy(self, source: str, path: str) -> None:
        shutil.copyfile(os.path.join(self._root, source), self._new(path))

    def remove(self, path: str) -> None:
        os.unlink(os.path.join(self._root, path))

    def _new(self, path: str) -> str:
        on_disk = os.path.join(self._root, path)
        try:
            os.makedirs(os.path.dirname(on_disk), exist_ok=True)
            clash = os.path.lexists(on_disk)
        except (FileExistsError, NotADirectoryError):
            clash = True
        if clash:
            raise BadMember(
                "lies where another member already lies, because the file system here takes their "
                "names for the same; rename one of them, or build on Linux"
            )
        return on_disk


def _chunks(data: Readable) -> Iterator[bytes]:
    while True:
        with _parsing():
            chunk = data.read(CHUNK_BYTES)
        if not chunk:
            return
        yield chunk


@contextmanager
def _parsing() -> Iterator[None]:
    """Turns all that the parsers raise for malformed input, not only their own kind of error."""
    try:
        yield
    except (CorruptStream, ToolError, OSError):
        raise
    except Exception as error:
        raise CorruptStream(str(error) or type(error).__name__) from error


class Member(NamedTuple):
    """A member of an archive.

    `kind` is as in `Node`, "h" for a hard link to `target`, or "!" for a member that cannot be
    unpacked, for the reason in `target`.
    """

    name: str
    kind: str
    target: str = ""
    data: Readable | None = None
    size: int = 0


def _read(archive_path: str, format: str, lib_dir: str, sink: _Sink) -> Tree:
    title = _title(archive_path, format)
    if format.startswith(_WHEEL):
        from docker_nix.layer.tool.wheel import installed_members

        members = installed_members(zip_members(archive_path), format[len(_WHEEL) :])
    elif format == "zip":
        members = zip_members(archive_path)
    elif format in _TAR_COMPRESSIONS:
        members = _tar_members(archive_path, _TAR_COMPRESSIONS[format], lib_dir)
    else:
        raise ToolError(
            f"unknown archive format {format!r}; it must be one of {', '.join(FORMATS)}"
        )
    tree = Tree()
    try:
        for member in members:
            try:
                _add(tree, member, sink)
            except BadMember as error:
                raise ToolError(f"{title}: member {_short(member.name)!r} {error}") from error
    except CorruptStream as error:
        raise ToolError(
            f"{title} cannot be read: {error}; is it complete, and really a {format} file?"
            + _looks_like(archive_path)
        ) from error
    return tree


def _add(tree: Tree, member: Member, sink: _Sink) -> None:
    path = normalise(member.name)
    if member.kind == "!":
        raise BadMember(member.target)
    if member.kind == "h":
        source, node = tree.linked(member.target)
        if source == path:
            return
    else:
        source = ""
        node = symlink(member.target) if member.kind == "l" else Node(member.kind)
    tree.check(path, node.kind)
    old = tree.get(path)
    if old and old.kind in "fx":
        sink.remove(path)
    if node.kind in "fx":
        if source:
            sink.copy(source, path)
        else:
            assert member.data is not None
            node = node._replace(content=sink.write(path, _chunks(member.data), member.size))
    tree.add(path, node)


def _tar_members(path: str, compression: str, lib_dir: str) -> Iterator[Member]:
    from docker_nix.layer.tool import tar_reader
    from docker_nix.layer.tool.decompress import open_stream

    with open_stream(path, compression, lib_dir) as stream, _parsing():
        for info, data in tar_reader.members(stream, end_mark_required=True):
            if info.isreg():
                kind = "x" if info.mode & stat.S_IXUSR else "f"
                yield Member(info.name, kind, data=data, size=info.size)
            elif info.isdir():
                yield Member(info.name, "d")
            elif info.issym() or info.islnk():
                yield Member(info.name, "l" if info.issym() else "h", info.linkname)
            else:
                yield Member(info.name, "!", _special(_TAR_TYPES.get(info.type, "special file")))
        stream.drain()


_TAR_TYPES = {b"3": "character device", b"4": "block device", b"6": "named pipe"}


def zip_members(path: str) -> Iterator[Member]:
    """The members of the zip at `path`, in its order; the data of one is read before the next."""
    import zipfile

    with _parsing(), zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            # `filename` is what zipfile, differently in each version, makes of the name.
            name = info.orig_filename
            mode = info.external_attr >> 16 if info.create_system == _ZIP_UNIX else 0
            if info.flag_bits & _ZIP_ENCRYPTED:
                yield Member(name, "!", "is encrypted; repack the archive without a password")
            elif name.endswith("/") or stat.S_ISDIR(mode):
                yield Member(name, "d")
            elif stat.S_ISLNK(mode):
                with archive.open(info) as file:
                    target = file.read(MAX_PATH_BYTES + 1)
                yield Member(name, "l", target.decode("utf-8", "surrogateescape"))
            elif stat.S_IFMT(mode) in (0, stat.S_IFREG):
                kind = "x" if mode & stat.S_IXUSR else "f"
                with archive.open(info) as file:
                    yield Member(name, kind, data=file, size=info.file_size)
            else:
                yield Member(name, "!", _special("special file"))


_ZIP_UNIX = 3  # `create_system` of archives whose external attributes hold a Unix mode
_ZIP_ENCRYPTED = 0x1


def _special(kind: str) -> str:
    return (
        f"is a {kind}; only files, directories and links can be unpacked: repack the archive "
        "without it"
    )


def _short(name: str) -> str:
    return name if len(name) <= 100 else f"{name[:80]}…{name[-10:]}"


def _title(archive_path: str, format: str) -> str:
    return f"the {format} archive {archive_path!r}"


_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
    b"<": "HTML or XML",
}


def _looks_like(archive_path: str) -> str:
    """A hint at what the file is instead, for the message about one that cannot be read."""
    with open(archive_path, "rb") as file:
        start = file.read(512).lstrip()
    for magic, kind in _MAGIC.items():
        if start.startswith(magic):
            return f" It starts like {kind}."
    return ""
