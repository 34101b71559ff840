"""The image that others are compared with: from a `docker-info.json`, or as a registry has it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Tuple

from docker_nix.look.model import LINKS_ONLY, STORE_PATH, created_by

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# What `assemble` writes into the history of a layer with more store paths than it names.
_AND_MORE = re.compile(r" and [0-9]+ more$")


class NotAnImage(ValueError):
    """What is wrong with a file that should say what is in an image."""


@dataclass(frozen=True)
class OldLayer:
    """A layer of the old image.

    :param store_paths: those that are known to be in it.
    :param complete: whether it has no others.
    """

    digest: str
    size: int
    diff_id: str
    store_paths: Tuple[str, ...]
    complete: bool


@dataclass(frozen=True)
class OldImage:
    """An image that was there before.

    :param name: as the user gave it.
    :param digest: of the manifest; None where there is none, as in a docker-archive.
    :param layers: lowest first.
    """

    name: str
    digest: Optional[str]
    image_id: str
    layers: Tuple[OldLayer, ...]


def of_docker_info(name: str, content: bytes) -> OldImage:
    """The image that a `docker-info.json` of this plugin describes. Raises NotAnImage."""
    info = _object(content)
    if "docker_nix" not in info:
        if "image_id" in info and "registries" in info:
            raise NotAnImage("it is a docker-info.json of another backend, which names no layers")
        raise NotAnImage("it is JSON, but not a docker-info.json")
    ours = info["docker_nix"]
    if not isinstance(ours, dict) or not isinstance(ours.get("layers"), list):
        raise NotAnImage("its 'docker_nix' has no list of 'layers'")
    return OldImage(
        name,
        None if ours.get("digest") is None else _digest(ours["digest"], "docker_nix.digest"),
        _digest(info.get("image_id"), "image_id"),
        tuple(
            _layer(layer, f"docker_nix.layers[{number}]")
            for number, layer in enumerate(ours["layers"])
        ),
    )


def _object(content: bytes) -> Dict[str, Any]:
    try:
        value = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise NotAnImage(f"it is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise NotAnImage("it is JSON, but not an object")
    return value


def is_digest(value: object) -> bool:
    """Whether it is a digest of the form `sha256:<64 hex digits>`."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _digest(value: object, where: str) -> str:
    if not isinstance(value, str) or not is_digest(value):
        raise NotAnImage(f"its '{where}' is {value!r}, which is not a digest")
    return value


def _layer(value: object, where: str) -> OldLayer:
    if not isinstance(value, dict):
        raise NotAnImage(f"its '{where}' is {value!r}, which is not an object")
    size, kind, listed = value.get("size"), value.get("kind"), value.get("store_paths")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise NotAnImage(f"its '{where}.size' is {size!r}, which is not a number of bytes")
    paths = []
    for path in listed if isinstance(listed, list) else [None]:
        if not isinstance(path, dict) or not isinstance(path.get("path"), str):
            raise NotAnImage(f"its '{where}.store_paths' are not store paths")
        paths.append(path["path"])
    return OldLayer(
        _digest(value.get("digest"), f"{where}.digest"),
        size,
        _digest(value.get("diff_id"), f"{where}.diff_id"),
        tuple(paths),
        # A base from elsewhere may have any number of them, which nobody asked for.
        complete=kind != "base" or bool(paths),
    )


def of_manifest(
    name: str, digest: str, manifest: Mapping[str, Any], config: Mapping[str, Any]
) -> OldImage:
    """The image that has this manifest and configuration, which must be checked already.

    Which store paths its layers have is taken from its history, where this plugin or nixpkgs wrote
    that.
    """
    diff_ids = config["rootfs"]["diff_ids"]
    lines = created_by(config, len(diff_ids))
    layers: List[OldLayer] = []
    for layer, diff_id, line in zip(manifest["layers"], diff_ids, lines):
        paths = tuple(STORE_PATH.findall(line))
        complete = not _AND_MORE.search(line) if paths else line == LINKS_ONLY
        layers.append(OldLayer(layer["digest"], layer["size"], diff_id, paths, complete))
    return OldImage(name, digest, manifest["config"]["digest"], tuple(layers))
