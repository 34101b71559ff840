"""The command `start`: loads an image into an engine, and becomes the engine's `run` command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
from typing import Any, BinaryIO, NoReturn, cast

from docker_nix.layer.tool.errors import ToolError
from docker_nix.run.tool.engine import Engine, find

LAYOUT = "layout"

# What makes of a tar with layers an OCI layout, in which images have tags, but no names. Engines
# but Docker read that rather than the `manifest.json` beside it, which has the names.
_OCI_FILES = ("./index.json", "./oci-layout")


def main(args: list[str], lib_dir: str) -> NoReturn:
    """The command `start SPEC DIRECTORY ARGUMENTS...`: runs a container, and does not return.

    The spec is an object with `name` and `program` of the engine (null where it is still to be
    found, as `engine` says), `image` (the id that it has the image by, or null), `ids` (those that
    it may have once it is loaded), `names` (what the image is called), `layers` (how many), `loads`
    and `load_bytes` (how many are in the layout, and their size together), and `args` (for the
    engine's `run`, before the image). The layout to load is in `layout`. The engine runs in
    DIRECTORY; ARGUMENTS are for the container.
    """
    if len(args) < 2:
        raise ToolError("usage: start SPEC DIRECTORY ARGUMENTS...")
    with open(args[0], encoding="utf-8") as file:
        spec = json.load(file)
    try:
        if spec["name"] is None:
            engine = find(spec["engine"], os.environ)
            spec["image"] = engine.first_id(spec["ids"])
        else:
            engine = Engine(spec["name"], spec["program"], os.environ)
        if spec["image"] is None:
            _load(engine, spec)
        image = _image(engine, spec)
    except KeyboardInterrupt:
        sys.exit(130)
    options = ["--rm", "--interactive"]
    if os.isatty(0) and os.isatty(1):
        options.append("--tty")
    os.chdir(args[1])
    # Python ignores it, and what it starts would, too.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    command = [engine.program, "run", *options, *spec["args"], image, *args[2:]]
    os.execv(engine.program, command)


def _load(engine: Engine, spec: dict[str, Any]) -> None:
    """Streams the layout to the engine, as a tar that is nowhere on disk."""
    what = f"{spec['loads']} of {spec['layers']} layers, {spec['load_bytes'] / 1e6:.1f} MB"
    sys.stderr.write(f"loading {spec['names'][0]} into {engine.name}: {what}\n")
    sys.stderr.flush()
    with subprocess.Popen(
        [engine.program, "load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as loader:
        try:
            # Its output is a few lines, less than a pipe holds.
            with tarfile.open(fileobj=cast(BinaryIO, loader.stdin), mode="w|") as archive:
                archive.add(LAYOUT, ".", filter=None if engine.name == "docker" else _unnamed)
            assert loader.stdin
            loader.stdin.close()
        except BrokenPipeError:
            pass  # it has said why
        assert loader.stdout
        said = loader.stdout.read().decode(errors="replace").strip()
        code = loader.wait()
    if code:
        hint = ""
        if "no such file" in said:
            hint = "; it has lost layers since it was asked for them: run it again"
        raise ToolError(f"`{engine.name} load` failed: {' | '.join(said.splitlines())}{hint}")


def _unnamed(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if member.name in _OCI_FILES else member


def _image(engine: Engine, spec: dict[str, Any]) -> str:
    """What to run: the image's id, as a name may be another image's by now."""
    image: str | None = spec["image"] or engine.first_id(spec["ids"])
    if image is None:
        # An engine that names images by something of its own, or not by ids.
        name: str = spec["names"][0]
        if engine.image_id(name) is None:
            raise ToolError(f"{engine.name} has loaded the image, but has no {name}")
        return name
    for name in spec["names"]:
        if engine.image_id(name) != image:
            engine.tag(image, name)
    return image
