"""Running the Nix that is installed on this machine.

How it is reached (PATH, HOME, the variables of Nix) is offered by the process that started this one
(`skopeo.read_access`), as it must be part of no cache key: another machine may have no Nix at all.
Only commands and outputs are used that Nix has kept stable; `nix eval`, which is experimental, for
flakes only.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from typing import Dict, List, NamedTuple, Sequence, Tuple

from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.skopeo import die_with_parent, exit_on_signal, read_access

MINIMUM_VERSION = (2, 4)
_DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
# Where Nix' installers put it, for a Pants that was not started from a login shell.
_USUAL_PLACES = ("/nix/var/nix/profiles/default/bin", "/run/current-system/sw/bin")
_NOT_FOUND = (
    "there is no Nix on PATH, and no cache has the result. Install Nix {}.{} or newer (Debian, "
    'Ubuntu: `apt-get install nix-bin`; elsewhere: see the Nix manual, "Installation"); or build '
    "this once on a machine that has Nix, with a remote cache that both use (remote_cache_write "
    "there, remote_cache_read here)"
).format(*MINIMUM_VERSION)
_LOG_LINES = 40
_PATHS_AT_ONCE = 500
_NOISE = (
    re.compile(r"^warning: you did not specify '--add-root'"),
    re.compile(r"^warning: not writing modified lock file"),
    re.compile(r"^\(use '--show-trace' to show"),
    re.compile(r"; retrying in \d+ ms$"),
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Registered(NamedTuple):
    """What Nix knows of a valid path. `nar_hash` is `sha256:<hex>`."""

    path: str
    nar_hash: str
    nar_size: int
    references: List[str]


class NixFailed(ToolError):
    """A command of Nix failed; the details are what it said."""


class Nix:
    """The installed Nix. Raises `ToolError` where there is none, or none that will do."""

    def __init__(self, scratch: str) -> None:
        offered = read_access().get("nix_env") or {}
        self._env = {"PATH": _DEFAULT_PATH, **offered, "NO_COLOR": "1", "TERM": "dumb"}
        self._log = os.path.join(scratch, "nix.log")
        self._programs: dict[str, str] = {}
        self._program("nix-store")
        version = self.run("nix-store", "--version").strip()
        number = parse_version(version)
        if number is None or number < MINIMUM_VERSION:
            raise ToolError(
                f"{self._program('nix-store')} is {version!r}, and Nix {MINIMUM_VERSION[0]}."
                f"{MINIMUM_VERSION[1]} or newer is needed; upgrade it, or put a newer one first on "
                "PATH"
            )

    def _program(self, name: str) -> str:
        if name not in self._programs:
            home = self._env.get("HOME")
            usual = (*((f"{home}/.nix-profile/bin",) if home else ()), *_USUAL_PLACES)
            for directory in (*self._env["PATH"].split(":"), *usual):
                path = f"{directory}/{name}"
                if directory.startswith("/") and os.path.isfile(path) and os.access(path, os.X_OK):
                    self._programs[name] = path
                    break
            else:
                raise ToolError(_NOT_FOUND)
        return self._programs[name]

    def run(self, program: str, *args: str) -> str:
        """What `program ARGS` prints. Raises `NixFailed` with the end of what it says."""
        with open(self._log, "w+b") as log:
            command = [self._program(program), *args]
            try:
                code, output = _execute(command, self._env, log.fileno())
            except OSError as error:
                raise ToolError(f"cannot run {self._program(program)}: {error.strerror}") from error
            if code == 0:
                return os.fsdecode(output)
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - (1 << 16)))
            said = log.read()
        raise NixFailed(f"`{program}` failed", details=log_tail(said.decode(errors="replace")))

    def add_source(self, directory: str) -> tuple[str, str]:
        """Adds a directory to the store; its store path, and its hash as Nix writes it."""
        path = self.run("nix-store", "--add", directory).strip()
        return path, self.run("nix-store", "--query", "--hash", path).strip()

    def store_dir(self) -> str:
        """The directory that this Nix makes store paths for."""
        text = self.run("nix-instantiate", "--eval", "--expr", "builtins.storeDir")
        return text.strip().strip('"')

    def closure(self, paths: Sequence[str]) -> list[Registered]:
        """The valid paths that `paths` refer to, they themselves included, sorted by path."""
        closure = self.run("nix-store", "--query", "--requisites", *paths).split()
        found = []
        for start in range(0, len(closure), _PATHS_AT_ONCE):
            some = closure[start : start + _PATHS_AT_ONCE]
            found += parse_registration(self.run("nix-store", "--dump-db", *some))
        return sorted(found, key=lambda info: info.path)


def _execute(command: List[str], env: Dict[str, str], log: int) -> Tuple[int, bytes]:
    """The exit code and standard output of a command, whose standard error goes to `log`.

    On Linux it is not in the process group, so that who kills that does not kill it: Nix is told
    to end, and ends its builders then, which it cannot where it is killed.
    """
    previous = signal.signal(signal.SIGTERM, exit_on_signal)
    process = None
    try:
        process = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=sys.platform.startswith("linux"),
            preexec_fn=die_with_parent(signal.SIGTERM),
        )
        output, _ = process.communicate()
        return process.returncode, output
    finally:
        signal.signal(signal.SIGTERM, previous)
        if process and process.returncode is None:
            process.terminate()
            process.wait()


def registered_hash(path: str) -> str | None:
    """The NAR hash that this machine's Nix has of a path; None where it has none to tell."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as scratch:
        try:
            registered = Nix(scratch).run("nix-store", "--dump-db", path)
            return next((info.nar_hash for info in parse_registration(registered)), None)
        except ToolError:
            return None


def parse_version(text: str) -> tuple[int, int] | None:
    """The version in what `nix-store --version` prints, `nix-store (Nix) 2.8.0`.

    Other distributions of Nix have their name and version in the parentheses.
    """
    match = re.search(r"(\d+)\.(\d+)", text.rpartition(")")[2])
    return (int(match.group(1)), int(match.group(2))) if match else None


def parse_registration(text: str) -> list[Registered]:
    """What `nix-store --dump-db` prints: for each path a line with it, its NAR hash (hex), NAR
    size, deriver, and the number of references, which follow. Raises `ToolError`.
    """
    found = []
    lines = iter(text.split("\n"))
    for path in lines:
        if not path:
            continue
        try:
            nar_hash, nar_size, _deriver, count = (next(lines) for _ in range(4))
            references = [next(lines) for _ in range(int(count))]
            if not re.fullmatch("[0-9a-f]{64}", nar_hash):
                raise ValueError(nar_hash)
            found.append(Registered(path, f"sha256:{nar_hash}", int(nar_size), sorted(references)))
        except (ValueError, RuntimeError, StopIteration) as error:
            raise ToolError(
                f"`nix-store --dump-db` printed what is no registration of {path}"
            ) from error
    return found


def log_tail(text: str) -> list[str]:
    """The last lines of what a command of Nix said, without what no reader needs."""
    lines = [_COLOUR.sub("", line).rstrip() for line in text.replace("\r", "\n").split("\n")]
    kept = [line for line in lines if line and not any(noise.search(line) for noise in _NOISE)]
    return kept[-_LOG_LINES:]
