from __future__ import annotations

import random
from typing import List

import pytest

from docker_nix.look.treemap import Rectangle, squarify

BOX = Rectangle(0, 0, 600, 400)


def check(weights: List[int], box: Rectangle) -> List[Rectangle]:
    """The rectangles, which must be in proportion, inside the box, and without an overlap."""
    rectangles = squarify(weights, box)
    assert len(rectangles) == len(weights)
    total = sum(weights)
    tolerance = 1e-9 * max(box.width, box.height)
    for weight, one in zip(weights, rectangles):
        assert one.area == pytest.approx(box.area * weight / total, rel=1e-6, abs=1e-9)
        assert box.x - tolerance <= one.x
        assert box.y - tolerance <= one.y
        assert one.x + one.width <= box.x + box.width + tolerance
        assert one.y + one.height <= box.y + box.height + tolerance
    for i, one in enumerate(rectangles):
        for other in rectangles[:i]:
            wide = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
            high = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
            assert wide <= tolerance or high <= tolerance
    return rectangles


def test_the_example_of_the_paper() -> None:
    """Weights 6 6 4 3 2 2 1 in a box of 6 x 4: the figure 3 of the paper."""
    found = check([6, 6, 4, 3, 2, 2, 1], Rectangle(0, 0, 6, 4))
    shapes = [(one.x, one.y, one.width, one.height) for one in found]
    expected = [
        (0, 0, 3, 2),
        (0, 2, 3, 2),
        (3, 0, 12 / 7, 7 / 3),
        (3 + 12 / 7, 0, 9 / 7, 7 / 3),
        (3, 7 / 3, 1.2, 5 / 3),
        (4.2, 7 / 3, 1.2, 5 / 3),
        (5.4, 7 / 3, 0.6, 5 / 3),
    ]
    for shape, wanted in zip(shapes, expected):
        assert shape == pytest.approx(wanted)


def test_many_random_ones() -> None:
    generator = random.Random(1)
    for _ in range(200):
        weights = [
            int(generator.paretovariate(0.7) * 1000) for _ in range(generator.randint(1, 60))
        ]
        box = Rectangle(
            generator.uniform(0, 50),
            generator.uniform(0, 50),
            generator.uniform(1, 999),
            generator.uniform(1, 999),
        )
        check(weights, box)


def test_equal_ones_are_nearly_squares() -> None:
    for one in check([5] * 24, BOX):
        assert one.width == pytest.approx(one.height, rel=0.5)


def test_the_order_does_not_matter_but_among_equals() -> None:
    weights = [3, 9, 1, 9, 4]
    found = squarify(weights, BOX)
    assert found[1].x == 0 and found[1].y == 0
    assert sorted(map(str, found)) == sorted(map(str, squarify(sorted(weights), BOX)))
    assert squarify(weights, BOX) == found


def test_nothing_and_zero() -> None:
    assert squarify([], BOX) == []
    assert squarify([0], BOX) == [Rectangle(0, 0, 0, 0)]
    assert squarify([0, 7, 0], BOX)[1] == BOX
    assert squarify([0, 7, 0], BOX)[2].area == 0


def test_extremes() -> None:
    found = check([10**12, 1, 1, 1], BOX)
    assert all(one.area > 0 for one in found)
    assert squarify([1, 2], Rectangle(0, 0, 0, 0))[0].area == 0


def test_less_than_nothing() -> None:
    with pytest.raises(ValueError, match="below 0"):
        squarify([1, -1], BOX)
