from __future__ import annotations

import random
from pathlib import Path

import pytest

from docker_nix.layer.tool import nar_order
from docker_nix.layer.tool.entries import Entry, tree_entries
from docker_nix.layer.tool.nar import nar_hash_of_tree
from docker_nix.layer.tool.nar_order import NarOrder
from docker_nix.layer.tool.tar_format import FILE

TOP = b"nix/store/x"


def _make_tree(directory: Path, files: dict[str, bytes], links: dict[str, str]) -> list[Entry]:
    for path, content in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(content)
        (directory / path).chmod(0o755 if path.endswith("x") else 0o644)
    for path, target in links.items():
        (directory / path).symlink_to(target)
    manifest = [["x" if path.endswith("x") else "f", path] for path in files]
    manifest += [["l", path, target] for path, target in links.items()]
    return list(tree_entries(manifest, TOP, str(directory).encode()).values())


def _in_tar_order(entries: list[Entry]) -> tuple[str, int]:
    """The hash, from the entries as packing gives them."""
    nar = NarOrder(TOP, random.Random(1).sample(entries, len(entries)))
    for entry in sorted(entries, key=lambda entry: entry.name):
        if entry.kind == FILE:
            content = Path(entry.path.decode()).read_bytes()
            data = nar.begin_file(entry, len(content))
            for start in range(0, len(content), 1000):
                data(memoryview(content)[start : start + 1000])
            nar.end_file(entry)
        else:
            nar.add(entry)
    return nar.finish()


FILES = {
    "foo/a": b"a" * 2500,
    "foo/z-x": b"",
    "foo-1.0.dist-info/RECORD": b"r" * 1500,
    "foo-1.0.dist-info/x": b"x",
    "foo.libs/lib.so": b"l" * 5000,
    "foo0": b"0",
    "foo+": b"+" * 3000,
    "bar!": b"!",
    "bar/b": b"b" * 10,
    "bar/b.c": b"c",
    "bar-/b": b"b",
}
LINKS = {"foo-l": "foo", "foo/l": "../nowhere", "foo-1.0.dist-info/l": "x"}


@pytest.mark.parametrize("cache_size, max_file", [(1 << 20, 1 << 20), (0, 0), (4000, 2000)])
def test_the_hash_is_that_of_the_tree(
    cache_size: int, max_file: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nar_order, "CACHE_SIZE", cache_size)
    monkeypatch.setattr(nar_order, "MAX_CACHED_FILE", max_file)
    assert _in_tar_order(_make_tree(tmp_path, FILES, LINKS)) == nar_hash_of_tree(tmp_path)


def test_random_trees(tmp_path: Path) -> None:
    rng = random.Random(7)
    for number in range(20):
        directory = tmp_path / str(number)
        files = {}
        for _ in range(40):
            parts = ["".join(rng.choices("ab-.!0", k=rng.randint(1, 3))) for _ in range(3)]
            parts = [f"{part}d" for part in parts[:-1]] + [f"{parts[-1]}f"]
            files["/".join(parts[rng.randint(0, 2) :])] = bytes(rng.randint(0, 3000))
        entries = _make_tree(directory, files, {})
        assert _in_tar_order(entries) == nar_hash_of_tree(directory)


def test_what_is_in_order_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nar_order, "_EarlyFile", None)
    _in_tar_order(_make_tree(tmp_path, {"a/b": b"1", "a/c/d": b"2", "a0": b"3"}, {}))


@pytest.mark.parametrize("manifest", [["x", ""], ["l", "", "/target"]])
def test_a_single_node(manifest: list[str], tmp_path: Path) -> None:
    path = tmp_path / "node"
    if manifest[0] == "x":
        path.write_bytes(b"content")
        path.chmod(0o755)
    else:
        path.symlink_to(manifest[2])
    entries = list(tree_entries([manifest], TOP, str(path).encode()).values())
    assert _in_tar_order(entries) == nar_hash_of_tree(path)
