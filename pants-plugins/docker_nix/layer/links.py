"""The link farm: what the customisation layer puts at `/` for the contents of an image.

Directories are real directories, so that contents merge and programs can write beside the links;
files are links into the store. A symlink among the contents stays what it was.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Dict, Iterable, List, Mapping, Optional, Sequence, Tuple


@dataclass(frozen=True)
class Entry:
    """One entry of a tree, by its path relative to the tree's root.

    :param kind: `f` a file, `x` an executable file, `l` a symlink, `d` an empty directory.
    :param target: the text of a symlink.
    :param sha256: the digest of a file's bytes, in hexadecimal.
    """

    kind: str
    path: str
    target: str = ""
    sha256: str = ""
    size: int = 0

    @property
    def what(self) -> str:
        if self.kind == "l":
            return f"a symlink to {self.target}"
        if self.kind == "d":
            return "a directory"
        return "an executable file" if self.kind == "x" else "a file"


class Collision(ValueError):
    """Two contents that want different things at one path."""


def _parents(path: str) -> Iterable[str]:
    while True:
        path = posixpath.dirname(path)
        if not path:
            return
        yield path


def _escapes(path: str, target: str) -> bool:
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


def link_farm(
    trees: Sequence[Tuple[str, Sequence[Entry]]], origins: Mapping[str, str]
) -> Tuple[Tuple[str, ...], ...]:
    """The entries of the customisation layer: `("d", path)` and `("l", path, target)`, sorted.

    :param trees: store path and entries of each content, in the order of `contents`.
    :param origins: what to call a store path's content in an error, by store path.

    The same file in two contents is linked once, to the first of them. Raises Collision where two
    contents have different files, or a file and a directory, at the same path.
    """
    owner: Dict[str, Tuple[str, Entry]] = {}
    directories: Dict[str, str] = {}

    def clash(path: str, first: str, was: str, second: str, entry: str) -> Collision:
        return Collision(
            f"/{path} is {was} in {origins[first]} and {entry} in {origins[second]}"
        )

    for store_path, entries in trees:
        for entry in entries:
            own = [*_parents(entry.path)] + ([entry.path] if entry.kind == "d" else [])
            for directory in own:
                if directory in owner:
                    first, was = owner[directory]
                    raise clash(directory, first, was.what, store_path, "a directory")
                directories.setdefault(directory, store_path)
            if entry.kind == "d":
                continue
            if entry.path in directories:
                raise clash(
                    entry.path, directories[entry.path], "a directory", store_path, entry.what
                )
            earlier = owner.setdefault(entry.path, (store_path, entry))
            if earlier[1] != entry:
                first, was = earlier
                difference = " with other content" if was.what == entry.what else ""
                raise clash(entry.path, first, was.what, store_path, entry.what + difference)

    links: List[Tuple[str, ...]] = [("d", path) for path in directories]
    for path, (store_path, entry) in owner.items():
        if entry.kind == "l" and (
            entry.target.startswith("/") or not _escapes(path, entry.target)
        ):
            links.append(("l", path, entry.target))
        else:
            links.append(("l", path, f"{store_path}/{path}"))
    return tuple(sorted(links, key=lambda link: link[1].encode("utf-8", "surrogateescape")))


_NAME_MAX = 255
_PATH_MAX = 4095


def unfit_entry(store_path: str, entries: Iterable[Entry]) -> Optional[str]:
    """Why a tree cannot be part of an image, naming the entry; None where it can."""
    for entry in entries:
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
