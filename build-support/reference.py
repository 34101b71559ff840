#!/usr/bin/env python3
"""Writes docs/reference.md from the help texts of the plugin's targets, fields, options and goals.

    build-support/reference.py            writes it
    build-support/reference.py --check    says whether it is current, with exit code 1 if not

What belongs to the plugin is found by its backend, so nothing is listed here. All defaults are
those of the code, not of this repository's pants.toml or of this machine.
"""

from __future__ import annotations

import difflib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs/reference.md"
BACKEND = "docker_nix"
# With the backends whose targets the plugin may add fields to.
BACKENDS = (BACKEND, "pants.backend.python", "pants.backend.shell")

Help = Mapping[str, Any]

_HEADER = """\
# Reference

<!-- Written by build-support/reference.py from the help texts: change those, and run it again. -->

All targets, fields, options and goals of the plugin. `./pants help NAME` prints the same.
"""


def main(arguments: Sequence[str]) -> int:
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    text = render(help_all())
    if arguments != ["--check"]:
        REFERENCE.write_text(text, encoding="utf-8")
        return 0
    there = REFERENCE.read_text(encoding="utf-8") if REFERENCE.exists() else ""
    if there == text:
        return 0
    changes = difflib.unified_diff(
        there.splitlines(), text.splitlines(), "as it is", "as it should be", lineterm=""
    )
    print(*changes, sep="\n", file=sys.stderr)
    print("\ndocs/reference.md is not current; run: build-support/reference.py", file=sys.stderr)
    return 1


def help_all() -> Help:
    """What `pants help-all` says, with nothing set that changes it."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PANTS_")}
    if "PANTS_PYTHON" in os.environ:  # the launcher's
        env["PANTS_PYTHON"] = os.environ["PANTS_PYTHON"]
    done = subprocess.run(
        [
            "./pants",
            "--no-pantsd",
            "--no-pantsrc",
            "--no-verify-config",
            f"--backend-packages={list(BACKENDS)}",
            "help-all",
        ],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        check=True,
    )
    found: Help = json.loads(done.stdout)
    return found


def render(found: Help) -> str:
    """The whole page."""
    all_targets = found["name_to_target_type_info"]
    targets = [one for _, one in sorted(all_targets.items()) if one["provider"] == BACKEND]
    others = [one for _, one in sorted(all_targets.items()) if one["provider"] != BACKEND]
    added = [
        (one, [field for field in _fields(one) if field["provider"] == BACKEND]) for one in others
    ]
    scopes = [
        scope
        for _, scope in sorted(found["scope_to_help_info"].items())
        if scope["provider"] == BACKEND
    ]
    goals = [scope for scope in scopes if scope["is_goal"]]
    fields = Fields([(one, _fields(one)) for one in targets] + added)
    parts = [_HEADER, "## Targets\n"]
    for target in targets:
        parts.append(f"### `{target['alias']}`\n\n{target['description'].strip()}\n")
        parts.append(fields.table(_fields(target)))
    for target, of_target in added:
        if of_target:
            parts.append(f"### `{target['alias']}`: additional fields\n")
            parts.append(fields.table(of_target))
    parts += ["## Fields\n", *fields.sections()]
    if goals:
        parts.append("## Goals\n")
        for goal in goals:
            parts.append(f"### `./pants {goal['scope']}`\n\n{goal['description'].strip()}\n")
            parts += _options(goal)
    parts.append("## Options\n")
    for scope in scopes:
        if not scope["is_goal"]:
            parts.append(f"### `[{scope['scope']}]`\n\n{scope['description'].strip()}\n")
            parts += _options(scope)
    return "\n".join(parts).rstrip() + "\n"


def _fields(target: Help) -> List[Help]:
    """The fields of a target as it has them, and then those of plugins, sorted."""
    own = [field for field in target["fields"] if not field["provider"]]
    added = [field for field in target["fields"] if field["provider"]]
    return own + sorted(added, key=lambda field: str(field["alias"]))


class Fields:
    """The fields of targets, those that are the same in several targets taken together."""

    def __init__(self, targets: Sequence[Tuple[Help, Sequence[Help]]]) -> None:
        self._users: Dict[Tuple[str, str], List[str]] = {}
        for target, fields in targets:
            for field in fields:
                self._users.setdefault(self._key(field), []).append(target["alias"])

    @staticmethod
    def _key(field: Help) -> Tuple[str, str]:
        return field["alias"], field["description"]

    def _anchor(self, key: Tuple[str, str]) -> str:
        same_name = [other for other in self._users if other[0] == key[0]]
        anchor = f"field-{key[0]}"
        # The one that most targets have goes without a target's name.
        same_name.sort(key=lambda other: (-len(self._users[other]), self._users[other]))
        return anchor if same_name[0] == key else f"{anchor}-{self._users[key][0]}"

    def table(self, fields: Sequence[Help]) -> str:
        rows = ["| field | type | default |", "|---|---|---|"]
        for field in fields:
            name = f"[`{field['alias']}`](#{self._anchor(self._key(field))})"
            default = "required" if field["required"] else _code(field["default"])
            rows.append(f"| {name} | {_code(field['type_hint'])} | {default} |")
        return "\n".join(rows) + "\n"

    def sections(self) -> List[str]:
        sections = []
        for key in sorted(self._users, key=lambda key: (key[0], self._users[key])):
            alias, description = key
            users = ", ".join(f"`{user}`" for user in self._users[key])
            sections.append(
                f'<a id="{self._anchor(key)}"></a>\n\n### `{alias}`\n\n'
                f"*In {users}.*\n\n{description.strip()}\n"
            )
        return sections


def _options(scope: Help) -> List[str]:
    parts = []
    for option in (*scope["basic"], *scope["advanced"]):
        facts = [f"`{option['scoped_cmd_line_args'][0]}`", f"`{option['env_var']}`"]
        if option["target_field_name"]:
            facts.append(f"field `{option['target_field_name']}` of environment targets")
        parts.append(f"#### `{option['config_key']}`\n")
        kind = option["comma_separated_choices"] or option["typ"]
        default = _code(json.dumps(option["default"], ensure_ascii=False))
        if option["default"] is None:
            default = "none"
        parts.append(f"*{', '.join(facts)}. Type: {kind}. Default: {default}.*\n")
        parts.append(f"{option['help'].strip()}\n")
    return parts


def _code(text: object) -> str:
    """Code in a cell of a table."""
    escaped = str(text).replace("|", "\\|")
    return "none" if text is None else f"`{escaped}`"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
