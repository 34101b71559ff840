from __future__ import annotations

from typing import Tuple

from pants.engine.addresses import Address
from pants.engine.fs import EMPTY_DIGEST

from docker_nix.layer.links import Entry
from docker_nix.resolve.nix.types import NixPath, NixQuery
from docker_nix.resolve.types import StoreClosure, StoreObject

DEP = "/nix/store/00000000000000000000000000000000-dep"
APP = "/nix/store/11111111111111111111111111111111-app"
QUERY = NixQuery(Address("nix", target_name="app"), b"{}", EMPTY_DIGEST, True)


def nix_object(path: str, entries: Tuple[Entry, ...] = ()) -> StoreObject:
    return StoreObject(path, EMPTY_DIGEST, nix=NixPath("sha256:aa", 120, QUERY, entries))


def test_a_root_anywhere_has_its_entries() -> None:
    """One package refers to a path that another one is: its entries must not be lost."""
    entries = (Entry("f", "bin/dep"),)
    app = StoreClosure((APP,), (nix_object(APP, entries), nix_object(DEP)), APP)
    dep = StoreClosure((DEP,), (nix_object(DEP, entries),), DEP)
    for merged in (StoreClosure.merge([app, dep]), StoreClosure.merge([dep, app])):
        assert {*merged.roots} == {APP, DEP}
        assert {obj.path: obj.nix and obj.nix.entries for obj in merged.objects} == {
            APP: entries,
            DEP: entries,
        }
