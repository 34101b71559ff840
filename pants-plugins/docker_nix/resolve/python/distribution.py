"""Third-party distributions and how they depend on one another. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Mapping, Set, Tuple

# What Pants 2.17 itself parses requirements with.
from pkg_resources import Requirement

from docker_nix.layer.links import Entry
from docker_nix.resolve.python.interpreter import Interpreter


def normalised(name: str) -> str:
    """The name of a project, the same for all spellings of it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


@dataclass(frozen=True)
class Distribution:
    """An installed distribution, as the layer tool's `wheel-index` describes it.

    :param requires: its requirements, as its metadata has them.
    :param tags: what it is built for.
    :param console_scripts: name and entry point of each.
    :param scripts: name of each Python script in `bin/`, and its text after the first line.
    :param entries: all of its files.
    """

    name: str
    version: str
    requires: Tuple[str, ...]
    tags: Tuple[str, ...]
    console_scripts: Tuple[Tuple[str, str], ...]
    scripts: Tuple[Tuple[str, str], ...]
    entries: Tuple[Entry, ...]

    @classmethod
    def from_json(cls, index: Mapping[str, Any]) -> Distribution:
        return cls(
            index["name"],
            index["version_of_project"],
            tuple(index["requires"]),
            tuple(index["tags"]),
            tuple(sorted(index["console_scripts"].items())),
            tuple(sorted(index["scripts"].items())),
            tuple(map(Entry.parse, index["entries"])),
        )

    @property
    def project(self) -> str:
        """The normalised name."""
        return normalised(self.name)

    @property
    def title(self) -> str:
        return f"{self.project}-{self.version}"

    def content_hash(self) -> Tuple[str, int]:
        """SHA-256 (hex) of a list of all files and their hashes, and that list's length in bytes.

        The zip that the distribution comes in will not do: the order of its members is that of the
        directories of the machine which made it.
        """
        listed = [[e.kind, e.path, e.target, e.sha256, e.size] for e in self.entries]
        text = json.dumps(sorted(listed), separators=(",", ":")).encode()
        return hashlib.sha256(text).hexdigest(), len(text)


def dependencies(
    distributions: Iterable[Distribution], interpreter: Interpreter
) -> Dict[str, Tuple[str, ...]]:
    """The projects that each project depends on, among the given ones, without circles.

    The requirements are those in a distribution's metadata, from which a lock file has its own.
    Markers are evaluated for the interpreter. Those of extras do not count: whether an extra is
    asked for depends on the application, and a distribution's store path must not. Projects that
    depend on each other in a circle do not count as each other's dependencies.
    """
    by_project = {distribution.project: distribution for distribution in distributions}
    edges: Dict[str, Set[str]] = {}
    for project, distribution in by_project.items():
        wanted = {_project(text, interpreter) for text in distribution.requires}
        edges[project] = wanted & by_project.keys() - {project}
    component = _components(edges)
    return {
        project: tuple(sorted(to for to in edges[project] if component[to] != component[project]))
        for project in sorted(edges)
    }


def _project(requirement: str, interpreter: Interpreter) -> str:
    """The project that a requirement names if it applies, else an empty string."""
    try:
        parsed = Requirement.parse(requirement)
        if parsed.marker and not parsed.marker.evaluate({**interpreter.markers, "extra": ""}):
            return ""
    except ValueError:
        return ""  # old metadata; whatever is needed is in the environment all the same
    return normalised(parsed.project_name)


def _components(edges: Mapping[str, Iterable[str]]) -> Dict[str, int]:
    """A number for each node, the same for those that lead to each other (Kosaraju)."""
    order: List[str] = []
    seen: Set[str] = set()
    for start in sorted(edges):
        stack = [(start, iter(sorted(edges[start])))] if start not in seen else []
        seen.add(start)
        while stack:
            node, children = stack[-1]
            child = next((c for c in children if c not in seen), None)
            if child is None:
                order.append(node)
                stack.pop()
            else:
                seen.add(child)
                stack.append((child, iter(sorted(edges[child]))))
    backwards: Dict[str, List[str]] = {node: [] for node in edges}
    for node, targets in edges.items():
        for target in targets:
            backwards[target].append(node)
    component: Dict[str, int] = {}
    for number, start in enumerate(reversed(order)):
        pending = [start]
        while pending:
            node = pending.pop()
            if node not in component:
                component[node] = number
                pending += backwards[node]
    return component
