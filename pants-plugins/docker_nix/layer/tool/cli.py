"""The layer tool's command line: `start.sh COMMAND ARGUMENTS...`, in the sandbox of a process.

A command of another step, which lies in the sandbox only where it is wanted, is `MODULE:FUNCTION`.

This file must be valid for every Python 3, or the check of the version could not tell the user.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Sequence

MINIMUM_PYTHON = (3, 8)

# Each with its module and function, which takes the other arguments and the libraries' directory.
COMMANDS = {
    "pack": ("pack", "main"),
    "root-probe": ("root_probe", "main"),
    "nix-closure": ("nix_query", "main"),
    "index": ("archive", "main"),
    "wheel-index": ("wheel", "main"),
    "python-runtime": ("python_runtime", "main"),
    "layer-index": ("layer_index", "main"),
    "split-archive": ("image_archive", "main"),
    "pull-manifest": ("pull", "pull_manifest"),
    "read-image": ("pull", "read_image"),
    "pull-layers": ("pull", "pull_layers"),
    "export": ("export", "main"),
    "docker-archive": ("docker_archive", "main"),
}


def main() -> None:
    """Runs the command that the arguments name; on failure prints why and exits with 1."""
    if sys.version_info < MINIMUM_PYTHON:
        _fail(
            "the layer tool needs Python {}.{} or newer, and {} is {}.{}; set [docker-nix].python "
            "to a newer one".format(*(MINIMUM_PYTHON + (sys.executable,) + sys.version_info[:2]))
        )
    from docker_nix.layer.tool.errors import ToolError

    try:
        _run(sys.argv[1:])
    except ToolError as error:
        _fail(str(error), error.details)
    except OSError as error:
        _fail("{}: {}".format(error.filename, error.strerror) if error.filename else str(error))


def _run(args: "list[str]") -> None:
    from docker_nix.layer.tool.errors import ToolError

    command = args[0] if args else ""
    if command in COMMANDS:
        module, function = COMMANDS[command]
        module = "docker_nix.layer.tool." + module
    elif ":" in command:
        module, _, function = command.partition(":")
    else:
        raise ToolError("unknown command {!r}: use {}".format(command, ", ".join(COMMANDS)))
    # Imported now because it takes time, and each command has modules of its own.
    imported = __import__(module, fromlist=[function])
    getattr(imported, function)(args[1:], _lib_dir())


def _lib_dir() -> str:
    """The directory `lib` beside the directory `tool` which this package is in."""
    path = __file__
    for _ in range(5):
        path = path.rpartition("/")[0] or "."
    return path + "/lib"


def _fail(message: str, details: "Sequence[str]" = ()) -> None:
    """Prints an error as one line, and each of the details as one."""
    for line in ("error: " + message,) + tuple(detail.expandtabs(4) for detail in details):
        sys.stderr.write((line if line.isprintable() else repr(line)[1:-1]) + "\n")
    sys.exit(1)
