"""The files at `/` after a script ran as root in the whole file system of the image.

That file system is the base image with the layer's store paths and links in it. It lies on a tmpfs
of a namespace of its own (see `namespaces`), in which all of this runs.
"""

from __future__ import annotations

import os
import stat

from docker_nix.layer.tool import rootfs
from docker_nix.layer.tool.entries import Entry, show
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.tar_format import DIRECTORY, FILE, HARDLINK, SYMLINK

TYPE_CHECKING = False
if TYPE_CHECKING:  # at run time, `typing` alone would take as long as a small layer
    from typing import Any, Callable, Iterable

TMPFS = "scratch/tmpfs"
_STORE = b"nix/store"
# What Nix' `shadowSetup` puts on PATH: the programs that edit its files.
SHADOW_PROGRAMS = (
    *("chpasswd", "gpasswd", "groupadd", "groupdel", "groupmod", "passwd", "useradd", "userdel"),
    "usermod",
)


def root_entries(
    spec: dict[str, Any],
    store: Iterable[Entry],
    links: Iterable[Entry],
    directory: bytes,
    lib_dir: str,
    extra_commands: Callable[[bytes], list[Entry]] | None,
) -> list[Entry]:
    """The entries of the root part: what is new and different, and whiteouts for what is gone.

    :param spec: `text`, the script, which may be empty; `layers` of the base, see
        `rootfs.unpack_layers`; `disk_mib`, what the script may write; `shadow_setup`, whether to
        make the files of `shadow`.
    :param store: the entries of the store paths in this layer, and their parents.
    :param links: the entries of the links to the contents.
    :param directory: the tmpfs; what the entries name stays there.
    :param extra_commands: what is to run where only the layer's own files are; it gets their
        directory, and returns the entries that are there then.

    Raises `ToolError` if the script fails, makes what no layer can hold, or changes a store path.
    """
    root = os.path.join(directory, b"root")
    os.umask(0o022)
    os.mkdir(root)
    base = rootfs.unpack_layers(spec["layers"], root, lib_dir)
    own = {entry.name: entry for entry in store}
    for entry in sorted((*own.values(), *links), key=lambda entry: entry.name):
        _put(entry, root)
    if spec["shadow_setup"]:
        from docker_nix.layer.tool.shadow import write_absent

        write_absent(root)
    placed = rootfs.Snapshot(root)
    if spec["text"]:
        from docker_nix.layer.tool.root_script import run

        lent = SHADOW_PROGRAMS if spec["shadow_setup"] else ()
        run(spec["text"], root, disk_size=spec["disk_mib"], lent_programs=lent)
    changes = rootfs.changes(root, base, os.path.join(directory, b"empty"))
    _check_store(changes, own, placed)
    entries = [
        entry
        for entry in (*changes.parents, *changes.entries)
        if not (entry.name + b"/").startswith(_STORE + b"/")
    ]
    if not any(entry.name.startswith(b"nix/") for entry in entries):
        entries = [entry for entry in entries if entry.name != b"nix"]  # the store's parent
    for entry in entries:
        entry.xattrs = changes.xattrs.get(entry.name)
    if extra_commands:
        entries = _with_extra_commands(entries, directory, extra_commands)
    names = {entry.name for entry in entries}
    gone = (entry.name.replace(b".wh.", b"", 1) for entry in changes.whiteouts)
    return entries + [mark for mark, name in zip(changes.whiteouts, gone) if name not in names]


def _put(entry: Entry, root: bytes) -> None:
    """Puts the entry into the file system, over what is there."""
    path = os.path.join(root, entry.name)
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        pass
    else:
        if stat.S_ISDIR(there.st_mode):
            return  # with the mode and owner that the base gave it, which the entry has as well
        os.unlink(path)
    if entry.kind == DIRECTORY:
        os.mkdir(path)
    elif entry.kind == SYMLINK:
        os.symlink(entry.link, path)
    else:
        _copy(entry.path, path)
    os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
    if entry.kind != SYMLINK:
        os.chmod(path, entry.mode)


def _copy(path: bytes, to: bytes) -> None:
    from shutil import copyfile

    copyfile(path, to)


def _check_store(changes: rootfs.Changes, own: dict[bytes, Entry], placed: rootfs.Snapshot) -> None:
    """Raises `ToolError` unless the store is as it was before the script."""
    left = {name for name in own if name.startswith(_STORE + b"/")}
    for entry in changes.entries:
        if not entry.name.startswith(_STORE + b"/"):
            continue
        left.discard(entry.name)
        before = placed.paths.get(entry.name)
        if before is None or _differs(entry, own.get(entry.name), before):
            raise _store_error(entry.name, "changed" if before else "made")
    for mark in changes.whiteouts:
        if mark.name.startswith(_STORE):
            raise _store_error(mark.name.replace(b".wh.", b"", 1), "removed")
    for name in sorted(left):
        raise _store_error(name, "removed")


def _store_error(name: bytes, verb: str) -> ToolError:
    return ToolError(
        f"run_as_root {verb} /{show(name)}, but nothing may change store paths; write to another "
        "directory"
    )


def _differs(entry: Entry, own: Entry | None, before: rootfs.Found) -> bool:
    """Whether a path of the store is not what it was. A new hard link to it is no difference."""
    if own is None:
        return True
    owner = (entry.uid, entry.gid) != (own.uid, own.gid)
    if owner or entry.mode != own.mode or entry.xattrs:
        return True
    if own.kind != FILE:
        return (entry.kind, entry.link) != (own.kind, own.link)
    if entry.kind == HARDLINK:
        return False  # to another name of what was copied here, whose content is compared
    if os.lstat(entry.path).st_ctime_ns == before.ctime:
        return False
    import filecmp

    return not filecmp.cmp(own.path, entry.path, shallow=False)


def _with_extra_commands(
    entries: list[Entry], directory: bytes, extra_commands: Callable[[bytes], list[Entry]]
) -> list[Entry]:
    """The entries after other commands ran where only they are."""
    layer = os.path.join(directory, b"layer")
    os.mkdir(layer)
    ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        path = os.path.join(layer, entry.name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if entry.kind == DIRECTORY:
            os.makedirs(path, exist_ok=True)
        elif entry.kind == SYMLINK:
            os.symlink(entry.link, path)
        elif entry.kind == HARDLINK and entry.link.startswith(_STORE + b"/"):
            os.link(os.path.join(directory, b"root", entry.name), path)
        elif entry.kind == HARDLINK:
            os.link(os.path.join(layer, entry.link), path)
        else:
            os.link(entry.path, path, follow_symlinks=False)
        if entry.kind in (DIRECTORY, SYMLINK):  # the others are the files that they were
            os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
        if entry.kind == DIRECTORY:
            os.chmod(path, entry.mode)
    xattrs = {entry.name: entry.xattrs for entry in entries}
    result = extra_commands(layer)
    for entry in result:
        entry.xattrs = xattrs.get(entry.name)
    return result
