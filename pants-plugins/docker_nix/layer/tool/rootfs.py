"""A root file system on disk: a base image's layers laid out, and what has changed since then.

Source of the rules for layers: OCI image-spec, layer.md ("Representing Changes"); `file_tree` has
them for layers that are applied, this module for the layer that becomes of the changes.
"""

from __future__ import annotations

import errno
import os
import stat
import time

from docker_nix.layer.tool.entries import Entry, check_name, show, to_bytes
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.files import sha256_of
from docker_nix.layer.tool.symlinks import follow
from docker_nix.layer.tool.tar_format import DIRECTORY, FILE, HARDLINK, SYMLINK

TYPE_CHECKING = False
if TYPE_CHECKING:  # at run time, `typing` alone would take as long as a small layer
    from typing import Iterable, Iterator, Mapping

    from docker_nix.layer.tool.file_tree import Node
    from docker_nix.layer.tool.layer_members import Member

    _Xattrs = dict[bytes, bytes]

_CHUNK_BYTES = 128 * 1024
_ZEROS = bytes(_CHUNK_BYTES)
_NANOSECONDS = 1_000_000_000
_CLOCK_REALTIME_COARSE = 5  # source: <time.h> of Linux; file times are made with this clock
_WHITEOUT_MODE = 0o600

_SPECIAL = {
    stat.S_IFIFO: "a fifo",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


class Found:
    """What lies at a path: `kind` is the type bits of its mode, `link` the text of a symlink.

    The other fields are as in `os.stat_result`, but of a file also `digest`, the SHA-256 of its
    content where that is known, and of files and directories the `xattrs` that matter.
    """

    __slots__ = ("kind", "mode", "uid", "gid", "size", "inode", "ctime", "link", "digest", "xattrs")

    def __init__(self, status: os.stat_result, link: bytes) -> None:
        self.kind = stat.S_IFMT(status.st_mode)
        self.mode = stat.S_IMODE(status.st_mode)
        self.uid = status.st_uid
        self.gid = status.st_gid
        self.size = status.st_size
        self.inode = status.st_ino
        self.ctime = status.st_ctime_ns
        self.link = link
        self.digest: str | None = None
        self.xattrs: _Xattrs = {}


class Snapshot:
    """What lies below a directory now, for `changes` to compare with.

    :param directory: as in `unpack_layers`.
    :param digests: the SHA-256 of files, by inode. Without it, a file that was written to since
        then counts as changed even where it has the same content.
    :param xattrs: the extended attributes of files, by inode; none of others.
    """

    def __init__(
        self,
        directory: bytes,
        digests: Mapping[int, str] | None = None,
        xattrs: Mapping[int, _Xattrs] | None = None,
    ) -> None:
        self.paths = _scan(directory)
        for found in self.paths.values():
            found.digest = (digests or {}).get(found.inode)
            found.xattrs = (xattrs or {}).get(found.inode, {})
        # Whether all that is written from now on changes the time of its file.
        self.times_tell = _mapped_writes_change_times(directory + b".probe")

    def is_same(self, name: bytes, now: Found, on_disk: bytes) -> bool:
        """Whether what is at a path `now` is what was there."""
        before = self.paths.get(name)
        if before is None:
            return False
        is_file = now.kind == stat.S_IFREG
        if (before.inode, before.ctime) == (now.inode, now.ctime):
            if self.times_tell or not is_file or not before.digest:
                return True
        for field in ("kind", "mode", "uid", "gid", "link"):
            if getattr(before, field) != getattr(now, field):
                return False
        if (is_file or now.kind == stat.S_IFDIR) and before.xattrs != _xattrs(on_disk):
            return False
        return not is_file or (before.size == now.size and before.digest == sha256_of(on_disk)[0])


class Changes:
    """What a layer has to hold, each list sorted by name.

    :param entries: what is new or different; files with several names are hard links to the first.
    :param whiteouts: the marks of what is gone: empty files named `.wh.NAME`.
    :param parents: unchanged directories which hold any of these. Some engines make a directory
        that the layer lacks with mode 0755, over the one in the base.
    :param xattrs: extended attributes, by the name of the entry: `security.capability` and `user.`.
    """

    def __init__(
        self,
        entries: list[Entry],
        whiteouts: list[Entry],
        parents: list[Entry],
        xattrs: dict[bytes, _Xattrs],
    ) -> None:
        self.entries = entries
        self.whiteouts = whiteouts
        self.parents = parents
        self.xattrs = xattrs


def unpack_layers(layers: Iterable[Mapping[str, str]], directory: bytes, lib_dir: str) -> Snapshot:
    """Lays out the file system that the layers are in the empty `directory`.

    :param directory: not the top of its mount, as files are prepared beside it.
    :param layers: lowest first: `file`, its path, compressed or not, and `diff_id`.

    Must run as root, if only of a user namespace. Times are those in the layers. Left out are
    devices, as only root of the machine can make them, and extended attributes that cannot be
    set. Raises `ToolError` where a layer is damaged or not the one with that `diff_id`, where it
    needs an owner that the namespace does not have, or more space than there is.
    """
    from docker_nix.layer.tool.file_tree import FileTree
    from docker_nix.layer.tool.layer_members import LayerFile

    contents = _Contents(directory + b".unpacked")
    tree = FileTree()
    try:
        for layer in layers:
            changes = LayerFile(layer["file"], lib_dir, layer["diff_id"])
            tree.apply(changes, contents.keep, changes.title)
        snapshot = _lay_out(tree.root, tree.entries(), directory)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise ToolError(
            "the base image does not fit into the free memory of this machine, where run_as_root "
            "unpacks it; free some, or add swap space"
        ) from error
    contents.remove()
    return snapshot


def changes(
    directory: bytes, base: Snapshot, empty_file: bytes, description: str = "run_as_root"
) -> Changes:
    """What is below `directory` in another way than in `base`, which was there.

    :param empty_file: where to make an empty file, which the whiteouts get their content from.
    :param description: who made the changes, for errors.

    Equal files are no change whatever was done to them; the directory itself is left out. Raises
    `ToolError` for what a layer cannot hold: devices, fifos, sockets, and names of whiteouts.
    """
    os.close(os.open(empty_file, os.O_CREAT | os.O_WRONLY, 0o600))
    now = _scan(directory)
    del now[b""]
    entries: dict[bytes, Entry] = {}
    xattrs: dict[bytes, _Xattrs] = {}
    first_names: dict[int, bytes] = {}
    for name in sorted(now):
        found, on_disk = now[name], os.path.join(directory, name)
        if base.is_same(name, found, on_disk):
            continue
        entry = entries[name] = _entry(name, found, on_disk, description)
        if entry.kind == FILE and first_names.setdefault(found.inode, name) != name:
            entry.kind, entry.link, entry.path = HARDLINK, first_names[found.inode], b""
            continue
        attributes = {} if entry.kind == SYMLINK else _xattrs(on_disk)
        if attributes:
            xattrs[name] = attributes
    gone = [name for name in base.paths if name and name not in now and _is_in(_parent(name), now)]
    whiteouts = [
        Entry(
            os.path.join(_parent(name), b".wh." + os.path.basename(name)),
            FILE,
            _WHITEOUT_MODE,
            path=empty_file,
        )
        for name in gone
    ]
    whiteouts.sort(key=lambda entry: entry.name)
    parents = {parent for name in (*entries, *gone) for parent in _ancestors(name)}
    return Changes(
        list(entries.values()),
        whiteouts,
        [
            _entry(name, now[name], b"", description)
            for name in sorted(parents)
            if name not in entries
        ],
        xattrs,
    )


def resolve(root: bytes, path: bytes) -> bytes:
    """Where `path` leads in the file system in `root`: relative to it, and free of symlinks.

    What is not there is taken for directories, and nothing leads out of `root`. Raises `ToolError`
    where symlinks lead in a circle.
    """

    def symlink(name: str) -> str | None:
        try:
            return os.fsdecode(os.readlink(os.path.join(root, os.fsencode(name))))
        except OSError:
            return None

    place, _ = follow(os.fsdecode(path), symlink)
    if place is None:
        raise ToolError(f"{show(path)} lies behind symlinks that lead in a circle")
    return os.fsencode(place)


class _Contents:
    """The content of files, in files of a directory until it is known where they belong."""

    def __init__(self, directory: bytes) -> None:
        self._directory = directory
        self._count = 0
        os.mkdir(directory)

    def keep(self, member: Member) -> tuple[bytes, str]:
        """Writes a member's data to a file; returns its path and the SHA-256 of the data."""
        import hashlib

        assert member.data is not None
        self._count += 1
        path = os.path.join(self._directory, b"%d" % self._count)
        sha256 = hashlib.sha256()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            while True:
                chunk = member.data.read(_CHUNK_BYTES)
                if not chunk:
                    break
                sha256.update(chunk)
                if chunk == _ZEROS:  # a hole takes up no memory
                    os.lseek(fd, len(chunk), os.SEEK_CUR)
                    continue
                view = memoryview(chunk)
                while view:
                    view = view[os.write(fd, view) :]
            os.ftruncate(fd, os.lseek(fd, 0, os.SEEK_CUR))
        finally:
            os.close(fd)
        return path, sha256.hexdigest()

    def remove(self) -> None:
        """Removes what belongs nowhere in the end."""
        with os.scandir(self._directory) as left:
            for file in left:
                os.unlink(file.path)
        os.rmdir(self._directory)


def _lay_out(root: Node, entries: list[tuple[bytes, Node]], directory: bytes) -> Snapshot:
    """Puts a tree on disk: all parents are directories in it, so no symlink is ever followed."""
    digests: dict[int, str] = {}
    xattrs: dict[int, _Xattrs] = {}
    placed: dict[int, bytes] = {}
    for name, node in entries:
        path = os.path.join(directory, name)
        first = placed.setdefault(id(node), path)
        if first != path:
            if node.kind not in "cb":
                os.link(first, path, follow_symlinks=False)
            continue
        if node.kind == "d":
            os.mkdir(path)
        elif node.kind == "l":
            os.symlink(node.link, path)
        elif node.kind == "p":
            os.mkfifo(path)
        elif node.kind == "f":
            content, digest = node.content
            os.rename(content, path)
            digests[os.lstat(path).st_ino] = digest
        else:
            continue
        _describe(path, name, node, xattrs)
    _describe(directory, b"/", root, xattrs)
    # Directories come last, as they change whenever something is put into them. Compiled Python
    # files are good as long as the time of their source is what it was.
    for name, node in reversed(entries):
        path = os.path.join(directory, name)
        if os.path.lexists(path):
            os.utime(path, (node.mtime, node.mtime), follow_symlinks=False)
    os.utime(directory, (root.mtime, root.mtime))
    return Snapshot(directory, digests, xattrs)


def _describe(path: bytes, name: bytes, node: Node, xattrs: dict[int, _Xattrs]) -> None:
    """Gives what lies at `path` its owner, mode and attributes; notes those that could be set."""
    try:
        os.chown(path, node.uid, node.gid, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise ToolError(
            f"{show(name)} of the base image belongs to {node.uid}:{node.gid}, and there are no "
            f"such ids here (user ids: {_ids('uid')}; group ids: {_ids('gid')}); give the user who "
            "runs Pants more subordinate ids in /etc/subuid and /etc/subgid, or the container more "
            "ids"
        ) from error
    if node.kind == "l":
        return
    os.chmod(path, node.mode)
    for key, value in node.xattrs.items():
        if not _matters(key):
            continue
        try:
            os.setxattr(path, key, value, follow_symlinks=False)
        except OSError:
            continue  # older kernels cannot keep all of them on a tmpfs
        xattrs.setdefault(os.lstat(path).st_ino, {})[key] = value


def _scan(directory: bytes) -> dict[bytes, Found]:
    """All paths below `directory`, and b"", itself."""
    paths = {b"": Found(os.lstat(directory), b"")}
    parents = [b""]
    for parent in parents:
        with os.scandir(os.path.join(directory, parent)) as children:
            for child in children:
                name = os.path.join(parent, child.name)
                link = os.readlink(child.path) if child.is_symlink() else b""
                found = Found(child.stat(follow_symlinks=False), link)
                paths[name] = found
                if found.kind == stat.S_IFDIR:
                    parents.append(name)
    return paths


def _entry(name: bytes, found: Found, on_disk: bytes, description: str) -> Entry:
    check_name(name)
    owner = found.uid, found.gid
    if found.kind == stat.S_IFREG:
        return Entry(name, FILE, found.mode, *owner, path=on_disk)
    if found.kind == stat.S_IFDIR:
        return Entry(name, DIRECTORY, found.mode, *owner)
    if found.kind == stat.S_IFLNK:
        return Entry(name, SYMLINK, 0o777, *owner, link=found.link)
    raise ToolError(
        f"{description} made {show(name)}, which is {_SPECIAL.get(found.kind, 'a special file')}; "
        "a layer can hold files, directories and symlinks only"
    )


def _xattrs(path: bytes) -> _Xattrs:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return {}
        raise
    keys = filter(_matters, map(to_bytes, names))
    return {key: os.getxattr(path, key, follow_symlinks=False) for key in sorted(keys)}


def _matters(xattr: bytes) -> bool:
    """Whether it belongs to the file, and not to the machine that it is on."""
    return xattr == b"security.capability" or xattr.startswith(b"user.")


def _ids(kind: str) -> str:
    with open(f"/proc/self/{kind}_map", encoding="ascii") as file:
        ranges = [tuple(map(int, line.split())) for line in file]
    return ", ".join(f"{first} to {first + count - 1}" for first, _, count in ranges)


def _mapped_writes_change_times(path: bytes) -> bool:
    """Whether a write through mmap(2) changes the time of a file like the one at `path`.

    Not all kernels do that on a tmpfs. Whatever changes after this has a time of its own.
    """
    import mmap

    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.ftruncate(fd, mmap.PAGESIZE)
        before = os.fstat(fd).st_ctime_ns
        while time.clock_gettime_ns(_CLOCK_REALTIME_COARSE) <= before <= time.time_ns():
            time.sleep(0.001)
        with mmap.mmap(fd, mmap.PAGESIZE) as mapped:
            mapped[0] = 1
        return os.fstat(fd).st_ctime_ns != before
    finally:
        os.close(fd)
        os.unlink(path)


def _is_in(name: bytes, paths: Mapping[bytes, Found]) -> bool:
    """Whether the directory `name` is among the paths; the top always is."""
    return not name or (name in paths and paths[name].kind == stat.S_IFDIR)


def _parent(name: bytes) -> bytes:
    return name.rpartition(b"/")[0]


def _ancestors(name: bytes) -> Iterator[bytes]:
    while b"/" in name:
        name = _parent(name)
        yield name
