"""What a script left, fitted to the base image that it did not see.

The base's symlinks to directories are followed, its directories keep their modes and owners, and
what it has already is left out.
"""

from __future__ import annotations

from docker_nix.layer.tool.entries import Entry, show
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.files import sha256_of
from docker_nix.layer.tool.symlinks import follow
from docker_nix.layer.tool.tar_format import DIRECTORY, FILE, HARDLINK, SYMLINK

TYPE_CHECKING = False
if TYPE_CHECKING:  # at run time, `typing` alone would take as long as a small layer
    from typing import Any

# The mode of a directory that nobody gave a mode.
_DEFAULT_MODE = 0o755
_WHAT = {"f": "a file", "l": "a symlink", "c": "a device", "b": "a device", "p": "a named pipe"}


def fit(entries: list[Entry], base: list[list[Any]]) -> list[Entry]:
    """The entries of the layer: `entries`, as far as they add to the files of the `base`.

    :param entries: of the files on disk, parents first. They are changed.
    :param base: entries of the base in the form of a layer index.

    A directory that has the mode of one that was just made takes mode and owner of the base's
    directory of that name. Raises `ToolError` where a path leads in a circle, where two come to lie
    at one place, or where a file would hide a directory of the base or a directory a file.
    """
    there = {entry[1]: entry for entry in base}
    own = {_text(entry.name) for entry in entries if entry.kind != DIRECTORY}

    def symlink(path: str) -> str | None:
        entry = there.get(path)
        return entry[5] if entry and entry[0] == "l" and path not in own else None

    named: dict[bytes, Entry] = {}
    fitted: dict[bytes, Entry] = {}
    for entry in entries:
        old_name = entry.name
        named[old_name] = entry
        entry.name = _place(entry, symlink)
        if entry.kind == DIRECTORY:
            if entry.name:  # not where a symlink of the base leads to the root
                _take_over(entry, there.get(_text(entry.name)))
                fitted.setdefault(entry.name, entry)
            continue
        if entry.name in fitted:
            raise ToolError(
                f"/{show(old_name)} is at {show(entry.name)} in the image, because the base image "
                "has a symlink to a directory there, and so is another file; remove one of the two"
            )
        fitted[entry.name] = entry
    _relink(named)
    _add_parents(fitted, there)
    kept = _without_what_is_there(list(fitted.values()), there)
    return _without_idle_directories(kept, there)


def _place(entry: Entry, symlink: Any) -> bytes:
    """Where the entry lies in the image."""
    path = _text(entry.name)
    directory, slash, name = path.rpartition("/")
    followed, _ = follow(path if entry.kind == DIRECTORY else directory, symlink)
    if followed is None:
        raise ToolError(f"/{show(entry.name)} lies behind symlinks of the base that form a circle")
    if entry.kind == DIRECTORY:
        return _bytes(followed)
    return _bytes(f"{followed}/{name}" if followed else name)


def _relink(named: dict[bytes, Entry]) -> None:
    """Lets hard links name where their file lies now: again the first of its names in the tar.

    `named` are the entries by the names that hard links know them by.
    """
    links: dict[bytes, list[Entry]] = {}
    for entry in named.values():
        if entry.kind == HARDLINK:
            links.setdefault(entry.link, []).append(entry)
    for name, others in links.items():
        names = (named[name], *others)
        first = min(names, key=lambda entry: entry.name)
        first.path = named[name].path
        for entry in names:
            entry.kind, entry.link = HARDLINK, first.name
        first.kind, first.link = FILE, b""


def _take_over(entry: Entry, old: list[Any] | None) -> None:
    if old and old[0] == "d" and entry.mode == _DEFAULT_MODE:
        entry.mode, entry.uid, entry.gid = old[2:5]


def _add_parents(fitted: dict[bytes, Entry], there: dict[str, list[Any]]) -> None:
    """Adds the directories above what lies elsewhere than where the script made it."""
    for name in list(fitted):
        while b"/" in name:
            name = name.rpartition(b"/")[0]
            if name in fitted:
                break
            fitted[name] = Entry(name, DIRECTORY, _DEFAULT_MODE)
            _take_over(fitted[name], there.get(_text(name)))


def _without_what_is_there(entries: list[Entry], there: dict[str, list[Any]]) -> list[Entry]:
    """Without the files and symlinks that the base has, with the same mode and owner."""
    linked = {entry.link for entry in entries if entry.kind == HARDLINK}
    kept = []
    for entry in entries:
        old = there.get(_text(entry.name))
        if old and old[0] == "d" and entry.kind != DIRECTORY:
            raise ToolError(
                f"/{show(entry.name)} is a directory in the base image; a file in its place would "
                "hide all that is in it: use another name, or remove it with run_as_root"
            )
        if old and old[0] != "d" and entry.kind == DIRECTORY:
            raise ToolError(
                f"/{show(entry.name)} is {_WHAT[old[0]]} in the base image, and a directory here; "
                "use another name, or remove it with run_as_root"
            )
        if old is None or entry.kind in (DIRECTORY, HARDLINK) or entry.name in linked:
            kept.append(entry)
        elif not _same(entry, old):
            kept.append(entry)
    return kept


def _same(entry: Entry, old: list[Any]) -> bool:
    if [entry.uid, entry.gid] != old[3:5]:
        return False
    if entry.kind == SYMLINK:
        return old[0] == "l" and _bytes(old[5]) == entry.link
    if entry.kind != FILE or old[0] != "f" or entry.mode != old[2]:
        return False
    return sha256_of(entry.path) == (old[6], old[5])


def _without_idle_directories(entries: list[Entry], there: dict[str, list[Any]]) -> list[Entry]:
    """Without the base's directories that are as they were and have nothing new in them."""
    needed: set[bytes] = set()
    kept = []
    for entry in sorted(entries, key=lambda entry: entry.name, reverse=True):
        old = there.get(_text(entry.name))
        if entry.kind == DIRECTORY and entry.name not in needed:
            if old and old[0] == "d" and [entry.mode, entry.uid, entry.gid] == old[2:5]:
                continue
        kept.append(entry)
        name = entry.name
        while b"/" in name:
            name = name.rpartition(b"/")[0]
            if name in needed:
                break
            needed.add(name)
    return kept[::-1]


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")
