"""Which of Pants' settings matter for images on a remote cache, measured against a real server.

    python3 tests/bench/cluster_settings.py

An image of 40 packages of 0.1 MB and one of 20 MB, not compressed. One client fills the cache, and
another, which has nothing, builds the image again. It prints what crossed the link for each
`cache_content_behavior`; what is stored over a link of 8 Mbit/s, by the time that Pants waits for
uploads at its end; how long both take over a link with 20 ms there and back, by the number of
requests at a time and the size up to which a blob goes in one; and how many requests a second two
servers answer on this machine, together with those who ask.
"""

from __future__ import annotations

import queue
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import List, Optional, Tuple

PROJECT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PROJECT / "tests")]

from support.buildbox import BuildBox  # noqa: E402
from support.buildgrid import BuildGrid, Link  # noqa: E402
from support.workspace import Repo  # noqa: E402

PACKAGES, PACKAGE_BYTES, LARGE_BYTES = 40, 100_000, 20_000_000
WAIT, SHORT = "--session-end-tasks-timeout=600", "--remote-store-rpc-timeout-millis=5000"


class FarLink(Link):
    """A link with a delay each way, in seconds, or with so many bytes per second at most."""

    def __init__(self, port: int, *, delay: float = 0, rate: float = 0) -> None:
        super().__init__(port)
        self._delay, self._rate = delay, rate

    def _copy(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        # Few at a time, so that a sender feels the limit.
        waiting: queue.Queue[Tuple[float, bytes]] = queue.Queue(4 if self._rate else 0)
        threading.Thread(target=self._forward, args=(waiting, sink), daemon=True).start()
        data = b"x"
        while data:
            try:
                data = source.recv(65536)
            except OSError:
                data = b""
            if answers:
                self.served += len(data)
            else:
                self.sent += len(data)
            waiting.put((time.monotonic() + self._delay, data))

    def _forward(self, waiting: queue.Queue[Tuple[float, bytes]], sink: socket.socket) -> None:
        try:
            while True:
                due, data = waiting.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if self._rate:
                    time.sleep(len(data) / self._rate)
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                sink.sendall(data)
        except OSError:
            while waiting.get()[1]:
                pass


def client(root: Path, link: Link, *options: str) -> Repo:
    store = f"--remote-store-address={link.address}"
    repo = Repo(
        root / "repo",
        store=root / "store",
        options=[store, "--remote-cache-read", "--remote-cache-write", *options],
        backends=["docker_nix"],
    )
    names = [f"p{number}" for number in range(PACKAGES)] + ["large"]
    lines = [f'files(name="{name}", sources=["{name}/file"])' for name in names]
    contents = ", ".join(f'":{name}"' for name in names)
    lines.append(f'docker_nix_layered(name="i", compression="none", contents=[{contents}])')
    repo.write("BUILD", "\n".join(lines) + "\n")
    for number, name in enumerate(names):
        size = LARGE_BYTES if name == "large" else PACKAGE_BYTES
        repo.write(f"{name}/file", random.Random(number).randbytes(size))
    return repo


def build(repo: Repo, *options: str) -> float:
    """The seconds it takes."""
    start = time.monotonic()
    repo.pants(*options, "package", ":i")
    return time.monotonic() - start


def size(folder: Path) -> float:
    """Of all files, in MB."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def behaviors(folder: Path) -> None:
    with BuildBox(folder / "server") as server, Link(server.port) as link:
        build(client(folder / "first", link, WAIT))
        print("\ncache_content_behavior: what another client fetches, and then has in its store")
        for form in ("oci", "metadata"):
            for behavior in ("fetch", "validate", "defer"):
                root = folder / f"{behavior}-{form}"
                repo = client(root, link, f"--cache-content-behavior={behavior}")
                before = link.served
                build(repo, f"--docker-nix-output-format={form}")
                fetched = (link.served - before) / 1e6
                stored = size(root / "store")
                print(f"{behavior:10}{form:12}{fetched:8.2f} MB{stored:8.1f} MB", flush=True)


def uploads(folder: Path) -> None:
    print("\nover 8 Mbit/s: what of the image's 24 MB the cache has after the first build")
    for name, options in (
        ("session_end_tasks_timeout = 3 (default)", ()),
        ("session_end_tasks_timeout = 600", (WAIT,)),
        ("… and remote_store_rpc_timeout_millis = 5000", (WAIT, SHORT)),
    ):
        with BuildBox(folder / name / "server") as server:
            with FarLink(server.port, rate=1e6) as link:
                seconds = build(client(folder / name, link, *options))
                stored = sum(server.blobs().values()) / 1e6
        print(f"{name:48}{stored:6.1f} MB {seconds:6.1f} s", flush=True)


def distance(folder: Path) -> None:
    print("\nover 20 ms there and back: seconds of the first build, and of another client's")
    base: Optional[Tuple[float, float]] = None
    for name, options in (
        ("default", []),
        ("…_rpc_concurrency = 8", _concurrency(8)),
        ("…_rpc_concurrency = 1", _concurrency(1)),
        ("remote_store_batch_api_size_limit = 0", ["--remote-store-batch-api-size-limit=0"]),
    ):
        with BuildBox(folder / name / "server") as server:
            with FarLink(server.port, delay=0.01) as link:
                first = build(client(folder / name / "first", link, WAIT, *options))
                second = build(client(folder / name / "second", link, WAIT, *options))
        base = base or (first, second)
        ratios = f"{first / base[0]:.2f}, {second / base[1]:.2f}"
        print(f"{name:40}{first:7.1f}{second:7.1f}   (ratios {ratios})", flush=True)


def _concurrency(number: int) -> List[str]:
    return [f"--remote-{kind}-rpc-concurrency={number}" for kind in ("store", "cache")]


def load(folder: Path) -> None:
    print("\nrequests a second that a server answers, with the clients on the same machine")
    lock = str(PROJECT / "3rdparty/python/buildgrid.lock")
    venv = [str(PROJECT / "build-support/venv.sh"), "buildgrid", lock, "3.11"]
    python = subprocess.check_output(venv, text=True).strip() + "/bin/python"
    script = str(PROJECT / "tests/bench/cluster_load.py")
    for server in (BuildBox(folder / "box"), BuildGrid(folder / "grid")):
        with server:
            for clients in (1, 8):
                command = [python, script, f"127.0.0.1:{server.port}", "5", str(clients)]
                answered = int(subprocess.check_output(command))
                print(f"{type(server).__name__:10}{clients:3} clients{answered:7}", flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        for step in (behaviors, uploads, distance, load):
            (Path(name) / step.__name__).mkdir()
            step(Path(name) / step.__name__)
