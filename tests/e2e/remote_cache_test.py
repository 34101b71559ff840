"""Layers in a remote cache: what a second machine runs and fetches, and what a bad cache does."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Sequence

import pytest

from support.buildgrid import BuildGrid, Link
from support.workspace import BACKENDS, PROJECT, Repo, Run

BIG = 3_000_000

_BUILD = """\
for n in range(3):
    file(name=f"big{n}", source=f"big{n}.bin")
    docker_nix_layered(name=f"one{n}", contents=[f":big{n}"])

file(name="vendor", source="vendor.tar.gz")

docker_nix_layered(name="small", contents=[":vendor"])
docker_nix_layered(name="all", contents=[":big0", ":big1", ":big2"])
docker_nix_layered(
    name="archive",
    contents=[":big0", ":vendor"],
    output_format="docker-archive",
)
"""

_PYTHON_BUILD = """\
python_sources(name="sources")
pex_binary(name="pex", entry_point="main.py", python_layering="binary")

docker_nix_layered(
    name="image",
    contents=["app:big0", "app:vendor", ":pex"],
    extra_commands="sort $STORE_ROOT{store_path[app:vendor]}/etc/vendor > etc/sorted",
    tools=["sort"],
)
"""

# A goal that packages as `package` does, but writes nothing.
_GOAL = """\
from pants.core.goals.package import (
    BuiltPackage,
    EnvironmentAwarePackageRequest,
    PackageFieldSet,
)
from pants.engine.console import Console
from pants.engine.fs import Digest, DigestContents, DigestSubset, PathGlobs
from pants.engine.goal import Goal, GoalSubsystem
from pants.engine.rules import Get, MultiGet, collect_rules, goal_rule
from pants.engine.target import NoApplicableTargetsBehavior as OnNone
from pants.engine.target import TargetRootsToFieldSets, TargetRootsToFieldSetsRequest


class ReportSubsystem(GoalSubsystem):
    name = "image-report"
    help = "Print the report on images."


class Report(Goal):
    subsystem_cls = ReportSubsystem
    environment_behavior = Goal.EnvironmentBehavior.LOCAL_ONLY


@goal_rule
async def report(console: Console) -> Report:
    roots = await Get(
        TargetRootsToFieldSets,
        TargetRootsToFieldSetsRequest(
            PackageFieldSet,
            goal_description="report",
            no_applicable_targets_behavior=OnNone.error,
        ),
    )
    packages = await MultiGet(
        Get(BuiltPackage, EnvironmentAwarePackageRequest(field_set))
        for field_set in roots.field_sets
    )
    for package in packages:
        info = await Get(
            Digest, DigestSubset(package.digest, PathGlobs(["**/*.docker-info.json"]))
        )
        for file in await Get(DigestContents, Digest, info):
            console.print_stdout(file.content.decode())
    return Report(exit_code=0)


def rules():
    return collect_rules()
"""


def fill(repo: Repo) -> None:
    """The same sources on every machine."""
    for n in range(3):
        repo.write(f"app/big{n}.bin", random.Random(n).randbytes(BIG))
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as zipped:
        with tarfile.open(fileobj=zipped, mode="w") as tar:
            member = tarfile.TarInfo("etc/vendor")
            member.size = 4
            tar.addfile(member, io.BytesIO(b"b\na\n"))
    repo.write("app/vendor.tar.gz", packed.getvalue())
    repo.write("app/BUILD", _BUILD)
    repo.write("py/main.py", "print('hello')\n")
    repo.write("py/BUILD", _PYTHON_BUILD)
    repo.write("goal/image_report/register.py", _GOAL)


def outputs(repo: Repo) -> Dict[str, str]:
    """The hash of each file below dist/."""
    dist = repo.root / "dist"
    return {
        str(file.relative_to(dist)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(dist.rglob("*"))
        if file.is_file()
    }


def tool_runs(run: Run) -> List[str]:
    """The processes of the layer tool that were started, in a run with `-ldebug`."""
    return re.findall(r"Starting: ((?:Packing|Reading|Writing) a.*?)(?: \(.*\))?\n", run.output)


def make_machine(
    root: Path,
    link: Link,
    *options: str,
    pantsd: bool = True,
    backends: Sequence[str] = ("docker_nix",),
    plugins: Path = PROJECT / "pants-plugins",
) -> Repo:
    """A machine that has built nothing yet: a local store and a build root of its own."""
    repo = Repo(
        root / "repo",
        store=root / "store",
        pantsd=pantsd,
        backends=[*backends, "image_report"],
        options=[
            "--no-verify-config",  # for options of the backends that are left out
            f"--pythonpath=+['{root}/repo/goal']",
            f"--remote-store-address={link.address}",
            "--remote-cache-read",
            "--remote-cache-write",
            *options,
        ],
        plugins=plugins,
    )
    fill(repo)
    return repo


@dataclass(frozen=True)
class World:
    """A remote cache, the way to it, and the first machine, which has filled it."""

    root: Path
    grid: BuildGrid
    link: Link
    first: Repo
    first_run: Run


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("remote")
    with BuildGrid(root / "grid") as grid, Link(grid.port) as link:
        first = make_machine(root / "first", link, pantsd=False, backends=BACKENDS)
        run = first.pants("-ldebug", "package", "app:", "py:image")
        yield World(root, grid, link, first, run)


def test_a_second_machine_runs_no_layer_process(world: World) -> None:
    """Another user, build root, checkout of the plugin, PATH and Python: all layers are hits."""
    # Five store paths, most of them in several images; and the links of seven images.
    assert Counter(tool_runs(world.first_run)) == {
        "Packing a layer of big0": 1,
        "Packing a layer of big1": 1,
        "Packing a layer of big2": 1,
        "Packing a layer of pex": 1,
        "Packing a layer of vendor": 1,
        "Packing a layer of links to the contents": 6,
        "Packing a layer of links to the contents after extra_commands": 1,
        "Reading a tar.gz archive": 1,
        "Writing a docker-archive": 1,
    }

    sort = shutil.which("sort")
    assert sort
    root = world.root / "second"
    home = root / "home"
    home.mkdir(parents=True)
    for settings in (".config", ".pip"):  # which package index to use
        (home / settings).symlink_to(Path.home() / settings)
    plugins = root / "checkout/plugins"
    shutil.copytree(
        PROJECT / "pants-plugins", plugins, ignore=shutil.ignore_patterns(".*", "__pycache__")
    )
    second = make_machine(
        root,
        world.link,
        f"--named-caches-dir={root}/named",
        f"--docker-nix-python={sys.executable}",
        pantsd=False,
        backends=BACKENDS,
        plugins=plugins,
    )
    run = second.pants(
        "-ldebug",
        "package",
        "app:",
        "py:image",
        env={
            "HOME": str(home),
            "USER": "somebody",
            # Where the launcher keeps Pants, which need not be installed twice.
            "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", f"{Path.home()}/.cache"),
            # Another order, in which a program of `tools` is still the same one.
            "PATH": f"{home}/bin:{os.path.dirname(sort)}:{os.environ['PATH']}",
            "LC_ALL": "C",
            "TZ": "Asia/Kolkata",
        },
    )
    assert tool_runs(run) == []
    assert outputs(second) == outputs(world.first)


def test_assembly_fetches_no_layer(world: World) -> None:
    """With `defer`, a manifest needs no layer's bytes; they come when somebody wants them."""
    info = world.first.info("app/all")
    machine = make_machine(world.root / "deferring", world.link, "--cache-content-behavior=defer")
    try:
        served = world.link.served
        run = machine.pants("-ldebug", "image-report", "app:all")
        assert tool_runs(run) == []
        assert json.loads(run.stdout) == info
        assert world.link.served - served < BIG / 2

        served = world.link.served
        run = machine.pants("-ldebug", "package", "app:all")
        assert tool_runs(run) == []
        assert 3 * BIG < world.link.served - served < 3.5 * BIG
        assert machine.info("app/all") == info
        for path, digest in outputs(machine).items():
            assert outputs(world.first)[path] == digest
    finally:
        machine.close()


def test_metadata_needs_no_layer(world: World) -> None:
    """With `defer` and `metadata`, what describes an image is written, and no layer comes."""
    info = world.first.info("app/all")
    machine = make_machine(world.root / "metadata", world.link, "--cache-content-behavior=defer")
    machine.write("app/BUILD", _BUILD.replace('"docker-archive"', '"metadata"'))
    try:
        served = world.link.served
        machine.pants("--docker-nix-output-format=metadata", "package", "app:all")
        machine.pants("package", "app:archive")
        assert world.link.served - served < BIG / 2
        layout = machine.root / "dist/app/all"
        config = info["image_id"].replace(":", "/")
        manifest = info["docker_nix"]["digest"].replace(":", "/")
        assert sorted(str(f.relative_to(layout)) for f in layout.rglob("*") if f.is_file()) == (
            sorted([f"blobs/{config}", f"blobs/{manifest}", "index.json", "oci-layout"])
        )
        for path, digest in outputs(machine).items():
            if path.startswith("app/all/"):
                assert outputs(world.first)[path] == digest
        described = machine.info("app/all")
        assert described["docker_nix"].pop("output_format") == "metadata"
        assert info["docker_nix"].pop("output_format") == "oci"
        assert described == info
        # Other tools take it for what it is: an image whose layers are elsewhere.
        inspected = subprocess.run(
            ["skopeo", "inspect", "--raw", f"oci:{layout}"], stdout=subprocess.PIPE, check=True
        )
        assert f"sha256:{hashlib.sha256(inspected.stdout).hexdigest()}" == machine.digest("app/all")
        # The layers are written when they are wanted, and gone when they are not.
        machine.pants("package", "app:all")
        assert len(list(layout.rglob("*"))) > 8
        machine.pants("--docker-nix-output-format=metadata", "package", "app:all")
        assert len([f for f in layout.rglob("*") if f.is_file()]) == 4
    finally:
        machine.close()


def test_layers_that_the_cache_has_lost_are_built_again(world: World) -> None:
    """The cache forgets a blob after it has told of it: the build is right all the same."""
    machine = make_machine(world.root / "losing", world.link, "--cache-content-behavior=defer")
    layers = world.first.info("app/all")["docker_nix"]["layers"]
    try:
        assert tool_runs(machine.pants("-ldebug", "image-report", "app:all")) == []
        for layer in layers[:2]:
            world.grid.evict(layer["digest"])
        run = machine.pants("-ldebug", "package", "app:all")
        assert len(tool_runs(run)) >= 2
        assert outputs(machine).items() <= outputs(world.first).items()
    finally:
        machine.close()


def test_a_bad_cache_does_not_fail_the_build(world: World) -> None:
    """Nobody listens, nobody answers, answers are wrong, connections break: the same images."""
    machine = make_machine(world.root / "cut-off", world.link)
    try:
        for mode, image in (
            ("down", "one0"),
            ("silent", "one1"),
            ("wrong", "small"),
            ("cut", "one2"),
        ):
            # Long enough for all answers, too short for a layer.
            world.link.set_mode(mode, cut_after=BIG // 3)
            run = machine.pants("-ldebug", "package", f"app:{image}")
            assert "[WARN] Failed to read from remote cache" in run.output, mode
            assert 1 <= len(tool_runs(run)) <= 3, mode
        world.link.set_mode("up")
        assert tool_runs(machine.pants("-ldebug", "package", "app:all")) == []
        assert outputs(machine).items() <= outputs(world.first).items()
    finally:
        world.link.set_mode("up")
        machine.close()
