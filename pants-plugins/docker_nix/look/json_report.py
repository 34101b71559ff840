"""The report as JSON. What is in it is documented in docs/looking-inside.md.

Names and meanings stay as they are while `version` does; keys may be added.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, Optional, Sequence

from docker_nix.look.compare import Comparison
from docker_nix.look.model import Image, Layer, Report, total_diff_size

VERSION = 1


def to_json(report: Report, comparisons: Sequence[Comparison]) -> str:
    """The report as indented ASCII JSON, with a line break at its end.

    :param comparisons: one for each image, in the same order, or none.
    """
    owners = report.owners()
    images = []
    for number, image in enumerate(report.images):
        comparison = comparisons[number] if comparisons else None
        images.append(_image(report, number, image, owners, comparison))
    layers, unique = report.layers, report.unique_layers
    value = {
        "version": VERSION,
        "images": images,
        "totals": {
            "images": len(report.images),
            "summed": _totals(layers),
            "unique": _totals(unique),
        },
    }
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def _totals(layers: Sequence[Layer]) -> Dict[str, Any]:
    return {
        "layers": len(layers),
        "size": sum(layer.size for layer in layers),
        "diff_size": total_diff_size(layers),
    }


def _image(
    report: Report,
    number: int,
    image: Image,
    owners: Dict[str, List[int]],
    comparison: Optional[Comparison],
) -> Dict[str, Any]:
    value: Dict[str, Any] = {
        "address": image.address,
        "name": image.name,
        "tags": list(image.tags),
        "platform": dict(image.platform),
        "digest": image.manifest.digest,
        "image_id": image.config.digest,
        "size": image.size,
        "diff_size": image.diff_size,
        "layers": [
            {
                "position": position,
                "kind": layer.kind,
                "digest": layer.digest,
                "media_type": layer.media_type,
                "size": layer.size,
                "diff_id": layer.diff_id,
                "diff_size": layer.diff_size,
                "created_by": layer.created_by,
                "store_paths": [
                    {"path": path.path, "nar_size": path.nar_size} for path in layer.store_paths
                ],
                "shared_with": [
                    report.images[other].address
                    for other in owners[layer.digest]
                    if other != number
                ],
            }
            for position, layer in enumerate(image.layers)
        ],
    }
    if comparison:
        value["against"] = _comparison(comparison)
    return value


def _comparison(comparison: Comparison) -> Dict[str, Any]:
    old = comparison.old
    return {
        "name": old.name,
        "digest": old.digest,
        "image_id": old.image_id,
        "layers": [
            {
                "position": one.position,
                "digest": one.layer.digest,
                "change": one.change,
                "store_paths": [
                    {"path": path.path, "change": path.change, "old": list(path.old)}
                    for path in one.paths
                ],
            }
            for one in comparison.layers
        ],
        "removed": [
            {
                "position": one.position,
                "digest": one.layer.digest,
                "size": one.layer.size,
                "gone": list(one.gone),
            }
            for one in comparison.removed
        ],
        "pull": {
            "layers": comparison.pull_layers,
            "config": comparison.pull_config,
            "manifest": comparison.pull_manifest,
            "total": comparison.pull,
        },
    }
