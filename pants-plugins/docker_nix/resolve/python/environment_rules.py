"""The environment of a Python target: its distributions, resolved, read and merged."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from typing import Dict, Iterable, List, Mapping, Optional, Tuple, Union

from pants.backend.python.target_types import (
    PexLayout,
    PythonProvidesField,
    PythonRequirementsField,
)
from pants.backend.python.util_rules.interpreter_constraints import InterpreterConstraints
from pants.backend.python.util_rules.pex import CompletePlatforms, Pex, PexPlatforms
from pants.backend.python.util_rules.pex_from_targets import (
    InterpreterConstraintsRequest,
    PexFromTargetsRequest,
)
from pants.engine.addresses import Address
from pants.engine.environment import EnvironmentName
from pants.engine.fs import (
    CreateDigest,
    Digest,
    DigestContents,
    DigestEntries,
    FileContent,
    FileEntry,
    SymlinkEntry,
)
from pants.engine.internals.native_engine import IntrinsicError
from pants.engine.platform import Platform as BuildPlatform
from pants.engine.process import ProcessExecutionEnvironment, ProcessExecutionFailure
from pants.engine.rules import Get, MultiGet, collect_rules, rule
from pants.engine.target import TransitiveTargets, TransitiveTargetsRequest
from pants.util.logging import LogLevel

from docker_nix.assemble.image import libraries_to_read
from docker_nix.base.types import Blobs, BlobsRequest
from docker_nix.build_platform import default_platform
from docker_nix.errors import DockerNixError, engine_error
from docker_nix.layer.layer_inputs import layer_files, layer_specs
from docker_nix.layer.this_machine import is_elsewhere
from docker_nix.layer.tool_process import ToolFailed, ToolResult, ToolRun
from docker_nix.resolve import store_path
from docker_nix.resolve.python.distribution import Distribution, dependencies
from docker_nix.resolve.python.environment import (
    EnvironmentCollision,
    Installed,
    Script,
    SymlinkTo,
    merged,
    script_text,
    virtual_environment,
)
from docker_nix.resolve.python.interpreter import Interpreter, misfit
from docker_nix.resolve.python.types import (
    DistributionRequest,
    ImagePython,
    PythonRuntime,
    PythonRuntimeRequest,
)
from docker_nix.resolve.types import Bytecode, StoreObject, wheel_format

_PEX = "requirements.pex"


@dataclass(frozen=True)
class EnvironmentRequest:
    """A request for the environment of a target: its distributions, for one interpreter.

    :param build: the environment that the target names, where its distributions are resolved.
    :param platforms: what they are resolved for instead of that, `complete_platforms` too.
    """

    address: Address
    build: EnvironmentName
    python: ImagePython
    interpreter: Interpreter
    include_requirements: bool = True
    platforms: PexPlatforms = PexPlatforms()
    complete_platforms: CompletePlatforms = CompletePlatforms()
    pex_args: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Environment:
    """An environment and the distributions in it.

    :param own: its own store path, to which programs refer.
    :param tree: what it has of the distributions, by path.
    """

    own: StoreObject
    distributions: Tuple[StoreObject, ...]
    installed: Tuple[Installed, ...]
    tree: Tuple[Tuple[str, Union[SymlinkTo, Script]], ...]
    bytecode: Optional[Bytecode]


@rule(desc="Read a Python distribution", level=LogLevel.DEBUG)
async def read_distribution(request: DistributionRequest) -> Distribution:
    archive = await Get(Digest, CreateDigest([FileEntry("in/archive", request.file)]))
    spec = {"file": "in/archive", "site_packages": request.site_packages}
    result = await Get(
        ToolResult,
        ToolRun(
            "wheel-index",
            json.dumps(spec).encode(),
            archive,
            ("wheel.json",),
            (),
            description=f"Reading the distribution {request.title}",
        ),
    )
    (index,) = await Get(DigestContents, Digest, result.digest)
    return Distribution.from_json(json.loads(index.content))


@rule(desc="Take the Python of a base image", level=LogLevel.DEBUG)
async def take_runtime(request: PythonRuntimeRequest) -> PythonRuntime:
    await Get(Blobs, BlobsRequest(request.base_layers))
    layers = [(layer.blob, layer.diff_id) for layer in request.base_layers]
    input_digest = await Get(Digest, CreateDigest, layer_files(layers, "base"))
    spec = {
        "layers": layer_specs(layers, "base"),
        "interpreter": request.path.lstrip("/"),
    }
    result = await Get(
        ToolResult,
        ToolRun(
            "python-runtime",
            json.dumps(spec, sort_keys=True).encode(),
            input_digest,
            (),
            libraries_to_read([layer.compression for layer in request.base_layers]),
            output_directories=("runtime",),
            description="Taking the Python of a base image",
        ),
    )
    entries = await Get(DigestEntries, Digest, result.digest)
    compiler = sorted(
        (entry.path, entry.file_digest.fingerprint)
        for entry in entries
        if isinstance(entry, FileEntry)
        and re.fullmatch(r"runtime/(python|libraries/libpython[^/]*)", entry.path)
    )
    return PythonRuntime(result.digest, hashlib.sha256(json.dumps(compiler).encode()).hexdigest())


async def _bytecode(request: EnvironmentRequest) -> Optional[Bytecode]:
    """How the environment's modules are compiled. It depends on nothing but the targets.

    Only the image's own interpreter will do, which must be able to run wherever such an image is
    built. So nothing is compiled for an interpreter that is not known to the build, nor where
    `complete_platforms` say that the build may happen on another platform.
    """
    if (
        not request.python.bytecode
        or not request.interpreter.in_base
        or request.complete_platforms
        or request.platforms
    ):
        return None
    layers, path = request.python.base_layers, request.interpreter.path
    try:
        runtime = await Get(PythonRuntime, PythonRuntimeRequest(layers, path))
    except ToolFailed as e:
        raise DockerNixError(
            f"The modules of {request.address} cannot be compiled for the image "
            f"{request.python.owner}. {e}\n\nSet python_bytecode=False on the image."
        ) from e
    return Bytecode(runtime.digest, runtime.compiler, request.interpreter.cache_tag)


def _fitting(
    request: EnvironmentRequest, distributions: Iterable[Distribution]
) -> List[Distribution]:
    """Those that the interpreter can use. A PEX for several platforms has them for each."""
    fitting: Dict[str, Distribution] = {}
    reasons: Dict[str, str] = {}
    for distribution in distributions:
        reason = misfit(distribution.tags, request.interpreter)
        if reason is None:
            fitting.setdefault(distribution.project, distribution)
        else:
            reasons.setdefault(distribution.project, f"{distribution.title}: {reason}")
    lacking = [reason for project, reason in sorted(reasons.items()) if project not in fitting]
    if lacking:
        more = f" (and {len(lacking) - 3} more)" if len(lacking) > 3 else ""
        raise DockerNixError(
            f"The target {request.address} has distributions that do not fit the Python of the "
            f"image {request.python.owner}, {request.interpreter}. {'; '.join(lacking[:3])}{more}."
            "\n\nGive it 'complete_platforms' of that Python, or use another base image or "
            "'python_interpreter'."
        )
    return sorted(fitting.values(), key=lambda distribution: distribution.project)


def _distribution_object(
    distribution: Distribution,
    site_packages: str,
    digest: Digest,
    bytecode: Optional[Bytecode],
    origin: Address,
) -> StoreObject:
    """A store path by the content of a distribution; what it depends on is not in its bytes."""
    compiled = f":{bytecode.compiler}" if bytecode else ""
    path = store_path.input_addressed_path(
        store_path.legal_name(distribution.title),
        *distribution.content_hash(),
        kind=f"wheel:{site_packages}{compiled}",
    )
    return StoreObject(path, digest, wheel_format(site_packages), origin=origin, bytecode=bytecode)


def tree_of(tree: Mapping[str, Union[SymlinkTo, Script, str]], python: str) -> CreateDigest:
    """The tree of an environment whose interpreter is at the path `python`."""
    entries: List[Union[FileContent, SymlinkEntry]] = []
    for path, node in sorted(tree.items()):
        if isinstance(node, SymlinkTo):
            entries.append(SymlinkEntry(path, node.target))
        elif isinstance(node, Script):
            entries.append(FileContent(path, script_text(node, python), is_executable=True))
        else:
            entries.append(FileContent(path, node.encode()))
    return CreateDigest(entries)


async def _environment_object(
    request: EnvironmentRequest, tree: Dict[str, Union[SymlinkTo, Script]], references: List[str]
) -> StoreObject:
    """The store path of an environment. Its scripts name it, so it refers to itself."""
    interpreter = request.interpreter
    whole = {**tree, **virtual_environment(interpreter)}
    nameless = await Get(Digest, CreateDigest, tree_of(whole, "python"))
    if interpreter.store_path:
        references = [*references, interpreter.store_path]
    path = store_path.input_addressed_path(
        f"python{interpreter.version}-environment",
        nameless.fingerprint,
        nameless.serialized_bytes_length,
        references,
        kind="environment",
    )
    digest = await Get(Digest, CreateDigest, tree_of(whole, f"{path}/bin/python"))
    own = [path] if any(isinstance(node, Script) for node in tree.values()) else []
    return StoreObject(
        path, digest, references=tuple(sorted({*references, *own})), origin=request.address
    )


def _not_resolved(
    request: EnvironmentRequest, where: ProcessExecutionEnvironment, said: str
) -> DockerNixError:
    if not is_elsewhere(where):
        remedy = (
            f"Resolving them takes a Python {request.interpreter.version} on this machine, which "
            "is looked for on [python-bootstrap].search_path. With 'complete_platforms' for that "
            "Python on the target, wheels will do."
        )
    elif request.build.val is None:
        remedy = (
            "With [GLOBAL].remote_execution and no [environments-preview].names, Pants starts Pex "
            "on the cluster too, with the path of this machine's Python. Name a "
            "`local_environment`, and a `remote_environment` for the 'environment' of images: Pex "
            "runs here then, and layers are built on the cluster."
        )
    else:
        remedy = (
            f"They are resolved in the environment {request.build.val!r}, as the 'environment' "
            f"field in target {request.address} says, so that Pex, a Python "
            f"{request.interpreter.version} and the package index must be within reach there. "
            "Without that field they are resolved on this machine; the image's own 'environment' "
            "can stay as it is."
        )
    return DockerNixError(
        f"The distributions of {request.address} cannot be had for the Python of the image "
        f"{request.python.owner}, {request.interpreter}.\n\n{said}\n\n{remedy}"
    )


@rule(desc="Resolve a Python environment", level=LogLevel.DEBUG)
async def resolve_environment(request: EnvironmentRequest) -> Environment:
    build_platform = await Get(BuildPlatform, EnvironmentName, request.build)
    build = default_platform(build_platform)
    wanted = request.python.platform
    cross = bool(request.platforms or request.complete_platforms)
    if not cross and (
        build_platform.value.partition("_")[0] != wanted.os
        or build.architecture != wanted.architecture
    ):
        raise DockerNixError(
            f"The image {request.python.owner} is for {wanted.os}/{wanted.architecture}, and the "
            f"distributions of {request.address} would be resolved for where it is built, "
            f"{build_platform.value}.\n\nGive the `pex_binary` 'complete_platforms' for the "
            "image's Python and platform, or build on such a machine."
        )
    transitive = await Get(TransitiveTargets, TransitiveTargetsRequest([request.address]))
    has_local = any(target.has_field(PythonProvidesField) for target in transitive.closure)
    has_foreign = any(target.has_field(PythonRequirementsField) for target in transitive.closure)
    files: List[FileEntry] = []
    if request.include_requirements and (has_local or has_foreign):
        constraints = await Get(
            InterpreterConstraints, InterpreterConstraintsRequest([request.address])
        )
        own = f"=={request.interpreter.version}.*"
        requirements = PexFromTargetsRequest(
            [request.address],
            output_filename=_PEX,
            internal_only=False,
            layout=PexLayout.PACKED,
            platforms=request.platforms,
            complete_platforms=request.complete_platforms,
            # Not --no-compress: Pex 2.1.137 keeps such zips where it then believes that it has
            # compressed ones, and fails to build any other PEX with the same wheels.
            additional_args=request.pex_args,
            include_source_files=False,
            include_local_dists=has_local,
            hardcoded_interpreter_constraints=InterpreterConstraints(
                f"{constraint},{own}" if constraint.specs else f"{constraint}{own}"
                for constraint in constraints
            ),
        )
        where = await Get(ProcessExecutionEnvironment, EnvironmentName, request.build)
        try:
            pex = await Get(
                Pex,
                {requirements: PexFromTargetsRequest, request.build: EnvironmentName},
            )
        except ProcessExecutionFailure as e:
            said = e.stderr.decode(errors="replace").strip() or str(e)
            raise _not_resolved(request, where, said) from e
        except IntrinsicError as e:
            # Such as that there is no Pex for there; a cycle is another's to explain.
            if not is_elsewhere(where) or "contained a cycle" in str(e):
                raise
            raise _not_resolved(request, where, engine_error(e)) from e
        files = [
            entry
            for entry in await Get(DigestEntries, Digest, pex.digest)
            if isinstance(entry, FileEntry) and entry.path.startswith(f"{_PEX}/.deps/")
        ]
    site_packages = request.interpreter.site_packages
    distributions = await MultiGet(
        Get(
            Distribution,
            DistributionRequest(entry.file_digest, site_packages, entry.path.rpartition("/")[2]),
        )
        for entry in files
    )
    fitting = _fitting(request, distributions)
    bytecode = await _bytecode(request)
    archives = await MultiGet(
        Get(Digest, CreateDigest([FileEntry("archive", entry.file_digest)])) for entry in files
    )
    objects = {
        one.project: _distribution_object(one, site_packages, archive, bytecode, request.address)
        for one, archive in zip(distributions, archives)
        if one in fitting
    }
    needs = dependencies(fitting, request.interpreter)
    # They are references though they are not in the bytes: the plan must know what is popular. They
    # are no part of the path's hash: a new version of one distribution must not change the layers
    # of those that depend on it.
    objects = {
        project: replace(obj, references=tuple(sorted(objects[to].path for to in needs[project])))
        for project, obj in objects.items()
    }
    installed = tuple(Installed(one, objects[one.project].path) for one in fitting)
    try:
        tree = merged(installed, request.interpreter, bytecode is not None)
    except EnvironmentCollision as e:
        raise DockerNixError(
            f"The distributions of {request.address} cannot be in one environment: {e}.\n\nLeave "
            'one of the two out, or set python_layering="binary" on the target.'
        ) from e
    environment = await _environment_object(request, tree, [obj.path for obj in objects.values()])
    return Environment(
        environment,
        tuple(objects.values()),
        installed,
        tuple(sorted(tree.items(), key=lambda item: item[0])),
        bytecode,
    )


def rules() -> Iterable[object]:
    return collect_rules()
