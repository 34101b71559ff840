"""The command `lacking`: which layers of an image a repository in a registry does not have.

It asks with skopeo, as that knows how to log in, and skopeo has no question of this kind. But it
reads from a source only what the destination lacks. So it is told to copy an image of these layers
from a source that is this program, on the loopback address, and what it asks this for is lacking.
One layer more exists nowhere, so that the copy always fails, after all layers have been asked for
and before any manifest is written. A layer for which the registry had an error is not one that it
has, so the rest is asked about again, until the only problem is the layer that exists nowhere. No
byte of a layer is sent, and the registry sees a HEAD for each layer. Where skopeo knows another
repository of the registry that has a layer, it mounts it.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.skopeo import Skopeo, read_access
from docker_nix.layer.tool.skopeo_errors import LATE, REFUSED, UNREACHABLE, RegistryError

OUTPUT, SCRATCH = "lacking.json", "scratch"

# The first says what is lacking, the second that the rest is there; one more for what was uploaded,
# or came to harm, in between.
_ROUNDS = 3

_CONFIG = b"{}"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class _Source:
    """A registry on the loopback address with one image, whose layers it does not have.

    `asked` are the digests of the blobs that were asked for.
    """

    def __init__(self, layers: list[dict[str, object]]) -> None:
        self._manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST_TYPE,
                "config": {
                    "mediaType": _CONFIG_TYPE,
                    "digest": _digest(_CONFIG),
                    "size": len(_CONFIG),
                },
                "layers": layers,
            }
        ).encode()
        self.digest = _digest(self._manifest)
        self.asked: set[str] = set()
        source = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status, media_type, body = source._answer(self.path)
                self.send_response(status)
                self.send_header("Content-Type", media_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def name(self) -> str:
        """In skopeo's words."""
        return f"docker://127.0.0.1:{self._server.server_port}/image@{self.digest}"

    def _answer(self, path: str) -> tuple[int, str, bytes]:
        name = path.rpartition("/")[2]
        if path == "/v2/":
            return 200, "application/json", b"{}"
        if name == self.digest:
            return 200, _MANIFEST_TYPE, self._manifest
        if name == _digest(_CONFIG):
            return 200, "application/octet-stream", _CONFIG
        self.asked.add(name)
        return 404, "application/json", b"{}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def main(args: list[str], lib_dir: str) -> None:
    """The command `lacking SPEC`: writes `lacking.json`.

    The spec is an object with `image` ("host[:port]/repository"), and `layers`, objects with
    `mediaType`, `digest` and `size` (bytes). The output is an object with `lacking`, the digests of
    those that the repository does not have, or null where it could not be found out; then `reason`
    says why, and `hopeless` is whether pushing there would fail for the same reason.
    """
    if len(args) != 1:
        raise ToolError("usage: lacking SPEC")
    with open(args[0], encoding="utf-8") as file:
        spec = json.load(file)
    from shutil import rmtree

    os.mkdir(SCRATCH)
    try:
        result = _lacking(spec["image"], spec["layers"])
    finally:
        rmtree(SCRATCH, ignore_errors=True)
    with open(OUTPUT, "w", encoding="utf-8") as file:
        json.dump(result, file)


def _lacking(image: str, layers: list[dict[str, object]]) -> dict[str, object]:
    wanted = {str(layer["digest"]): layer for layer in layers}
    # Random, so that no registry can have it.
    nowhere = _digest(os.urandom(32))
    none = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": nowhere, "size": 1}
    access = read_access()
    if not access:
        reason = "it was asked on another machine than this one, without its logins"
        return {"lacking": None, "hopeless": False, "reason": reason}
    lacking: list[str] = []
    try:
        skopeo = Skopeo(image, access, SCRATCH, "push")
        for _ in range(_ROUNDS):
            asked, error = _ask(skopeo, [*wanted.values(), none])
            if nowhere in error.said:
                # skopeo names the first layer that it had a problem with: there was no other.
                return {"lacking": lacking}
            new = [digest for digest in wanted if digest in asked]
            if not new:
                break
            # Of the others it is not known yet whether it has them, or could not be asked.
            lacking += new
            for digest in new:
                del wanted[digest]
    except ToolError as failed:
        return {"lacking": None, "hopeless": True, "reason": str(failed)}
    hopeless = error.kind in (REFUSED, LATE, UNREACHABLE)
    return {"lacking": None, "hopeless": hopeless, "reason": error.reason}


def _ask(skopeo: Skopeo, layers: list[dict[str, object]]) -> tuple[set[str], RegistryError]:
    """The digests of the layers that skopeo wanted, and what it said."""
    source = _Source(layers)
    try:
        skopeo.push(
            source.name,
            source.digest,
            skopeo.short_timeout,
            "--src-no-creds",
            "--src-tls-verify=false",
        )
    except RegistryError as error:
        return source.asked, error
    finally:
        source.close()
    raise ToolError("skopeo has copied a layer that does not exist")
