"""The files of an image beside its layers: manifest, index, and what `docker load` reads.

Sources: OCI image-spec `manifest.md`, `image-index.md`, `image-layout.md`; for `manifest.json`, the
Docker image specification v1.2, "Combined Image JSON + Filesystem Changeset Format".
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Dict, Sequence

from docker_nix.assemble.image_config import Platform, to_json_bytes

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPES = {
    "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
    "none": "application/vnd.oci.image.layer.v1.tar",
}
# Those of Docker's registry, "Image Manifest V 2, Schema 2", and the same layers in OCI's words.
_COMPRESSIONS = {
    **{media_type: compression for compression, media_type in LAYER_TYPES.items()},
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": "zstd",
    "application/vnd.docker.image.rootfs.diff.tar": "none",
}
OCI_LAYOUT = to_json_bytes({"imageLayoutVersion": "1.0.0"})


@dataclass(frozen=True)
class Descriptor:
    """A reference to a blob: its media type, its digest (`sha256:…`) and its size in bytes."""

    media_type: str
    digest: str
    size: int

    @classmethod
    def of(cls, media_type: str, content: bytes) -> Descriptor:
        return cls(media_type, f"sha256:{hashlib.sha256(content).hexdigest()}", len(content))

    @property
    def path(self) -> str:
        """Where the blob lies in an OCI image layout."""
        return blob_path(self.digest)

    def to_json(self) -> Dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


def compression_of(media_type: str) -> str:
    """`gzip`, `zstd` or `none`, by the media type of a layer, which may be OCI's or Docker's.

    Raises ValueError for one that no image built on top can have.
    """
    if media_type in _COMPRESSIONS:
        return _COMPRESSIONS[media_type]
    if "foreign" in media_type or "nondistributable" in media_type:
        kind = "which may not be distributed"
    elif "encrypted" in media_type:
        kind = "which is encrypted"
    else:
        kind = "which is not a layer of files"
    raise ValueError(f"a layer with the media type {media_type!r}, {kind}")


def blob_path(digest: str) -> str:
    """Where the blob with the digest `ALGORITHM:HEX` lies in an OCI image layout."""
    algorithm, _, encoded = digest.partition(":")
    return f"blobs/{algorithm}/{encoded}"


def manifest_json(config: Descriptor, layers: Sequence[Descriptor]) -> bytes:
    """The OCI image manifest; its SHA-256 is the image's digest in a registry."""
    return to_json_bytes(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": config.to_json(),
            "layers": [layer.to_json() for layer in layers],
        }
    )


def index_json(manifest: Descriptor, platform: Platform, tags: Sequence[str]) -> bytes:
    """The `index.json` of a layout: the manifest once for each tag, so that each can be named."""
    return to_json_bytes(
        {
            "schemaVersion": 2,
            "mediaType": INDEX_TYPE,
            "manifests": [
                {
                    **manifest.to_json(),
                    "platform": platform.to_json(),
                    "annotations": {"org.opencontainers.image.ref.name": tag},
                }
                for tag in tags
            ],
        }
    )


def load_manifest_json(
    config_path: str, layer_paths: Sequence[str], repo_tags: Sequence[str]
) -> bytes:
    """The `manifest.json` that `docker load` reads, with paths relative to it."""
    return to_json_bytes(
        [{"Config": config_path, "Layers": list(layer_paths), "RepoTags": list(repo_tags)}]
    )
