from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from docker_nix.pull import access

PLUGINS = str(Path(__file__).parents[2])
READ = """
import json, sys
sys.path.insert(0, sys.argv[1])
from docker_nix.layer.tool import skopeo
from docker_nix.layer.tool.errors import ToolError
skopeo.ACCESS_DIRECTORY = sys.argv[2]
try:
    print(json.dumps(skopeo.read_access()))
except ToolError as error:
    print(json.dumps(str(error)))
"""


def read(directory: str = "/nothing") -> Any:
    """What a process finds that this one starts."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", READ, PLUGINS, directory],
        env={},
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)


def test_the_last_offer_counts() -> None:
    for number in (1, 2, 2):
        offered = {
            "env": {"PATH": "/bin", "NAME": f"wert {number}"},
            "registries": {"a:1": {"insecure": True, "ca_file": None}},
            "timeout": number,
        }
        access.offer(offered)  # type: ignore[arg-type]
        assert read() == offered


def test_there_is_always_an_offer_and_only_one() -> None:
    done = threading.Event()

    def keep_offering(start: int) -> None:
        number = start
        while not done.is_set():
            access.offer({"timeout": number})
            number += 2

    access.offer({"timeout": 1})
    threads = [threading.Thread(target=keep_offering, args=(start,)) for start in (2, 3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            assert read()["timeout"] > 0
    finally:
        done.set()
        for thread in threads:
            thread.join()
    descriptors = Path("/proc/self/fd")
    links = [os.readlink(path) for path in descriptors.iterdir() if path.is_symlink()]
    assert len([link for link in links if access.ACCESS_NAME in link]) == 1


def test_children_do_not_inherit_it() -> None:
    access.offer({"timeout": 5})
    done = subprocess.run(
        ["ls", "-l", "/proc/self/fd"], stdout=subprocess.PIPE, check=True, close_fds=False
    )
    assert access.ACCESS_NAME.encode() not in done.stdout


OFFER = """
import os, subprocess, sys
sys.path.insert(0, sys.argv[1])
from docker_nix.pull import access
del os.memfd_create
access.ACCESS_DIRECTORY = sys.argv[2]
for timeout in (1, 2):
    access.offer({"timeout": timeout})
    subprocess.run(sys.argv[3:], env={}, check=True)
print(os.getpid())
"""


def offer_in_file(directory: str) -> list[Any]:
    """What processes find of two offers without memory files, and the offering process' id."""
    command = [sys.executable, "-c", OFFER, PLUGINS, directory]
    reader = [sys.executable, "-I", "-c", READ, PLUGINS, directory]
    done = subprocess.run(
        [*command, *reader], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_without_memory_files(tmp_path: Path, umask: int) -> None:
    directory = tmp_path / "own"
    previous = os.umask(umask)
    try:
        first, second, _ = offer_in_file(str(directory))
    finally:
        os.umask(previous)
    assert (first, second) == ({"timeout": 1}, {"timeout": 2})
    assert directory.stat().st_mode & 0o777 == 0o700
    assert list(directory.iterdir()) == []  # removed at exit


def test_files_of_ended_processes_are_removed(tmp_path: Path) -> None:
    directory = tmp_path / "own"
    directory.mkdir(mode=0o700)
    ended = subprocess.Popen(["true"])
    ended.wait()
    for process in (ended.pid, os.getpid()):
        (directory / str(process)).touch(0o600)
    offer_in_file(str(directory))
    assert [path.name for path in directory.iterdir()] == [str(os.getpid())]


def test_directory_that_others_can_use(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o755)
    link = tmp_path / "link"
    link.symlink_to(open_to_all)
    for directory in (open_to_all, link):
        command = [sys.executable, "-c", OFFER, PLUGINS, str(directory), "true"]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1
        assert f"{directory} is not a directory that only you can use" in done.stderr
    assert list(open_to_all.iterdir()) == []


READ_FILE = """
import os, subprocess, sys
path = os.path.join(sys.argv[1], str(os.getpid()))
with open(path, "w") as file:
    file.write('{"serial": 1, "access": {"timeout": 7}}')
os.chmod(path, int(sys.argv[2], 8))
os.chown(path, int(sys.argv[3]), -1)
subprocess.run(sys.argv[4:], env={}, check=True)
"""


def test_reader_refuses_what_others_could_have_written(tmp_path: Path) -> None:
    directory = tmp_path / "own"
    directory.mkdir(mode=0o700)
    me, other = os.geteuid(), 12345
    cases = [(0o700, "600", me, True), (0o700, "604", me, False), (0o711, "600", me, False)]
    if me == 0:
        cases.append((0o700, "600", other, False))
    for directory_mode, mode, owner, good in cases:
        directory.chmod(directory_mode)
        command = [sys.executable, "-c", READ_FILE, str(directory), mode, str(owner)]
        reader = [sys.executable, "-I", "-c", READ, PLUGINS, str(directory)]
        done = subprocess.run([*command, *reader], stdout=subprocess.PIPE, check=True)
        found = json.loads(done.stdout)
        if good:
            assert found == {"timeout": 7}
        else:
            assert "others could have written it or could read it; remove it" in found
