"""How popular each store path of a closure is: what many images share scores high.

The rule, for a node c that refers to refs(c), itself left out:

    P_c(x) = sum over d in refs(c) of [x = d] + (P_d(x) + 1 if x in P_d else 0)

and the score of x is the same sum over the roots d, the nodes that no other node refers to.

Followed to the letter that is a table per node. But write paths(d) for the number of ways from the
roots down to d, and unroll the sum: each edge (c, d) by which x can be reached, d = x included,
counts once for each way down to c. The edges into one d together count paths(d) times, so

    score(x) = sum of paths(d) over x and everything from which x can be reached

with each d once. Numbers of paths grow exponentially with depth; Python's integers hold them.
"""

from __future__ import annotations

from itertools import compress
from operator import getitem
from typing import Iterable, Mapping


def popularity(references: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """The score of each path in `references`, in order: most popular first, ties by `tie_key`.

    `references` maps every path of a closure to the paths it refers to; references to itself and
    repetitions do not count.

    Raises ValueError where a reference is not itself a path of the closure, or paths refer to each
    other in a cycle.
    """
    children = _children(references)
    order, parents = _top_down(children)
    scores = _scores(order, parents)
    return dict(sorted(scores.items(), key=lambda item: (-item[1], tie_key(item[0]))))


def tie_key(path: str) -> tuple[str, str]:
    """What orders paths of equal score: `name-/nix/store/hash`, so that like names are together.

    That is the path with the text before its first dash moved to the end.
    """
    prefix, _, name = path.partition("-")
    return f"{name}-{prefix}", path


def _children(references: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
    children = {path: set(referred) - {path} for path, referred in references.items()}
    for path, referred in children.items():
        unknown = min((child for child in referred if child not in children), default=None)
        if unknown is not None:
            raise ValueError(f"{path} refers to {unknown}, which is not a path of the closure.")
    return children


def _top_down(children: Mapping[str, set[str]]) -> tuple[list[str], dict[str, list[str]]]:
    """The paths in an order where each comes after all that refer to it; and who does refer."""
    parents: dict[str, list[str]] = {path: [] for path in children}
    for path, referred in children.items():
        for child in referred:
            parents[child].append(path)
    waiting = {path: len(referrers) for path, referrers in parents.items()}
    order = [path for path, count in waiting.items() if not count]
    for path in order:  # which grows meanwhile
        for child in children[path]:
            waiting[child] -= 1
            if not waiting[child]:
                order.append(child)
    if len(order) < len(children):
        cycle = _cycle(parents, set(children).difference(order))
        raise ValueError(f"Store paths refer to each other in a cycle: {' -> '.join(cycle)}.")
    return order, parents


def _cycle(parents: Mapping[str, list[str]], stuck: set[str]) -> list[str]:
    """One cycle among the paths in `stuck`, of which each has a parent in `stuck`."""
    path = min(stuck)
    seen: dict[str, None] = {}
    while path not in seen:
        seen[path] = None
        path = min(stuck.intersection(parents[path]))
    upwards = list(seen)
    cycle = upwards[upwards.index(path) :][::-1]
    start = cycle.index(min(cycle))
    return cycle[start:] + cycle[:start] + cycle[start : start + 1]


def _scores(order: list[str], parents: Mapping[str, list[str]]) -> dict[str, int]:
    """The score of each path; `order` has parents before children.

    A set of paths is the bits of an integer, one bit per path in the order given. Most of what
    reaches a path also reaches its last parent, whose score is known: only the rest is summed.
    """
    position = {path: index for index, path in enumerate(order)}
    ways: list[int] = []
    above: list[int] = []
    scores: list[int] = []
    # For each eight paths, the sum of the ways to each subset of them: 256 numbers, indexed by the
    # byte that says which.
    sums: list[list[int]] = []
    for index, path in enumerate(order):
        referrers = [position[parent] for parent in parents[path]]
        ways.append(sum([ways[parent] for parent in referrers]) or 1)
        if index % 8 == 0:
            sums.append([0])
        sums[-1] += [total + ways[index] for total in sums[-1]]
        bits = 1 << index
        for parent in referrers:
            bits |= above[parent]
        above.append(bits)
        if referrers:
            last = max(referrers)
            scores.append(scores[last] + _sum_of(bits & ~above[last], sums))
        else:
            scores.append(ways[index])
    return dict(zip(order, scores))


def _sum_of(bits: int, sums: list[list[int]]) -> int:
    """The sum over the paths in the set `bits`."""
    data = bits.to_bytes(len(sums), "little")
    # Eight paths at a time, and no time for eight that are all absent.
    return sum(map(getitem, compress(sums, data), data.translate(None, b"\0")))
