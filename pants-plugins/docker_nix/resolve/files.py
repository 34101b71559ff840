"""File targets as store paths: `file`, `files`, `resource`, `resources`, `relocated_files`, codegen."""

from __future__ import annotations

from dataclasses import dataclass

from pants.core.target_types import (
    FilesGeneratingSourcesField,
    FileSourceField,
    FileTarget,
    GenericTarget,
    ResourcesGeneratingSourcesField,
    ResourceSourceField,
    ResourceTarget,
)
from pants.engine.addresses import Addresses
from pants.engine.fs import CreateDigest, Digest, DigestEntries, FileEntry, MergeDigests, RemovePrefix
from pants.engine.rules import Get, MultiGet, collect_rules, rule
from pants.engine.target import (
    Dependencies,
    DependenciesRequest,
    GenerateSourcesRequest,
    HydratedSources,
    HydrateSourcesRequest,
    SourcesField,
    Target,
    Targets,
)
from pants.engine.unions import UnionMembership, UnionRule
from pants.source.source_root import SourceRoot, SourceRootRequest
from pants.util.logging import LogLevel

from docker_nix.errors import DockerNixError
from docker_nix.resolve.types import (
    ResolveAddressRequest,
    StoreClosure,
    StoreClosureRequest,
    StoreObject,
    archive_format,
)

_SOURCE_FIELDS = (FileSourceField, ResourceSourceField)


@dataclass(frozen=True)
class FilesClosureRequest(StoreClosureRequest):
    @classmethod
    def applies_to(cls, target: Target, union_membership: UnionMembership) -> bool:
        if any(
            target.has_field(field)
            for field in (
                *_SOURCE_FIELDS,
                FilesGeneratingSourcesField,
                ResourcesGeneratingSourcesField,
            )
        ):
            return True
        return any(
            issubclass(request.output, _SOURCE_FIELDS) and target.has_field(request.input)
            for request in union_membership.get(GenerateSourcesRequest)
        )


@dataclass(frozen=True)
class GroupClosureRequest(StoreClosureRequest):
    """A `target`, which stands for its dependencies."""

    @classmethod
    def applies_to(cls, target: Target, union_membership: UnionMembership) -> bool:
        return isinstance(target, GenericTarget)


async def _dependencies(target: Target, members: Targets) -> StoreClosure:
    found = await MultiGet(
        Get(Addresses, DependenciesRequest(member.get(Dependencies))) for member in members
    )
    own = {target.address, *(member.address for member in members)}
    addresses = dict.fromkeys(a for addresses in found for a in addresses if a not in own)
    closures = await MultiGet(
        Get(
            StoreClosure,
            ResolveAddressRequest(a, f"the 'dependencies' field in target {target.address}"),
        )
        for a in addresses
    )
    return StoreClosure.merge(closures)


@rule(desc="Resolve files to a store path", level=LogLevel.DEBUG)
async def resolve_files(request: FilesClosureRequest) -> StoreClosure:
    target = request.target
    members = await Get(Targets, Addresses([target.address]))
    hydrated = await MultiGet(
        Get(
            HydratedSources,
            HydrateSourcesRequest(
                member.get(SourcesField), for_sources_types=_SOURCE_FIELDS, enable_codegen=True
            ),
        )
        for member in members
    )
    roots = await MultiGet(
        Get(SourceRoot, SourceRootRequest, SourceRootRequest.for_address(member.address))
        for member in members
    )
    digests = []
    for sources, root in zip(hydrated, roots):
        digest = sources.snapshot.digest
        is_resource = sources.sources_type and issubclass(sources.sources_type, ResourceSourceField)
        if is_resource and root.path != ".":
            digest = await Get(Digest, RemovePrefix(digest, root.path))
        digests.append(digest)
    tree = await Get(Digest, MergeDigests(digests))
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
            tree = await Get(
                Digest, CreateDigest([FileEntry("archive", entries[0].file_digest)])
            )
    name = target.address.generated_name or target.address.target_name
    own = StoreObject.from_pants(name.rpartition("/")[2], tree, target.address, unpack=unpack)
    # A dependency is no reference: its path is not in these bytes, so a change of it must not
    # change this store path. It is needed at run time, so it appears at `/` as well.
    dependencies = await _dependencies(target, members)
    return StoreClosure.merge([StoreClosure.single(own), dependencies], own.path)


@rule(desc="Resolve a group of targets to store paths", level=LogLevel.DEBUG)
async def resolve_group(request: GroupClosureRequest) -> StoreClosure:
    return await _dependencies(request.target, Targets([request.target]))


def rules():
    return (
        *collect_rules(),
        UnionRule(StoreClosureRequest, FilesClosureRequest),
        UnionRule(StoreClosureRequest, GroupClosureRequest),
    )
