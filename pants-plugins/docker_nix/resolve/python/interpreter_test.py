from __future__ import annotations

from typing import Dict, Optional, Tuple

import pytest

from docker_nix.resolve.python.interpreter import (
    DEFAULT_PATH,
    Interpreter,
    interpreter_at,
    interpreters_among,
    interpreters_on,
    libc_of,
    misfit,
)


class Files:
    """A base image with files (None) and symlinks (their texts)."""

    def __init__(self, **files: Optional[str]) -> None:
        self.files: Dict[str, Optional[str]] = files

    def what(self, path: str) -> Optional[str]:
        if path not in self.files:
            return None
        return "a file" if self.files[path] is None else "a symlink"

    def symlink(self, path: str) -> Optional[str]:
        return self.files.get(path)

    def directory(self, path: str) -> Optional[Tuple[int, int, int]]:
        return None

    def owner(self, path: str) -> Optional[Tuple[int, int]]:
        return None


def files(**more: Optional[str]) -> Files:
    return Files(
        **{
            "bin": "usr/bin",
            "lib64": "usr/lib64",
            "usr/lib64/ld-linux-x86-64.so.2": None,
            "usr/bin/python3": "python3.11",
            "usr/bin/python3.11": None,
            "usr/bin/python3.9": None,
            **more,
        }
    )


def test_what_python3_is_comes_first() -> None:
    found = interpreters_on(files(), DEFAULT_PATH, "amd64")
    # /bin is the same directory, whose programs were found already.
    assert [(one.path, one.version) for one in found] == [
        ("/usr/bin/python3.11", "3.11"),
        ("/usr/bin/python3.9", "3.9"),
    ]
    assert {one.libc for one in found} == {"glibc"}
    assert all(one.in_base for one in found)


def test_directories_in_the_order_of_the_search_path() -> None:
    image = files(
        **{
            "usr/local/bin/python3": "/opt/python/bin/python3.12",
            "opt/python/bin/python3.12": None,
            "bin/python3.13": None,
        }
    )
    found = interpreters_on(image, "relative:/usr/local/bin:/nowhere:/usr/bin", "amd64")
    # It is called python3 there, so that is its path.
    assert [one.path for one in found] == [
        "/usr/local/bin/python3",
        "/usr/bin/python3.11",
        "/usr/bin/python3.9",
    ]
    assert found[0].version == "3.12"


def test_one_at_a_given_path() -> None:
    one = interpreter_at(files(), "/bin/python3", "amd64")
    assert one == Interpreter("/bin/python3", "3.11", "amd64", "glibc", in_base=True)
    assert interpreter_at(files(), "/bin/python4", "amd64") is None
    assert interpreter_at(files(**{"opt/py": None}), "/opt/py", "amd64") is None, "which version?"
    assert interpreter_at(files(**{"a": "b", "b": "a"}), "/a/python3.11", "amd64") is None


def test_the_c_library() -> None:
    assert libc_of(files()) == "glibc"
    assert libc_of(Files(**{"lib/ld-musl-x86_64.so.1": None})) == "musl"
    assert libc_of(Files()) is None


def test_interpreters_among_store_paths() -> None:
    paths = ["bin/python3", "bin/python3.11", "bin/python3.11-config", "lib/python3.11/os.py"]
    (one,) = interpreters_among(
        [("/nix/store/x-doc", ["a"]), ("/nix/store/y-python", paths)], "arm64"
    )
    assert (one.path, one.version) == ("/nix/store/y-python/bin/python3.11", "3.11")
    assert (one.store_path, one.in_base) == ("/nix/store/y-python", False)


def test_what_follows_from_it() -> None:
    one = Interpreter("/usr/bin/python3.11", "3.11", "arm64", "musl")
    assert one.site_packages == "lib/python3.11/site-packages"
    assert one.cache_tag == "cpython-311"
    assert one.markers["platform_machine"] == "aarch64"
    assert str(one) == "/usr/bin/python3.11 (CPython 3.11, aarch64, musl)"


GLIBC = Interpreter("/usr/bin/python3.11", "3.11", "amd64", "glibc")
MUSL = Interpreter("/usr/bin/python3.11", "3.11", "amd64", "musl")
UNKNOWN = Interpreter("/opt/python3.11", "3.11", "amd64")
OLD = Interpreter("/usr/bin/python3.7", "3.7", "amd64", "glibc")


@pytest.mark.parametrize(
    "interpreter, tags",
    [
        (GLIBC, []),
        (GLIBC, ["py3-none-any"]),
        (GLIBC, ["py2-none-any", "py3-none-any"]),
        (GLIBC, ["py310-none-any"]),
        (GLIBC, ["cp311-none-any"]),
        (GLIBC, ["cp311-cp311-manylinux_2_17_x86_64"]),
        (GLIBC, ["cp311-cp311-manylinux2014_x86_64", "cp311-cp311-musllinux_1_2_x86_64"]),
        (GLIBC, ["cp37-abi3-manylinux1_x86_64"]),
        (GLIBC, ["cp311-cp311-linux_x86_64"]),
        (GLIBC, ["py3-none-manylinux_2_5_x86_64"]),
        (MUSL, ["cp311-cp311-musllinux_1_2_x86_64"]),
        (UNKNOWN, ["cp311-cp311-musllinux_1_2_x86_64"]),
        (UNKNOWN, ["cp311-cp311-manylinux_2_17_x86_64"]),
        (OLD, ["cp37-cp37m-manylinux1_x86_64"]),
    ],
)
def test_tags_that_fit(interpreter: Interpreter, tags: list[str]) -> None:
    assert misfit(tags, interpreter) is None


@pytest.mark.parametrize(
    "interpreter, tags, reason",
    [
        (GLIBC, ["cp39-cp39-manylinux_2_17_x86_64"], "its ABI is cp39-cp39"),
        (GLIBC, ["cp311-cp311t-manylinux_2_17_x86_64"], "its ABI is cp311-cp311t"),
        (GLIBC, ["cp312-abi3-manylinux_2_17_x86_64"], "its ABI is cp312-abi3"),
        (GLIBC, ["py312-none-any"], "its ABI is py312-none"),
        (GLIBC, ["cp39-none-any"], "its ABI is cp39-none"),
        (GLIBC, ["py2-none-any"], "it is for py2"),
        (GLIBC, ["pp39-pypy39_pp73-manylinux_2_17_x86_64"], "it is for pp39"),
        (GLIBC, ["cp311-cp311-manylinux_2_17_aarch64"], "it is for manylinux_2_17_aarch64"),
        (GLIBC, ["cp311-cp311-macosx_11_0_arm64"], "it is for macosx_11_0_arm64"),
        (GLIBC, ["cp311-cp311-win_amd64"], "it is for win_amd64"),
        (
            GLIBC,
            ["cp311-cp311-musllinux_1_2_x86_64"],
            "it is for musllinux_1_2_x86_64, which needs musl",
        ),
        (
            MUSL,
            ["cp311-cp311-manylinux_2_17_x86_64"],
            "it is for manylinux_2_17_x86_64, which needs glibc",
        ),
    ],
)
def test_tags_that_do_not_fit(interpreter: Interpreter, tags: list[str], reason: str) -> None:
    assert misfit(tags, interpreter) == reason
