from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict

import pytest

from docker_nix.layer.tool import nix_cli
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.nix_cli import (
    Nix,
    NixFailed,
    log_tail,
    parse_registration,
    parse_version,
    registered_hash,
)

PLUGINS = str(Path(__file__).parents[3])
PATH = "/nix/store/00000000000000000000000000000000"


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("nix-store (Nix) 2.8.0\n", (2, 8)),
        ("nix-store (Nix) 2.24.10", (2, 24)),
        ("nix-store (Nix) 2.4pre20210707_02dd6bd", (2, 4)),
        ("nix-store (Lix, like Nix) 2.91.1", (2, 91)),
        ("nix-store (Determinate Nix 3.6.2) 2.29.0", (2, 29)),
        ("nix-store (Nix) 3.0", (3, 0)),
        ("something else", None),
        ("", None),
    ],
)
def test_versions(text: str, version: Any) -> None:
    assert parse_version(text) == version


def test_registrations() -> None:
    digest = "ab" * 32
    text = (
        f"{PATH}-a\n{digest}\n120\n{PATH}-a.drv\n2\n{PATH}-b\n{PATH}-a\n"
        f"{PATH}-b\n{digest}\n456\n\n0\n"
    )
    a, b = parse_registration(text)
    assert a == (f"{PATH}-a", f"sha256:{digest}", 120, [f"{PATH}-a", f"{PATH}-b"])
    assert b == (f"{PATH}-b", f"sha256:{digest}", 456, [])
    assert parse_registration("") == []


@pytest.mark.parametrize(
    "text",
    [
        f"{PATH}-a\n",
        f"{PATH}-a\n{'ab' * 32}\n1\n\nmany\n",
        f"{PATH}-a\n{'ab' * 32}\n1\n\n2\n{PATH}-b",
        f"{PATH}-a\nsha256:abc\n1\n\n0\n",
        f"{PATH}-a\n{'ab' * 32}\nbig\n\n0\n",
    ],
)
def test_what_is_no_registration(text: str) -> None:
    with pytest.raises(ToolError, match=f"no registration of {PATH}-a"):
        parse_registration(text)


def test_the_tail_of_a_log() -> None:
    text = "".join(f"line {number}\n" for number in range(100))
    assert log_tail(text) == [f"line {number}" for number in range(60, 100)]
    assert log_tail(
        "warning: you did not specify '--add-root'; the result might be removed\n"
        "warning: error: unable to download 'x': no host (6); retrying in 346 ms\n"
        "\x1b[31;1merror:\x1b[0m it failed\r\n\n   at \x1b[35m/a\x1b[0m\n"
        "(use '--show-trace' to show detailed location information)\n"
    ) == ["error: it failed", "   at /a"]


class Fake:
    """Programs that answer as the test says, and are what Nix consists of."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.setattr(nix_cli, "_USUAL_PLACES", ())
        self.env: Dict[str, str] = {"PATH": f"relative::{folder}:/usr/bin"}
        monkeypatch.setattr(nix_cli, "read_access", lambda: {"nix_env": self.env})

    def program(self, name: str, script: str) -> None:
        (self.folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.folder / name).chmod(0o755)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    (tmp_path / "bin").mkdir()
    monkeypatch.chdir(tmp_path)
    return Fake(tmp_path / "bin", monkeypatch)


def test_nix_that_is_not_there(fake: Fake) -> None:
    fake.env["PATH"] = str(fake.folder)
    with pytest.raises(ToolError, match=r"^there is no Nix on PATH, .* Install Nix 2\.4 or newer"):
        Nix(".")
    (fake.folder / "nix-store").mkdir()
    with pytest.raises(ToolError, match="^there is no Nix on PATH"):
        Nix(".")
    assert registered_hash(f"{PATH}-a") is None


def test_nix_of_a_profile(fake: Fake) -> None:
    fake.env.update(PATH="/nothing", HOME=str(fake.folder.parent))
    (fake.folder.parent / ".nix-profile").symlink_to(".")
    fake.program("nix-store", "echo 'nix-store (Nix) 2.8.0'")
    Nix(".")


@pytest.mark.parametrize("said", ["nix-store (Nix) 2.3.16", "hello"])
def test_an_old_nix(fake: Fake, said: str) -> None:
    fake.program("nix-store", f"echo '{said}'")
    with pytest.raises(ToolError, match="and Nix 2.4 or newer is needed"):
        Nix(".")


def test_what_a_failed_command_said(fake: Fake) -> None:
    fake.program(
        "nix-store",
        '[ "$1" = --version ] && echo "(Nix) 2.8" && exit; '
        "i=0; while [ $i -lt 9000 ]; do echo noise $i >&2; i=$((i+1)); done; "
        "printf 'error: \\377 bad\\n' >&2; exit 3",
    )
    with pytest.raises(NixFailed, match="^`nix-store` failed$") as failed:
        Nix(".").run("nix-store", "--realise")
    assert len(failed.value.details) == 40
    assert failed.value.details[-2:] == ["noise 8999", "error: � bad"]


def test_a_program_that_cannot_be_run(fake: Fake) -> None:
    (fake.folder / "nix-store").write_text("no program")
    (fake.folder / "nix-store").chmod(0o755)
    with pytest.raises(ToolError, match="^cannot run .*/nix-store: Exec format error"):
        Nix(".")


def test_the_environment(fake: Fake) -> None:
    fake.env["NIX_CONFIG"] = "a = b"
    fake.program("nix-store", '[ "$1" = --version ] && echo "(Nix) 2.8" && exit; env')
    env = Nix(".").run("nix-store").split("\n")
    assert {"NIX_CONFIG=a = b", "NO_COLOR=1", f"PATH={fake.env['PATH']}"} <= {*env}
    assert not any(line.startswith("PYTEST") for line in env)
    assert "PYTEST_CURRENT_TEST" in os.environ


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="macOS has no death signal")
def test_nix_can_clean_up_when_the_tool_is_killed(fake: Fake, tmp_path: Path) -> None:
    fake.program(
        "nix-store",
        '[ "$1" = --version ] && echo "(Nix) 2.8" && exit; '
        "trap 'touch ended; exit 1' TERM; touch started; while :; do sleep 0.05; done",
    )
    code = (
        f"import sys; sys.path.insert(0, {PLUGINS!r}); "
        "from docker_nix.layer.tool import nix_cli; "
        f"nix_cli.read_access = lambda: {{'nix_env': {fake.env!r}}}; "
        "nix_cli.Nix('.').run('nix-store', '--realise')"
    )
    tool = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        _wait_for(tmp_path / "started")
    finally:
        os.killpg(tool.pid, 9)
        tool.wait()
    _wait_for(tmp_path / "ended")


def _wait_for(file: Path) -> None:
    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline, f"no {file}"
        time.sleep(0.02)
