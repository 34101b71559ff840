"""The resolve step: addresses become store paths, by the resolver that fits each target."""

from __future__ import annotations

from typing import Iterable

from pants.engine.addresses import Addresses
from pants.engine.fs import Digest, DigestEntries, Directory, FileEntry, SymlinkEntry
from pants.engine.rules import Get, collect_rules, rule
from pants.engine.target import UnexpandedTargets
from pants.engine.unions import UnionMembership
from pants.util.logging import LogLevel

from docker_nix.errors import DockerNixError
from docker_nix.layer.links import Entry
from docker_nix.layer.tool_process import ArchiveIndexRequest
from docker_nix.resolve import files, packages
from docker_nix.resolve.nix import rules as nix
from docker_nix.resolve.python.distribution import Distribution
from docker_nix.resolve.python.types import DistributionRequest
from docker_nix.resolve.types import (
    WHEEL,
    Listing,
    ListingRequest,
    ResolveAddressRequest,
    StoreClosure,
    StoreClosureRequest,
)


@rule(desc="Resolve a target to store paths", level=LogLevel.DEBUG)
async def resolve_address(
    request: ResolveAddressRequest, union_membership: UnionMembership
) -> StoreClosure:
    (target,) = await Get(UnexpandedTargets, Addresses([request.address]))
    resolvers = sorted(
        (
            resolver
            for resolver in union_membership.get(StoreClosureRequest)
            if resolver.applies_to(target, union_membership)
        ),
        key=lambda resolver: resolver.order,
    )
    if not resolvers:
        raise DockerNixError(
            f"{request.origin[0].upper()}{request.origin[1:]} lists {request.address}, a "
            f"`{target.alias}` target, which cannot be turned into a store path.\n\n"
            "List file targets (`file`, `files`, `resources`, `relocated_files`), anything that "
            "`package` can build (such as a `pex_binary` that has the sources), a `nix_package`, "
            "or a `target` that groups them."
        )
    return await Get(StoreClosure, StoreClosureRequest, resolvers[0](target, request.python))


@rule(desc="List the files of a store path", level=LogLevel.DEBUG)
async def list_tree(request: ListingRequest) -> Listing:
    if request.nix:
        return Listing(request.nix.entries)
    if request.unpack and request.unpack.startswith(WHEEL):
        (archive,) = await Get(DigestEntries, Digest, request.digest)
        assert isinstance(archive, FileEntry)
        distribution = await Get(
            Distribution,
            DistributionRequest(archive.file_digest, request.unpack[len(WHEEL) :]),
        )
        return Listing(distribution.entries)
    if request.unpack:
        return await Get(
            Listing,
            ArchiveIndexRequest(request.digest, request.unpack, request.origin, request.hashes),
        )
    listed = []
    for entry in await Get(DigestEntries, Digest, request.digest):
        if isinstance(entry, FileEntry):
            kind = "x" if entry.is_executable else "f"
            file = entry.file_digest
            listed.append(
                Entry(
                    kind,
                    entry.path,
                    sha256=file.fingerprint,
                    size=file.serialized_bytes_length,
                )
            )
        elif isinstance(entry, SymlinkEntry):
            listed.append(Entry("l", entry.path, target=entry.target))
        elif isinstance(entry, Directory) and entry.path:
            listed.append(Entry("d", entry.path))
    return Listing(tuple(listed))


def rules() -> Iterable[object]:
    return (*collect_rules(), *files.rules(), *packages.rules(), *nix.rules())
