"""A real registry of the test's own, and a stand-in for one that fails in a chosen way."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, Optional, Tuple

from support.buildgrid import free_port

_START_SECONDS = 60

# All that Python 3.13 insists on.
_EXTENSIONS = """\
subjectAltName = IP:127.0.0.1, DNS:localhost
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature, keyEncipherment
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


class Registry:
    """Debian's `docker-registry` on 127.0.0.1, in `folder`, for the time of a `with` block.

    :param users: name -> password of those who may pull and push; anyone may where it is None.
    :param tls: whether it speaks https, with a certificate that only the CA in `ca_file` vouches
        for; plain http otherwise.
    """

    def __init__(
        self, folder: Path, *, users: Optional[Mapping[str, str]] = None, tls: bool = False
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.ca_file: Optional[Path] = folder / "ca.crt" if tls else None
        self._users = users
        self._process: Optional[subprocess.Popen[bytes]] = None

    @property
    def address(self) -> str:
        """What an image's name begins with."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Registry:
        self.folder.mkdir(parents=True)
        http: Dict[str, object] = {"addr": self.address, "secret": "test"}
        config: Dict[str, object] = {
            "version": "0.1",
            "log": {"level": "info"},
            "storage": {
                "filesystem": {"rootdirectory": str(self.folder / "storage")},
                "delete": {"enabled": True},
            },
            "http": http,
        }
        if self.ca_file:
            make_certificates(self.folder)
            http["tls"] = {
                "certificate": str(self.folder / "server.crt"),
                "key": str(self.folder / "server.key"),
            }
        if self._users is not None:
            htpasswd = self.folder / "htpasswd"
            htpasswd.write_text("".join(_htpasswd(*user) for user in self._users.items()))
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(htpasswd)}}
        config_file = self.folder / "config.yml"
        config_file.write_text(json.dumps(config))  # JSON is YAML
        log = self.folder / "log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                ["docker-registry", "serve", str(config_file)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise AssertionError(f"the registry did not start:\n{log.read_text()}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answers(self) -> bool:
        context = ssl.create_default_context(cafile=str(self.ca_file)) if self.ca_file else None
        url = f"{'https' if self.ca_file else 'http'}://{self.address}/v2/"
        try:
            urllib.request.urlopen(url, timeout=5, context=context).close()
        except urllib.error.HTTPError as error:
            return error.code == 401
        except OSError:
            return False
        return True

    def requests(self) -> List[str]:
        """What was asked for so far, in order, as `METHOD PATH STATUS`, without query strings."""
        found = []
        for line in (self.folder / "log").read_text(errors="replace").splitlines():
            match = re.search(r'\] "([A-Z]+) ([^ ?]+)\S* HTTP/[\d.]+" (\d+) ', line)
            if match:
                found.append(" ".join(match.groups()))
        return found

    def tags(self, repository: str) -> Dict[str, str]:
        """The tags of a repository with their digests, as they lie in its storage."""
        place = self.folder / "storage/docker/registry/v2/repositories" / repository
        links = place.glob("_manifests/tags/*/current/link")
        return {link.parents[1].name: link.read_text() for link in links}

    def auth_file(self, path: Path, user: str, password: Optional[str] = None) -> Path:
        """Write what `docker login` writes for `user`, with a wrong password if one is given."""
        assert self._users is not None
        return write_auth_file(path, self.address, user, password or self._users[user])

    def push(self, source: str, repository: str, tag: str = "latest") -> str:
        """Copy the image `source` (`oci:…`), an index with all in it, to `repository`; its digest.

        Where the registry has users, it is the first of them who pushes.
        """
        assert self._process
        digest_file = self.folder / "pushed"
        command = ["skopeo", "copy", "--all", "--preserve-digests", "--quiet"]
        command += ["--dest-tls-verify=false", f"--digestfile={digest_file}"]
        if self._users:
            auth = self.auth_file(self.folder / "push-auth.json", next(iter(self._users)))
            command.append(f"--dest-authfile={auth}")
        command += [source, f"docker://{self.address}/{repository}:{tag}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 0, done.stderr
        return digest_file.read_text().strip()


def write_auth_file(path: Path, address: str, user: str, password: str) -> Path:
    """Write a file of the form of `~/.docker/config.json` with one login."""
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps({"auths": {address: {"auth": login}}}))
    return path


def make_certificates(folder: Path) -> None:
    """Write a CA (`ca.crt`) and a certificate of it for 127.0.0.1 (`server.crt`, `server.key`)."""
    (folder / "extensions").write_text(_EXTENSIONS)
    key = ["-newkey", "rsa:2048", "-nodes"]
    for command in (
        ["req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=Test CA"]
        + ["-days", "30", "-addext", "keyUsage=critical,keyCertSign,cRLSign"],
        ["req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1"],
        ["x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key"]
        + ["-CAcreateserial", "-out", "server.crt", "-days", "30", "-extfile", "extensions"],
    ):
        done = subprocess.run(
            ["openssl", *command], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert done.returncode == 0, done.stdout.decode()


def _htpasswd(user: str, password: str) -> str:
    # From stdin, as arguments can be seen by all; -B is bcrypt, all that this registry takes.
    done = subprocess.run(
        ["htpasswd", "-inB", user], input=password, stdout=subprocess.PIPE, check=True, text=True
    )
    return done.stdout.strip() + "\n"


@dataclass
class Answer:
    """How the stub answers: with a status and body; or, for each of its blobs and manifests, `cut`
    after half of it; `garbled` in its first byte; or `hang`, with nothing until the stub ends.
    """

    status: int = 200
    body: bytes = b""
    headers: Dict[str, str] = field(default_factory=dict)
    cut: bool = False
    garbled: bool = False
    hang: bool = False


class StubRegistry:
    """An HTTP server with the read half of a registry's API, for the time of a `with` block.

    It has `content` under any repository's name. `answers` says how requests are answered whose
    path has the key in it ("/v2/", "/manifests/", "/blobs/", a digest); the longest key wins. What
    no key fits is answered well. `requests` is what was asked for, in order.
    """

    def __init__(self, content: Optional[List[Tuple[str, bytes]]] = None) -> None:
        """:param content: (media type, bytes) of each blob and manifest."""
        self.content = {
            f"sha256:{hashlib.sha256(data).hexdigest()}": (media_type, data)
            for media_type, data in content or []
        }
        self.answers: Dict[str, Answer] = {}
        self.requests: List[str] = []
        self._ended = threading.Event()
        self._server: Optional[ThreadingHTTPServer] = None

    @property
    def address(self) -> str:
        """What an image's name begins with."""
        assert self._server
        return f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> StubRegistry:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                try:
                    stub._answer(self)
                except OSError:
                    self.close_connection = True

            do_HEAD = do_GET

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests.append(f"{request.command} {request.path}")
        fitting = sorted((key for key in self.answers if key in request.path), key=len)
        answer = self.answers[fitting[-1]] if fitting else Answer()
        if answer.hang:
            self._ended.wait()
            request.close_connection = True
            return
        status, headers, body = answer.status, dict(answer.headers), answer.body
        name = request.path.rpartition("/")[2]
        if status == 200 and request.path != "/v2/":
            if name in self.content:
                headers["Content-Type"], body = self.content[name]
                headers["Docker-Content-Digest"] = name
            else:
                status = 404
        if answer.garbled:
            body = bytes([body[0] ^ 1]) + body[1:]
        request.send_response(status)
        for header, value in headers.items():
            request.send_header(header, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body[: len(body) // 2] if answer.cut else body)
        if answer.cut:
            request.close_connection = True


@dataclass
class Fault:
    """What a `Gate` does with requests of this method (any, if empty) whose path has this in it.

    The first `times` of them are answered with `status`, or with nothing (`hang`), or their
    connection is broken after `die_after` bytes of their body.
    """

    method: str
    path: str
    status: int = 0
    headers: Dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    hang: bool = False
    die_after: Optional[int] = None
    times: int = 1_000_000


class Gate:
    """An HTTP proxy before the registry at `port`, which lets requests pass but for `faults`.

    `uploaded` is how many bytes of blobs have come; `requests` what was asked, in order.
    """

    def __init__(self, port: int) -> None:
        self.faults: List[Fault] = []
        self.requests: List[str] = []
        self.uploaded = 0
        self._port = port
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._server: Optional[ThreadingHTTPServer] = None

    @property
    def address(self) -> str:
        """What an image's name begins with."""
        assert self._server
        return f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Gate:
        gate = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass(self) -> None:
                try:
                    gate._answer(self)
                except OSError:
                    self.close_connection = True

            do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = _pass

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()

    def _fault(self, request: BaseHTTPRequestHandler) -> Optional[Fault]:
        with self._lock:
            self.requests.append(f"{request.command} {request.path.partition('?')[0]}")
            for fault in self.faults:
                fits = fault.method in ("", request.command) and fault.path in request.path
                if fits and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        fault = self._fault(request)
        if fault and fault.hang:
            self._ended.wait()
            request.close_connection = True
            return
        body = b""
        for piece in _body(request):
            body += piece
            if request.command in ("PATCH", "PUT") and "/blobs/" in request.path:
                self.uploaded += len(piece)
            if fault and fault.die_after is not None and len(body) >= fault.die_after:
                request.connection.close()
                request.close_connection = True
                return
        if fault and fault.status:
            _respond(request, fault.status, fault.headers, fault.body)
            return
        forwarded = HTTPConnection("127.0.0.1", self._port)
        forwarded.putrequest(request.command, request.path, True, True)
        for name, value in request.headers.items():  # some come more than once
            if name.lower() not in ("transfer-encoding", "content-length"):
                forwarded.putheader(name, value)
        forwarded.putheader("Content-Length", str(len(body)))
        forwarded.endheaders(body)
        answer = forwarded.getresponse()
        content = answer.read()
        kept = {k: v for k, v in answer.getheaders() if k.lower() not in ("date", "connection")}
        _respond(request, answer.status, kept, content)
        forwarded.close()


def _body(request: BaseHTTPRequestHandler) -> Iterator[bytes]:
    if request.headers.get("Transfer-Encoding") == "chunked":
        while True:
            size = int(request.rfile.readline(), 16)
            if size:
                yield request.rfile.read(size)
            request.rfile.readline()
            if not size:
                return
    left = int(request.headers.get("Content-Length") or 0)
    while left:
        piece = request.rfile.read(min(left, 65536))
        if not piece:
            return
        left -= len(piece)
        yield piece


def _respond(
    request: BaseHTTPRequestHandler, status: int, headers: Mapping[str, str], body: bytes
) -> None:
    request.send_response(status)
    for header, value in headers.items():
        request.send_header(header, value)
    if not any(header.lower() == "content-length" for header in headers):
        request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)
