"""All store paths of an image: those of its `contents`, and those its config and script name."""

from __future__ import annotations

from dataclasses import dataclass
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
    RunAsRootField,
)
from docker_nix.layer.links import unfit_entry
from docker_nix.resolve.files import NoCycle, NoCycleRequest
from docker_nix.resolve.references import Reference, references
from docker_nix.resolve.types import (
    Listing,
    ListingRequest,
    ResolveAddressRequest,
    StoreClosure,
)


@dataclass(frozen=True)
class ImageContentsRequest:
    """The fields of an image target that name other targets."""

    contents: ContentsField
    config: ImageConfigField
    extra_commands: ExtraCommandsField
    run_as_root: Optional[RunAsRootField] = None

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


async def _closures(owner: Address, named: _NamedAddresses) -> Dict[str, StoreClosure]:
    closures = await MultiGet(
        Get(
            StoreClosure,
            ResolveAddressRequest(address, f"the '{named.alias}' field in target {owner}"),
        )
        for address in named.addresses.values()
    )
    for address, closure in zip(named.addresses.values(), closures):
        if closure.own is None:
            raise field_error(
                owner,
                named.alias,
                f"refers to {{store_path[{address}]}}, a group of targets without a store path of "
                "its own.",
                "Refer to one of the targets in the group.",
            )
    return dict(zip(named.addresses, closures))


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
    fields = {
        "contents": contents,
        "config": in_config.addresses.values(),
        "extra_commands": in_script.addresses.values(),
        "run_as_root": in_root.addresses.values(),
    }
    everything = {address for addresses in fields.values() for address in addresses}
    if owner in everything:
        field = next(name for name, addresses in fields.items() if owner in addresses)
        raise field_error(
            owner, field, "names the target itself.", "Remove it: an image cannot hold itself."
        )
    await Get(NoCycle, NoCycleRequest(tuple(sorted(everything))))

    try:
        listed = await MultiGet(
            Get(StoreClosure, ResolveAddressRequest(a, f"the 'contents' field in target {owner}"))
            for a in contents
        )
        by_config = await _closures(owner, in_config)
        by_script = await _closures(owner, in_script)
        by_root = await _closures(owner, in_root)
    except IntrinsicError as e:
        if "contained a cycle" not in str(e):
            raise
        raise DockerNixError(
            f"The target {owner} depends on itself: a package among its contents has it packed "
            "inside.\n\nRemove it from that package, or that package from the contents."
        ) from e
    visible = StoreClosure.merge(listed)
    referred = StoreClosure.merge([*by_config.values(), *by_script.values(), *by_root.values()])
    closure = StoreClosure(visible.roots, StoreClosure.merge([visible, referred]).objects)

    listings = await MultiGet(
        Get(
            Listing,
            ListingRequest(obj.digest, obj.unpack, obj.origin if obj.unpack else None, nix=obj.nix),
        )
        for obj in closure.objects
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
    )
    return InferredDependencies(address for one in named for address in one.addresses.values())


def rules() -> Iterable[object]:
    return (
        *collect_rules(),
        UnionRule(InferDependenciesRequest, InferReferencedTargets),
    )
