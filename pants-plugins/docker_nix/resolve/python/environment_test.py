from __future__ import annotations

from typing import Dict, Tuple

import pytest

from docker_nix.layer.links import Entry
from docker_nix.resolve.python.distribution import Distribution
from docker_nix.resolve.python.environment import (
    EnvironmentCollision,
    Installed,
    Script,
    SymlinkTo,
    Tree,
    merged,
    script_text,
    virtual_environment,
)
from docker_nix.resolve.python.interpreter import Interpreter

PYTHON = Interpreter("/usr/bin/python3.11", "3.11", "amd64")
SITE = PYTHON.site_packages


def installed(
    name: str, files: Dict[str, str], scripts: Tuple[Tuple[str, str], ...] = ()
) -> Installed:
    entries = []
    for path, content in files.items():
        if content.startswith("-> "):
            entries.append(Entry("l", path, target=content[3:]))
        elif path.endswith("/"):
            entries.append(Entry("d", path[:-1]))
        else:
            kind = "x" if content == "executable" else "f"
            entries.append(Entry(kind, path, sha256=content, size=len(content)))
    distribution = Distribution(name, "1", (), (), (), scripts, tuple(entries))
    return Installed(distribution, f"/nix/store/{name}")


def links(tree: Tree) -> Dict[str, str]:
    return {path: node.target for path, node in tree.items() if isinstance(node, SymlinkTo)}


def test_a_directory_of_one_distribution_is_one_link() -> None:
    tree = merged(
        [
            installed(
                "flask",
                {
                    f"{SITE}/flask/__init__.py": "1",
                    f"{SITE}/flask/json/tag.py": "2",
                    f"{SITE}/flask-1.dist-info/METADATA": "3",
                    "share/man/flask.1": "4",
                    "bin/native": "executable",
                },
            )
        ],
        PYTHON,
        compiled=False,
    )
    assert links(tree) == {
        f"{SITE}/flask": f"/nix/store/flask/{SITE}/flask",
        f"{SITE}/flask-1.dist-info": f"/nix/store/flask/{SITE}/flask-1.dist-info",
        "share": "/nix/store/flask/share",
        "bin/native": "/nix/store/flask/bin/native",
    }


def test_namespace_packages_are_merged() -> None:
    tree = merged(
        [
            installed(
                "a", {f"{SITE}/zope/event/__init__.py": "1", f"{SITE}/zope/__init__.py": "ns"}
            ),
            installed("b", {f"{SITE}/zope/interface/x.py": "2", f"{SITE}/zope/__init__.py": "ns"}),
            installed("c", {f"{SITE}/c-nspkg.pth": "3", f"{SITE}/zope/empty/": ""}),
        ],
        PYTHON,
        compiled=True,
    )
    zope = f"{SITE}/zope"
    assert links(tree) == {
        f"{zope}/event": f"/nix/store/a/{zope}/event",
        f"{zope}/interface": f"/nix/store/b/{zope}/interface",
        f"{zope}/empty": f"/nix/store/c/{zope}/empty",
        f"{zope}/__init__.py": f"/nix/store/a/{zope}/__init__.py",
        f"{zope}/__pycache__/__init__.cpython-311.pyc": (
            f"/nix/store/a/{zope}/__pycache__/__init__.cpython-311.pyc"
        ),
        f"{SITE}/c-nspkg.pth": f"/nix/store/c/{SITE}/c-nspkg.pth",
    }


def test_modules_at_the_top_have_their_bytecode() -> None:
    six = installed("six", {f"{SITE}/six.py": "1"})
    typing = installed(
        "typing", {f"{SITE}/t.py": "2", f"{SITE}/__pycache__/t.cpython-311.pyc": "its own"}
    )
    tree = merged([six, typing], PYTHON, compiled=True)
    cache = f"{SITE}/__pycache__"
    assert links(tree)[f"{cache}/six.cpython-311.pyc"].startswith("/nix/store/six/")
    assert links(tree)[f"{cache}/t.cpython-311.pyc"].startswith("/nix/store/typing/")
    assert not any(
        "__pycache__" in path for path in merged([six, typing], PYTHON, False) if "six" in path
    )


def test_scripts_are_written_for_the_environment() -> None:
    one = installed("flask", {f"{SITE}/flask.py": "1"}, (("flask", "import flask\n"),))
    same = installed("fork", {f"{SITE}/fork.py": "1"}, (("flask", "import flask\n"),))
    tree = merged([one, same], PYTHON, compiled=False)
    assert tree["bin/flask"] == Script("import flask\n")
    assert script_text(Script("# caf\udce9\n"), "/e/bin/python") == b"#!/e/bin/python\n# caf\xe9\n"


@pytest.mark.parametrize(
    "first, second, message",
    [
        (
            {"a/x": "1"},
            {"a/x": "2"},
            "a/x is a file in one-1 and a file with other content in two-1",
        ),
        ({"a": "1"}, {"a/x": "2"}, "a is a file in one-1 and a directory in two-1"),
        ({"a/x": "1"}, {"a": "2"}, "a is a file in two-1 and a directory in one-1"),
        ({"a": "1"}, {"a": "executable"}, "a is a file in one-1 and an executable file in two-1"),
        ({"a": "-> b"}, {"a": "-> c"}, "a is a symlink to b in one-1 and a symlink to c in two-1"),
        ({"a": "-> b"}, {"a/x": "1"}, "a is a symlink to b in one-1 and a directory in two-1"),
    ],
)
def test_collisions_name_both(first: Dict[str, str], second: Dict[str, str], message: str) -> None:
    with pytest.raises(EnvironmentCollision) as raised:
        merged([installed("one", first), installed("two", second)], PYTHON, compiled=False)
    assert str(raised.value) == message


def test_scripts_collide_too() -> None:
    one = installed("one", {}, (("run", "1"),))
    two = installed("two", {}, (("run", "2"),))
    with pytest.raises(EnvironmentCollision, match="bin/run is an executable file in one-1 and"):
        merged([one, two], PYTHON, compiled=False)


def test_empty_directories() -> None:
    one = installed("one", {"share/x/": ""})
    two = installed("two", {"share/x/": "", "share/y": "1"})
    assert links(merged([one, two], PYTHON, False))["share/x"] == "/nix/store/one/share/x"
    full = installed("full", {"share/x/file": "1"})
    tree = links(merged([one, full], PYTHON, False))
    assert tree == {"share/x/file": "/nix/store/full/share/x/file"}


def test_it_is_a_virtual_environment() -> None:
    tree = virtual_environment(PYTHON)
    assert tree["pyvenv.cfg"] == (
        "home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.11\n"
    )
    assert tree["bin/python3.11"] == SymlinkTo("/usr/bin/python3.11")
    assert tree["bin/python"] == tree["bin/python3"] == SymlinkTo("python3.11")
