"""The archive that `docker save` wrote before OCI layouts, for `docker load` and older tools.

Beside `manifest.json` it has what Docker before 1.10 reads: a folder for each layer, with a `json`
that names the layer below it, and `repositories`. The formats are in the engine's
`image/spec/v1.md` and `image/spec/v1.2.md`.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from typing import Any, BinaryIO, Dict, List, NamedTuple, Union

from docker_nix.layer.tool import tar_format
from docker_nix.layer.tool.decompress import (
    CHUNK_BYTES,
    CorruptStream,
    HashedStream,
    open_stream,
)
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.tarsum import tarsum

Json = Dict[str, Any]

# The same in every image, so that images share the folders of their layers.
_CREATED = "1970-01-01T00:00:01Z"


def main(args: list[str], lib_dir: str) -> None:
    """The command `docker-archive <spec.json>`: writes `image.tar` to the working directory.

    The spec is an object with
    - `config_file`: path of the image's config, and `config_digest_hex`: its SHA-256 in hex;
    - `repo_tags`: what the image is called, each as `name:tag`;
    - `layers`, from the lowest: objects with `file`, its `compression` ("gzip", "zstd" or "none"),
      and `diff_id` ("sha256:<hex>") and `diff_size` (bytes) of the uncompressed tar.

    The same spec and files give the same bytes. Raises `ToolError` where a file does not have the
    digest or the size that the spec gives it, or cannot be written; no `image.tar` is left then.
    """
    if len(args) != 1:
        raise ToolError("usage: docker-archive SPEC")
    with open(args[0], encoding="utf-8") as spec_file:
        spec = json.load(spec_file)
    try:
        write(spec, "image.tar", lib_dir)
    except OSError as error:
        name = f" {error.filename}" if error.filename else ""
        raise ToolError(f"image.tar cannot be made:{name} {error.strerror or error}") from error


def write(spec: Json, path: str, lib_dir: str) -> None:
    """Writes the archive that `spec` describes (see `main`) to `path`, which is removed on errors.

    `lib_dir` is where the tool's shared libraries are. Raises as `main` does, and `OSError`.
    """
    members = _members(spec, lib_dir)
    try:
        with open(path, "wb") as archive:
            for name in sorted(members):
                _write_member(archive, name, members[name], lib_dir)
            archive.write(tar_format.END)
    except BaseException:
        if os.path.exists(path):
            os.unlink(path)
        raise


class _Layer(NamedTuple):
    """A layer of the spec; `number` is its place in the image, from 1, for messages."""

    number: int
    file: str
    compression: str
    diff_id: str
    diff_size: int

    def error(self, reason: object) -> ToolError:
        return ToolError(f"layer {self.number} ({self.diff_id}, file {self.file}): {reason}")


# Path in the archive -> content; a directory is None.
_Members = Dict[str, Union[bytes, _Layer, None]]


def _members(spec: Json, lib_dir: str) -> _Members:
    with open(spec["config_file"], "rb") as config_file:
        config_bytes = config_file.read()
    config_hex = spec["config_digest_hex"]
    if hashlib.sha256(config_bytes).hexdigest() != config_hex:
        raise ToolError(f"the image config does not have the digest sha256:{config_hex}")
    config = json.loads(config_bytes)

    members: _Members = {f"{config_hex}.json": config_bytes}
    layers = [_Layer(number, **layer) for number, layer in enumerate(spec["layers"], start=1)]
    checksums: dict[object, str] = {}
    ids: list[str] = []
    for layer in layers:
        content = layer._replace(number=0)  # a layer may be used more than once
        if content not in checksums:
            checksums[content] = _verified_tarsum(layer, lib_dir)
        layer_json = _layer_json(
            config,
            checksum=checksums[content],
            size=layer.diff_size,
            parent=ids[-1] if ids else None,
            is_top=layer is layers[-1],
        )
        ids.append(layer_json["id"])
        members[ids[-1]] = None
        members[f"{ids[-1]}/VERSION"] = b"1.0"
        members[f"{ids[-1]}/json"] = _canonical(layer_json)
        members[f"{ids[-1]}/layer.tar"] = layer

    manifest = {
        "Config": f"{config_hex}.json",
        "RepoTags": spec["repo_tags"],
        "Layers": [f"{layer_id}/layer.tar" for layer_id in ids],
    }
    members["manifest.json"] = _canonical([manifest])
    members["repositories"] = _canonical(_repositories(spec["repo_tags"], ids))
    return members


def _layer_json(
    config: Json, *, checksum: str, size: int, parent: str | None, is_top: bool
) -> Json:
    """A layer's v1 image. Its id is the digest of all else in it, parent included."""
    layer_json = {key: config[key] for key in ("architecture", "os") if key in config}
    layer_json.update(checksum=checksum, created=_CREATED, Size=size)
    if parent:
        layer_json["parent"] = parent
    if is_top and "config" in config:
        layer_json["config"] = config["config"]
    layer_json["id"] = hashlib.sha256(_canonical(layer_json)).hexdigest()
    return layer_json


def _repositories(repo_tags: List[str], ids: List[str]) -> Json:
    """Name -> tag -> id of the top layer; without layers there is nothing that a tag could mean."""
    repositories: Json = {}
    for repo_tag in repo_tags if ids else []:
        # A colon before the last slash belongs to the port of a registry.
        name, colon, tag = repo_tag.rpartition(":")
        if not colon or not name or not tag or "/" in tag:
            raise ToolError(f"{repo_tag!r} in repo_tags has no tag; write it as name:tag")
        repositories.setdefault(name, {})[tag] = ids[-1]
    return repositories


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _verified_tarsum(layer: _Layer, lib_dir: str) -> str:
    """The TarSum of a layer, once it is known that it has the digest and size it should have."""
    try:
        with open_stream(layer.file, layer.compression, lib_dir) as stream:
            hashed = HashedStream(stream)
            checksum = tarsum(hashed)
            while hashed.read(CHUNK_BYTES):
                pass
    except CorruptStream as error:
        raise layer.error(f"is not readable as {layer.compression}: {error}") from error
    except (tarfile.TarError, ValueError) as error:
        raise layer.error(f"is not a tar: {error}") from error
    digest = f"sha256:{hashed.sha256.hexdigest()}"
    if digest != layer.diff_id:
        raise layer.error(f"its content has another digest, {digest}")
    if hashed.size != layer.diff_size:
        raise layer.error(f"its size is {hashed.size} bytes, not {layer.diff_size}")
    return checksum


def _write_member(
    archive: BinaryIO, name: str, content: bytes | _Layer | None, lib_dir: str
) -> None:
    if content is None:
        archive.write(tar_format.header(name.encode(), tar_format.DIRECTORY, 0o755))
        return
    size = content.diff_size if isinstance(content, _Layer) else len(content)
    archive.write(tar_format.header(name.encode(), tar_format.FILE, 0o644, size))
    if isinstance(content, _Layer):
        _write_layer(archive, content, lib_dir)
    else:
        archive.write(content)
    archive.write(tar_format.PADDING[size % tar_format.BLOCK_SIZE])


def _write_layer(archive: BinaryIO, layer: _Layer, lib_dir: str) -> None:
    written = 0
    with open_stream(layer.file, layer.compression, lib_dir) as stream:
        while True:
            data = stream.read(CHUNK_BYTES)
            if not data:
                break
            archive.write(data)
            written += len(data)
    if written != layer.diff_size:
        raise layer.error("changed while it was read")
