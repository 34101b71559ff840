"""Programs of the machine, to be run in an image's file system where that lacks them.

They are started by the machine's own dynamic loader with the machine's own libraries, so nothing of
the image's is needed for them. Source: ld.so(8).
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:  # at run time, `typing` alone would take as long as a small layer
    from typing import Iterable

# Where the directories below are found in the image, which are all that programs come from.
PLACE = b"/dev/.host"
DIRECTORIES = (b"usr", b"bin", b"sbin", b"lib", b"lib32", b"lib64", b"nix/store")

_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def command(name: str) -> list[str] | None:
    """What to run in the image for the machine's program `name`; None if it cannot be run there.

    Must be called where the machine's files can be seen.
    """
    for directory in _PATH:
        path = os.path.realpath(f"{directory}/{name}")
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return _command(path)
    return None


def functions(names: Iterable[str]) -> str:
    """Lines for a shell that make those of the programs commands which the image does not have."""
    lines = []
    for name in names:
        words = command(name)
        if words:
            quoted = " ".join(f"'{word}'" for word in words)
            lines.append(
                f'if ! command -v {name} >/dev/null 2>&1; then {name}() {{ {quoted} "$@"; }}; fi\n'
            )
    return "".join(lines)


def _command(path: str) -> list[str] | None:
    import subprocess

    from docker_nix.layer.tool import elf

    try:
        with open(path, "rb") as file:
            loader = elf.read(file).loader
        if loader is None:
            return _placed([path])
        listed = subprocess.run([loader, "--list", path], capture_output=True, check=True, env={})
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None
    libraries: dict[str, None] = {}
    for line in os.fsdecode(listed.stdout).splitlines():
        library = line.partition("=>")[2].partition(" (")[0].strip()
        if library.startswith("/"):
            libraries[os.path.dirname(os.path.realpath(library))] = None
    placed = _placed([os.path.realpath(loader), *libraries, path])
    if placed is None:
        return None
    loader, *directories, path = placed
    return [loader, "--library-path", ":".join(directories), path]


def _placed(paths: list[str]) -> list[str] | None:
    """The paths as the image has them; None if one is elsewhere, or would need quoting."""
    tops = tuple(f"/{os.fsdecode(directory)}/" for directory in DIRECTORIES)
    if any(not f"{path}/".startswith(tops) or set(path) & set(":'\n") for path in paths):
        return None
    return [os.fsdecode(PLACE) + path for path in paths]
