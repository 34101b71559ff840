from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from docker_nix.layer.tool.testing import install_tool, run_tool

NAME = "0123456789abcdfghijklmnpqrsvwxyz-größe"


@pytest.fixture
def start(tmp_path: Path) -> Path:
    return install_tool(tmp_path / "tool with a space")


@pytest.fixture
def sandbox(tmp_path: Path) -> Path:
    directory = tmp_path / "sandbox"
    (directory / "in" / NAME).mkdir(parents=True)
    (directory / "in" / NAME / "日本").write_bytes(b"content" * 300_000)
    _write_spec(directory, [["f", "日本"]])
    return directory


def _write_spec(sandbox: Path, entries: list[list[str]], **fields: Any) -> None:
    path = {"name": NAME, "source": "tree", "entries": entries}
    spec = {"compression": "gzip", "paths": [path], "root": None, **fields}
    (sandbox / "spec.json").write_text(json.dumps(spec))


def _interpreters() -> list[str]:
    """This one, and every CPython on PATH that the tool is for, and that starts."""
    found = [sys.executable]
    for minor in range(8, 20):
        python = shutil.which(f"python3.{minor}")
        if python is None:
            continue
        result = subprocess.run(
            [python, "-c", "import sys; print(sys.executable)"], capture_output=True, text=True
        )
        if result.returncode == 0:
            found.append(result.stdout.strip())
    return found


def test_every_python_gives_the_same_bytes(start: Path, sandbox: Path) -> None:
    outputs = set()
    for python in _interpreters():
        for threads in ("1", "2"):
            result = run_tool(
                start, sandbox, "pack", "--threads", threads, "spec.json", python=python
            )
            assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
            outputs.add(
                ((sandbox / "layer.blob").read_bytes(), (sandbox / "layer.json").read_text())
            )
            (sandbox / "layer.blob").unlink()
    ((blob, _),) = outputs
    assert b"content" * 300_000 in gzip.decompress(blob)


def test_the_tool_directory_may_be_read_only(start: Path, sandbox: Path) -> None:
    before = sorted(start.parent.rglob("*"))
    assert run_tool(start, sandbox, "pack", "--threads", "1", "spec.json").returncode == 0
    assert sorted(start.parent.rglob("*")) == before


def test_errors_are_one_line(start: Path, sandbox: Path) -> None:
    _write_spec(sandbox, [["f", "no such\nfile"]])
    result = run_tool(start, sandbox, "pack", "--threads", "2", "spec.json")
    assert result.returncode == 1
    assert result.stderr == (
        f"error: cannot read in/{NAME}/no such\\nfile: No such file or directory\n"
    )
    assert not (sandbox / "layer.blob").exists()


def test_details_of_an_error_are_lines(start: Path, sandbox: Path) -> None:
    pack = start.parent / "tool/docker_nix/layer/tool/pack.py"
    lines = ["first\tline", "second \x1b[0m"]
    pack.write_text(
        "from docker_nix.layer.tool.errors import ToolError\n"
        f"def main(args, lib_dir): raise ToolError('it\\nfailed', {lines!r})\n"
    )
    result = run_tool(start, sandbox, "pack")
    assert result.returncode == 1
    assert result.stderr == "error: it\\nfailed\nfirst   line\nsecond \\x1b[0m\n"


@pytest.mark.parametrize("args", [[], ["unpack"]])
def test_unknown_commands(args: list[str], start: Path, sandbox: Path) -> None:
    result = run_tool(start, sandbox, *args)
    assert result.returncode == 1
    assert result.stderr.startswith("error: unknown command ")


def test_a_missing_spec(start: Path, sandbox: Path) -> None:
    result = run_tool(start, sandbox, "pack", "--threads", "1", "missing.json")
    assert result.returncode == 1
    assert result.stderr == "error: missing.json: No such file or directory\n"


def test_an_old_python(start: Path, sandbox: Path) -> None:
    cli = start.parent / "tool" / "docker_nix" / "layer" / "tool" / "cli.py"
    cli.write_text(cli.read_text().replace("MINIMUM_PYTHON = (3, 8)", "MINIMUM_PYTHON = (4, 0)"))
    result = run_tool(start, sandbox, "pack", "--threads", "1", "spec.json")
    assert result.returncode == 1
    assert "error: the layer tool needs Python 4.0 or newer" in result.stderr
    assert "set [docker-nix].python" in result.stderr


def _fake_python(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('#!/bin/sh\necho "$0"\n')
    path.chmod(0o755)


def test_the_chosen_interpreter_comes_first(start: Path, sandbox: Path) -> None:
    _fake_python(sandbox / ".docker-nix-cache" / "my python")
    result = run_tool(start, sandbox, "pack", python=".docker-nix-cache/my python")
    assert result.stdout == ".docker-nix-cache/my python\n"


def test_a_chosen_interpreter_that_is_gone(start: Path, sandbox: Path) -> None:
    script = start.read_text()
    _fake_python(sandbox / "usual")
    start.write_text(script.replace("/usr/bin/python3 /usr", f"'{sandbox}/usual' /usr"))
    assert run_tool(start, sandbox, python="/no/python3").stdout == f"{sandbox}/usual\n"
    shutil.rmtree(sandbox / ".docker-nix-cache")
    result = subprocess.run(
        ["/bin/sh", str(start)], cwd=sandbox, env={}, capture_output=True, text=True
    )
    assert result.stdout == f"{sandbox}/usual\n"


def test_no_interpreter(start: Path, sandbox: Path) -> None:
    text = start.read_text()
    for place in ("/usr/bin/", "/usr/local/bin/", "/opt/homebrew/bin/", "/run/current-system/sw/"):
        assert place in text
        text = text.replace(f"{place}", "/no/such/place/")
    start.write_text(text)
    result = run_tool(start, sandbox, python="/no/python3")
    assert result.returncode == 127
    assert "install Python 3.8 or newer" in result.stderr
    assert "[docker-nix].python" in result.stderr


def test_an_interpreter_named_without_a_newline(start: Path, sandbox: Path) -> None:
    _fake_python(sandbox / "bin" / "py")
    chosen = sandbox / ".docker-nix-cache" / "interpreter"
    chosen.parent.mkdir()
    chosen.write_text("bin/py")
    result = subprocess.run(
        ["/bin/sh", str(start)], cwd=sandbox, env={}, capture_output=True, text=True
    )
    assert result.stdout == "bin/py\n"


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_memory_does_not_grow_with_a_file(start: Path, sandbox: Path, compression: str) -> None:
    """Two GB of a sparse file take less than 64 MB of memory."""
    with open(sandbox / "in" / NAME / "large", "wb") as file:
        file.truncate(2_000_000_000)
    _write_spec(sandbox, [["f", "large"]], compression=compression)
    measured = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], env={}); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(done.returncode)"
    )
    result = subprocess.run(
        [sys.executable, "-c", measured, "/bin/sh", str(start)]
        + ["pack", "--threads", "2", "spec.json"],
        cwd=sandbox,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(result.stdout) * unit < 64_000_000
    packed = json.loads((sandbox / "layer.json").read_text())
    assert packed["diff_size"] > 2_000_000_000
