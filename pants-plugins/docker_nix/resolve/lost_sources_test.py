from __future__ import annotations

import pytest

from docker_nix.resolve.lost_sources import depth_of, fixed_directory, parents


def test_parents() -> None:
    assert parents(["a/b/c", "a/d", "e"]) == {"a", "a/b"}


def test_depth() -> None:
    assert depth_of(["a/*.txt", "a/b/c/*"]) == 3
    assert depth_of(["a/**", "b"]) is None
    assert depth_of([]) == 0


@pytest.mark.parametrize(
    "pattern, directory",
    [
        ("*.txt", ""),
        ("a/b/*.txt", "a/b"),
        ("a/b.txt", "a"),
        ("a/**", "a"),
        ("a/**/c/d", "a"),
        ("a/x*/c", "a"),
        ("a/[xy]/c", "a"),
    ],
)
def test_fixed_directory(pattern: str, directory: str) -> None:
    assert fixed_directory(pattern) == directory
