"""A real Docker engine of the test's own: no network, no storage but a temporary directory."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Dict, Iterator, Optional, Set, Tuple


class DockerEngine:
    """A running engine, spoken to through the `docker` client."""

    def __init__(self, socket: Path) -> None:
        self.host = f"unix://{socket}"
        self._environment = {**os.environ, "DOCKER_HOST": self.host}

    def run_client(
        self, *args: str, docker_config: Optional[Path] = None, **kwargs: object
    ) -> bytes:
        """Run `docker ARGS`, with the logins in a directory; return its standard output."""
        login = {"DOCKER_CONFIG": str(docker_config)} if docker_config else {}
        done = subprocess.run(  # type: ignore[call-overload]
            ["docker", *args],
            env={**self._environment, **login},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **kwargs,
        )
        message = f"docker {' '.join(args)}:\n{done.stdout!r}\n{done.stderr.decode()}"
        assert done.returncode == 0, message
        return done.stdout

    def image_ids(self) -> Set[str]:
        """The ids of all images that have a name."""
        return set(self.run_client("image", "ls", "--quiet", "--no-trunc").decode().split())

    def load(self, layout: Path) -> str:
        """Load an OCI layout directory or a docker-archive; the name it was loaded as."""
        if layout.is_dir():
            with subprocess.Popen(
                ["tar", "-cC", str(layout), "."], stdout=subprocess.PIPE
            ) as archive:
                output = self.run_client("load", stdin=archive.stdout)
        else:
            output = self.run_client("load", "-i", str(layout))
        return output.decode().rsplit("Loaded image: ", 1)[1].split()[0]

    def run(self, image: str, *args: str) -> str:
        """Run a container of `image` without a network; its output."""
        return self.run_client("run", "--rm", "--network", "none", image, *args).decode()

    def files(self, image: str) -> Dict[str, Tuple[tarfile.TarInfo, bytes]]:
        """The root file system of a container of `image`, as the engine has put it together."""
        container = self.run_client("create", image, "none").decode().strip()
        try:
            exported = self.run_client("export", container)
        finally:
            self.run_client("rm", container)
        files = {}
        with tarfile.open(fileobj=BytesIO(exported)) as archive:
            for member in archive:
                content = None if member.issym() else archive.extractfile(member)
                files[member.name] = (member, content.read() if content else b"")
        return files


@contextmanager
def docker_engine() -> Iterator[DockerEngine]:
    """Start an engine, and stop it, by its process id, at the end. Needs root."""
    # A Unix socket's path may have about 100 bytes, fewer than a test's own directory has.
    folder = Path(tempfile.mkdtemp(prefix="dkr"))
    log = folder / "log"
    with log.open("wb") as out:
        daemon = subprocess.Popen(
            [
                "dockerd",
                "--storage-driver=vfs",
                f"--data-root={folder}/data",
                f"--exec-root={folder}/exec",
                f"--host=unix://{folder}/docker.sock",
                f"--pidfile={folder}/pid",
                "--iptables=false",
                "--bridge=none",
            ],
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        engine = DockerEngine(folder / "docker.sock")
        deadline = time.monotonic() + 60
        while True:
            try:
                engine.run_client("version")
                break
            except AssertionError:
                alive = daemon.poll() is None and time.monotonic() < deadline
                assert alive, f"dockerd does not start:\n{log.read_text()}"
                time.sleep(0.2)
        yield engine
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(60)
        shutil.rmtree(folder, ignore_errors=True)
