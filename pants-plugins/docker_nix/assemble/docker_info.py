"""The `<name>.docker-info.json` beside an image.

It has all that Pants' own docker backend writes (version 1 of its format), so that what reads one
reads the other, and below `docker_nix` what only this plugin knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Optional, Sequence, Tuple

from docker_nix.assemble.image_config import Platform, to_json_bytes


@dataclass(frozen=True)
class ImageName:
    """One name an image has: `name:tag`."""

    repository: str
    tag: str

    @property
    def full(self) -> str:
        return f"{self.repository}:{self.tag}"


@dataclass(frozen=True)
class LayerInfo:
    """One layer for the report, lowest first; sizes in bytes, that of a base may be unknown."""

    kind: str
    digest: str
    media_type: str
    size: int
    diff_id: str
    diff_size: Optional[int]
    store_paths: Tuple[Dict[str, Any], ...]


def docker_info_json(
    *,
    image_id: str,
    digest: Optional[str],
    names: Sequence[ImageName],
    platform: Platform,
    output_format: str,
    layers: Sequence[LayerInfo],
) -> bytes:
    """The report on an image.

    :param image_id: `sha256:…` of the configuration.
    :param digest: `sha256:…` of the manifest, which a registry will know the image by; None where
        the output has no manifest (`docker-archive`).
    """
    by_repository: Dict[str, list] = {}
    for name in names:
        by_repository.setdefault(name.repository, []).append(name)
    return to_json_bytes(
        {
            "version": 1,
            "image_id": image_id,
            "registries": [
                {
                    "alias": None,
                    "address": None,
                    "repository": repository,
                    "tags": [
                        {
                            "template": name.tag,
                            "tag": name.tag,
                            "uses_local_alias": False,
                            "name": name.full,
                        }
                        for name in sorted(group, key=lambda n: n.full)
                    ],
                }
                for repository, group in sorted(by_repository.items())
            ],
            "docker_nix": {
                "digest": digest,
                "output_format": output_format,
                "platform": platform.to_json(),
                "layers": [
                    {
                        "position": position,
                        "kind": layer.kind,
                        "digest": layer.digest,
                        "media_type": layer.media_type,
                        "size": layer.size,
                        "diff_id": layer.diff_id,
                        "diff_size": layer.diff_size,
                        "store_paths": list(layer.store_paths),
                    }
                    for position, layer in enumerate(layers)
                ],
            },
        }
    )
