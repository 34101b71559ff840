"""Prints how many seconds the layer plan takes for closures of several shapes and sizes.

Run it with `PYTHONPATH=pants-plugins python3 tests/bench/plan_bench.py`. It asserts no time: what
is too slow is for people to say.
"""

from __future__ import annotations

import random
import time
from typing import Dict, List

from docker_nix.plan.popularity import popularity

Graph = Dict[str, List[str]]


def path(number: int) -> str:
    return f"/nix/store/{number:032}-package-{number % 97}"


def random_closure(size: int, references: int) -> Graph:
    """Each path refers to paths anywhere before it."""
    random_ = random.Random(1)
    return {
        path(n): [path(d) for d in random_.sample(range(n), min(n, references))]
        for n in range(size)
    }


def local_closure(size: int, references: int, window: int) -> Graph:
    """Each path refers to paths shortly before it: deep, as system libraries are."""
    random_ = random.Random(2)
    return {
        path(n): [path(d) for d in random_.sample(range(max(0, n - window), n), min(n, references))]
        for n in range(size)
    }


def layers(depth: int, width: int) -> Graph:
    """Each path refers to every path of the next layer."""
    return {
        path(n): (
            [path(d) for d in range((n // width + 1) * width, (n // width + 2) * width)]
            if n // width < depth - 1
            else []
        )
        for n in range(depth * width)
    }


def chain(size: int) -> Graph:
    return {path(n): [path(n + 1)] if n + 1 < size else [] for n in range(size)}


def star(size: int) -> Graph:
    return {path(0): [path(n) for n in range(1, size)], **{path(n): [] for n in range(1, size)}}


def complete(size: int) -> Graph:
    return {path(n): [path(d) for d in range(n)] for n in range(size)}


def main() -> None:
    graphs = {
        "random, 20000 paths with 10 references": random_closure(20000, 10),
        "random, 2000 paths with 10 references": random_closure(2000, 10),
        "local, 20000 paths with 10 of the last 200": local_closure(20000, 10, 200),
        "local, 20000 paths with 5 of the last 2000": local_closure(20000, 5, 2000),
        "layers, 400 deep and 50 wide": layers(400, 50),
        "layers, 10 deep and 200 wide": layers(10, 200),
        "chain of 5000": chain(5000),
        "chain of 20000": chain(20000),
        "star of 20000": star(20000),
        "complete, 600 paths": complete(600),
    }
    for name, graph in graphs.items():
        edges = sum(map(len, graph.values()))
        start = time.perf_counter()
        scores = popularity(graph)
        seconds = time.perf_counter() - start
        digits = max(scores.values()).bit_length()
        print(f"{seconds:7.3f} s  {name} ({edges} references, scores up to {digits} bits)")


if __name__ == "__main__":
    main()
