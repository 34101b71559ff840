"""The examples that need a base image, a shell or root, in a real engine."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest

from support.debian_image import debian_with_python
from support.docker_engine import DockerEngine, docker_engine
from support.registry import Registry
from support.workspace import checkout

NIX_CONFIG = "build-users-group =\nsandbox = false\nsubstitute = false\n"


@pytest.fixture(scope="module")
def docker() -> Iterator[DockerEngine]:
    with docker_engine() as engine:
        yield engine


@dataclass(frozen=True)
class Examples:
    """All examples, built."""

    root: Path
    env: Dict[str, str]

    def output(self, name: str) -> Path:
        folder, _, target = name.partition(":")
        return self.root / "dist" / f"src.examples.{folder}" / target

    def info(self, name: str) -> Dict[str, Any]:
        report = self.output(name)
        return json.loads(report.with_name(f"{report.name}.docker-info.json").read_text())

    def layers(self, name: str) -> List[str]:
        return [layer["diff_id"] for layer in self.info(name)["docker_nix"]["layers"]]

    def package(self, *args: str) -> None:
        done = subprocess.run(
            ["./pants", "--no-pantsd", "--tag=[]", "package", *args],
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.env,
        )
        assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Examples]:
    folder = tmp_path_factory.mktemp("examples")
    root = folder / "clone"
    root.mkdir()
    checkout(root)
    layout = debian_with_python(folder / "debian")
    with Registry(folder / "registry") as registry:
        digest = registry.push(f"oci:{layout}:base", "base/debian")
        env = {
            **os.environ,
            "DEBIAN_IMAGE": f"{registry.address}/base/debian",
            "DEBIAN_DIGEST": digest,
            "NIX_CONFIG": NIX_CONFIG,
        }
        built = Examples(root, env)
        built.package("src/examples::")
        yield built


def inspect(docker: DockerEngine, image: str) -> Dict[str, Any]:
    return json.loads(docker.run_client("inspect", image))[0]


def answer(docker: DockerEngine, options: List[str], command: List[str]) -> Tuple[bytes, bytes]:
    """The user of a container, and what `command` prints in it once the service there answers."""
    container = docker.run_client("run", "-d", *options).decode().strip()
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                answered = docker.run_client("exec", container, *command)
                return docker.run_client("exec", container, "id", "-u"), answered
            except AssertionError as e:
                if time.monotonic() > deadline:
                    logs = docker.run_client("logs", container).decode()
                    raise AssertionError(f"it does not answer:\n{logs}") from e
                time.sleep(0.2)
    finally:
        docker.run_client("rm", "-f", container)


_REQUEST = """\
import json, urllib.request
order = json.dumps({"article": "tea", "count": 2}).encode()
headers = {"Content-Type": "application/json"}
data = {8000: order, 8001: None}[PORT]
path = {8000: "orders", 8001: ""}[PORT]
request = urllib.request.Request(f"http://127.0.0.1:{PORT}/{path}", data, headers)
print(urllib.request.urlopen(request).read().decode())
"""


def test_python_services(docker: DockerEngine, examples: Examples) -> None:
    for name, port, expected in (
        ("orders", 8000, b'{"total":700}'),
        ("stock", 8001, b"<li>honey: 890</li>"),
    ):
        image = docker.load(examples.output(f"services:{name}-image"))
        program = _REQUEST.replace("PORT", str(port))
        options = ["--network=none", "--read-only", image]
        user, page = answer(docker, options, ["python3", "-c", program])
        assert user == b"65532\n" and expected in page

    orders, stock = (
        {
            path["path"].partition("-")[2]: layer["digest"]
            for layer in examples.info(f"services:{name}-image")["docker_nix"]["layers"]
            for path in layer["store_paths"]
            if layer["kind"] == "store"
        }
        for name in ("orders", "stock")
    )
    shared = orders.keys() & stock.keys() - {"python-sources", "python3.11-environment"}
    assert len(shared) >= 18 and "pydantic-core" in {name.rpartition("-")[0] for name in shared}
    assert all(orders[name] == stock[name] for name in shared)
    # The base's layer is shared as well. Besides that, a service has its environment and sources,
    # and the distributions that the other one does not need.
    assert stock.keys() - shared - {"python-sources", "python3.11-environment"} == {
        *(name for name in stock if name.startswith(("jinja2-", "markupsafe-")))
    }


def test_on_a_pulled_base(docker: DockerEngine, examples: Examples) -> None:
    image = docker.load(examples.output("on_debian:image"))
    shown = docker.run(image, "Europe")
    assert "Europe" in shown

    config = inspect(docker, image)["Config"]
    assert config["Entrypoint"] == ["/usr/bin/python3", "/bin/app.pex"]
    assert config["Cmd"] is None, "it was meant for the base's entry point"
    assert config["Env"] == [
        "PATH=/usr/local/bin:/usr/bin:/bin",
        "LANG=C.UTF-8",
        "BASE=debian",
        "PEX_ROOT=/tmp/pex",
    ]
    assert config["Labels"] == {"maker": "debian"}
    history = docker.run_client("history", "--no-trunc", "--format={{.CreatedBy}}", image)
    *own, cmd, base = history.decode().splitlines()
    assert (base, cmd) == ("layer 0 of the base", "CMD")
    assert own[-1].startswith("/nix/store/")

    # What was a symlink in the base still is one, and the application is where it leads.
    files = docker.files(image)
    assert files["bin"][0].linkname == "usr/bin"
    assert files["usr/bin/app.pex"][0].linkname.startswith("/nix/store/")
    assert files["tmp"][0].mode & 0o7777 == 0o1777

    # The base itself is as it was in the registry.
    info = examples.info("on_debian:debian")
    assert info["docker_nix"]["digest"] == examples.env["DEBIAN_DIGEST"]
    debian = docker.load(examples.output("on_debian:debian"))
    assert debian == "example/debian:latest"
    assert docker.run(debian, "python3", "-c", "print(6 * 7)") == "42\n"
    assert examples.layers("on_debian:image")[0] == examples.layers("on_debian:debian")[0]


def test_a_shell_and_a_server_on_it(docker: DockerEngine, examples: Examples) -> None:
    shell = docker.load(examples.output("shell:image"))
    assert docker.run(shell, "sh", "-c", "echo $0 | cat; echo $PATH") == "sh\n/bin\n"

    server = docker.load(examples.output("server:image"))
    shared = examples.layers("shell:image")
    assert examples.layers("server:image")[: len(shared)] == shared
    assert inspect(docker, server)["Config"]["Env"] == ["PATH=/bin", "PS1=image:\\w\\$ "]
    get = ["wget", "-qO-", "http://127.0.0.1:8080/"]
    user, page = answer(docker, ["--network=none", server], get)
    assert user == b"65532\n" and b"Served from a store path." in page


def test_a_script_as_root_makes_a_user(docker: DockerEngine, examples: Examples) -> None:
    image = docker.load(examples.output("users:image"))
    assert docker.run(image) == "made by root\n"
    assert docker.run(image, "stat", "-c", "%u:%g %a", "/srv/app") == "12345:12345 750\n"
    assert docker.run(image, "id", "-un") == "app\n"
    files = docker.files(image)
    assert files["etc/passwd"][1].startswith(b"root:x:0:0::/root:/bin/sh\napp:x:12345:12345:")
    assert files["etc/shadow"][0].mode & 0o7777 == 0o600
    assert "proc/self" not in files and "srv/app/note" in files


def test_odd_characters_reach_the_shell(docker: DockerEngine, examples: Examples) -> None:
    expected = (
        "'single' \"double\" `backtick` $dollar \\backslash\\ ${brace} {brace} 100% #hash ünïcödé\n"
        "it's quoted\n"
    )
    for name in ("extra_commands", "run_as_root"):
        assert docker.run(docker.load(examples.output(f"quoting:{name}"))) == expected


def test_images_on_images(docker: DockerEngine, examples: Examples) -> None:
    image = docker.load(examples.output("stacked:top"))
    assert docker.run(image) == "Hello from an image of one static program.\n"
    config = inspect(docker, image)["Config"]
    assert config["Env"] == ["A=bottom", "B=middle", "C=top"]
    assert config["Labels"] == {"bottom": "yes", "top": "yes"}

    hello, bottom, middle, top = (
        examples.layers(name)
        for name in ("hello:image", "stacked:bottom", "stacked:middle", "stacked:top")
    )
    assert bottom[: len(hello)] == hello and middle[: len(bottom)] == bottom
    assert top[: len(middle)] == middle
    assert (len(bottom), len(middle), len(top)) == (4, 5, 7)
    paths = [
        path["path"]
        for layer in examples.info("stacked:top")["docker_nix"]["layers"]
        for path in layer["store_paths"]
    ]
    assert len(paths) == len(set(paths)) == 4, "what the base has is not added again"

    files = docker.files(image)
    with tarfile.open(examples.output("stacked:rootfs.tar")) as archive:
        names = [member.name for member in archive]
        assert names == sorted(names)
        for member in archive:
            assert member.mtime == 1
            of_engine, content = files[member.name]
            assert (member.type, member.mode) == (of_engine.type, of_engine.mode & 0o7777)
            if member.isfile():
                data = archive.extractfile(member)
                assert data and data.read() == content
    engine_only = set(files) - set(names)
    assert all(
        name.split("/")[0] in ("dev", "etc", "proc", "sys", ".dockerenv") for name in engine_only
    )


def test_nix_knows_the_store_paths(
    docker: DockerEngine, examples: Examples, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    with tarfile.open(examples.output("nix_db:rootfs.tar")) as archive:
        archive.extractall(root)
    paths = sorted(
        path["path"]
        for layer in examples.info("nix_db:image")["docker_nix"]["layers"]
        for path in layer["store_paths"]
    )
    assert len(paths) == 2

    def nix_store(*args: str) -> str:
        done = subprocess.run(
            ["nix-store", "--store", str(root), *args],
            env={**os.environ, "NIX_CONFIG": NIX_CONFIG, "HOME": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    nix_store("--verify", "--check-contents")
    assert sorted(nix_store("-qR", *paths).split()) == paths
    # Not what only the base has at /: a database has its own image's contents as roots.
    kept = os.listdir(root / "nix/var/nix/gcroots/docker")
    assert len(kept) == 2 and all(f"/nix/store/{name}" in paths for name in kept)
    nix_store("--gc")
    assert sorted(nix_store("-qR", *paths).split()) == paths

    # In a container, with the programs of this machine.
    image = docker.load(examples.output("nix_db:image"))
    programs = [f"--volume=/{name}:/{name}:ro" for name in ("usr", "lib", "lib64", "bin")]
    env = [f"--env=NIX_CONFIG={NIX_CONFIG}", "--env=NIX_REMOTE=", "--env=USER=root"]
    query = ["run", "--rm", "--network=none", *programs, *env, image, "/usr/bin/nix-store", "-qR"]
    shown = docker.run_client(*query, *paths).decode()
    assert sorted(shown.split()) == paths


def test_packages_of_nix(docker: DockerEngine, examples: Examples) -> None:
    image = docker.load(examples.output("nix:image"))
    assert docker.run(image) == "Hello from Nix, with a file from Pants.\n"
    paths = [
        path
        for layer in examples.info("nix:image")["docker_nix"]["layers"]
        for path in layer["store_paths"]
    ]
    greeter = next(path for path in paths if path["path"].endswith("-greeter-1.0"))
    assert len(greeter["references"]) == 1
    listed = ["run", "--rm", "--network=none", "--entrypoint=/bin/ls", image, "/nix/store"]
    assert os.path.basename(greeter["path"]) in docker.run_client(*listed).decode().split()


def test_now_and_bulk(docker: DockerEngine, examples: Examples) -> None:
    images = []
    for _ in range(2):
        images.append(docker.load(examples.output("now:image")))
        time.sleep(1)
        examples.package("src/examples/now::")
    created = [inspect(docker, image)["Created"] for image in images]
    assert created[0] != created[1] and created[0].startswith("20")
    assert examples.layers("now:image") == examples.layers("hello:image")

    bulk = docker.load(examples.output("bulk:image"))
    assert len(inspect(docker, bulk)["RootFS"]["Layers"]) == 1
    assert docker.run(bulk) == "Hello from an image of one static program.\n"
