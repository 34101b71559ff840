"""What the goal `image-layers` knows of images: sizes, digests and who shares what. No bytes."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

STORE_PATH = re.compile(r"/nix/store/[0-9a-df-np-sv-z]{32}-[0-9A-Za-z+\-._?=]+")

# What `assemble` writes into the history of a layer without store paths.
LINKS_ONLY = "links to the contents"

_LONGEST_TITLE = 60


def store_path_name(path: str) -> str:
    """The name in `/nix/store/<hash>-<name>`."""
    return path.rpartition("/")[2].partition("-")[2]


@dataclass(frozen=True)
class StorePath:
    """A store path in a layer.

    :param nar_size: the size of its NAR in bytes.
    """

    path: str
    nar_size: int

    @property
    def name(self) -> str:
        return store_path_name(self.path)


@dataclass(frozen=True)
class Layer:
    """One layer of an image.

    :param kind: `base`, `store`, `customisation` or `single`.
    :param size: of the blob as registries have it, in bytes.
    :param diff_size: of the uncompressed tar in bytes; None where nobody has looked into it.
    :param created_by: what the image's history says of it.
    """

    kind: str
    digest: str
    media_type: str
    size: int
    diff_id: str
    diff_size: Optional[int]
    store_paths: Tuple[StorePath, ...] = ()
    created_by: str = ""

    @property
    def title(self) -> str:
        """What is in it, in a few words."""
        names = [path.name for path in self.store_paths]
        if len(names) > 2:
            return f"{names[0]} and {len(names) - 1} more"
        if names:
            return " and ".join(names)
        if self.kind == "customisation":
            return LINKS_ONLY
        if self.kind == "single":
            return "files and links"
        text = self.created_by.removeprefix("/bin/sh -c #(nop)").strip() or "base layer"
        return text if len(text) <= _LONGEST_TITLE else f"{text[:_LONGEST_TITLE - 1]}…"


@dataclass(frozen=True)
class Blob:
    """A digest (`sha256:…`) and a size in bytes."""

    digest: str
    size: int

    @classmethod
    def of(cls, content: bytes) -> Blob:
        return cls(f"sha256:{hashlib.sha256(content).hexdigest()}", len(content))


@dataclass(frozen=True)
class Image:
    """An image of the selection.

    :param address: of the target.
    :param platform: in the words of the OCI image spec.
    :param layers: lowest first.
    """

    address: str
    name: str
    tags: Tuple[str, ...]
    platform: Mapping[str, str]
    manifest: Blob
    config: Blob
    layers: Tuple[Layer, ...]

    @property
    def platform_text(self) -> str:
        """As `linux/arm64/v8`."""
        parts = (self.platform.get(key) for key in ("os", "architecture", "variant"))
        return "/".join(part for part in parts if part)

    @property
    def size(self) -> int:
        return sum(layer.size for layer in self.layers)

    @property
    def diff_size(self) -> Optional[int]:
        return total_diff_size(self.layers)


def total_diff_size(layers: Sequence[Layer]) -> Optional[int]:
    """The bytes of the layers' tars; None where that of one is not known."""
    total = 0
    for layer in layers:
        if layer.diff_size is None:
            return None
        total += layer.diff_size
    return total


@dataclass(frozen=True)
class Report:
    """The images that were selected, in the order in which they are shown."""

    images: Tuple[Image, ...]

    @property
    def layers(self) -> Tuple[Layer, ...]:
        """All layers, those of a later image after those of an earlier one."""
        return tuple(layer for image in self.images for layer in image.layers)

    @property
    def unique_layers(self) -> Tuple[Layer, ...]:
        """Each layer once, where it comes first."""
        unique: Dict[str, Layer] = {}
        for layer in self.layers:
            unique.setdefault(layer.digest, layer)
        return tuple(unique.values())

    def owners(self) -> Dict[str, List[int]]:
        """The numbers (from 0) of the images that have a layer, by the layer's digest."""
        owners: Dict[str, List[int]] = {}
        for number, image in enumerate(self.images):
            for digest in dict.fromkeys(layer.digest for layer in image.layers):
                owners.setdefault(digest, []).append(number)
        return owners


def created_by(config: Mapping[str, Any], layers: int) -> Tuple[str, ...]:
    """What the history in an image's configuration says of each of its layers, lowest first.

    Lines of steps that made no layer are marked `empty_layer` (OCI image-spec, `config.md`); empty
    texts where the others are not one for each layer.
    """
    history = config.get("history")
    lines = []
    for line in history if isinstance(history, list) else ():
        if isinstance(line, dict) and not line.get("empty_layer"):
            text = line.get("created_by") or ""
            # This plugin names itself where it has no store paths to name.
            if text in ("", "docker_nix"):
                text = line.get("comment") or ""
            lines.append(" ".join(text.split()) if isinstance(text, str) else "")
    return tuple(lines) if len(lines) == layers else ("",) * layers
