"""With a `skopeo` of the tests' own, which gives what it is told to; real ones: tests/e2e."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from docker_nix.layer.tool import pull, tar_format
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.testing import library_dir

IMAGE = "registry.example.com/app"
PLATFORM = {"os": "linux", "architecture": "amd64", "variant": None}


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


HEADER = tar_format.header(b"file", tar_format.FILE, 0o644, 3)
TAR = HEADER + b"abc" + tar_format.PADDING[3] + tar_format.END
BLOB = gzip.compress(TAR)
CONFIG = json.dumps({"os": "linux", "rootfs": {"diff_ids": [sha256(TAR)]}}).encode()
MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": sha256(CONFIG),
            "size": len(CONFIG),
        },
        "layers": [
            {
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": sha256(BLOB),
                "size": len(BLOB),
            }
        ],
    }
).encode()
LAYER: dict[str, Any] = {"digest": sha256(BLOB), "size": len(BLOB), "diff_id": sha256(TAR)}


@pytest.fixture(autouse=True)
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the answers of skopeo are: `manifest`, `config`, and blobs in the directory `blobs`."""
    answers = tmp_path / "answers"
    (answers / "blobs").mkdir(parents=True)
    (answers / "manifest").write_bytes(MANIFEST)
    (answers / "config").write_bytes(CONFIG)
    (answers / "blobs" / sha256(BLOB)[7:]).write_bytes(BLOB)
    program = tmp_path / "bin/skopeo"
    program.parent.mkdir()
    program.write_text(
        f"""#!/bin/sh
for last; do :; done
case "$*" in
--version) echo skopeo version 1.9.3 ;;
*" copy "*) cp -r {answers}/blobs "${{last#dir:}}" ;;
*" --config "*) cat {answers}/config ;;
*) cat {answers}/manifest ;;
esac
"""
    )
    program.chmod(0o755)
    env = {"PATH": f"{program.parent}:/usr/bin:/bin"}
    monkeypatch.setattr(pull, "read_access", lambda: {"env": env})
    sandbox = tmp_path / "sandbox"
    sandbox.mkdir()
    monkeypatch.chdir(sandbox)
    return answers


def manifest(digest: str = sha256(MANIFEST)) -> None:
    spec = {"image": IMAGE, "digest": digest, "platform": PLATFORM}
    Path("spec.json").write_text(json.dumps(spec))
    pull.pull_manifest(["spec.json"], "")


def layers(*layers: dict[str, Any]) -> None:
    spec = {"image": IMAGE, "digest": sha256(MANIFEST), "layers": layers}
    Path("spec.json").write_text(json.dumps(spec))
    pull.pull_layers(["spec.json"], str(library_dir()))


def test_outputs() -> None:
    manifest()
    assert Path("manifest.json").read_bytes() == MANIFEST
    assert Path("config.json").read_bytes() == CONFIG
    layers(LAYER, LAYER)
    name = LAYER["digest"][7:]
    assert sorted(os.listdir("layers")) == [name, f"{name}.json"]
    assert Path("layers", name).read_bytes() == BLOB
    index = json.loads(Path("layers", f"{name}.json").read_text())
    assert index["digest"] == LAYER["digest"] and index["diff_id"] == LAYER["diff_id"]
    assert [entry[:2] for entry in index["entries"]] == [["f", "file"]]
    assert sorted(os.listdir()) == ["config.json", "layers", "manifest.json", "spec.json"]


def read(reference: str) -> None:
    spec = {"image": IMAGE, "reference": reference, "platform": PLATFORM}
    Path("spec.json").write_text(json.dumps(spec))
    pull.read_image(["spec.json"], "")


def test_what_a_tag_names(answers: Path) -> None:
    """Whatever that is now; its configuration must still be its own."""
    for data in (MANIFEST, MANIFEST + b"\n"):
        (answers / "manifest").write_bytes(data)
        read("v1")
        assert Path("manifest.json").read_bytes() == data
        assert Path("config.json").read_bytes() == CONFIG
    with pytest.raises(ToolError, match=f"{IMAGE}@.*: the digest is .*, not .*nothing was kept"):
        read(sha256(MANIFEST))
    (answers / "config").write_bytes(CONFIG.replace(b"linux", b"Linux"))
    with pytest.raises(ToolError, match=f"the config of {IMAGE}@.*, not .*; nothing was kept"):
        read("v1")
    (answers / "manifest").write_bytes(b"<html>")
    with pytest.raises(ToolError, match=f"{IMAGE}:v1: it is not JSON"):
        read("v1")
    assert os.listdir() == ["spec.json"]


def test_changed_manifest_or_config(answers: Path) -> None:
    (answers / "config").write_bytes(CONFIG.replace(b"linux", b"Linux"))
    with pytest.raises(ToolError, match=f"the config of {IMAGE}@.*, not .*; nothing was kept"):
        manifest()
    (answers / "manifest").write_bytes(MANIFEST + b"\n")
    with pytest.raises(ToolError, match=f"{IMAGE}@.*: the digest is .*, not .*nothing was kept"):
        manifest()
    assert os.listdir() == ["spec.json"]


def test_changed_layer(answers: Path) -> None:
    blob = answers / "blobs" / sha256(BLOB)[7:]
    changed = BLOB[:-1] + b"x"
    blob.write_bytes(changed)
    with pytest.raises(ToolError) as error:
        layers(LAYER)
    assert str(error.value) == (
        f"layer {sha256(BLOB)} of {IMAGE}: its digest is {sha256(changed)}; nothing was kept; "
        "fetch it again"
    )
    blob.write_bytes(BLOB + b"x")
    with pytest.raises(ToolError, match=rf"size is {len(BLOB) + 1} bytes, not {len(BLOB)}; noth"):
        layers(LAYER)
    assert os.listdir() == ["spec.json"]


def test_layer_with_another_diff_id() -> None:
    with pytest.raises(ToolError, match=sha256(b"")):
        layers({**LAYER, "diff_id": sha256(b"")})
    assert os.listdir() == ["spec.json"]


def test_digests_that_are_none() -> None:
    for digest in ("latest", "sha512:00", f"sha256:{'0' * 63}/"):
        with pytest.raises(ToolError, match="is not a digest of the form sha256:"):
            manifest(digest)
        with pytest.raises(ToolError, match="is not a digest of the form sha256:"):
            layers({**LAYER, "digest": digest})
    assert os.listdir() == ["spec.json"]


def test_usage() -> None:
    with pytest.raises(ToolError, match="usage: pull-manifest SPEC"):
        pull.pull_manifest([], "")
    with pytest.raises(ToolError, match="usage: read-image SPEC"):
        pull.read_image([], "")
    with pytest.raises(ToolError, match="usage: pull-layers SPEC"):
        pull.pull_layers(["a", "b"], "")
