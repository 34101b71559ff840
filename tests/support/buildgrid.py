"""A real remote cache (BuildGrid, a server of the Remote Execution API), and a bad way to it."""

from __future__ import annotations

import socket
import struct
import subprocess
import threading
import time
from pathlib import Path
from typing import List, Optional

from support.workspace import PROJECT

_CONFIG = """\
server:
  - !channel {{address: "127.0.0.1:{port}", insecure-mode: true}}
storages:
  - !disk-storage &storage {{path: "{storage}"}}
caches:
  - !lru-action-cache &cache
    storage: *storage
    max-cached-refs: 100000
    allow-updates: true
    cache-failed-actions: false
instances:
  - name: ""
    services:
      - !action-cache {{cache: *cache}}
      - !cas {{storage: *storage}}
      - !bytestream {{storage: *storage}}
thread-pool-size: 32
"""

_START_SECONDS = 120


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class BuildGrid:
    """A remote cache that keeps its blobs in `folder`, for the time of a `with` block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._server: Optional[subprocess.Popen[bytes]] = None

    def __enter__(self) -> BuildGrid:
        lock = PROJECT / "3rdparty/python/buildgrid.lock"
        made = subprocess.run(
            [str(PROJECT / "build-support/venv.sh"), "buildgrid", str(lock), "3.11"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert made.returncode == 0, f"BuildGrid cannot be installed:\n{made.stderr}"
        self.folder.mkdir(parents=True)
        config = self.folder / "cache.yml"
        config.write_text(_CONFIG.format(port=self.port, storage=self.folder / "storage"))
        log = self.folder / "server.log"
        with log.open("wb") as output:
            self._server = subprocess.Popen(
                [f"{made.stdout.strip()}/bin/bgd", "server", "start", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._server.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise AssertionError(f"BuildGrid did not start:\n{log.read_text()}")
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server
        self._server.terminate()
        try:
            self._server.wait(10)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        except OSError:
            return False
        return True

    def evict(self, digest: str) -> None:
        """Delete the blob `sha256:…`, as a full cache does; action results may still name it."""
        name = digest.partition(":")[2]
        (self.folder / "storage/cas/objects" / name[:2] / name[2:]).unlink()


class Link:
    """A TCP link to the server at `port`, which counts the bytes it has `served`, and those that
    were `sent` to it, and can go bad.

    Its modes: `up`; `down`: refuses connections; `silent`: takes them and what is sent, and never
    answers; `wrong`: answers with what a broken gateway says; `cut`: breaks every connection after
    `cut_after` bytes of answers.
    """

    def __init__(self, port: int) -> None:
        self.port = free_port()
        self.served = 0
        self.sent = 0
        self._cut_after = 0
        self._mode = "up"
        self._target = port
        self._connections: List[socket.socket] = []
        self._listener: Optional[socket.socket] = None

    def __enter__(self) -> Link:
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.set_mode("down")

    @property
    def address(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    def set_mode(self, mode: str, *, cut_after: int = 0) -> None:
        """Break all connections; those made from now on are in the new mode."""
        self._mode, self._cut_after = mode, cut_after
        if self._listener:
            # `shutdown` wakes up the thread that waits in `accept`.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        while self._connections:
            _reset(self._connections.pop())
        if mode != "down":
            self._listen()

    def _listen(self) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))
        self._listener.listen(128)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            if self._mode == "wrong":
                client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._target))
            self._connections += [client, server]
            for source, sink, answers in ((client, server, False), (server, client, True)):
                threading.Thread(
                    target=self._copy, args=(source, sink, answers), daemon=True
                ).start()

    def _copy(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        passed = 0
        try:
            while True:
                data = source.recv(65536)
                if not data:
                    break
                if self._mode == "silent":
                    continue
                if answers:
                    self.served += len(data)
                    passed += len(data)
                else:
                    self.sent += len(data)
                if self._mode == "cut" and passed > self._cut_after:
                    _reset(source)
                    _reset(sink)
                    return
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def _reset(connection: socket.socket) -> None:
    """Close it so that the other side gets an error, not the end of a stream."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RD)
    except OSError:
        pass
    connection.close()
