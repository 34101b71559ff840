"""What images cost a server of the Remote Execution API: requests, bytes and storage.

    python3 tests/bench/cluster_bench.py [--services 50] [--json FILE]

The server is real, and counts requests in its log; a proxy before it counts bytes. Services share a
base image of one layer and ten packages; each has a file of its own. Then the model of growth
(`cluster_model.py`) is printed for what was measured. It asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import tarfile
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, Sequence

PROJECT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PROJECT / "tests")]

from bench.cluster_model import print_table  # noqa: E402
from support.buildbox import BuildBox  # noqa: E402
from support.buildgrid import Link  # noqa: E402
from support.debian_image import write_layout  # noqa: E402
from support.workspace import Repo  # noqa: E402

BASE_BYTES, PACKAGE_BYTES, OWN_BYTES, PACKAGES = 30_000_000, 300_000, 100_000, 10
LOOK = ("package", "--docker-nix-output-format=metadata")


def write_services(repo: Repo, base: bytes, services: int) -> None:
    lines = ['file(name="base", source="base.tar")']
    packages = []
    for number in range(PACKAGES):
        repo.write(f"p{number}/file", random.Random(number).randbytes(PACKAGE_BYTES))
        lines.append(f'files(name="p{number}", sources=["p{number}/file"])')
        packages.append(f'":p{number}"')
    for number in range(services):
        repo.write(f"s{number}/file", random.Random(1000 + number).randbytes(OWN_BYTES))
        lines.append(f'files(name="s{number}-own", sources=["s{number}/file"])')
        lines.append(
            f'docker_nix_layered(name="s{number}", from_image=":base", '
            f'contents=[":s{number}-own", {", ".join(packages)}])'
        )
    repo.write("base.tar", base)
    repo.write("BUILD", "\n".join(lines) + "\n")


class Meter:
    """Counts what a run of Pants asks of the server, and what the server keeps of it."""

    def __init__(self, server: BuildBox, link: Link) -> None:
        self._server, self._link = server, link
        self.results: Dict[str, Dict[str, Any]] = {}

    def _requests(self) -> Counter[str]:
        # Those of workers name their tool, or stage inputs; they never leave the cluster.
        pattern = (
            r"\] \[INFO\] (?!StageTree)(\w+) request from \[peer=\S+\]: "
            r"\[(?!tool_name=\"buildbox)"
        )
        return Counter(re.findall(pattern, self._server.log.read_text()))

    def measure(self, name: str, repo: Repo, *args: str) -> None:
        before = self._requests()
        sent, served = self._link.sent, self._link.served
        blobs = self._server.blobs()
        stats = repo.stats(*args)
        after = self._server.blobs()
        requests = self._requests() - before
        self.results[name] = {
            "requests": sum(requests.values()),
            "by_method": dict(sorted(requests.items())),
            "bytes_up": self._link.sent - sent,
            "bytes_down": self._link.served - served,
            "stored_blobs": len(after) - len(blobs),
            "stored_bytes": sum(after.values()) - sum(blobs.values()),
            "client_store_bytes": sum(
                file.stat().st_size
                for file in (repo.root.parent / "store").rglob("*")
                if file.is_file()
            ),
            "executed": stats["remote_execution_requests"] + stats["local_execution_requests"],
        }
        print(name, json.dumps(self.results[name]), flush=True)


def measure(folder: Path, base: bytes, services: int, execution: bool) -> Dict[str, Any]:
    """All steps, in a folder of their own."""
    with BuildBox(folder / "server") as server, Link(server.port) as link:
        meter = Meter(server, link)
        options = [
            f"--remote-store-address={link.address}",
            "--remote-cache-read",
            "--remote-cache-write",
            "--cache-content-behavior=defer",
        ]
        if execution:
            options += [f"--remote-execution-address={link.address}", "--remote-execution"]

        def client(name: str) -> Repo:
            root = folder / name
            repo = Repo(
                root / "repo", store=root / "store", options=options, backends=["docker_nix"]
            )
            write_services(repo, base, services)
            return repo

        first = client("first")
        every = [f":s{number}" for number in range(services)]
        meter.measure("one service, cold", first, *LOOK, every[0])
        meter.measure("one service, nothing to do", first, *LOOK, every[0])
        meter.measure("one service, another client", client("b"), *LOOK, every[0])
        first.write("s0/file", random.Random(5).randbytes(OWN_BYTES))
        meter.measure("one service, one edit", first, *LOOK, every[0])
        meter.measure("all other services", first, *LOOK, *every[1:])
        meter.measure("all, nothing to do", first, *LOOK, *every)
        second = client("c")
        second.write("s0/file", random.Random(5).randbytes(OWN_BYTES))
        meter.measure("all, another client", second, *LOOK, *every)
        return meter.results


def print_measured(results: Dict[str, Dict[str, Any]]) -> None:
    print(f"\n{'':32}{'requests':>9}{'MB up':>8}{'MB down':>8}{'blobs':>7}{'MB stored':>10}")
    for name, one in results.items():
        print(
            f"{name:32}{one['requests']:9}{one['bytes_up'] / 1e6:8.2f}"
            f"{one['bytes_down'] / 1e6:8.2f}"
            f"{one['stored_blobs']:7}{one['stored_bytes'] / 1e6:10.2f}"
        )


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=50)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    measured: Dict[str, Any] = {"services": options.services}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").write_bytes(random.Random(9).randbytes(BASE_BYTES))
        with tarfile.open(folder / "layer.tar", "w") as layer:
            layer.add(folder / "data", "data")
        write_layout(folder / "layout", [(folder / "layer.tar").read_bytes()], {})
        with tarfile.open(folder / "base.tar", "w") as archive:
            archive.add(folder / "layout", ".")
        base = (folder / "base.tar").read_bytes()
        modes: List[str] = ["cache", "execution"]
        for mode in modes:
            print(f"\n{mode}", flush=True)
            measured[mode] = measure(folder / mode, base, options.services, mode == "execution")
    for mode in modes:
        print(f"\nWith {mode}", end="")
        print_measured(measured[mode])
    if options.json:
        options.json.write_text(json.dumps(measured, indent=2) + "\n")
    print_table(measured)


if __name__ == "__main__":
    main(sys.argv[1:])
