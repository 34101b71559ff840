from __future__ import annotations

from docker_nix.layer.links import Entry
from docker_nix.resolve.python.distribution import Distribution, dependencies
from docker_nix.resolve.python.interpreter import Interpreter

PYTHON = Interpreter("/usr/bin/python3.11", "3.11", "amd64", "glibc")


def distribution(name: str, *requires: str, entries: tuple[Entry, ...] = ()) -> Distribution:
    return Distribution(name, "1.0", requires, (), (), (), entries)


def test_from_an_index() -> None:
    entries = [["f", "a", 3, "00"], ["x", "b", 0, "11"], ["l", "c", "a"], ["d", "e"]]
    one = Distribution.from_json(
        {
            "name": "My_Project.x",
            "version_of_project": "1.0",
            "requires": ["b"],
            "tags": ["py3-none-any"],
            "console_scripts": {"z": "m:f", "a": "m:g"},
            "scripts": {"a": "text"},
            "entries": entries,
        }
    )
    assert (one.project, one.title) == ("my-project-x", "my-project-x-1.0")
    assert one.console_scripts == (("a", "m:g"), ("z", "m:f"))
    assert one.entries == (
        Entry("f", "a", sha256="00", size=3),
        Entry("x", "b", sha256="11", size=0),
        Entry("l", "c", target="a"),
        Entry("d", "e"),
    )


def test_the_content_hash_is_of_what_is_in_it() -> None:
    a, b = Entry("f", "a", sha256="0", size=1), Entry("f", "b", sha256="1", size=1)
    one = distribution("x", entries=(a, b))
    assert one.content_hash() == distribution("x", entries=(b, a)).content_hash()
    assert one.content_hash() != distribution("x", entries=(a,)).content_hash()
    executable = Entry("x", "a", sha256="0", size=1)
    assert one.content_hash() != distribution("x", entries=(executable, b)).content_hash()


def test_dependencies_among_the_given() -> None:
    found = dependencies(
        [
            distribution("Web_App", "flask>=2", "absent", "web-app[extra]"),
            distribution(
                "Flask",
                "MarkupSafe (>=2)",
                'importlib-metadata; python_version < "3.10"',
                'dotenv; extra == "dotenv"',
                'colorama; sys_platform == "win32"',
                'uvloop; platform_machine == "x86_64" and implementation_name == "cpython"',
            ),
            distribution("markupsafe"),
            distribution("importlib.metadata"),
            distribution("dotenv"),
            distribution("colorama"),
            distribution("uvloop", "this is no requirement"),
        ],
        PYTHON,
    )
    assert found == {
        "colorama": (),
        "dotenv": (),
        "flask": ("markupsafe", "uvloop"),
        "importlib-metadata": (),
        "markupsafe": (),
        "uvloop": (),
        "web-app": ("flask",),
    }


def test_circles_are_no_dependencies() -> None:
    found = dependencies(
        [
            distribution("sphinx", "plugin", "docutils"),
            distribution("plugin", "helper"),
            distribution("helper", "sphinx", "six"),
            distribution("docutils"),
            distribution("six"),
            distribution("top", "helper"),
        ],
        PYTHON,
    )
    assert found["sphinx"] == ("docutils",)
    assert found["plugin"] == ()
    assert found["helper"] == ("six",)
    assert found["top"] == ("helper",)


def test_a_long_chain() -> None:
    chain = [distribution(f"p{n}", f"p{n + 1}") for n in range(3000)]
    assert dependencies(chain, PYTHON)["p0"] == ("p1",)
