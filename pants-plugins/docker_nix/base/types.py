"""What the base step takes and gives: the image that another one is built on, and its files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Tuple

from pants.engine.addresses import Address

from docker_nix.assemble.image import ImageLayer
from docker_nix.assemble.image_config import Platform
from docker_nix.base_fields import FromImageField, FromImageNameField, FromImageTagField


@dataclass(frozen=True)
class FromImageRequest:
    """A request for the image that `from_image` names.

    :param platform: the one to take, where an archive has several.
    :param compression: for the layers of a docker-archive, which have none.
    """

    from_image: FromImageField
    name: FromImageNameField
    tag: FromImageTagField
    platform: Platform
    compression: str

    @property
    def owner(self) -> Address:
        return self.from_image.address


@dataclass(frozen=True)
class TargetImageRequest:
    """A request for the image that the target at `address` builds or pulls."""

    address: Address


@dataclass(frozen=True)
class LayerIndexRequest:
    """A request for what a layer holds. The same for equal layers, whatever image they are of."""

    layer: ImageLayer


@dataclass(frozen=True, eq=False)
class LayerIndex:
    """What the tool's `layer_index` says of a layer, parsed."""

    index: Mapping[str, Any]


@dataclass(frozen=True)
class BaseTreeRequest:
    """A request for the files that the layers make together, the lowest first."""

    layers: Tuple[ImageLayer, ...]


@dataclass(frozen=True)
class BlobsRequest:
    """A request that the blobs of all these layers be in the store."""

    layers: Tuple[ImageLayer, ...]


@dataclass(frozen=True)
class Blobs:
    pass
