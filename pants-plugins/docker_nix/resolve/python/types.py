"""What the resolvers of Python targets must know of the image that they are for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional, Tuple

from pants.engine.addresses import Address
from pants.engine.fs import Digest, FileDigest

from docker_nix.assemble.image import ImageLayer
from docker_nix.assemble.image_config import Platform
from docker_nix.resolve.python.interpreter import Interpreter


@dataclass(frozen=True)
class ImagePython:
    """The Python of an image.

    :param interpreters: those that it has, the preferred one first.
    :param base_layers: the layers of its base image.
    :param bytecode: whether modules are to be compiled.
    :param owner: the image, for messages.
    """

    platform: Platform
    interpreters: Tuple[Interpreter, ...]
    base_layers: Tuple[ImageLayer, ...]
    bytecode: bool
    owner: Optional[Address] = field(default=None, compare=False)


@dataclass(frozen=True)
class DistributionRequest:
    """A request for what the distribution in a file of a packed PEX is.

    :param site_packages: where it is to lie, relative to its store path.
    :param title: what to call it while it is read.
    """

    file: FileDigest
    site_packages: str
    title: str = field(default="of a store path", compare=False)


@dataclass(frozen=True)
class PythonRuntimeRequest:
    """A request for as much of an interpreter of a base image as it takes to compile modules."""

    base_layers: Tuple[ImageLayer, ...]
    path: str


@dataclass(frozen=True)
class PythonRuntime:
    """A directory with what the tool's `python-runtime` wrote."""

    digest: Digest
