"""Symlinks to directories among the contents of an image, as directories of their own at `/`."""

from __future__ import annotations

from typing import Dict, Iterable, Iterator, List, Optional, Sequence, Tuple, Union

from docker_nix.layer.links import Entry, escapes
from docker_nix.layer.tool.symlinks import follow

MOST_ENTRIES = 1_000_000


class TooManyEntries(ValueError):
    """Symlinks that multiply: each of some directories holds several to the next, and so on."""


def expand_dirlinks(store_path: str, entries: Sequence[Entry]) -> Tuple[Entry, ...]:
    """The entries with each symlink to a directory replaced by what that directory holds.

    A symlink stays where it leads out of the tree, to something that is not a directory, or to a
    directory that it lies in, which would have no end. Files below a former symlink keep their
    path, which the store has as well, through the symlink; symlinks become ones to the store.
    Raises TooManyEntries.
    """
    tree = _Tree(entries)
    expanded: List[Entry] = []
    for entry in tree.expand("", "", ()):
        expanded.append(entry.linked_to(store_path) if isinstance(entry, _Moved) else entry)
        if len(expanded) > MOST_ENTRIES:
            raise TooManyEntries(f"more than {MOST_ENTRIES} files in {store_path}")
    return tuple(expanded)


def _is_above(directory: str, others: Iterable[str]) -> bool:
    return any(f"{other}/".startswith(f"{directory}/") for other in others)


class _Moved:
    """The symlink `entry`, which also appears at `path`."""

    def __init__(self, entry: Entry, path: str) -> None:
        self._entry, self._path = entry, path

    def linked_to(self, store_path: str) -> Entry:
        return Entry("l", self._path, target=f"{store_path}/{self._entry.path}")


class _Tree:
    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = {entry.path: entry for entry in entries}
        # The names in each directory, in their order.
        self._children: Dict[str, Dict[str, None]] = {"": {}}
        for entry in entries:
            path = entry.path
            if entry.kind == "d":
                self._children.setdefault(path, {})
            while path:
                parent, _, name = path.rpartition("/")
                self._children.setdefault(parent, {})[name] = None
                path = parent

    def expand(
        self, directory: str, place: str, above: Tuple[str, ...]
    ) -> Iterator[Union[Entry, _Moved]]:
        """What the directory holds, as it appears at `place`; `above` are those it is shown in."""
        children = self._children[directory]
        if not children and place:
            yield Entry("d", place)
        for name in children:
            path = f"{directory}/{name}" if directory else name
            shown = f"{place}/{name}" if place else name
            entry = self._entries.get(path)
            inside = self._directory_behind(entry) if entry and entry.kind == "l" else None
            if inside is not None and _is_above(inside, (*above, directory)):
                inside = None
            if path in self._children:
                inside = path
            if inside is not None:
                yield from self.expand(inside, shown, (*above, directory))
            elif entry is None:
                raise AssertionError(f"{path} is neither a directory nor an entry")
            elif shown == path:
                yield entry
            elif entry.kind == "l":
                yield _Moved(entry, shown)
            else:
                yield Entry(entry.kind, shown, "", entry.sha256, entry.size)

    def _directory_behind(self, link: Entry) -> Optional[str]:
        if link.target.startswith("/") or escapes(link.path, link.target):
            return None
        parent = link.path.rpartition("/")[0]
        followed, _ = follow(f"{parent}/{link.target}", self._symlink)
        return followed if followed in self._children and followed else None

    def _symlink(self, path: str) -> Optional[str]:
        entry = self._entries.get(path)
        return entry.target if entry and entry.kind == "l" else None
