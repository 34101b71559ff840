"""What manifests, indexes and configs of images say, checked as far as we rely on them.

Both families are read: OCI image-spec (manifest.md, image-index.md, config.md) and Docker's image
manifest, version 2, schema 2. `what` in this module is how messages name the image.
"""

from __future__ import annotations

import json
import re
from hashlib import sha256
from typing import Any, Dict, List, NamedTuple, Optional

from docker_nix.layer.tool.errors import ToolError

Json = Dict[str, Any]

_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_CONFIGS = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
)
_LAYER = re.compile(
    r"application/vnd\.(oci\.image\.layer\.v1\.tar(\+gzip|\+zstd)?"
    r"|docker\.image\.rootfs\.diff\.tar(\.gzip|\.zstd)?)"
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# What an architecture means where no variant is given.
_DEFAULT_VARIANTS = {"amd64": "v1", "arm": "v7", "arm64": "v8"}


class Platform(NamedTuple):
    """A platform in the words of Go, as images have it; `variant` is None where it is not said."""

    os: str
    architecture: str
    variant: Optional[str]

    @classmethod
    def of(cls, value: Json) -> Platform:
        return cls(value["os"], value["architecture"], value.get("variant") or None)

    def __str__(self) -> str:
        return "/".join(filter(None, self))


class Descriptor(NamedTuple):
    """A reference to a blob: its type, its digest ("sha256:<hex>") and its size in bytes."""

    media_type: str
    digest: str
    size: int
    platform: Optional[Platform]
    annotations: Json

    @property
    def hex(self) -> str:
        return self.digest.partition(":")[2]

    def check(self, data: bytes, what: str) -> None:
        """Raises `ToolError` unless `data` is what this refers to."""
        check_digest(data, self.digest, what)
        if len(data) != self.size:
            raise ToolError(f"{what}: its size is {len(data)} bytes, not {self.size}")


class Manifest(NamedTuple):
    """One image: its config and its layers, lowest first."""

    config: Descriptor
    layers: List[Descriptor]


def check_digest(data: bytes, digest: str, what: str) -> None:
    """Raises `ToolError` unless `data` has the digest "sha256:<hex>"."""
    actual = f"sha256:{sha256(data).hexdigest()}"
    if actual != digest:
        raise ToolError(
            f"{what}: the digest is {actual}, not {digest}; nothing was kept; fetch it again"
        )


def parse_digest(value: object, what: str) -> str:
    """`value` if it is a SHA-256 digest, the only kind that images have in practice."""
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise ToolError(f"{what}: {value!r} is not a digest of the form sha256:<64 hex digits>")
    return value


def parse_object(data: bytes, what: str) -> Json:
    """The JSON object that is `data`."""
    try:
        value = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise ToolError(f"{what}: it is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ToolError(f"{what}: it is not a JSON object")
    return value


def parse_manifest(data: bytes, what: str) -> Manifest | list[Descriptor]:
    """The image that a manifest describes, or what an index lists.

    Raises `ToolError` for what is no image, or none that can be a base: artifacts, schema 1, layers
    that are encrypted or may not be distributed.
    """
    document = parse_object(data, what)
    media_type = document.get("mediaType", "")
    if document.get("schemaVersion") == 1:
        raise ToolError(
            f"{what}: it is in the old format `schema 1`, which has no config; push the image "
            "again with a tool of today (docker push, skopeo copy), and use the new digest"
        )
    if media_type in _INDEXES or (not media_type and "manifests" in document):
        return [_descriptor(entry, what) for entry in _list(document, "manifests", what)]
    if media_type not in _MANIFESTS and (media_type or "layers" not in document):
        raise ToolError(f"{what}: it is neither an image nor an index, but {media_type!r}")
    config = _descriptor(document.get("config"), what)
    if config.media_type not in _CONFIGS:
        raise ToolError(f"{what}: it is not an image, but an artifact of {config.media_type!r}")
    layers = [_descriptor(entry, what) for entry in _list(document, "layers", what)]
    for number, layer in enumerate(layers, start=1):
        _check_layer_type(layer.media_type, f"{what}: layer {number} ({layer.digest})")
    return Manifest(config, layers)


def parse_diff_ids(config: bytes, layers: int | None, what: str) -> list[str]:
    """The digests of the uncompressed layers in a config.

    :param layers: how many there must be, or None for any number.
    """
    rootfs = parse_object(config, what).get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if diff_ids is None and rootfs and not layers:
        diff_ids = []
    if not isinstance(diff_ids, list):
        raise ToolError(f"{what}: its config has no rootfs.diff_ids, so it is no image")
    if layers is not None and len(diff_ids) != layers:
        raise ToolError(f"{what}: it has {layers} layers, but its config {len(diff_ids)} diff_ids")
    return [parse_digest(diff_id, f"{what}: rootfs.diff_ids") for diff_id in diff_ids]


def choose(entries: list[Descriptor], platform: Platform | None, what: str) -> Descriptor:
    """The entry of an index for `platform`, or its first image where that is None.

    A variant must be the same, where the usual one may go unsaid. Without one, an entry that has
    none is best, then the usual variant, then the first. An index of one entry need not say a
    platform at all. Raises `ToolError` with the platforms there are.
    """
    images = [entry for entry in entries if not _is_attestation(entry)]
    if not images:
        raise ToolError(f"{what}: it lists no images")
    if platform is None or (len(images) == 1 and images[0].platform is None):
        return images[0]
    usual = _DEFAULT_VARIANTS.get(platform.architecture)
    variants: list[str | None] = [platform.variant] if platform.variant else [None, usual]
    if platform.variant == usual:
        variants.append(None)
    fitting = [x for x in images if x.platform and x.platform[:2] == platform[:2]]
    for variant in variants:
        for entry in fitting:
            if entry.platform and entry.platform.variant == variant:
                return entry
    if fitting and not platform.variant:
        return fitting[0]
    there = ", ".join(dict.fromkeys(str(x.platform) for x in images if x.platform)) or "none"
    raise ToolError(f"{what}: it has no image for {platform}; it has: {there}")


def _is_attestation(entry: Descriptor) -> bool:
    return entry.platform is not None and entry.platform[:2] == ("unknown", "unknown")


def _list(document: Json, key: str, what: str) -> list[Any]:
    value = document.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise ToolError(f"{what}: its {key!r} is not a list")
    return value


def _descriptor(value: object, what: str) -> Descriptor:
    if not isinstance(value, dict):
        raise ToolError(f"{what}: {value!r} does not describe a blob")
    digest, size = parse_digest(value.get("digest"), what), value.get("size")
    if not isinstance(size, int) or size < 0:
        raise ToolError(f"{what}: {digest} has the size {size!r}, which is not a number of bytes")
    platform, annotations = value.get("platform"), value.get("annotations")
    said = isinstance(platform, dict) and platform.get("os") and platform.get("architecture")
    return Descriptor(
        str(value.get("mediaType", "")),
        digest,
        size,
        Platform.of(platform) if said and platform else None,
        annotations if isinstance(annotations, dict) else {},
    )


def _check_layer_type(media_type: str, what: str) -> None:
    if _LAYER.fullmatch(media_type):
        return
    if media_type.endswith("+encrypted"):
        raise ToolError(f"{what} is encrypted; use an image with plain layers")
    if "nondistributable" in media_type or ".foreign." in media_type:
        raise ToolError(
            f"{what} may not be distributed ({media_type}): registries do not keep it; "
            "use an image without such layers"
        )
    raise ToolError(f"{what} is not a layer of files, but {media_type!r}")
