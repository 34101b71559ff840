"""The command `layer-index`: what is in a layer, for a plan that never opens the layer again.

An index is a JSON object:

- `version`: 1; `compression`: "gzip", "zstd" or "none";
- `digest` and `size` (bytes) of the layer's file, `diff_id` and `diff_size` of its tar; digests are
  "sha256:<hex>";
- `entries`: what the layer puts at a path, `[kind, path, mode, uid, gid]` with kinds as in
  `layer_members.Member`. A file has its size and its SHA-256 in hex after that, also where it is a
  hard link; a symlink its text; a device its major and minor number. "h" is a hard link to the path
  that follows, a file of a lower layer. The root, if the layer has it, is the directory "";
- `nix_db`: if the layer has a Nix database, its valid paths, sorted, each as `[path, hash of the
  NAR ("sha256:<hex>"), its size, references]`;
- `whiteouts`: the paths that the layer hides in lower layers, and `opaque`: the directories in
  which it hides all that lower layers have.

Each list is sorted by the bytes of the paths. Paths are decoded as UTF-8 with `surrogateescape`,
which `ensure_ascii` makes valid JSON. Of several members at one path the last counts; parents that
the layer does not have are not listed. A path below a symlink of the layer itself is listed as what
it leads to; symlinks of lower layers are not known here.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from functools import partial
from typing import IO, Any, Iterator

from docker_nix.layer.tool.decompress import CHUNK_BYTES, Readable
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.file_tree import FileTree, Node
from docker_nix.layer.tool.files import sha256_of
from docker_nix.layer.tool.layer_members import Change, LayerFile, Member, Whiteout

OUTPUT = "layer-index.json"
_NIX_DATABASE = b"nix/var/nix/db/db.sqlite"


def main(args: list[str], lib_dir: str) -> None:
    """The command `layer-index <spec.json>`: writes the index of a layer to `layer-index.json`.

    The spec is `{"file": path, "diff_id": "sha256:<hex>" or null}`. The index is written to the
    working directory, compact and with sorted keys. Raises as `index_layer` does, and `OSError`,
    and then leaves no index.
    """
    if len(args) != 1:
        raise ToolError("usage: layer-index SPEC")
    with open(args[0], encoding="utf-8") as spec_file:
        spec = json.load(spec_file)
    write_index(spec["file"], OUTPUT, lib_dir, spec["diff_id"])


def write_index(
    path: str, output: str, lib_dir: str, expected_diff_id: str | None
) -> dict[str, Any]:
    """Writes the index of the layer in the file at `path` to `output`, and returns it.

    Raises as `index_layer` does, and `OSError`, and then leaves no `output`.
    """
    index = index_layer(path, lib_dir, expected_diff_id)
    try:
        with open(output, "w", encoding="utf-8") as file:
            json.dump(index, file, sort_keys=True, separators=(",", ":"))
    except BaseException:
        if os.path.exists(output):
            os.unlink(output)
        raise
    return index


def index_layer(path: str, lib_dir: str, expected_diff_id: str | None) -> dict[str, Any]:
    """The index of the layer in the file at `path`, see above; in memory that grows with its paths.

    `lib_dir` is where the tool's shared libraries are. Raises `ToolError` where the layer is
    damaged, holds what no layer can hold, or has another `diff_id` than the expected one.
    """
    layer = LayerFile(path, lib_dir, expected_diff_id)
    databases: list[list[Any]] = []

    def keep(member: Member) -> str:
        assert member.data is not None
        if member.path != _NIX_DATABASE:
            return _sha256(member.data)[0]
        with tempfile.NamedTemporaryFile(dir=".") as file:
            digest = _sha256(member.data, file)[0]
            file.flush()
            databases[:] = [_valid_paths(file.name)]
        return digest

    tree = FileTree(all_layers=False)
    whiteouts: set[bytes] = set()
    opaque: set[bytes] = set()

    def changes() -> Iterator[Change]:
        for change in layer:
            if not isinstance(change, Member):
                (whiteouts if isinstance(change, Whiteout) else opaque).add(change.path)
            yield change

    tree.apply(changes(), keep, layer.title)
    root = [] if tree.root.implied else [(b"", tree.root)]
    entries = [_entry(path, node) for path, node in root + tree.entries() if not node.implied]
    digest, size = sha256_of(path)
    index = {
        "version": 1,
        "compression": layer.compression,
        "digest": f"sha256:{digest}",
        "size": size,
        "diff_id": layer.diff_id,
        "diff_size": layer.diff_size,
        "entries": entries,
        "whiteouts": [_text(hidden) for hidden in sorted(whiteouts)],
        "opaque": [_text(hidden) for hidden in sorted(opaque)],
    }
    if databases:
        index["nix_db"] = databases[0]
    return index


def _entry(path: bytes, node: Node) -> list[Any]:
    entry = [node.kind, _text(path), node.mode, node.uid, node.gid]
    if node.kind == "f":
        entry += [node.size, node.content]
    elif node.kind in "lh":
        entry += [_text(node.link)]
    elif node.kind in "cb":
        entry += node.device
    return entry


def _valid_paths(database: str) -> list[Any]:
    """The valid paths of the Nix database in a file, none if it is not one that can be read."""
    try:
        import sqlite3
    except ImportError as error:
        raise ToolError(
            f"a layer has a Nix database, and this Python cannot read it ({error}); set "
            "[docker-nix].python to one with sqlite3"
        ) from error
    paths: dict[str, list[Any]] = {}
    try:
        # Immutable: nobody writes to it, and no journal is looked for beside it.
        connection = sqlite3.connect(f"file:{database}?immutable=1", uri=True)
        try:
            for row in connection.execute("SELECT path, hash, narSize FROM ValidPaths"):
                paths[row[0]] = [*row, []]
            for referrer, reference in connection.execute(
                "SELECT a.path, b.path FROM Refs JOIN ValidPaths a ON a.id = referrer "
                "JOIN ValidPaths b ON b.id = reference ORDER BY b.path"
            ):
                paths[referrer][3].append(reference)
        finally:
            connection.close()
    except sqlite3.Error:
        return []
    return [paths[path] for path in sorted(paths)]


def _sha256(stream: Readable, copy: IO[bytes] | None = None) -> tuple[str, int]:
    """The digest, in hex, of what is left of a stream, and its size in bytes."""
    digest = hashlib.sha256()
    size = 0
    for data in iter(partial(stream.read, CHUNK_BYTES), b""):
        digest.update(data)
        size += len(data)
        if copy:
            copy.write(data)
    return digest.hexdigest(), size


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
