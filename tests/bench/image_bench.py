"""How long an image of 60 Python distributions (700 MB) takes, against the old pipeline.

    python3 tests/bench/image_bench.py CACHE [--runs 3] [--only NAME]...

CACHE keeps the distributions (`corpus.py`) from one benchmark to the next. Everything is done
`--runs` times, the different things in turn, so that a noisy machine is noisy for all of them; the
table at the end has medians, and ratios to the old pipeline. It asserts nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

PROJECT = Path(__file__).resolve().parents[2]
BENCH = Path(__file__).resolve().parent
sys.path[:0] = [str(PROJECT / "tests"), str(PROJECT / "pants-plugins")]

from bench.corpus import fetch  # noqa: E402
from bench.measure import Table, peak_memory  # noqa: E402
from docker_nix.layer.tool.testing import install_tool  # noqa: E402
from support.workspace import BACKENDS, Repo  # noqa: E402

_MEMORY = Path("/dev/shm")
OLD = "old pipeline"
COLD = "package, everything cold, with the start of Pants"
WARM = "package, cold sources; pantsd and tool ready"
IN_MEMORY = "the same with sandboxes in memory"
WHEELS = "the same from wheels, which the tool unpacks"
NOTHING = "package, nothing to do"
CHANGED = "package, 1 MB changed"
NOTHING_ALONE = "package without pantsd, nothing to do"
TOOL = "floor: the layer tool alone, 2 threads"
FLOOR = {
    "start": "floor: Pants' start",
    "digest": "floor: and digesting the sources",
    "sandbox": "floor: and putting them into sandboxes",
    "output": "floor: and capturing outputs as large as layers",
}


class Benchmark:
    def __init__(self, scratch: Path, cache: Path, plugins: Path) -> None:
        self.table = Table()
        self.plugins = plugins
        self.scratch = scratch
        self.wheels, self.trees = fetch(cache)
        self.names = itertools.count()

    def new(self, kind: str) -> Path:
        """A path at which nothing is yet."""
        return self.scratch / f"{kind}{next(self.names)}"

    def repo(self, name: str, store: Path, **kwargs: Any) -> Repo:
        """A repository with the corpus as trees and as wheels, and an image of either."""
        repo = Repo(self.scratch / name, store=store, plugins=self.plugins, **kwargs)
        if not (repo.root / "dists").exists():
            self._fill(repo)
        return repo

    def _fill(self, repo: Repo) -> None:
        (repo.root / "dists").mkdir()
        (repo.root / "wheels").mkdir()
        for name, tree in self.trees.items():
            _link(tree, repo.root / "dists" / name)
            os.link(self.wheels[name], repo.root / "wheels" / f"{name}.zip")
        repo.write("dists/changing/file", b"0" * 1_000_000)
        names = [*self.trees, "changing"]
        repo.write(
            "dists/BUILD",
            "".join(f"files(name={name!r}, sources=['{name}/**'])\n" for name in names)
            + f"docker_nix_layered(name='image', contents={[f':{name}' for name in names]})\n",
        )
        repo.write(
            "wheels/BUILD",
            "".join(f"file(name={name!r}, source='{name}.zip')\n" for name in self.trees)
            + f"docker_nix_layered(name='image', contents={[f':{n}' for n in self.trees]})\n",
        )
        repo.write("small/file", "x")
        repo.write(
            "small/BUILD",
            "file(name='file', source='file')\n"
            "docker_nix_layered(name='image', contents=[':file'])\n",
        )

    def old_pipeline(self) -> None:
        # It makes and removes few files. A file system like ext4 makes new files slowly for minutes
        # after many were removed, so nothing here removes trees of them while it measures.
        root, image = self.scratch / "old", self.new("image")
        if not root.exists():
            (root / "nix/store").mkdir(parents=True)
            for name, tree in self.trees.items():
                _link(tree, root / "nix/store" / f"{'0' * 32}-{name}")
        with self.table.measure(OLD):
            subprocess.run([BENCH / "old_pipeline.sh", root, image], check=True)
        size = (image / "image.tar.gz").stat().st_size
        print(f"    {size / 1e6:.1f} MB")
        shutil.rmtree(image)

    def everything_cold(self) -> None:
        store = self.new("store")
        repo = self.repo("cold", store, options=[f"--named-caches-dir={self.new('caches')}"])
        with self.table.measure(COLD):
            repo.pants("package", "dists:image")
        self._print_size(repo, "dists/image")
        shutil.rmtree(repo.root / "dist")
        with self.table.measure(NOTHING_ALONE):
            repo.pants("package", "dists:image")
        # The caches stay: see `old_pipeline`.
        _remove(store, repo.root / "dist")

    def with_daemon(self) -> None:
        self._daemon(WARM, "dists:image", then=self._changes)

    def in_memory(self) -> None:
        if _MEMORY.is_dir():
            with tempfile.TemporaryDirectory(dir=_MEMORY) as sandboxes:
                self._daemon(
                    IN_MEMORY, "dists:image", options=[f"--local-execution-root-dir={sandboxes}"]
                )

    def from_wheels(self) -> None:
        self._daemon(WHEELS, "wheels:image")

    def _daemon(
        self,
        name: str,
        image: str,
        then: Optional[Callable[[Repo, int], None]] = None,
        options: Sequence[str] = (),
    ) -> None:
        store = self.new("store")
        # A repository of its own: the daemon of the one before may still be ending.
        repo = self.repo(self.new("warm").name, store, pantsd=True, options=options)
        try:
            repo.pants("package", "small:image")
            (pid_file,) = repo.root.glob(".pids/*/pantsd/pid")
            daemon = int(pid_file.read_text())
            with self.table.measure(name, daemon):
                repo.pants("package", image)
            self._print_size(repo, image.replace(":", "/"))
            memory = peak_memory(daemon)
            if memory:
                self.table.memory[name] = max(memory, self.table.memory.get(name, 0))
            if then:
                then(repo, daemon)
        finally:
            repo.close()
        _remove(store, repo.root / "dist")

    def _changes(self, repo: Repo, daemon: int) -> None:
        with self.table.measure(NOTHING, daemon):
            repo.pants("package", "dists:image")
        content = str(next(self.names)).encode()
        repo.write("dists/changing/file", (content * 1_000_000)[:1_000_000])
        with self.table.measure(CHANGED, daemon):
            repo.pants("package", "dists:image")

    def tool(self) -> None:
        work = self.scratch / "tool"
        if not work.exists():
            start = install_tool(work / "tool")
            for name, tree in self.trees.items():
                (work / "in").mkdir(exist_ok=True)
                (work / "in" / name).symlink_to(tree)
                (work / f"{name}.json").write_text(json.dumps(_spec(name, tree)))
        start = work / "tool/start.sh"
        with self.table.measure(TOOL):
            for name in self.trees:
                command = ["/bin/sh", str(start), "pack", "--threads", "2", f"{name}.json"]
                subprocess.run(command, cwd=work, env={}, check=True)
                (work / "layer.blob").unlink()
                (work / "layer.json").unlink()

    def pants_floor(self) -> None:
        for step, name in FLOOR.items():
            store = self.new("store")
            repo = self.repo(
                "floor",
                store,
                backends=[*BACKENDS, "bench_floor"],
                options=[f"--pythonpath=+['{BENCH}']"],
            )
            for build in repo.root.glob("*/BUILD"):
                build.unlink()
            with self.table.measure(name):
                repo.pants("bench-floor", f"--step={step}")
            _remove(store, repo.root / "dist")

    def _print_size(self, repo: Repo, output: str) -> None:
        layers = repo.info(output)["docker_nix"]["layers"]
        print(f"    {len(layers)} layers, {sum(layer['size'] for layer in layers) / 1e6:.1f} MB")

    def report(self) -> None:
        self.table.print(OLD if OLD in self.table.runs else next(iter(self.table.runs)))
        if CHANGED in self.table.runs:
            more = self.table.seconds(CHANGED) - self.table.seconds(NOTHING)
            print(f"\n1 MB changed: {more:+.2f} s against nothing to do")
        if {WARM, TOOL, *FLOOR.values()} <= self.table.runs.keys():
            ours = self.table.cpu(WARM)
            pants = self.table.cpu(FLOOR["output"]) - self.table.cpu(FLOOR["start"])
            tool = self.table.cpu(TOOL)
            print(
                f"Of the {ours:.1f} CPU s with pantsd and tool ready, {tool:.1f} are the layer "
                f"tool's, about {pants:.1f} Pants' for moving the bytes, and "
                f"{ours - tool - pants:.1f} the rest"
            )


def _spec(name: str, tree: Path) -> dict[str, Any]:
    files = (path for path in sorted(tree.rglob("*")) if path.is_file())
    entries = [["f", str(path.relative_to(tree))] for path in files]
    return {
        "compression": "gzip",
        "paths": [{"name": name, "source": "tree", "entries": entries}],
        "root": None,
    }


def _link(tree: Path, to: Path) -> None:
    shutil.copytree(tree, to, copy_function=os.link)


def _remove(*paths: Path) -> None:
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)


PARTS: dict[str, Callable[[Benchmark], None]] = {
    "old": Benchmark.old_pipeline,
    "daemon": Benchmark.with_daemon,
    "memory": Benchmark.in_memory,
    "cold": Benchmark.everything_cold,
    "wheels": Benchmark.from_wheels,
    "tool": Benchmark.tool,
    "floor": Benchmark.pants_floor,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cache", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", action="append", help="one of " + ", ".join(PARTS))
    parser.add_argument("--plugins", type=Path, default=PROJECT / "pants-plugins")
    args = parser.parse_args()
    # On the file system of the cache, so that the trees can be linked.
    with tempfile.TemporaryDirectory(dir=args.cache.resolve()) as scratch:
        benchmark = Benchmark(Path(scratch), args.cache.resolve(), args.plugins.resolve())
        for number in range(args.runs):
            print(f"Round {number + 1} of {args.runs}", flush=True)
            for name in args.only or PARTS:
                PARTS[name](benchmark)
        benchmark.report()


if __name__ == "__main__":
    main()
