"""What resolvers take and give: the contents of an image as a graph of store paths."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Iterable, Mapping, Optional, Tuple

from pants.engine.addresses import Address
from pants.engine.environment import EnvironmentName
from pants.engine.fs import Digest
from pants.engine.target import Target
from pants.engine.unions import UnionMembership, union
from pants.util.frozendict import FrozenDict

from docker_nix.layer.links import Entry
from docker_nix.resolve import store_path
from docker_nix.resolve.nix.types import NixPath

if TYPE_CHECKING:
    from docker_nix.resolve.python.types import ImagePython


@dataclass(frozen=True)
class Bytecode:
    """How the modules of a store path are compiled.

    :param runtime: the interpreter that compiles them, as the tool's `python-runtime` wrote it.
    :param compiler: a digest of that part of it which decides on the bytes.
    :param cache_tag: of that interpreter (PEP 3147).
    """

    runtime: Digest
    compiler: str
    cache_tag: str


@dataclass(frozen=True)
class StoreObject:
    """One store path and where its bytes come from.

    :param path: `/nix/store/<hash>-<name>`.
    :param digest: a tree, or a single file named `archive` where `unpack` is set.
    :param unpack: the format of the archive, one of ARCHIVE_FORMATS or a `wheel_format`.
    :param references: full paths of the store paths it refers to, sorted. Itself only where that
        cannot be otherwise: in Nix, and of an environment with scripts.
    :param origin: the target it came from, for messages only.
    :param bytecode: for Python modules that the layer has compiled, too.
    :param with_links: whether it is so small, and changes so often, that it is packed with the
        links to it, rather than as a layer of its own.
    :param nix: for a path of the machine's Nix store, whose digest is empty, what Nix says of it.
    """

    path: str
    digest: Digest
    unpack: Optional[str] = None
    references: Tuple[str, ...] = ()
    origin: Optional[Address] = field(default=None, compare=False)
    bytecode: Optional[Bytecode] = None
    with_links: bool = False
    nix: Optional[NixPath] = None

    @classmethod
    def from_pants(
        cls,
        name: str,
        digest: Digest,
        origin: Address,
        *,
        unpack: Optional[str] = None,
        references: Iterable[str] = (),
    ) -> StoreObject:
        """A store path for something Pants built: its name, digest and references make its path.

        The target's address is no part of the path: equal content of equal name is one path.
        """
        ordered = tuple(sorted(set(references)))
        path = store_path.input_addressed_path(
            store_path.legal_name(name),
            digest.fingerprint,
            digest.serialized_bytes_length,
            ordered,
            kind=f"unpack:{unpack}" if unpack else "tree",
        )
        return cls(path, digest, unpack, ordered, origin)

    @property
    def base_name(self) -> str:
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class StoreClosure:
    """Store paths with everything they refer to.

    :param roots: the paths whose trees appear at `/` of an image that lists the target.
    :param objects: the whole closure, the roots included.
    :param own: the path that `{store_path[…]}` of the target means; None for a group of targets.
    :param lacks_python: whether something is left out, as it was not said which Python it is for.
    """

    roots: Tuple[str, ...]
    objects: Tuple[StoreObject, ...]
    own: Optional[str] = None
    lacks_python: bool = False

    @classmethod
    def single(cls, obj: StoreObject) -> StoreClosure:
        """The closure of a store path that refers to no other."""
        return cls((obj.path,), (obj,), obj.path)

    @classmethod
    def merge(cls, closures: Iterable[StoreClosure], own: Optional[str] = None) -> StoreClosure:
        """All of them together, each path once, in their order."""
        roots: dict[str, None] = {}
        objects: dict[str, StoreObject] = {}
        lacks_python = False
        for closure in closures:
            lacks_python |= closure.lacks_python
            roots.update(dict.fromkeys(closure.roots))
            for obj in closure.objects:
                # Of a Nix path, only the target that has it as a root knows the entries.
                known = objects.setdefault(obj.path, obj)
                if known.nix and obj.nix and obj.nix.entries and not known.nix.entries:
                    objects[obj.path] = obj
        return cls(tuple(roots), tuple(objects.values()), own, lacks_python)


@union(in_scope_types=[EnvironmentName])
@dataclass(frozen=True)
class StoreClosureRequest:
    """A request to turn one target into store paths.

    To add a resolver, subclass this, register the subclass with
    `UnionRule(StoreClosureRequest, MyRequest)`, and write a rule from it to StoreClosure. Of the
    resolvers whose `applies_to` is true for a target, the one with the lowest `order` is used.

    :param python: the Python of the image; None where that is not asked yet.
    """

    target: Target
    python: Optional[ImagePython] = None
    order: ClassVar[int] = 50

    @classmethod
    def applies_to(cls, target: Target, union_membership: UnionMembership) -> bool:
        raise NotImplementedError


@dataclass(frozen=True)
class ResolveAddressRequest:
    """A request for the StoreClosure of the target at `address`, by whichever resolver fits.

    :param origin: who asks, for messages: `the 'contents' field in target //:image`.
    :param python: as in StoreClosureRequest.
    """

    address: Address
    origin: str
    python: Optional[ImagePython] = None


@dataclass(frozen=True)
class ListingRequest:
    """A request for the entries of a store object's tree, unpacked where it is an archive.

    :param origin: where an archive comes from, for messages.
    :param hashes: whether the files of an archive need their SHA-256. Those of a tree have it.
    :param nix: for a path of a Nix store, what is known of it, which is all that is needed.
    """

    digest: Digest
    unpack: Optional[str]
    origin: Optional[Address] = None
    hashes: bool = False
    nix: Optional[NixPath] = None

    @classmethod
    def of(cls, obj: StoreObject, hashes: bool = False) -> ListingRequest:
        return cls(obj.digest, obj.unpack, obj.origin if obj.unpack else None, hashes, obj.nix)


@dataclass(frozen=True)
class Listing:
    entries: Tuple[Entry, ...]


ARCHIVE_FORMATS: Mapping[str, str] = FrozenDict(
    {
        ".tar": "tar",
        ".tar.gz": "tar.gz",
        ".tgz": "tar.gz",
        ".tar.xz": "tar.xz",
        ".txz": "tar.xz",
        ".tar.bz2": "tar.bz2",
        ".tbz2": "tar.bz2",
        ".tar.zst": "tar.zst",
        ".tzst": "tar.zst",
        ".zip": "zip",
    }
)


WHEEL = "wheel:"


def wheel_format(site_packages: str) -> str:
    """The format of a distribution, as it is in a packed PEX, for a directory of `sys.path`."""
    return WHEEL + site_packages


def archive_format(file_name: str) -> Optional[str]:
    """The format of an archive by its name's ending; None where it is no archive."""
    lowered = file_name.lower()
    return next((f for ending, f in ARCHIVE_FORMATS.items() if lowered.endswith(ending)), None)
