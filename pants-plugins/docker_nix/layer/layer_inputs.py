"""Layers of an image as inputs of the tool, for its commands that read them all."""

from __future__ import annotations

from typing import Dict, Iterable, List, Tuple

from pants.engine.fs import CreateDigest, FileDigest, FileEntry


def layer_files(layers: Iterable[Tuple[FileDigest, str]], directory: str) -> CreateDigest:
    """The blobs of layers, each given with its diff ID, in `directory`; equal ones once."""
    blobs = {blob.fingerprint: blob for blob, _ in layers}
    return CreateDigest(FileEntry(f"{directory}/{name}", blob) for name, blob in blobs.items())


def layer_specs(layers: Iterable[Tuple[FileDigest, str]], directory: str) -> List[Dict[str, str]]:
    """What the tool's specs say of them, in their order."""
    return [
        {"file": f"{directory}/{blob.fingerprint}", "diff_id": diff_id} for blob, diff_id in layers
    ]
