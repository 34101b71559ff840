from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from docker_nix.layer.tool.bytecode import compile_modules
from docker_nix.layer.tool.errors import ToolError

TAG = sys.implementation.cache_tag


@pytest.fixture
def runtime(tmp_path: Path) -> str:
    """This interpreter, with the standard library it has; no loader is named, as if static."""
    runtime = tmp_path / "runtime"
    (runtime / "prefix").mkdir(parents=True)
    program = runtime / "python"
    program.write_text(f'#!/bin/sh\nPYTHONHOME={sys.base_prefix} exec {sys.executable} "$@"\n')
    program.chmod(0o755)
    return str(runtime)


def make_tree(directory: Path) -> list[list[str]]:
    (directory / "pkg").mkdir(parents=True)
    (directory / "pkg/__init__.py").write_text('X = {"a", "b", "c"}\nY = 1\n')
    (directory / "pkg/latin.py").write_bytes(b"# -*- coding: latin-1 -*-\nX = '\xe9'\n")
    (directory / "broken.py").write_text("def (:\n")
    (directory / "nul.py").write_bytes(b"x = 1\0\n")
    (directory / "data.txt").write_text("x = 1\n")
    (directory / "0").write_text("top = 1\n")
    return [
        ["f", "broken.py"],
        ["f", "data.txt"],
        ["f", "nul.py"],
        ["f", "pkg/__init__.py"],
        ["x", "pkg/latin.py"],
        ["f", "top.py", "0"],  # a file that is called something else on disk
        ["l", "link.py", "top.py"],
    ]


def test_modules_get_bytecode_that_is_never_checked(tmp_path: Path, runtime: str) -> None:
    tree = tmp_path / "tree"
    manifest = make_tree(tree)
    result = compile_modules(manifest, str(tree), str(tmp_path / "scratch"), TAG, runtime)
    assert result[: len(manifest)] == manifest
    compiled = {path: place for kind, path, place in result[len(manifest) :] if kind == "f"}
    assert set(compiled) == {
        f"pkg/__pycache__/__init__.{TAG}.pyc",
        f"pkg/__pycache__/latin.{TAG}.pyc",
        f"__pycache__/top.{TAG}.pyc",
    }
    for place in compiled.values():
        content = (tree / place).read_bytes()
        assert content[:4] == importlib.util.MAGIC_NUMBER
        assert content[4:8] == b"\1\0\0\0", "PEP 552: hash-based, and not checked"
    source = (tree / "pkg/latin.py").read_bytes()
    content = (tree / compiled[f"pkg/__pycache__/latin.{TAG}.pyc"]).read_bytes()
    assert content[8:16] == importlib.util.source_hash(source)

    # Python takes it, whatever the source says by now.
    cache = tree / "pkg/__pycache__"
    cache.mkdir()
    os.rename(tree / compiled[f"pkg/__pycache__/__init__.{TAG}.pyc"], cache / f"__init__.{TAG}.pyc")
    (tree / "pkg/__init__.py").write_text("Y = 2\n")
    command = [sys.executable, "-B", "-c", "import pkg; print(pkg.Y)"]
    assert subprocess.check_output(command, cwd=tree, text=True) == "1\n"


def test_the_same_bytes_every_time(tmp_path: Path, runtime: str) -> None:
    made = []
    for number, variable in enumerate(("PYTHONHASHSEED", "PYTHONOPTIMIZE")):
        tree = tmp_path / f"tree{number}"
        manifest = make_tree(tree)
        os.environ[variable] = "1"  # nothing of the environment counts
        try:
            result = compile_modules(manifest, str(tree), str(tree) + ".pyc", TAG, runtime)
        finally:
            del os.environ[variable]
        made.append(
            [
                (path, (tree / place).read_bytes())
                for _, path, *rest in result
                for place in rest
                if path.endswith(".pyc")
            ]
        )
    assert made[0] == made[1] and made[0]


def test_bytecode_of_the_distribution_itself_stays(tmp_path: Path, runtime: str) -> None:
    (tmp_path / "a.py").write_text("")
    manifest = [["f", "a.py"], ["f", f"__pycache__/a.{TAG}.pyc"]]
    assert compile_modules(manifest, str(tmp_path), str(tmp_path / "s"), TAG, runtime) == manifest
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    "program, reason",
    [
        ("#!/bin/sh\necho first >&2; echo 'wrong machine' >&2; exit 3\n", "wrong machine"),
        ("#!/bin/sh\nexit 3\n", "it ended with 3"),
        ("#!/no/such/program\n", "No such file or directory"),
    ],
)
def test_an_interpreter_that_does_not_run(tmp_path: Path, program: str, reason: str) -> None:
    (tmp_path / "python").write_text(program)
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "a.py").write_text("")
    with pytest.raises(ToolError, match=f"cannot be run on this machine: {reason}; set python_byt"):
        compile_modules([["f", "a.py"]], str(tmp_path), str(tmp_path / "s"), TAG, str(tmp_path))
