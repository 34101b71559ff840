"""The command `pack`: from a spec and the trees it names to one layer.

Writes the layer's tar, compressed, to `layer.blob` and its digests to `layer.json`, in one pass
over the inputs. Source of the rules for layers: OCI image-spec, layer.md.
"""

from __future__ import annotations

import os

from docker_nix.layer.tool.blob import BlobWriter
from docker_nix.layer.tool.compress import codec
from docker_nix.layer.tool.entries import Entry, sorted_entries, to_bytes, tree_entries
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.files import InputFile
from docker_nix.layer.tool.inputs import locate_tree
from docker_nix.layer.tool.nar_order import NarOrder
from docker_nix.layer.tool.quick_json import dumps, loads
from docker_nix.layer.tool.tar_format import (
    BLOCK_SIZE,
    DIRECTORY,
    END,
    FILE,
    PADDING,
    header,
    special_header,
)

TYPE_CHECKING = False
if TYPE_CHECKING:  # at run time, `typing` alone would take as long as a small layer
    from typing import Any

BLOB, METADATA, SCRATCH = "layer.blob", "layer.json", "scratch"
STORE = b"nix/store"


def main(args: list[str], lib_dir: str) -> None:
    """`--threads N SPEC`: packs what the file SPEC says, with N threads for compression.

    Anything but a number for N means as many threads as this process may use CPUs. `lib_dir` is
    where the tool's shared libraries are. Uses the directory `scratch`, and removes it. Raises
    `ToolError`, and then leaves no output.
    """
    if len(args) != 3 or args[0] != "--threads":
        raise ToolError("usage: pack --threads N SPEC")
    with open(args[2], encoding="utf-8") as file:
        spec = loads(file.read())
    try:
        metadata = pack(spec, thread_count(args[1]), lib_dir)
        with open(METADATA, "w", encoding="utf-8") as file:
            file.write(dumps(metadata) + "\n")
    except BaseException:
        for output in (BLOB, METADATA):
            if os.path.exists(output):
                os.unlink(output)
        raise
    finally:
        if os.path.exists(SCRATCH):
            from docker_nix.layer.tool.customise import remove_tree

            remove_tree(SCRATCH)


def thread_count(argument: str) -> int:
    """The number of threads that the argument of `--threads` asks for."""
    try:
        return max(1, int(argument))
    except ValueError:
        if hasattr(os, "sched_getaffinity"):  # not on macOS
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1


def pack(spec: dict[str, Any], threads: int, lib_dir: str) -> dict[str, Any]:
    """Packs the layer that `spec` describes; returns the content of its metadata."""
    if not spec["root"] or not spec["root"].get("as_root"):
        return _pack(spec, threads, lib_dir)
    from docker_nix.layer.tool.as_root import TMPFS
    from docker_nix.layer.tool.namespaces import in_root_namespace

    metadata: dict[str, Any] = in_root_namespace(
        lambda: _pack(spec, threads, lib_dir), os.path.abspath(TMPFS).encode()
    )
    return metadata


def _pack(spec: dict[str, Any], threads: int, lib_dir: str) -> dict[str, Any]:
    store, nars = _store_part(spec["paths"], lib_dir)
    root = spec["root"]
    hashes: dict[str, tuple[str, int]] = {}
    if root and root.get("nix_db"):
        # The database, a file of the layer, must have them before the layer is written.
        hashes, nars = _hash_first(store, nars), {}
    entries = sorted_entries(store, _root_part(root, store, hashes, lib_dir))
    with BlobWriter(BLOB, codec(spec["compression"], lib_dir), threads) as blob:
        for entry in entries:
            _write_entry(blob, entry)
        blob.write(END)
    hashes.update({name: nar.finish() for name, nar in nars.items()})
    _check_hashes(spec["paths"], hashes)
    return {
        "version": 1,
        "compression": spec["compression"],
        "diff_id": f"sha256:{blob.diff_digest}",
        "diff_size": blob.diff_size,
        "digest": f"sha256:{blob.digest}",
        "size": blob.size,
        "paths": {
            name: {"nar_hash": f"sha256:{digest}", "nar_size": size}
            for name, (digest, size) in hashes.items()
        },
    }


def _store_part(
    paths: list[dict[str, Any]], lib_dir: str
) -> tuple[list[Entry], dict[str, NarOrder]]:
    """The entries of the store paths with the directories above, and what hashes each path."""
    entries: list[Entry] = []
    nars: dict[str, NarOrder] = {}
    for path in paths:
        name = path["name"]
        if name in nars:
            raise ToolError(f"the store path {name} is in the layer twice")
        manifest, directory = locate_tree(path, os.path.join(SCRATCH, name), lib_dir)
        in_layer = b"%s/%s" % (STORE, to_bytes(name))
        tree = tree_entries(manifest, in_layer, to_bytes(directory)).values()
        nars[name] = NarOrder(in_layer, tree)
        for entry in tree:
            entry.nar = nars[name]
        entries += tree
    if entries:
        entries += [Entry(b"nix", DIRECTORY, 0o755), Entry(STORE, DIRECTORY, 0o755)]
    return entries, nars


def _check_hashes(paths: list[dict[str, Any]], hashes: dict[str, tuple[str, int]]) -> None:
    """Raises `ToolError` where a path of a Nix store is not what Nix says it is."""
    for path in paths:
        if path["source"] == "nix":
            from docker_nix.layer.tool.nix_store import check_hash

            check_hash(path["name"], path["nar_hash"], f"sha256:{hashes[path['name']][0]}")


def _hash_first(store: list[Entry], nars: dict[str, NarOrder]) -> dict[str, tuple[str, int]]:
    """The NAR hashes and sizes by name, taken from the entries before they are packed."""
    buffer = memoryview(bytearray(1 << 20))
    for entry in store:
        nar, entry.nar = entry.nar, None
        if nar is None:
            continue
        if entry.kind != FILE:
            nar.add(entry)
            continue
        file = InputFile(entry.path)
        try:
            nar_data = nar.begin_file(entry, file.size)
            for chunk in file.chunks(lambda size: buffer[:size]):
                nar_data(chunk)
            nar.end_file(entry)
        finally:
            file.close()
    return {name: nar.finish() for name, nar in nars.items()}


def _root_part(
    root: dict[str, Any] | None,
    store: list[Entry],
    hashes: dict[str, tuple[str, int]],
    lib_dir: str,
) -> list[Entry]:
    if root is None:
        return []
    from docker_nix.layer.tool.customise import root_entries

    return root_entries(root, SCRATCH, lib_dir, hashes, store)


def _write_entry(blob: BlobWriter, entry: Entry) -> None:
    if entry.kind == FILE:
        _write_file(blob, entry)
        return
    blob.write(_header(entry))
    if entry.nar:
        entry.nar.add(entry)


def _header(entry: Entry, size: int = 0) -> bytes:
    member = entry.name, entry.kind, entry.mode, size, entry.uid, entry.gid, entry.link
    return special_header(*member, xattrs=entry.xattrs) if entry.xattrs else header(*member)


def _write_file(blob: BlobWriter, entry: Entry) -> None:
    file = InputFile(entry.path)
    try:
        blob.write(_header(entry, file.size))
        nar_data = entry.nar.begin_file(entry, file.size) if entry.nar else None
        for chunk in file.chunks(blob.space):
            if nar_data:
                nar_data(chunk)
            blob.advance(len(chunk))
        blob.write(PADDING[file.size % BLOCK_SIZE])
        if entry.nar:
            entry.nar.end_file(entry)
    finally:
        file.close()
