from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from docker_nix.layer.tool import libraries
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.libraries import load, platform
from docker_nix.layer.tool.testing import library_dir

MUSL, GLIBC = "/lib/ld-musl-aarch64.so.1", "/lib/ld-linux-aarch64.so.1"


@pytest.mark.parametrize(
    "system, machine, files, expected",
    [
        ("Linux", "x86_64", [], "linux-x86_64"),
        ("Linux", "aarch64", [GLIBC], "linux-arm64"),
        ("Linux", "aarch64", [MUSL], "linux_musl-arm64"),
        ("Linux", "aarch64", [GLIBC, MUSL], "linux-arm64"),
        ("Darwin", "arm64", [], "macos-arm64"),
        ("Darwin", "x86_64", [], "macos-x86_64"),
        ("FreeBSD", "amd64", [], "freebsd-x86_64"),
        ("Linux", "riscv64", [], "linux-riscv64"),
    ],
)
def test_platform(
    system: str, machine: str, files: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(sysname=system, machine=machine))
    monkeypatch.setattr(libraries, "_any_exists", lambda paths: any(p in files for p in paths))
    assert platform() == expected


def test_load() -> None:
    assert load("zstd", str(library_dir())).ZSTD_versionNumber() == 10507


def test_load_a_broken_library(tmp_path: Path) -> None:
    file = tmp_path / platform() / "deflate.so"
    file.parent.mkdir()
    file.write_text("not a library")
    with pytest.raises(ToolError, match=re.escape(f"for {platform()} cannot be loaded")):
        load("deflate", str(tmp_path))
