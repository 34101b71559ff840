"""Whether `run_as_root` can run where this process does.

A remote worker or a container may lack what it takes. Trying with the real script would move the
layers of the base image there first.
"""

from __future__ import annotations

import json
import os

from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.namespaces import in_root_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:  # at run time, `typing` alone would take as long as a small layer
    from typing import Sequence

_TMPFS = b"scratch/tmpfs"


def main(args: Sequence[str], lib_dir: str) -> None:
    """Writes `obstacle` into `root-probe.json`: what is in the way, or null."""
    with open("root-probe.json", "w", encoding="utf-8") as file:
        json.dump({"obstacle": obstacle()}, file)


def obstacle() -> str | None:
    """Why no script can run as root here; None if it can."""
    try:
        in_root_namespace(_run_nothing, _TMPFS)
    except (ToolError, OSError) as error:
        return str(error)
    return None


def _run_nothing() -> None:
    from docker_nix.layer.tool.root_script import run

    root = os.path.join(_TMPFS, b"root")
    os.mkdir(root)
    run("", root, disk_size=1)  # with the shell of this machine
