"""Which store paths go together into one layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Mapping

from docker_nix.plan.popularity import popularity

# What container engines can mount as one root file system.
MOST_LAYERS = 125


class NoRoomForLayers(ValueError):
    """The layers do not fit into the image; the message has the numbers and the way out."""


@dataclass(frozen=True)
class LayerPlan:
    """The store paths of each layer, each path exactly once.

    :param groups: one layer each, the lowest first; a group's paths are sorted, so that the group
        is the same whatever the popularity of its members is in another image.
    :param with_customisation: the paths (sorted) that go into the customisation layer: those that
        were to be there, and all where there is no room for any other layer.
    """

    groups: tuple[tuple[str, ...], ...]
    with_customisation: tuple[str, ...] = ()


def plan_layers(
    references: Mapping[str, Iterable[str]],
    max_layers: int,
    base_layers: int = 0,
    own_layers: int = 1,
    present: Iterable[str] = (),
    beside_links: Iterable[str] = (),
) -> LayerPlan:
    """Spreads the store paths in `references` over the layers that are left for them.

    `references` maps each path to those it refers to, as in `popularity`. `max_layers` counts all
    layers of the image: `base_layers` that a base image brings, `own_layers` for the customisation,
    and those planned here. Paths that are `present` in the base count for popularity, but get no
    layer; those `beside_links` go into the customisation layer.

    The most popular paths get a layer each; when there are more paths than layers, the last layer
    takes all the rest.

    Raises NoRoomForLayers where not even the image's own layers fit, and ValueError where
    `popularity` does.
    """
    room = max_layers - base_layers - own_layers
    in_base = frozenset(present)
    beside = sorted(frozenset(beside_links) - in_base)
    elsewhere = in_base.union(beside)
    paths = [path for path in popularity(references) if path not in elsewhere]
    own = max(own_layers, 1 if paths or beside else 0)
    if max_layers < base_layers + own:
        remedy = f"Raise max_layers to {base_layers + own} or more (up to {MOST_LAYERS}), or use"
        if base_layers + own > MOST_LAYERS:
            remedy = f"Engines can mount {MOST_LAYERS}; use"
        raise NoRoomForLayers(
            f"The image may have {max_layers} layers, but the base image has {base_layers} and at "
            f"least {own} must be added. {remedy} a base image with fewer layers."
        )
    if not room:
        return LayerPlan((), tuple(sorted([*paths, *beside])))
    single = len(paths) if len(paths) <= room else room - 1
    rest = tuple(sorted(paths[single:]))
    groups = tuple((path,) for path in paths[:single])
    return LayerPlan(groups + (rest,) if rest else groups, tuple(beside))
