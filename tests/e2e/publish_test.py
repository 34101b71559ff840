"""`publish`: real registries, one behind a gate that fails as told, a remote cache, an engine."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Dict, Iterator, List, Sequence

import pytest

from support.registry import Registry
from support.workspace import Repo, Run

PASSWORD = "s3cr3t-Passw0rd"
BIG = 3_000_000

_BUILD = """\
for n in range(3):
    file(name=f"big{n}", source=f"big{n}.bin")

file(name="note", source="note.txt")
"""


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """No settings of the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        cache = os.environ.get("XDG_CACHE_HOME", f"{Path.home()}/.cache")
        patch.setenv("XDG_CACHE_HOME", cache)
        for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("publish")


@pytest.fixture(scope="module")
def machine(folder: Path) -> Iterator[Repo]:
    """A machine with a daemon for all tests that need no other."""
    repo = make_machine(folder / "machine")
    yield repo
    repo.close()


@pytest.fixture(scope="module")
def registry(folder: Path) -> Iterator[Registry]:
    with Registry(folder / "registry") as registry:
        yield registry


def make_machine(root: Path, *options: str, pantsd: bool = True) -> Repo:
    """A machine that has built nothing yet."""
    return Repo(
        root / "repo",
        store=root / "store",
        pantsd=pantsd,
        backends=["docker_nix"],
        options=["--no-verify-config", *options],  # for options of the backends that are left out
    )


def write_app(repo: Repo, directory: str, note: str, *targets: str) -> None:
    """Three large files, and a small one; `directory` makes them other ones."""
    for n in range(3):
        repo.write(f"{directory}/big{n}.bin", random.Random(f"{directory}{n}").randbytes(BIG))
    repo.write(f"{directory}/note.txt", note)
    repo.write(f"{directory}/BUILD", _BUILD + "".join(targets))


def image(name: str, **fields: object) -> str:
    fields = {"contents": [":big0", ":big1", ":big2", ":note"], **fields}
    more = "".join(f", {field}={value!r}" for field, value in fields.items())
    return f"docker_nix_layered(name={name!r}{more})\n"


def registries(**named: Dict[str, object]) -> str:
    return f"--docker-nix-registries={named!r}"


def results(run: Run) -> List[str]:
    """What Pants says in the end: a line for each name, without its sign."""
    return [line[2:] for line in run.stderr.splitlines() if line[:2] in ("✓ ", "✕ ", "- ")]


def uploads(requests: Sequence[str]) -> List[str]:
    return [line for line in requests if line.split()[0] in ("POST", "PATCH", "PUT")]


def test_publish(machine: Repo, registry: Registry, folder: Path) -> None:
    """The digest of the report arrives under all tags; the second time nothing is uploaded."""
    write_app(
        machine,
        "app",
        "one",
        image("img", registries=[registry.address], repository="team/App", image_tags=["V1", "b"]),
    )
    machine.pants("package", "app:img")
    info = machine.info("app/img")
    digest = info["docker_nix"]["digest"]
    name = f"{registry.address}/team/app"
    assert info["registries"] == [
        {
            "alias": None,
            "address": registry.address,
            "repository": "team/app",
            "tags": [
                {"template": tag, "tag": tag, "uses_local_alias": False, "name": f"{name}:{tag}"}
                for tag in ("b", "v1")
            ],
        }
    ]
    output = folder / "published.json"
    run = machine.pants("publish", f"--publish-output={output}", "app:img")
    print(run.output)
    assert results(run) == [
        f"{name}:v1 published to {name}@{digest}.",
        f"{name}:b published to {name}@{digest}.",
    ]
    assert registry.tags("team/app") == {"v1": digest, "b": digest}
    assert json.loads(output.read_text())[0] == {
        "digest": digest,
        "exit_code": 0,
        "image_id": info["image_id"],
        "names": [f"{name}:v1"],
        "published": True,
        "publisher": "docker_nix",
        "registries": [registry.address],
        "repository": name,
        "status": f"published to {name}@{digest}",
        "tag": "v1",
        "target": "app:img",
    }
    print(*registry.requests(), sep="\n")
    seen = len(registry.requests())
    run = machine.pants("publish", "app:img")
    print(run.output)
    print(*registry.requests()[seen:], sep="\n")
