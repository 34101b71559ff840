"""A Python service as an image: a store path per distribution, one file, and Pants' `docker_image`.

    python3 tests/bench/python_bench.py [--runs 3]

Each of the three is built cold, after an edit of one line, and after an upgrade of one
distribution, `--runs` times, each time in a repository with an empty store; then it is started in a
container. The tables have medians, the bytes of layers that the image before does not have
(uncompressed), and ratios. Nothing is asserted. Needs root, a Docker engine, and Python 3.11.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Dict, List, Set

PROJECT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PROJECT / "tests")]

from bench.measure import Table  # noqa: E402
from support.debian_image import debian_with_python  # noqa: E402
from support.docker_engine import DockerEngine, docker_engine  # noqa: E402
from support.workspace import BACKENDS, Repo  # noqa: E402

ROOT_BUILD = """
file(name="base", source="base.tar")
python_requirement(
    name="dockerfile", requirements=["dockerfile==3.2.0"], resolve="dockerfile"
)
"""

BUILD = """
python_sources(name="sources")
python_requirement(name="fastapi", requirements=["fastapi"])
python_requirement(name="uvicorn", requirements=["uvicorn[standard]"])

DEPENDENCIES = [":sources", ":uvicorn"]
pex_binary(name="app", entry_point="main.py", dependencies=DEPENDENCIES)
pex_binary(
    name="one", entry_point="main.py", dependencies=DEPENDENCIES, python_layering="binary",
    execution_mode="venv",
)
COMMON = dict(from_image="//:base", image_name="bench/app")
docker_nix_layered(
    name="distribution", contents=[":app"], config={"Entrypoint": ["/bin/app"]}, **COMMON
)
docker_nix_layered(
    name="binary",
    contents=[":one"],
    config={"Entrypoint": ["python3", "/bin/one.pex"], "Env": ["PEX_ROOT=/tmp/pex"]},
    extra_commands="install -d -m 1777 tmp",
    **COMMON,
)

# As Pants' documentation has it: distributions and sources in stages of their own.
pex_binary(
    name="deps", entry_point="main.py", dependencies=DEPENDENCIES, layout="packed",
    include_sources=False, include_tools=True,
)
pex_binary(
    name="srcs", entry_point="main.py", dependencies=DEPENDENCIES, layout="packed",
    include_requirements=False, include_tools=True,
)
docker_image(name="docker", repository="bench/docker", image_tags=["latest"])
"""

DOCKERFILE = """
FROM bench/base:base AS deps
COPY src.app/deps.pex /deps.pex
RUN PEX_TOOLS=1 python3 /deps.pex venv --scope=deps --compile /app

FROM bench/base:base AS srcs
COPY src.app/srcs.pex /srcs.pex
RUN PEX_TOOLS=1 python3 /srcs.pex venv --scope=srcs --compile /app

FROM bench/base:base
COPY --from=deps /app /app
COPY --from=srcs /app /app
ENTRYPOINT ["/app/pex"]
"""

MAIN = """
import fastapi
import uvicorn

print("started", fastapi.__version__, uvicorn.__version__)
"""

KINDS = ("distribution", "binary", "docker")
STEPS = ("cold", "one line", "one distribution")


def locked(upgraded: bool) -> str:
    """The services' lock without its hashes, one version in it another one if `upgraded`."""
    text = (PROJECT / "3rdparty/python/services.lock").read_text()
    pins = re.findall(r"^\S+==\S+", text, re.MULTILINE)
    click = "click==8.1.8" if upgraded else "click==8.1.7"
    return "\n".join(click if pin.startswith("click==") else pin for pin in pins) + "\n"


class Bench:
    def __init__(self, docker: DockerEngine) -> None:
        self.docker = docker
        self.times = Table()
        self.bytes: Dict[str, int] = {}
        self.starts: Dict[str, float] = {}

    def run(self, repo: Repo, kind: str) -> None:
        seen: Set[str] = set()
        for step in STEPS:
            if step == "one line":
                repo.write("src/app/main.py", MAIN + "# edited\n")
            elif step == "one distribution":
                repo.write("python.lock", locked(upgraded=True))
            with self.times.measure(f"{kind}: {step}"):
                repo.pants("package", f"src/app:{kind}", env={"DOCKER_BUILDKIT": "0"})
            layers = self.layers(repo, kind)
            self.bytes[f"{kind}: {step}"] = sum(
                size for layer, size in layers.items() if layer not in seen
            )
            seen.update(layers)
        with self.times.measure(f"{kind}: nothing to do"):
            repo.pants("package", f"src/app:{kind}", env={"DOCKER_BUILDKIT": "0"})
        self.starts[kind] = self.start(repo, kind)

    def image(self, repo: Repo, kind: str) -> str:
        if kind == "docker":
            return "bench/docker:latest"
        return self.docker.load(repo.root / "dist/src.app" / kind)

    def layers(self, repo: Repo, kind: str) -> Dict[str, int]:
        """The size of each layer that is not the base's, by its diff ID."""
        if kind != "docker":
            found = repo.info(f"src.app/{kind}")["docker_nix"]["layers"]
            return {one["diff_id"]: one["diff_size"] for one in found if one["kind"] != "base"}
        inspected: List[Any] = json.loads(self.docker.run_client("inspect", "bench/docker:latest"))
        ids = inspected[0]["RootFS"]["Layers"][1:]
        history = self.docker.run_client(
            "history", "--human=false", "--format={{.Size}}", "bench/docker:latest"
        )
        sizes = [int(line) for line in history.split() if int(line)]
        return dict(zip(ids, sizes[-2::-1]))  # the history has the newest first, the base last

    def start(self, repo: Repo, kind: str) -> float:
        image = self.image(repo, kind)
        seconds = []
        for _ in range(7):
            begin = time.perf_counter()
            self.docker.run(image)
            seconds.append(time.perf_counter() - begin)
        return median(seconds)

    def report(self) -> None:
        self.times.print("distribution: cold")
        print(f"\n{'new layers, MB':40}{'MB':>10}{'ratio':>8}")
        for step in STEPS:
            least = self.bytes[f"distribution: {step}"]
            for kind in KINDS:
                size = self.bytes[f"{kind}: {step}"]
                print(f"{kind + ': ' + step:40}{size / 1e6:10.3f}{size / least:8.2f}")
        print(f"\n{'container, start to end':40}{'seconds':>10}{'ratio':>8}")
        for kind, seconds in self.starts.items():
            print(f"{kind:40}{seconds:10.2f}{seconds / self.starts['distribution']:8.2f}")


def make_repo(folder: Path, layout: Path, docker: DockerEngine) -> Repo:
    repo = Repo(
        folder / "repo",
        store=folder / "store",
        pantsd=True,
        backends=[*BACKENDS, "pants.backend.docker"],
        options=[
            "--python-enable-resolves",
            "--python-resolves={'python-default': 'python.lock', 'dockerfile': 'dockerfile.lock'}",
            "--dockerfile-parser-install-from-resolve=dockerfile",
            "--python-invalid-lockfile-behavior=ignore",
            "--python-interpreter-constraints=['CPython==3.11.*']",
            f"--docker-env-vars=['DOCKER_HOST={docker.host}', 'DOCKER_BUILDKIT=0']",
            "--docker-build-verbose",
        ],
    )
    with tarfile.open(repo.root / "base.tar", "w") as tar:
        tar.add(layout, ".")
    repo.write("BUILD", ROOT_BUILD)
    repo.write("dockerfile.lock", "dockerfile==3.2.0\n")
    repo.write("python.lock", locked(upgraded=False))
    repo.write("src/app/BUILD", BUILD)
    repo.write("src/app/Dockerfile", DOCKERFILE)
    repo.write("src/app/main.py", MAIN)
    return repo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as temporary, docker_engine() as docker:
        folder = Path(temporary)
        layout = debian_with_python(folder / "debian")
        copy = ["skopeo", "copy", "-q", f"oci:{layout}:base"]
        archive = folder / "base.docker.tar"
        subprocess.run([*copy, f"docker-archive:{archive}:bench/base:base"], check=True)
        docker.run_client("load", "-i", str(archive))
        bench = Bench(docker)
        for number in range(runs):
            for kind in KINDS:
                repo = make_repo(folder / f"{kind}{number}", layout, docker)
                repo.pants("list", "::")  # the daemon runs
                try:
                    bench.run(repo, kind)
                finally:
                    repo.close()
            docker.run_client("image", "prune", "--all", "--force")  # its cache is among them
            docker.run_client("load", "-i", str(archive))
        bench.report()


if __name__ == "__main__":
    main()
