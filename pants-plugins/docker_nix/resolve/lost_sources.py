"""Sources that Pants leaves out without a word, so that no image lacks them without a word.

Pants follows symlinks among sources. One that leads nowhere or in a circle is just not there; so is
a fifo or a socket. To see them one must look at the disk, which no memo of Pants covers: hence the
rule here is not cacheable.
"""

from __future__ import annotations

import glob
import os
import stat
from dataclasses import dataclass
from typing import Iterable, List, Optional, Set, Tuple

from pants.base.build_environment import get_buildroot
from pants.engine.fs import PathGlobs, Paths
from pants.engine.internals.native_engine import FilespecMatcher
from pants.engine.rules import Get, _uncacheable_rule, collect_rules
from pants.engine.target import MultipleSourcesField

_SPECIAL = {stat.S_IFIFO: "a fifo", stat.S_IFSOCK: "a socket"}


@dataclass(frozen=True)
class LostSourcesRequest:
    """A request for what the field matches but Pants did not find.

    :param found: the files that Pants found.
    """

    field: MultipleSourcesField
    found: Tuple[str, ...]


@dataclass(frozen=True)
class LostSources:
    """What is lost, in words: `'etc/localtime' (a symlink to '../usr/share/zoneinfo/UTC')`."""

    descriptions: Tuple[str, ...]


def parents(paths: Iterable[str]) -> Set[str]:
    """All directories that lead to `paths`."""
    found: Set[str] = set()
    for path in paths:
        directory = os.path.dirname(path)
        while directory and directory not in found:
            found.add(directory)
            directory = os.path.dirname(directory)
    return found


def fixed_directory(pattern: str) -> str:
    """The directory below which all matches of a pattern lie."""
    parts = pattern.split("/")[:-1]
    wild = (i for i, part in enumerate(parts) if set("*?[") & set(part))
    return "/".join(parts[: next(wild, len(parts))])


def depth_of(includes: Iterable[str]) -> Optional[int]:
    """How many directories deep a match may lie; None where any depth will do."""
    return None if any("**" in glob for glob in includes) else max(map(_depth, includes), default=0)


def _depth(path: str) -> int:
    return path.count("/")


def _what(path: str) -> Optional[str]:
    """What `path` is if it is neither a file nor a directory; None otherwise."""
    try:
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            return f"a symlink to {os.readlink(path)!r}"
    except OSError:
        return None  # it went away
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    return _SPECIAL.get(stat.S_IFMT(mode), "a device")


@_uncacheable_rule
async def find_lost_sources(request: LostSourcesRequest) -> LostSources:
    filespec = request.field.filespec
    includes = tuple(filespec["includes"])
    matcher = FilespecMatcher(includes, tuple(filespec.get("excludes", ())))
    depth = depth_of(includes)
    known = {*request.found, *parents(request.found)}
    root = get_buildroot()
    lost: List[str] = []
    directories = sorted({fixed_directory(include) for include in includes})
    while directories:
        others: List[str] = []
        for directory in directories:
            if not os.path.isdir(os.path.join(root, directory)):
                continue
            with os.scandir(os.path.join(root, directory)) as children:
                for child in children:
                    path = os.path.join(directory, child.name)
                    if not child.is_dir(follow_symlinks=False):
                        if path not in known and not child.is_file(follow_symlinks=False):
                            lost.append(path)
                    elif depth is None or _depth(path) < depth:
                        others.append(path)
        # Only Pants knows which directories it ignores.
        visible = await Get(Paths, PathGlobs(glob.escape(path) for path in others))
        directories = [path for path in visible.dirs if path in others]
    described = (
        (path, _what(os.path.join(root, path))) for path in matcher.matches(sorted(set(lost)))
    )
    return LostSources(tuple(f"{path!r} ({what})" for path, what in described if what))


def rules() -> Iterable[object]:
    return collect_rules()
