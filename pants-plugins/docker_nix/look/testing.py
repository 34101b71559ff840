"""Images made up for tests."""

from __future__ import annotations

import hashlib
from typing import Sequence

from docker_nix.look.model import Blob, Image, Layer, StorePath

_BASE32 = "0123456789abcdfghijklmnpqrsvwxyz"
_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"


def digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def store_path(name: str, version: str = "") -> str:
    """A store path of this name, another one for each version."""
    number = hashlib.sha256(f"{name} {version}".encode()).digest()
    return f"/nix/store/{''.join(_BASE32[byte % 32] for byte in number)}-{name}"


def store_layer(*names: str, version: str = "", size: int = 1000, how: str = "") -> Layer:
    """A layer of store paths; `how` makes another blob of the same tar."""
    content = f"{names} {version}"
    return Layer(
        "store",
        digest(f"blob {content} {how}"),
        _GZIP,
        size,
        digest(content),
        3 * size,
        tuple(StorePath(store_path(name, version), 2 * size) for name in names),
    )


def links_layer(name: str, size: int = 200) -> Layer:
    return Layer("customisation", digest(f"l{name}"), _GZIP, size, digest(name), 2048)


def base_layer(size: int = 30_000_000) -> Layer:
    """A layer that was pulled, and that nobody has looked into."""
    text = "/bin/sh -c #(nop)  ADD file:0123 in / "
    return Layer("base", digest("base"), _GZIP, size, digest("base tar"), None, (), text)


def image(name: str, layers: Sequence[Layer]) -> Image:
    content = f"{name} {layers}"
    return Image(
        f"src/{name}:image",
        f"team/{name}",
        ("v1", "latest"),
        {"architecture": "arm64", "os": "linux", "variant": "v8"},
        Blob(digest(f"manifest {content}"), 700),
        Blob(digest(f"config {content}"), 1500),
        tuple(layers),
    )
