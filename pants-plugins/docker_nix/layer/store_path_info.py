"""What is known of a store path once it was packed, and what a Nix database says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple


@dataclass(frozen=True)
class StorePathInfo:
    """A store path with what Nix wants to know of it.

    :param path: `/nix/store/<hash>-<name>`.
    :param nar_hash: `sha256:<hex>` of its NAR.
    :param nar_size: the size of its NAR in bytes.
    :param references: the full paths of the store paths that it refers to.
    """

    path: str
    nar_hash: str
    nar_size: int
    references: Tuple[str, ...]
