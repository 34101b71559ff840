"""A client with little disk: what it holds of an image that it assembles and publishes."""

from __future__ import annotations

import random
import tarfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, List

from support.buildbox import BuildBox
from support.debian_image import write_layout
from support.registry import Registry
from support.workspace import Repo

_BASE = 60_000_000
_PACKAGE = 1_000_000
_PACKAGES = 3
_BUILD = """\
docker_nix_pull(name="base", image_name="{registry}/base", image_digest="{digest}")
files(name="own", sources=["own.txt"])
{packages}
docker_nix_layered(
    name="image",
    image_name="team/image",
    image_tags=["{{tag}}"],
    registries=["{registry}"],
    from_image=":base",
    contents=[":own", {contents}],
)
"""


def client(root: Path, build: str, server: BuildBox) -> Repo:
    repo = Repo(
        root / "repo",
        store=root / "store",
        options=(*server.cache_options, "--cache-content-behavior=defer"),
        backends=["docker_nix"],
    )
    repo.write("BUILD", build.format(tag="v1"))
    repo.write("own.txt", "one line\n")
    for number in range(_PACKAGES):
        repo.write(f"package{number}", random.Random(number).randbytes(_PACKAGE))
    return repo


def size(store: Path) -> int:
    """What a store takes on the disk; its databases are sparse files."""
    total = 0
    for path in store.rglob("*"):
        try:
            total += path.lstat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total


@contextmanager
def peak(store: Path) -> Iterator[List[int]]:
    """The largest size that the store has meanwhile, in a list."""
    sizes = [0]
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.1):
            sizes[0] = max(sizes[0], size(store))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield sizes
    finally:
        done.set()
        thread.join()
        sizes[0] = max(sizes[0], size(store))


def test_an_image_that_is_not_on_the_machine(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(random.Random(1).randbytes(_BASE))
    with tarfile.open(tmp_path / "base.tar", "w") as base:
        base.add(tmp_path / "data", "data")
    write_layout(tmp_path / "layout", [(tmp_path / "base.tar").read_bytes()], {})
    with BuildBox(tmp_path / "server", jobs=0) as server, Registry(tmp_path / "r") as registry:
        digest = registry.push(f"oci:{tmp_path}/layout:base", "base")
        names = [f"package{number}" for number in range(_PACKAGES)]
        build = _BUILD.format(
            registry=registry.address,
            digest=digest,
            packages="\n".join(f'files(name="{name}", sources=["{name}"])' for name in names),
            contents=", ".join(f'":{name}"' for name in names),
        )
        first = client(tmp_path / "first", build, server)
        first.pants("publish", ":image")

        second = client(tmp_path / "second", build, server)
        store = tmp_path / "second/store"
        metadata = "--docker-nix-output-format=metadata"
        with peak(store) as packaged:
            second.pants(metadata, "package", ":image")
        built = second.digest("image")
        assert registry.tags("team/image") == {"v1": built}

        second.write("own.txt", "another line\n")
        second.write("BUILD", build.format(tag="v2"))
        with peak(store) as published:
            second.pants("publish", ":image")
        second.pants(metadata, "package", ":image")
        assert registry.tags("team/image") == {"v1": built, "v2": second.digest("image")}

        layers = second.info("image")["docker_nix"]["layers"]
        whole = sum(layer["size"] for layer in layers)
        print(f"image {whole} bytes; store: {packaged[0]} packaged, {published[0]} published")
        assert whole > _BASE
        # The client's own sources, Pex, which may have to fetch the tool's libraries, and no layer.
        assert packaged[0] < whole // 3
        assert published[0] < packaged[0] + 2 * _PACKAGE
