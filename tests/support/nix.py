"""The real Nix of this machine, without users for builds, a sandbox or a cache to ask."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Dict, List, Mapping, Optional

CONFIG = "build-users-group =\nsandbox = false\nsubstitute = false\n"
ENV = {"NIX_CONFIG": CONFIG}
STORE = Path("/nix/store")


def nix(
    program: str,
    *args: str,
    check: bool = True,
    env: Optional[Mapping[str, str]] = None,
    stdin: Optional[bytes] = None,
) -> str:
    """What `program ARGS` prints, with undecodable bytes kept."""
    done = subprocess.run(
        [program, *args],
        input=stdin,
        env={**os.environ, **ENV, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert not check or done.returncode == 0, done.stderr.decode()
    return os.fsdecode(done.stdout)


def dump(path: Path) -> bytes:
    """The NAR of what is at `path`."""
    done = subprocess.run(
        ["nix-store", "--dump", str(path)],
        env={**os.environ, **ENV},
        stdout=subprocess.PIPE,
        check=True,
    )
    return done.stdout


def references(path: str) -> List[str]:
    """What a valid path refers to, itself included where it does."""
    return nix("nix-store", "--query", "--references", path).split()


def delete(text: str) -> None:
    """Deletes all store paths that have `text` in their name, or as the name of a file in them."""
    files = [*STORE.glob(f"*{text}*"), *STORE.glob(f"*-source/**/*{text}*")]
    names = {file.relative_to(STORE).parts[0] for file in files}
    paths = [f"{STORE}/{name}" for name in names if not name.endswith((".lock", ".chroot"))]
    if paths:
        nix("nix-store", "--delete", *paths)


def path_without_nix(folder: Path) -> Dict[str, str]:
    """A PATH with all programs that the machine has, but for those of Nix."""
    directories = []
    for number, directory in enumerate(os.environ["PATH"].split(":")):
        if os.path.exists(f"{directory}/nix-store"):
            shadow = folder / f"bin{number}"
            shadow.mkdir(parents=True)
            for program in os.listdir(directory):
                if not program.startswith("nix"):
                    (shadow / program).symlink_to(f"{directory}/{program}")
            directory = str(shadow)
        directories.append(directory)
    path = ":".join(directories)
    assert shutil.which("nix-store", path=path) is None
    return {"PATH": path}
