"""Images whose targets name environments: a container, a cluster, this machine, and all in one.

The engine is a real one, and so is the server of the Remote Execution API.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Iterator, List, Sequence, Tuple

import pytest

from support import nix
from support.buildbox import BuildBox
from support.debian_image import debian_with_python, write_layout
from support.docker_engine import DockerEngine, docker_engine
from support.registry import Registry
from support.workspace import BACKENDS, Repo, Run

NAMES = ("local", "container", "cluster", "arm", "bare", "strange", "nowhere", "other")
ENVIRONMENTS = """\
local_environment(name="local")
docker_environment(name="container", image="builder:1", fallback_environment="__local__")
remote_environment(name="cluster", fallback_environment="__local__")
remote_environment(name="arm", platform="linux_arm64", fallback_environment="local")
docker_environment(name="bare", image="bare:1")
docker_environment(name="strange", image="builder:1", docker_nix_python="/opt/python")
docker_environment(name="nowhere", image="registry.invalid/nowhere:1")
docker_environment(name="other", image="builder:1", platform="linux_arm64")
"""
PLAIN = """\
files(name="data", sources=["data/*"])
docker_nix_layered(
    name="files",
    contents=[":data"],
    extra_commands="sort $STORE_ROOT{{store_path[:data]}}/src/data/a > sorted",
    tools=["sort"],
    environment={environment!r},
)
docker_nix_image(
    name="root",
    from_image=":files",
    contents=[":data"],
    run_as_root="echo made > /made",
    environment={environment!r},
)
docker_nix_image(
    name="archive",
    contents=[":data"],
    output_format="docker-archive",
    environment={environment!r},
)
docker_nix_export(name="rootfs", from_image=":files", environment={environment!r})
"""
OUTPUTS = ("files", "archive.tar", "rootfs.tar")

# The program is made in the container, which has the compiler; its layer where the image says.
MIXED = """\
file(name="source", source="hello.c")
shell_command(
    name="hello",
    command="tcc -nostdlib -static -o hello hello.c",
    tools=["tcc"],
    execution_dependencies=[":source"],
    output_files=["hello"],
    environment="container",
)
docker_nix_pull(
    name="debian", image_name="{image}", image_digest="{digest}", environment="container"
)
python_requirement(name="six", requirements=["six==1.16.0"])
python_sources(name="sources", interpreter_constraints=["CPython==3.11.*"])
pex_binary(name="app", entry_point="main.py", interpreter_constraints=["CPython==3.11.*"])
pex_binary(
    name="app-there",
    entry_point="main.py",
    interpreter_constraints=["CPython==3.11.*"],
    environment="cluster",
)
for environment in ("cluster", "container", "__local__"):
    docker_nix_layered(
        name="mixed-" + environment,
        from_image=":debian",
        contents=[":app", ":hello"],
        config={{"Entrypoint": ["sh", "-c", "/src/hello && app"]}},
        environment=environment,
    )
docker_nix_layered(name="there", from_image=":debian", contents=[":app-there"])
"""
# Its image is built here, where another system than its own would be the default.
FOREIGN = """\
nix_package(name="foreign-package", expression="foreign.nix", environment="arm")
docker_nix_layered(name="foreign", contents=[":foreign-package"])
"""
FOREIGN_NIX = """\
derivation { name = "foreign"; system = builtins.currentSystem; builder = "/bin/sh"; }
"""
HELLO = """\
static long call(long n, long a, long b, long c) {
    long r;
    __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return r;
}
void _start(void) { call(1, 1, (long)"hello\\n", 6); call(60, 0, 0, 0); }
"""

# What a client on another architecture sees: Pants is told that this machine is such a one.
ARM_CLIENT = """\
from pants.engine.platform import Platform

Platform.create_for_localhost = staticmethod(lambda: Platform.linux_arm64)


def rules():
    return ()
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[DockerEngine]:
    with docker_engine() as engine:
        yield engine


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BuildBox]:
    with BuildBox(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="module")
def builder(engine: DockerEngine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of the image that containers are made of; the engine has it."""
    layout = debian_with_python(tmp_path_factory.mktemp("builder"), "bash", "tcc")
    load(engine, layout, "builder:1")
    return layout


def load(engine: DockerEngine, layout: Path, name: str) -> None:
    archive = layout.parent / "archive.tar"
    to = f"docker-archive:{archive}:{name}"
    subprocess.run(["skopeo", "copy", "--quiet", f"oci:{layout}:base", to], check=True)
    engine.run_client("load", "--input", str(archive))
    archive.unlink()


class Machine:
    """A repository on a machine whose engine listens where Pants expects it."""

    def __init__(
        self,
        root: Path,
        build: str,
        engine: DockerEngine,
        *options: str,
        backends: Sequence[str] = ("docker_nix",),
        pantsd: bool = False,
    ) -> None:
        names = {name: f"//:{name}" for name in NAMES}
        self.repo = Repo(
            root / "repo",
            store=root / "store",
            options=[f"--environments-preview-names={names}", *options],
            pantsd=pantsd,
            backends=backends,
        )
        self._engine = engine
        self._prefix = pants_with(engine)
        self.repo.write("BUILD", ENVIRONMENTS)
        self.repo.write("src/BUILD", build)
        self.repo.write("src/data/a", "b\na\n")
        self.repo.write("src/data/tool", b"#!/bin/sh\n" * 100_000, 0o755)
        self.repo.write("src/hello.c", HELLO)
        self.repo.write("src/main.py", "import six\nprint(six.__name__)\n")

    def pants(self, *args: str, check: bool = True) -> Run:
        env = {"DOCKER_HOST": self._engine.host}
        return self.repo.pants(*args, check=check, prefix=self._prefix, env=env)

    def error(self, target: str, *options: str) -> str:
        """What the error says on packaging the target."""
        run = self.pants(*options, "package", target, check=False)
        assert run.exit_code == 1, run.output
        text = run.output[run.output.index("Exception encountered") :]
        assert len(text.splitlines()) < 25, text
        return " ".join(text.split())

    def stop_containers(self) -> None:
        running = self._engine.run_client("ps", "--quiet").decode().split()
        self._engine.run_client("rm", "--force", *running)

    def output(self, name: str) -> List[Tuple[str, bytes]]:
        """The files of an output."""
        path = self.repo.root / "dist/src" / name
        files = [path] if path.is_file() else [f for f in sorted(path.rglob("*")) if f.is_file()]
        assert files, name
        return [(str(file.relative_to(path)), file.read_bytes()) for file in files]


def pants_with(engine: DockerEngine) -> List[str]:
    """The command to run Pants under, for which `/var/run/docker.sock` is that engine.

    Pants 2.17 looks nowhere else. A mount namespace gives it one without touching this machine's.
    """
    socket = engine.host[len("unix://") :]
    script = f'mount -t tmpfs tmpfs /run && ln -s {socket} /run/docker.sock && exec "$@"'
    return ["unshare", "--mount", "sh", "-euc", script, "sh"]


def test_containers_give_the_digests_that_a_machine_gives(
    engine: DockerEngine, builder: Path, tmp_path: Path
) -> None:
    targets = [f"src:{name.partition('.')[0]}" for name in (*OUTPUTS, "root")]
    container = Machine(tmp_path / "container", PLAIN.format(environment="container"), engine)
    run = container.pants("--stats-log", "-ldebug", "package", *targets)
    found = run.counters()
    assert found["docker_execution_successes"] == found["docker_execution_requests"] > 8
    assert run.local_processes() == {
        "Fetch the deflate library for building image layers",
        "Find a Python for the layer tool",
        "Packing a layer of links to the contents after run_as_root",
    }
    (reason,) = re.findall(
        r"This machine does it, not the environment of the image: .*", run.output
    )
    assert "after run_as_root. It needs root, which is refused there: run_as_root needs" in reason

    # Where docker_execution is off, the fallback is this machine.
    local = Machine(tmp_path / "local", PLAIN.format(environment="container"), engine)
    found = local.pants("--stats-log", "--no-docker-execution", "package", *targets).counters()
    assert found["docker_execution_requests"] == 0
    for name in (*OUTPUTS, "root"):
        assert container.output(name) == local.output(name), name


def test_one_image_of_several_environments(
    engine: DockerEngine, builder: Path, server: BuildBox, tmp_path: Path
) -> None:
    with Registry(tmp_path / "registry") as registry:
        digest = registry.push(f"oci:{builder}:base", "debian")
        build = MIXED.format(image=f"{registry.address}/debian", digest=digest)
        options = server.execution_options
        machine = Machine(tmp_path, build, engine, *options, backends=BACKENDS, pantsd=True)
        try:
            check_mixed(machine)
        finally:
            machine.repo.close()


def check_mixed(machine: Machine) -> None:
    images = [f"mixed-{name}" for name in ("cluster", "container", "__local__")]
    run = machine.pants("--stats-log", "package", *(f"src:{name}" for name in images))
    found = run.counters()
    assert found["docker_execution_successes"] > 5
    assert found["remote_execution_success"] > 4
    assert len({machine.repo.digest(f"src/{name}") for name in images}) == 1
    assert machine.pants("run", "src:mixed-cluster").stdout == "hello\nsix\n"
    assert "six-1.16.0" in machine.pants("image-layers", "src:mixed-container").stdout

    # The distributions are resolved where the pex_binary says, and there is no Pex there.
    message = machine.error("src:there")
    assert "The distributions of src:app-there cannot be had for the Python" in message
    assert "They are resolved in the environment 'cluster', as the" in message
    assert "Without that field they are resolved on this machine" in message


def test_a_client_of_another_architecture(
    engine: DockerEngine, builder: Path, server: BuildBox, tmp_path: Path
) -> None:
    """The keys of a platform's layers do not depend on the platform of the client."""
    keep = (*server.execution_options, "--remote-cache-read", "--remote-cache-write")
    build = PLAIN.format(environment="cluster")
    here = Machine(tmp_path / "here", build, engine, *keep)
    run = here.pants("package", "src:files", "src:rootfs")
    assert made(run) == ["Exporting", "Packing", "Packing"]
    backends = ("arm_client", "docker_nix")
    there = Machine(tmp_path / "there", build, engine, *keep, backends=backends)
    there.repo.write("plugins/arm_client/__init__.py", "")
    there.repo.write("plugins/arm_client/register.py", ARM_CLIENT)
    python_path = f"--pythonpath=+['{there.repo.root}/plugins']"
    run = there.pants(python_path, "--stats-log", "package", "src:files", "src:rootfs")
    assert made(run) == []
    assert run.counters()["remote_cache_requests_cached"] == 3
    for name in ("files", "rootfs.tar"):
        assert here.output(name) == there.output(name)

    # And of another platform the same layers, in an image that says so.
    build = PLAIN.format(environment="arm") + FOREIGN
    other = Machine(tmp_path / "other", build, engine, *keep)
    other.pants("package", "src:files")
    (layers, others) = (
        machine.repo.info("src/files")["docker_nix"]["layers"] for machine in (here, other)
    )
    assert [one["digest"] for one in layers] == [one["digest"] for one in others]
    assert architecture(here) == "amd64"
    assert architecture(other) == "arm64"
    # This machine's Nix evaluates for it, and cannot build for it.
    other.repo.write("src/foreign.nix", FOREIGN_NIX)
    run = other.repo.pants("package", "src:foreign", check=False, env=nix.ENV)
    assert run.exit_code == 1
    assert "aarch64-linux" in run.output


def made(run: Run) -> List[str]:
    """What was not in the cache."""
    return sorted(re.findall(r"Completed: (Packing|Exporting)", run.output))


def architecture(machine: Machine) -> str:
    image_id = machine.repo.info("src/files")["image_id"].partition(":")[2]
    blobs = dict(machine.output("files"))
    found: str = json.loads(blobs[f"blobs/sha256/{image_id}"])["architecture"]
    return found


def test_environments_that_cannot_build(
    engine: DockerEngine, builder: Path, tmp_path: Path
) -> None:
    layout = tmp_path / "bare"
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=extract", "--include=dash,coreutils,libc6"]
        + ["bookworm", str(tmp_path / "bare.tar")],
        check=True,
    )
    write_layout(layout / "layout", [(tmp_path / "bare.tar").read_bytes()], {})
    load(engine, layout / "layout", "bare:1")
    build = 'files(name="data", sources=["data/*"])\n' + "".join(
        f'docker_nix_layered(name="{name}", contents=[":data"], environment="{name}")\n'
        for name in (*NAMES, "unknown")
    )
    build += 'docker_nix_layered(name="tools", extra_commands="sort x", tools=["sort"], '
    build += 'environment="bare")\n'
    machine = Machine(tmp_path / "machine", build, engine, pantsd=True)
    try:
        check_errors(machine)
    finally:
        machine.repo.close()

    run = machine.repo.pants("--no-pantsd", "package", "src:container", check=False)
    assert run.exit_code == 1  # as there is no engine
    assert "The target src:container cannot be built." in run.output
    assert "the engine that listens at /var/run/docker.sock. Run again" in run.output


def check_errors(machine: Machine) -> None:
    message = machine.error("src:bare")
    assert "The target src:bare cannot be built. Packing a layer of data" in message
    assert "error: the layer tool found no Python where this process ran: install" in message
    message = machine.error("src:strange")
    assert "The target src:strange cannot be built. The option [docker-nix].python is" in message
    assert "'/opt/python', which is not a Python of version 3.8 or newer with ctypes in" in message
    assert "'docker_nix_python' of the environment's target" in message
    message = machine.error("src:tools")
    assert (
        "The target src:tools cannot be built. The programs in 'tools' cannot be looked" in message
    )
    assert "Pants does that with bash: install it where the image's 'environment' is" in message
    message = machine.error("src:nowhere")
    assert "The target src:nowhere cannot be built. Failed to pull" in message
    assert "has the environment's image, or with --no-docker-execution" in message
    message = machine.error("src:other")
    assert "the local host has the platform `linux_x86_64`" in message
    assert "`environment` field from the target src:other" in message
    message = machine.error("src:bare", "--no-docker-execution")
    assert "set the field `fallback_environment` for the target //:bare" in message
    message = machine.error("src:unknown")
    assert "Unrecognized environment name `unknown`" in message and "src:unknown" in message

    machine.pants("package", "src:container")
    machine.stop_containers()
    machine.repo.write("src/data/a", "c\n")
    message = machine.error("src:container")
    assert "Pants' daemon goes on asking for a container that is gone. End it with" in message
    machine.pants("--no-docker-execution", "package", "src:container")
