"""The environment: distributions merged into one virtual environment of symlinks. Pure.

Python looks up modules in few directories then, whatever the number of distributions. A directory
that only one distribution has is one symlink; others are real, with what each distribution has in
them. Source of `pyvenv.cfg` and `bin/python`: PEP 405.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Dict, Iterable, List, Mapping, Sequence, Tuple, Union

from docker_nix.layer.links import Entry
from docker_nix.layer.tool.bytecode import compiled_path
from docker_nix.resolve.python.distribution import Distribution
from docker_nix.resolve.python.interpreter import Interpreter


class EnvironmentCollision(ValueError):
    """Two distributions that have different files at one path; the message names both."""


@dataclass(frozen=True)
class Installed:
    """A distribution and where it is: its store path."""

    distribution: Distribution
    store_path: str


# The text of a symlink, or the content of an executable script, by path.
Tree = Dict[str, Union["SymlinkTo", "Script"]]


@dataclass(frozen=True)
class SymlinkTo:
    target: str


@dataclass(frozen=True)
class Script:
    """A script of Python; `body` follows the first line."""

    body: str


def merged(installed: Sequence[Installed], interpreter: Interpreter, compiled: bool) -> Tree:
    """What an environment has of its distributions, by path.

    :param installed: in an order that decides which of two equal files is linked.
    :param compiled: whether the store paths have a `.pyc` for each module.

    Raises EnvironmentCollision.
    """
    entries: Dict[str, List[Tuple[Installed, Entry]]] = {}
    scripts: Dict[str, Script] = {}
    for one in installed:
        for entry in _with_bytecode(one.distribution.entries, interpreter, compiled):
            entries.setdefault(entry.path, []).append((one, entry))
        for name, body in one.distribution.scripts:
            entry = Entry("x", f"bin/{name}", sha256=body)  # equal where the bodies are
            entries.setdefault(entry.path, []).append((one, entry))
            scripts.setdefault(entry.path, Script(body))

    owners: Dict[str, set[str]] = {}
    for path, found in entries.items():
        empty = [path] if found[0][1].kind == "d" else []
        for directory in (*empty, *_parents(path)):
            owners.setdefault(directory, set()).update(one.store_path for one, _ in found)
    real = {path for path, paths in owners.items() if len(paths) > 1}
    real.update(("bin", interpreter.site_packages, *_parents(interpreter.site_packages)))

    tree: Tree = {}
    for path, found in entries.items():
        first, entry = found[0]
        if path in owners and entry.kind != "d":
            other = next(one for one in installed if _has_below(one.distribution, path))
            raise _collision(path, first, entry.what, other, "a directory")
        for second, other_entry in found[1:]:
            if replace(entry, path="") != replace(other_entry, path=""):
                difference = " with other content" if other_entry.what == entry.what else ""
                raise _collision(path, first, entry.what, second, other_entry.what + difference)
        if path in real and any(other.startswith(f"{path}/") for other in entries):
            continue  # a directory that is not empty in other distributions
        if path in scripts:
            tree[path] = scripts[path]
            continue
        top = path
        for parent in _parents(path):
            if parent not in real:
                top = parent
        tree[top] = SymlinkTo(f"{first.store_path}/{top}")
    return tree


def virtual_environment(interpreter: Interpreter) -> Mapping[str, Union[SymlinkTo, str]]:
    """What makes a directory a virtual environment of the interpreter: symlinks and file texts."""
    home = interpreter.path.rpartition("/")[0] or "/"
    versioned = f"python{interpreter.version}"
    return {
        "pyvenv.cfg": (
            f"home = {home}\n"
            "include-system-site-packages = false\n"
            f"version = {interpreter.version}\n"
        ),
        f"bin/{versioned}": SymlinkTo(interpreter.path),
        "bin/python3": SymlinkTo(versioned),
        "bin/python": SymlinkTo(versioned),
    }


def script_text(script: Script, python: str) -> bytes:
    """The whole text of a script that the interpreter at the path `python` runs."""
    return f"#!{python}\n{script.body}".encode("utf-8", "surrogateescape")


def _with_bytecode(
    entries: Iterable[Entry], interpreter: Interpreter, compiled: bool
) -> Iterable[Entry]:
    there = {entry.path for entry in entries} if compiled else set()
    for entry in entries:
        yield entry
        if compiled and entry.kind in "fx" and entry.path.endswith(".py"):
            path = compiled_path(entry.path, interpreter.cache_tag)
            if path not in there:
                # Equal sources give equal bytecode.
                yield Entry("f", path, sha256=entry.sha256, size=entry.size)


def _parents(path: str) -> Iterable[str]:
    """The directories above `path`, the nearest first."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _has_below(distribution: Distribution, path: str) -> bool:
    return any(entry.path.startswith(f"{path}/") for entry in distribution.entries)


def _collision(
    path: str, first: Installed, was: str, second: Installed, entry: str
) -> EnvironmentCollision:
    return EnvironmentCollision(
        f"{path} is {was} in {first.distribution.title} and {entry} in {second.distribution.title}"
    )
