from __future__ import annotations

from dataclasses import replace
from typing import Optional, Sequence

from docker_nix.look.compare import Comparison, PathChange, compare
from docker_nix.look.model import Image, Layer
from docker_nix.look.old_image import OldImage, OldLayer
from docker_nix.look.testing import (
    base_layer,
    digest,
    image,
    links_layer,
    store_layer,
    store_path,
)


def old_of(old: Image, *, complete: bool = True, digest: Optional[str] = "") -> OldImage:
    """An image as it was."""
    return OldImage(
        "old",
        old.manifest.digest if digest == "" else digest,
        old.config.digest,
        tuple(
            OldLayer(
                layer.digest,
                layer.size,
                layer.diff_id,
                tuple(path.path for path in layer.store_paths),
                complete,
            )
            for layer in old.layers
        ),
    )


def from_to(old: Sequence[Layer], new: Sequence[Layer], *, complete: bool = True) -> Comparison:
    return compare(image("app", new), old_of(image("app", old), complete=complete))


BASE, LIB = base_layer(), store_layer("lib", size=5_000)


def test_one_changed_path() -> None:
    """A new version of the application: its own layer and the links are to be pulled."""
    found = from_to(
        [BASE, LIB, store_layer("app", version="1"), links_layer("1")],
        [BASE, LIB, store_layer("app", version="2", size=70), links_layer("2", size=30)],
    )
    assert [one.change for one in found.layers] == ["kept", "kept", "added", "added"]
    old, new = store_path("app", "1"), store_path("app", "2")
    assert found.layers[2].paths == (PathChange(new, "changed", (old,)),)
    assert [(one.position, one.gone) for one in found.removed] == [(2, (old,)), (3, ())]
    assert (found.pull_layers, found.pull_config, found.pull_manifest) == (100, 1500, 700)
    assert found.pull == 2300
    assert found.whole == 30_000_000 + 5_000 + 100 + 1500 + 700
    assert not found.is_same


def test_the_same_image() -> None:
    same = image("app", [BASE, LIB])
    for old in (old_of(same), old_of(same, digest=None)):
        found = compare(same, old)
        assert found.is_same
        assert not found.added and not found.removed
        assert found.pull_layers == found.pull_config == 0
    assert compare(same, old_of(same)).pull == 0
    # The same layers with another configuration are another image.
    other = compare(same, replace(old_of(same), digest=digest("x"), image_id=digest("y")))
    assert not other.is_same
    assert (other.pull_layers, other.pull_config, other.pull_manifest) == (0, 1500, 700)


def test_paths_in_other_layers() -> None:
    """What moved is not new; what the same layer holds is not asked for twice."""
    found = from_to(
        [store_layer("a"), store_layer("b", "c"), store_layer("d")],
        [store_layer("a"), store_layer("b", "e"), store_layer("d", version="2")],
    )
    assert [path.change for one in found.added for path in one.paths] == ["moved", "new", "changed"]
    assert found.removed[0].gone == (store_path("c"),)
    kept = from_to([store_layer("a")], [store_layer("a"), store_layer("a", "b")])
    assert [path.change for path in kept.added[0].paths] == ["moved", "new"]


def test_several_paths_of_one_name() -> None:
    """Only those that are gone can be what a path was."""
    stays, goes = store_layer("lib", version="1"), store_layer("lib", version="2")
    found = from_to([stays, goes], [stays, store_layer("lib", version="3")])
    assert found.added[0].paths[0].old == (store_path("lib", "2"),)
    more = from_to([stays], [stays, store_layer("lib", version="3")])
    assert more.added[0].paths[0].change == "new"


def test_a_registry_image_may_not_say_what_was_in_it() -> None:
    found = from_to([BASE, store_layer("a")], [BASE, store_layer("b")], complete=False)
    assert found.added[0].paths == (PathChange(store_path("b"), "unknown"),)
    # Of a layer that is kept, the new image knows.
    kept = from_to([BASE], [BASE, store_layer("b")], complete=False)
    assert kept.added[0].paths == (PathChange(store_path("b"), "new"),)


def test_another_compression() -> None:
    found = from_to([store_layer("a", size=900)], [store_layer("a", size=700, how="zstd")])
    assert found.layers[0].change == "recompressed"
    assert found.layers[0].paths == (PathChange(store_path("a"), "moved"),)
    assert found.pull_layers == 700


def test_a_blob_is_pulled_once() -> None:
    twice = store_layer("a", size=900)
    found = from_to([], [twice, twice])
    assert len(found.added) == 2
    assert found.pull_layers == 900
    assert found.whole == 900 + 1500 + 700


def test_nothing_in_common() -> None:
    found = from_to([BASE], [LIB])
    assert found.pull == found.whole == 5000 + 2200
    assert [one.position for one in found.removed] == [0]
