"""The two C libraries of the layer tool, for every platform a layer may be built on.

A layer process has the libraries of all platforms among its inputs, so that its cache key is the
same whichever machine runs it. They come from hash-checked wheels; the tool binds them with
ctypes, so that one file for each platform serves every Python. The wheels are fetched by this
machine, which has a package index and the Python of Pants; a remote worker need not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Iterable

from pants.backend.python.target_types import PexLayout
from pants.backend.python.util_rules import pex
from pants.backend.python.util_rules.pex_cli import PexCliProcess
from pants.backend.python.util_rules.pex_requirements import (
    LoadedLockfile,
    LoadedLockfileRequest,
    Lockfile,
    ResolvePexConfig,
    ResolvePexConfigRequest,
)
from pants.engine.fs import CreateDigest, Digest, DigestEntries, FileEntry
from pants.engine.process import Process, ProcessExecutionEnvironment, ProcessResult
from pants.engine.rules import Get, MultiGet, collect_rules, rule
from pants.util.logging import LogLevel

from docker_nix.errors import DockerNixError
from docker_nix.layer.this_machine import this_machine


@dataclass(frozen=True)
class _Wheel:
    lock: str
    python: str
    module: str  # a pattern for the extension module inside the wheel


_WHEELS = {
    "deflate": _Wheel("libdeflate.lock", "cp-311-cp311", r"/deflate/_deflate[^/]*\.so"),
    "zstd": _Wheel("libzstd.lock", "cp-39-cp39", r"/zstd[^/]*\.so"),
}

# The platform tag that pip resolves, and the folder name that the layer tool looks for.
_PLATFORMS = {
    "macosx_10_9_x86_64": "macos-x86_64",
    "macosx_11_0_arm64": "macos-arm64",
    "manylinux2014_aarch64": "linux-arm64",
    "manylinux2014_x86_64": "linux-x86_64",
    "musllinux_1_2_aarch64": "linux_musl-arm64",
    "musllinux_1_2_x86_64": "linux_musl-x86_64",
}


@dataclass(frozen=True)
class NativeLibraryRequest:
    """A request for the files `lib/<platform>/<name>.so`; `name` is `deflate` or `zstd`."""

    name: str


@dataclass(frozen=True)
class NativeLibrary:
    digest: Digest


@rule(desc="Fetch the compression libraries of the layer tool", level=LogLevel.DEBUG)
async def fetch_native_library(request: NativeLibraryRequest) -> NativeLibrary:
    wheel = _WHEELS[request.name]
    lockfile = Lockfile(
        url=f"resource://{__package__}/{wheel.lock}",
        url_description_of_origin="the layer tool of docker_nix",
        resolve_name=f"docker-nix-{request.name}",
    )
    lock, config = await MultiGet(
        Get(LoadedLockfile, LoadedLockfileRequest(lockfile)),
        Get(ResolvePexConfig, ResolvePexConfigRequest(lockfile.resolve_name)),
    )
    output = f"{request.name}.pex"
    # As Pants' own rule for a PEX does, but for where it runs.
    process = await Get(
        Process,
        PexCliProcess(
            subcommand=(),
            extra_args=(
                f"--output-file={output}",
                "--no-emit-warnings",
                f"--layout={PexLayout.LOOSE.value}",
                *(f"--platform={tag}-{wheel.python}" for tag in _PLATFORMS),
                f"--requirement={lock.lockfile_path}",
                "--no-transitive",
                *config.pex_args(),
                "--resolver-version=pip-2020-resolver",
            ),
            additional_input_digest=lock.lockfile_digest,
            output_directories=(output,),
            description=f"Fetch the {request.name} library for building image layers",
        ),
    )
    fetched = await Get(
        ProcessResult, {process: Process, this_machine(): ProcessExecutionEnvironment}
    )
    files = {}
    for entry in await Get(DigestEntries, Digest, fetched.output_digest):
        if isinstance(entry, FileEntry) and re.search(wheel.module + "$", entry.path):
            for tag, platform in _PLATFORMS.items():
                if tag in entry.path:
                    files[platform] = FileEntry(
                        f"lib/{platform}/{request.name}.so", entry.file_digest, is_executable=True
                    )
    missing = sorted(set(_PLATFORMS.values()) - set(files))
    if missing:
        raise DockerNixError(
            f"The wheels of {wheel.lock} lack the library {request.name} for "
            f"{', '.join(missing)}.\n\nIs the package index complete? Its mirror must have the "
            "wheels for all platforms, since layers may be built on any of them."
        )
    return NativeLibrary(await Get(Digest, CreateDigest(files.values())))


def rules() -> Iterable[object]:
    return (*collect_rules(), *pex.rules())
