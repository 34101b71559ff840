"""Layers applied one over the other in memory: what lies where, without the content of files.

Source of the rules: OCI image-spec, layer.md. What it leaves open is done as follows.

- Whiteouts and opaque directories hide what lower layers have, wherever in their layer they stand.
- A path whose directory is a symlink leads where the symlink leads inside the image, as Docker and
  umoci have it where they unpack one layer over the other. A directory, however, takes the place of
  a symlink at its own path.
- Any member takes the place of what was at its path, with all that was below it, except that a
  directory over a directory keeps the files in it.
- Missing parents are directories of root with mode 0755.
- A hard link is one more name of a file; its own mode, owner and attributes mean nothing.
"""

from __future__ import annotations

from typing import Any, Callable, Iterable, Iterator

from docker_nix.layer.tool.entries import show
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.layer_members import Change, Member, Opaque, Whiteout

_MAX_SYMLINKS = 40  # on the way to one path, as in Linux


class Node:
    """What lies at one or, as files do that are hard links of one another, several paths.

    :param kind: as in `Member`; "h" only for a hard link to a file that is not in the tree.
    :param content: what is remembered of a file.
    :param implied: for a directory, that no layer has it: it is there for what is below it.

    The rest is as in `Member`.
    """

    __slots__ = (
        "kind",
        "mode",
        "uid",
        "gid",
        "mtime",
        "size",
        "link",
        "device",
        "xattrs",
        "content",
        "children",
        "implied",
    )

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.mode = 0o755
        self.uid = self.gid = self.size = 0
        self.mtime: float = 0
        self.link = b""
        self.device = (0, 0)
        self.xattrs: dict[bytes, bytes] = {}
        self.content: Any = None
        self.children: dict[bytes, Node] = {}
        self.implied = True

    def describe(self, member: Member, content: Any) -> None:
        """Gives it all that the member has."""
        self.mode, self.uid, self.gid = member.mode, member.uid, member.gid
        self.mtime = member.mtime
        self.size, self.link, self.device = member.size, member.link, member.device
        self.xattrs, self.content, self.implied = member.xattrs, content, False


class FileTree:
    """The file system that the layers applied so far are.

    With `all_layers` false, there are layers below that are not known: a hard link may then name
    a file that is not there.
    """

    def __init__(self, all_layers: bool = True) -> None:
        self.root = Node("d")
        self._all_layers = all_layers

    def apply(
        self,
        changes: Iterable[Change],
        keep: Callable[[Member], Any],
        title: str = "the layer",
    ) -> None:
        """Applies a layer.

        `keep` is called for each file while its data can be read; what it returns becomes the
        `content` of the node. Raises `ToolError`, which starts with `title`, where a member cannot
        be put into the tree. What reading the changes raises comes before the tree is touched.
        """
        members = []
        marks = []
        for change in changes:
            if isinstance(change, Member):
                members.append((change, keep(change) if change.kind == "f" else None))
                change.data = None
            else:
                marks.append(change)
        self._hide(marks, {member.path for member, _ in members if member.kind == "d"})
        for member, content in members:
            try:
                self._add(member, content)
            except _BadPath as error:
                raise ToolError(f"{title}: the member {show(member.path)} {error}") from None

    def entries(self) -> list[tuple[bytes, Node]]:
        """All paths but the root, with what is there; sorted bytewise, so that parents come first.

        Paths of hard links to one another have the same node.
        """
        found = []
        directories = [(b"", self.root)]
        while directories:
            path, directory = directories.pop()
            for name, node in directory.children.items():
                below = b"%s/%s" % (path, name) if path else name
                found.append((below, node))
                if node.kind == "d":
                    directories.append((below, node))
        found.sort(key=lambda entry: entry[0])
        return found

    def _hide(self, marks: list[Whiteout | Opaque], own: set[bytes]) -> None:
        """Removes what the whiteouts and opaque directories of a layer hide.

        `own` are the layer's own directories: they take the place of symlinks in lower layers, so
        that a mark below them is not about what is behind the symlink.
        """
        # They are all found before the first is removed, which may be a symlink on the way.
        hidden = []
        for mark in marks:
            is_whiteout = isinstance(mark, Whiteout)
            path, _, name = mark.path.rpartition(b"/") if is_whiteout else (mark.path, b"", b"")
            if any(self._is_symlink(above) for above in _with_parents(path) if above in own):
                continue
            try:
                directory = self._directory(path, create=False)
            except _BadPath:
                continue
            if directory:
                hidden.append((directory, name))
        for directory, name in hidden:
            if name:
                directory.children.pop(name, None)
            else:
                directory.children.clear()

    def _is_symlink(self, path: bytes) -> bool:
        try:
            node = self._find(path)
        except _BadPath:
            return False
        return node is not None and node.kind == "l"

    def _add(self, member: Member, content: Any) -> None:
        if not member.path:
            self.root.describe(member, None)
            return
        path, _, name = member.path.rpartition(b"/")
        directory = self._directory(path, create=True)
        assert directory is not None
        directory.children[name] = self._node(directory.children.get(name), member, content)

    def _node(self, old: Node | None, member: Member, content: Any) -> Node:
        """What lies at a member's path once it is there, where `old` was."""
        if member.kind == "h":
            target = self._linked(member.link)
            if target:
                return target
        node = old if old and old.kind == member.kind == "d" else Node(member.kind)
        node.describe(member, content)
        return node

    def _linked(self, path: bytes) -> Node | None:
        node = self._find(path)
        if node is None:
            if self._all_layers:
                raise _BadPath(f"is a hard link to {show(path)}, which is not there")
        elif node.kind == "d":
            raise _BadPath(f"is a hard link to the directory {show(path)}")
        return node

    def _find(self, path: bytes) -> Node | None:
        """What lies at `path`, without following a symlink there."""
        parent, _, name = path.rpartition(b"/")
        directory = self._directory(parent, create=False)
        return directory.children.get(name) if directory else None

    def _directory(self, path: bytes, create: bool) -> Node | None:
        """The directory that `path` leads to inside the tree; None if it is not there.

        With `create` it is made where it is not there. Raises `_BadPath` where something else is.
        """
        # From the root to where the path has led so far; what is not there has no node.
        trail: list[tuple[bytes, Node | None]] = [(b"", self.root)]
        parts = path.split(b"/")[::-1]
        symlinks = 0
        while parts:
            part = parts.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                if len(trail) > 1:
                    trail.pop()
                continue
            above = trail[-1][1]
            node = above.children.get(part) if above else None
            if node and node.kind == "l":
                symlinks += 1
                if symlinks > _MAX_SYMLINKS:
                    raise _BadPath("lies behind too many symlinks, or ones that lead in a circle")
                if node.link.startswith(b"/"):
                    del trail[1:]
                parts += node.link.split(b"/")[::-1]
            elif node and node.kind != "d":
                raise _BadPath(f"lies below {show(part)}, which is not a directory")
            else:
                trail.append((part, node))
        directory = self.root
        for part, node in trail[1:]:
            if node is None:
                if not create:
                    return None
                node = directory.children[part] = Node("d")
            directory = node
        return directory


class _BadPath(Exception):
    """Why nothing can lie at a path; the text follows it."""


def _with_parents(path: bytes) -> Iterator[bytes]:
    while path:
        yield path
        path = path.rpartition(b"/")[0]
