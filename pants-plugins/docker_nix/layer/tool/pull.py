"""The commands `pull-manifest` and `pull-layers`: an image from a registry, by digest.

Both verify all they write against the digests they are given. How to access the registry is not in
their specs (see `skopeo`), so the same image is the same process on every machine. `read-image` is
`pull-manifest` for a tag, too, and so no process whose result may be kept.
"""

from __future__ import annotations

import json
import os
from hashlib import sha256
from typing import Callable

from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.files import sha256_of
from docker_nix.layer.tool.oci_types import (
    Json,
    Manifest,
    Platform,
    check_digest,
    choose,
    parse_diff_ids,
    parse_digest,
    parse_manifest,
)
from docker_nix.layer.tool.skopeo import Skopeo, read_access
from docker_nix.layer.tool.skopeo_errors import full_name, is_digest

MANIFEST, CONFIG, LAYERS, SCRATCH = "manifest.json", "config.json", "layers", "scratch"
# An index may list indexes; more than this is no image, but a mistake.
_MAX_INDEXES = 3


def pull_manifest(args: list[str], lib_dir: str) -> None:
    """The command `pull-manifest SPEC`: writes `manifest.json` and `config.json`, as they are.

    The spec is an object with `image` ("host[:port]/repository"), `digest` ("sha256:<hex>", of a
    manifest or of an index) and `platform` (`os`, `architecture`, and `variant` or null), which
    chooses from an index. Raises `ToolError`, and then leaves no output.
    """
    spec = _read_spec(args, "pull-manifest")
    _run(lambda: _pull_manifest(spec, spec["digest"]), (MANIFEST, CONFIG))


def read_image(args: list[str], lib_dir: str) -> None:
    """The command `read-image SPEC`: as `pull-manifest`, for what an image's name says at present.

    Instead of `digest` the spec has `reference`, a digest or a tag.
    """
    if len(args) != 1:
        raise ToolError("usage: read-image SPEC")
    with open(args[0], encoding="utf-8") as file:
        spec: Json = json.load(file)
    _run(lambda: _pull_manifest(spec, spec["reference"]), (MANIFEST, CONFIG))


def pull_layers(args: list[str], lib_dir: str) -> None:
    """The command `pull-layers SPEC`: writes `layers/<hex>` and `layers/<hex>.json`.

    The spec is an object with `image` as above, `digest` of the platform's manifest, and `layers`,
    objects with `digest`, `size` (bytes) and `diff_id`. Each blob is named by its digest and stays
    as it is; the JSON is its index (see `layer_index`). Raises `ToolError`, and then leaves no
    output.
    """
    spec = _read_spec(args, "pull-layers")
    _run(lambda: _pull_layers(spec, lib_dir), (LAYERS,))


def _read_spec(args: list[str], command: str) -> Json:
    if len(args) != 1:
        raise ToolError(f"usage: {command} SPEC")
    with open(args[0], encoding="utf-8") as file:
        spec: Json = json.load(file)
    parse_digest(spec["digest"], spec["image"])
    return spec


def _run(pull: Callable[[], None], outputs: tuple[str, ...]) -> None:
    """Runs `pull`, with a scratch directory, which goes in any case; outputs go if it fails."""
    from shutil import rmtree

    os.mkdir(SCRATCH)
    try:
        pull()
    except BaseException:
        for output in outputs:
            if os.path.isdir(output):
                rmtree(output)
            elif os.path.lexists(output):
                os.unlink(output)
        raise
    finally:
        rmtree(SCRATCH, ignore_errors=True)


def _pull_manifest(spec: Json, reference: str) -> None:
    skopeo = Skopeo(spec["image"], read_access(), SCRATCH)
    platform = Platform.of(spec["platform"])
    data, manifest, digest = _resolve(skopeo, spec["image"], reference, platform)
    what = f"{spec['image']}@{digest}"
    config = skopeo.config(digest)
    manifest.config.check(config, f"the config of {what}")
    parse_diff_ids(config, len(manifest.layers), what)
    for path, content in ((MANIFEST, data), (CONFIG, config)):
        with open(path, "wb") as file:
            file.write(content)


def _resolve(
    skopeo: Skopeo, image: str, reference: str, platform: Platform
) -> tuple[bytes, Manifest, str]:
    """The manifest that the digest or tag leads to: its bytes, what they say, and its digest."""
    for _ in range(1 + _MAX_INDEXES):
        what = full_name(image, reference)
        data = skopeo.manifest(reference)
        if is_digest(reference):
            check_digest(data, reference, what)
        document = parse_manifest(data, what)
        if isinstance(document, Manifest):
            # Even if the tag is moved meanwhile, what belongs to this manifest is read.
            return data, document, f"sha256:{sha256(data).hexdigest()}"
        reference = choose(document, platform, what).digest
    what = full_name(image, reference)
    raise ToolError(f"{what}: it is an index in an index in an index, and no image")


def _pull_layers(spec: Json, lib_dir: str) -> None:
    from docker_nix.layer.tool.layer_index import write_index

    layers: dict[str, Json] = {layer["digest"]: layer for layer in spec["layers"]}
    for digest in layers:
        parse_digest(digest, spec["image"])
    os.makedirs(LAYERS, exist_ok=True)  # Pants makes the directories of outputs
    if not layers:
        return
    copied = os.path.join(SCRATCH, "image")
    Skopeo(spec["image"], read_access(), SCRATCH).copy(spec["digest"], copied)
    for digest, layer in layers.items():
        name = digest.partition(":")[2]
        blob = os.path.join(LAYERS, name)
        _check_blob(os.path.join(copied, name), layer, spec["image"])
        os.rename(os.path.join(copied, name), blob)
        write_index(blob, f"{blob}.json", lib_dir, layer["diff_id"])


def _check_blob(path: str, layer: Json, image: str) -> None:
    what = f"layer {layer['digest']} of {image}"
    if not os.path.exists(path):
        raise ToolError(f"{what}: it did not come with the image; nothing was kept")
    if os.path.getsize(path) != layer["size"]:
        raise ToolError(
            f"{what}: its size is {os.path.getsize(path)} bytes, not {layer['size']}; "
            "nothing was kept"
        )
    digest = f"sha256:{sha256_of(path)[0]}"
    if digest != layer["digest"]:
        raise ToolError(f"{what}: its digest is {digest}; nothing was kept; fetch it again")
