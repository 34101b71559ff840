from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from docker_nix.layer.tool import host_programs


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs are started where they are."""
    monkeypatch.setattr(host_programs, "PLACE", b"")


def test_a_dynamic_program_runs_with_its_own_loader(here: None) -> None:
    command = host_programs.command("bash")
    assert command and command[1] == "--library-path" and os.path.isfile(command[0])
    shown = subprocess.check_output([*command, "-c", "echo $BASH_VERSION"], env={}, text=True)
    assert shown[0].isdigit()


def test_a_static_program_runs_alone(here: None) -> None:
    command = host_programs.command("busybox")
    assert command == [os.path.realpath("/bin/busybox")]


def test_what_cannot_run_elsewhere_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert host_programs.command("no-such-program") is None
    (tmp_path / "script").write_text("#!/bin/sh\n")
    (tmp_path / "script").chmod(0o755)
    (tmp_path / "short").write_bytes(b"\x7fELF\2\1")
    (tmp_path / "short").chmod(0o755)
    monkeypatch.setattr(host_programs, "_PATH", (str(tmp_path),))
    monkeypatch.setattr(host_programs, "DIRECTORIES", (os.fsencode(tmp_path)[1:],))
    assert host_programs.command("script") is None
    assert host_programs.command("short") is None


def test_programs_outside_of_the_shared_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bash").symlink_to("/bin/bash")
    (tmp_path / "busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (tmp_path / "busybox").chmod(0o755)
    monkeypatch.setattr(host_programs, "_PATH", (str(tmp_path),))
    assert host_programs.command("bash") is not None, "it is what the link leads to"
    assert host_programs.command("busybox") is None


def test_functions_stand_in_for_what_is_missing(here: None) -> None:
    lines = host_programs.functions(["busybox", "sh", "no-such-program"])
    assert len(lines.splitlines()) == 2
    script = lines + "busybox echo 'a  b'; type sh"
    shown = subprocess.check_output(["/bin/sh", "-c", script], env={"PATH": "/nowhere"}, text=True)
    assert shown.startswith("a  b\n") and "function" in shown
    shown = subprocess.check_output(["/bin/sh", "-c", script], env={"PATH": "/bin"}, text=True)
    assert "function" not in shown
