"""For tests: the layer tool as it lies in a sandbox, with its shared libraries, and running it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from functools import lru_cache
from pathlib import Path

from docker_nix.layer.tool.libraries import platform

_WHEEL_PLATFORMS = {
    "linux-x86_64": "manylinux2014_x86_64",
    "linux-arm64": "manylinux2014_aarch64",
    "macos-x86_64": "macosx_10_9_x86_64",
    "macos-arm64": "macosx_11_0_arm64",
}
# Library: the lock, the Python its wheel is for, and the extension module in the wheel.
_WHEELS = {
    "deflate": ("libdeflate.lock", "311", "deflate/_deflate."),
    "zstd": ("libzstd.lock", "39", "zstd."),
}


@lru_cache(maxsize=None)
def library_dir() -> Path:
    """The directory of shared libraries, by platform, as the tool wants it.

    It is what the variable DOCKER_NIX_TOOL_LIB names; where that is not set, the libraries for this
    machine are downloaded from the package index, once per user.
    """
    given = os.environ.get("DOCKER_NIX_TOOL_LIB")
    if given:
        return Path(given)
    directory = Path(tempfile.gettempdir(), f"docker-nix-tool-lib-{os.getuid()}")
    for name in _WHEELS:
        target = directory / platform() / f"{name}.so"
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            _download(name, target)
    return directory


def install_tool(directory: Path, *steps: str) -> Path:
    """Puts the tool and its libraries into `directory`; returns the script that starts it.

    :param steps: of which steps (`publish`, …) it is to have the commands, too.
    """
    source = Path(__file__).parent
    for step in ("layer", *steps):
        package = directory / "tool" / "docker_nix" / step / "tool"
        package.mkdir(parents=True)
        for parent in (package.parent, package.parent.parent):
            (parent / "__init__.py").touch()
        for file in (source.parents[1] / step / "tool").glob("*.py"):
            if not file.name.endswith("_test.py"):
                shutil.copy(file, package)
    (directory / "lib").symlink_to(library_dir().resolve())
    return Path(shutil.copy(source / "start.sh", directory))


def run_tool(
    start: Path, sandbox: Path, *args: str, python: str = sys.executable
) -> subprocess.CompletedProcess[str]:
    """Runs the tool in `sandbox` as Pants does: no environment, the interpreter from the cache."""
    chosen = sandbox / ".docker-nix-cache" / "interpreter"
    chosen.parent.mkdir(exist_ok=True)
    chosen.write_text(f"{python}\n")
    return subprocess.run(
        ["/bin/sh", str(start), *args], cwd=sandbox, env={}, capture_output=True, text=True
    )


def _download(name: str, target: Path) -> None:
    lock, python, module = _WHEELS[name]
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", f"--platform={_WHEEL_PLATFORMS[platform()]}"]
        command += [f"--python-version={python}", f"--dest={scratch}", "--require-hashes"]
        command += ["--requirement", str(Path(__file__).parents[1] / lock)]
        subprocess.run(command, check=True)
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            (member,) = [x for x in names if x.startswith(module) and x.endswith(".so")]
            library = archive.extract(member, scratch)
        os.replace(library, target)
