"""Running `extra_commands` in the sandbox, the same on every machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from docker_nix.layer.tool.errors import ToolError

TYPE_CHECKING = False
if TYPE_CHECKING:  # at run time, `typing` alone would take as long as a small layer
    from typing import NoReturn

_SHELLS = (
    "/bin/bash",
    "/usr/bin/bash",
    "/usr/local/bin/bash",
    "/opt/homebrew/bin/bash",
    "/run/current-system/sw/bin/bash",
)
_PATH = "/usr/local/bin:/usr/bin:/bin"


def run_script(script: str, directory: str, scratch: str, store: str, tools: str | None) -> None:
    """Runs `script` with `bash -e` in `directory`.

    :param scratch: an existing directory for the script's own text, and for its HOME and TMPDIR.
    :param store: the directory that the variable STORE_ROOT names.
    :param tools: a directory of programs that comes first on PATH.

    Nothing that the script starts in its process group outlives it. Its output goes to stderr.
    Raises `ToolError` if there is no bash, or if the script fails.
    """
    text, home = os.path.join(scratch, "extra_commands"), os.path.join(scratch, "home")
    with open(text, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(script)
    os.mkdir(home)
    # The script's text is named relative to where it runs, so that $0 says nothing of this machine.
    command = [_shell(), "--noprofile", "--norc", "-e", os.path.relpath(text, directory)]
    code = _run(
        command,
        directory,
        {
            "PATH": f"{os.path.abspath(tools)}:{_PATH}" if tools else _PATH,
            "HOME": os.path.abspath(home),
            "TMPDIR": os.path.abspath(home),
            "LC_ALL": "C",
            "SOURCE_DATE_EPOCH": "1",
            "STORE_ROOT": os.path.abspath(store),
        },
    )
    if code < 0:
        raise ToolError(f"extra_commands was ended by signal {-code}")
    if code > 0:
        raise ToolError(f"extra_commands failed with exit code {code}")


def _run(command: list[str], directory: str, env: dict[str, str]) -> int:
    """The exit code of the command, or minus the signal that ended it."""
    previous = signal.signal(signal.SIGTERM, _exit_on_signal)
    process = subprocess.Popen(
        command,
        cwd=directory,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),
        start_new_session=True,
    )
    try:
        return process.wait()
    finally:
        signal.signal(signal.SIGTERM, previous)
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # nobody is left; macOS says so with the latter
        process.wait()


def _exit_on_signal(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def _shell() -> str:
    for path in _SHELLS:
        if os.access(path, os.X_OK):
            return path
    raise ToolError(f"extra_commands need bash, which is at none of {', '.join(_SHELLS)}")
