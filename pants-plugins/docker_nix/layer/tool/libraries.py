"""The shared libraries that come with the tool, for the platform it runs on."""

from __future__ import annotations

import ctypes
import os

from docker_nix.layer.tool.errors import ToolError

_MACHINES = {"aarch64": "arm64", "amd64": "x86_64"}
_MUSL_LOADERS = ("/lib/ld-musl-x86_64.so.1", "/lib/ld-musl-aarch64.so.1")
_GLIBC_LOADERS = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1")


class LibraryMissing(ToolError):
    """The tool was started without a library that the content turned out to take.

    :param library: "deflate" or "zstd".
    """

    def __init__(self, message: str, library: str) -> None:
        super().__init__(message)
        self.library = library


def platform() -> str:
    """The platform as the folders of libraries are named: `<os>-<machine>`.

    The os is `linux`, `linux_musl` or `macos`, the machine `x86_64` or `arm64`; a platform that has
    no libraries gets a name of the same form.
    """
    uname = os.uname()
    system = {"Darwin": "macos"}.get(uname.sysname, uname.sysname.lower())
    if system == "linux" and _any_exists(_MUSL_LOADERS) and not _any_exists(_GLIBC_LOADERS):
        system = "linux_musl"
    return f"{system}-{_MACHINES.get(uname.machine.lower(), uname.machine)}"


def load(name: str, lib_dir: str) -> ctypes.CDLL:
    """Loads the library `name` ("deflate" or "zstd") from `<lib_dir>/<platform>/<name>.so`.

    Raises `LibraryMissing` where the tool has none for this platform, `ToolError` where it does not
    load.
    """
    path = os.path.join(lib_dir, platform(), f"{name}.so")
    if not os.path.exists(path):
        raise LibraryMissing(
            f"the {name} library for {platform()} is not part of the layer tool; build on a "
            "platform that has it, or use another `compression`",
            name,
        )
    try:
        return ctypes.CDLL(path)
    except OSError as error:
        raise ToolError(f"the {name} library for {platform()} cannot be loaded: {error}") from error


def _any_exists(paths: tuple[str, ...]) -> bool:
    return any(map(os.path.exists, paths))
