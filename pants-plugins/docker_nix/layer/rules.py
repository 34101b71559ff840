"""The layer step: one cached Process for each group of store paths."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

from pants.core.util_rules.system_binaries import (
    BinaryNotFoundError,
    BinaryShims,
    BinaryShimsRequest,
)
from pants.engine.fs import (
    EMPTY_DIGEST,
    AddPrefix,
    CreateDigest,
    Digest,
    DigestContents,
    DigestEntries,
    DigestSubset,
    FileDigest,
    FileEntry,
    MergeDigests,
    PathGlobs,
)
from pants.engine.process import (
    ProcessCacheScope,
    ProcessExecutionEnvironment,
    ProcessExecutionFailure,
)
from pants.engine.rules import Get, MultiGet, collect_rules, rule
from pants.util.frozendict import FrozenDict
from pants.util.logging import LogLevel

from docker_nix.errors import DockerNixError
from docker_nix.layer import native_libraries, tool_process
from docker_nix.layer.layer_inputs import layer_files, layer_specs
from docker_nix.layer.links import Entry, Link
from docker_nix.layer.store_path_info import StorePathInfo
from docker_nix.layer.this_machine import is_elsewhere
from docker_nix.layer.tool.nix_store import MISSING
from docker_nix.layer.tool_process import LocalToolRun, ToolFailed, ToolResult, ToolRun
from docker_nix.resolve.nix.types import NixPath, Realised, RealiseRequest
from docker_nix.resolve.types import Listing, ListingRequest, StoreObject
from docker_nix.sizes import size_text
from docker_nix.subsystem import DockerNixSubsystem

_MIB = 1024 * 1024


@dataclass(frozen=True)
class RootScript:
    """A script that runs as root in the whole root file system.

    :param text: `run_as_root`, its store path references replaced; it may be empty.
    :param base_layers: blob and diff ID of the base image's layers, the lowest first.
    :param zstd: whether any of these is compressed with zstd.
    :param disk_mib: how much the script may write.
    :param shadow_setup: whether to make `/etc/passwd` and what belongs to it.
    """

    text: str
    base_layers: Tuple[Tuple[FileDigest, str], ...]
    zstd: bool
    disk_mib: int
    shadow_setup: bool


@dataclass(frozen=True)
class NixDatabase:
    """A Nix database for an image.

    :param roots: the store paths that garbage collection keeps.
    :param others: the store paths that are not in the same layer.
    """

    roots: Tuple[str, ...]
    others: Tuple[StorePathInfo, ...]


@dataclass(frozen=True)
class RootPart:
    """What the customisation layer puts at `/`.

    :param links: see `layer.links.link_farm`.
    :param script: `extra_commands`, its store path references replaced.
    :param script_store: the store paths that the script may read.
    :param tools: names of programs for the script.
    :param base: for a script, the entries of the base image, as the only file `base.json`.
    """

    links: Tuple[Link, ...]
    script: Optional[str]
    script_store: Tuple[StoreObject, ...]
    tools: Tuple[str, ...]
    uid: int
    gid: int
    base: Optional[Digest] = None
    root_script: Optional[RootScript] = None
    nix_db: Optional[NixDatabase] = None


@dataclass(frozen=True)
class LayerRequest:
    """A request for one layer: a group of store paths, the customisation part, or both.

    It holds content only, so that equal requests of different images are one process run.
    """

    objects: Tuple[StoreObject, ...]
    compression: str
    root: Optional[RootPart] = None


@dataclass(frozen=True)
class BuiltLayer:
    """A layer: its blob by digest, and what a manifest and a config say of it. No bytes.

    :param diff_id: `sha256:…` of the uncompressed tar.
    :param diff_size: the size of the uncompressed tar in bytes.
    """

    blob: FileDigest
    compression: str
    diff_id: str
    diff_size: int
    store_paths: Tuple[StorePathInfo, ...]
    has_root: bool

    @property
    def digest(self) -> str:
        return f"sha256:{self.blob.fingerprint}"


@dataclass(frozen=True)
class RootProbe:
    """What keeps `run_as_root` from running in an environment that is not this machine, if any."""

    obstacle: Optional[str]


@dataclass(frozen=True)
class _PackInput:
    """What goes into a layer's process.

    :param size: of all files in bytes, with archives packed as they are.
    :param unpacked_size: the same with archives unpacked, roughly.
    """

    spec: List[Dict[str, Any]]
    digests: List[Digest]
    size: int
    unpacked_size: int
    runtimes: FrozenDict[str, Digest]


_PYTHON_RUNTIMES = ".docker-nix-python"

# Pants crashes on a process whose inputs have some fifty nested directories or more: they need more
# stack than its threads have.
_DEEPEST_INPUT = 25


def _is_deep(entries: Sequence[Entry]) -> bool:
    return any(entry.path.count("/") > _DEEPEST_INPUT for entry in entries)


def _tool_entries(entries: Sequence[Entry]) -> List[List[str]]:
    """The entries as the tool's spec has them; the files of a deep tree are numbered."""
    deep = _is_deep(entries)
    listed = []
    for number, entry in enumerate(entries):
        more = [entry.target] if entry.kind == "l" else []
        if deep and entry.kind in "fx":
            more = [str(number)]
        listed.append([entry.kind, entry.path, *more])
    return listed


def _numbered_files(entries: Sequence[Entry], directory: str) -> CreateDigest:
    return CreateDigest(
        FileEntry(f"{directory}/{number}", FileDigest(entry.sha256, entry.size))
        for number, entry in enumerate(entries)
        if entry.kind in "fx"
    )


async def _pack_input(objects: Tuple[StoreObject, ...]) -> _PackInput:
    """The store paths as the tool's spec has them, with their trees below `in/`."""
    listings = await MultiGet(Get(Listing, ListingRequest(obj.digest, None)) for obj in objects)
    entries = {obj.path: listing.entries for obj, listing in zip(objects, listings)}
    sizes = [
        obj.nix.nar_size if obj.nix else sum(entry.size for entry in listing.entries)
        for obj, listing in zip(objects, listings)
    ]
    deep = [obj for obj in objects if not obj.unpack and _is_deep(entries[obj.path])]
    shallow_digests = await MultiGet(
        Get(Digest, AddPrefix(obj.digest, f"in/{obj.base_name}"))
        for obj in objects
        if obj not in deep and not obj.nix
    )
    deep_digests = await MultiGet(
        Get(Digest, CreateDigest, _numbered_files(entries[obj.path], f"in/{obj.base_name}"))
        for obj in deep
    )
    spec: List[Dict[str, Any]] = []
    runtimes: Dict[str, Digest] = {}
    for obj in objects:
        path: Dict[str, Any] = {"name": obj.base_name}
        if obj.nix:
            path.update({"source": "nix", "nar_hash": obj.nix.nar_hash})
        elif obj.unpack:
            path.update({"source": "archive", "file": "archive", "format": obj.unpack})
        else:
            path.update({"source": "tree", "entries": _tool_entries(entries[obj.path])})
        if obj.bytecode:
            runtime = obj.bytecode.runtime
            runtimes[f"{_PYTHON_RUNTIMES}/{runtime.fingerprint}"] = runtime
            path["bytecode"] = [
                obj.bytecode.cache_tag,
                f"{_PYTHON_RUNTIMES}/{runtime.fingerprint}/runtime",
            ]
        spec.append(path)
    unpacked_size = sum(3 * size if obj.unpack else size for obj, size in zip(objects, sizes))
    return _PackInput(
        spec,
        [*shallow_digests, *deep_digests],
        sum(sizes),
        unpacked_size,
        FrozenDict(runtimes),
    )


def _database_spec(database: NixDatabase, objects: Tuple[StoreObject, ...]) -> Dict[str, Any]:
    return {
        "roots": database.roots,
        "paths": [
            [info.path, info.nar_hash, info.nar_size, info.references] for info in database.others
        ],
        "here": {obj.path: obj.references for obj in objects},
    }


def _root_script_spec(script: RootScript) -> Dict[str, Any]:
    return {
        "text": script.text,
        "disk_mib": script.disk_mib,
        "shadow_setup": script.shadow_setup,
        "layers": layer_specs(script.base_layers, "base"),
    }


def _libraries(request: LayerRequest, objects: Tuple[StoreObject, ...]) -> Tuple[str, ...]:
    libraries = set(native_libraries.TO_COMPRESS[request.compression])
    script = request.root.root_script if request.root else None
    if (script and script.zstd) or any(obj.unpack == "tar.zst" for obj in objects):
        libraries |= {"zstd"}
    return tuple(sorted(libraries))


def _description(request: LayerRequest, size: int) -> str:
    """What the user sees while the process runs, and in its errors. It is in no cache key."""
    names = [obj.base_name.partition("-")[2] for obj in request.objects]
    root = request.root
    if root:
        names.append("links to the contents")
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    packed = f" ({size_text(size)})" if size else ""
    scripts = []
    if root and root.root_script and root.root_script.text:
        scripts.append("run_as_root")
    if root and root.script is not None:
        scripts.append("extra_commands")
    after = f" after {' and '.join(scripts)}" if scripts else ""
    return f"Packing a layer of {shown or 'nothing'}{after}{packed}"


def _last_line(output: bytes) -> str:
    return output.decode(errors="replace").strip().rpartition("\n")[2]


@rule(desc="Find out whether run_as_root can run there", level=LogLevel.DEBUG)
async def probe_root(environment: ProcessExecutionEnvironment) -> RootProbe:
    if not is_elsewhere(environment):
        return RootProbe(None)
    result = await Get(
        ToolResult,
        ToolRun(
            "root-probe",
            b"{}",
            EMPTY_DIGEST,
            ("root-probe.json",),
            (),
            # Workers and containers change.
            cache_scope=ProcessCacheScope.PER_RESTART_SUCCESSFUL,
            description="Finding out whether run_as_root can run there",
        ),
    )
    (file,) = await Get(DigestContents, Digest, result.digest)
    return RootProbe(json.loads(file.content)["obstacle"])


async def _packed(
    run: ToolRun, objects: Tuple[StoreObject, ...], root: Optional[RootPart]
) -> ToolResult:
    """Runs it. A path that has gone from the Nix store since Nix was asked is realised again."""
    lost: Dict[str, NixPath] = {obj.path: obj.nix for obj in objects if obj.nix}
    if not lost:
        if root and root.root_script and root.root_script.text:
            probe = await Get(RootProbe)
            if probe.obstacle:
                return await Get(
                    ToolResult, LocalToolRun(run, f"root, which is refused there: {probe.obstacle}")
                )
        return await Get(ToolResult, ToolRun, run)
    while True:
        try:
            return await Get(ToolResult, LocalToolRun(run, "the Nix store"))
        except ToolFailed as e:
            missing = [path for path in lost if f"{path} {MISSING}" in e.output]
            if not missing:
                raise
        info = lost.pop(missing[0])
        await Get(Realised, RealiseRequest(info.query, missing[0], info.nar_hash))
        run = replace(run, attempt=run.attempt + 1)


@rule(desc="Pack a layer", level=LogLevel.DEBUG)
async def pack_layer(
    request: LayerRequest, options: DockerNixSubsystem.EnvironmentAware
) -> BuiltLayer:
    packed = await _pack_input(request.objects)
    digests = list(packed.digests)
    spec: Dict[str, Any] = {
        "compression": request.compression,
        "paths": packed.spec,
        "root": None,
    }
    immutable_inputs: Dict[str, Digest] = dict(packed.runtimes)
    root = request.root
    if root:
        spec["root"] = {
            "uid": root.uid,
            "gid": root.gid,
            "links": root.links,
            "script": root.script,
            "store": [],
            "path": None,
            "base": None,
            "nix_db": root.nix_db and _database_spec(root.nix_db, request.objects),
            "as_root": root.root_script and _root_script_spec(root.root_script),
        }
        if root.root_script:
            base_layers = layer_files(root.root_script.base_layers, "base")
            digests.append(await Get(Digest, CreateDigest, base_layers))
        if root.script is not None and root.base is not None:
            digests.append(root.base)
            spec["root"]["base"] = "base.json"
        if root.script is not None and root.script_store:
            readable = await _pack_input(root.script_store)
            digests.extend(readable.digests)
            spec["root"]["store"] = readable.spec
            immutable_inputs.update(readable.runtimes)
        if root.script is not None and root.tools:
            try:
                shims = await Get(
                    BinaryShims,
                    BinaryShimsRequest,
                    BinaryShimsRequest.for_binaries(
                        *root.tools,
                        rationale="run the `extra_commands`",
                        search_path=options.search_path,
                    ),
                )
            except BinaryNotFoundError as e:
                raise DockerNixError(
                    f"{e}\n\nThe programs in 'tools' are looked up on "
                    "[docker-nix].executable_search_paths."
                ) from e
            except ProcessExecutionFailure as e:
                raise DockerNixError(
                    f"The programs in 'tools' cannot be looked up: {_last_line(e.stderr)}.\n\n"
                    "Pants does that with bash: install it where the image's 'environment' is, or "
                    "write the commands without 'tools'."
                ) from e
            immutable_inputs.update(shims.immutable_input_digests)
            spec["root"]["path"] = shims.cache_name
    input_digest = await Get(Digest, MergeDigests(digests))
    objects = request.objects + (root.script_store if root else ())
    result = await _packed(
        ToolRun(
            "pack",
            json.dumps(spec, sort_keys=True, separators=(",", ":")).encode(),
            input_digest,
            ("layer.blob", "layer.json"),
            _libraries(request, objects),
            cores=max(1, min(64, packed.unpacked_size // (8 * _MIB))),
            immutable_inputs=FrozenDict(immutable_inputs),
            description=_description(request, packed.size),
        ),
        objects,
        root,
    )
    entries, metadata = await MultiGet(
        Get(DigestEntries, Digest, result.digest),
        Get(
            Digest,
            DigestSubset(result.digest, PathGlobs(["layer.json"])),
        ),
    )
    files = {entry.path: entry for entry in entries if isinstance(entry, FileEntry)}
    contents = await Get(DigestContents, Digest, metadata)
    if "layer.blob" not in files or len(contents) != 1:
        raise DockerNixError(
            "Packing a layer left no complete output.\n\nThis is a fault of the "
            "machine or of the remote cache that answered; run again, with "
            "`--no-local-cache --no-remote-cache-read` if it stays."
        )
    blob = files["layer.blob"].file_digest
    info = json.loads(contents[0].content)
    if info["digest"] != f"sha256:{blob.fingerprint}":
        raise DockerNixError(
            f"A layer has the digest sha256:{blob.fingerprint}, but the process "
            f"that made it says {info['digest']}.\n\nThe cache holds a wrong entry; run again with "
            "`--no-local-cache --no-remote-cache-read`."
        )
    references = {obj.base_name: obj for obj in request.objects}
    return BuiltLayer(
        blob,
        request.compression,
        info["diff_id"],
        info["diff_size"],
        tuple(
            StorePathInfo(
                references[name].path,
                path["nar_hash"],
                path["nar_size"],
                references[name].references,
            )
            for name, path in sorted(info["paths"].items())
        ),
        has_root=root is not None,
    )


def rules() -> Iterable[object]:
    return (*collect_rules(), *native_libraries.rules(), *tool_process.rules())
