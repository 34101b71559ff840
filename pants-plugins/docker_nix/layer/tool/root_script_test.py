from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable

import pytest

from docker_nix.layer.tool import root_script
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.namespaces import in_root_namespace

BUSYBOX = "/bin/busybox"


def _busybox(root: str) -> None:
    """An image's file system: busybox, and `bin/NAME` for each of its programs."""
    (Path(root) / "bin").mkdir(parents=True)
    shutil.copy(BUSYBOX, f"{root}/bin/busybox")
    for name in subprocess.check_output([BUSYBOX, "--list"], text=True).split():
        if name != "busybox":
            os.symlink("busybox", f"{root}/bin/{name}")


def _run(
    tmp_path: Path,
    script: str,
    files: tuple[str, ...] = (),
    *,
    make: Callable[[str], None] = _busybox,
    disk_size: int = 16,
    **options: Any,
) -> dict[str, Any]:
    """Runs the script where `make` has put an image; returns what `files` then contain.

    There is `""` too: the names at the root, where the script must have worked.
    """
    mount_point = bytes(tmp_path / "mount")
    root = mount_point + b"/root"

    def work() -> dict[str, Any]:
        make(os.fsdecode(root))
        root_script.run(script, root, disk_size=disk_size, **options)
        found: dict[str, Any] = {
            name: Path(os.fsdecode(root), name).read_text(errors="surrogateescape")
            for name in files
        }
        found[""] = sorted(os.listdir(os.fsdecode(root)))
        return found

    return dict(in_root_namespace(work, mount_point))


def _out(tmp_path: Path, script: str, **options: Any) -> list[str]:
    """The lines that the script writes."""
    script = "{\n" + script + "\n} >/out"
    return str(_run(tmp_path, script, ("out",), **options)["out"]).splitlines()


def test_it_is_root_in_the_image(tmp_path: Path) -> None:
    assert _out(tmp_path, "id -u; id -g; pwd; ls /; umask; hostname; echo $0 $# $$") == [
        *("0", "0", "/"),
        *("bin", "dev", "out", "proc"),
        *("0022", "localhost", "run_as_root 0 1"),
    ]


def test_mount_points_that_it_needs_do_not_stay(tmp_path: Path) -> None:
    assert _run(tmp_path, "mkdir /new")[""] == ["bin", "new"]

    def with_directories(root: str) -> None:
        _busybox(root)
        os.mkdir(f"{root}/proc", 0o700)
        os.mkdir(f"{root}/dev")
        Path(root, "dev", "kept").touch()

    assert _run(tmp_path, "test ! -e /dev/kept", ("dev/kept",), make=with_directories) == {
        "dev/kept": "",
        "": ["bin", "dev", "proc"],
    }


def test_a_mount_point_that_is_no_directory(tmp_path: Path) -> None:
    def with_link(root: str) -> None:
        _busybox(root)
        os.symlink("/tmp", f"{root}/dev")

    with pytest.raises(ToolError, match="needs /dev to be a directory"):
        _run(tmp_path, "true", make=with_link)


def test_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_NIX_SECRET", "secret")
    monkeypatch.setenv("TMPDIR", "/tmp")
    lines = _out(tmp_path, "env", env={"EXTRA": "x y", "HOME": "/home"})
    lines = [line for line in lines if not line.startswith(("PWD=", "SHLVL=", "OLDPWD="))]
    assert sorted(lines) == [
        "EXTRA=x y",
        "HOME=/home",
        "LC_ALL=C",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "SOURCE_DATE_EPOCH=1",
        "USER=root",
    ]


def test_no_files_of_the_tool_are_open(tmp_path: Path) -> None:
    with open(os.devnull) as file:
        os.set_inheritable(file.fileno(), True)
        lines = _out(
            tmp_path,
            "for fd in /proc/self/fd/*; do readlink $fd || true; done; read x || echo none",
        )
    assert lines[0] == "/dev/null"
    assert lines[1] == "/out"
    assert len(lines) <= 5  # standard error, the directory itself, and what the last line says
    assert lines[-1] == "none"


def test_no_process_of_the_machine_can_be_seen(tmp_path: Path) -> None:
    lines = _out(tmp_path, "sleep 100 & ls /proc | grep '^[0-9]'; cat /proc/1/cmdline")
    assert lines[:2] == ["1", "2"]
    assert len(lines) <= 5
    assert lines[-1].split("\0") == ["/bin/sh", "-e", "-c", ". /dev/run_as_root", "run_as_root", ""]


def test_there_is_no_network(tmp_path: Path) -> None:
    lines = _out(
        tmp_path,
        """
        sed 1,2d /proc/net/dev | cut -d: -f1
        ip -o link show up | cut -d: -f2
        ip route
        ping -c 1 -W 1 127.0.0.1 >/dev/null && echo loopback
        ping -c 1 -W 1 192.0.2.1 >/dev/null 2>&1 || echo no network
        """,
    )
    assert [line.strip() for line in lines] == ["lo", "lo", "loopback", "no network"]


def test_devices(tmp_path: Path) -> None:
    lines = _out(
        tmp_path,
        """
        ls /dev | grep -v run_as_root
        echo x >/dev/null
        head -c 2 /dev/zero | wc -c
        head -c 3 /dev/urandom | wc -c
        echo x 2>/dev/null >/dev/full || echo full
        echo through | cat /dev/stdin
        echo shared >/dev/shm/file; cat /dev/shm/file
        chmod 600 /dev/null 2>/dev/null || echo the mode stays
        """,
    )
    assert lines == [
        *("fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom", "zero"),
        *("2", "3", "full", "through", "shared", "the mode stays"),
    ]
    assert os.stat("/dev/null").st_mode & 0o777 == 0o666


def test_the_kernel_cannot_be_configured(tmp_path: Path) -> None:
    before = Path("/proc/sys/kernel/randomize_va_space").read_text()
    script = "echo 0 2>/dev/null >/proc/sys/kernel/randomize_va_space || echo refused"
    assert _out(tmp_path, f"( {script} )") == ["refused"]
    assert Path("/proc/sys/kernel/randomize_va_space").read_text() == before


def test_the_text_of_the_script_arrives(tmp_path: Path) -> None:
    text = "'\"'\"' $HOME `id` \\n \\\\ \u00e9 \U0001f40b %s !"
    script = f"cat >/out <<'END'\n{text}\n\ttab\nEND\n"
    assert _run(tmp_path, script, ("out",))["out"] == f"{text}\n\ttab\n"
    assert _out(tmp_path, 'a=\'it\'"\'"\'s\' \\\n b="x\n y"; printf \'%s|\' "$a" "$b"') == [
        "it's|x",
        " y|",
    ]
    raw = os.fsdecode(b"\xff\xfe")
    assert _run(tmp_path, f"echo '{raw}' >/out", ("out",))["out"] == f"{raw}\n"


def test_a_long_script(tmp_path: Path) -> None:
    """Longer than one argument, and than all arguments together, may be."""
    script = f": {'x' * 3_000_000}\necho done >/out"
    assert _run(tmp_path, script, ("out",))["out"] == "done\n"


def test_an_empty_script(tmp_path: Path) -> None:
    assert _run(tmp_path, "")[""] == ["bin"]


def test_its_output_is_the_standard_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _run(tmp_path, "echo out; echo err >&2; echo dev >>/dev/stderr")
    assert capfd.readouterr() == ("", "out\nerr\ndev\n")


@pytest.mark.parametrize(
    "script, code",
    [
        ("false; exit 0", 1),
        ("exit 7", 7),
        ("true\nno-such-program", 127),
        ("(exit 3) | true; sh -c 'kill -9 $$'", 137),
        ("if true", 2),
    ],
)
def test_a_script_that_fails(tmp_path: Path, script: str, code: int) -> None:
    with pytest.raises(ToolError) as error:
        _run(tmp_path, script)
    assert str(error.value) == f"run_as_root failed with exit code {code}"


def test_what_it_is_called_in_errors(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="^run_as_root of src:image failed with exit code 1$"):
        _run(tmp_path, "false", description="run_as_root of src:image")


def test_where_an_error_is_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ToolError):
        _run(tmp_path, "true\ntrue\nno-such-program")
    assert "run_as_root: line 3: no-such-program: not found" in capfd.readouterr().err


def test_no_process_outlives_it(tmp_path: Path) -> None:
    _run(tmp_path, "sleep 4321.25 & setsid sleep 4321.25 & (trap '' TERM; sleep 4321.25 &)")
    assert not _processes_with("4321.25")


def test_bash_is_preferred(tmp_path: Path) -> None:
    def with_bash(root: str) -> None:
        _busybox(root)
        os.makedirs(f"{root}/usr/bin")
        os.rename(f"{root}/bin/ash", f"{root}/bin/spare")
        Path(root, "usr/bin/bash").write_text('#!/bin/sh\necho "$*" >/out\n')
        os.chmod(f"{root}/usr/bin/bash", 0o755)

    expected = "--noprofile --norc -e -c . /dev/run_as_root run_as_root\n"
    assert _run(tmp_path, "exit 1", ("out",), make=with_bash)["out"] == expected


def test_real_bash(tmp_path: Path) -> None:
    def with_bash(root: str) -> None:
        _busybox(root)
        libraries = subprocess.check_output(["ldd", "/bin/bash"], text=True)
        for path in ["/bin/bash", *(w for w in libraries.split() if w.startswith("/"))]:
            os.makedirs(os.path.dirname(root + path), exist_ok=True)
            shutil.copy(path, root + path)

    lines = _out(tmp_path, 'words=(a "b c"); echo "${#words[@]} $0"', make=with_bash)
    assert lines == ["2 run_as_root"]
    with pytest.raises(ToolError, match="exit code 1"):
        _run(tmp_path, "false | true; f() { false; true; }; f", make=with_bash)


def test_no_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root_script.host_programs, "command", lambda name: None)
    with pytest.raises(ToolError, match="neither /bin/bash nor /bin/sh, .* add one to contents"):
        _run(tmp_path, "true", make=os.mkdir)


def test_the_shell_of_the_machine_where_the_image_has_none(tmp_path: Path) -> None:
    script = """
        set -o pipefail
        echo "$0 ${BASH_VERSION:+in bash}" > out
        groupadd() { echo "the script\'s own" >> out; }
        groupadd
        echo /* >> out
        ! echo x > /dev/.host/usr/made 2>/dev/null
    """
    found = _run(tmp_path, script, ("out",), make=os.mkdir)
    assert found["out"] == "run_as_root in bash\nthe script's own\n/dev /out /proc\n"
    assert found[""] == ["out"]


def test_programs_of_the_machine(tmp_path: Path) -> None:
    def busybox_with_groupadd(root: str) -> None:
        _busybox(root)
        Path(root, "bin/groupadd").write_text("#!/bin/sh\necho of the image\n")
        os.chmod(f"{root}/bin/groupadd", 0o755)

    script = """
        exec > out
        groupadd --help
        useradd --help | grep -c -- --no-create-home
        ls /dev/.host
        groupdel --help 2>/dev/null || echo not lent
    """
    lent = ("groupadd", "useradd", "no-such-program")
    found = _run(tmp_path, script, ("out",), make=busybox_with_groupadd, lent_programs=lent)
    first, second, *_, last = found["out"].splitlines()
    assert (first, int(second) > 0, last) == ("of the image", True, "not lent")


def test_a_shell_that_cannot_run_here(tmp_path: Path) -> None:
    def foreign(root: str) -> None:
        os.makedirs(f"{root}/bin")
        Path(root, "bin", "sh").write_bytes(b"\x7fELF of another machine")
        os.chmod(f"{root}/bin/sh", 0o755)

    with pytest.raises(ToolError, match=r"the image's /bin/sh \(Exec format error\)"):
        _run(tmp_path, "true", make=foreign)


def test_the_limit_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(ToolError) as error:
        _run(tmp_path, "dd if=/dev/zero of=/big bs=64k count=64", disk_size=3)
    assert str(error.value) == (
        "run_as_root failed with exit code 1; it has used up the space that it may write to, "
        "disk_size=3 MiB: raise disk_size"
    )
    _run(tmp_path, "dd if=/dev/zero of=/big bs=64k count=64", disk_size=5)


def test_a_script_that_mounts_something(tmp_path: Path) -> None:
    script = "mkdir /m; mount -t tmpfs x /m; echo x >/m/f; mount --bind /bin /m; test -e /m/sh"
    assert _run(tmp_path, script)[""] == ["bin", "m"]
    assert not [line for line in Path("/proc/mounts").read_text().splitlines() if "/m " in line]


def test_the_machine_cannot_be_reached_through_mounts(tmp_path: Path) -> None:
    (tmp_path / "marker").touch()
    script = f"""
        umount -a || true; umount -l / || true
        test ! -e {tmp_path}/marker; test ! -e /../{tmp_path}/marker
        cut -d' ' -f5 /proc/self/mountinfo >/out || true
        """
    out = _run(tmp_path, script, ("out",))["out"]
    assert str(tmp_path) not in out


def test_setuid_programs_work(tmp_path: Path) -> None:
    script = """
        chmod 4755 /bin/busybox
        mkdir /etc
        printf '%s\\n' root::0:0::/:/bin/sh joe::1000:1000::/:/bin/sh >/etc/passwd
        su joe -c 'id -u; su root -c "id -u"'
        """
    assert _out(tmp_path, script) == ["1000", "0"]


PROGRAM = """
import os, shutil, sys
sys.path.insert(0, sys.argv[1])
from docker_nix.layer.tool import namespaces, root_script

mount_point = os.fsencode(sys.argv[2])
root = mount_point + b"/root"

def work():
    os.makedirs(root + b"/bin")
    shutil.copy(sys.argv[3], root + b"/bin/busybox")
    for name in (b"sh", b"sleep"):
        os.symlink(b"busybox", root + b"/bin/" + name)
    if sys.argv[4] == "before":
        print("here", flush=True)
    root_script.run("echo here; sleep 4321.5 & sleep 4321.5", root, disk_size=1)

namespaces.in_root_namespace(work, mount_point)
"""


@pytest.mark.parametrize("victim", ["tool", "child", "supervisor"])
@pytest.mark.parametrize("when", ["before", "in it"])
def test_nothing_is_left_where_a_process_is_killed(tmp_path: Path, victim: str, when: str) -> None:
    mount_point = str(tmp_path / "mount")
    package = str(Path(__file__).parents[3])
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, package, mount_point, BUSYBOX, when],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with process:
        assert process.stdout and process.stdout.readline() == b"here\n"
        pid = process.pid
        for _ in range(["tool", "child", "supervisor"].index(victim)):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            if not children:  # it has not started any yet
                break
            pid = int(children[0])
        os.kill(pid, signal.SIGKILL)
        process.wait()
    _wait_until(lambda: not _processes_with("4321.5") and not _processes_with(mount_point))
    assert os.listdir(mount_point) == []


def test_a_container_that_hides_parts_of_proc(tmp_path: Path) -> None:
    package = str(Path(__file__).parents[3])
    hide = 'mount -t tmpfs hidden /proc/sys; exec "$@"'
    result = subprocess.run(
        [
            *("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", hide, "-"),
            *(sys.executable, "-c", PROGRAM, package, str(tmp_path / "mount"), BUSYBOX, "in it"),
        ],
        capture_output=True,
        text=True,
    )
    expected = "run_as_root needs to mount /proc, which this machine refuses (Operation not"
    assert expected in result.stderr
    assert "systempaths=unconfined" in result.stderr


def test_a_shell_that_is_killed(tmp_path: Path) -> None:
    package = str(Path(__file__).parents[3])
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, package, str(tmp_path / "mount"), BUSYBOX, "in it"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with process:
        assert process.stdout and process.stdout.readline() == b"here\n"
        pid = process.pid
        for _ in range(3):
            pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text())
        os.kill(pid, signal.SIGKILL)
        assert process.stdout.read().endswith(b"ToolError: run_as_root was ended by signal 9\n")
    assert not _processes_with("4321.5")


def _processes_with(marker: str) -> list[int]:
    """The processes that have `marker` in their command line, or among their mounts."""
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            texts = [Path("/proc", process, name).read_bytes() for name in ("cmdline", "mountinfo")]
        except OSError:
            continue  # it has just ended, or is a zombie
        arguments, mounts = texts
        if marker.encode() in arguments.split(b"\0") or marker.encode() in mounts:
            found.append(int(process))
    return found


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
