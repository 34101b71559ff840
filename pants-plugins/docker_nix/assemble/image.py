"""What an image is to the rules: its JSON, and its layers by digest. No bytes of layers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Iterable, Optional, Tuple

from pants.engine.fs import FileDigest

from docker_nix.assemble.image_config import Platform
from docker_nix.assemble.manifest import CONFIG_TYPE, LAYER_TYPES, MANIFEST_TYPE, Descriptor
from docker_nix.layer.rules import BuiltLayer
from docker_nix.layer.store_path_info import StorePathInfo


@dataclass(frozen=True)
class RegistryLayer:
    """A layer as the manifest and the configuration of an image in a registry name it."""

    digest: str
    size: int
    diff_id: str
    compression: str


@dataclass(frozen=True)
class RegistryImage:
    """Where the layers of a pulled image can be fetched.

    :param name: with the registry, without a tag.
    :param digest: of the manifest.
    """

    name: str
    digest: str
    layers: Tuple[RegistryLayer, ...]


def libraries_to_read(compressions: Iterable[str]) -> Tuple[str, ...]:
    """The native libraries that the tool needs for layers that are compressed like that."""
    return ("zstd",) if "zstd" in compressions else ()


@dataclass(frozen=True)
class ImageLayer:
    """A layer of an image.

    :param kind: `base`, `store`, `customisation`, or `single` for that of a `docker_nix_image`.
    :param compression: `gzip`, `zstd` or `none`.
    :param diff_size: the size of the uncompressed tar in bytes, where it is known.
    :param registry: what to fetch before the blob is in the store; None if it is there.
    :param index: what the tool's `layer_index` says of it, where that is known already.
    """

    kind: str
    blob: FileDigest
    compression: str
    diff_id: str
    diff_size: Optional[int]
    store_paths: Tuple[StorePathInfo, ...] = ()
    registry: Optional[RegistryImage] = None
    index: Optional[FileDigest] = None

    @classmethod
    def of(cls, kind: str, built: BuiltLayer) -> ImageLayer:
        return cls(
            kind,
            built.blob,
            built.compression,
            built.diff_id,
            built.diff_size,
            built.store_paths,
        )

    def as_base(self) -> ImageLayer:
        return replace(self, kind="base")

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(
            LAYER_TYPES[self.compression],
            f"sha256:{self.blob.fingerprint}",
            self.blob.serialized_bytes_length,
        )


@dataclass(frozen=True)
class BuiltImage:
    """An image by its JSON and the digests of its layers, lowest first.

    :param name: the repository name.
    :param tags: one or more.
    :param manifest_type: the media type of the manifest, which a pulled image may have from Docker.
    """

    name: str
    tags: Tuple[str, ...]
    platform: Platform
    config_json: bytes
    manifest_json: bytes
    layers: Tuple[ImageLayer, ...]
    manifest_type: str = MANIFEST_TYPE

    @property
    def config(self) -> Descriptor:
        return Descriptor.of(CONFIG_TYPE, self.config_json)

    @property
    def manifest(self) -> Descriptor:
        return Descriptor.of(self.manifest_type, self.manifest_json)

    @property
    def image_id(self) -> str:
        return self.config.digest
