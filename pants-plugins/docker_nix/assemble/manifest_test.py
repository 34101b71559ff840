from __future__ import annotations

import hashlib
import json

from docker_nix.assemble.docker_info import ImageName, docker_info_json
from docker_nix.assemble.image_config import Platform
from docker_nix.assemble.manifest import (
    CONFIG_TYPE,
    LAYER_TYPES,
    MANIFEST_TYPE,
    Descriptor,
    index_json,
    load_manifest_json,
    manifest_json,
)

CONFIG = Descriptor.of(CONFIG_TYPE, b"{}")
LAYER = Descriptor(LAYER_TYPES["zstd"], "sha256:" + "a" * 64, 7)


def test_descriptor() -> None:
    digest = hashlib.sha256(b"{}").hexdigest()
    assert CONFIG.to_json() == {"mediaType": CONFIG_TYPE, "digest": f"sha256:{digest}", "size": 2}
    assert CONFIG.path == f"blobs/sha256/{digest}"


def test_manifest() -> None:
    assert json.loads(manifest_json(CONFIG, [LAYER, LAYER])) == {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": CONFIG.to_json(),
        "layers": [LAYER.to_json(), LAYER.to_json()],
    }


def test_index_has_the_manifest_once_for_each_tag() -> None:
    manifest = Descriptor.of(MANIFEST_TYPE, manifest_json(CONFIG, [LAYER]))
    index = json.loads(index_json(manifest, Platform("arm64", "linux", "v8"), ["a", "b"]))
    assert [m["digest"] for m in index["manifests"]] == [manifest.digest] * 2
    assert index["manifests"][1]["annotations"] == {"org.opencontainers.image.ref.name": "b"}
    assert index["manifests"][0]["platform"] == {
        "architecture": "arm64",
        "os": "linux",
        "variant": "v8",
    }


def test_load_manifest() -> None:
    assert json.loads(load_manifest_json("c", ["l"], ["n:t"])) == [
        {"Config": "c", "Layers": ["l"], "RepoTags": ["n:t"]}
    ]


def test_docker_info_has_what_pants_own_docker_backend_writes() -> None:
    info = json.loads(
        docker_info_json(
            image_id="sha256:1",
            digest="sha256:2",
            names=[ImageName("team/app", "v2"), ImageName("team/app", "v1")],
            platform=Platform("amd64", "linux"),
            output_format="oci",
            layers=[],
        )
    )
    assert info.pop("docker_nix")["digest"] == "sha256:2"
    assert info == {
        "version": 1,
        "image_id": "sha256:1",
        "registries": [
            {
                "alias": None,
                "address": None,
                "repository": "team/app",
                "tags": [
                    {
                        "template": tag,
                        "tag": tag,
                        "uses_local_alias": False,
                        "name": f"team/app:{tag}",
                    }
                    for tag in ("v1", "v2")
                ],
            }
        ],
    }
