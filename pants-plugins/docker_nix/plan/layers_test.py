from __future__ import annotations

import random

import pytest

from docker_nix.plan.layers import LayerPlan, NoRoomForLayers, plan_layers
from docker_nix.plan.popularity import popularity


def closure(size: int) -> dict[str, list[str]]:
    random_ = random.Random(size)
    paths = [f"/nix/store/{random_.getrandbits(64):032}-p{n}" for n in range(size)]
    return {path: random_.sample(paths[:n], min(n, 3)) for n, path in enumerate(paths)}


@pytest.mark.parametrize("base_layers", [0, 3])
@pytest.mark.parametrize("size", [1, 5, 98, 99, 100, 120, 124, 125, 126, 200])
@pytest.mark.parametrize("max_layers", [125, 100, 99, 10, 6, 5])
def test_every_path_once_in_as_many_layers_as_there_are(
    size: int, max_layers: int, base_layers: int
) -> None:
    references = closure(size)
    plan = plan_layers(references, max_layers, base_layers)
    assert sorted(path for group in plan.groups for path in group) == sorted(references)
    assert not plan.with_customisation
    room = max_layers - base_layers - 1
    assert len(plan.groups) == min(size, room)
    single = len(plan.groups) if size <= room else room - 1
    popular = list(popularity(references))
    assert plan.groups[:single] == tuple((path,) for path in popular[:single])
    assert plan.groups[single:] in ((), (tuple(sorted(popular[single:])),))


@pytest.mark.parametrize(
    ("max_layers", "sizes"),
    [
        (125, [1] * 120),
        (121, [1] * 120),
        (120, [1] * 118 + [2]),
        (100, [1] * 98 + [22]),
        (99, [1] * 97 + [23]),
        (3, [1, 119]),
        (2, [120]),
    ],
)
def test_120_paths(max_layers: int, sizes: list[int]) -> None:
    references = closure(120)
    plan = plan_layers(references, max_layers)
    assert [len(group) for group in plan.groups] == sizes
    assert sorted(sum(plan.groups, ())) == sorted(references)
    assert plan.with_customisation == ()


@pytest.mark.parametrize(("max_layers", "base_layers"), [(1, 0), (100, 99)])
def test_one_layer_for_all(max_layers: int, base_layers: int) -> None:
    references = closure(120)
    plan = plan_layers(references, max_layers, base_layers)
    assert plan == LayerPlan((), tuple(sorted(references)))


@pytest.mark.parametrize("size", [0, 120])
@pytest.mark.parametrize(("max_layers", "base_layers"), [(0, 0), (100, 100), (100, 120)])
def test_no_room(size: int, max_layers: int, base_layers: int) -> None:
    with pytest.raises(NoRoomForLayers) as error:
        plan_layers(closure(size), max_layers, base_layers)
    assert str(error.value) == (
        f"The image may have {max_layers} layers, but the base image has {base_layers} and at "
        f"least 1 must be added. Raise max_layers to {base_layers + 1} or more (up to 125), or use "
        "a base image with fewer layers."
    )


def test_no_room_for_any_image() -> None:
    with pytest.raises(NoRoomForLayers, match="must be added. Engines can mount 125; use a base"):
        plan_layers(closure(1), 100, base_layers=125)


def test_an_image_without_store_paths() -> None:
    assert plan_layers({}, 100) == LayerPlan(())
    assert plan_layers({}, 1) == LayerPlan(())


def test_without_own_layers() -> None:
    assert len(plan_layers(closure(5), 4, base_layers=1, own_layers=0).groups) == 3
    assert plan_layers({}, 1, base_layers=1, own_layers=0) == LayerPlan(())
    with pytest.raises(NoRoomForLayers, match="Raise max_layers to 2 or more"):
        plan_layers(closure(5), 1, base_layers=1, own_layers=0)


def test_paths_of_the_base_count_but_get_no_layer() -> None:
    references = {"a": ["b", "c"], "b": ["c", "d"], "c": [], "d": []}
    assert plan_layers(references, 100).groups == (("c",), ("d",), ("b",), ("a",))
    assert plan_layers(references, 100, present={"c", "x"}).groups == (("d",), ("b",), ("a",))
    assert plan_layers(references, 3, present={"c"}).groups == (("d",), ("a", "b"))
    assert plan_layers(references, 100, present=set("abcd")) == LayerPlan(())


def test_the_rest_does_not_depend_on_popularity() -> None:
    one = plan_layers({"a": "bc", "b": "c", "c": "", "d": ""}, 2)
    other = plan_layers({"a": "", "b": "a", "c": "ab", "d": "c"}, 2)
    assert one.groups == other.groups == (("a", "b", "c", "d"),)


def test_paths_beside_the_links_are_in_the_last_layer() -> None:
    references = {"/nix/store/" + c * 32 + f"-{c}": set() for c in "abcd"}
    a, b, c, d = sorted(references)
    plan = plan_layers(references, 100, beside_links=[d, b])
    assert plan.groups == ((a,), (c,))
    assert plan.with_customisation == (b, d)
    assert plan_layers(references, 1, beside_links=[b]).with_customisation == (a, b, c, d)
    assert plan_layers(references, 100, present=[b], beside_links=[b]).with_customisation == ()
