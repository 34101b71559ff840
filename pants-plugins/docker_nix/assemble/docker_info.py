"""The `<name>.docker-info.json` beside an image.

It has all that Pants' own docker backend writes (version 1 of its format), so that what reads one
reads the other, and below `docker_nix` what only this plugin knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

from docker_nix.assemble.image_config import Platform, to_json_bytes


@dataclass(frozen=True)
class ImageName:
    """One name an image has: `name:tag`, or `registry/name:tag`.

    :param address: of the registry; None without one.
    :param alias: what `[docker-nix].registries` calls it; None where it is not there.
    :param uses_local_alias: whether the name begins with the alias, which is for this machine only.
    """

    repository: str
    tag: str
    address: Optional[str] = None
    alias: Optional[str] = None
    uses_local_alias: bool = False

    @property
    def image(self) -> str:
        """Without the tag."""
        registry = self.alias if self.uses_local_alias else self.address
        return f"{registry}/{self.repository}" if registry else self.repository

    @property
    def full(self) -> str:
        return f"{self.image}:{self.tag}"


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
    digest: str,
    names: Sequence[ImageName],
    platform: Platform,
    output_format: str,
    layers: Sequence[LayerInfo],
) -> bytes:
    """The report on an image.

    :param image_id: `sha256:…` of the configuration.
    :param digest: `sha256:…` of the manifest, which a registry knows the image by once it is
        published.
    """
    groups: Dict[Tuple[str, str, str], List[ImageName]] = {}
    for name in names:
        key = (name.address or "", name.alias or "", name.repository)
        groups.setdefault(key, []).append(name)
    return to_json_bytes(
        {
            "version": 1,
            "image_id": image_id,
            "registries": [
                {
                    "alias": alias or None,
                    "address": address or None,
                    "repository": repository,
                    "tags": [
                        {
                            "template": name.tag,
                            "tag": name.tag,
                            "uses_local_alias": name.uses_local_alias,
                            "name": name.full,
                        }
                        for name in sorted(group, key=lambda n: n.full)
                    ],
                }
                for (address, alias, repository), group in sorted(groups.items())
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
