"""What the rules pass around about paths of a real Nix store."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Tuple

from pants.engine.addresses import Address
from pants.engine.fs import Digest

from docker_nix.layer.links import Entry


@dataclass(frozen=True)
class NixQuery:
    """What Nix is asked for: see the tool's `nix_query`.

    :param spec: the query's spec. Content only, nothing of this machine.
    :param input_digest: the files that its source tree lists.
    :param pinned: whether the answer is the same on all machines, so that it may be cached.
    """

    address: Address
    spec: bytes
    input_digest: Digest
    pinned: bool


@dataclass(frozen=True)
class NixPath:
    """What Nix says of one of its paths; its bytes are in the machine's own store.

    :param nar_hash: `sha256:<hex>`.
    :param nar_size: in bytes.
    :param entries: what appears at `/` of an image that lists the package; nothing for a path that
        is only referred to.
    :param query: what to ask to get the path again.
    """

    nar_hash: str
    nar_size: int
    query: NixQuery = field(compare=False)
    entries: Tuple[Entry, ...] = ()


@dataclass(frozen=True)
class RealiseRequest:
    """A request to make the store path there again that an earlier answer to `query` has."""

    query: NixQuery
    path: str
    nar_hash: str


@dataclass(frozen=True)
class Realised:
    """That the path was made again on this machine."""
