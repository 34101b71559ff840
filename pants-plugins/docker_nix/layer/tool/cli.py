"""The layer tool's command line: `start.sh COMMAND ARGUMENTS...`, in the sandbox of a process.

This file must be valid for every Python 3, or the check of the version could not tell the user.
"""

import sys

MINIMUM_PYTHON = (3, 8)


def main() -> None:
    """Runs the command that the arguments name; on failure prints one line and exits with 1."""
    if sys.version_info < MINIMUM_PYTHON:
        _fail(
            "the layer tool needs Python {}.{} or newer, and {} is {}.{}; set [docker-nix].python "
            "to a newer one".format(*(MINIMUM_PYTHON + (sys.executable,) + sys.version_info[:2]))
        )
    from docker_nix.layer.tool.errors import ToolError

    try:
        _run(sys.argv[1:])
    except ToolError as error:
        _fail(str(error))
    except OSError as error:
        _fail("{}: {}".format(error.filename, error.strerror) if error.filename else str(error))


def _run(args: "list[str]") -> None:
    from docker_nix.layer.tool.errors import ToolError

    command = args[0] if args else ""
    if command == "pack":
        from docker_nix.layer.tool.pack import main as pack

        pack(args[1:], _lib_dir())
    elif command == "index":
        from docker_nix.layer.tool.archive import main as index

        index(args[1:], _lib_dir())
    elif command == "docker-archive":
        from docker_nix.layer.tool.docker_archive import main as docker_archive

        docker_archive(args[1:], _lib_dir())
    else:
        raise ToolError("unknown command {!r}: use pack, index or docker-archive".format(command))


def _lib_dir() -> str:
    """The directory `lib` beside the directory `tool` which this package is in."""
    path = __file__
    for _ in range(5):
        path = path.rpartition("/")[0] or "."
    return path + "/lib"


def _fail(message: str) -> None:
    text = message if message.isprintable() else repr(message)[1:-1]
    sys.stderr.write("error: {}\n".format(text))
    sys.exit(1)
