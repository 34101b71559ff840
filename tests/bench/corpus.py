"""Fetches the distributions of `corpus.txt` and unpacks each as a tree of its own.

    python3 tests/bench/corpus.py CACHE

What is in CACHE already is not fetched or unpacked again.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

PINS = Path(__file__).with_name("corpus.txt")
_PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_28_x86_64")
_ABIS = ("cp311", "abi3", "none")


def download(pins: Path, into: Path) -> None:
    """Download the wheels that the requirements file pins by version and hash."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--require-hashes", "--disable-pip-version-check"]
    command += ["--implementation=cp", "--python-version=3.11"]
    command += [f"--platform={platform}" for platform in _PLATFORMS]
    command += [f"--abi={abi}" for abi in _ABIS]
    command += [f"--find-links={into}", f"--dest={into}", f"--requirement={pins}"]
    subprocess.run(command, check=True)


def fetch(cache: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """The wheel and the unpacked tree of each distribution, by its name."""
    wheels, trees = cache / "wheels", cache / "trees"
    pinned = sum("==" in line for line in PINS.read_text().splitlines())
    if len(list(wheels.glob("*.whl"))) != pinned:
        download(PINS, wheels)
    by_name = {wheel.name.partition("-")[0]: wheel for wheel in sorted(wheels.glob("*.whl"))}
    for name, wheel in by_name.items():
        if not (trees / name).is_dir():
            unfinished = trees / f".{name}"
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(unfinished)
            unfinished.rename(trees / name)
    return by_name, {name: trees / name for name in by_name}


def main() -> None:
    _, trees = fetch(Path(sys.argv[1]))
    files = [path for tree in trees.values() for path in tree.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    print(f"{len(trees)} distributions, {len(files)} files, {size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
