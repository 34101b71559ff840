"""An OCI image layout of an image, with all of its layers, or with some."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Iterable, Tuple, Union

from pants.engine.fs import CreateDigest, Digest, FileContent, FileEntry
from pants.engine.rules import Get, collect_rules, rule

from docker_nix.assemble import manifest as oci
from docker_nix.assemble.image import BuiltImage, ImageLayer
from docker_nix.base.types import Blobs, BlobsRequest


@dataclass(frozen=True)
class LayoutRequest:
    """A request for a layout.

    :param layers: those whose blobs are in it.
    :param tags: by which the index names the image.
    :param names: what `docker load` is to call the image; without any it is not for that.
    """

    image: BuiltImage
    layers: Tuple[ImageLayer, ...]
    tags: Tuple[str, ...]
    names: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    digest: Digest


@rule
async def make_layout(request: LayoutRequest) -> Layout:
    """The layers are named, not read."""
    image = request.image
    await Get(Blobs, BlobsRequest(request.layers))
    paths = {layer.descriptor.path: layer for layer in request.layers}
    files: Dict[str, Union[FileContent, FileEntry]] = {
        path: FileEntry(path, layer.blob) for path, layer in paths.items()
    }
    contents = {
        image.config.path: image.config_json,
        image.manifest.path: image.manifest_json,
        "index.json": oci.index_json(image.manifest, image.platform, request.tags),
        "oci-layout": oci.OCI_LAYOUT,
    }
    if request.names:
        contents["manifest.json"] = oci.load_manifest_json(
            image.config.path, [layer.descriptor.path for layer in image.layers], request.names
        )
    files.update((path, FileContent(path, content)) for path, content in contents.items())
    return Layout(await Get(Digest, CreateDigest(files.values())))


def rules() -> Iterable[object]:
    return collect_rules()
