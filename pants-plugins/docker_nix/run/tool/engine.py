"""The command `find-engine`, and container engines by their command lines.

An engine is `docker`, `podman` or `nerdctl`; their commands `version`, `load`, `tag`, `run` and
`image inspect` mean the same. Only Docker's own store of layers is known to take an archive that
lacks layers it has: it looks each up by what lies below it (its chain ID) before it reads the file.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any, Iterable, Mapping, Sequence

from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.skopeo import read_access

ENGINES = ("docker", "podman", "nerdctl")
OUTPUT = "engine.json"

_DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin"
_SECONDS = 60
# Ids in one command line.
_MANY = 500


class Engine:
    """The engine whose program is `program`, run with the environment `env`."""

    def __init__(self, name: str, program: str, env: Mapping[str, str]) -> None:
        self.name, self.program, self._env = name, program, env

    def problem(self) -> str | None:
        """Why it cannot be used, None if it can."""
        code, _, errors = self._run("version")
        if not code:
            return None
        lines = [line.strip() for line in errors.splitlines() if line.strip()]
        return lines[-1] if lines else f"`{self.name} version` exits with {code}"

    def image_id(self, name: str) -> str | None:
        """The id of the image with this name or id, None if there is none."""
        code, output, _ = self._run("image", "inspect", "--format", "{{.Id}}", name)
        found = output.strip()
        if code or not found:
            return None
        return found if ":" in found else f"sha256:{found}"  # podman leaves it out

    def first_id(self, names: Iterable[str]) -> str | None:
        """The id of the first of these that it has."""
        return next(filter(None, map(self.image_id, names)), None)

    def tag(self, image: str, name: str) -> None:
        """Gives the image with this id a name."""
        code, _, errors = self._run("tag", image, name)
        if code:
            raise ToolError(f"{self.name} cannot call the image {name}: {errors.strip()}")

    def known_layers(self, diff_ids: Sequence[str]) -> int:
        """How many of these layers, from the lowest on, it has in that order, and need not get."""
        if self.name != "docker" or self._keeps_blobs():
            return 0
        _, output, _ = self._run("image", "ls", "--all", "--quiet", "--no-trunc")
        ids = sorted(set(output.split()))
        most = 0
        for start in range(0, len(ids), _MANY):
            # Some may be gone by now; the others are told.
            _, output, _ = self._run(
                *("image", "inspect", "--format", "{{json .RootFS.Layers}}"),
                *ids[start : start + _MANY],
            )
            for line in output.splitlines():
                try:
                    layers = json.loads(line) or []
                except ValueError:
                    continue
                most = max(most, len(os.path.commonprefix([list(diff_ids), layers])))
        return most

    def _keeps_blobs(self) -> bool:
        """Whether images are in containerd's store, which wants the blobs themselves."""
        code, output, _ = self._run("info", "--format", "{{json .DriverStatus}}")
        return code != 0 or "io.containerd.snapshotter" in output

    def _run(self, *args: str) -> tuple[int, str, str]:
        try:
            done = subprocess.run(
                [self.program, *args],
                env=dict(self._env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                timeout=_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return 1, "", f"it does not answer within {_SECONDS} s"
        except OSError as error:
            return 1, "", f"{self.program}: {error.strerror}"
        output, errors = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
        return done.returncode, output, errors


def find_engine(args: list[str], lib_dir: str) -> None:
    """The command `find-engine SPEC`: writes `engine.json`.

    The spec is an object with `engine` (the name of one, or `auto`), `ids` (what an engine may have
    as the image's id: the digest of its configuration, or of its manifest) and `diff_ids`. The
    output is an object with `name`, `program`, `image` (the id it has the image by, or null) and
    `layers` (how many, from the lowest on, it need not get). The name is null where this process is
    not on the machine of who started it. Raises `ToolError` where there is no engine.
    """
    if len(args) != 1:
        raise ToolError("usage: find-engine SPEC")
    with open(args[0], encoding="utf-8") as file:
        spec = json.load(file)
    access = read_access()
    result: dict[str, Any] = {"name": None, "program": None, "image": None, "layers": 0}
    if access:
        engine = find(spec["engine"], access.get("env") or {})
        image = engine.first_id(spec["ids"])
        layers = len(spec["diff_ids"]) if image else engine.known_layers(spec["diff_ids"])
        result = {"name": engine.name, "program": engine.program, "image": image, "layers": layers}
    with open(OUTPUT, "w", encoding="utf-8") as output:
        json.dump(result, output)


def find(wanted: str, env: Mapping[str, str]) -> Engine:
    """The engine with this name, or for `auto` the first that answers.

    :param env: the user's environment.

    Raises `ToolError` where there is none.
    """
    from shutil import which

    env = {"PATH": _DEFAULT_PATH, **env}
    path = ":".join(part for part in env["PATH"].split(":") if os.path.isabs(part))
    problems = []
    for name in ENGINES if wanted == "auto" else (wanted,):
        program = which(name, path=path)
        if not program:
            continue
        engine = Engine(name, program, env)
        problem = engine.problem()
        if problem is None:
            return engine
        problems.append(f"{program} cannot be used ({problem})")
    if problems:
        raise ToolError("; ".join(problems))
    if wanted == "auto":
        raise ToolError(f"Neither {' nor '.join(ENGINES)} is on {path}")
    raise ToolError(f"{wanted} is not on {path}")
