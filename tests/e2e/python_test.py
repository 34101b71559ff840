"""Python applications, one store path per distribution: what they do in a real engine, and what an
edit costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping

import pytest

from support.debian_image import debian_with_python
from support.docker_engine import DockerEngine, docker_engine
from support.workspace import Repo

# A lock file of Pex, and for building wheels of the repository a plain list of requirements.
OPTIONS = (
    "--python-enable-resolves",
    "--python-resolves={'python-default': 'python.lock', 'setuptools': 'setuptools.lock'}",
    "--python-resolves-to-interpreter-constraints={'python-default': ['CPython==3.11.*']}",
    "--python-invalid-lockfile-behavior=ignore",
    "--setuptools-install-from-resolve=setuptools",
)

ROOT_BUILD = """\
file(name="base", source="base.tar")
python_requirement(
    name="setuptools", requirements=["setuptools==75.6.0", "wheel==0.45.1"], resolve="setuptools"
)
"""

BUILD = """\
__defaults__(all=dict(interpreter_constraints=["CPython==3.11.*"]))

python_requirement(name="zope.interface", requirements=["zope.interface==7.2"])
python_requirement(name="zope.event", requirements=["zope.event==5.0"])
python_requirement(name="pyyaml", requirements=["pyyaml==6.0.2"], modules=["yaml"])
python_requirement(name="setuptools", requirements=["setuptools==75.6.0"])
python_requirement(name="wheel", requirements=["wheel==0.45.1"])
python_requirement(name="gunicorn", requirements=["gunicorn==23.0.0"])

python_sources(name="sources", dependencies=[":data", ":setuptools"])
resources(name="data", sources=["*.txt"])

pex_binary(
    name="app",
    entry_point="main.py",
    args=["first", "it's \\"quoted\\" ünïcödé"],
    env={"MODE": "fröm the target", "OTHER": "from the target"},
    execution_mode="venv",
    dependencies=[":wheel", ":gunicorn", "src/dist:dist"],
)
pex_binary(name="function", entry_point="app.main:Programs.run")
pex_binary(name="python", dependencies=[":sources"])
pex_binary(name="console", script="wheel", args=["version"], dependencies=[":wheel"])
pex_binary(name="shell", script="hello-script", dependencies=["src/dist:dist"])
pex_binary(name="bare", entry_point="app.other", include_requirements=False)

docker_nix_layered(
    name="image",
    image_name="test/app",
    from_image="//:base",
    contents=[":app", ":function", ":python", ":console", ":shell", ":bare"],
    config={"Entrypoint": ["/bin/app"], "User": "65532:65532"},
    include_nix_db=True,
)
docker_nix_image(
    name="single",
    image_name="test/single",
    from_image="//:base",
    contents=[":function"],
    config={"Entrypoint": ["{store_path[:function]}/bin/function"]},
)
docker_nix_layered(
    name="library",
    image_name="test/library",
    from_image="//:base",
    contents=[":sources", ":zope.event", "src/dist:dist"],
    config={
        "Env": ["PYTHONPATH=/lib/python3.11/site-packages"],
        "Entrypoint": ["python3", "-c"],
    },
)
"""

MAIN = """\
import importlib.metadata
import multiprocessing
import os
import subprocess
import sys

import yaml
import zope.event
import zope.interface

from app import other


class Programs:
    @staticmethod
    def run():
        print("a function of a class", sys.argv[1:])


def facts():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        spawned = pool.map(other.square, [7])
    child = "import app.other, yaml, sys; print(app.other.square(8), sys.argv[1:])"
    return {
        "argv": sys.argv,
        "env": [os.environ["MODE"], os.environ["OTHER"], os.environ.get("PEX_ANYTHING")],
        "path": sys.path,
        "prefix": sys.prefix,
        "data": other.data(),
        "compiled": [yaml.__with_libyaml__, zope.interface.ro._legacy_ro.__module__],
        "namespace": list(zope.__path__),
        "version": importlib.metadata.version("zope.event"),
        "files": sorted(str(path) for path in importlib.metadata.files("gunicorn"))[:3],
        "entry_points": [
            point.value for point in importlib.metadata.entry_points(group="console_scripts")
            if point.name == "gunicorn"
        ],
        "pth": "_distutils_hack" in sys.modules,
        "bytecode": [os.path.exists(yaml.__cached__), os.path.exists(other.__cached__)],
        "loaded": sum(name.startswith("yaml") for name in sys.modules),
        "spawned": spawned,
        "child": subprocess.check_output([sys.executable, "-c", child], text=True).strip(),
        "script": subprocess.check_output(
            [os.path.join(sys.prefix, "bin", "gunicorn"), "--version"], text=True
        ).strip(),
        "share": open(os.path.join(sys.prefix, "share", "dist", "data.txt")).read(),
        "user": [os.getuid(), os.access("/", os.W_OK)],
    }


if __name__ == "__main__":
    import json

    print(json.dumps(facts()))
"""

OTHER = """\
import pkgutil


def square(number):
    return number * number


def data():
    return pkgutil.get_data("app", "greeting.txt").decode()


if __name__ == "__main__":
    print("no requirements")
"""

DIST_BUILD = """\
resources(name="files", sources=["setup.py", "data.txt", "hello-script"])
python_sources(name="dist_sources", sources=["in_wheel.py"],
    interpreter_constraints=["CPython==3.11.*"])
python_distribution(
    name="dist",
    dependencies=[":files", ":dist_sources"],
    provides=python_artifact(name="in-wheel", version="1.0"),
    generate_setup=False,
    sdist=False,
    interpreter_constraints=["CPython==3.11.*"],
)
"""

SETUP = """\
from setuptools import setup

setup(
    name="in-wheel",
    version="1.0",
    py_modules=["in_wheel"],
    scripts=["hello-script"],
    data_files=[("share/dist", ["data.txt"])],
)
"""


def write_sources(repo: Repo) -> None:
    repo.write("src/app/BUILD", BUILD)
    repo.write("src/app/__init__.py", "")
    repo.write("src/app/main.py", MAIN)
    repo.write("src/app/other.py", OTHER)
    repo.write("src/app/greeting.txt", "hällo")
    repo.write("src/dist/BUILD", DIST_BUILD)
    repo.write("src/dist/setup.py", SETUP)
    repo.write("src/dist/data.txt", "data of a wheel")
    repo.write("src/dist/hello-script", "#!/usr/bin/env python\nimport in_wheel\n", 0o755)
    repo.write("src/dist/in_wheel.py", 'print("from a wheel of the repository")\n')


WHEELS = (
    "gunicorn==23.0.0",
    "packaging==24.2",
    "pyyaml==6.0.2",
    "setuptools==75.6.0",
    "setuptools==75.7.0",
    "wheel==0.45.1",
    "zope.event==5.0",
    "zope.interface==7.2",
)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of wheels: a lock file of Pex names files, which an index here may not have."""
    folder = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"--dest={folder}"]
    target = ["--only-binary=:all:", "--python-version=3.11", "--platform=manylinux2014_x86_64"]
    for requirement in WHEELS:
        subprocess.run([*command, *target, requirement], check=True)
    return folder


def lock(repo: Repo, wheels: Path) -> None:
    repo.pants(
        "--python-repos-indexes=[]",
        f"--python-repos-find-links=['file://{wheels}']",
        "generate-lockfiles",
        "--resolve=python-default",
    )


@pytest.fixture(scope="module")
def docker() -> Iterator[DockerEngine]:
    with docker_engine() as engine:
        yield engine


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with a base image that has Python 3.11."""
    folder = tmp_path_factory.mktemp("base")
    layout = debian_with_python(folder)
    archive = folder / "base.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(layout, ".")
    return archive


def make_repo(root: Path, base: Path, **kwargs: Any) -> Repo:
    repo = Repo(root, options=OPTIONS, **kwargs)
    os.link(base, root / "base.tar")
    repo.write("BUILD", ROOT_BUILD)
    repo.write("setuptools.lock", "setuptools==75.6.0\nwheel==0.45.1\n")
    return repo


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory, base: Path, wheels: Path) -> Iterator[Repo]:
    folder = tmp_path_factory.mktemp("python")
    repo = make_repo(folder / "repo", base, store=folder / "store", pantsd=True)
    write_sources(repo)
    lock(repo, wheels)
    repo.pants("package", "src/app:image", "src/app:single", "src/app:library")
    yield repo
    repo.close()


def layers(repo: Repo, output: str = "src.app/image") -> List[Dict[str, Any]]:
    return repo.info(output)["docker_nix"]["layers"]


def store_layers(repo: Repo, output: str = "src.app/image") -> Dict[str, str]:
    """The digest of each layer of one store path, by that path."""
    return {
        layer["store_paths"][0]["path"]: layer["digest"]
        for layer in layers(repo, output)
        if layer["kind"] == "store"
    }


def run(
    docker: DockerEngine, image: str, *args: str, program: str = "", env: Mapping[str, str] = {}
) -> str:
    """What a container prints as an ordinary user with a root file system that is read-only."""
    options = ["--rm", "--network=none", "--read-only", "--user=65532:65532"]
    if program:
        options.append(f"--entrypoint={program}")
    options += [f"--env={name}={value}" for name, value in env.items()]
    return docker.run_client("run", *options, image, *args).decode()


def test_applications_in_the_engine(docker: DockerEngine, repo: Repo) -> None:
    image = docker.load(repo.root / "dist/src.app/image")
    env = {"PYTHONPATH": "/nowhere", "OTHER": "from outside", "PEX_ANYTHING": "1"}
    facts = json.loads(run(docker, image, "last", env=env))
    names = {path.partition("-")[2]: path for path in store_layers(repo)}
    assert facts["argv"][1:] == ["first", 'it\'s "quoted" ünïcödé', "last"]
    assert facts["env"] == ["fröm the target", "from outside", None]
    sources, *standard, site_packages = facts["path"]
    assert sources in names.values() and sources.endswith("-python-sources")
    assert all(path.startswith("/usr/lib/python3") for path in standard)
    environment = site_packages.rpartition("/lib/python3.11/site-packages")[0]
    assert environment in names.values() and facts["prefix"] == environment
    assert facts["data"] == "hällo"
    assert facts["compiled"] == [True, "zope.interface.ro"]
    assert facts["namespace"] == [f"{site_packages}/zope"]
    assert facts["version"] == "5.0"
    assert facts["files"][:2] == [
        "../../../bin/gunicorn",
        "gunicorn-23.0.0.dist-info/INSTALLER",
    ]
    assert facts["entry_points"] == ["gunicorn.app.wsgiapp:run"]
    assert facts["pth"] is True
    assert facts["bytecode"] == [True, True]
    assert (facts["spawned"], facts["child"]) == ([49], "64 []")
    assert facts["script"] == "gunicorn (version 23.0.0)"
    assert facts["share"] == "data of a wheel"
    assert facts["user"] == [65532, False]

    assert run(docker, image, "x", program="/bin/function") == "a function of a class ['x']\n"
    assert (
        run(docker, image, "-c", "import app.other as o; print(o.square(3))", program="/bin/python")
        == "9\n"
    )
    assert run(docker, image, program="/bin/console").startswith("wheel 0.45.1")
    assert run(docker, image, program="/bin/shell") == "from a wheel of the repository\n"
    assert run(docker, image, program="/bin/bare") == "no requirements\n"

    single = docker.load(repo.root / "dist/src.app/single")
    assert run(docker, single, "y") == "a function of a class ['y']\n"

    library = docker.load(repo.root / "dist/src.app/library")
    program = "import app.other, zope.event, in_wheel; print(app.other.data())"
    assert run(docker, library, program) == "from a wheel of the repository\nhällo\n"


def test_one_store_path_for_each_distribution(repo: Repo) -> None:
    paths = {
        info["path"]: info["references"] for layer in layers(repo) for info in layer["store_paths"]
    }
    by_name: Dict[str, List[str]] = {}
    for path in paths:
        by_name.setdefault(path.partition("-")[2], []).append(path)
    once = ["zope-interface-7.2", "zope-event-5.0", "pyyaml-6.0.2", "wheel-0.45.1"]
    once += ["setuptools-75.6.0", "gunicorn-23.0.0", "in-wheel-1.0"]
    assert {name: len(by_name[name]) for name in once} == dict.fromkeys(once, 1)
    (interface,), (setuptools,) = by_name["zope-interface-7.2"], by_name["setuptools-75.6.0"]
    assert paths[interface] == [setuptools]
    (program,) = by_name["app"]
    names = sorted(path.partition("-")[2] for path in paths[program])
    assert names == ["python-sources", "python3.11-environment"]
    environment = next(path for path in paths[program] if path.endswith("environment"))
    assert set(paths[environment]) >= {interface, setuptools, environment}
    # Programs are packed with the links to them, all else is a layer of its own.
    top = layers(repo)[-1]
    assert {info["path"].partition("-")[2] for info in top["store_paths"]} == {
        "app",
        "function",
        "python",
        "console",
        "shell",
        "bare",
    }
    assert all(len(layer["store_paths"]) == 1 for layer in layers(repo)[1:-1])


def test_an_edit_changes_one_layer(repo: Repo) -> None:
    repo.write(
        "src/app/BUILD",
        BUILD + 'docker_nix_layered(name="edited", from_image="//:base", contents=[":app"])\n',
    )
    repo.pants("package", "src/app:edited")
    before = store_layers(repo, "src.app/edited")
    repo.write("src/app/other.py", OTHER + "# edited\n")
    counters = repo.stats("package", "src/app:edited")
    after = store_layers(repo, "src.app/edited")
    changed = after.keys() - before.keys()
    assert [path.partition("-")[2] for path in changed] == ["python-sources"]
    assert {path: after[path] for path in after if path not in changed}.items() <= before.items()
    # The two layers, and nothing of Pex.
    assert counters["local_execution_requests"] == 2
    assert counters.get("local_cache_requests_cached", 0) == 0
    repo.write("src/app/other.py", OTHER)


def test_an_upgrade_changes_what_holds_it(repo: Repo, wheels: Path) -> None:
    repo.write(
        "src/app/BUILD",
        BUILD + 'docker_nix_layered(name="edited", from_image="//:base", contents=[":app"])\n',
    )
    repo.pants("package", "src/app:edited")
    before = store_layers(repo, "src.app/edited")
    upgraded = BUILD.replace("setuptools==75.6.0", "setuptools==75.7.0")
    repo.write(
        "src/app/BUILD",
        upgraded + 'docker_nix_layered(name="edited", from_image="//:base", contents=[":app"])\n',
    )
    lock(repo, wheels)
    repo.pants("package", "src/app:edited")
    after = store_layers(repo, "src.app/edited")
    names = sorted(path.partition("-")[2] for path in after.keys() - before.keys())
    # Not what depends on it, such as zope.interface.
    assert names == ["python3.11-environment", "setuptools-75.7.0"]
    repo.write("src/app/BUILD", BUILD)
    lock(repo, wheels)


def test_two_machines_make_the_same_bytes(tmp_path: Path, base: Path, repo: Repo) -> None:
    """Another directory, store, umask, locale and Python for the tool, and nothing cached."""
    other = make_repo(tmp_path / "elsewhere", base, store=tmp_path / "store")
    write_sources(other)
    other.write("python.lock", (repo.root / "python.lock").read_bytes())
    other.pants(
        "--docker-nix-python=/usr/bin/python3",
        "package",
        "src/app:image",
        "src/app:single",
        env={"LC_ALL": "C", "TZ": "Asia/Tokyo"},
        prefix=["/bin/sh", "-c", 'umask 077; exec taskset -c 0 "$@"', "sh"],
    )
    for output in ("src.app/image", "src.app/single"):
        assert other.digest(output) == repo.digest(output)
