"""Store paths of this machine's Nix store, as they lie on disk.

Nix' own reading of them is the rule: NAR says what a tree is (Nix manual, "Nix Archive (NAR)
format"). Modes but for the owner's execute bit, owners and times mean nothing.
"""

from __future__ import annotations

import os
import stat

from docker_nix.layer.tool.entries import show, to_bytes, tree_entries
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.files import InputFile
from docker_nix.layer.tool.nar import nar_order
from docker_nix.layer.tool.nar_order import NarOrder
from docker_nix.layer.tool.tar_format import FILE

TYPE_CHECKING = False
if TYPE_CHECKING:  # at run time, `typing` alone would take as long as a small layer
    from typing import Callable

    # ["d", path], ["l", path, target], ["f" or "x", path], and where the path on disk is another
    # one, that: the form of `entries.tree_entries`.
    Manifest = list[list[str]]

STORE_DIR = "/nix/store"
MISSING = "is not in the Nix store of this machine"
# Where names that differ in case only cannot lie in one directory (macOS), Nix gives all but the
# first this suffix and a number, and takes them off again when it reads.
CASE_HACK = "~nix~case~hack~"


def locate(name: str, nar_hash: str) -> tuple[Manifest, str]:
    """The manifest of the store path `name`, and where it is.

    :param nar_hash: `sha256:<hex>`. It is not verified here: that needs all bytes, which what
        packs the tree reads anyway (see `check_hash`).

    Raises `ToolError` where the path is not there (its message then has `MISSING`).
    """
    path = f"{STORE_DIR}/{name}"
    if not os.path.lexists(path):
        raise ToolError(f"{path} {MISSING}")
    manifest = read_manifest(path)
    if any(CASE_HACK in entry[1] for entry in manifest):
        # Whether it is the suffix or a name that happens to look like it, only the hash can tell.
        without = read_manifest(path, strip_case_hack)
        if f"sha256:{read_tree(without, path)[0]}" == nar_hash:
            return without, path
    return manifest, path


def read_manifest(path: str, rename: Callable[[str], str] = str) -> Manifest:
    """The manifest of what is at `path`: a directory, a file or a symlink.

    :param rename: gives the name in the tree for a name on disk.
    """
    manifest: Manifest = []
    pending = [("", "")]
    while pending:
        logical, on_disk = pending.pop()
        full = f"{path}/{on_disk}" if on_disk else path
        mode = os.lstat(full).st_mode
        if stat.S_ISDIR(mode):
            manifest.append(["d", logical])
            for name in os.listdir(full):
                child = rename(name)
                pending.append(
                    (
                        f"{logical}/{child}" if logical else child,
                        f"{on_disk}/{name}" if on_disk else name,
                    )
                )
        elif stat.S_ISLNK(mode):
            manifest.append(["l", logical, os.readlink(full)])
        elif stat.S_ISREG(mode):
            kind = "x" if mode & stat.S_IXUSR else "f"
            manifest.append([kind, logical, *([on_disk] if on_disk != logical else [])])
        else:
            raise ToolError(f"{show(to_bytes(full))} is neither a file, a directory nor a symlink")
    return sorted(manifest, key=lambda entry: to_bytes(entry[1]))


def strip_case_hack(name: str) -> str:
    """The name that Nix means by a name on disk."""
    return name.partition(CASE_HACK)[0]


def read_tree(manifest: Manifest, path: str) -> tuple[str, int, dict[str, tuple[str, int]]]:
    """A tree's NAR hash (hex) and NAR size; its files' SHA-256 (hex) and size, by path."""
    from hashlib import sha256

    top = b"tree"
    entries = tree_entries(manifest, top, to_bytes(path))
    nar = NarOrder(top, entries.values())
    files: dict[str, tuple[str, int]] = {}
    buffer = memoryview(bytearray(1 << 20))
    for entry in sorted(entries.values(), key=lambda entry: nar_order(entry.name)):
        if entry.kind != FILE:
            nar.add(entry)
            continue
        file = InputFile(entry.path)
        try:
            digest = sha256()
            nar_data = nar.begin_file(entry, file.size)
            for chunk in file.chunks(lambda size: buffer[:size]):
                nar_data(chunk)
                digest.update(chunk)
            nar.end_file(entry)
            relative = os.fsdecode(entry.name[len(top) + 1 :])
            files[relative] = digest.hexdigest(), file.size
        finally:
            file.close()
    return (*nar.finish(), files)


def check_hash(name: str, expected: str, found: str) -> None:
    """Raises `ToolError` where the NAR hash that was `found` is not the one that Nix told.

    Both are `sha256:<hex>`. The message has the way out, which depends on whether this machine's
    Nix agrees with what is on its disk.
    """
    if found == expected:
        return
    from docker_nix.layer.tool.nix_cli import registered_hash

    path = f"{STORE_DIR}/{name}"
    registered = registered_hash(path)
    if registered == found:
        raise ToolError(
            f"{path} has the NAR hash {found} on this machine, where it was built to other content "
            f"than where Nix was asked first ({expected}); the build is not reproducible. Copy the "
            f"path from there (`nix-store --delete {path}`, then `nix copy --from`), or set "
            "[docker-nix].nix_cache_version to another value to ask Nix again"
        )
    raise ToolError(
        f"{path} is corrupted: its NAR hash is {found}, but should be {expected}. Repair it with "
        f"`nix-store --repair-path {path}` or `nix-store --verify --check-contents --repair`, and "
        "check the disk"
    )
