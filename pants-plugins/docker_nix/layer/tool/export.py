"""The command `export`: from the layers of an image to its root file system, in one tar.

How layers lie over one another is in `file_tree`, and the format of the tar in `tar_format`.
"""

from __future__ import annotations

import json
import os
import tempfile
from functools import partial
from typing import IO, Any

from docker_nix.layer.tool import tar_format
from docker_nix.layer.tool.decompress import CHUNK_BYTES
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.file_tree import FileTree, Node
from docker_nix.layer.tool.layer_members import LayerFile, Member

OUTPUT = "rootfs.tar"

_KINDS = {
    "d": tar_format.DIRECTORY,
    "f": tar_format.FILE,
    "l": tar_format.SYMLINK,
    "c": tar_format.CHARACTER_DEVICE,
    "b": tar_format.BLOCK_DEVICE,
    "p": tar_format.FIFO,
}


def main(args: list[str], lib_dir: str) -> None:
    """The command `export <spec.json>`: writes `rootfs.tar` to the working directory.

    The spec is `{"layers": [{"file": path, "diff_id": "sha256:<hex>"}, ...]}`, lowest layer first;
    layers may be compressed with gzip or zstd, which their first bytes tell. Raises as `write`
    does, and then leaves no `rootfs.tar`.
    """
    if len(args) != 1:
        raise ToolError("usage: export SPEC")
    with open(args[0], encoding="utf-8") as spec_file:
        spec = json.load(spec_file)
    try:
        write(spec["layers"], OUTPUT, lib_dir)
    except OSError as error:
        name = f" {error.filename}:" if error.filename else ""
        raise ToolError(f"{OUTPUT} cannot be made:{name} {error.strerror or error}") from error


def write(layers: list[dict[str, Any]], path: str, lib_dir: str) -> None:
    """Writes the root file system that `layers` (see `main`) make to `path`, as a plain tar.

    The same layers give the same bytes: names sorted bytewise, times `tar_format.MTIME`, owners as
    numbers, all else as the layers have it. Of the files that are hard links to one another, the
    first is the file. The root directory is not in it.

    Beside `path` there must be room for the files of all layers. Raises `ToolError` where a layer
    is damaged, does not have its `diff_id`, or has a member that cannot be put in place, and
    `OSError`; no file is left at `path` then.
    """
    tree = FileTree()
    try:
        with tempfile.TemporaryFile(dir=os.path.dirname(path) or ".") as contents:
            for layer in layers:
                file = LayerFile(layer["file"], lib_dir, layer["diff_id"])
                tree.apply(file, lambda member: append_content(contents, member), file.title)
            contents.flush()
            with open(path, "wb") as archive:
                _write_tree(archive, tree, contents)
    except BaseException:
        if os.path.exists(path):
            os.unlink(path)
        raise


def append_content(contents: IO[bytes], member: Member) -> int:
    """Puts the content of a file at the end of `contents`, and returns where it begins there."""
    start = contents.tell()
    assert member.data is not None
    for data in iter(partial(member.data.read, CHUNK_BYTES), b""):
        contents.write(data)
    return start


def _write_tree(archive: IO[bytes], tree: FileTree, contents: IO[bytes]) -> None:
    first_names: dict[Node, bytes] = {}
    for path, node in tree.entries():
        first = first_names.setdefault(node, path)
        if first != path:
            archive.write(_header(path, tar_format.HARDLINK, node, 0, first))
            continue
        archive.write(_header(path, _KINDS[node.kind], node, node.size, node.link))
        if node.kind == "f":
            _copy(contents, node.content, node.size, archive)
            archive.write(tar_format.PADDING[node.size % tar_format.BLOCK_SIZE])
    archive.write(tar_format.END)


def _header(path: bytes, kind: bytes, node: Node, size: int, link: bytes) -> bytes:
    # A hard link has the attributes too: unpackers that set its owner clear capabilities by that.
    return tar_format.special_header(
        path, kind, node.mode, size, node.uid, node.gid, link, node.device, node.xattrs
    )


def _copy(source: IO[bytes], start: int, size: int, target: IO[bytes]) -> None:
    source.seek(start)
    while size:
        data = source.read(min(size, CHUNK_BYTES))
        target.write(data)
        size -= len(data)
