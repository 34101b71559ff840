from __future__ import annotations

import json
from typing import Any

import pytest

from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.oci_types import (
    Descriptor,
    Platform,
    choose,
    parse_diff_ids,
    parse_manifest,
)

DIGEST = f"sha256:{'0' * 64}"


def entry(platform: str | None) -> Descriptor:
    """A descriptor whose annotations name it."""
    parts = platform.split("/") if platform else None
    said = Platform(parts[0], parts[1], (parts + [""])[2] or None) if parts else None
    return Descriptor("", DIGEST, 1, said, {"name": platform})


def chosen(platforms: list[str | None], wanted: str | None) -> str | None:
    parts = (wanted.split("/") + [""])[:3] if wanted else None
    platform = Platform(parts[0], parts[1], parts[2] or None) if parts else None
    found = choose([entry(name) for name in platforms], platform, "img")
    name: str | None = found.annotations["name"]
    return name


@pytest.mark.parametrize(
    ("platforms", "wanted", "expected"),
    [
        (["linux/amd64", "linux/arm64"], "linux/arm64", "linux/arm64"),
        (["linux/arm64/v8", "linux/arm64"], "linux/arm64", "linux/arm64"),
        (["linux/arm64/v9", "linux/arm64/v8"], "linux/arm64", "linux/arm64/v8"),
        (["linux/arm/v6", "linux/arm/v7"], "linux/arm", "linux/arm/v7"),
        (["linux/arm/v6", "linux/arm/v5"], "linux/arm", "linux/arm/v6"),
        (["linux/arm/v6", "linux/arm/v7"], "linux/arm/v6", "linux/arm/v6"),
        (["linux/arm64", "linux/arm64/v8"], "linux/arm64/v8", "linux/arm64/v8"),
        (["linux/arm64"], "linux/arm64/v8", "linux/arm64"),
        (["windows/amd64", "linux/amd64"], "linux/amd64", "linux/amd64"),
        (["unknown/unknown", "linux/amd64"], "linux/amd64", "linux/amd64"),
        (["unknown/unknown", "linux/amd64"], None, "linux/amd64"),
        ([None], "linux/amd64", None),
        (["unknown/unknown", None], "linux/amd64", None),
    ],
)
def test_choice_of_a_platform(
    platforms: list[str | None], wanted: str | None, expected: str | None
) -> None:
    assert chosen(platforms, wanted) == expected


@pytest.mark.parametrize(
    ("platforms", "wanted", "there"),
    [
        (["linux/amd64", "linux/arm64", "linux/amd64"], "linux/s390x", "linux/amd64, linux/arm64"),
        (["linux/arm/v6"], "linux/arm/v7", "linux/arm/v6"),
        (["linux/arm64"], "linux/arm64/v9", "linux/arm64"),
        ([None, None], "linux/arm64", "none"),
    ],
)
def test_platform_that_is_not_there(platforms: list[str | None], wanted: str, there: str) -> None:
    with pytest.raises(ToolError) as error:
        chosen(platforms, wanted)
    assert str(error.value) == f"img: it has no image for {wanted}; it has: {there}"


def test_index_of_attestations_only() -> None:
    with pytest.raises(ToolError, match="img: it lists no images"):
        chosen(["unknown/unknown"], "unknown/unknown")


def manifest(**changes: Any) -> bytes:
    config = {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": DIGEST,
        "size": 2,
    }
    return json.dumps({"schemaVersion": 2, "config": config, "layers": [], **changes}).encode()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xff", "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b"{}", "it is neither an image nor an index, but ''"),
        (manifest(mediaType="text/html"), "it is neither an image nor an index, but 'text/html'"),
        (manifest(config=None), "None does not describe a blob"),
        (manifest(layers={}), "its 'layers' is not a list"),
        (manifest(layers=[{"digest": "md5:00", "size": 1}]), "'md5:00' is not a digest of the"),
        (manifest(layers=[{"digest": DIGEST + "\n"}]), "is not a digest of the form"),
        (manifest(layers=[{"digest": DIGEST, "size": -1}]), "the size -1, which is not a number"),
        (manifest(layers=[{"digest": DIGEST, "size": 1}]), "is not a layer of files, but ''"),
        (b'{"manifests": [{}]}', "None is not a digest of the form"),
    ],
)
def test_malformed_manifests(data: bytes, expected: str) -> None:
    with pytest.raises(ToolError) as error:
        parse_manifest(data, "img")
    assert str(error.value).startswith("img: ") and expected in str(error.value)


def test_platform_of_odd_entries() -> None:
    data = {"manifests": [{"digest": DIGEST, "size": 1, "platform": {"os": "", "x": 1}}]}
    entries = parse_manifest(json.dumps(data).encode(), "img")
    assert isinstance(entries, list) and [entry.platform for entry in entries] == [None]


def test_diff_ids() -> None:
    assert parse_diff_ids(b'{"rootfs": {"diff_ids": ["%s"]}}' % DIGEST.encode(), 1, "img") == [
        DIGEST
    ]
    # Go writes an empty list as null.
    assert parse_diff_ids(b'{"rootfs": {"type": "layers", "diff_ids": null}}', 0, "img") == []
    for config, expected in (
        (b"{}", "no rootfs.diff_ids"),
        (b'{"rootfs": []}', "no rootfs.diff_ids"),
        (b'{"rootfs": {"type": "layers"}}', "no rootfs.diff_ids"),
        (b'{"rootfs": {"diff_ids": []}}', "it has 1 layers, but its config 0 diff_ids"),
        (b'{"rootfs": {"diff_ids": ["x"]}}', "'x' is not a digest"),
    ):
        with pytest.raises(ToolError, match=expected):
            parse_diff_ids(config, 1, "img")
