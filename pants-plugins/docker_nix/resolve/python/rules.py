"""Python targets as store paths: one per distribution, for the sources, and for the program."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import ClassVar, Iterable, Optional, Sequence, Union

from pants.backend.python import target_types_rules
from pants.backend.python.goals.package_pex_binary import PexBinaryFieldSet
from pants.backend.python.target_types import (
    PexBinary,
    PexCompletePlatformsField,
    PexEntryPointField,
    PexExecutionMode,
    PythonGeneratingSourcesBase,
    PythonProvidesField,
    PythonRequirementsField,
    PythonSourceField,
    ResolvedPexEntryPoint,
    ResolvePexEntryPointRequest,
)
from pants.backend.python.util_rules import pex_from_targets
from pants.backend.python.util_rules.interpreter_constraints import InterpreterConstraints
from pants.backend.python.util_rules.local_dists import LocalDistsPex, LocalDistsPexRequest
from pants.backend.python.util_rules.pex import CompletePlatforms, PexPlatforms
from pants.backend.python.util_rules.pex_from_targets import (
    InterpreterConstraintsRequest,
)
from pants.backend.python.util_rules.python_sources import (
    PythonSourceFiles,
    PythonSourceFilesRequest,
    StrippedPythonSourceFiles,
)
from pants.core.target_types import FileSourceField
from pants.core.util_rules.environments import EnvironmentNameRequest
from pants.engine.addresses import Address, Addresses
from pants.engine.environment import EnvironmentName
from pants.engine.fs import (
    EMPTY_DIGEST,
    AddPrefix,
    CreateDigest,
    Digest,
    FileContent,
)
from pants.engine.rules import Get, MultiGet, collect_rules, rule
from pants.engine.target import (
    Target,
    TransitiveTargets,
    TransitiveTargetsRequest,
)
from pants.engine.unions import UnionMembership, UnionRule
from pants.util.logging import LogLevel

from docker_nix.errors import DockerNixError, field_error
from docker_nix.resolve import store_path
from docker_nix.resolve.packages import PackageClosureRequest
from docker_nix.resolve.python import environment_rules
from docker_nix.resolve.python.environment import Script
from docker_nix.resolve.python.environment_rules import Environment, EnvironmentRequest, tree_of
from docker_nix.resolve.python.fields import PythonLayering, PythonLayeringField
from docker_nix.resolve.python.interpreter import Interpreter
from docker_nix.resolve.python.launcher import EntryPoint, EnvironmentScript, Launcher
from docker_nix.resolve.types import (
    Bytecode,
    StoreClosure,
    StoreClosureRequest,
    StoreObject,
)
from docker_nix.subsystem import DockerNixSubsystem

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PexClosureRequest(StoreClosureRequest):
    order: ClassVar[int] = 40

    @classmethod
    def applies_to(cls, target: Target, union_membership: UnionMembership) -> bool:
        return target.has_field(PexEntryPointField)


@dataclass(frozen=True)
class LibraryClosureRequest(StoreClosureRequest):
    """Python code that is no program: sources, requirements, and local distributions."""

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
class SourcesRequest:
    """A request for the first-party sources that a target needs, for one interpreter."""

    address: Address
    constraints: InterpreterConstraints


@dataclass(frozen=True)
class Sources:
    """Their tree, as it goes onto `sys.path`; empty without sources."""

    digest: Digest


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


def _sources_object(digest: Digest, origin: Address, bytecode: Optional[Bytecode]) -> StoreObject:
    # The same name for all: programs that have the same sources share them.
    plain = StoreObject.from_pants("python-sources", digest, origin)
    if bytecode is None:
        return plain
    path = store_path.input_addressed_path(
        plain.base_name.partition("-")[2],
        digest.fingerprint,
        digest.serialized_bytes_length,
        kind=f"compiled:{bytecode.compiler}",
    )
    return replace(plain, path=path, bytecode=bytecode)


def _no_python(request: StoreClosureRequest, problem: str) -> DockerNixError:
    owner = request.python.owner if request.python else None
    return DockerNixError(
        f"The image {owner} has {request.target.address}, a `{request.target.alias}` target, "
        f"{problem}\n\nBuild it on a base image with such a Python ('from_image'), list one among "
        "the contents (a `nix_package`), or say where it is with 'python_interpreter'. A "
        "`pex_binary` can also go in as one file, whatever the image has, with "
        'python_layering="binary".'
    )


def _allow(constraints: InterpreterConstraints, version: str) -> bool:
    try:
        constraints.partition_into_major_minor_versions([version])
    except ValueError:  # none is left
        return False
    return True


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
        if _allow(constraints, candidate.version):
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


def _script(
    field_set: PexBinaryFieldSet, name: str, environment: Environment
) -> Union[EntryPoint, EnvironmentScript]:
    for one in environment.installed:
        text = dict(one.distribution.console_scripts).get(name)
        if text:
            module, _, function = text.partition("[")[0].strip().partition(":")
            return EntryPoint(module.strip(), function.strip() or None)
    node = dict(environment.tree).get(f"bin/{name}")
    if node is not None:
        return EnvironmentScript(f"{environment.own.path}/bin/{name}", isinstance(node, Script))
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
    build = await Get(
        EnvironmentName, EnvironmentNameRequest, EnvironmentNameRequest.from_target(target)
    )
    environment = await Get(
        Environment,
        EnvironmentRequest(
            address,
            build,
            request.python,
            interpreter,
            field_set.include_requirements.value,
            PexPlatforms.create_from_platforms_field(field_set.platforms),
            complete_platforms,
            ("--resolve-local-platforms",) if field_set.resolve_local_platforms.value else (),
        ),
    )
    objects = [*environment.distributions, environment.own]
    name = _program_name(address)
    sources = None
    if field_set.include_sources.value:
        found = await Get(
            Sources, {SourcesRequest(address, constraints): SourcesRequest, build: EnvironmentName}
        )
        if found.digest != EMPTY_DIGEST:
            sources = _sources_object(found.digest, address, environment.bytecode)
            objects.append(sources)

    main: Union[EntryPoint, EnvironmentScript, None] = None
    if field_set.script.value is not None:
        main = _script(field_set, field_set.script.value.name, environment)
    elif entry_point.val is not None:
        main = EntryPoint(entry_point.val.module, entry_point.val.function)
    venv = PexExecutionMode(field_set.execution_mode.value) is PexExecutionMode.VENV
    launcher = Launcher(
        f"{environment.own.path}/bin/python",
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
            references=[environment.own.path, *([sources.path] if sources else [])],
        ),
        with_links=True,
    )
    return StoreClosure((program.path,), (*objects, program), program.path)


@rule(desc="Resolve Python code to store paths", level=LogLevel.DEBUG)
async def resolve_library(request: LibraryClosureRequest) -> StoreClosure:
    """The code with all that it needs: at `lib/python3.X/site-packages`, and scripts at `bin`.

    There is no environment: what is listed together is to be used together, by a `PYTHONPATH`.
    """
    if request.python is None:
        return StoreClosure((), (), lacks_python=True)
    address = request.target.address
    constraints = await Get(InterpreterConstraints, InterpreterConstraintsRequest([address]))
    interpreter = _choose(request, constraints)
    build = await Get(
        EnvironmentName, EnvironmentNameRequest, EnvironmentNameRequest.from_target(request.target)
    )
    environment = await Get(
        Environment, EnvironmentRequest(address, build, request.python, interpreter)
    )
    objects = list(environment.distributions)
    found = await Get(
        Sources, {SourcesRequest(address, constraints): SourcesRequest, build: EnvironmentName}
    )
    sources = found.digest != EMPTY_DIGEST
    if sources:
        placed = await Get(Digest, AddPrefix(found.digest, interpreter.site_packages))
        objects.insert(0, _sources_object(placed, address, None))
    scripts = {
        path: node
        for path, node in environment.tree
        if path.startswith("bin/") and isinstance(node, Script)
    }
    if scripts:
        digest = await Get(Digest, CreateDigest, tree_of(scripts, interpreter.path))
        in_store = [interpreter.store_path] if interpreter.store_path else []
        objects.append(
            StoreObject.from_pants("python-scripts", digest, address, references=in_store)
        )
    roots = [obj.path for obj in objects]
    if not roots:
        raise DockerNixError(
            f"The target {address} has neither sources nor requirements, so it cannot be part of "
            "an image.\n\nRemove it from the 'contents' that list it."
        )
    return StoreClosure(
        tuple(roots), tuple(objects), roots[0] if len(roots) == 1 or sources else None
    )


def rules() -> Iterable[object]:
    return (
        *collect_rules(),
        # For repositories that do not have the Python backend.
        *pex_from_targets.rules(),
        *target_types_rules.rules(),
        *environment_rules.rules(),
        PexBinary.register_plugin_field(PythonLayeringField),
        UnionRule(StoreClosureRequest, PexClosureRequest),
        UnionRule(StoreClosureRequest, LibraryClosureRequest),
    )
