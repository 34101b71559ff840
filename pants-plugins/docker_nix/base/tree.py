"""The files of a base image, as the indexes of its layers say they are. Pure."""

from __future__ import annotations

import posixpath
from typing import (
    Any,
    Dict,
    FrozenSet,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
)

from docker_nix.layer.store_path_info import StorePathInfo
from docker_nix.layer.tool.file_tree import FileTree, Node
from docker_nix.layer.tool.layer_members import Change, Member, Opaque, Whiteout

_STORE = "nix/store/"
_WHAT = {
    "f": "a file",
    "h": "a file",
    "l": "a symlink",
    "c": "a device",
    "b": "a device",
    "p": "a named pipe",
}


class BaseTree:
    """All paths of an image, without the content of files. Paths have no leading slash, but for
    `store_paths`, the store paths that it has.

    It is the `BaseFiles` that a link farm asks.
    """

    def __init__(self, tree: FileTree, registered: Iterable[Sequence[Any]] = ()) -> None:
        self._registered = registered
        self._nodes: Dict[str, Node] = {
            path.decode("utf-8", "surrogateescape"): node for path, node in tree.entries()
        }
        self.store_paths: FrozenSet[str] = frozenset(
            f"/{path}"
            for path in self._nodes
            if path.startswith(_STORE) and "/" not in path[len(_STORE) :]
        )

    @classmethod
    def of(cls, indexes: Iterable[Mapping[str, Any]]) -> BaseTree:
        """The tree of the layers with these indexes, the lowest first.

        Raises `ToolError` where they cannot be put on top of one another.
        """
        tree = FileTree()
        registered: Iterable[Sequence[Any]] = ()
        for number, index in enumerate(indexes, start=1):
            hashes = {entry[1]: entry[6] for entry in index["entries"] if entry[0] == "f"}
            tree.apply(
                _changes(index),
                lambda member, hashes=hashes: hashes[_text(member.path)],  # type: ignore[misc]
                f"layer {number} ({index['diff_id']})",
            )
            registered = index.get("nix_db", registered)
        return cls(tree, registered)

    @property
    def registered_paths(self) -> Tuple[StorePathInfo, ...]:
        """The store paths that it has, and that are valid in its Nix database."""
        there = self.store_paths
        return tuple(
            StorePathInfo(path, nar_hash, nar_size, tuple(references))
            for path, nar_hash, nar_size, references in self._registered
            if path in there
        )

    def what(self, path: str) -> Optional[str]:
        node = self._nodes.get(path)
        return _WHAT[node.kind] if node and node.kind != "d" else None

    def symlink(self, path: str) -> Optional[str]:
        node = self._nodes.get(path)
        return _text(node.link) if node and node.kind == "l" else None

    def directory(self, path: str) -> Optional[Tuple[int, int, int]]:
        node = self._nodes.get(path)
        return (node.mode, node.uid, node.gid) if node and node.kind == "d" else None

    def owner(self, path: str) -> Optional[Tuple[int, int]]:
        node = self._nodes.get(path)
        return (node.uid, node.gid) if node else None

    def entries(self) -> Iterator[List[Any]]:
        """All paths but those of the store, sorted, in the form of a layer index."""
        for path, node in self._nodes.items():
            if posixpath.dirname(f"{path}/").startswith(_STORE[:-1]):
                continue
            entry: List[Any] = [node.kind, path, node.mode, node.uid, node.gid]
            if node.kind == "f":
                entry += [node.size, node.content]
            elif node.kind in "lh":
                entry.append(_text(node.link))
            yield entry


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _changes(index: Mapping[str, Any]) -> Iterator[Change]:
    for path in index["whiteouts"]:
        yield Whiteout(_bytes(path))
    for path in index["opaque"]:
        yield Opaque(_bytes(path))
    for kind, path, mode, uid, gid, *more in index["entries"]:
        member = Member(kind, _bytes(path), mode, uid, gid)
        if kind == "f":
            member.size = more[0]
        elif kind in "lh":
            member.link = _bytes(more[0])
        yield member
