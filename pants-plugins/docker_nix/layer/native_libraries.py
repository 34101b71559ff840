"""The two C libraries of the layer tool, for every platform a layer may be built on.

A layer process has the libraries of all platforms among its inputs, so that its cache key is the
same whichever machine runs it. They come from hash-checked wheels; the tool binds them with
ctypes, so that one file for each platform serves every Python. The wheels are fetched by this
machine, which has a package index and the Python of Pants; a remote worker need not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Iterable, Mapping, Tuple

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
from docker_nix.layer.this_machine import CACHE_HEAD_START_MILLIS, this_machine

# What the tool takes to write each compression.
TO_COMPRESS: Mapping[str, Tuple[str, ...]] = {
    "gzip": ("deflate",),
    "none": (),
    "zstd": ("zstd",),
}


@dataclass(frozen=True)
class _Wheel:
    """A distribution with a library in it.

    :param lock: its lock file, beside this one.
    :param python: the interpreter and ABI tag that its wheels are resolved for.
    :param files: the library of each platform, as `<name of the wheel>/<path in it>`.
    """

    lock: str
    python: str
    files: Mapping[str, str]


def _deflate(tags: str) -> str:
    return f"deflate-0.9.0-cp311-abi3-{tags}.whl/deflate/_deflate.abi3.so"


def _zstd(tags: str, system: str) -> str:
    return f"zstd-1.5.7.2-cp39-cp39-{tags}.whl/zstd.cpython-39-{system}.so"


_WHEELS = {
    "deflate": _Wheel(
        "libdeflate.lock",
        "cp-311-cp311",
        {
            "macos-x86_64": _deflate("macosx_10_9_x86_64"),
            "macos-arm64": _deflate("macosx_11_0_arm64"),
            "linux-arm64": _deflate(
                "manylinux2014_aarch64.manylinux_2_17_aarch64.manylinux_2_28_aarch64"
            ),
            "linux-x86_64": _deflate(
                "manylinux2014_x86_64.manylinux_2_17_x86_64.manylinux_2_28_x86_64"
            ),
            "linux_musl-arm64": _deflate("musllinux_1_2_aarch64"),
            "linux_musl-x86_64": _deflate("musllinux_1_2_x86_64"),
        },
    ),
    "zstd": _Wheel(
        "libzstd.lock",
        "cp-39-cp39",
        {
            "macos-x86_64": _zstd("macosx_10_9_x86_64", "darwin"),
            "macos-arm64": _zstd("macosx_11_0_arm64", "darwin"),
            "linux-arm64": _zstd(
                "manylinux_2_17_aarch64.manylinux2014_aarch64.manylinux_2_24_aarch64",
                "aarch64-linux-gnu",
            ),
            "linux-x86_64": _zstd(
                "manylinux_2_17_x86_64.manylinux2014_x86_64.manylinux_2_24_x86_64",
                "x86_64-linux-gnu",
            ),
            "linux_musl-arm64": _zstd("musllinux_1_2_aarch64", "aarch64-linux-gnu"),
            "linux_musl-x86_64": _zstd("musllinux_1_2_x86_64", "x86_64-linux-gnu"),
        },
    ),
}

# The platform tags that pip resolves for.
_PLATFORMS = (
    "macosx_10_9_x86_64",
    "macosx_11_0_arm64",
    "manylinux2014_aarch64",
    "manylinux2014_x86_64",
    "musllinux_1_2_aarch64",
    "musllinux_1_2_x86_64",
)


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
            # The libraries alone, and no directory: a cache need not hold the rest.
            output_files=tuple(f"{output}/.deps/{file}" for file in wheel.files.values()),
            description=f"Fetch the {request.name} library for building image layers",
        ),
    )
    # Looked for in a cache first, as it takes seconds.
    process = replace(process, remote_cache_speculation_delay_millis=CACHE_HEAD_START_MILLIS)
    fetched = await Get(
        ProcessResult, {process: Process, this_machine(): ProcessExecutionEnvironment}
    )
    found = {
        entry.path: entry.file_digest
        for entry in await Get(DigestEntries, Digest, fetched.output_digest)
        if isinstance(entry, FileEntry)
    }
    paths = {platform: f"{output}/.deps/{file}" for platform, file in wheel.files.items()}
    missing = sorted(platform for platform, path in paths.items() if path not in found)
    if missing:
        raise DockerNixError(
            f"The wheels of {wheel.lock} lack the library {request.name} for "
            f"{', '.join(missing)}.\n\nIs the package index complete? Its mirror must have the "
            "wheels for all platforms, since layers may be built on any of them."
        )
    files = (
        FileEntry(f"lib/{platform}/{request.name}.so", found[path], is_executable=True)
        for platform, path in paths.items()
    )
    return NativeLibrary(await Get(Digest, CreateDigest(files)))


def rules() -> Iterable[object]:
    return (*collect_rules(), *pex.rules())
