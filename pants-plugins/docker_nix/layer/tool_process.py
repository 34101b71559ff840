"""How the layer tool is run: a Process whose cache key holds nothing but content.

The tool's own files and libraries are an input. The interpreter is not: `start.sh` takes the one
that a file in an append-only cache names (such a cache is no part of the key), else one of the
usual places, as on a remote worker, which has no such cache.

A process runs in the environment of the image that needs it, be that this machine, a container or a
cluster, unless it needs what only this machine has: see `LocalToolRun`.
"""

from __future__ import annotations

import importlib.resources
import json
import logging
import os
from dataclasses import dataclass, field, replace
from typing import Iterable, Mapping, Optional, Tuple

from pants.engine.addresses import Address
from pants.engine.environment import ChosenLocalEnvironmentName, EnvironmentName
from pants.engine.fs import (
    AddPrefix,
    CreateDigest,
    Digest,
    DigestContents,
    FileContent,
    MergeDigests,
)
from pants.engine.internals.native_engine import IntrinsicError
from pants.engine.process import (
    FallibleProcessResult,
    Process,
    ProcessCacheScope,
    ProcessResult,
)
from pants.engine.process import ProcessExecutionEnvironment as ExecutionEnvironment
from pants.engine.rules import Get, MultiGet, collect_rules, rule
from pants.util.frozendict import FrozenDict
from pants.util.logging import LogLevel

from docker_nix.errors import DockerNixError, engine_error
from docker_nix.layer.links import Entry
from docker_nix.layer.native_libraries import NativeLibrary, NativeLibraryRequest
from docker_nix.layer.this_machine import (
    CACHE_HEAD_START_MILLIS,
    is_elsewhere,
    this_machine,
)
from docker_nix.resolve.types import Listing
from docker_nix.subsystem import DockerNixSubsystem

logger = logging.getLogger(__name__)

TOOL_DIR = ".docker-nix"
CACHES = FrozenDict({"docker_nix": ".docker-nix-cache"})
# The commands that may take long, and so are shown as they run.
_SHOWN = ("pack", "pull-layers", "export", "nix-closure")

# Writes the first interpreter that works to the cache, in one step, so that a process that starts
# at the same time sees the old one or the new one.
_FIND_INTERPRETER = """\
set -eu
for py in "$@"; do
  found=$("$py" -I -S -c 'import sys, ctypes, hashlib
assert sys.version_info >= (3, 8)
print(sys.executable)' 2>/dev/null) || continue
  case $found in /*) ;; *) continue ;; esac
  [ "$(cat .docker-nix-cache/interpreter 2>/dev/null)" = "$found" ] && exit 0
  printf '%s\\n' "$found" > ".docker-nix-cache/interpreter.$$"
  mv -f ".docker-nix-cache/interpreter.$$" .docker-nix-cache/interpreter
  exit 0
done
echo "$@"
exit 0
"""


@dataclass(frozen=True)
class ToolInterpreterRequest:
    """A request for an interpreter, on this machine if `local`, whatever the environment."""

    local: bool = False


@dataclass(frozen=True)
class ToolInterpreter:
    """That the append-only cache names an interpreter, if this environment has one to name.

    :param env: environment variables of processes, where such a cache does not exist.
    """

    env: FrozenDict[str, str] = FrozenDict()


@dataclass(frozen=True)
class LayerTool:
    """The tool with all its files, to be used as an immutable input."""

    digest: Digest


@dataclass(frozen=True)
class LayerToolRequest:
    """A request for the tool with the given native libraries (`deflate`, `zstd`).

    :param steps: of which other steps it has the commands, so that those are in no layer's key.
    """

    libraries: Tuple[str, ...]
    steps: Tuple[str, ...] = ()


@dataclass(frozen=True)
class ToolRun:
    """A run of the layer tool.

    :param command: one of those in the tool's `cli.py`, or `MODULE:FUNCTION` of another step.
    :param spec: what goes into the JSON file that the command reads. Content only: no name, tag,
        address or path of the machine belongs there.
    :param input_digest: the input trees.
    :param outputs: the files the command writes.
    :param output_directories: the directories it writes.
    :param cores: how many cores the command can make use of.
    :param steps: as in `LayerToolRequest`.
    :param local: see LocalToolRun, which sets it.
    :param cache_scope: how long its result holds.
    :param attempt: a number to run it again in one run of Pants after it failed. No part of its
        cache key.
    """

    command: str
    spec: bytes
    input_digest: Digest
    outputs: Tuple[str, ...]
    libraries: Tuple[str, ...]
    cores: int = 1
    immutable_inputs: FrozenDict[str, Digest] = FrozenDict()
    output_directories: Tuple[str, ...] = ()
    steps: Tuple[str, ...] = ()
    local: bool = False
    cache_scope: ProcessCacheScope = ProcessCacheScope.SUCCESSFUL
    attempt: int = 0
    description: str = field(default="", compare=False)


@dataclass(frozen=True)
class LocalToolRun:
    """A run that must be on this machine, even where processes run in a container or a cluster.

    Its result may come from a cache all the same.

    :param reason: what it needs of this machine, for the log.
    """

    run: ToolRun
    reason: str = field(compare=False)


@dataclass(frozen=True)
class ToolResult:
    digest: Digest


class ToolFailed(DockerNixError):
    """What a process of the tool says on failing. It does not know for whom it ran."""

    def __init__(self, description: str, output: str) -> None:
        super().__init__(f"{description} failed.\n\n{output}")
        self.output = output


@dataclass(frozen=True)
class ArchiveIndexRequest:
    """A request for the entries of the archive that is the file `archive` of `digest`.

    :param hashes: whether the entries of files have their SHA-256, which takes reading them all.
    """

    digest: Digest
    format: str
    origin: Optional[Address] = None
    hashes: bool = False


def _tool_sources(steps: Iterable[str]) -> Mapping[str, bytes]:
    """The program's files, by their path in the tool's folder."""
    files = {"tool/docker_nix/__init__.py": b""}
    for step in ("layer", *steps):
        package = f"docker_nix.{step}.tool"
        files[f"tool/docker_nix/{step}/__init__.py"] = b""
        for name in sorted(importlib.resources.contents(package)):
            if name.endswith(".py") and not name.endswith("_test.py") and name != "testing.py":
                path = f"tool/docker_nix/{step}/tool/{name}"
                files[path] = importlib.resources.read_binary(package, name)
    files["start.sh"] = importlib.resources.read_binary("docker_nix.layer.tool", "start.sh")
    return files


@rule(desc="Find a Python for the layer tool", level=LogLevel.DEBUG)
async def find_interpreter(
    request: ToolInterpreterRequest,
    options: DockerNixSubsystem.EnvironmentAware,
    environment: ExecutionEnvironment,
) -> ToolInterpreter:
    if environment.remote_execution and not request.local:
        # A worker has no append-only cache, and may be another one for each process.
        return ToolInterpreter(
            FrozenDict({"DOCKER_NIX_PYTHON": options.python} if options.python else {})
        )
    if options.python:
        candidates = [options.python]
    else:
        candidates = [
            os.path.join(folder, name)
            for name in ("python3", "python3.9")
            for folder in options.search_path
        ]
    process = Process(
        ("/bin/sh", "-c", _FIND_INTERPRETER, "find-interpreter", *candidates),
        env={"PATH": ":".join(options.search_path)},
        append_only_caches=CACHES,
        cache_scope=ProcessCacheScope.PER_RESTART_SUCCESSFUL,
        description="Find a Python for the layer tool",
        level=LogLevel.DEBUG,
    )
    where = this_machine() if request.local else environment
    result = await Get(ProcessResult, {process: Process, where: ExecutionEnvironment})
    if options.python and result.stdout.strip():
        raise DockerNixError(
            f"The option [docker-nix].python is {options.python!r}, which is not a Python of "
            f"version 3.8 or newer with ctypes{_in_container(where)}.\n\nSet it (or "
            "'docker_nix_python' of the environment's target, which goes before it) to the "
            "absolute path of one, or unset it to use the first python3 on "
            "[docker-nix].executable_search_paths."
        )
    return ToolInterpreter()


def _in_container(where: ExecutionEnvironment) -> str:
    return f" in a container of {where.docker_image}" if where.docker_image else ""


@rule
async def prepare_tool(
    request: LayerToolRequest, local_environment: ChosenLocalEnvironmentName
) -> LayerTool:
    libraries = await MultiGet(
        Get(
            NativeLibrary,
            {
                NativeLibraryRequest(name): NativeLibraryRequest,
                local_environment.val: EnvironmentName,
            },
        )
        for name in request.libraries
    )
    sources = await Get(
        Digest,
        CreateDigest(
            FileContent(path, content, is_executable=path == "start.sh")
            for path, content in _tool_sources(request.steps).items()
        ),
    )
    digest = await Get(Digest, MergeDigests((sources, *(library.digest for library in libraries))))
    return LayerTool(digest)


@rule
async def run_tool(run: ToolRun, environment: ExecutionEnvironment) -> ToolResult:
    interpreter, tool, spec = await MultiGet(
        Get(ToolInterpreter, ToolInterpreterRequest(run.local)),
        Get(LayerTool, LayerToolRequest(run.libraries, run.steps)),
        Get(Digest, CreateDigest([FileContent("spec.json", run.spec)])),
    )
    input_digest = await Get(Digest, MergeDigests((spec, run.input_digest)))
    # The number of cores is put into argv when the process starts: the key has the placeholder.
    threads = ("--threads", "{pants_concurrency}") if run.command == "pack" else ()
    process = Process(
        ("/bin/sh", f"{TOOL_DIR}/start.sh", run.command, *threads, "spec.json"),
        env=interpreter.env,
        input_digest=input_digest,
        immutable_input_digests={TOOL_DIR: tool.digest, **run.immutable_inputs},
        append_only_caches=CACHES,
        output_files=run.outputs,
        output_directories=run.output_directories,
        concurrency_available=run.cores if threads else 0,
        # Pants does not run the same process twice in one run, and this is in no cache key.
        remote_cache_speculation_delay_millis=CACHE_HEAD_START_MILLIS + run.attempt,
        cache_scope=run.cache_scope,
        description=run.description,
        level=LogLevel.INFO if run.command in _SHOWN else LogLevel.DEBUG,
    )
    where = this_machine() if run.local else environment
    try:
        result = await Get(FallibleProcessResult, {process: Process, where: ExecutionEnvironment})
    except IntrinsicError as e:
        if not where.remote_execution:
            raise
        if "NotFound" in str(e) and not run.attempt:
            # The server has lost an input since it said that it has it. It is sent again then.
            return await Get(ToolResult, ToolRun, replace(run, attempt=1))
        raise DockerNixError(f"{run.description} failed on the cluster. {engine_error(e)}") from e
    if result.exit_code != 0:
        output = result.stderr.decode(errors="replace").strip()
        raise ToolFailed(run.description, output or _no_reason(result.exit_code))
    return ToolResult(result.output_digest)


def _no_reason(exit_code: int) -> str:
    return (
        f"error: the process ended with exit code {exit_code} and said nothing: it was killed, "
        "perhaps for want of memory where it ran, or by whoever stopped that machine; run again"
    )


@rule
async def run_tool_here(
    request: LocalToolRun,
    local_environment: ChosenLocalEnvironmentName,
    environment: ExecutionEnvironment,
) -> ToolResult:
    if is_elsewhere(environment):
        logger.debug(
            f"This machine does it, not the environment of the image: {request.run.description}. "
            f"It needs {request.reason}."
        )
    run = replace(request.run, local=True)
    return await Get(ToolResult, {run: ToolRun, local_environment.val: EnvironmentName})


@rule(desc="List the members of an archive", level=LogLevel.DEBUG)
async def index_archive(request: ArchiveIndexRequest) -> Listing:
    archive = await Get(Digest, AddPrefix(request.digest, "in"))
    try:
        result = await Get(
            ToolResult,
            ToolRun(
                "index",
                json.dumps(
                    {"file": "in/archive", "format": request.format, "hashes": request.hashes}
                ).encode(),
                archive,
                ("index.json",),
                ("zstd",) if request.format == "tar.zst" else (),
                description=f"Reading a {request.format} archive",
            ),
        )
    except ToolFailed as e:
        reason = e.output.replace(" 'in/archive'", "")  # a name in the sandbox
        raise DockerNixError(
            f"The archive of target {request.origin} cannot be unpacked.\n\n{reason}"
        ) from e
    (index,) = await Get(DigestContents, Digest, result.digest)
    return Listing(tuple(map(Entry.parse, json.loads(index.content)["entries"])))


def rules() -> Iterable[object]:
    return collect_rules()
