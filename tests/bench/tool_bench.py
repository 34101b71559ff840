"""How fast the layer tool is on this machine: prints, asserts nothing.

    PYTHONPATH=pants-plugins python3 tests/bench/tool_bench.py [DIRECTORY]

DIRECTORY is a tree to pack, for instance of unpacked wheels, in place of a made-up one. The shared
libraries are found as in the tests: see `docker_nix.layer.tool.testing`.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from docker_nix.layer.tool.testing import install_tool

NAME = "0" * 32 + "-bench"
MB = 1_000_000


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        start = install_tool(Path(scratch, "tool"))
        print(f"{os.cpu_count()} CPUs; CPU seconds are those of user and system together")
        _bench_start_up(start, Path(scratch, "empty"))
        _bench_headers(start, Path(scratch, "headers"))
        given = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else None
        _bench_tree(start, Path(scratch, "tree"), given)
        _bench_memory(start, Path(scratch, "memory"))


def _bench_start_up(start: Path, sandbox: Path) -> None:
    _write_spec(sandbox, [])
    seconds = sorted(_run(start, sandbox, "gzip", 2)[0] for _ in range(30))
    print(f"one empty store path: {seconds[0] * 1000:.0f} ms, median {seconds[15] * 1000:.0f} ms")


def _bench_headers(start: Path, sandbox: Path) -> None:
    count = 100_000
    entries = [["l", f"lib/python3.11/site-packages/d{n % 997}/f{n}", "t"] for n in range(count)]
    _write_spec(sandbox, entries)
    seconds, cpu, memory = _run(start, sandbox, "none", 1)
    print(f"{count} symlinks: {count / seconds:,.0f} entries/s, {cpu:.1f} CPU s, {memory} MB")
    for n in range(20_000):
        file = sandbox / "in" / NAME / f"d{n % 97}" / f"f{n}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * 100)
    _write_spec(sandbox, _entries(sandbox / "in" / NAME))
    seconds, cpu, memory = _run(start, sandbox, "none", 1)
    print(f"20000 small files: {20_000 / seconds:,.0f} entries/s, {cpu:.1f} CPU s, {memory} MB")


def _bench_tree(start: Path, sandbox: Path, given: Path | None) -> None:
    tree = sandbox / "in" / NAME
    if given:
        tree.parent.mkdir(parents=True)
        tree.symlink_to(given)
    else:
        _make_tree(tree)
    _write_spec(sandbox, _entries(tree))
    for compression in ("gzip", "zstd", "none"):
        for threads in (1, 2, 4):
            seconds, cpu, memory = _run(start, sandbox, compression, threads)
            metadata = json.loads((sandbox / "layer.json").read_text())
            print(
                f"{compression:4}, {threads} threads: {metadata['diff_size'] / MB:.0f} MB in "
                f"{seconds:.1f} s = {metadata['diff_size'] / MB / seconds:.0f} MB/s, "
                f"{cpu:.1f} CPU s, ratio {metadata['diff_size'] / metadata['size']:.2f}, "
                f"peak {memory} MB"
            )


def _bench_memory(start: Path, sandbox: Path) -> None:
    file = sandbox / "in" / NAME / "sparse"
    file.parent.mkdir(parents=True)
    with open(file, "wb") as sparse:
        sparse.truncate(2 << 30)
    _write_spec(sandbox, [["f", "sparse"]])
    for compression in ("gzip", "zstd"):
        for threads in (1, 2, 8):
            seconds, _, memory = _run(start, sandbox, compression, threads)
            print(f"2 GiB, {compression}, {threads} threads: {seconds:.1f} s, peak {memory} MB")


def _make_tree(tree: Path) -> None:
    """About 200 MB in 4000 files that compress about as well as programs do."""
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz_", k=7)) for _ in range(3000)]
    for number in range(4000):
        file = tree / f"package{number % 50}" / f"module{number}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(" ".join(rng.choices(words, k=int(rng.expovariate(1 / 6000)))))


def _entries(tree: Path) -> list[list[str]]:
    files = (Path(parent, name) for parent, _, names in os.walk(tree) for name in names)
    return [["f", str(file.relative_to(tree))] for file in files]


def _write_spec(sandbox: Path, entries: list[list[str]]) -> None:
    sandbox.mkdir(exist_ok=True, parents=True)
    paths = [{"name": NAME, "source": "tree", "entries": entries}]
    for compression in ("gzip", "zstd", "none"):
        spec: dict[str, Any] = {"compression": compression, "paths": paths, "root": None}
        (sandbox / f"{compression}.json").write_text(json.dumps(spec))


def _run(start: Path, sandbox: Path, compression: str, threads: int) -> tuple[float, float, int]:
    """The seconds that packing took, those of CPU time, and the peak of its memory in MB."""
    (sandbox / "layer.blob").unlink(missing_ok=True)
    command = ["/bin/sh", str(start), "pack", "--threads", str(threads), f"{compression}.json"]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=sandbox, env={})
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit("the tool failed")
    unit = 1 if sys.platform == "darwin" else 1024
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit // MB


if __name__ == "__main__":
    main()
