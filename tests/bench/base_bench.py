"""How long images on a base take: Debian with Python, in a registry of this machine.

    python3 tests/bench/base_bench.py [--runs 3]

Everything is done `--runs` times, each time in a repository with an empty store; the table has
medians, and ratios to a run with nothing to do. It asserts nothing, and needs root for mmdebstrap.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PROJECT / "tests")]

from bench.measure import Table  # noqa: E402
from support.debian_image import debian_with_python  # noqa: E402
from support.registry import Registry  # noqa: E402
from support.workspace import Repo  # noqa: E402

NOTHING = "package, nothing to do"
BUILD = """
docker_nix_pull(name="base", image_name="{image}", image_digest="{digest}")
files(name="app", sources=["app.py"])
docker_nix_layered(name="alone", contents=[":app"])
docker_nix_layered(name="image", from_image=":base", contents=[":app"])
docker_nix_image(name="root", from_image=":base", contents=[":app"], run_as_root="useradd app")
docker_nix_export(name="rootfs", from_image=":image")
"""


def measure(table: Table, repo: Repo) -> None:
    """One run of all, in a new repository whose daemon runs and whose tool is ready."""
    repo.write("app.py", "print(1)\n")
    repo.pants("package", ":alone")
    for name, target in (
        ("pull the base, an image on it", ":image"),
        (NOTHING, ":image"),
        ("a script as root on the base", ":root"),
        ("export the root file system", ":rootfs"),
    ):
        with table.measure(name):
            repo.pants("package", target)
    repo.write("app.py", "print(2)\n")
    with table.measure("package, a line changed"):
        repo.pants("package", ":image")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    table = Table()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        layout = debian_with_python(folder / "debian")
        with Registry(folder / "registry") as registry:
            digest = registry.push(f"oci:{layout}:base", "base/debian")
            build = BUILD.format(image=f"{registry.address}/base/debian", digest=digest)
            for number in range(runs):
                store = folder / f"store{number}"
                repo = Repo(folder / f"repo{number}", store=store, pantsd=True)
                repo.write("BUILD", build)
                try:
                    measure(table, repo)
                finally:
                    repo.close()
    table.print(NOTHING)


if __name__ == "__main__":
    main()
