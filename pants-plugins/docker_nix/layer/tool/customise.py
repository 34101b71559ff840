"""The customisation part of a layer: the files at `/`, as links or as a script leaves them."""

from __future__ import annotations

import os
import stat

from docker_nix.layer.tool.entries import (
    Entry,
    check_name,
    link_entries,
    show,
    to_bytes,
    tree_entries,
)
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.inputs import locate_tree
from docker_nix.layer.tool.tar_format import DIRECTORY, FILE, HARDLINK, SYMLINK

TYPE_CHECKING = False
if TYPE_CHECKING:  # at run time, `typing` alone would take as long as a small layer
    from typing import Any, Iterable, Mapping

_SPECIAL = {
    stat.S_IFIFO: "a fifo",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


def root_entries(
    root: dict[str, Any],
    scratch: str,
    lib_dir: str,
    hashes: Mapping[str, tuple[str, int]] | None = None,
    store: Iterable[Entry] = (),
) -> list[Entry]:
    """The entries of the customisation part, in no particular order.

    :param root: `links` in the form of `entries.link_entries`; `uid` and `gid`, the owner of all;
        `script`, what to run where the links are, or None; for the script, `store`, the store paths
        that it may read, in the form of a layer's `paths`, and `path`, a directory of programs;
        `base`, a file with the entries of the base image (as a JSON list in the form of a layer
        index) that the script's result is fitted to, or None; `nix_db`, the Nix database (see
        `_database`), or None; `as_root`, what to run as root before `script` (see `as_root`), or
        None.
    :param scratch: a directory that must stay until the entries are packed.
    :param hashes: NAR hashes (hexadecimal SHA-256) and sizes of the store paths in this layer.
    :param store: the entries of these store paths.

    With a script, modes are those on disk, and files with several names are hard links. Raises
    `ToolError` if the script fails, or makes what is neither a file, a directory nor a symlink.
    """
    links = link_entries(root["links"], root["uid"], root["gid"])
    if root.get("nix_db"):
        _database(root["nix_db"], hashes or {}, links, root, scratch)
    if root.get("as_root"):
        from docker_nix.layer.tool import as_root

        def extra_commands(directory: bytes) -> list[Entry]:
            return _run_script(root, os.fsdecode(directory), scratch, lib_dir)

        return as_root.root_entries(
            root["as_root"],
            store,
            links.values(),
            to_bytes(os.path.abspath(as_root.TMPFS)),
            lib_dir,
            extra_commands if root["script"] is not None else None,
        )
    if root["script"] is None:
        return list(links.values())
    directory = os.path.join(scratch, "root")
    os.umask(0o022)
    os.makedirs(directory)
    # In a directory that passes its group on, a new directory does so too, and its mode says it.
    os.chmod(directory, 0o755)
    _make(links.values(), to_bytes(directory))
    entries = _run_script(root, directory, scratch, lib_dir)
    for entry in entries:
        entry.uid, entry.gid = root["uid"], root["gid"]
    if root.get("base"):
        import json

        from docker_nix.layer.tool.on_base import fit

        with open(root["base"], encoding="utf-8") as file:
            entries = fit(entries, json.load(file))
    return entries


def _database(
    spec: dict[str, Any],
    hashes: Mapping[str, tuple[str, int]],
    entries: dict[bytes, Entry],
    root: dict[str, Any],
    scratch: str,
) -> None:
    """Adds the Nix database to the entries.

    :param spec: `roots`, the store paths for the garbage collector to keep; `paths`, the store
        paths of other layers as `[path, NAR hash, NAR size, references]`; `here`, the references of
        those in this layer, by path.
    """
    from docker_nix.layer.tool import nix_db

    infos = [nix_db.PathInfo(*path) for path in spec["paths"]]
    for path, references in spec["here"].items():
        digest, size = hashes[path.rpartition("/")[2]]
        infos.append(nix_db.PathInfo(path, f"sha256:{digest}", size, references))
    os.makedirs(scratch, exist_ok=True)
    entries.setdefault(b"nix", Entry(b"nix", DIRECTORY, 0o755))
    for number, (kind, path, *more) in enumerate(nix_db.entries(infos, spec["roots"])):
        content: Any = more[0] if more else b""
        name = to_bytes(path)
        if kind == "d":
            entry = Entry(name, DIRECTORY, 0o755)
        elif kind == "l":
            entry = Entry(name, SYMLINK, 0o777, link=to_bytes(content))
        else:
            on_disk = os.path.join(scratch, f"nix-db-{number}")
            with open(on_disk, "wb") as file:
                file.write(content)
            entry = Entry(name, FILE, 0o644, path=to_bytes(on_disk))
        entry.uid, entry.gid = root["uid"], root["gid"]
        entries[name] = entry


def _run_script(root: dict[str, Any], directory: str, scratch: str, lib_dir: str) -> list[Entry]:
    from docker_nix.layer.tool.script import run_script

    store = os.path.join(scratch, "nix-root")
    for path in root["store"]:
        _copy_store_path(path, store, scratch, lib_dir)
    run_script(root["script"], directory, scratch, store, root.get("path"))
    return _entries_on_disk(to_bytes(directory))


def _make(entries: Iterable[Entry], directory: bytes) -> None:
    """Puts entries on disk below `directory`; parents must come first."""
    for entry in entries:
        path = os.path.join(directory, entry.name)
        if entry.kind == DIRECTORY:
            os.makedirs(path, 0o755, exist_ok=True)
        elif entry.kind == SYMLINK:
            os.symlink(entry.link, path)
        else:
            _copy_file(entry, path)


def _copy_store_path(path: dict[str, Any], store: str, scratch: str, lib_dir: str) -> None:
    """Makes the store path readable below `store`: copies, as the script may change what it sees.

    Unlike in a store, its directories are writable, or only root could remove them afterwards.
    """
    unpack_into = os.path.join(scratch, f"unpacked-{path['name']}")
    manifest, on_disk = locate_tree(path, unpack_into, lib_dir)
    tree = tree_entries(manifest, to_bytes(f"nix/store/{path['name']}"), to_bytes(on_disk))
    os.makedirs(os.path.join(store, "nix", "store"), exist_ok=True)
    _make(tree.values(), to_bytes(store))
    if path["source"] == "nix":
        from docker_nix.layer.tool.nar import nar_hash_of_tree
        from docker_nix.layer.tool.nix_store import check_hash

        found = nar_hash_of_tree(os.path.join(store, "nix", "store", path["name"]))[0]
        check_hash(path["name"], path["nar_hash"], f"sha256:{found}")


def _copy_file(entry: Entry, to: bytes) -> None:
    from shutil import copyfile

    try:
        copyfile(entry.path, to)
        os.chmod(to, entry.mode)
    except OSError as error:
        raise ToolError(f"cannot copy {show(entry.path)}: {error.strerror}") from error


def _entries_on_disk(directory: bytes) -> list[Entry]:
    """The entries below `directory`, parents first; what we could not read is made readable."""
    entries: list[Entry] = []
    same_file: dict[tuple[int, int], list[Entry]] = {}
    parents = [b""]
    for parent in parents:
        with os.scandir(os.path.join(directory, parent)) as found:
            children = sorted(found, key=lambda child: child.name)
        for child in children:
            status = child.stat(follow_symlinks=False)
            entry = _entry(os.path.join(parent, child.name), child.path, status)
            entries.append(entry)
            if entry.kind == DIRECTORY:
                parents.append(entry.name)
                if entry.mode & 0o700 != 0o700:
                    os.chmod(child.path, entry.mode | 0o700)
            elif entry.kind == FILE and status.st_nlink > 1:
                same_file.setdefault((status.st_dev, status.st_ino), []).append(entry)
    for names in same_file.values():
        _link_to_first(names)
    for entry in entries:
        if entry.kind == FILE and not entry.mode & 0o400:
            os.chmod(entry.path, entry.mode | 0o400)
    return entries


def _entry(name: bytes, path: bytes, status: os.stat_result) -> Entry:
    check_name(name)
    kind, mode = stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode)
    if name == b"nix/store" or (name == b"nix" and kind != stat.S_IFDIR):
        raise ToolError(
            f"extra_commands made {show(name)}, but the image keeps its store paths there, which "
            "nothing may change; write to another directory"
        )
    owner = status.st_uid, status.st_gid
    if kind == stat.S_IFLNK:
        return Entry(name, SYMLINK, 0o777, *owner, link=os.readlink(path))
    if kind == stat.S_IFDIR:
        return Entry(name, DIRECTORY, mode, *owner)
    if kind == stat.S_IFREG:
        return Entry(name, FILE, mode, *owner, path=path)
    raise ToolError(
        f"extra_commands made {show(name)}, which is {_SPECIAL.get(kind, 'a special file')}; a "
        "layer can hold files, directories and symlinks only"
    )


def _link_to_first(names: list[Entry]) -> None:
    """Makes the first in the order of the tar the file, and the others hard links to it."""
    first, *others = sorted(names, key=lambda entry: entry.name)
    for entry in others:
        entry.kind, entry.link = HARDLINK, first.name


def remove_tree(directory: str) -> None:
    """Removes `directory` whatever the modes in it are; what cannot be removed stays."""
    from shutil import rmtree

    for parent, subdirectories, _ in os.walk(directory):
        for name in subdirectories:
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                os.chmod(path, 0o700)
    rmtree(directory, ignore_errors=True)
