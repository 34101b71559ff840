"""Following symlinks inside a root file system that is known, but not on disk."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:  # at run time, `typing` alone would take as long as a small layer
    from typing import Callable

MOST_LINKS = 40  # as many as Linux follows


def follow(path: str, symlink: Callable[[str], str | None]) -> tuple[str | None, bool]:
    """Where `path`, relative to the root, leads; None for a circle. And whether by any symlink.

    :param symlink: gives the text of the symlink at a path, None where there is no symlink.
    """
    pending = path.split("/")[::-1]
    done: list[str] = []
    followed = 0
    while pending:
        part = pending.pop()
        if part in ("", "."):
            continue
        if part == "..":
            del done[-1:]
            continue
        target = symlink("/".join([*done, part]))
        if target is None:
            done.append(part)
            continue
        followed += 1
        if followed > MOST_LINKS:
            return None, True
        if target.startswith("/"):
            done = []
        pending += target.split("/")[::-1]
    return "/".join(done), followed > 0
