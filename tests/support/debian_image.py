"""A base image as real ones are: Debian with Python, in one layer of a foreign maker's."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any, Dict, Sequence

_PACKAGES = (
    "base-files",
    "coreutils",
    "dash",
    "libc6",
    "libpython3.11-stdlib",
    "passwd",
    "python3-minimal",
    "python3.11-minimal",
)
CONFIG = {
    "Cmd": ["python3"],
    "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", "BASE=debian"],
    "Labels": {"maker": "debian"},
}


def debian_with_python(folder: Path, *packages: str) -> Path:
    """An OCI layout in `folder` with one image, tagged `base`, made with mmdebstrap as root.

    :param packages: further ones.
    """
    tar = folder / "rootfs.tar"
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=extract"]
        + [f"--include={','.join((*_PACKAGES, *packages))}"]
        # /bin and the like as symlinks, which real base images have.
        + ["--hook-directory=/usr/share/mmdebstrap/hooks/merged-usr", "bookworm", str(tar)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    layout = folder / "layout"
    write_layout(layout, [tar.read_bytes()], CONFIG)
    tar.unlink()
    return layout


def write_layout(
    layout: Path,
    tars: Sequence[bytes],
    config: Dict[str, Any],
    *,
    architecture: str = "amd64",
    docker_types: bool = False,
    tag: str = "base",
) -> str:
    """Write an OCI layout with one image of these layers, gzipped; the digest of its manifest.

    :param docker_types: whether the manifest is of Docker's kind, with its media types.
    """
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)

    def add(media_type: str, content: bytes) -> Dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    docker, oci = "application/vnd.docker", "application/vnd.oci.image"
    layer_type = f"{oci}.layer.v1.tar+gzip"
    config_type, manifest_type = f"{oci}.config.v1+json", f"{oci}.manifest.v1+json"
    if docker_types:
        layer_type = f"{docker}.image.rootfs.diff.tar.gzip"
        config_type = f"{docker}.container.image.v1+json"
        manifest_type = f"{docker}.distribution.manifest.v2+json"
    image = {
        "architecture": architecture,
        "os": "linux",
        "created": "2024-01-01T00:00:00Z",
        "config": config,
        "history": [
            *({"created_by": f"layer {number} of the base"} for number in range(len(tars))),
            {"created_by": "CMD", "empty_layer": True},
        ],
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in tars],
        },
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": add(config_type, json.dumps(image).encode()),
        "layers": [add(layer_type, gzip.compress(tar, 1, mtime=0)) for tar in tars],
    }
    descriptor = add(manifest_type, json.dumps(manifest).encode())
    digest: str = descriptor["digest"]
    descriptor["annotations"] = {"org.opencontainers.image.ref.name": tag}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [descriptor]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return digest
