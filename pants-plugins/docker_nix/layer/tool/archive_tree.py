"""What an archive unpacks to: the rules for names, duplicates and links. No input or output.

The rules are those of unpacking with GNU tar (the last of several members of one name wins, a hard
link names an earlier member), except that whatever could leave the tree, or could come out
differently from one unpacker to the next, is an error.
"""

from __future__ import annotations

from typing import Any, NamedTuple

MAX_COMPONENT_BYTES = 255
MAX_PATH_BYTES = 4095


class BadMember(Exception):
    """A member that cannot be part of the tree; the text follows "member <name>"."""


class Node(NamedTuple):
    """What lies at a path: `kind` is "f", "x" (executable), "l" (with its `target`) or "d".

    `content` is what the caller wants to remember of a file.
    """

    kind: str
    target: str = ""
    content: Any = None


def normalise(name: str) -> str:
    """The path that a member called `name` unpacks to, "" for the root of the tree.

    Raises `BadMember` for a name that is absolute, leaves the tree, or that no store path can hold.
    """
    if not name:
        raise BadMember("has an empty name; repack the archive without it")
    if "\0" in name:
        raise BadMember("has a NUL byte in its name; rename it and repack the archive")
    if name.startswith("/"):
        raise BadMember("has an absolute name; repack the archive with relative names")
    components = [part for part in name.split("/") if part not in ("", ".")]
    for part in components:
        if part == "..":
            raise BadMember(
                'has ".." in its name; repack the archive without leaving its directory'
            )
        if part.startswith(".wh."):
            raise BadMember(
                'has a name starting with ".wh.", which marks a deletion in image layers; '
                "rename it and repack the archive"
            )
        if len(_utf8(part)) > MAX_COMPONENT_BYTES:
            raise BadMember(
                f"has a file name of more than {MAX_COMPONENT_BYTES} bytes; shorten it and repack"
            )
    path = "/".join(components)
    if len(_utf8(path)) > MAX_PATH_BYTES:
        raise BadMember(f"has a path of more than {MAX_PATH_BYTES} bytes; shorten it and repack")
    return path


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise BadMember(
            "has a name that is not UTF-8; names must be UTF-8: rename it and repack"
        ) from None


class Tree:
    """The tree that the members added so far unpack to. Every `add` raises `BadMember` on conflict.

    Paths are as `normalise` returns them.
    """

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._parents: set[str] = set()

    def get(self, path: str) -> Node | None:
        """What lies at `path`, none if nothing does or only a directory that is implied."""
        return self._nodes.get(path)

    def check(self, path: str, kind: str) -> None:
        """Raises `BadMember` if an entry of `kind` cannot be added at `path`."""
        if not path:
            if kind != "d":
                raise BadMember(
                    "is the root of the archive but not a directory; repack the archive"
                )
            return
        if kind != "d" and path in self._parents:
            raise BadMember(self._clash(path))
        old = self._nodes.get(path)
        if old and (old.kind == "d") != (kind == "d"):
            raise BadMember(self._clash(path))
        for parent in _parents(path):
            if parent in self._parents:
                return  # checked when it was added
            node = self._nodes.get(parent)
            if node and node.kind == "l":
                raise BadMember(
                    f"would be written through the symlink {parent!r} -> {node.target!r}; "
                    "repack the archive with the real path"
                )
            if node and node.kind != "d":
                raise BadMember(self._clash(parent))

    def add(self, path: str, node: Node) -> None:
        """Puts `node` at `path`, replacing an earlier file or symlink there."""
        self.check(path, node.kind)
        if not path:
            return
        self._nodes[path] = node
        for parent in _parents(path):
            if parent in self._parents:
                break
            self._parents.add(parent)

    def linked(self, name: str) -> tuple[str, Node]:
        """The path and the node that a hard link to the member `name` makes a copy of."""
        try:
            path = normalise(name)
        except BadMember as error:
            raise BadMember(f"is a hard link to {name!r}, which {error}") from None
        node = self._nodes.get(path)
        if node is None or node.kind == "d":
            raise BadMember(
                f"is a hard link to {name!r}, which is not an earlier file of the archive; "
                "repack the archive with all of its files"
            )
        return path, node

    def entries(self) -> list[tuple[str, Node]]:
        """All files and symlinks, and the empty directories, sorted by the bytes of their paths."""
        kept = (
            (path, node)
            for path, node in self._nodes.items()
            if node.kind != "d" or path not in self._parents
        )
        return sorted(kept, key=lambda entry: entry[0].encode())

    @staticmethod
    def _clash(path: str) -> str:
        return (
            f"makes {path!r} a directory and something else at once; remove one of the two members"
        )


def symlink(target: str) -> Node:
    """A symlink to `target`, kept as it is. Raises `BadMember` for what no symlink can hold."""
    if not target:
        raise BadMember("is a symlink without a target; remove it and repack the archive")
    if "\0" in target:
        raise BadMember("is a symlink with a NUL byte in its target; repack the archive")
    try:
        size = len(target.encode())
    except UnicodeEncodeError:
        raise BadMember("is a symlink whose target is not UTF-8; repack the archive") from None
    if size > MAX_PATH_BYTES:
        raise BadMember(f"is a symlink with a target of more than {MAX_PATH_BYTES} bytes; repack")
    return Node("l", target)


def _parents(path: str) -> list[str]:
    """The directories above `path`, the nearest first, without the root."""
    found = []
    slash = path.rfind("/")
    while slash > 0:
        found.append(path[:slash])
        slash = path.rfind("/", 0, slash)
    return found
