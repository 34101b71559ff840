"""Anything that `package` builds, as a store path."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import ClassVar, Iterable, List, Sequence, Union

from pants.core.goals.package import BuiltPackage, EnvironmentAwarePackageRequest, PackageFieldSet
from pants.engine.fs import (
    CreateDigest,
    Digest,
    DigestEntries,
    Directory,
    FileEntry,
    SymlinkEntry,
)
from pants.engine.rules import Get, MultiGet, collect_rules, rule
from pants.engine.target import FieldSetsPerTarget, FieldSetsPerTargetRequest, Target
from pants.engine.unions import UnionMembership, UnionRule
from pants.util.logging import LogLevel

from docker_nix.base_fields import PullImageDigestField
from docker_nix.errors import DockerNixError
from docker_nix.image_fields import ContentsField
from docker_nix.resolve.types import (
    StoreClosure,
    StoreClosureRequest,
    StoreObject,
    archive_format,
)

TreeEntry = Union[FileEntry, SymlinkEntry, Directory]


@dataclass(frozen=True)
class PackageClosureRequest(StoreClosureRequest):
    order: ClassVar[int] = 90  # after the resolvers for particular kinds of packages

    @classmethod
    def applies_to(cls, target: Target, union_membership: UnionMembership) -> bool:
        return any(fs.is_applicable(target) for fs in union_membership.get(PackageFieldSet))


def _placed(entries: Sequence[TreeEntry], artifacts: Sequence[str]) -> List[TreeEntry]:
    """The entries with executable artifacts moved to `bin/`."""
    placed: List[TreeEntry] = []
    for entry in entries:
        if isinstance(entry, FileEntry) and entry.is_executable and entry.path in artifacts:
            entry = replace(entry, path="bin/" + entry.path.rpartition("/")[2])
        placed.append(entry)
    return placed


@rule(desc="Resolve a package to a store path", level=LogLevel.DEBUG)
async def resolve_package(request: PackageClosureRequest) -> StoreClosure:
    target = request.target
    if target.has_field(ContentsField) or target.has_field(PullImageDigestField):
        raise DockerNixError(
            f"The target {target.address} is an image, and an image cannot be one of the contents "
            "of an image.\n\nName it in 'from_image' to build on top of it, list the contents of "
            "that image, or its root file system (a `docker_nix_export`)."
        )
    field_sets = await Get(FieldSetsPerTarget, FieldSetsPerTargetRequest(PackageFieldSet, [target]))
    packages = await MultiGet(
        Get(BuiltPackage, EnvironmentAwarePackageRequest(field_set))
        for field_set in field_sets.field_sets
    )
    listings = await MultiGet(Get(DigestEntries, Digest, package.digest) for package in packages)
    entries = [entry for listing in listings for entry in listing]
    artifacts = [a.relpath for package in packages for a in package.artifacts if a.relpath]
    if not entries:
        raise DockerNixError(
            f"Packaging the target {target.address} made no files, so it cannot be part of an "
            f"image.\n\nRemove it from the 'contents' that list it, or use a target that makes "
            "files."
        )

    only = entries[0] if len(entries) == 1 else None
    unpack = archive_format(only.path) if isinstance(only, FileEntry) else None
    if unpack and isinstance(only, FileEntry):
        tree = await Get(Digest, CreateDigest([FileEntry("archive", only.file_digest)]))
    else:
        placed = _placed(entries, artifacts)
        paths = Counter(entry.path for entry in placed)
        twice, times = paths.most_common(1)[0]
        if times > 1:
            raise DockerNixError(
                f"Packaging the target {target.address} makes two executables that would both be "
                f"{twice!r} in the image.\n\nGive them different names with 'output_path'."
            )
        tree = await Get(Digest, CreateDigest(placed))
    obj = StoreObject.from_pants(target.address.target_name, tree, target.address, unpack=unpack)
    return StoreClosure.single(obj)


def rules() -> Iterable[object]:
    return (*collect_rules(), UnionRule(StoreClosureRequest, PackageClosureRequest))
