"""Compiling the modules of a store path with the image's own interpreter, to the same bytes always.

A `.pyc` holds the hash of its source and is never checked against it, so it is valid whatever the
times of files are. Source: PEP 552, "Deterministic pycs".
"""

from __future__ import annotations

import os

from docker_nix.layer.tool.entries import to_bytes
from docker_nix.layer.tool.errors import ToolError

TYPE_CHECKING = False
if TYPE_CHECKING:  # at run time, `typing` alone would take as long as a small layer
    from typing import Any

# Runs in the image's interpreter, with no module but what is built in. A source that does not
# compile, such as a template or code for another Python, has no .pyc: importing it says why.
_PROGRAM = """\
import sys, marshal, _imp
from _frozen_importlib_external import MAGIC_NUMBER
key = int.from_bytes(MAGIC_NUMBER, "little")
with open(sys.argv[1], "rb") as listing:
    jobs = listing.read().split(b"\\0")
for source, target, name in zip(jobs[::3], jobs[1::3], jobs[2::3]):
    with open(source, "rb") as file:
        text = file.read()
    try:
        code = compile(text, name.decode("utf-8", "surrogateescape"), "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, OverflowError):
        continue
    with open(target, "wb") as file:
        file.write(MAGIC_NUMBER + (1).to_bytes(4, "little"))
        file.write(_imp.source_hash(key, text))
        file.write(marshal.dumps(code))
"""


def compiled_path(module: str, cache_tag: str) -> str:
    """Where the bytecode of the module at the path `module` lies (PEP 3147)."""
    directory, _, name = module.rpartition("/")
    return f"{directory}/__pycache__/{name[:-3]}.{cache_tag}.pyc".lstrip("/")


def compile_modules(
    manifest: list[Any], directory: str, scratch: str, cache_tag: str, runtime: str
) -> list[Any]:
    """`manifest` with a `.pyc` for each module in it.

    :param manifest: as in `entries.tree_entries`, of files below `directory`.
    :param scratch: a directory for the compiled files, which is made.
    :param cache_tag: of the interpreter, such as `cpython-311` (PEP 3147).
    :param runtime: what `python_runtime` wrote.

    Raises `ToolError` where the interpreter cannot be run.
    """
    there = {entry[1] for entry in manifest}
    jobs: list[bytes] = []
    added: list[Any] = []
    for kind, path, *place in manifest:
        if kind not in ("f", "x") or not path.endswith(".py"):
            continue
        compiled = compiled_path(path, cache_tag)
        if compiled in there:
            continue
        target = os.path.join(scratch, str(len(added)))
        source = os.path.join(directory, place[0] if place else path)
        jobs += [to_bytes(source), to_bytes(target), to_bytes(path)]
        added.append(["f", compiled, os.path.relpath(target, directory)])
    if added:
        os.makedirs(scratch)
        _run(jobs, os.path.join(scratch, "jobs"), runtime)
    return manifest + [
        entry for number, entry in enumerate(added) if os.path.exists(f"{scratch}/{number}")
    ]


def _run(jobs: list[bytes], listing: str, runtime: str) -> None:
    import subprocess

    from docker_nix.layer.tool import python_runtime

    with open(listing, "wb") as file:
        file.write(b"\0".join(jobs))

    def part(name: str) -> str:
        return os.path.abspath(os.path.join(runtime, name))

    command = [part(python_runtime.PROGRAM), "-S", "-s", "-B", "-W", "ignore", "-c", _PROGRAM]
    if os.path.exists(part(python_runtime.LOADER)):
        libraries = part(python_runtime.LIBRARIES)
        command = [part(python_runtime.LOADER), "--library-path", libraries, *command]
    # Sets of strings are compiled in the order of their hashes.
    env = {"PYTHONHOME": part(python_runtime.PREFIX), "PYTHONHASHSEED": "0"}
    try:
        done = subprocess.run(
            [*command, listing], env=env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
    except OSError as error:
        reason = error.strerror or str(error)
    else:
        if done.returncode == 0:
            return
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"it ended with {done.returncode}"
    raise ToolError(
        "the Python of the image, which compiles the image's modules, cannot be run on this "
        f"machine: {reason}; set python_bytecode=False on the image, or build on a machine of the "
        "image's platform"
    )
