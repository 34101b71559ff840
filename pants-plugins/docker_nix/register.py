"""The entry point of the backend: `backend_packages = ["docker_nix"]`."""

from __future__ import annotations

from typing import Iterable, Type

from pants.engine.target import Target

from docker_nix.assemble import layout, package
from docker_nix.assemble import rules as assemble
from docker_nix.base import rules as base
from docker_nix.export import rules as export
from docker_nix.layer import rules as layer
from docker_nix.look import rules as look
from docker_nix.publish import rules as publish
from docker_nix.pull import rules as pull
from docker_nix.resolve import image_contents
from docker_nix.resolve import rules as resolve
from docker_nix.resolve.python import rules as python
from docker_nix.run import rules as run
from docker_nix.target_types import (
    DockerNixExportTarget,
    DockerNixImageTarget,
    DockerNixLayeredTarget,
    DockerNixPullTarget,
    NixPackageTarget,
)


def target_types() -> Iterable[Type[Target]]:
    return [
        DockerNixExportTarget,
        DockerNixImageTarget,
        DockerNixLayeredTarget,
        DockerNixPullTarget,
        NixPackageTarget,
    ]


def rules() -> Iterable[object]:
    return [
        *resolve.rules(),
        *image_contents.rules(),
        *python.rules(),
        *layer.rules(),
        *pull.rules(),
        *base.rules(),
        *assemble.rules(),
        *layout.rules(),
        *package.rules(),
        *export.rules(),
        *look.rules(),
        *publish.rules(),
        *run.rules(),
    ]
