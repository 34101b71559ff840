"""Scripts that run as root in an image: what they leave, and what is left when they are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import tarfile
import time
import uuid
from pathlib import Path
from typing import Iterator, List

import pytest

from support.debian_image import debian_with_python
from support.docker_engine import DockerEngine, docker_engine
from support.workspace import PROJECT, Repo

BUILD = """
file(name="debian", source="debian.tar")
files(name="conf", sources=["etc/app.conf"])
files(name="secret", sources=["etc/seed"])

docker_nix_image(
    name="image",
    from_image=":debian",
    contents=[":conf"],
    include_nix_db=True,
    run_as_root='''
        set -u
        [ "$(id -u)" = 0 ]
        [ "$(cat /etc/app.conf)" = "some = setting" ]
        [ "$(cat /nix/var/nix/db/schema)" = 10 ]

        useradd --uid 12345 --user-group --no-log-init --home-dir /srv/app app
        mkdir -p /srv/app/data
        cp {store_path[:secret]}/etc/seed /srv/app/data/
        chown -R app:app /srv/app
        chmod 02750 /srv/app/data
        echo greeting > /srv/app/hello
        mv /srv/app/hello /srv/app/greeting

        rm /usr/bin/tac
        rm -r /usr/share/common-licenses
        chmod u+s /usr/bin/cat

        python3 -B -c 'import socket
try:
    socket.create_connection(("192.0.2.1", 80), 2)
except OSError as error:
    print(error)
else:
    raise SystemExit("there is a network")'
        ! [ -e /root/.docker ]
    ''',
    extra_commands="ls > srv/layer",
    config={
        "User": "app",
        "Cmd": ["/usr/bin/python3", "-c", "print(open('/srv/app/data/seed').read())"],
    },
)

docker_nix_image(name="fails", from_image=":debian", run_as_root="echo odd; exit 7")
docker_nix_image(
    name="writes",
    from_image=":debian",
    run_as_root="head -c 5000000 /dev/zero > /big",
    disk_size=4,
)
docker_nix_image(
    name="store",
    contents=[":conf"],
    run_as_root="echo x >> {store_path[:conf]}/etc/app.conf",
)
docker_nix_image(
    name="device",
    from_image=":debian",
    run_as_root="python3 -Bc 'import os; os.mkfifo(\\"/x\\")'",
)
"""


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    folder = tmp_path_factory.mktemp("root")
    repo = Repo(folder / "repo")
    layout = debian_with_python(folder / "debian")
    with tarfile.open(repo.root / "debian.tar", "w") as archive:
        archive.add(layout, "")
    repo.write("etc/app.conf", "some = setting\n")
    repo.write("etc/seed", "a seed")
    repo.write("BUILD", BUILD)
    return repo


@pytest.fixture(scope="module")
def docker() -> Iterator[DockerEngine]:
    with docker_engine() as engine:
        yield engine


def test_what_a_script_leaves(repo: Repo, docker: DockerEngine, tmp_path: Path) -> None:
    repo.pants("package", ":image")
    (layer,) = [x for x in repo.info("image")["docker_nix"]["layers"] if x["kind"] == "single"]
    blob = repo.root / "dist/image/blobs/sha256" / layer["digest"].partition(":")[2]
    with tarfile.open(blob) as archive:
        members = {member.name: member for member in archive}
    outside = sorted(name for name in members if name.split("/")[0] not in ("nix", "etc"))
    assert outside == [
        *("srv", "srv/app", "srv/app/data", "srv/app/data/seed", "srv/app/greeting", "srv/layer"),
        *("usr", "usr/bin", "usr/bin/.wh.tac", "usr/bin/cat"),
        *("usr/share", "usr/share/.wh.common-licenses"),
    ], "nor compiled Python: what the base has of it was good as it was"
    assert {"etc/app.conf", "etc/group", "etc/passwd"} <= set(members)
    data = members["srv/app/data"]
    assert (data.uid, data.gid, data.mode) == (12345, 12345, 0o2750)
    assert members["usr/bin/cat"].mode == 0o4755

    image = docker.load(repo.root / "dist/image")
    assert docker.run(image) == "a seed\n"
    script = (
        "import os, pwd; print(pwd.getpwuid(os.getuid()).pw_name, os.path.exists('/usr/bin/tac'), "
        "os.path.exists('/usr/share/common-licenses'), sorted(os.listdir('/srv/app')))"
    )
    shown = docker.run(image, "/usr/bin/python3", "-c", script)
    assert shown == "app False False ['data', 'greeting']\n"
    seen = docker.run(image, "/usr/bin/python3", "-c", "print(open('/srv/layer').read())").split()
    assert {"etc", "srv", "usr"} <= set(seen) and "bin" not in seen


@pytest.mark.parametrize(
    ("target", "messages"),
    [
        ("fails", ["odd", "error: run_as_root failed with exit code 7"]),
        ("writes", ["disk_size=4 MiB", "raise disk_size"]),
        ("store", ["run_as_root changed /nix/store/", "write to another directory"]),
        ("device", ["run_as_root made x, which is a fifo"]),
    ],
)
def test_errors(repo: Repo, target: str, messages: List[str]) -> None:
    run = repo.pants("package", f":{target}", check=False)
    assert run.exit_code == 1
    for message in (f"The target //:{target} cannot be built.", *messages):
        assert message in run.output
    assert not (repo.root / "dist" / target).exists()


def processes(mark: str) -> List[str]:
    """The command lines of all processes with `mark` in it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (
                (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            )
        except OSError:
            continue
        if mark in command:
            found.append(command)
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_build_leaves_nothing(repo: Repo, tmp_path: Path, number: int) -> None:
    # A number of seconds that no other process sleeps is what tells ours from others.
    mark = f"6{uuid.uuid4().int % 10**9:09}"
    repo.write("waits/BUILD", BUILD_WAITS.replace("600", mark))
    sandboxes = tmp_path / "sandboxes"
    sandboxes.mkdir()
    pants = subprocess.Popen(
        [str(PROJECT / "pants"), *repo.options, f"--local-execution-root-dir={sandboxes}"]
        + ["package", "waits:image"],
        cwd=repo.root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        while len(processes(f"sleep {mark}")) < 2:
            assert pants.poll() is None and time.monotonic() < deadline, "the script did not start"
            time.sleep(0.1)
        os.kill(pants.pid, number)
        pants.wait(60)
        deadline = time.monotonic() + 30
        while processes(mark) or processes(str(sandboxes)):
            assert time.monotonic() < deadline, [processes(mark), processes(str(sandboxes))]
            time.sleep(0.1)
    finally:
        if pants.poll() is None:
            os.killpg(pants.pid, signal.SIGKILL)
    assert str(sandboxes) not in Path("/proc/self/mounts").read_text()
    assert not (repo.root / "dist/waits").exists()


BUILD_WAITS = """
docker_nix_image(
    name="image",
    from_image="//:debian",
    run_as_root="(sleep 600 &) ; sleep 600",
)
"""
