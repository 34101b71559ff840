"""The command `push`: gives an image in a registry a tag, after uploading what it lacks.

skopeo uploads the blobs, and then writes the manifest under the tag, which is one request that
does it or does not: whatever fails before, the tag stays what it was, and what was uploaded need
not be uploaded again.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
from typing import Any, Callable

from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.skopeo import Skopeo, read_access
from docker_nix.layer.tool.skopeo_errors import (
    TEMPORARY,
    UNREACHABLE,
    RegistryError,
    full_name,
)

LAYOUT, SCRATCH = "layout", "scratch"

# The seconds before each further attempt, where the fault may be gone by then. skopeo waits by
# itself as long as a `Retry-After` wants, where it can send the request again.
_PAUSES = (1, 2, 4, 8)
_ALIVE_SECONDS = 30


def main(args: list[str], lib_dir: str) -> None:
    """The command `push SPEC`.

    The spec is an object with `image` ("host[:port]/repository"), `tag`, `digest` ("sha256:<hex>",
    of the manifest), `layers` (how many the image has), `uploads` and `upload_bytes` (how many are
    in the layout, and their size together). The image is in the OCI layout `layout`, under the same
    tag; layers may be absent that the repository has. Prints what is done on standard error. Raises
    `ToolError`, and then has not changed the tag, or says that it has.
    """
    if len(args) != 1:
        raise ToolError("usage: push SPEC")
    with open(args[0], encoding="utf-8") as file:
        spec = json.load(file)
    from shutil import rmtree

    os.mkdir(SCRATCH)
    try:
        _push(spec)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        rmtree(SCRATCH, ignore_errors=True)


def _push(spec: dict[str, Any]) -> None:
    image, tag, digest = spec["image"], spec["tag"], spec["digest"]
    name = full_name(image, tag)
    what = f"{spec['uploads']} of {spec['layers']} layers, {spec['upload_bytes'] / 1e6:.1f} MB"
    _say(f"pushing {name}{f': {what}, are not there yet' if spec['uploads'] else ''}")
    skopeo = Skopeo(image, read_access(), SCRATCH, "push")
    seconds = skopeo.timeout if spec["uploads"] else skopeo.short_timeout
    deadline = time.monotonic() + seconds

    def left() -> int:
        return int(deadline - time.monotonic())

    done = threading.Event()
    threading.Thread(target=_show_life, args=(name, done), daemon=True).start()
    try:
        _attempt(lambda: skopeo.push(f"oci:{LAYOUT}:{tag}", tag, left()), left)
        there = _digest_of(skopeo, name, tag)
    finally:
        done.set()
    if there != digest:
        raise ToolError(
            f"{name} is {there} now, not {digest} that was pushed: somebody else has pushed to the "
            "same tag meanwhile; publish again, or use another tag"
        )
    _say(f"pushed {name} as {digest}")


def _digest_of(skopeo: Skopeo, name: str, tag: str) -> str:
    try:
        return f"sha256:{hashlib.sha256(skopeo.manifest(tag)).hexdigest()}"
    except RegistryError as error:
        raise ToolError(
            f"{name} was pushed, but its digest cannot be checked: {error.reason}"
        ) from error


def _attempt(push: Callable[[], None], left: Callable[[], int]) -> None:
    """Calls `push` until it succeeds, or fails for good, or there is no time left for a pause."""
    for pause in (*_PAUSES, None):
        try:
            return push()
        except RegistryError as error:
            again = error.kind in (TEMPORARY, UNREACHABLE)
            if not again or pause is None or left() <= pause:
                raise
            _say(f"another attempt in {pause} s, as this one failed: {error}")
            time.sleep(pause)


def _show_life(name: str, done: threading.Event) -> None:
    seconds = 0
    while not done.wait(_ALIVE_SECONDS):
        seconds += _ALIVE_SECONDS
        _say(f"still pushing {name} ({seconds} s)")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
