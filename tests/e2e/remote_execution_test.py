"""Layers that a cluster builds: a real server of the Remote Execution API, whose workers have
nothing but the system's `/usr`, and no network."""

from __future__ import annotations

import os
import re
import tarfile
import time
from pathlib import Path
from typing import Dict, Iterator, Set

import pytest

from support import nix
from support.buildbox import BuildBox
from support.debian_image import debian_with_python, write_layout
from support.docker_engine import docker_engine
from support.registry import Registry
from support.workspace import Repo, Run

# Kinds of images, by where their layers come from.
PLAIN = """\
files(name="data", sources=["data/**"])
file(name="vendor", source="vendor.tar.gz")
file(name="base-archive", source="base.tar")
shell_command(
    name="made",
    command="echo made > made.txt",
    output_files=["made.txt"],
)
docker_nix_layered(name="files", contents=[":data", ":vendor", ":made"])
docker_nix_layered(name="zstd", contents=[":data"], compression="zstd")
docker_nix_layered(
    name="commands",
    contents=[":data"],
    extra_commands="mkdir -p etc && sort $STORE_ROOT{store_path[:data]}/data/ünï > etc/sorted",
    tools=["mkdir", "sort"],
    uid=7,
    include_nix_db=True,
)
docker_nix_layered(name="based", from_image=":base-archive", contents=[":data"])
docker_nix_layered(name="stacked", from_image=":commands", contents=[":vendor"])
docker_nix_image(name="archive", contents=[":data"], output_format="docker-archive")
docker_nix_export(name="rootfs", from_image=":stacked")
"""
PLAIN_OUTPUTS = ("files", "zstd", "commands", "based", "stacked", "archive.tar", "rootfs.tar")

ENVIRONMENTS = """\
local_environment(name="local")
remote_environment(name="cluster", fallback_environment="__local__")
"""
NAMES = "--environments-preview-names={'local': '//:local', 'cluster': '//:cluster'}"

MIXED = """\
__defaults__({{("docker_nix_layered", "docker_nix_image"): dict(environment="cluster")}})

docker_nix_pull(
    name="debian", image_name="{image}", image_digest="{digest}", environment="cluster"
)
python_requirement(name="six", requirements=["six==1.16.0"])
python_requirement(name="pyyaml", requirements=["pyyaml==6.0.2"], modules=["yaml"])
python_sources(name="sources", interpreter_constraints=["CPython==3.11.*"])
pex_binary(
    name="app",
    entry_point="main.py",
    interpreter_constraints=["CPython==3.11.*"],
)
docker_nix_layered(
    name="python",
    image_name="team/python",
    image_tags=["v1"],
    registries=["@r"],
    from_image=":debian",
    contents=[":app"],
    config={{"Entrypoint": ["/bin/app"], "User": "65532:65532"}},
)
docker_nix_image(
    name="root",
    from_image=":debian",
    contents=[":app"],
    run_as_root="useradd --system worker && mkdir -p srv/work && chown worker srv/work",
)

files(name="busybox", sources=["tools/*"])
nix_package(
    name="nix-package",
    expression="package.nix",
    attribute="package",
    arguments={{"salt": "{salt}"}},
    dependencies=[":busybox"],
)
docker_nix_layered(
    name="nix", contents=[":nix-package", ":note"], include_nix_db=True
)
file(name="note", source="note.txt")
"""
MIXED_OUTPUTS = ("python", "root", "nix")
MAIN = """\
import six
import yaml

print(yaml.safe_dump({"compiled": yaml.__with_libyaml__}).strip(), six.__name__)
"""
PACKAGE_NIX = """\
{ salt }: rec {
  inner = derivation {
    name = "inner-${salt}";
    system = "x86_64-linux";
    builder = "${./tools}/busybox";
    args = [ "sh" "-euc" "$bb mkdir $out; echo inner > $out/file" ];
    bb = "${./tools}/busybox";
  };
  package = derivation {
    name = "package-${salt}";
    system = "x86_64-linux";
    builder = "${./tools}/busybox";
    args = [ "sh" "-euc" "$bb mkdir -p $out/share; $bb ln -s ${inner}/file $out/share/link" ];
    bb = "${./tools}/busybox";
  };
}
"""


def tar(path: Path, files: Dict[str, str]) -> None:
    """A tar at `path` of the files with these texts, packed with gzip if the path says so."""
    source = path.with_suffix(".d")
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, text in files.items():
            file = source / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            archive.add(file, name)


def plain_machine(root: Path, archives: Path, *options: str) -> Repo:
    repo = Repo(root / "repo", store=root / "store", options=options)
    repo.write("BUILD", PLAIN)
    repo.write("data/ünï", "b\na\n")
    repo.write("data/empty", "")
    repo.write("data/tool", b"#!/bin/sh\n" * 100_000, 0o755)
    for name in ("vendor.tar.gz", "base.tar"):
        repo.write(name, (archives / name).read_bytes())
    return repo


def contents(path: Path) -> Dict[str, bytes]:
    """The files of an output, which is one file or a directory."""
    if path.is_file():
        return {"": path.read_bytes()}
    return {
        str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()
    }


def kept_here(run: Run) -> Set[str]:
    """What the log says that this machine did for an image of another environment, with why."""
    text = r"This machine does it, not the environment of the image: (.*)"
    return {re.sub(r" \([\d.]+ [kMG]?B\)", "", line) for line in re.findall(text, run.output)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BuildBox]:
    with BuildBox(tmp_path_factory.mktemp("server")) as server:
        yield server


def test_a_cluster_gives_the_digests_that_a_machine_gives(server: BuildBox, tmp_path: Path) -> None:
    """With `--remote-execution` alone: all but what fetches the tool's libraries runs there."""
    layout = tmp_path / "layout"
    tar(tmp_path / "vendor.tar.gz", {"etc/vendor": "from a vendor\n"})
    tar(tmp_path / "layer.tar", {"etc/base": "of the base\n"})
    write_layout(layout, [(tmp_path / "layer.tar").read_bytes()], {})
    with tarfile.open(tmp_path / "base.tar", "w") as archive:
        archive.add(layout, ".")

    local = plain_machine(tmp_path / "local", tmp_path)
    local.pants("package", "::")

    cached = plain_machine(tmp_path / "cached", tmp_path, *server.cache_options)
    cached.pants("package", "::")

    remote = plain_machine(tmp_path / "remote", tmp_path, *server.execution_options)
    run = remote.pants("--stats-log", "-ldebug", "package", "::")
    found = run.counters()
    assert run.local_processes() == {
        "Fetch the deflate library for building image layers",
        "Fetch the zstd library for building image layers",
    }
    assert found["local_execution_requests"] == 2
    assert found["remote_execution_requests"] == found["remote_execution_success"] > 15
    assert server.actions() == found["remote_execution_success"]
    assert kept_here(run) == set()

    for name in PLAIN_OUTPUTS:
        expected = contents(local.root / "dist" / name)
        assert expected, name
        assert contents(cached.root / "dist" / name) == expected, name
        assert contents(remote.root / "dist" / name) == expected, name
    with tarfile.open(remote.root / "dist/rootfs.tar") as rootfs:
        file = rootfs.extractfile("etc/sorted")
        assert file and file.read() == b"a\nb\n"

    # Another client of the cluster, which has nothing, where results are kept: all are hits.
    kept = ("--remote-cache-read", "--remote-cache-write")
    plain_machine(tmp_path / "first", tmp_path, *server.execution_options, *kept).pants(
        "package", "::"
    )
    second = plain_machine(tmp_path / "second", tmp_path, *server.execution_options, *kept)
    run = second.pants("--stats-log", "-ldebug", "package", "::")
    found = run.counters()
    assert found["remote_cache_requests_cached"] == found["remote_cache_requests"] > 15
    assert found["local_execution_requests"] == 0
    assert run.local_processes() == set()
    assert second.digest("stacked") == local.digest("stacked")


def mixed_machine(root: Path, build: str, *options: str) -> Repo:
    repo = Repo(root / "repo", store=root / "store", options=[NAMES, *options])
    repo.write("BUILD", ENVIRONMENTS)
    repo.write("src/BUILD", build)
    repo.write("src/main.py", MAIN)
    repo.write("src/package.nix", PACKAGE_NIX)
    repo.write("src/note.txt", "a note\n")
    repo.write("src/tools/busybox", Path("/bin/busybox").read_bytes(), 0o755)
    return repo


def test_what_must_stay_on_the_machine_does(server: BuildBox, tmp_path: Path) -> None:
    """A pulled base, Python per distribution, a script as root, and a closure of Nix."""
    salt = f"execution-{os.getpid()}-{time.time_ns()}"
    layout = debian_with_python(tmp_path / "debian")
    with Registry(tmp_path / "registry") as registry:
        digest = registry.push(f"oci:{layout}:base", "debian")
        build = MIXED.format(image=f"{registry.address}/debian", digest=digest, salt=salt)
        try:
            remote = _compare(server, tmp_path, build, salt)
            remote.pants(
                "publish",
                f"--docker-nix-registries={{'r': {{'address': '{registry.address}'}}}}",
                "src:python",
            )
            assert registry.tags("team/python") == {"v1": remote.digest("src/python")}
        finally:
            nix.delete(salt)


def _compare(server: BuildBox, folder: Path, build: str, salt: str) -> Repo:
    """The client of the cluster, after what it built has been compared."""
    targets = ["--docker-nix-registries={'r': {'address': 'localhost:1'}}"]
    targets += [f"src:{name}" for name in MIXED_OUTPUTS]
    local = mixed_machine(folder / "local", build)
    local.pants("package", *targets, env=nix.ENV)
    cached = mixed_machine(folder / "cached", build, *server.cache_options)
    cached.pants("package", *targets, env=nix.ENV)

    nix.delete(salt)
    without_nix = nix.path_without_nix(folder / "path")
    remote = mixed_machine(
        folder / "remote",
        build,
        *server.execution_options,
        "--remote-cache-read",
    )
    run = remote.pants("-ldebug", "package", *targets, env=without_nix)
    # What it is for the log is the same where a cache has the result.
    pinned = kept_here(run)
    for line in (
        r"Pulling the manifest of \S+/debian@sha256:\w+\. It needs the registry\.",
        r"Pulling 1 layers of \S+/debian\. It needs the registry\.",
        r"Realising src:nix-package with Nix\. It needs Nix\.",
        rf"Packing a layer of inner-{salt}\. It needs the Nix store\.",
        rf"Packing a layer of package-{salt}\. It needs the Nix store\.",
        r"Packing a layer of .* after run_as_root\. It needs root, which is refused there: "
        r"run_as_root may not give its user namespace ids \(Operation not permitted\); "
        r"root in a container needs .*",
    ):
        assert [one for one in pinned if re.fullmatch(line, one)], (line, pinned)
    assert len(pinned) == 6
    assert run.local_processes() == {
        "Building requirements.pex with 2 requirements: pyyaml==6.0.2, six==1.16.0",
        "Fetch the deflate library for building image layers",  # as this machine has another PATH
        "Find a Python for the layer tool",
    }
    for name in MIXED_OUTPUTS:
        expected = contents(local.root / "dist/src" / name)
        assert expected
        assert contents(cached.root / "dist/src" / name) == expected, name
        assert contents(remote.root / "dist/src" / name) == expected, name
    with docker_engine() as docker:
        ran = docker.run(docker.load(remote.root / "dist/src/python"))
        assert ran == "compiled: true six\n"
    return remote
