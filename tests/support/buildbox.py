"""A real server with remote cache and remote execution (BuildBox), and its workers.

Each action runs in a container (bubblewrap) that has the system's `/usr`, `/bin` and `/lib`, and
nothing else: no network, no `PATH` or `HOME`, no capability, and not this machine's `/tmp`, where
Pants' sandboxes, stores and caches are.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Iterator, List, Mapping, Optional, Sequence, Tuple

from support.buildgrid import free_port
from support.workspace import PROJECT

_START_SECONDS = 60
_PACKAGE = "lib/python3.11/site-packages/buildstream/subprojects/buildbox"
# What a worker has: an ordinary Debian, with its /usr/bin/python3.
SYSTEM = ("/usr", "/bin", "/lib", "/lib64")


def buildbox_programs() -> Path:
    """The folder with the programs."""
    lock = PROJECT / "3rdparty/python/buildbox.lock"
    made = subprocess.run(
        [str(PROJECT / "build-support/venv.sh"), "buildbox", str(lock), "3.11"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert made.returncode == 0, f"BuildBox cannot be installed:\n{made.stderr}"
    programs = Path(made.stdout.strip()) / _PACKAGE
    for program in programs.iterdir():
        program.chmod(0o755)
    return programs


class BuildBox:
    """A server that keeps its blobs in `folder`, for the time of a `with` block.

    :param jobs: how many actions run at a time; 0 for a server without execution.
    :param options: further options of `buildbox-casd`.
    :param prefix: a command to run it under, such as `ip netns exec NAME`.
    :param host: the address it listens on.
    """

    def __init__(
        self,
        folder: Path,
        *,
        jobs: int = 2,
        options: Sequence[str] = (),
        prefix: Sequence[str] = (),
        host: str = "127.0.0.1",
    ) -> None:
        self.folder = folder
        self.host = host
        self.port = free_port()
        self.log = folder / "server.log"
        self._jobs = jobs
        self._options = options
        self._prefix = prefix
        self._server: Optional[subprocess.Popen[bytes]] = None

    def __enter__(self) -> BuildBox:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def address(self) -> str:
        return f"grpc://{self.host}:{self.port}"

    @property
    def cache_options(self) -> Tuple[str, ...]:
        """Options of Pants that use it as a remote cache."""
        return (
            f"--remote-store-address={self.address}",
            "--remote-cache-read",
            "--remote-cache-write",
        )

    @property
    def execution_options(self) -> Tuple[str, ...]:
        """Options of Pants that have it run processes."""
        return (
            f"--remote-store-address={self.address}",
            f"--remote-execution-address={self.address}",
            "--remote-execution",
        )

    def start(self) -> None:
        programs = buildbox_programs()
        runner = []
        if self._jobs:
            runner = [
                f"--buildbox-run={programs}/buildbox-run",
                *(f"--runner-arg=--bind-mount={path}:{path}" for path in SYSTEM),
                f"--jobs={self._jobs}",
            ]
        with self.log.open("ab") as output:
            self._server = subprocess.Popen(
                [
                    *self._prefix,
                    f"{programs}/buildbox-casd",
                    f"--bind={self.host}:{self.port}",
                    *runner,
                    "--log-level=info",
                    *self._options,
                    str(self.folder / "cas"),
                ],
                env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._server.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"BuildBox did not start:\n{self.log.read_text()}")
            time.sleep(0.05)

    def stop(self, *, kill: bool = False) -> None:
        """Stop it, and what it runs; with `kill`, as a crash would."""
        server = self._server
        if server is None:
            return
        children = self.workers()
        if kill:
            server.kill()
        else:
            server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        for pid in children:
            _kill(pid)
        self._server = None
        self._unmount()

    def _unmount(self) -> None:
        """Undo the mounts of sandboxes that were killed."""
        for line in Path("/proc/self/mounts").read_text().splitlines():
            place = line.split()[1]
            if place.startswith(f"{self.folder}/cas/"):
                subprocess.run(["umount", "--lazy", place], check=True)

    def workers(self) -> List[int]:
        """The process ids of what runs actions at present."""
        return list(_descendants(self._server.pid)) if self._server else []

    def programs(self) -> List[str]:
        """The paths of the programs that run at present for actions."""
        return [_program(pid) for pid in self.workers()]

    def kill_workers(self, name: str = "") -> None:
        """Kill what runs for actions; with `name`, the programs whose path ends in it."""
        for pid in self.workers():
            if _program(pid).endswith(name):
                _kill(pid)

    def blobs(self) -> Mapping[str, int]:
        """The sizes of the blobs it has, by their SHA-256."""
        return {
            file.parent.name + file.name: file.stat().st_size
            for file in (self.folder / "cas/cas/objects").glob("*/*")
        }

    def empty(self) -> None:
        """Delete all that it has. It must not be running."""
        assert self._server is None
        shutil.rmtree(self.folder / "cas")

    def spoil(self, digest: str) -> None:
        """Change a byte of the blob `sha256:…`, as a bad disk does."""
        name = digest.partition(":")[2]
        path = self.folder / "cas/cas/objects" / name[:2] / name[2:]
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.unlink()
        path.write_bytes(content)

    def evict(self, digest: str) -> None:
        """Delete the blob `sha256:…`, as a full cache does; action results may still name it."""
        name = digest.partition(":")[2]
        (self.folder / "cas/cas/objects" / name[:2] / name[2:]).unlink()

    def actions(self) -> int:
        """How many actions it has run to their end since it was made."""
        return len(re.findall(r"\] Runner exited with code", self.log.read_text()))

    def _answers(self) -> bool:
        try:
            socket.create_connection((self.host, self.port), timeout=5).close()
        except OSError:
            return False
        return True


def _children(pid: int) -> List[int]:
    """The children of a process; none if it has ended, which it may do while this looks."""
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    children: List[int] = []
    for task in tasks:
        try:
            children += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
        except OSError:
            continue
    return children


def _descendants(pid: int) -> Iterator[int]:
    for child in _children(pid):
        yield child
        yield from _descendants(child)


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[0]
    except OSError:
        return ""


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
