"""What a new image has that an old one has not, and what that costs a node that has the old one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Tuple

from docker_nix.look.model import Image, Layer, store_path_name
from docker_nix.look.old_image import OldImage, OldLayer


@dataclass(frozen=True)
class PathChange:
    """A store path of an added layer.

    :param change: `new`; `changed` if the old image has others of the same name; `moved` if it has
        it, in another layer; `unknown` where it is not known whether the old image has it or
        another of its name.
    :param old: the store paths of the same name that are in the old image only.
    """

    path: str
    change: str
    old: Tuple[str, ...] = ()


@dataclass(frozen=True)
class LayerChange:
    """A layer of the new image.

    :param change: `kept`, `added`, or `recompressed` if the old image has the same tar in another
        blob, which must be pulled all the same.
    :param paths: what became of each store path; empty for a layer that is kept.
    """

    position: int
    layer: Layer
    change: str
    paths: Tuple[PathChange, ...] = ()


@dataclass(frozen=True)
class RemovedLayer:
    """A layer that only the old image has.

    :param gone: its known store paths which the new image has not.
    """

    position: int
    layer: OldLayer
    gone: Tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """The layers of the new image, lowest first, and those that it no longer has.

    :param pull_layers: how many bytes of layers a node that has the old image must pull.
    :param pull_config: and of the configuration, and
    :param pull_manifest: of the manifest.
    """

    image: Image
    old: OldImage
    layers: Tuple[LayerChange, ...]
    removed: Tuple[RemovedLayer, ...]
    pull_layers: int
    pull_config: int
    pull_manifest: int

    @property
    def pull(self) -> int:
        """How many bytes a node that has the old image must pull."""
        return self.pull_layers + self.pull_config + self.pull_manifest

    @property
    def whole(self) -> int:
        """How many bytes a node pulls that has nothing."""
        layers = {layer.digest: layer.size for layer in self.image.layers}
        return sum(layers.values()) + self.image.config.size + self.image.manifest.size

    @property
    def added(self) -> Tuple[LayerChange, ...]:
        return tuple(layer for layer in self.layers if layer.change != "kept")

    @property
    def kept(self) -> Tuple[LayerChange, ...]:
        return tuple(layer for layer in self.layers if layer.change == "kept")

    @property
    def is_same(self) -> bool:
        """Whether both are one image."""
        if self.old.digest is not None:
            return self.old.digest == self.image.manifest.digest
        return not self.added and self.old.image_id == self.image.config.digest


def compare(image: Image, old: OldImage) -> Comparison:
    """What changed from `old` to `image`.

    A node pulls a blob unless it has one of the same digest, and the same blob once only (OCI
    distribution-spec, "Pulling blobs").
    """
    had = {layer.digest for layer in old.layers}
    had_tars = {layer.diff_id for layer in old.layers}
    has = {layer.digest for layer in image.layers}
    removed = [layer for layer in old.layers if layer.digest not in has]
    kept_paths = [
        path.path for layer in image.layers if layer.digest in had for path in layer.store_paths
    ]
    old_paths = {*kept_paths, *(path for layer in old.layers for path in layer.store_paths)}
    new_paths = {path.path for layer in image.layers for path in layer.store_paths}
    by_name: Dict[str, List[str]] = {}
    for path in sorted(old_paths - new_paths):
        by_name.setdefault(store_path_name(path), []).append(path)
    # Of a layer that is kept, the new image says what is in it.
    all_known = all(layer.complete for layer in removed)

    def path_change(path: str) -> PathChange:
        others = tuple(by_name.get(store_path_name(path), ()))
        if path in old_paths:
            return PathChange(path, "moved")
        if others:
            return PathChange(path, "changed", others)
        return PathChange(path, "new" if all_known else "unknown")

    layers = []
    for position, layer in enumerate(image.layers):
        if layer.digest in had:
            layers.append(LayerChange(position, layer, "kept"))
            continue
        change = "recompressed" if layer.diff_id in had_tars else "added"
        paths = tuple(path_change(path.path) for path in layer.store_paths)
        layers.append(LayerChange(position, layer, change, paths))
    pulled = {one.layer.digest: one.layer.size for one in layers if one.change != "kept"}
    has_config = old.image_id == image.config.digest
    has_manifest = old.digest == image.manifest.digest
    return Comparison(
        image,
        old,
        tuple(layers),
        tuple(
            RemovedLayer(
                position,
                layer,
                tuple(path for path in layer.store_paths if path not in new_paths),
            )
            for position, layer in enumerate(old.layers)
            if layer.digest not in has
        ),
        sum(pulled.values()),
        0 if has_config else image.config.size,
        0 if has_manifest else image.manifest.size,
    )
