"""The entries of a layer: what each path is, before it becomes bytes."""

from __future__ import annotations

from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.tar_format import DIRECTORY, FILE, SYMLINK

TYPE_CHECKING = False
if TYPE_CHECKING:  # at run time, `typing` alone would take as long as a small layer
    from typing import Any, Iterable, Sequence

    from docker_nix.layer.tool.nar_order import NarOrder

MAX_PATH_BYTES = 4095
MAX_COMPONENT_BYTES = 255


class Entry:
    """One path of a layer.

    :param name: the path in the layer, without a leading or trailing slash.
    :param kind: `FILE`, `HARDLINK`, `SYMLINK` or `DIRECTORY` of `tar_format`.
    :param link: the text of a symlink, or the name of the entry a hard link is the same as.
    :param path: where the content of a file is on disk.
    :param nar: what is told about the entry when it is packed, for entries of a store path.

    `xattrs` are its extended attributes, values by name, or None.
    """

    __slots__ = ("name", "kind", "mode", "uid", "gid", "link", "path", "nar", "xattrs")

    def __init__(
        self,
        name: bytes,
        kind: bytes,
        mode: int,
        uid: int = 0,
        gid: int = 0,
        link: bytes = b"",
        path: bytes = b"",
        nar: NarOrder | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.link = link
        self.path = path
        self.nar = nar
        self.xattrs: dict[bytes, bytes] | None = None


def tree_entries(
    manifest: Iterable[Sequence[str]], name: bytes, on_disk: bytes
) -> dict[bytes, Entry]:
    """The entries of a store path: what `manifest` lists, every parent directory, and the root.

    :param manifest: `["f", path]` for a file, `["x", path]` for an executable one,
        `["l", path, target]` for a symlink, `["d", path]` for a directory that may be empty. Paths
        are relative to the store path, "" being the store path itself. A file's entry may have a
        third element: its path on disk, where that is another one.
    :param name: the store path in the layer.
    :param on_disk: where the tree lies on disk.

    Modes are those of a Nix store. Raises `ToolError` where two entries contradict each other, or
    one has a name that no layer can hold.
    """
    return _tree(manifest, name, on_disk, {"f": 0o444, "x": 0o555, "l": 0o777, "d": 0o555})


def link_entries(
    manifest: Iterable[Sequence[Any]], uid: int = 0, gid: int = 0
) -> dict[bytes, Entry]:
    """The entries of the symlinks ("l") and directories ("d") in `manifest`, and all parents.

    The form is that of `tree_entries`, with paths relative to the image's root. A directory may
    have its mode, uid and gid: `["d", path, mode, uid, gid]`. All else belongs to `uid` and `gid`.
    """
    entries = _tree(manifest, b"", b"", {"l": 0o777, "d": 0o755})
    del entries[b""]
    for entry in entries.values():
        entry.uid, entry.gid = uid, gid
    for kind, path, *more in manifest:
        if kind == "d" and more:
            entry = entries[to_bytes(path)]
            entry.mode, entry.uid, entry.gid = more
    return entries


def sorted_entries(store: Iterable[Entry], root: Iterable[Entry]) -> list[Entry]:
    """All entries of a layer in the order of its tar: bytewise by name, so parents come first.

    :param store: the entries of store paths, and the directories which hold them.
    :param root: the entries of the customisation part. A directory `nix` may be in both.

    Raises `ToolError` for any other path that is in both parts.
    """
    from_store = {entry.name: entry for entry in store}
    merged = list(from_store.values())
    for entry in root:
        other = from_store.get(entry.name)
        if other is None:
            merged.append(entry)
        elif not (entry.name == b"nix" and entry.kind == DIRECTORY):
            raise ToolError(f"{show(entry.name)} is part of the store and of the files at /")
    merged.sort(key=lambda entry: entry.name)
    return merged


def check_name(name: bytes) -> None:
    """Raises `ToolError` unless the path `name` is one that a layer can hold."""
    padded = b"/%s/" % name
    if b"//" in padded or b"/./" in padded or b"/../" in padded or b"\0" in padded:
        raise ToolError(f"{show(name)} is not a path that a layer can hold")
    if b"/.wh." in padded:
        raise ToolError(
            f"{show(name)}: names that start with .wh. mark deletions in a layer; rename the file"
        )
    if len(name) <= MAX_COMPONENT_BYTES:
        return
    if len(name) > MAX_PATH_BYTES:
        raise ToolError(f"{show(name)}: the path is longer than {MAX_PATH_BYTES} bytes")
    if max(map(len, name.split(b"/"))) > MAX_COMPONENT_BYTES:
        raise ToolError(f"{show(name)}: a name in it is longer than {MAX_COMPONENT_BYTES} bytes")


def show(path: bytes) -> str:
    """`path` for an error message, on one line whatever is in it."""
    text = path.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else repr(text)[1:-1]


def to_bytes(path: str) -> bytes:
    """A path from a manifest as bytes, the same on every platform and locale."""
    return path.encode("utf-8", "surrogateescape")


def _tree(
    manifest: Iterable[Sequence[Any]], name: bytes, on_disk: bytes, modes: dict[str, int]
) -> dict[bytes, Entry]:
    entries: dict[bytes, Entry] = {}
    for kind, path, *target in manifest:
        if kind not in modes:
            raise ToolError(f"{path}: an entry of kind {kind!r} cannot be here")
        relative = to_bytes(path)
        full = _join(name, relative)
        check_name(full)
        if kind == "d":
            _add_directories(entries, full, name, modes["d"])
            continue
        if full != name:
            _add_directories(entries, full.rpartition(b"/")[0], name, modes["d"])
        if full in entries:
            raise ToolError(f"{show(full)} is in its tree twice")
        if kind == "l":
            entries[full] = Entry(full, SYMLINK, modes[kind], link=to_bytes(target[0]))
        else:
            file = to_bytes(target[0]) if target else relative
            entries[full] = Entry(full, FILE, modes[kind], path=_join(on_disk, file))
    if not entries:
        _add_directories(entries, name, name, modes["d"])
    return entries


def _add_directories(entries: dict[bytes, Entry], full: bytes, top: bytes, mode: int) -> None:
    """Adds the directory `full` and its parents up to `top`, as far as they are not there."""
    while True:
        entry = entries.get(full)
        if entry is not None:
            if entry.kind != DIRECTORY:
                raise ToolError(f"{show(full)} is in its tree as a directory, and as another thing")
            return
        entries[full] = Entry(full, DIRECTORY, mode)
        if full == top:
            return
        full = full.rpartition(b"/")[0]


def _join(directory: bytes, relative: bytes) -> bytes:
    return b"%s/%s" % (directory, relative) if directory and relative else directory or relative
