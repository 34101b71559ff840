"""Rectangles whose areas are in proportion to numbers, as close to squares as can be had simply.

The algorithm is that of M. Bruls, K. Huizing and J. J. van Wijk, "Squarified Treemaps" (2000).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Sequence, Tuple


@dataclass(frozen=True)
class Rectangle:
    """A rectangle; `x` and `y` are its left upper corner."""

    x: float
    y: float
    width: float
    height: float

    @property
    def area(self) -> float:
        return self.width * self.height


def squarify(weights: Sequence[int], within: Rectangle) -> List[Rectangle]:
    """A rectangle for each of the weights, which together fill `within` without an overlap.

    The largest is at the left upper corner; equal ones are in their order. A weight of 0 has a
    rectangle of no area. Raises ValueError for one below 0.
    """
    if any(weight < 0 for weight in weights):
        raise ValueError("a weight is below 0")
    order = sorted((i for i, weight in enumerate(weights) if weight), key=lambda i: -weights[i])
    found: Dict[int, Rectangle] = {}
    left = sum(weights)
    free = within
    while order:
        row = _row([weights[i] for i in order], left, free)
        rectangles, free = _place([weights[i] for i in order[:row]], left, free)
        found.update(zip(order, rectangles))
        left -= sum(weights[i] for i in order[:row])
        order = order[row:]
    nothing = Rectangle(within.x, within.y, 0.0, 0.0)
    return [found.get(i, nothing) for i in range(len(weights))]


def _row(weights: Sequence[int], total: int, free: Rectangle) -> int:
    """How many of the weights, the largest first, go along the shorter side of `free`.

    As many as make the worst of their aspect ratios better.
    """
    side = min(free.width, free.height)
    scale = free.area / total
    filled, best = 0.0, float("inf")
    for count, weight in enumerate(weights):
        filled += weight * scale
        largest, smallest = weights[0] * scale, weight * scale
        # Where everything is too small for a float, all goes into one row.
        if not side or not smallest:
            continue
        worst = max(side**2 * largest / filled**2, filled**2 / (side**2 * smallest))
        if worst > best:
            return count
        best = worst
    return len(weights)


def _place(
    weights: Sequence[int], total: int, free: Rectangle
) -> Tuple[List[Rectangle], Rectangle]:
    """The rectangles of a row at the shorter side of `free`, and what is free after that."""
    row = sum(weights)
    share = row / total
    rectangles = []
    before = 0
    for weight in weights:
        at, length = before / row, weight / row
        if free.width >= free.height:
            rectangles.append(
                Rectangle(
                    free.x,
                    free.y + at * free.height,
                    share * free.width,
                    length * free.height,
                )
            )
        else:
            rectangles.append(
                Rectangle(
                    free.x + at * free.width,
                    free.y,
                    length * free.width,
                    share * free.height,
                )
            )
        before += weight
    if free.width >= free.height:
        used = share * free.width
        return rectangles, Rectangle(free.x + used, free.y, free.width - used, free.height)
    used = share * free.height
    return rectangles, Rectangle(free.x, free.y + used, free.width, free.height - used)
