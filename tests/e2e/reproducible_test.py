"""The same input gives the same image, whatever the machine; and every file is in it once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import Dict

from support.workspace import PROJECT, Repo

BUILD = """\
files(name="tree", sources=["tree/**"])
file(name="archive", source="archive.tar.xz")
resources(name="resources", sources=["*.res"], dependencies=[":tree"])
docker_nix_layered(
    name="image",
    image_name="same/everywhere",
    contents=[":tree", ":archive", ":resources"],
    compression=parametrize("gzip", "zstd", "none"),
    config={"Cmd": ["{store_path[:tree]}/tree/run"]},
    uid=7,
    tools=["seq"],
    extra_commands="mkdir made; seq 3 > made/file; ln made/file made/hard; mkdir -m 700 made/mine",
)
"""


def write_sources(repo: Repo, backwards: bool) -> None:
    """The same files, made in another order and with other modes and times."""
    files: Dict[str, bytes] = {
        "BUILD": BUILD.encode(),
        "tree/run": b"#!/bin/sh\necho hi\n",
        "tree/a-b": b"1",
        "tree/a/x": b"2",
        "tree/a.b/ünï cödé": "ñ".encode(),
        "tree/empty": b"",
        "tree/large": bytes(range(256)) * 20_000,
        "one.res": b"resource",
    }
    for path in sorted(files, reverse=backwards):
        executable = path == "tree/run"
        mode = (0o700 if executable else 0o600) if backwards else (0o755 if executable else 0o644)
        os.utime(repo.write(path, files[path], mode), (backwards, backwards))
    os.symlink("../run", repo.root / "tree/a/link")
    with tarfile.open(repo.root / "archive.tar.xz", "w:xz") as archive:
        archive.addfile(tarfile.TarInfo("usr/share/archived"))


def python_version(python: str) -> str:
    """The minor version of an interpreter, such as `3.9`."""
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run(
        [python, "-c", program], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def test_two_machines_make_the_same_image(tmp_path: Path) -> None:
    """Another path, user, umask, locale, time zone, number of cores and Python; no shared cache."""
    pythons = ("/usr/bin/python3", os.path.realpath(sys.executable))
    assert python_version(pythons[0]) != python_version(pythons[1]), "two Pythons are needed"
    first = Repo(
        tmp_path / "a",
        store=tmp_path / "store-a",
        options=[f"--docker-nix-python={pythons[0]}"],
    )
    write_sources(first, backwards=False)
    first.pants("package", "//:", env={"LC_ALL": "C", "TZ": "UTC"})

    elsewhere = tmp_path / "another place" / "ü"
    elsewhere.mkdir(parents=True)
    plugins = elsewhere / "plugins"
    shutil.copytree(
        PROJECT / "pants-plugins", plugins, ignore=shutil.ignore_patterns("__pycache__")
    )
    second = Repo(
        elsewhere / "b",
        store=elsewhere / "store",
        plugins=plugins,
        options=(
            f"--docker-nix-python={pythons[1]}",
            "--process-execution-local-parallelism=1",
            f"--named-caches-dir={elsewhere}/caches",
        ),
    )
    write_sources(second, backwards=True)
    prefix = ["taskset", "-c", "0"]
    # A user namespace makes this another user, who may yet read what this one has installed.
    prefix += ["unshare", "--user", "--map-user=4321", "--map-group=4321"]
    prefix += ["sh", "-c", 'umask 077; exec "$@"', "sh"]
    second.pants(
        "package", "//:", env={"LC_ALL": "tr_TR.UTF-8", "TZ": "Asia/Kolkata"}, prefix=prefix
    )
    for compression in ("gzip", "zstd", "none"):
        name = f"image@compression={compression}"
        assert first.info(name) == second.info(name)
        layout, other = (repo.root / "dist" / name for repo in (first, second))
        subprocess.run(["diff", "-r", str(layout), str(other)], check=True)


def layer_files(layout: Path, info: Dict) -> Counter:
    """How often each name stands in the layers of an image, directories left out."""
    names: Counter = Counter()
    for layer in info["docker_nix"]["layers"]:
        blob = layout / "blobs/sha256" / layer["digest"].partition(":")[2]
        with tarfile.open(blob) as archive:
            members = archive.getnames()
            assert len(members) == len(set(members))
            names.update(m.name for m in archive.getmembers() if not m.isdir())
    return names


def test_every_file_exactly_once(tmp_path: Path) -> None:
    """120 contents with room for many, some, one and no store layer of their own."""
    repo = Repo(tmp_path / "repo")
    for i in range(120):
        repo.write(f"c{i}/file{i}", str(i))
    layers = (100, 99, 2, 1, 125)
    repo.write(
        "BUILD",
        "for i in range(120):\n"
        '    files(name=f"c{i}", sources=[f"c{i}/*"])\n'
        f"for layers in {layers}:\n"
        "    docker_nix_layered(\n"
        '        name=f"image{layers}",\n'
        '        contents=[f":c{i}" for i in range(120)],\n'
        "        max_layers=layers,\n"
        '        extra_commands="mkdir -p var",\n'
        "    )\n",
    )
    repo.pants("package", "//:")
    for most in layers:
        info = repo.info(f"image{most}")
        assert len(info["docker_nix"]["layers"]) == min(most, 121)
        names = layer_files(repo.root / "dist" / f"image{most}", info)
        paths = [p["path"] for layer in info["docker_nix"]["layers"] for p in layer["store_paths"]]
        assert len(paths) == len(set(paths)) == 120
        links = {f"c{i}/file{i}" for i in range(120)}
        stored = {name for name in names if name.startswith("nix/store/")}
        assert {name.split("/", 3)[3] for name in stored} == links
        assert set(names) - stored == links
        assert set(names.values()) == {1}
