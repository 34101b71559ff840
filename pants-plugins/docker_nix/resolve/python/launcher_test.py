from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict

import pytest

from docker_nix.resolve.python.launcher import EntryPoint, EnvironmentScript, Launcher

MODULE = """\
import json, os, sys

class Main:
    @staticmethod
    def run():
        report()
        return 3

def report():
    print(json.dumps([__name__, sys.argv[1:], sys.path[0], dict(os.environ)]))

if __name__ == "__main__":
    report()
"""


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "it's sources"
    (folder / "pkg").mkdir(parents=True)
    (folder / "pkg/__init__.py").write_text("")
    (folder / "pkg/main.py").write_text(MODULE)
    return folder


def start(
    tmp_path: Path, launcher: Launcher, *args: str, **env: str
) -> "subprocess.CompletedProcess[str]":
    program = tmp_path / "bin" / "app"
    program.parent.mkdir(exist_ok=True)
    program.write_text(launcher.text())
    command = [sys.executable, "-s", str(program), *args]
    return subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True)


def report(tmp_path: Path, launcher: Launcher, *args: str, **env: str) -> Any:
    done = start(tmp_path, launcher, *args, **env)
    return [done.returncode, *json.loads(done.stdout)]


def make(sources: Path, **fields: Any) -> Launcher:
    fields = {"main": EntryPoint("pkg.main"), **fields}
    return Launcher(sys.executable, str(sources), **fields)


def test_a_module(tmp_path: Path, sources: Path) -> None:
    launcher = make(
        sources, args=("--x", 'it\'s "ünïcödé"\n'), env=(("MODE", "a'b"), ("SET", "here"))
    )
    status, name, args, first, env = report(tmp_path, launcher, "last", SET="outside", PEX_X="1")
    assert (status, name, args) == (0, "__main__", ["--x", 'it\'s "ünïcödé"\n', "last"])
    assert first == str(sources)
    assert (env["MODE"], env["SET"], env.get("PEX_X")) == ("a'b", "outside", None)
    assert "PYTHONPATH" not in env


def test_a_function(tmp_path: Path, sources: Path) -> None:
    launcher = make(sources, main=EntryPoint("pkg.main", "Main.run"), strip_pex_env=False)
    status, name, args, _, env = report(tmp_path, launcher, "a", PEX_X="1")
    assert (status, name, args, env["PEX_X"]) == (3, "pkg.main", ["a"], "1")


def test_what_python_path_counts_for(tmp_path: Path, sources: Path) -> None:
    other = tmp_path / "other"
    (other / "extra").mkdir(parents=True)
    (other / "extra/__init__.py").write_text("")
    (sources / "pkg/main.py").write_text("import extra; print('found')\n")
    done = start(tmp_path, make(sources), PYTHONPATH=str(other))
    assert done.returncode == 1 and not done.stdout
    done = start(tmp_path, make(sources, isolated=False), PYTHONPATH=str(other))
    assert done.stdout == "found\n"


def test_children_find_the_sources_where_asked(tmp_path: Path, sources: Path) -> None:
    env: Dict[str, str] = report(tmp_path, make(sources, for_children=True), PYTHONPATH="/x")[4]
    assert env["PYTHONPATH"] == str(sources)
    launcher = make(sources, for_children=True, isolated=False)
    env = report(tmp_path, launcher, PYTHONPATH="/x")[4]
    assert env["PYTHONPATH"] == f"{sources}{os.pathsep}/x"


def test_scripts_of_the_environment(tmp_path: Path, sources: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/wrong\nimport sys, pkg.main; print(__name__, sys.argv)\n")
    done = start(tmp_path, make(sources, main=EnvironmentScript(str(script), True)), "a")
    assert done.stdout == f"__main__ ['{script}', 'a']\n"
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\necho "$0" "$@"\n')
    program.chmod(0o755)
    launcher = make(sources, main=EnvironmentScript(str(program), False), args=("first",))
    assert start(tmp_path, launcher, "a b").stdout == f"{program} first a b\n"


def test_an_interpreter(tmp_path: Path, sources: Path) -> None:
    program = "import pkg.main, sys; print(sys.argv)"
    done = start(tmp_path, make(sources, main=None), "-c", program, "a")
    assert done.stdout == "['-c', 'a']\n"


def test_it_does_nothing_where_it_is_imported(tmp_path: Path, sources: Path) -> None:
    program = tmp_path / "app.py"
    program.write_text(make(sources).text())
    command = [sys.executable, "-c", "import app, sys; print('no main')"]
    assert subprocess.check_output(command, cwd=tmp_path, text=True) == "no main\n"


def test_a_directory_of_the_program_that_is_not_on_the_path(tmp_path: Path, sources: Path) -> None:
    if sys.version_info >= (3, 11):
        assert report(tmp_path, make(sources), PYTHONSAFEPATH="1")[3] == str(sources)
    text = make(sources, strip_pex_env=False).text()
    assert "safe_path" in text and text.startswith(f"#!{sys.executable}\n")
