"""File targets as store paths: `file`, `files`, `resources`, `relocated_files`, codegen."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Dict, Iterable, Tuple

from pants.core.target_types import (
    FilesGeneratingSourcesField,
    FileSourceField,
    FileTarget,
    GenericTarget,
    RelocatedFilesOriginalTargetsField,
    ResourcesGeneratingSourcesField,
    ResourceSourceField,
    ResourceTarget,
)
from pants.engine.addresses import Address, Addresses, UnparsedAddressInputs
from pants.engine.fs import (
    CreateDigest,
    Digest,
    DigestEntries,
    FileEntry,
    RemovePrefix,
)
from pants.engine.internals.native_engine import IntrinsicError
from pants.engine.internals.target_adaptor import TargetAdaptor, TargetAdaptorRequest
from pants.engine.rules import Get, MultiGet, collect_rules, rule
from pants.engine.target import (
    Dependencies,
    DependenciesRequest,
    GenerateSourcesRequest,
    HydratedSources,
    HydrateSourcesRequest,
    InferDependenciesRequest,
    InvalidFieldException,
    MultipleSourcesField,
    SourcesField,
    SourcesPaths,
    SourcesPathsRequest,
    Target,
    TargetFilesGenerator,
    Targets,
    UnexpandedTargets,
)
from pants.engine.unions import UnionMembership, UnionRule
from pants.source.source_root import SourceRoot, SourceRootRequest
from pants.util.logging import LogLevel

from docker_nix.errors import DockerNixError, field_error
from docker_nix.resolve import lost_sources
from docker_nix.resolve.lost_sources import LostSources, LostSourcesRequest
from docker_nix.resolve.types import (
    ResolveAddressRequest,
    StoreClosure,
    StoreClosureRequest,
    StoreObject,
    archive_format,
)

SOURCE_FIELDS = (FileSourceField, ResourceSourceField)
_GENERATOR_FIELDS = (FilesGeneratingSourcesField, ResourcesGeneratingSourcesField)


@dataclass(frozen=True)
class FilesClosureRequest(StoreClosureRequest):
    @classmethod
    def applies_to(cls, target: Target, union_membership: UnionMembership) -> bool:
        if any(target.has_field(field) for field in (*SOURCE_FIELDS, *_GENERATOR_FIELDS)):
            return True
        return any(
            issubclass(request.output, SOURCE_FIELDS) and target.has_field(request.input)
            for request in union_membership.get(GenerateSourcesRequest)
        )


@dataclass(frozen=True)
class GroupClosureRequest(StoreClosureRequest):
    """A `target`, which stands for its dependencies."""

    @classmethod
    def applies_to(cls, target: Target, union_membership: UnionMembership) -> bool:
        return isinstance(target, GenericTarget)


def _unreadable(target: Target, error: Exception) -> DockerNixError:
    reason = re.sub(r".*Throw { val: (.*?), python_traceback: .*", r"\1", str(error), flags=re.S)
    remedy = "Check its 'sources', and that this user may read them."
    if "Absolute symlink" in str(error):
        remedy = (
            "Pants follows symlinks among sources, but no absolute ones. Make it relative, or "
            "ignore it with `pants_ignore`. To have such a symlink in an image, put it into an "
            "archive, or make it with `extra_commands`."
        )
    return DockerNixError(
        f"The sources of target {target.address} cannot be read: {reason}\n\n{remedy}"
    )


async def _with_dependencies(target: Target, union_membership: UnionMembership) -> Targets:
    """The targets that `target` stands for, as far as they can have dependencies.

    A `files` target may stand for thousands, which Pants takes its time to make; they have
    dependencies only if its own fields or an inference of another backend say so.
    """
    if isinstance(target, TargetFilesGenerator):
        declared = await Get(
            TargetAdaptor,
            TargetAdaptorRequest(
                target.address.maybe_convert_to_target_generator(),
                description_of_origin=f"the target {target.address}",
            ),
        )
        inferred = any(
            target.generated_target_cls.class_has_fields(
                request.infer_from.required_fields, union_membership  # type: ignore[misc]
            )
            for request in union_membership.get(InferDependenciesRequest)
        )
        if not inferred and not {"dependencies", "overrides"} & set(declared.kwargs):
            return Targets()
    try:
        return await Get(Targets, Addresses([target.address]))
    except InvalidFieldException as e:
        raise _unreadable(target, e) from e


@dataclass(frozen=True)
class FollowedRequest:
    """A request for the targets that go into an image because `target` does."""

    target: Target


@dataclass(frozen=True)
class Followed:
    addresses: Tuple[Address, ...]


@rule
async def followed_dependencies(
    request: FollowedRequest, union_membership: UnionMembership
) -> Followed:
    target = request.target
    if FilesClosureRequest.applies_to(target, union_membership):
        members = await _with_dependencies(target, union_membership)
    elif GroupClosureRequest.applies_to(target, union_membership):
        members = Targets([target])
    else:
        return Followed(())
    found = await MultiGet(
        Get(Addresses, DependenciesRequest(member.get(Dependencies))) for member in members
    )
    own = {target.address, *(member.address for member in members)}
    return Followed(tuple(dict.fromkeys(a for deps in found for a in deps if a not in own)))


@dataclass(frozen=True)
class NoCycleRequest:
    """A request to make sure that no resolver that starts at `addresses` comes back to a target."""

    addresses: Tuple[Address, ...]


@dataclass(frozen=True)
class NoCycle:
    pass


@rule
async def find_cycle(request: NoCycleRequest) -> NoCycle:
    followed: Dict[Address, Tuple[Address, ...]] = {}
    level = request.addresses
    while level:
        targets = await Get(UnexpandedTargets, Addresses(level))
        found = await MultiGet(Get(Followed, FollowedRequest(target)) for target in targets)
        for target, one in zip(targets, found):
            followed[target.address] = one.addresses
        level = tuple(dict.fromkeys(a for one in found for a in one.addresses if a not in followed))
    try:
        TopologicalSorter(followed).prepare()
    except CycleError as e:
        cycle = " -> ".join(str(address) for address in reversed(e.args[1]))
        raise DockerNixError(
            f"The 'dependencies' of file targets form a cycle: {cycle}.\n\nRemove one of these "
            "dependencies; list both targets in a `target` to put them into an image together."
        ) from e
    return NoCycle()


async def _dependencies(request: StoreClosureRequest) -> StoreClosure:
    followed = await Get(Followed, FollowedRequest(request.target))
    origin = f"the 'dependencies' field in target {request.target.address}"
    closures = await MultiGet(
        Get(StoreClosure, ResolveAddressRequest(a, origin, request.python))
        for a in followed.addresses
    )
    return StoreClosure.merge(closures)


async def _no_lost_sources(target: Target) -> None:
    """Raises where the `sources` of a target match what Pants does not find."""
    field = target.get(MultipleSourcesField)
    found = await Get(SourcesPaths, SourcesPathsRequest(field))
    lost = (await Get(LostSources, LostSourcesRequest(field, found.files))).descriptions
    if lost:
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        raise field_error(
            target.address,
            field.alias,
            f"matches what Pants does not take as a source: {', '.join(lost[:3])}{more}.",
            "Remove it, or leave it out with a pattern that begins with '!'. To have such a "
            "symlink in an image, put it into an archive, or make it with `extra_commands`.",
        )
    spec_path = target.address.spec_path
    for pattern in field.globs:
        path = os.path.join(spec_path, pattern)
        if not set("!*?[") & set(pattern) and path not in found.files:
            raise field_error(
                target.address,
                field.alias,
                f"has {pattern!r}, but there is no file {path!r}.",
                "Create the file, check that Pants does not ignore it (`pants_ignore`, "
                "`.gitignore`), or remove it from the field.",
            )


@rule(desc="Resolve files to a store path", level=LogLevel.DEBUG)
async def resolve_files(request: FilesClosureRequest) -> StoreClosure:
    target = request.target
    generates = any(target.has_field(field) for field in _GENERATOR_FIELDS)
    # All sources of a generator at once: one by one, thousands of files would take minutes.
    types = (SourcesField,) if generates else SOURCE_FIELDS
    try:
        sources, root = await MultiGet(
            Get(
                HydratedSources,
                HydrateSourcesRequest(
                    target.get(SourcesField), for_sources_types=types, enable_codegen=not generates
                ),
            ),
            Get(SourceRoot, SourceRootRequest, SourceRootRequest.for_address(target.address)),
        )
    except IntrinsicError as e:
        raise _unreadable(target, e) from e
    originals = Targets([target])
    if target.has_field(RelocatedFilesOriginalTargetsField):
        addresses = await Get(
            Addresses,
            UnparsedAddressInputs,
            target[RelocatedFilesOriginalTargetsField].to_unparsed_address_inputs(),
        )
        originals = Targets(await Get(UnexpandedTargets, Addresses, addresses))
    for original in originals:
        if any(original.has_field(field) for field in _GENERATOR_FIELDS):
            await _no_lost_sources(original)
    tree = sources.snapshot.digest
    is_resource = target.has_field(ResourcesGeneratingSourcesField) or (
        sources.sources_type and issubclass(sources.sources_type, ResourceSourceField)
    )
    if is_resource and root.path != ".":
        tree = await Get(Digest, RemovePrefix(tree, root.path))
    entries = await Get(DigestEntries, Digest, tree)
    if not entries:
        raise DockerNixError(
            f"The target {target.address} has no files, so it cannot be part of an image.\n\n"
            "Check its sources, or remove it from the 'contents' that list it."
        )

    unpack = None
    if isinstance(target, (FileTarget, ResourceTarget)) and isinstance(entries[0], FileEntry):
        unpack = archive_format(entries[0].path)
        if unpack:
            tree = await Get(Digest, CreateDigest([FileEntry("archive", entries[0].file_digest)]))
    name = target.address.generated_name or target.address.target_name
    own = StoreObject.from_pants(name.rpartition("/")[2], tree, target.address, unpack=unpack)
    # A dependency is no reference: its path is not in these bytes, so a change of it must not
    # change this store path. It is needed at run time, so it appears at `/` as well.
    dependencies = await _dependencies(request)
    return StoreClosure.merge([StoreClosure.single(own), dependencies], own.path)


@rule(desc="Resolve a group of targets to store paths", level=LogLevel.DEBUG)
async def resolve_group(request: GroupClosureRequest) -> StoreClosure:
    return await _dependencies(request)


def rules() -> Iterable[object]:
    return (
        *collect_rules(),
        *lost_sources.rules(),
        UnionRule(StoreClosureRequest, FilesClosureRequest),
        UnionRule(StoreClosureRequest, GroupClosureRequest),
    )
