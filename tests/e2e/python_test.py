"""Python applications, one store path per distribution: what they do in a real engine, and what an
edit costs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping

import pytest

from support.buildgrid import BuildGrid
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
    assert facts["argv"][1:] == ["first", 'it\'s "quoted" ünïcödé', "last"]
    assert facts["env"] == ["fröm the target", "from outside", None]
    sources, *standard, site_packages = facts["path"]
    assert sources in store_layers(repo) and sources.endswith("-python-sources")
    assert all(path.startswith("/usr/lib/python3") for path in standard)
    environment = site_packages.rpartition("/lib/python3.11/site-packages")[0]
    assert environment in store_layers(repo) and facts["prefix"] == environment
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


def test_the_same_bytes_on_other_machines(tmp_path: Path, base: Path, repo: Repo) -> None:
    """Another directory, store, umask, locale, number of cores and Python for the tool; and then a
    machine that has the remote cache, which runs nothing."""
    unlike = ["/bin/sh", "-c", 'umask 077; exec taskset -c 0 "$@"', "sh"]
    with BuildGrid(tmp_path / "grid") as grid:
        for name, prefix in (("first", unlike), ("second", [])):
            machine = make_repo(tmp_path / name, base, store=tmp_path / f"{name}-store")
            write_sources(machine)
            machine.write("python.lock", (repo.root / "python.lock").read_bytes())
            run = machine.pants(
                "-ldebug",
                "--remote-cache-read",
                "--remote-cache-write",
                f"--remote-store-address=grpc://127.0.0.1:{grid.port}",
                "--docker-nix-python=/usr/bin/python3",
                "package",
                "src/app:image",
                "src/app:single",
                env={"LC_ALL": "C", "TZ": "Asia/Tokyo"},
                prefix=prefix,
            )
            started = re.findall(r"Starting: ((?:Packing|Reading|Taking) (?:a|the) .*)", run.output)
            assert bool(started) == (name == "first"), started
            for output in ("src.app/image", "src.app/single"):
                assert machine.digest(output) == repo.digest(output)


ELSEWHERE = 'python_interpreter="/usr/bin/python3.11"'


def wheel(folder: Path, name: str, files: Mapping[str, str]) -> str:
    """A requirement on a wheel with these files."""
    path = folder / f"{name}-1-py3-none-any.whl"
    info = f"{name}-1.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return f"{name} @ file://{path}"


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repo]:
    repo = Repo(tmp_path_factory.mktemp("bad") / "repo", pantsd=True)
    repo.write("lib/BUILD", "python_sources(name='lib')")
    repo.write("lib/main.py", "")
    one = wheel(repo.root, "one", {"shared/a.py": "1\n", "shared/b.py": "same"})
    two = wheel(repo.root, "two", {"shared/a.py": "2\n", "shared/b.py": "same"})
    repo.write(
        "wheels/BUILD",
        f"python_requirement(name='one', requirements=[{one!r}])\n"
        f"python_requirement(name='two', requirements=[{two!r}])\n"
        "python_requirement(name='yaml', requirements=['pyyaml==6.0.2'], modules=['yaml'])\n"
        "python_requirement(name='none', requirements=['no-such-project-of-anybody==1'])\n",
    )
    repo.write("base/python3.11", "#!/bin/sh\n")
    repo.write(
        "base/BUILD",
        "files(name='files', sources=['python3.11'])\n"
        "relocated_files(name='py', files_targets=[':files'], src='base', dest='usr/bin')\n"
        "docker_nix_layered(name='base', contents=[':py'])\n",
    )
    yield repo
    repo.close()


def pex_only(field: str, value: str, reason: str) -> Any:
    return pytest.param(
        f"{field}={value}",
        ELSEWHERE,
        f"DockerNixError: The '{field}' field in target x:app is {value}, which cannot be had with "
        f'python_layering="distribution": {reason}.\n\nRemove it, or set '
        'python_layering="binary".',
        id=field,
    )


NO_PYTHON = (
    "DockerNixError: The image x:img has x:app, a `pex_binary` target, {}\n\nBuild it on a base "
    "image with such a Python ('from_image'), list one among the contents (a `nix_package`), or "
    "say where it is with 'python_interpreter'. A `pex_binary` can also go in as one file, "
    'whatever the image has, with python_layering="binary".'
)


@pytest.mark.parametrize(
    "pex, image, error",
    [
        pex_only("include_tools", "True", "PEX_TOOLS are a part of a PEX file"),
        pex_only("inherit_path", "'prefer'", "the program runs with exactly its own distributions"),
        pex_only(
            "ignore_errors",
            "True",
            "a distribution that is missing is an error when the image is built",
        ),
        pex_only(
            "venv_site_packages_copies",
            "True",
            "the environment links to the distributions, which images share",
        ),
        pytest.param("", "", NO_PYTHON.format("but no Python."), id="no-python"),
        pytest.param(
            "interpreter_constraints=['CPython==3.9.*']",
            ELSEWHERE,
            NO_PYTHON.format(
                "whose interpreter constraints are CPython<3.14,==3.9.*,>=3.9, but its Python is "
                "/usr/bin/python3.11 (CPython 3.11, x86_64)."
            ),
            id="constraints",
        ),
        pytest.param(
            "shebang='/usr/bin/env python3.12'",
            ELSEWHERE,
            NO_PYTHON.format(
                "whose 'shebang' is '/usr/bin/env python3.12', which it does not have."
            ),
            id="shebang",
        ),
        pytest.param(
            "shebang='/usr/bin/python3.11 -E'",
            ELSEWHERE,
            "DockerNixError: The 'shebang' field in target x:app is '/usr/bin/python3.11 -E', "
            "which is not one path of a Python, nor 'env' with a name.\n\nWrite it as "
            "'/usr/bin/python3.11', or remove it.",
            id="shebang-arguments",
        ),
        pytest.param(
            "script='nothing', entry_point=None",
            ELSEWHERE,
            "DockerNixError: The 'script' field in target x:app is 'nothing', which none of its "
            "distributions has.\n\nThey have no scripts.",
            id="script",
        ),
        pytest.param(
            "",
            f'architecture="arm64", {ELSEWHERE}',
            "DockerNixError: The image x:img is for linux/arm64, and the distributions of x:app "
            "would be resolved for where it is built, linux_x86_64.\n\nGive the `pex_binary` "
            "'complete_platforms' for the image's Python and platform, or build on such a machine.",
            id="cross-build",
        ),
        pytest.param(
            "platforms=['manylinux2014_x86_64-cp-39-cp39'], dependencies=['wheels:yaml']",
            ELSEWHERE,
            "DockerNixError: The target x:app has distributions that do not fit the Python of the "
            "image x:img, /usr/bin/python3.11 (CPython 3.11, x86_64). pyyaml-6.0.2: its ABI is "
            "cp39-cp39.\n\nGive it 'complete_platforms' of that Python, or use another base image "
            "or 'python_interpreter'.",
            id="abi",
        ),
        pytest.param(
            "dependencies=['wheels:one', 'wheels:two']",
            ELSEWHERE,
            "DockerNixError: The distributions of x:app cannot be in one environment: "
            "lib/python3.11/site-packages/shared/a.py is a file in one-1 and a file with other "
            "content in two-1.\n\nLeave one of the two out, or set "
            'python_layering="binary" on the target.',
            id="collision",
        ),
        pytest.param(
            "",
            'python_interpreter="/usr/bin/python"',
            "DockerNixError: The 'python_interpreter' field in target x:img is '/usr/bin/python', "
            "which does not say its version.\n\nLet it end in 'python3.11' or the like.",
            id="version",
        ),
        pytest.param(
            "",
            'from_image="base"',
            "DockerNixError: The modules of x:app cannot be compiled for the image x:img. Taking "
            "the Python of a base image failed.\n\nerror: the Python of the base image cannot "
            "compile modules here: PYTHON is no ELF file\n\nSet python_bytecode=False on the "
            "image.",
            id="bytecode",
        ),
    ],
)
def test_bad_input(bad: Repo, pex: str, image: str, error: str) -> None:
    entry_point = "" if "entry_point" in pex else 'entry_point="lib.main", '
    bad.write(
        "x/BUILD",
        f'pex_binary(name="app", {entry_point}{pex})\n'
        f'docker_nix_layered(name="img", contents=[":app"], {image})\n',
    )
    run = bad.pants("package", "x:img", check=False)
    text = run.stderr.partition("Exception encountered:\n")[2].partition("goal\n\n")[2].strip()
    assert re.sub(r"/nix/store/\S+python3.11", "PYTHON", text) == error
    assert run.exit_code == 1
    assert not (bad.root / "dist/x").exists()


def test_what_cannot_be_resolved(bad: Repo) -> None:
    bad.write(
        "x/BUILD",
        'pex_binary(name="app", dependencies=["wheels:none"])\n'
        f'docker_nix_layered(name="img", contents=[":app"], {ELSEWHERE})\n',
    )
    output = bad.pants("package", "x:img", check=False).output
    assert (
        "The distributions of x:app cannot be had for the Python of the image x:img, /usr" in output
    )
    assert "no-such-project-of-anybody" in output, "what Pex says of it"


def test_one_file_where_that_is_wanted(bad: Repo) -> None:
    bad.write(
        "x/BUILD",
        'pex_binary(name="app", entry_point="lib.main")\n'
        'docker_nix_layered(name="img", contents=[":app"])\n',
    )
    bad.pants("--docker-nix-python-layering=binary", "package", "x:img")
    paths = [info["path"] for layer in layers(bad, "x/img") for info in layer["store_paths"]]
    assert [path.partition("-")[2] for path in paths] == ["app"]


def complete_platform(machine: str) -> str:
    """What `pex3 interpreter inspect --markers --tags` prints on such a machine, in short."""
    linux = [f"manylinux_2_17_{machine}", f"manylinux2014_{machine}"]
    tags = [f"cp311-{abi}-{platform}" for abi in ("cp311", "abi3") for platform in linux]
    return json.dumps(
        {
            "marker_environment": {
                "implementation_name": "cpython",
                "implementation_version": "3.11.2",
                "os_name": "posix",
                "platform_machine": machine,
                "platform_python_implementation": "CPython",
                "platform_system": "Linux",
                "python_full_version": "3.11.2",
                "python_version": "3.11",
                "sys_platform": "linux",
            },
            "compatible_tags": [*tags, "py311-none-any", "py3-none-any"],
        }
    )


def test_other_platforms_from_wheels_alone(bad: Repo) -> None:
    machines = {"amd64": ("x86_64", 62), "arm64": ("aarch64", 183)}
    build = (
        "pex_binary(name='app', entry_point='lib.main', dependencies=['wheels:yaml'], "
        "complete_platforms=[':x86_64', ':aarch64'])\n"
    )
    for machine, _ in machines.values():
        bad.write(f"cross/{machine}.json", complete_platform(machine))
        build += f"file(name='{machine}', source='{machine}.json')\n"
    for architecture in machines:
        build += (
            f"docker_nix_layered(name='{architecture}', contents=[':app'], {ELSEWHERE}, "
            f"architecture='{architecture}', compression='none')\n"
        )
    bad.write("cross/BUILD", build)
    bad.pants("package", "cross:")
    sources = {}
    for architecture, (_, number) in machines.items():
        assert bad.info(f"cross/{architecture}")["docker_nix"]["platform"] == {
            "architecture": architecture,
            "os": "linux",
        }
        blobs = bad.root / "dist/cross" / architecture / "blobs/sha256"
        libraries = 0
        for layer in layers(bad, f"cross/{architecture}"):
            with tarfile.open(blobs / layer["digest"].partition(":")[2]) as tar:
                for member in tar:
                    assert not member.name.endswith(".pyc"), "no Python of that platform is here"
                    if member.name.endswith(".so"):
                        library = tar.extractfile(member)
                        assert library and library.read(20)[18] == number
                        libraries += 1
            for info in layer["store_paths"]:
                if info["path"].endswith("-python-sources"):
                    sources[architecture] = layer["digest"]
        assert libraries == 1
    # What is no different on the other platform is the same layer.
    assert sources["amd64"] == sources["arm64"]
