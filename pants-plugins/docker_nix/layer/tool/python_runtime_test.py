from __future__ import annotations

import io
import json
import os
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from docker_nix.layer.tool import python_runtime
from docker_nix.layer.tool.elf_test import make
from docker_nix.layer.tool.errors import ToolError

Members = dict[str, "bytes | str | None"]  # files, symlinks, whiteouts


def elf_file(*needed: str, search_path: str = "") -> bytes:
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in (*needed, search_path))
    tags, at = [], 1
    for name in needed:
        tags.append((1, at))
        at += len(name) + 1
    return make(True, "<", [*tags, (29, at), (5, 0x1000), (10, len(strings))], strings)


def with_loader(content: bytes, loader: str) -> bytes:
    """The file with one more segment, the name of its loader."""
    text = loader.encode() + b"\0"
    # One more segment does not fit where the table is, so the table moves to the end.
    table, at = content[64 : 64 + 2 * 56], len(content) + len(text)
    interp = struct.pack("<II6Q", 3, 0, len(content), 0, 0, len(text), len(text), 1)
    moved = bytearray(content + text + table + interp)
    moved[32:40] = struct.pack("<Q", at)
    moved[56:58] = struct.pack("<H", 3)
    return bytes(moved)


def layers(folder: Path, *contents: Members) -> list[dict[str, Any]]:
    made = []
    for number, members in enumerate(contents):
        path = folder / f"layer{number}.tar"
        with tarfile.open(path, "w") as tar:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                if isinstance(content, str):
                    info.type, info.linkname = tarfile.SYMTYPE, content
                    tar.addfile(info)
                else:
                    info.size = len(content or b"")
                    tar.addfile(info, io.BytesIO(content or b""))
        made.append({"file": str(path), "diff_id": None})
    return made


PYTHON = with_loader(
    elf_file("libc.so.6", "libpy.so", search_path="$ORIGIN/../lib"), "/lib64/ld.so"
)
BASE: Members = {
    "lib": "usr/lib",
    "lib64": "usr/lib",
    "usr/lib/ld.so": b"the loader",
    "usr/lib/x86_64-linux-gnu/libc.so.6": "libc-2.36.so",
    "usr/lib/x86_64-linux-gnu/libc-2.36.so": elf_file(),
    "usr/lib/libunused.so": elf_file(),
    "usr/bin/python3": "/opt/py/bin/python3.11",
    "opt/py/bin/python3.11": b"of the lower layer",
    "opt/py/lib/libpy.so": elf_file("libm.so.6"),
    "opt/py/lib/python3.11/os.py": b"os",
    "opt/py/lib/python3.11/encodings/utf_8.py": b"utf_8",
    "opt/py/lib/python3.11/json/decoder.py": b"not needed to compile",
    "usr/local/lib/libm.so.6": elf_file(),
}
UPPER: Members = {"opt/py/bin/python3.11": PYTHON}


def extract(tmp_path: Path, *contents: Members, interpreter: str = "usr/bin/python3") -> Path:
    into = tmp_path / "runtime"
    python_runtime.extract(layers(tmp_path, *contents), interpreter, str(into), "")
    return into


def test_what_it_takes_to_compile(tmp_path: Path) -> None:
    into = extract(tmp_path, BASE, UPPER)
    files = {
        os.path.relpath(os.path.join(above, name), into)
        for above, _, names in os.walk(into)
        for name in names
    }
    assert files == {
        "loader",
        "python",
        "libraries/libc.so.6",
        "libraries/libm.so.6",
        "libraries/libpy.so",
        "prefix/lib/python311.zip",
    }
    with zipfile.ZipFile(into / "prefix/lib/python311.zip") as library:
        assert library.namelist() == ["encodings/utf_8.py", "os.py"]
        assert library.read("os.py") == b"os"
    assert (into / "python").read_bytes() == PYTHON
    assert (into / "loader").read_bytes() == b"the loader"
    assert os.access(into / "python", os.X_OK) and os.access(into / "loader", os.X_OK)
    assert not any((into / path).is_symlink() for path in files), "a remote cache takes none"


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = {"layers": layers(tmp_path, BASE, UPPER), "interpreter": "usr/bin/python3"}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    python_runtime.main(["spec.json"], "")
    assert (tmp_path / "runtime/python").exists()
    with pytest.raises(ToolError, match="usage: python-runtime"):
        python_runtime.main([], "")


@pytest.mark.parametrize(
    "upper, interpreter, reason",
    [
        (UPPER, "usr/bin/python3.9", "there is no file /usr/bin/python3.9 in the image"),
        ({}, "usr/bin/python3", "/opt/py/bin/python3.11 is no ELF file"),
        (
            {"usr/bin/python": PYTHON},
            "usr/bin/python",
            "/usr/bin/python does not have its version in its name",
        ),
        (
            {"usr/bin/python3.11": PYTHON},
            "usr/bin/python3.11",
            "it needs libpy.so, which the image does not have",
        ),
        (
            {"usr/bin/python3.11": with_loader(elf_file(), "/lib64/ld.so")},
            "usr/bin/python3.11",
            "there is no /usr/lib/python3.11/os.py beside /usr/bin/python3.11",
        ),
        (
            {"usr/bin/python3.11": with_loader(elf_file(), "/no/ld.so")},
            "usr/bin/python3.11",
            "there is no file /no/ld.so in the image",
        ),
    ],
)
def test_a_python_that_cannot_be_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, upper: Members, interpreter: str, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = {"layers": layers(tmp_path, BASE, upper), "interpreter": interpreter}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    with pytest.raises(ToolError) as raised:
        python_runtime.main(["spec.json"], "")
    assert (
        str(raised.value) == f"the Python of the base image cannot compile modules here: {reason}"
    )
    assert not (tmp_path / "runtime").exists()
