"""Layers in the local cache: each is built once, whoever asks; and what is left in dist/."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterable, List

from support.workspace import PROJECT, Repo, Run

BACKENDS = ("docker_nix",)
# For options of the backends that are left out.
OPTIONS = ("--no-verify-config",)


def packed(run: Run) -> Dict[str, int]:
    """The layer processes that a run started, by their description."""
    return dict(
        Counter(re.findall(r"Starting: Packing a layer of (.*?)(?: \(.*\))?\n", run.output))
    )


def local_runs(run: Run) -> int:
    """How many processes a run with `--stats-log` ran."""
    counter = re.search(r"local_execution_requests: (\d+)", run.output)
    assert counter, run.output
    return int(counter[1])


def image(name: str, source_root: str, names: Iterable[str], fields: str = "") -> str:
    """A BUILD entry for an image of targets that `write_resources` wrote."""
    listed = ", ".join(f'"{source_root}:{content}"' for content in names)
    return f'docker_nix_layered(name="{name}", contents=[{listed}], {fields})\n'


def write_resources(repo: Repo, source_root: str, names: Iterable[str]) -> None:
    """Targets with the given names; their trees do not depend on where the source root is."""
    for name in names:
        repo.write(f"{source_root}/{name}.txt", f"content of {name}\n")
    targets = [f'resource(name="{name}", source="{name}.txt")\n' for name in names]
    repo.write(f"{source_root}/BUILD", "".join(targets))
    repo.write(f"{source_root}/SOURCE_ROOT", "")


def details(repo: Repo, output: str) -> List[Dict[str, Any]]:
    """The layers of a packaged image, lowest first."""
    layers: List[Dict[str, Any]] = repo.info(output)["docker_nix"]["layers"]
    return layers


def check_layout(repo: Repo, output: str, tags: Iterable[str]) -> None:
    """The layout is whole, has only the blobs of the image, and nothing lies beside it."""
    dist = repo.root / "dist"
    info = repo.info(output)["docker_nix"]
    blobs = {file.name: file.read_bytes() for file in (dist / output / "blobs/sha256").iterdir()}
    for name, content in blobs.items():
        assert hashlib.sha256(content).hexdigest() == name
    manifest = json.loads(blobs[info["digest"].partition(":")[2]])
    named = [info["digest"], manifest["config"]["digest"]]
    named += [layer["digest"] for layer in manifest["layers"]]
    assert {f"sha256:{name}" for name in blobs} == set(named)
    assert [layer["digest"] for layer in details(repo, output)] == named[2:]
    index = json.loads((dist / output / "index.json").read_text())
    names = [m["annotations"]["org.opencontainers.image.ref.name"] for m in index["manifests"]]
    assert sorted(names) == sorted(tags)
    assert {m["digest"] for m in index["manifests"]} == {info["digest"]}
    everything = {str(file.relative_to(dist)) for file in dist.rglob("*") if file.is_file()}
    fixed = {f"{output}/{name}" for name in ("index.json", "manifest.json", "oci-layout")}
    assert everything == {
        *(f"{output}/blobs/sha256/{name}" for name in blobs),
        *fixed,
        f"{output}.docker-info.json",
    }


def snapshot(folder: Path) -> Dict[str, bytes]:
    """All files below a folder with their bytes."""
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_shared_contents_are_packed_once(tmp_path: Path) -> None:
    """Ten of twelve contents are shared: in two runs, in one run, and in two repositories."""
    store = tmp_path / "store"
    options = [*OPTIONS, "--source-marker-filenames=['SOURCE_ROOT']"]
    shared, new = [f"s{n}" for n in range(10)], [f"n{n}" for n in range(10)]
    links = "links to the contents"

    repo = Repo(tmp_path / "one", store=store, backends=BACKENDS, options=options)
    write_resources(repo, "src", [*shared, "a0", "a1", "b0", "b1"])
    write_resources(repo, "more", [*new, "c0", "c1", "d0", "d1"])
    repo.write(
        "img/BUILD",
        image("a", "src", [*shared, "a0", "a1"])
        + image("b", "src", [*shared, "b0", "b1"])
        + image("c", "more", [*new, "c0", "c1"])
        + image("d", "more", [*new, "d0", "d1"]),
    )
    # A process that is not the layer tool's looks for an interpreter, each time; another fetches
    # its library, once.
    run = repo.pants("--stats-log", "package", "img:a")
    assert packed(run) == dict.fromkeys([*shared, "a0", "a1", links], 1)
    assert local_runs(run) == 13 + 2
    run = repo.pants("--stats-log", "package", "img:b", "img:c", "img:d")
    names = ["b0", "b1", *new, "c0", "c1", "d0", "d1"]
    assert packed(run) == {**dict.fromkeys(names, 1), links: 3}
    assert local_runs(run) == 16 + 3 + 1
    a, b = ([layer["digest"] for layer in details(repo, f"img/{name}")] for name in "ab")
    assert (len(a), len(b), len({*a, *b})) == (13, 13, 16)

    # Another repository that has the same contents elsewhere, in an image that differs in all else.
    other = Repo(tmp_path / "other/two", store=store, backends=BACKENDS, options=options)
    write_resources(other, "lib/deep", [*shared, "a0", "a1"])
    fields = """
        image_name="team/service",
        image_tags=["v1", "v2"],
        config={"Cmd": ["/bin/sh"], "Labels": {"a": "b"}},
        created="2020-02-02T02:02:02Z",
        architecture="arm64",
    """
    other.write("deploy/BUILD", image("service", "lib/deep", [*shared, "a0", "a1"], fields))
    run = other.pants("--stats-log", "package", "deploy:service")
    assert packed(run) == {}
    assert local_runs(run) == 1
    assert [layer["digest"] for layer in details(other, "deploy/service")] == a


def test_nothing_stale_or_half_made_stays(tmp_path: Path) -> None:
    """Content, tags and compression change, then a build is killed: dist/ has one whole image."""
    repo = Repo(tmp_path / "repo", pantsd=True, backends=BACKENDS, options=OPTIONS)
    started, proceed = tmp_path / "started", tmp_path / "proceed"
    # What is outside the sandbox is no part of the cache key, so this is how to hold a process.
    script = f"echo $$ > {started}; while [ ! -e {proceed} ]; do sleep 0.1; done; touch done"

    def describe(one: str, tags: str, fields: str = "") -> None:
        repo.write("app/one.txt", one)
        repo.write("app/two.txt", "two")
        targets = [f'file(name="{name}", source="{name}.txt")\n' for name in ("one", "two")]
        repo.write(
            "app/BUILD",
            "".join(targets)
            + f'docker_nix_layered(name="image", contents=[":one", ":two"], image_tags={tags},'
            + f"{fields})\n",
        )

    digests = []
    try:
        for one, tags, fields in (
            ("old", ["first"], ""),
            ("new", ["first"], ""),
            ("new", ["second", "third"], ""),
            ("new", ["third"], "compression='none'"),
            ("new", ["third"], "compression='zstd'"),
            ("new", ["third"], ""),
        ):
            describe(one, repr(tags), fields)
            repo.pants("package", "app:image")
            check_layout(repo, "app/image", tags)
            digests.append(repo.digest("app/image"))
    finally:
        repo.close()
    # A name is no part of an image.
    assert digests[1] == digests[2] == digests[5]
    assert len(set(digests)) == 4

    before = snapshot(repo.root / "dist")
    describe("newest", "['fourth']", f"extra_commands={script!r}")
    killed = subprocess.Popen(
        [str(PROJECT / "pants"), *repo.options, "--no-pantsd", "package", "app:image"],
        cwd=repo.root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        while killed.poll() is None and not (started.exists() and started.read_text().strip()):
            time.sleep(0.1)
        assert killed.poll() is None, killed.communicate()[0].decode()
    finally:
        killed.kill()
        killed.communicate()
        proceed.touch()  # the process of the layer is an orphan now, and ends
    assert snapshot(repo.root / "dist") == before

    run = repo.pants("--no-pantsd", "package", "app:image")
    assert packed(run)["links to the contents after extra_commands"] == 1
    check_layout(repo, "app/image", ["fourth"])
