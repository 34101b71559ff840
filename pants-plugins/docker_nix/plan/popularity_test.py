from __future__ import annotations

import random
import re
from functools import lru_cache
from typing import Iterable, Mapping

import pytest

from docker_nix.plan.popularity import popularity, tie_key


def by_the_letter(references: Mapping[str, Iterable[str]]) -> list[tuple[str, int]]:
    """The rule as it is written down, with a table for each node."""
    refs = {path: set(referred) - {path} for path, referred in references.items()}

    def merge(nodes: Iterable[str]) -> dict[str, int]:
        table: dict[str, int] = {}
        for d in nodes:
            table[d] = table.get(d, 0) + 1
            for x, count in table_of(d).items():
                table[x] = table.get(x, 0) + count + 1
        return table

    @lru_cache(maxsize=None)
    def table_of(c: str) -> dict[str, int]:
        return merge(refs[c])

    scores = merge(set(refs).difference(*refs.values()))
    return sorted(scores.items(), key=lambda item: (-item[1], tie_key(item[0])))


def random_graph(random_: random.Random) -> dict[str, list[str]]:
    size = random_.randint(0, 12)
    density = random_.random()
    names = [f"/nix/store/{n:032}-{random_.choice('abc')}" for n in range(size)]
    random_.shuffle(names)
    graph = {
        name: [other for other in names[:number] if random_.random() < density]
        for number, name in enumerate(names)
    }
    for referred in graph.values():
        if referred and random_.random() < 0.2:
            referred.append(random_.choice(referred))
    for name in names[:: random_.randint(1, 5)]:
        graph[name].append(name)
    random_.shuffle(names)
    return {name: graph[name] for name in names}


def chain(size: int) -> dict[str, list[str]]:
    return {f"{n:06}": [f"{n + 1:06}"] if n + 1 < size else [] for n in range(size)}


def test_vector() -> None:
    graph = {"A": "BG", "B": "CE", "C": "DE", "D": "F", "E": "F", "F": "", "G": ""}
    expected = [("F", 9), ("E", 5), ("D", 4), ("C", 3), ("B", 2), ("G", 2), ("A", 1)]
    assert list(popularity(graph).items()) == expected
    assert by_the_letter(graph) == expected


def test_same_as_the_rule_by_the_letter() -> None:
    random_ = random.Random(1)
    for _ in range(5000):
        graph = random_graph(random_)
        assert list(popularity(graph).items()) == by_the_letter(graph), graph


def test_same_as_the_rule_by_the_letter_in_bigger_graphs() -> None:
    random_ = random.Random(2)
    for size, most in [(40, 2), (60, 60), (150, 4), (300, 10)]:
        graph = {
            f"{n}": [f"{d}" for d in random_.sample(range(n), min(n, random_.randint(0, most)))]
            for n in range(size)
        }
        assert list(popularity(graph).items()) == by_the_letter(graph)


def test_order_of_the_input_does_not_matter() -> None:
    random_ = random.Random(3)
    graph = {f"/x/{n}-{n % 4}": [f"/x/{d}-{d % 4}" for d in range(n // 2)] for n in range(12)}
    expected = list(popularity(graph).items())
    for _ in range(20):
        items = list(graph.items())
        random_.shuffle(items)
        shuffled = {path: random_.sample(refs, len(refs)) for path, refs in items}
        assert list(popularity(shuffled).items()) == expected


def test_nothing_and_one() -> None:
    assert popularity({}) == {}
    assert popularity({"a": []}) == {"a": 1}


def test_self_references_and_repetitions_do_not_count() -> None:
    assert popularity({"a": ["a", "b", "b"], "b": ["b"]}) == popularity({"a": ["b"], "b": []})


def test_references_may_be_iterators() -> None:
    assert popularity({"a": iter("bb"), "b": iter("")}) == {"b": 2, "a": 1}


def test_ties_go_by_name_then_hash() -> None:
    paths = ["/nix/store/1-b", "/nix/store/2-a-1", "/nix/store/1-a-2", "/nix/store/1-a-1"]
    assert list(popularity({path: [] for path in paths})) == [
        "/nix/store/1-a-1",
        "/nix/store/2-a-1",
        "/nix/store/1-a-2",
        "/nix/store/1-b",
    ]
    assert tie_key("/nix/store/1-a-2")[0] == "a-2-/nix/store/1"


def test_unknown_reference() -> None:
    with pytest.raises(ValueError, match="^/x/a refers to /x/b, which is not a path"):
        popularity({"/x/a": ["/x/c", "/x/b"]})


@pytest.mark.parametrize(
    ("graph", "cycle"),
    [
        ({"a": "b", "b": "a"}, "a -> b -> a"),
        ({"r": "c", "c": "b", "b": "a", "a": "cx", "x": "y", "y": ""}, "a -> c -> b -> a"),
        ({"a": "b", "b": "cd", "c": "b", "d": ""}, "b -> c -> b"),
    ],
)
def test_cycle(graph: dict[str, str], cycle: str) -> None:
    with pytest.raises(ValueError, match=f"in a cycle: {re.escape(cycle)}\\.$"):
        popularity(graph)


def test_big_cycle() -> None:
    with pytest.raises(ValueError, match="in a cycle: 000000 -> 000001 -> .* -> 000000"):
        popularity({**chain(3000), "002999": ["000000"]})


@pytest.mark.parametrize("size", [5000, 20000])
def test_deep_chain(size: int) -> None:
    scores = popularity(chain(size))
    assert list(scores.values()) == list(range(size, 0, -1))
    assert next(iter(scores)) == f"{size - 1:06}"


def test_scores_stay_exact_beyond_machine_words() -> None:
    """In a complete graph the number of ways down doubles with every node."""
    size = 200
    graph = {f"{n:03}": [f"{d:03}" for d in range(n + 1, size)] for n in range(size)}
    assert popularity(graph) == {f"{n:03}": 2**n for n in range(size)}
