"""A temporary repository that uses the plugin of this checkout, and Pants run in it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence, Set, Union

PROJECT = Path(__file__).resolve().parents[2]

_PANTS_TOML = """\
[GLOBAL]
pants_version = "2.17.1"
backend_packages = {backends}
pythonpath = ["{plugins}"]

[python]
interpreter_constraints = ["CPython>=3.9,<3.14"]

[python-infer]
use_rust_parser = true

[source]
root_patterns = ["/src", "/"]
"""

BACKENDS = (
    "docker_nix",
    "pants.backend.experimental.adhoc",
    "pants.backend.python",
    "pants.backend.shell",
)


@dataclass(frozen=True)
class Run:
    """A finished run of Pants."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr

    def counters(self) -> Dict[str, int]:
        """What `--stats-log` prints."""
        found = re.findall(r"^\s*(\w+): (\d+)$", self.output, re.MULTILINE)
        return {name: int(number) for name, number in found}

    def local_processes(self) -> Set[str]:
        """What this machine ran, in a run with `-ldebug`."""
        return set(re.findall(r'spawned local process .* description: "(.*?)", level', self.output))


class Repo:
    """A repository at `root`, made empty but for a `pants.toml`.

    :param store: a local store of its own, as a machine has that never built anything; the user's
        own store where it is None.
    :param pantsd: whether runs share a daemon (faster for many small runs). `close` stops it.
    :param options: further command line options of every run, such as those of a remote cache.
    """

    def __init__(
        self,
        root: Path,
        *,
        store: Optional[Path] = None,
        pantsd: bool = False,
        options: Sequence[str] = (),
        plugins: Path = PROJECT / "pants-plugins",
        backends: Sequence[str] = BACKENDS,
    ) -> None:
        self.root = root
        self.options = [f"--{'' if pantsd else 'no-'}pantsd", "--no-dynamic-ui", *options]
        if store:
            self.options.append(f"--local-store-dir={store}")
        root.mkdir(parents=True, exist_ok=True)
        self.write(
            "pants.toml",
            _PANTS_TOML.format(plugins=plugins, backends=json.dumps(list(backends))),
        )

    def write(self, path: str, content: Union[str, bytes], mode: int = 0o644) -> Path:
        """Write a file below the root, with its parent directories."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            content = content.encode()
        file.write_bytes(content)
        file.chmod(mode)
        return file

    def pants(
        self,
        *args: str,
        check: bool = True,
        env: Optional[Mapping[str, str]] = None,
        prefix: Sequence[str] = (),
    ) -> Run:
        """Run Pants in the repository.

        :param check: fail with the whole output unless it exits with 0.
        :param env: further environment variables.
        :param prefix: a command to run it under, such as `taskset -c 0`.
        """
        done = subprocess.run(
            [*prefix, str(PROJECT / "pants"), *self.options, *args],
            cwd=self.root,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        run = Run(done.returncode, done.stdout, done.stderr)
        assert not check or run.exit_code == 0, run.output
        return run

    def info(self, output: str) -> Any:
        """The report beside a packaged image; `output` as in `path.to/name`."""
        return json.loads((self.root / "dist" / f"{output}.docker-info.json").read_text())

    def digest(self, output: str) -> str:
        """The manifest digest of a packaged image."""
        return self.info(output)["docker_nix"]["digest"]

    def stats(self, *args: str, **kwargs: Any) -> Mapping[str, int]:
        """Run Pants, and return the counters of that run (as `--stats-log` prints them)."""
        return self.pants("--stats-log", *args, **kwargs).counters()

    def close(self) -> None:
        """Stop the daemon, by its process id."""
        for pid_file in self.root.glob(".pids/*/pantsd/pid"):
            try:
                os.kill(int(pid_file.read_text()), signal.SIGTERM)
            except (OSError, ValueError):
                pass


def checkout(root: Path) -> None:
    """A copy of this project at `root`, as a fresh clone has it."""
    ignore = shutil.ignore_patterns("__pycache__", "dist", ".*")
    for name in ("3rdparty", "build-support", "docs", "pants-plugins", "src"):
        shutil.copytree(PROJECT / name, root / name, ignore=ignore)
    for name in ("BUILD", "pants", "pants.toml"):
        shutil.copy(PROJECT / name, root / name)
