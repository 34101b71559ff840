"""All store paths of an image: those of its `contents`, and those its config and script name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Dict, Iterable, List, Optional, Union

from pants.engine.addresses import Address, Addresses, UnparsedAddressInputs
from pants.engine.internals.native_engine import IntrinsicError
from pants.engine.rules import Get, MultiGet, collect_rules, rule
from pants.engine.target import (
    FieldSet,
    InferDependenciesRequest,
    InferredDependencies,
)
from pants.engine.unions import UnionRule
from pants.util.frozendict import FrozenDict
from pants.util.logging import LogLevel

from docker_nix.errors import DockerNixError, field_error
from docker_nix.image_fields import (
    ContentsField,
    ExtraCommandsField,
    ImageConfigField,
    PythonInterpreterField,
    RunAsRootField,
)
from docker_nix.layer.links import unfit_entry
from docker_nix.resolve.files import NoCycle, NoCycleRequest
from docker_nix.resolve.python.interpreter import Interpreter, interpreters_among, version_of
from docker_nix.resolve.python.types import ImagePython
from docker_nix.resolve.references import Reference, fill, references
from docker_nix.resolve.types import (
    Listing,
    ListingRequest,
    ResolveAddressRequest,
    StoreClosure,
)


@dataclass(frozen=True)
class ImageContentsRequest:
    """The fields of an image target that name other targets.

    :param python: with the interpreters of the base image, or the one of the field.
    """

    contents: ContentsField
    config: ImageConfigField
    extra_commands: ExtraCommandsField
    run_as_root: Optional[RunAsRootField]
    python_interpreter: PythonInterpreterField
    python: ImagePython

    @property
    def address(self) -> Address:
        return self.contents.address


@dataclass(frozen=True)
class ImageContents:
    """The store paths of an image.

    :param closure: all of them; its `roots` are what appears at `/`.
    :param listings: the entries of each root.
    :param config_paths: the store path of each address that the config names, as spelled there.
    :param script_paths: those of the addresses that `extra_commands` names, likewise.
    :param script_closure: the store paths that `extra_commands` may read.
    :param root_paths: those of the addresses that `run_as_root` names.
    """

    closure: StoreClosure
    listings: FrozenDict[str, Listing]
    config_paths: FrozenDict[str, str]
    script_paths: FrozenDict[str, str]
    script_closure: StoreClosure
    root_paths: FrozenDict[str, str]


@dataclass(frozen=True)
class _NamedAddresses:
    """The addresses that one field refers to, by their spelling."""

    alias: str
    addresses: FrozenDict[str, Address]


def _config_references(config: ImageConfigField) -> List[Reference]:
    return [ref for parts in config.parts() for ref in references(parts)]


def _script_references(script: Union[ExtraCommandsField, RunAsRootField, None]) -> List[Reference]:
    return list(references(script.parts())) if script else []


async def _addresses(owner: Address, alias: str, refs: List[Reference]) -> _NamedAddresses:
    unique = {ref.address: ref for ref in refs}
    found = await MultiGet(
        Get(
            Addresses,
            UnparsedAddressInputs(
                (ref.address,),
                owning_address=owner,
                description_of_origin=(
                    f"the '{alias}' field in target {owner}, {{store_path[…]}} at {ref.place}"
                ),
            ),
        )
        for ref in unique.values()
    )
    return _NamedAddresses(
        alias, FrozenDict({spelled: one[0] for spelled, one in zip(unique, found)})
    )


async def _closures(
    owner: Address, named: _NamedAddresses, python: Optional[ImagePython]
) -> Dict[str, StoreClosure]:
    origin = f"the '{named.alias}' field in target {owner}"
    closures = await MultiGet(
        Get(StoreClosure, ResolveAddressRequest(address, origin, python))
        for address in named.addresses.values()
    )
    for address, closure in zip(named.addresses.values(), closures):
        if closure.own is None and not closure.lacks_python:
            raise field_error(
                owner,
                named.alias,
                f"refers to {{store_path[{address}]}}, a group of targets without a store path of "
                "its own.",
                "Refer to one of the targets in the group.",
            )
    return dict(zip(named.addresses, closures))


async def _image_python(
    request: ImageContentsRequest,
    without_python: Iterable[StoreClosure],
    named: Dict[str, StoreClosure],
) -> ImagePython:
    """The Python of the image, which may be one of the contents.

    :param without_python: what is in the image besides Python targets.
    :param named: the closures of the addresses that the field refers to.
    """
    field, python = request.python_interpreter, request.python
    architecture = python.platform.architecture
    if field.value is not None:
        if python.interpreters:  # it is in the base image
            return python
        path = fill(field.parts(), _own_paths(named).__getitem__)
        version = version_of(path)
        if version is None:
            raise field_error(
                request.address,
                field.alias,
                f"is {field.value!r}, which does not say its version.",
                "Let it end in 'python3.11' or the like.",
            )
        store_path = next(
            (c.own for c in named.values() if c.own and path.startswith(f"{c.own}/")), None
        )
        return replace(
            python,
            interpreters=(Interpreter(path, version, architecture, store_path=store_path),),
        )
    closure = StoreClosure.merge(without_python)
    objects = [obj for obj in closure.objects if obj.path in closure.roots]
    listings = await MultiGet(
        Get(Listing, ListingRequest, ListingRequest.of(obj)) for obj in objects
    )
    found = interpreters_among(
        (
            (obj.path, [entry.path for entry in listing.entries])
            for obj, listing in zip(objects, listings)
        ),
        architecture,
    )
    return replace(python, interpreters=(*found, *python.interpreters))


def _own_paths(closures: Dict[str, StoreClosure]) -> FrozenDict[str, str]:
    return FrozenDict({spelled: closure.own or "" for spelled, closure in closures.items()})


@rule(desc="Resolve the contents of an image", level=LogLevel.DEBUG)
async def resolve_image_contents(request: ImageContentsRequest) -> ImageContents:
    owner = request.address
    contents = await Get(
        Addresses, UnparsedAddressInputs, request.contents.to_unparsed_address_inputs()
    )
    in_config = await _addresses(owner, "config", _config_references(request.config))
    in_script = await _addresses(
        owner, "extra_commands", _script_references(request.extra_commands)
    )
    in_root = await _addresses(owner, "run_as_root", _script_references(request.run_as_root))
    in_python = await _addresses(
        owner, "python_interpreter", list(references(request.python_interpreter.parts()))
    )
    fields = {
        "contents": contents,
        "config": in_config.addresses.values(),
        "extra_commands": in_script.addresses.values(),
        "run_as_root": in_root.addresses.values(),
        "python_interpreter": in_python.addresses.values(),
    }
    everything = {address for addresses in fields.values() for address in addresses}
    if owner in everything:
        field = next(name for name, addresses in fields.items() if owner in addresses)
        raise field_error(
            owner, field, "names the target itself.", "Remove it: an image cannot hold itself."
        )
    await Get(NoCycle, NoCycleRequest(tuple(sorted(everything))))

    python: Optional[ImagePython] = None
    origin = f"the 'contents' field in target {owner}"
    try:
        by_python = await _closures(owner, in_python, None)
        while True:
            listed = await MultiGet(
                Get(StoreClosure, ResolveAddressRequest(address, origin, python))
                for address in contents
            )
            by_config = await _closures(owner, in_config, python)
            by_script = await _closures(owner, in_script, python)
            by_root = await _closures(owner, in_root, python)
            referred = [*by_config.values(), *by_script.values(), *by_root.values()]
            if python or not any(closure.lacks_python for closure in (*listed, *referred)):
                break
            python = await _image_python(request, listed, by_python)
    except IntrinsicError as e:
        if "contained a cycle" not in str(e):
            raise
        raise DockerNixError(
            f"The target {owner} depends on itself: a package among its contents has it packed "
            "inside.\n\nRemove it from that package, or that package from the contents."
        ) from e
    visible = StoreClosure.merge(listed)
    everywhere = StoreClosure.merge([visible, *referred, *by_python.values()])
    closure = StoreClosure(visible.roots, everywhere.objects)

    listings = await MultiGet(
        Get(Listing, ListingRequest, ListingRequest.of(obj)) for obj in closure.objects
    )
    roots = set(closure.roots)
    for obj, listing in zip(closure.objects, listings):
        # Only a path of a Nix store can be a file or a symlink itself.
        itself = next((entry.what for entry in listing.entries if not entry.path), None)
        if itself and obj.path in roots:
            raise field_error(
                owner,
                "contents",
                f"has {obj.origin}, which is {itself}, not a directory, so that nothing of it can "
                "appear at /.",
                f"Refer to it with {{store_path[{obj.origin}]}} in 'config', or have it built into "
                "a directory.",
            )
        problem = unfit_entry(obj.path, listing.entries, obj.path in roots)
        if problem:
            raise field_error(
                owner,
                "contents",
                f"has {obj.origin}, which {problem}.",
                "Rename it, or leave it out of that target.",
            )
    return ImageContents(
        closure,
        FrozenDict(
            {
                obj.path: listing
                for obj, listing in zip(closure.objects, listings)
                if obj.path in roots
            }
        ),
        _own_paths(by_config),
        _own_paths(by_script),
        StoreClosure.merge(by_script.values()),
        _own_paths(by_root),
    )


@dataclass(frozen=True)
class ReferencesFieldSet(FieldSet):
    required_fields = (ImageConfigField, ExtraCommandsField)

    config: ImageConfigField
    extra_commands: ExtraCommandsField
    run_as_root: RunAsRootField
    python_interpreter: PythonInterpreterField


class InferReferencedTargets(InferDependenciesRequest):
    infer_from = ReferencesFieldSet


@rule(desc="Infer dependencies from store path references", level=LogLevel.DEBUG)
async def infer_referenced_targets(request: InferReferencedTargets) -> InferredDependencies:
    fields: ReferencesFieldSet = request.field_set
    named = (
        await _addresses(fields.address, "config", _config_references(fields.config)),
        await _addresses(
            fields.address, "extra_commands", _script_references(fields.extra_commands)
        ),
        await _addresses(fields.address, "run_as_root", _script_references(fields.run_as_root)),
        await _addresses(
            fields.address,
            "python_interpreter",
            list(references(fields.python_interpreter.parts())),
        ),
    )
    return InferredDependencies(address for one in named for address in one.addresses.values())


def rules() -> Iterable[object]:
    return (
        *collect_rules(),
        UnionRule(InferDependenciesRequest, InferReferencedTargets),
    )
