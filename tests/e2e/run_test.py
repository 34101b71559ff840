"""`run`: images in a real Docker engine, loaded as far as it lacks them."""

from __future__ import annotations

import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Iterator, Mapping, Optional

import pytest

from support.docker_engine import DockerEngine, docker_engine
from support.workspace import PROJECT, Repo, Run

BIG = 3_000_000

_SHELL = """\
file(name="busybox", source="busybox")
relocated_files(name="bin", files_targets=[":busybox"], src="shell", dest="bin")
"""
_SCRIPT = """\
#!/bin/busybox sh
case $1 in
  args) shift; for arg; do echo "[$arg]"; done;;
  exit) exit "$2";;
  env) echo "$GREETING $SECRET";;
  cat) cat;;
  tty) test -t 0 && test -t 1 && echo terminal || echo pipe;;
  wait) trap 'echo stopped; exit 7' INT TERM; echo ready; while :; do sleep 0.1; done;;
esac
"""
_APP = """\
file(name="big", source="big.bin")
file(name="run", source="run.sh")
relocated_files(name="script", files_targets=[":run"], src="app", dest="srv")

docker_nix_layered(
    name="img",
    contents=["shell:bin", ":big", ":script"],
    extra_commands="ln -s busybox bin/sh",
    config={
        "Entrypoint": ["/bin/busybox", "sh", "/srv/run.sh"],
        "Cmd": ["args", "none"],
        "Env": ["PATH=/bin"],
    },
)
docker_nix_image(
    name="single",
    contents=["shell:bin", ":script"],
    extra_commands="for x in cat sleep; do ln -s busybox bin/$x; done",
    config={"Entrypoint": ["/bin/busybox", "sh", "/srv/run.sh"], "Env": ["PATH=/bin"]},
    output_format="metadata",
)
"""


@pytest.fixture(scope="module")
def docker() -> Iterator[DockerEngine]:
    with docker_engine() as engine:
        yield engine


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repo]:
    root = tmp_path_factory.mktemp("run")
    repo = Repo(
        root / "repo",
        store=root / "store",
        pantsd=True,
        backends=["docker_nix"],
        options=["--no-verify-config", "--docker-nix-run-args=--network=none"],
    )
    repo.write("shell/busybox", Path("/bin/busybox").read_bytes(), 0o755)
    repo.write("shell/BUILD", _SHELL)
    repo.write("app/big.bin", random.Random(1).randbytes(BIG))
    repo.write("app/run.sh", _SCRIPT)
    repo.write("app/BUILD", _APP)
    yield repo
    repo.close()


def run(
    repo: Repo,
    docker: DockerEngine,
    *args: str,
    env: Optional[Mapping[str, str]] = None,
    check: bool = True,
) -> Run:
    return repo.pants(*args, env={"DOCKER_HOST": docker.host, **(env or {})}, check=check)


def loaded(run: Run) -> str:
    """How much of the image was loaded, as it was told."""
    lines = re.findall(r"^loading \S+ into docker: (.*), [\d.]+ MB$", run.stderr, re.MULTILINE)
    return lines[0] if lines else "nothing"


def test_run(machine: Repo, docker: DockerEngine) -> None:
    done = run(machine, docker, "run", "app:img", "--", "args", "a b", "--x", "'")
    assert done.stdout == "[a b]\n[--x]\n[']\n"
    assert loaded(done) == "4 of 4 layers"
    done = run(machine, docker, "run", "app:img")
    assert done.stdout == "[none]\n" and loaded(done) == "nothing"
    # It runs where the user is, and knows the user's files and variables.
    machine.write("vars", "GREETING=hello\n")
    options = ["--docker-nix-run-args=--env-file=vars"]
    options.append("--docker-nix-run-env=['SECRET', 'GREETING=hello']")
    for given, expected in ((options[:1], "hello \n"), (options[1:], "hello s3cr3t\n")):
        done = run(machine, docker, *given, "run", "app:img", "--", "env", env={"SECRET": "s3cr3t"})
        assert done.stdout == expected
    done = run(machine, docker, "run", "app:img", "--", "exit", "42", check=False)
    assert done.exit_code == 42
    assert docker.run_client("ps", "--all", "--quiet") == b""

    # On a terminal the container has one; `script` makes one.
    assert run(machine, docker, "run", "app:img", "--", "tty").stdout == "pipe\n"
    line = shlex.join([str(PROJECT / "pants"), *machine.options, "run", "app:img", "--", "tty"])
    terminal = subprocess.run(
        ["script", "--quiet", "--return", "--command", line, "/dev/null"],
        cwd=machine.root,
        env={**os.environ, "DOCKER_HOST": docker.host},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert (terminal.returncode, "terminal" in terminal.stdout) == (0, True), terminal.stdout

    # A pipe goes in, and comes out.
    command = [str(PROJECT / "pants"), *machine.options, "run", "app:img", "--", "cat"]
    piped = subprocess.run(
        command,
        cwd=machine.root,
        env={**os.environ, "DOCKER_HOST": docker.host},
        input=b"\0binary\n\xff",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert (piped.returncode, piped.stdout) == (0, b"\0binary\n\xff"), piped.stderr


def test_only_what_the_engine_lacks_is_loaded(machine: Repo, docker: DockerEngine) -> None:
    build = _APP.replace("app", "lack")
    for file in ("big.bin", "run.sh"):
        machine.write(f"lack/{file}", (machine.root / "app" / file).read_bytes())

    def load(expected: str, image: str = "lack:img") -> str:
        done = run(machine, docker, "run", image)
        assert done.stdout == "[none]\n"
        assert loaded(done) == expected
        machine.pants("package", image)
        info = machine.info(image.replace(":", "/"))
        (name,) = (tag["name"] for tag in info["registries"][0]["tags"])
        found = docker.run_client("image", "inspect", "--format={{.Id}}", name).decode().strip()
        assert found == info["image_id"]
        return str(name)

    machine.write("lack/BUILD", build)
    name = load("4 of 4 layers")
    # The image is there, and its name is not.
    docker.run_client("tag", name, "other:name")
    docker.run_client("rmi", name)
    load("nothing")
    # Another configuration; another last layer; another image, with a layer below that is new.
    machine.write("lack/BUILD", build.replace("PATH=/bin", "PATH=/bin:/sbin"))
    load("0 of 4 layers")
    machine.write("lack/BUILD", build.replace("ln -s busybox bin/sh", "ln -s busybox bin/ash"))
    load("1 of 4 layers")
    machine.write("lack/big.bin", random.Random(2).randbytes(BIG))
    load("4 of 4 layers")


def test_an_image_that_is_packaged_as_metadata_runs(machine: Repo, docker: DockerEngine) -> None:
    done = run(machine, docker, "run", "app:single", "--", "args", "x")
    assert done.stdout == "[x]\n"
    assert loaded(done) == "1 of 1 layers"


def test_podman(machine: Repo, tmp_path: Path) -> None:
    """The same with the engine that has no daemon, chosen by an option, or as none other is."""
    storage = tmp_path / "storage.conf"
    folders = f'runroot = "{tmp_path}/run"\ngraphroot = "{tmp_path}/graph"'
    storage.write_text(f'[storage]\ndriver = "vfs"\n{folders}\n')
    # Where this test runs, it may not raise limits.
    limits = "--ulimit=nofile=1024:1024 --ulimit=nproc=1024:1024"
    env = {"CONTAINERS_STORAGE_CONF": str(storage), "DOCKER_HOST": f"unix://{tmp_path}/nothing"}

    def podman(*args: str) -> str:
        output = subprocess.run(
            ["podman", *args], env={**os.environ, **env}, stdout=subprocess.PIPE, check=True
        ).stdout
        return output.decode().strip()

    machine.pants("package", "app:img")
    info = machine.info("app/img")
    name = info["registries"][0]["tags"][0]["name"]
    for engine, loads, names in (("podman", True, []), ("auto", False, ["localhost/other:x"])):
        options = [f"--docker-nix-engine={engine}", f"--docker-nix-run-args={limits}"]
        done = machine.pants(*options, "run", "app:img", "--", "args", "a b", env=env)
        assert done.stdout == "[a b]\n"
        assert (f"loading {name} into podman: 4 of 4 layers" in done.stderr) == loads
        assert podman("image", "inspect", "--format={{.Id}}", name) == info["image_id"][7:]
        found = podman("images", "--format={{.Repository}}:{{.Tag}}").split()
        assert sorted(found) == sorted([f"localhost/{name}", *names])
        podman("tag", name, "other:x")
        podman("untag", name, f"localhost/{name}")
    done = machine.pants(*options, "run", "app:img", "--", "exit", "5", env=env, check=False)
    assert done.exit_code == 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(machine: Repo, docker: DockerEngine, number: signal.Signals) -> None:
    """What ends Pants ends the container, which may end in its own way."""
    with subprocess.Popen(
        [str(PROJECT / "pants"), *machine.options, "run", "app:img", "--", "wait"],
        cwd=machine.root,
        env={**os.environ, "DOCKER_HOST": docker.host},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout and process.stdout.readline() == "ready\n"
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    if number == signal.SIGINT:
        # The code is Pants' own for a run that was interrupted.
        assert (output, process.returncode) == ("stopped\n", 1), errors
    deadline = time.monotonic() + 60
    while docker.run_client("ps", "--all", "--quiet"):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_no_engine(machine: Repo, tmp_path: Path) -> None:
    """The error says what was looked for, and how to load the image elsewhere."""
    for directory in ("/usr/bin", "/bin"):
        for program in os.listdir(directory):
            if program not in ("docker", "podman", "nerdctl"):
                link = tmp_path / program
                if not link.is_symlink():
                    link.symlink_to(f"{directory}/{program}")
    away = {"PATH": str(tmp_path)}
    nobody = {"DOCKER_HOST": f"unix://{tmp_path}/nothing"}
    docker = shutil.which("docker")
    for env, option, reason in (
        (away, "auto", f"Neither docker nor podman nor nerdctl is on {tmp_path}."),
        (away, "nerdctl", f"nerdctl is not on {tmp_path}."),
        (nobody, "docker", f"{docker} cannot be used (*Cannot connect to the Docker daemon at *)."),
    ):
        done = machine.pants(
            f"--docker-nix-engine={option}", "run", "app:img", env=env, check=False
        )
        assert done.exit_code == 1
        expected = (
            f"The target app:img cannot be run. {reason}\n\nInstall or start a container engine "
            "(Docker, Podman or nerdctl), or choose one with [docker-nix].engine. To run the image "
            "elsewhere, write it with `pants package app:img`, which says how to load it.\n"
        )
        pattern = re.escape(expected).replace(r"\*", ".*")
        assert re.search(pattern, done.stderr), done.stderr
