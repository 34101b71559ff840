"""Python targets as store paths: one per distribution, for the sources, and for the program."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from typing import ClassVar, Dict, Iterable, List, Optional, Sequence, Tuple, Union

from pants.backend.python.goals.package_pex_binary import PexBinaryFieldSet
from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import (
    PexBinary,
    PexCompletePlatformsField,
    PexEntryPointField,
    PexExecutionMode,
    PexLayout,
    PythonGeneratingSourcesBase,
    PythonProvidesField,
    PythonRequirementsField,
    PythonSourceField,
    ResolvedPexEntryPoint,
    ResolvePexEntryPointRequest,
)
from pants.backend.python.util_rules.interpreter_constraints import InterpreterConstraints
from pants.backend.python.util_rules.local_dists import LocalDistsPex, LocalDistsPexRequest
from pants.backend.python.util_rules.pex import CompletePlatforms, Pex, PexPlatforms
from pants.backend.python.util_rules.pex_from_targets import (
    InterpreterConstraintsRequest,
    PexFromTargetsRequest,
)
from pants.backend.python.util_rules.python_sources import (
    PythonSourceFiles,
    PythonSourceFilesRequest,
    StrippedPythonSourceFiles,
)
from pants.core.target_types import FileSourceField
from pants.engine.addresses import Address, Addresses
from pants.engine.fs import (
    EMPTY_DIGEST,
    AddPrefix,
    CreateDigest,
    Digest,
    DigestContents,
    FileContent,
    FileDigest,
    FileEntry,
    DigestEntries,
    SymlinkEntry,
)
from pants.engine.platform import Platform as BuildPlatform
from pants.engine.process import ProcessExecutionFailure
from pants.engine.rules import Get, MultiGet, collect_rules, rule
from pants.engine.target import (
    Target,
    TransitiveTargets,
    TransitiveTargetsRequest,
)
from pants.engine.unions import UnionMembership, UnionRule
from pants.util.logging import LogLevel

from docker_nix.base.types import Blobs, BlobsRequest
from docker_nix.assemble.image import libraries_to_read
from docker_nix.build_platform import default_platform
from docker_nix.errors import DockerNixError, field_error
from docker_nix.layer.tool_process import ToolFailed, ToolResult, ToolRun
from docker_nix.resolve import store_path
from docker_nix.resolve.packages import PackageClosureRequest
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
from docker_nix.resolve.python.fields import PythonLayering, PythonLayeringField
from docker_nix.resolve.python.interpreter import Interpreter, misfit
from docker_nix.resolve.python.launcher import EntryPoint, EnvironmentScript, Launcher
from docker_nix.resolve.python.types import (
    DistributionRequest,
    ImagePython,
    PythonRuntime,
    PythonRuntimeRequest,
)
from docker_nix.resolve.types import (
    Bytecode,
    StoreClosure,
    StoreClosureRequest,
    StoreObject,
    wheel_format,
)
from docker_nix.subsystem import DockerNixSubsystem

logger = logging.getLogger(__name__)

_PEX = "requirements.pex"


@dataclass(frozen=True)
class PexClosureRequest(StoreClosureRequest):
    order: ClassVar[int] = 40

    @classmethod
    def applies_to(cls, target: Target, union_membership: UnionMembership) -> bool:
        return target.has_field(PexEntryPointField)


@dataclass(frozen=True)
class LibraryClosureRequest(StoreClosureRequest):
    """Python code that is no program: sources, requirements, and distributions of the repository."""

    order: ClassVar[int] = 40

    @classmethod
    def applies_to(cls, target: Target, union_membership: UnionMembership) -> bool:
        return any(
            target.has_field(field)
            for field in (
                PythonSourceField,
                PythonGeneratingSourcesBase,
                PythonRequirementsField,
                PythonProvidesField,
            )
        )


@dataclass(frozen=True)
class EnvironmentRequest:
    """A request for the environment of a target: its distributions, for one interpreter.

    :param platforms: what they are resolved for instead of this machine, `complete_platforms` too.
    """

    address: Address
    python: ImagePython
    interpreter: Interpreter
    include_requirements: bool = True
    platforms: PexPlatforms = PexPlatforms()
    complete_platforms: CompletePlatforms = CompletePlatforms()
    pex_args: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Environment:
    """An environment and the distributions in it.

    :param path: its store path.
    :param objects: the store paths of the distributions, and its own.
    :param tree: what it has of the distributions, by path.
    """

    path: str
    objects: Tuple[StoreObject, ...]
    installed: Tuple[Installed, ...]
    tree: Tuple[Tuple[str, Union[SymlinkTo, Script]], ...]
    bytecode: Optional[Bytecode]


@dataclass(frozen=True)
class SourcesRequest:
    """A request for the first-party sources that a target needs, for one interpreter."""

    address: Address
    constraints: InterpreterConstraints


@dataclass(frozen=True)
class Sources:
    """Their tree, as it goes onto `sys.path`; empty without sources."""

    digest: Digest


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
    layers = request.base_layers
    await Get(Blobs, BlobsRequest(layers))
    blobs = {layer.blob.fingerprint: layer.blob for layer in layers}
    input_digest = await Get(
        Digest, CreateDigest(FileEntry(f"base/{name}", blob) for name, blob in blobs.items())
    )
    spec = {
        "layers": [
            {"file": f"base/{layer.blob.fingerprint}", "diff_id": layer.diff_id} for layer in layers
        ],
        "interpreter": request.path.lstrip("/"),
    }
    result = await Get(
        ToolResult,
        ToolRun(
            "python-runtime",
            json.dumps(spec, sort_keys=True).encode(),
            input_digest,
            (),
            libraries_to_read([layer.compression for layer in layers]),
            output_directories=("runtime",),
            description="Taking the Python of a base image",
        ),
    )
    return PythonRuntime(result.digest)


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
    runtime = await Get(
        PythonRuntime, PythonRuntimeRequest(request.python.base_layers, request.interpreter.path)
    )
    return Bytecode(runtime.digest, request.interpreter.cache_tag)


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
    distribution: Distribution, file: FileDigest, site_packages: str, digest: Digest,
    bytecode: Optional[Bytecode], origin: Address,
) -> StoreObject:
    """A store path by the content of a distribution; what it depends on is not in its bytes."""
    compiled = f":{bytecode.runtime.fingerprint}" if bytecode else ""
    path = store_path.input_addressed_path(
        store_path.legal_name(distribution.title),
        *distribution.content_hash(),
        kind=f"wheel:{site_packages}{compiled}",
    )
    return StoreObject(
        path, digest, wheel_format(site_packages), origin=origin, bytecode=bytecode
    )


async def _write(tree: Dict[str, Union[SymlinkTo, Script, str]], python: str) -> Digest:
    """The tree of an environment whose interpreter is at the path `python`."""
    entries: List[Union[FileContent, SymlinkEntry]] = []
    for path, node in sorted(tree.items()):
        if isinstance(node, SymlinkTo):
            entries.append(SymlinkEntry(path, node.target))
        elif isinstance(node, Script):
            entries.append(
                FileContent(path, script_text(node, python).encode(), is_executable=True)
            )
        else:
            entries.append(FileContent(path, node.encode()))
    return await Get(Digest, CreateDigest(entries))


async def _environment_object(
    request: EnvironmentRequest, tree: Dict[str, Union[SymlinkTo, Script]], references: List[str]
) -> StoreObject:
    """The store path of an environment. Its scripts name it, so it refers to itself."""
    interpreter = request.interpreter
    whole = {**tree, **virtual_environment(interpreter)}
    nameless = await _write(whole, "python")
    if interpreter.store_path:
        references = [*references, interpreter.store_path]
    path = store_path.input_addressed_path(
        f"python{interpreter.version}-environment",
        nameless.fingerprint,
        nameless.serialized_bytes_length,
        references,
        kind="environment",
    )
    digest = await _write(whole, f"{path}/bin/python")
    own = [path] if any(isinstance(node, Script) for node in tree.values()) else []
    return StoreObject(
        path, digest, references=tuple(sorted({*references, *own})), origin=request.address
    )


@rule(desc="Resolve a Python environment", level=LogLevel.DEBUG)
async def resolve_environment(
    request: EnvironmentRequest, build_platform: BuildPlatform
) -> Environment:
    build = default_platform(build_platform)
    wanted = request.python.platform
    cross = bool(request.platforms or request.complete_platforms)
    if not cross and (
        build_platform.value.partition("_")[0] != wanted.os
        or build.architecture != wanted.architecture
    ):
        raise DockerNixError(
            f"The image {request.python.owner} is for {wanted.os}/{wanted.architecture}, and the "
            f"distributions of {request.address} would be resolved for this machine, "
            f"{build_platform.value}.\n\nGive the `pex_binary` 'complete_platforms' for the image's "
            "Python and platform, or build on such a machine."
        )
    transitive = await Get(TransitiveTargets, TransitiveTargetsRequest([request.address]))
    needs_pex = request.include_requirements and any(
        target.has_field(PythonRequirementsField) or target.has_field(PythonProvidesField)
        for target in transitive.closure
    )
    files: List[FileEntry] = []
    if needs_pex:
        constraints = await Get(
            InterpreterConstraints, InterpreterConstraintsRequest([request.address])
        )
        own = f"=={request.interpreter.version}.*"
        try:
            pex = await Get(
                Pex,
                PexFromTargetsRequest(
                    [request.address],
                    output_filename=_PEX,
                    internal_only=False,
                    layout=PexLayout.PACKED,
                    platforms=request.platforms,
                    complete_platforms=request.complete_platforms,
                    # Whatever the distributions are: the layer is compressed, and only once.
                    additional_args=("--no-compress", *request.pex_args),
                    include_source_files=False,
                    include_local_dists=True,
                    hardcoded_interpreter_constraints=InterpreterConstraints(
                        f"{constraint},{own}" if constraint.specs else f"{constraint}{own}"
                        for constraint in constraints
                    ),
                ),
            )
        except ProcessExecutionFailure as e:
            raise DockerNixError(
                f"The distributions of {request.address} cannot be had for the Python of the image "
                f"{request.python.owner}, {request.interpreter}.\n\n"
                f"{e.stderr.decode(errors='replace').strip() or e}\n\n"
                f"A Python {request.interpreter.version} is needed on this machine to resolve them "
                "([python-bootstrap].search_path says where it is looked for); or give the target "
                "'complete_platforms' for that Python, and wheels will do."
            ) from e
        files = [
            entry
            for entry in await Get(DigestEntries, Digest, pex.digest)
            if isinstance(entry, FileEntry) and entry.path.startswith(f"{_PEX}/.deps/")
        ]
    site_packages = request.interpreter.site_packages
    distributions = await MultiGet(
        Get(
            Distribution,
            DistributionRequest(
                entry.file_digest, site_packages, entry.path.rpartition("/")[2]
            ),
        )
        for entry in files
    )
    fitting = _fitting(request, distributions)
    bytecode = await _bytecode(request)
    archives = await MultiGet(
        Get(Digest, CreateDigest([FileEntry("archive", entry.file_digest)])) for entry in files
    )
    objects = {
        one.project: _distribution_object(
            one, entry.file_digest, site_packages, archive, bytecode, request.address
        )
        for one, entry, archive in zip(distributions, files, archives)
        if one in fitting
    }
    needs = dependencies(fitting, request.interpreter)
    # These are references though they are not in the bytes: they make the plan know what is popular.
    # They are no part of the path's hash, as a new version of one distribution must not change the
    # layers of those that depend on it.
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
            "one of the two out, or set python_layering=\"binary\" on the target."
        ) from e
    environment = await _environment_object(
        request, tree, [obj.path for obj in objects.values()]
    )
    return Environment(
        environment.path,
        (*objects.values(), environment),
        installed,
        tuple(sorted(tree.items(), key=lambda item: item[0])),
        bytecode,
    )


@rule(desc="Find the sources of a Python target", level=LogLevel.DEBUG)
async def find_sources(request: SourcesRequest) -> Sources:
    transitive = await Get(TransitiveTargets, TransitiveTargetsRequest([request.address]))
    files = [t.address.spec for t in transitive.dependencies if t.has_field(FileSourceField)]
    if files:
        shown = ", ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
        logger.warning(
            f"{request.address} depends on `file` targets, which are not among its sources: "
            f"{shown}. Use `resources` targets, or list them in the 'contents' of the image."
        )
    sources = await Get(PythonSourceFiles, PythonSourceFilesRequest(transitive.closure))
    # What a distribution of the repository has is not among the sources as well.
    if any(target.has_field(PythonProvidesField) for target in transitive.closure):
        local = await Get(
            LocalDistsPex,
            LocalDistsPexRequest(
                Addresses([request.address]),
                internal_only=False,
                interpreter_constraints=request.constraints,
                sources=sources,
            ),
        )
        sources = local.remaining_sources
    stripped = await Get(StrippedPythonSourceFiles, PythonSourceFiles, sources)
    return Sources(stripped.stripped_source_files.snapshot.digest)


def _sources_object(
    name: str, digest: Digest, origin: Address, bytecode: Optional[Bytecode]
) -> StoreObject:
    plain = StoreObject.from_pants(f"{name}-sources", digest, origin)
    if bytecode is None:
        return plain
    path = store_path.input_addressed_path(
        plain.base_name.partition("-")[2],
        digest.fingerprint,
        digest.serialized_bytes_length,
        kind=f"compiled:{bytecode.runtime.fingerprint}",
    )
    return replace(plain, path=path, bytecode=bytecode)


def _no_python(request: StoreClosureRequest, problem: str) -> DockerNixError:
    owner = request.python.owner if request.python else None
    return DockerNixError(
        f"The image {owner} has {request.target.address}, a `{request.target.alias}` target, "
        f"{problem}\n\nBuild it on a base image with such a Python ('from_image'), list one among "
        "the contents (a `nix_package`), or say where it is with 'python_interpreter'. A "
        "`pex_binary` can also go in as one file, whatever the image has, with "
        "python_layering=\"binary\"."
    )


def _choose(
    request: StoreClosureRequest, constraints: InterpreterConstraints, shebang: Optional[str] = None
) -> Interpreter:
    """The interpreter of the image that the target is for."""
    assert request.python is not None
    candidates: Sequence[Interpreter] = request.python.interpreters
    if shebang:
        words = shebang.lstrip("#!").split()
        if len(words) == 2 and words[0].endswith("/env"):
            words = words[1:]
        if len(words) != 1:
            raise field_error(
                request.target.address,
                "shebang",
                f"is {shebang!r}, which is not one path of a Python, nor 'env' with a name.",
                "Write it as '/usr/bin/python3.11', or remove it.",
            )
        (word,) = words
        named = [
            one
            for one in candidates
            if word in (one.path, one.path.rpartition("/")[2]) or one.path.startswith(f"{word}.")
        ]
        if not named and "/" not in word and word.startswith("python"):
            named = [one for one in candidates if one.path.rpartition("/")[2].startswith(word)]
        if not named:
            raise _no_python(request, f"whose 'shebang' is {shebang!r}, which it does not have.")
        candidates = named
    if not candidates:
        raise _no_python(request, "but no Python.")
    for candidate in candidates:
        if constraints.partition_into_major_minor_versions([candidate.version]):
            return candidate
    allowed = " or ".join(str(constraint) for constraint in constraints)
    raise _no_python(
        request,
        f"whose interpreter constraints are {allowed}, but its Python is "
        f"{', '.join(map(str, candidates))}.",
    )


_UNFIT = {
    "include_tools": "PEX_TOOLS are a part of a PEX file",
    "ignore_errors": "a distribution that is missing is an error when the image is built",
    "venv_site_packages_copies": "the environment links to the distributions, which images share",
}


def _check_fields(field_set: PexBinaryFieldSet) -> None:
    """Raises an error for a field that says what only a PEX file can do."""
    problems = {
        name: reason for name, reason in _UNFIT.items() if getattr(field_set, name).value is True
    }
    if field_set.inherit_path.value not in (None, "false"):
        problems["inherit_path"] = "the program runs with exactly its own distributions"
    for name, reason in problems.items():
        raise field_error(
            field_set.address,
            name,
            f"is {getattr(field_set, name).value!r}, which cannot be had with "
            f'python_layering="distribution": {reason}.',
            'Remove it, or set python_layering="binary".',
        )


def _script(field_set: PexBinaryFieldSet, name: str, environment: Environment) -> (
    Union[EntryPoint, EnvironmentScript]
):
    for one in environment.installed:
        text = dict(one.distribution.console_scripts).get(name)
        if text:
            module, _, function = text.partition("[")[0].strip().partition(":")
            return EntryPoint(module.strip(), function.strip() or None)
    node = dict(environment.tree).get(f"bin/{name}")
    if node is not None:
        return EnvironmentScript(f"{environment.path}/bin/{name}", isinstance(node, Script))
    scripts = sorted(path[4:] for path, _ in environment.tree if path.startswith("bin/"))
    raise field_error(
        field_set.address,
        "script",
        f"is {name!r}, which none of its distributions has.",
        f"They have {', '.join(map(repr, scripts))}." if scripts else "They have no scripts.",
    )


def _program_name(address: Address) -> str:
    return (address.generated_name or address.target_name).rpartition("/")[2]


@rule(desc="Resolve a Python application to store paths", level=LogLevel.DEBUG)
async def resolve_pex_binary(
    request: PexClosureRequest, options: DockerNixSubsystem
) -> StoreClosure:
    target = request.target
    layering = target[PythonLayeringField].value or options.python_layering.value
    if PythonLayering(layering) is PythonLayering.BINARY:
        return await Get(StoreClosure, PackageClosureRequest(target))
    if request.python is None:
        return StoreClosure((), (), lacks_python=True)
    field_set = PexBinaryFieldSet.create(target)
    _check_fields(field_set)
    address = target.address
    constraints, entry_point, complete_platforms = await MultiGet(
        Get(InterpreterConstraints, InterpreterConstraintsRequest([address])),
        Get(ResolvedPexEntryPoint, ResolvePexEntryPointRequest(field_set.entry_point)),
        Get(CompletePlatforms, PexCompletePlatformsField, field_set.complete_platforms),
    )
    interpreter = _choose(request, constraints, field_set.shebang.value)
    environment = await Get(
        Environment,
        EnvironmentRequest(
            address,
            request.python,
            interpreter,
            field_set.include_requirements.value,
            PexPlatforms.create_from_platforms_field(field_set.platforms),
            complete_platforms,
            ("--resolve-local-platforms",) if field_set.resolve_local_platforms.value else (),
        ),
    )
    objects = list(environment.objects)
    name = _program_name(address)
    sources = None
    if field_set.include_sources.value:
        found = await Get(Sources, SourcesRequest(address, constraints))
        if found.digest != EMPTY_DIGEST:
            sources = _sources_object(
                name, found.digest, address, environment.bytecode
            )
            objects.append(sources)

    main: Union[EntryPoint, EnvironmentScript, None] = None
    if field_set.script.value is not None:
        main = _script(field_set, field_set.script.value.name, environment)
    elif entry_point.val is not None:
        main = EntryPoint(entry_point.val.module, entry_point.val.function)
    venv = PexExecutionMode(field_set.execution_mode.value) is PexExecutionMode.VENV
    launcher = Launcher(
        f"{environment.path}/bin/python",
        sources.path if sources else None,
        main,
        tuple(field_set.args.value or ()),
        tuple(sorted((field_set.env.value or {}).items())),
        isolated=not (venv and field_set.venv_hermetic_scripts.value is False),
        for_children=venv,
        strip_pex_env=field_set.strip_env.value is not False,
    )
    digest = await Get(
        Digest,
        CreateDigest([FileContent(f"bin/{name}", launcher.text().encode(), is_executable=True)]),
    )
    program = replace(
        StoreObject.from_pants(
            name,
            digest,
            address,
            references=[environment.path, *([sources.path] if sources else [])],
        ),
        with_links=True,
    )
    return StoreClosure((program.path,), (*objects, program), program.path)


@rule(desc="Resolve Python code to store paths", level=LogLevel.DEBUG)
async def resolve_library(request: LibraryClosureRequest) -> StoreClosure:
    """The code at `lib/python3.X/site-packages`, with all that it needs, and its scripts at `bin`."""
    if request.python is None:
        return StoreClosure((), (), lacks_python=True)
    address = request.target.address
    constraints = await Get(InterpreterConstraints, InterpreterConstraintsRequest([address]))
    interpreter = _choose(request, constraints)
    environment = await Get(Environment, EnvironmentRequest(address, request.python, interpreter))
    objects = list(environment.objects)
    roots: List[str] = []
    own: Optional[str] = None
    found = await Get(Sources, SourcesRequest(address, constraints))
    if found.digest != EMPTY_DIGEST:
        placed = await Get(Digest, AddPrefix(found.digest, interpreter.site_packages))
        sources = _sources_object(_program_name(address), placed, address, None)
        objects.append(sources)
        roots.append(sources.path)
        own = sources.path
    if environment.installed:
        links: Dict[str, Union[SymlinkTo, Script, str]] = {
            path: SymlinkTo(f"{environment.path}/{path}") if isinstance(node, Script) else node
            for path, node in environment.tree
        }
        digest = await _write(links, "")
        library = StoreObject.from_pants(
            f"{_program_name(address)}-library",
            digest,
            address,
            references=[obj.path for obj in environment.objects],
        )
        objects.append(library)
        roots.append(library.path)
        own = own or library.path
    if not roots:
        raise DockerNixError(
            f"The target {address} has neither sources nor requirements, so it cannot be part of an "
            "image.\n\nRemove it from the 'contents' that list it."
        )
    return StoreClosure(tuple(roots), tuple(objects), own)


def rules() -> Iterable[object]:
    return (
        *collect_rules(),
        PexBinary.register_plugin_field(PythonLayeringField),
        UnionRule(StoreClosureRequest, PexClosureRequest),
        UnionRule(StoreClosureRequest, LibraryClosureRequest),
    )
