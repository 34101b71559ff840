"""The link farm: what the customisation layer puts at `/` for the contents of an image.

Directories are real directories, so that contents merge and programs can write beside the links;
files are links into the store. A symlink among the contents stays what it was. On a base image,
what it has stays too: its symlinks to directories are followed, its directories keep their modes.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, replace
from typing import (
    Any,
    Dict,
    Iterable,
    Iterator,
    Mapping,
    Optional,
    Protocol,
    Sequence,
    Tuple,
    Union,
)

from docker_nix.layer.tool.symlinks import follow


@dataclass(frozen=True)
class Entry:
    """One entry of a tree, by its path relative to the tree's root.

    :param kind: `f` a file, `x` an executable file, `l` a symlink, `d` an empty directory.
    :param target: the text of a symlink.
    :param sha256: the digest of a file's bytes, in hexadecimal; empty where it is not known.
    """

    kind: str
    path: str
    target: str = ""
    sha256: str = ""
    size: int = 0

    @classmethod
    def parse(cls, item: Sequence[Any]) -> Entry:
        """An entry as the layer tool's `archive.listing` has it."""
        kind, path, *rest = item
        if kind == "l":
            return cls(kind, path, target=rest[0])
        return cls(kind, path, size=rest[0], sha256=rest[1]) if rest else cls(kind, path)

    @property
    def what(self) -> str:
        if self.kind == "l":
            return f"a symlink to {self.target}"
        if self.kind == "d":
            return "a directory"
        return "an executable file" if self.kind == "x" else "a file"


# `("d", path)`, with the mode, uid and gid of a directory that the base image has, or
# `("l", path, target)`.
Link = Tuple[Union[str, int], ...]


class BaseFiles(Protocol):
    """What must be known of the files of a base image, by their paths without a leading slash."""

    def what(self, path: str) -> Optional[str]:
        """What is at `path`, in words; None for nothing and for a directory."""

    def symlink(self, path: str) -> Optional[str]:
        """The text of the symlink at `path`, None for anything else."""

    def directory(self, path: str) -> Optional[Tuple[int, int, int]]:
        """The mode, uid and gid of the directory at `path`, None for anything else."""

    def owner(self, path: str) -> Optional[Tuple[int, int]]:
        """The uid and gid of what is at `path`."""


class Collision(ValueError):
    """Two contents that want different things at one path."""


class BaseCollision(Collision):
    """A content that wants something else at a path than the base image has there."""


class HashesNeeded(Exception):
    """Whether two files are the same cannot be told without the hashes of these store paths."""

    def __init__(self, *store_paths: str) -> None:
        super().__init__(*store_paths)
        self.store_paths = store_paths


def _parents(path: str) -> Iterable[str]:
    while True:
        path = posixpath.dirname(path)
        if not path:
            return
        yield path


def escapes(path: str, target: str) -> bool:
    """Whether a relative symlink at `path` with the text `target` may lead out of its tree."""
    depth = path.count("/")
    for part in target.split("/"):
        if part == "..":
            depth -= 1
            if depth < 0:
                return True
        elif part not in ("", "."):
            depth += 1
    return False


class _LinkedDirectories:
    """Where directories lie once the symlinks of all contents are followed.

    A root file system has `bin -> usr/bin`; the `bin/app` of another content belongs beside the
    other programs then, not into a directory that takes the place of the link.
    """

    def __init__(
        self, trees: Sequence[Tuple[str, Sequence[Entry]]], base: Optional[BaseFiles]
    ) -> None:
        self._base = base
        links = [entry for _, entries in trees for entry in entries if entry.kind == "l"]
        self._links = {entry.path: entry.target for entry in links}
        self._memo: Dict[str, Optional[str]] = {"": ""}
        # A link may itself lie below a linked directory.
        placed = {self.place(entry.path): entry.target for entry in links}
        self._links = {**{path: to for path, to in placed.items() if path}, **self._links}
        self._memo = {"": ""}

    def place(self, path: str) -> Optional[str]:
        """Where the entry `path` lies; None where links lead into the store or in a circle."""
        directory, _, name = path.rpartition("/")
        if directory not in self._memo:
            self._memo[directory] = self._follow(directory)
        followed = self._memo[directory]
        return f"{followed}/{name}" if followed else (None if followed is None else name)

    def _follow(self, directory: str) -> Optional[str]:
        place, by_symlink = follow(directory, self._symlink)
        in_store = place is not None and f"{place}/".startswith("nix/store/")
        return None if by_symlink and in_store else place

    def _symlink(self, path: str) -> Optional[str]:
        target = self._links.get(path)
        return self._base.symlink(path) if target is None and self._base else target


def link_farm(
    trees: Sequence[Tuple[str, Sequence[Entry]]],
    origins: Mapping[str, str],
    base: Optional[BaseFiles] = None,
    owner_ids: Tuple[int, int] = (0, 0),
) -> Tuple[Link, ...]:
    """The entries of the customisation layer, sorted.

    :param trees: store path and entries of each content, in the order of `contents`.
    :param origins: what to call a store path's content in an error, by store path.
    :param owner_ids: uid and gid of the entries, which tell whether the base has the same.

    The same file in two contents is linked once, to the first of them. Where one content, or the
    base, has a symlink to a directory and another a directory, the other's files go where the link
    leads. What the base has already is left out.

    Raises Collision where two contents have different files, or a file and a directory, at the
    same path, or one would hide a directory of the base, and HashesNeeded where that cannot be
    told.
    """
    linked = _LinkedDirectories(trees, base)
    owner: Dict[str, Tuple[str, Entry]] = {}
    directories: Dict[str, str] = {}

    def clash(path: str, first: str, was: str, second: str, entry: str) -> Collision:
        return Collision(f"/{path} is {was} in {origins[first]} and {entry} in {origins[second]}")

    for store_path, entries in trees:
        for entry in entries:
            place = linked.place(entry.path + "/." if entry.kind == "d" else entry.path)
            if place is None:
                whose = "another content or the base image" if base else "another content"
                raise Collision(
                    f"/{entry.path} of {origins[store_path]} lies below a symlink of {whose} that "
                    "leads into the store or in a circle"
                )
            for directory in _parents(place):
                if directory in directories:
                    break  # and so are those above it
                if directory in owner:
                    first, was = owner[directory]
                    raise clash(directory, first, was.what, store_path, "a directory")
                directories[directory] = store_path
            if entry.kind == "d":
                continue
            if place in directories:
                raise clash(place, directories[place], "a directory", store_path, entry.what)
            first, was = owner.setdefault(place, (store_path, entry))
            if first != store_path and was.kind == entry.kind != "l" and was.size == entry.size:
                unknown = [path for path, e in ((first, was), (store_path, entry)) if not e.sha256]
                if unknown:
                    raise HashesNeeded(*unknown)
            if was is not entry and replace(was, path="") != replace(entry, path=""):
                difference = " with other content" if was.what == entry.what else ""
                raise clash(place, first, was.what, store_path, entry.what + difference)

    links = list(_links(owner, origins, base, owner_ids))
    for path, store_path in directories.items():
        was_there = base.what(path) if base else None
        if was_there is not None:
            raise BaseCollision(
                f"/{path} is {was_there} in the base image and a directory in {origins[store_path]}"
            )
    links += _directories(directories, [str(link[1]) for link in links], base)
    return tuple(sorted(links, key=lambda link: str(link[1]).encode("utf-8", "surrogateescape")))


def _links(
    owner: Mapping[str, Tuple[str, Entry]],
    origins: Mapping[str, str],
    base: Optional[BaseFiles],
    owner_ids: Tuple[int, int],
) -> Iterator[Link]:
    """The links for the entries at each place, but for those that the base has."""
    for place, (store_path, entry) in owner.items():
        stays = entry.target.startswith("/") or (
            place == entry.path and not escapes(place, entry.target)
        )
        target = entry.target if entry.kind == "l" and stays else f"{store_path}/{entry.path}"
        if base:
            if (base.symlink(place), base.owner(place)) == (target, owner_ids):
                continue
            followed, by_symlink = follow(place, base.symlink)
            if followed is not None and base.directory(followed):
                beside = posixpath.join(posixpath.dirname(place), entry.target)
                if entry.kind == "l" and by_symlink and follow(beside, base.symlink)[0] == followed:
                    continue  # another spelling, such as `/usr/bin` for `usr/bin`
                raise BaseCollision(
                    f"/{place} is a directory in the base image and {entry.what} in "
                    f"{origins[store_path]}"
                )
        yield ("l", place, target)


def _directories(
    directories: Iterable[str], places: Iterable[str], base: Optional[BaseFiles]
) -> Iterable[Link]:
    """The directories that the layer must have: new ones, and those above what it has."""
    if base is None:
        yield from (("d", path) for path in directories)
        return
    needed = {directory for place in places for directory in _parents(place)}
    for path in directories:
        if not base.directory(path):
            needed.update((path, *_parents(path)))
    for path in needed:
        yield ("d", path, *(base.directory(path) or ()))


_NAME_MAX = 255
_PATH_MAX = 4095


def unfit_entry(store_path: str, entries: Iterable[Entry], at_root: bool) -> Optional[str]:
    """Why a tree cannot be part of an image, naming the entry; None where it can.

    :param at_root: whether the tree appears at `/` as well.
    """
    for entry in entries:
        in_store = f"{entry.path}/".startswith("nix/store/")
        if at_root and (in_store or (entry.path == "nix" and entry.kind != "d")):
            return f"has {entry.path!r}, where the image keeps its store paths"
        for part in entry.path.split("/"):
            if part.startswith(".wh."):
                return (
                    f"has {entry.path!r}, a name that layers reserve for deleted files (OCI "
                    "image-spec, 'Whiteouts')"
                )
            if len(part.encode("utf-8", "surrogateescape")) > _NAME_MAX:
                return f"has a name of more than {_NAME_MAX} bytes: {part!r}"
        length = len(f"{store_path}/{entry.path}".encode("utf-8", "surrogateescape"))
        if length > _PATH_MAX:
            return (
                f"has a path of {length} bytes in the image, more than the {_PATH_MAX} that Linux "
                f"takes: {entry.path[:80]!r}…"
            )
    return None
