"""The platform that images are for where nothing says otherwise."""

from __future__ import annotations

from pants.engine.platform import Platform as BuildPlatform

from docker_nix.assemble.image_config import Platform

_ARCHITECTURES = {
    BuildPlatform.linux_x86_64: "amd64",
    BuildPlatform.linux_arm64: "arm64",
    BuildPlatform.macos_x86_64: "amd64",
    BuildPlatform.macos_arm64: "arm64",
}


def default_platform(build_platform: BuildPlatform) -> Platform:
    """That of the machine which builds, but always Linux: a container of macOS does not exist."""
    return Platform(_ARCHITECTURES[build_platform], "linux")
