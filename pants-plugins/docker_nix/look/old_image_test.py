from __future__ import annotations

import json
from typing import Any, Dict

import pytest

from docker_nix.assemble.docker_info import ImageName, LayerInfo, docker_info_json
from docker_nix.assemble.image_config import Platform
from docker_nix.look.old_image import NotAnImage, OldLayer, of_docker_info, of_manifest
from docker_nix.look.testing import digest, store_path

A, B = store_path("a"), store_path("b")


def info(**changes: Any) -> Dict[str, Any]:
    layers = [
        LayerInfo("base", digest("0"), "type", 30, digest("t0"), None, ()),
        LayerInfo("store", digest("1"), "type", 10, digest("t1"), 20, ({"path": A},)),
        LayerInfo("customisation", digest("2"), "type", 5, digest("t2"), 20, ()),
    ]
    made = docker_info_json(
        image_id=digest("id"),
        digest=digest("manifest"),
        names=[ImageName("team/app", "v1")],
        platform=Platform("amd64", "linux"),
        output_format="oci",
        layers=layers,
    )
    value: Dict[str, Any] = json.loads(made)
    return {**value, **changes}


def test_what_package_writes() -> None:
    old = of_docker_info("old.json", json.dumps(info()).encode())
    assert (old.name, old.digest, old.image_id) == ("old.json", digest("manifest"), digest("id"))
    assert old.layers == (
        OldLayer(digest("0"), 30, digest("t0"), (), False),
        OldLayer(digest("1"), 10, digest("t1"), (A,), True),
        OldLayer(digest("2"), 5, digest("t2"), (), True),
    )


def test_a_docker_archive_has_no_manifest() -> None:
    value = info()
    value["docker_nix"]["digest"] = None
    assert of_docker_info("x", json.dumps(value).encode()).digest is None


def layer(**changes: Any) -> bytes:
    value = info()
    value["docker_nix"]["layers"][1].update(changes)
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    "content, problem",
    [
        (b"", "it is not JSON (Expecting value: line 1 column 1 (char 0))"),
        (b"\xff", "it is not JSON ('utf-8' codec can't decode byte 0xff*"),
        (b"[" * 100_000, "it is not JSON (maximum recursion*"),
        (b"[]", "it is JSON, but not an object"),
        (b"{}", "it is JSON, but not a docker-info.json"),
        (
            json.dumps({"version": 1, "image_id": "sha256:0", "registries": []}).encode(),
            "it is a docker-info.json of another backend, which names no layers",
        ),
        (json.dumps(info(docker_nix=7)).encode(), "its 'docker_nix' has no list of 'layers'"),
        (json.dumps(info(docker_nix={})).encode(), "its 'docker_nix' has no list of 'layers'"),
        (
            json.dumps(info(image_id="sha256:abc")).encode(),
            "its 'image_id' is 'sha256:abc', which is not a digest",
        ),
        (
            json.dumps(info(docker_nix={"layers": [7]})).encode(),
            "its 'docker_nix.layers[0]' is 7, which is not an object",
        ),
        (layer(size="7"), "its 'docker_nix.layers[1].size' is '7', which is not a number of bytes"),
        (layer(size=-1), "its 'docker_nix.layers[1].size' is -1*"),
        (layer(size=True), "its 'docker_nix.layers[1].size' is True*"),
        (layer(digest=None), "its 'docker_nix.layers[1].digest' is None, which is not a digest"),
        (layer(store_paths=None), "its 'docker_nix.layers[1].store_paths' are not store paths"),
        (layer(store_paths=[{}]), "its 'docker_nix.layers[1].store_paths' are not store paths"),
    ],
)
def test_what_is_none(content: bytes, problem: str) -> None:
    with pytest.raises(NotAnImage) as error:
        of_docker_info("x", content)
    said = str(error.value)
    assert said.startswith(problem[:-1]) if problem.endswith("*") else said == problem


def manifest_image(*lines: Dict[str, Any]) -> Any:
    layers = [{"digest": digest(f"{n}"), "size": n} for n in range(len(lines))]
    return of_manifest(
        "r/app:v1",
        digest("manifest"),
        {"config": {"digest": digest("id")}, "layers": layers},
        {
            "rootfs": {"diff_ids": [digest(f"t{n}") for n in range(len(lines))]},
            "history": [{"created_by": "x", "empty_layer": True}, *lines],
        },
    )


def test_store_paths_from_the_history() -> None:
    old = manifest_image(
        {"created_by": A, "comment": "store path"},
        {"created_by": f"{A}, {B} and 7 more", "comment": "store paths"},
        {"created_by": "docker_nix", "comment": "links to the contents"},
        {"comment": f"store paths: ['{A}', '{B}']"},  # as nixpkgs writes it
        {"created_by": "RUN apt-get install"},
    )
    assert old.image_id == digest("id")
    assert [(one.store_paths, one.complete) for one in old.layers] == [
        ((A,), True),
        ((A, B), False),
        ((), True),
        ((A, B), True),
        ((), False),
    ]
    assert old.layers[1] == OldLayer(digest("1"), 1, digest("t1"), (A, B), False)
