"""What a cluster's faults do to a build: the right image, or an error that says what to do.

Each test is a row of the table in docs/clusters.md.
"""

from __future__ import annotations

import hashlib
import random
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, List, Sequence, Tuple

import pytest

from support.buildbox import BuildBox
from support.workspace import PROJECT, Repo, Run

_SIZE = 700_000
# `slow` takes time when its last layer is made.
_BUILD = """\
files(name="data", sources=["data/*"])
files(name="more", sources=["more/*"])
docker_nix_layered(
    name="slow",
    contents=[":data"],
    compression="none",
    extra_commands="sleep 3 && cp $STORE_ROOT{store_path[:data]}/data/0 copied",
    tools=["cp", "sleep"],
)
docker_nix_layered(name="plain", contents=[":data", ":more"], compression="none")
docker_nix_export(name="rootfs", from_image=":plain")
"""


def client(root: Path, *options: str, pantsd: bool = False) -> Repo:
    """A machine that has built nothing yet."""
    repo = Repo(
        root / "repo",
        store=root / "store",
        pantsd=pantsd,
        options=options,
        backends=["docker_nix"],
    )
    repo.write("BUILD", _BUILD)
    for number in range(2):
        repo.write(f"data/{number}", random.Random(number).randbytes(_SIZE))
    repo.write("more/file", random.Random(7).randbytes(_SIZE))
    return repo


class Build:
    """A build that runs while something happens to the cluster."""

    def __init__(self, repo: Repo, target: str) -> None:
        self._process = subprocess.Popen(
            [str(PROJECT / "pants"), *repo.options, "package", target],
            cwd=repo.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def end(self) -> Run:
        """Wait for it."""
        output, _ = self._process.communicate(timeout=300)
        return Run(self._process.returncode, output, "")


def wait_for_action(server: BuildBox) -> None:
    """Until the script of `slow` runs."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if any("sleep" in command.split("/")[-1] for command in server.programs()):
            return
        time.sleep(0.05)
    raise AssertionError(f"no action was run:\n{server.log.read_text()}")


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """What a machine on its own gives."""
    repo = client(tmp_path_factory.mktemp("healthy"))
    repo.pants("package", ":slow", ":plain", ":rootfs")
    return repo


def layers(repo: Repo, name: str) -> List[str]:
    """The digests of the layers of an image."""
    return [layer["digest"] for layer in repo.info(name)["docker_nix"]["layers"]]


def check_right(repo: Repo, healthy: Repo, name: str) -> None:
    """That an image is complete, and the one of the healthy machine."""
    assert repo.digest(name) == healthy.digest(name)
    expected = healthy.root / "dist" / name
    files = [path.relative_to(expected) for path in expected.rglob("*") if path.is_file()]
    assert len(files) > 4
    for file in files:
        assert (repo.root / "dist" / name / file).read_bytes() == (expected / file).read_bytes()


def check_clear(run: Run, repo: Repo, *messages: str) -> None:
    """That a build ended with a short error, and left nothing."""
    assert run.exit_code == 1, run.output
    for message in messages:
        assert message in run.output, run.output
    error = run.output[run.output.index("Exception encountered") :]
    assert len(error.splitlines()) < 25, error
    assert not list((repo.root / "dist").glob("**/blobs")), run.output


def test_a_worker_is_killed(healthy: Repo, tmp_path: Path) -> None:
    with BuildBox(tmp_path / "server") as server:
        repo = client(tmp_path, *server.execution_options)
        build = Build(repo, ":slow")
        wait_for_action(server)
        server.kill_workers()
        run = build.end()
        assert run.exit_code == 0, run.output
        check_right(repo, healthy, "slow")


def test_a_process_on_a_worker_is_killed(tmp_path: Path) -> None:
    """As for want of memory: Pants takes it for the result."""
    with BuildBox(tmp_path / "server") as server:
        repo = client(tmp_path, *server.execution_options)
        build = Build(repo, ":slow")
        wait_for_action(server)
        server.kill_workers("python3")
        check_clear(
            build.end(),
            repo,
            "The target //:slow cannot be built. Packing a layer of links to the contents after "
            "extra_commands failed.",
            "said nothing: it was killed, perhaps for want of memory where it ran",
        )


@pytest.mark.parametrize("emptied", (False, True))
def test_the_server_is_restarted(healthy: Repo, tmp_path: Path, emptied: bool) -> None:
    with BuildBox(tmp_path / "server") as server:
        repo = client(tmp_path, *server.execution_options)
        build = Build(repo, ":slow")
        wait_for_action(server)
        server.stop(kill=True)
        if emptied:
            server.empty()
        server.start()
        run = build.end()
        assert run.exit_code == 0, run.output
        check_right(repo, healthy, "slow")


def test_the_server_goes_away(healthy: Repo, tmp_path: Path) -> None:
    with BuildBox(tmp_path / "server") as server:
        repo = client(tmp_path, *server.execution_options)
        build = Build(repo, ":slow")
        wait_for_action(server)
        server.stop(kill=True)
        check_clear(
            build.end(),
            repo,
            "The target //:slow cannot be built. Packing a layer of links to the contents after "
            "extra_commands failed on the cluster.",
            "Too many failures from server.",
            "Run it again when the cluster of [GLOBAL].remote_execution_address is well, or have "
            "it done here with --no-remote-execution.",
        )
        repo.pants("--no-remote-execution", "package", ":slow")
        check_right(repo, healthy, "slow")


def test_a_server_does_not_execute(tmp_path: Path) -> None:
    with BuildBox(tmp_path / "server", jobs=0) as server:
        repo = client(tmp_path, *server.execution_options)
        check_clear(
            repo.pants("package", ":plain", check=False),
            repo,
            "The target //:plain cannot be built.",
            "Execution service is not enabled",
            "--no-remote-execution",
        )


@pytest.mark.parametrize("execution", (False, True))
def test_blobs_are_lost_between_two_steps(healthy: Repo, tmp_path: Path, execution: bool) -> None:
    """The daemon remembers layers that it never fetched, and the server has lost them."""
    with BuildBox(tmp_path / "server") as server:
        keep = ("--remote-cache-read", "--remote-cache-write")
        options = (*server.execution_options, *keep) if execution else server.cache_options
        client(tmp_path / "first", *options).pants("package", ":plain")
        repo = client(tmp_path / "second", *options, "--cache-content-behavior=defer", pantsd=True)
        try:
            repo.pants("package", "--docker-nix-output-format=metadata", ":plain")
            for digest in layers(repo, "plain"):
                server.evict(digest)
            repo.pants("package", ":plain", ":rootfs")
            check_right(repo, healthy, "plain")
            assert (repo.root / "dist/rootfs.tar").read_bytes() == (
                healthy.root / "dist/rootfs.tar"
            ).read_bytes()
            server.stop()
            server.empty()
            server.start()
            repo.pants("package", ":slow", ":plain")
            check_right(repo, healthy, "slow")
            check_right(repo, healthy, "plain")
        finally:
            repo.close()


@pytest.mark.parametrize("execution", (False, True))
def test_the_servers_disk_is_full(healthy: Repo, tmp_path: Path, execution: bool) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    with tmpfs(folder, mebibytes=1), BuildBox(folder, options=("--reserved=0",)) as server:
        options = server.execution_options if execution else server.cache_options
        repo = client(tmp_path, *options)
        run = repo.pants("package", ":plain", check=False)
        if execution:
            check_clear(run, repo, "The target //:plain cannot be built.")
            repo.pants("--no-remote-execution", "package", ":plain")
        else:
            assert run.exit_code == 0, run.output
        check_right(repo, healthy, "plain")


@pytest.mark.parametrize("behavior", ("fetch", "defer"))
def test_the_server_has_other_bytes(healthy: Repo, tmp_path: Path, behavior: str) -> None:
    with BuildBox(tmp_path / "server") as server:
        client(tmp_path / "first", *server.cache_options).pants("package", ":plain")
        for digest in layers(healthy, "plain"):
            server.spoil(digest)
        repo = client(
            tmp_path / "second", *server.cache_options, f"--cache-content-behavior={behavior}"
        )
        run = repo.pants("package", ":plain", check=False)
        if behavior == "defer":
            # Found when the image is written, so that some of it is there; none of it is wrong.
            assert run.exit_code == 1
            assert "Remote CAS gave wrong digest: expected Digest" in run.output
            for blob in (repo.root / "dist/plain/blobs/sha256").iterdir():
                assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
            repo.pants("--no-local-cache", "--no-remote-cache-read", "package", ":plain")
        else:
            assert run.exit_code == 0, run.output
        check_right(repo, healthy, "plain")


@pytest.mark.parametrize("execution", (False, True))
def test_the_link_is_slow(healthy: Repo, tmp_path: Path, execution: bool) -> None:
    """8 Mbit/s each way, limited by the kernel."""
    with network("dnfault") as (prefix, host):
        with BuildBox(tmp_path / "server", prefix=prefix, host=host) as server:
            options = server.execution_options if execution else server.cache_options
            repo = client(tmp_path, *options)
            repo.pants("package", ":plain")
            check_right(repo, healthy, "plain")
            if not execution:
                second = client(tmp_path / "second", *options)
                second.pants("package", ":plain")
                check_right(second, healthy, "plain")


@pytest.mark.parametrize("execution", (False, True))
def test_the_link_is_slower_than_allowed(healthy: Repo, tmp_path: Path, execution: bool) -> None:
    with network("dnfault") as (prefix, host):
        with BuildBox(tmp_path / "server", prefix=prefix, host=host) as server:
            options = server.execution_options if execution else server.cache_options
            repo = client(tmp_path, *options, "--session-end-tasks-timeout=120")
            short = "--remote-store-rpc-timeout-millis=300"
            run = repo.pants(short, "package", ":plain", check=False)
            if execution:
                check_clear(
                    run,
                    repo,
                    "The target //:plain cannot be built.",
                    "request timed out",
                    "Set it to what the largest layer takes on your link, or build here with",
                )
                repo.pants("package", ":plain")
            else:
                assert run.exit_code == 0, run.output
                assert "Failed to write to remote cache" in run.output
            check_right(repo, healthy, "plain")


@contextmanager
def tmpfs(folder: Path, *, mebibytes: int) -> Iterator[None]:
    """A file system with that much space at `folder`. Needs root."""
    options = f"size={mebibytes}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def network(name: str) -> Iterator[Tuple[Sequence[str], str]]:
    """A network namespace behind a slow link: the command to run things in it, its address."""
    here, there = f"{name}0", f"{name}1"
    inside = ["ip", "netns", "exec", name]

    def run(*command: str) -> None:
        subprocess.run(command, check=True)

    run("ip", "netns", "add", name)
    try:
        run("ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        run("ip", "address", "add", "198.18.77.1/30", "dev", here)
        run("ip", "link", "set", here, "up")
        run(*inside, "ip", "address", "add", "198.18.77.2/30", "dev", there)
        run(*inside, "ip", "link", "set", there, "up")
        run(*inside, "ip", "link", "set", "lo", "up")
        for where, device in (([], here), (inside, there)):
            shape = ("rate", "8mbit", "burst", "16kb", "latency", "400ms")
            run(*where, "tc", "qdisc", "add", "dev", device, "root", "tbf", *shape)
        yield inside, "198.18.77.2"
    finally:
        run("ip", "netns", "delete", name)
