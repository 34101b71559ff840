from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from docker_nix.layer.tool import namespaces
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.namespaces import Child, in_root_namespace

# An account of Debian that nobody uses, and a Python that all accounts can read.
USER = "games"
PYTHON = "/usr/bin/python3"
MEBIBYTE = 1024 * 1024


@pytest.fixture
def mount_point(tmp_path: Path) -> bytes:
    return bytes(tmp_path / "mount")


def test_root_of_an_empty_tmpfs(mount_point: bytes, tmp_path: Path) -> None:
    def work() -> dict[str, Any]:
        file = os.path.join(mount_point, b"file")
        listed = os.listdir(mount_point)
        Path(os.fsdecode(file)).write_text("content")
        os.chown(file, 12345, 54321)
        os.chmod(file, 0o4755)
        status = os.stat(file)
        Path("outside").write_text("kept")
        return {
            "listed": listed,
            "ids": (os.getuid(), os.geteuid(), os.getgid(), os.getgroups()),
            "file": (status.st_uid, status.st_gid, status.st_mode & 0o7777),
            "namespace": os.readlink("/proc/self/ns/user"),
        }

    os.chdir(tmp_path)
    found = in_root_namespace(work, mount_point)
    assert found.pop("namespace") != os.readlink("/proc/self/ns/user")
    assert found == {
        "listed": [],
        "ids": (0, 0, 0, []),
        "file": (12345, 54321, 0o4755),
    }
    assert (tmp_path / "outside").read_text() == "kept"
    assert os.listdir(mount_point) == []
    assert mount_point.decode() not in Path("/proc/self/mountinfo").read_text()


def test_mounts_do_not_leave_it(mount_point: bytes, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()

    def work() -> bool:
        namespaces.mount(b"x", bytes(tmp_path / "other"), b"tmpfs", 0, action="to mount")
        return os.path.ismount(tmp_path / "other")

    assert in_root_namespace(work, mount_point) is True
    assert not os.path.ismount(tmp_path / "other")


def test_errors_come_back(mount_point: bytes) -> None:
    def tool_error() -> None:
        raise ToolError("what is wrong: \u00fc")

    def os_error() -> None:
        open("/not/there")

    def bug() -> None:
        raise KeyError("a bug")

    with pytest.raises(RuntimeError, match="unmarshallable object"):
        in_root_namespace(object, mount_point)
    with pytest.raises(ToolError, match="^what is wrong: \u00fc$"):
        in_root_namespace(tool_error, mount_point)
    with pytest.raises(ToolError, match="^/not/there: No such file or directory$"):
        in_root_namespace(os_error, mount_point)
    with pytest.raises(RuntimeError, match="KeyError: 'a bug'"):
        in_root_namespace(bug, mount_point)


def test_a_killed_child_is_an_error(mount_point: bytes) -> None:
    def work() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(ToolError, match="was killed, probably for lack of memory"):
        in_root_namespace(work, mount_point)
    with pytest.raises(ToolError, match="was ended with code 3"):
        in_root_namespace(lambda: os._exit(3), mount_point)


def test_the_limit_of_the_disk(mount_point: bytes) -> None:
    def fill() -> int:
        written = 0
        try:
            with open(os.path.join(mount_point, b"more"), "wb", buffering=0) as file:
                while True:
                    written += file.write(bytes(4096))
        except OSError as error:
            assert error.strerror == "No space left on device"
            return written

    def work() -> tuple[Any, ...]:
        Path(os.fsdecode(mount_point), "before").write_bytes(bytes(5 * MEBIBYTE))
        namespaces.limit_disk(mount_point, 3)
        before = namespaces.disk_is_full(mount_point, 3)
        written = fill()
        return before, written, namespaces.disk_is_full(mount_point, 3)

    before, written, after = in_root_namespace(work, mount_point)
    assert (before, after) == (False, True)
    assert 3 * MEBIBYTE - 64 * 1024 <= written <= 3 * MEBIBYTE


def test_the_limit_of_the_disk_counts_empty_files(mount_point: bytes) -> None:
    def work() -> int:
        namespaces.limit_disk(mount_point, 1)
        for count in range(10_000):
            try:
                os.mkdir(os.path.join(mount_point, b"%d" % count))
            except OSError:
                assert namespaces.disk_is_full(mount_point, 1)
                return count
        return -1

    assert 0 < in_root_namespace(work, mount_point) <= 256


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    """Also where the parent ends before the child could ask for that."""

    def parent() -> int:
        child = Child(lambda: time.sleep(1000))
        return child.pid

    grandchildren = []
    for _ in range(20):
        with Child(parent) as child:
            grandchildren.append(child.result())
    _wait_until(lambda: not any(map(_is_alive, grandchildren)))


def test_leaving_the_context_kills_the_child() -> None:
    with pytest.raises(ZeroDivisionError):
        with Child(lambda: time.sleep(1000)) as child:
            raise ZeroDivisionError
    assert not _is_alive(child.pid)


PROGRAM = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from docker_nix.layer.tool import namespaces
from docker_nix.layer.tool.errors import ToolError

def work():
    path = sys.argv[2] + "/file"
    open(path, "w").close()
    os.chown(path, 12345, 12346)
    found = os.stat(path)
    open("output", "w").close()
    print(os.getuid(), os.getgid(), os.getgroups(), found.st_uid, found.st_gid, flush=True)
    if len(sys.argv) > 3:
        time.sleep(1000)

try:
    namespaces.in_root_namespace(work, os.fsencode(sys.argv[2]))
except ToolError as error:
    sys.exit(str(error))
"""


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that every user may enter, with the tool in it, and `work`, the user's own."""
    directory = Path(tempfile.mkdtemp(prefix="docker-nix-test-"))
    directory.chmod(0o755)
    package = directory / "tool" / "docker_nix" / "layer" / "tool"
    package.mkdir(parents=True)
    for name in ("namespaces.py", "errors.py"):
        shutil.copy(Path(__file__).parent / name, package)
    (directory / "work").mkdir()
    shutil.chown(directory / "work", USER)
    yield directory
    shutil.rmtree(directory)


def _command(public: Path, *args: str) -> list[str]:
    mount_point = str(public / "work" / "mount")
    return [PYTHON, "-I", "-S", "-B", "-c", PROGRAM, str(public / "tool"), mount_point, *args]


def _run(public: Path, *prefix: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*prefix, *_command(public)], cwd=public / "work", env={}, capture_output=True, text=True
    )


AS_USER = ("/usr/bin/setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--")


@contextmanager
def _subordinate_ids(*files: str) -> Iterator[None]:
    """Gives the user subordinate ids in each of the files."""
    before = {}
    try:
        for name in files:
            file = Path(name)
            before[file] = file.read_bytes() if file.exists() else None
            file.write_bytes((before[file] or b"") + f"{USER}:300000:65536\n".encode())
        yield
    finally:
        for file, content in before.items():
            file.unlink() if content is None else file.write_bytes(content)


def test_an_ordinary_user_with_subordinate_ids(public: Path) -> None:
    with _subordinate_ids("/etc/subuid", "/etc/subgid"):
        result = _run(public, *AS_USER)
    assert (result.stdout, result.stderr) == ("0 0 [] 12345 12346\n", "")
    assert (public / "work" / "output").owner() == USER


def test_an_ordinary_user_without_them(public: Path) -> None:
    result = _run(public, *AS_USER)
    assert result.stderr == (
        "run_as_root needs subordinate ids, and /etc/subuid has none for games; add some: "
        "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 games\n"
    )
    with _subordinate_ids("/etc/subuid"):
        result = _run(public, *AS_USER)
    assert "/etc/subgid has none for games; add some: sudo" in result.stderr


def test_a_user_who_may_not_use_the_helpers(public: Path) -> None:
    with _subordinate_ids("/etc/subuid", "/etc/subgid"):
        result = _run(public, *AS_USER[:-1], "--no-new-privs", "--")
    assert result.stderr.startswith("run_as_root got no subordinate ids: newuidmap: ")
    assert result.stderr.endswith("new privileges must not be forbidden (no_new_privs)\n")


def test_a_user_without_a_name(public: Path) -> None:
    (public / "work").chmod(0o777)
    result = _run(public, "/usr/bin/setpriv", "--reuid=12345", "--regid=12345", "--clear-groups")
    assert "user 12345 has no name in /etc/passwd" in result.stderr


def test_helpers_that_are_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(namespaces, "_HELPER_DIRECTORIES", (str(tmp_path),))
    with pytest.raises(ToolError, match=r"needs newuidmap, .*install it .*apt-get install uidmap"):
        namespaces._helper("newuidmap")


def test_lines_of_subuid(tmp_path: Path) -> None:
    file = tmp_path / "subuid"
    file.write_text(
        "other:1:1\n# joe:2:2\njoe:100000:65536\n\njoe:x:1\njoe:1\njoe:5:0\n1000:300000:10\n"
    )
    assert namespaces._subordinate_ids(str(file), "joe", 1000) == [(100000, 65536), (300000, 10)]
    assert namespaces._subordinate_ids(str(tmp_path / "none"), "joe", 1000) == []


def test_root_that_has_some_ids_only(public: Path) -> None:
    with _subordinate_ids("/etc/subuid", "/etc/subgid"):
        inner = ["/usr/bin/unshare", "--user", "--map-auto", "--map-root-user"]
        result = _run(public, *AS_USER, *inner)
    assert (result.stdout, result.stderr) == ("0 0 [] 12345 12346\n", "")


def test_a_machine_that_forbids_user_namespaces(public: Path) -> None:
    (public / "work").chmod(0o777)
    limit = 'echo 0 >/proc/sys/user/max_user_namespaces; exec "$@"'
    unshare = ["/usr/bin/unshare", "--user", "--map-root-user"]
    result = _run(public, *unshare, "/bin/sh", "-c", limit, "-")
    assert result.stderr == (
        "run_as_root needs new user and mount namespaces, which this machine refuses (No space "
        "left on device): sysctl user.max_user_namespaces is 0; set it to a higher number\n"
    )


# A seccomp filter, as container engines have it: the number of the system call decides.
FILTERED = """
import ctypes, os, struct, sys
forbidden = {"x86_64": {"unshare": 272, "mount": 165}, "aarch64": {"unshare": 97, "mount": 40}}
number = forbidden[os.uname().machine][sys.argv[1]]
program = b"".join(
    struct.pack("=HBBI", *instruction)
    for instruction in (
        (0x20, 0, 0, 0),  # load the number
        (0x15, 0, 1, number),  # if it is equal
        (0x06, 0, 0, 0x00050000 | 1),  # return EPERM
        (0x06, 0, 0, 0x7FFF0000),  # allow
    )
)
buffer = ctypes.create_string_buffer(program)
prog = struct.pack("HxxxxxxP", 4, ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.c_char_p(prog), 0, 0) == 0
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize(
    "call, action", [("unshare", "new user and mount namespaces"), ("mount", "private mounts")]
)
def test_a_container_that_forbids_it(public: Path, call: str, action: str) -> None:
    result = _run(public, PYTHON, "-c", FILTERED, call)
    assert result.stderr == (
        f"run_as_root needs {action}, which this machine refuses (Operation not permitted): a "
        "container must allow it: for Docker and Podman, start it with --privileged, or with "
        "--security-opt for each of seccomp=unconfined, apparmor=unconfined, "
        "systempaths=unconfined\n"
    )


def test_root_without_the_capability(public: Path) -> None:
    result = _run(public, "/usr/bin/setpriv", "--bounding-set=-setuid", "--inh-caps=-setuid", "--")
    assert "needs the capabilities SETUID, SETGID and SETFCAP" in result.stderr


@pytest.mark.parametrize(
    "sysctl, value, advice",
    [
        ("unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone is 0; set it to 1"),
        (
            "apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns is 1; set it to 0",
        ),
    ],
)
def test_a_distribution_that_forbids_it(
    monkeypatch: pytest.MonkeyPatch, sysctl: str, value: str, advice: str
) -> None:
    """Only their kernels have these, so the machine's answer is made up."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    values = {f"/proc/sys/kernel/{sysctl}": value}
    monkeypatch.setattr(namespaces, "_read", lambda path: values.get(path, ""))
    assert str(namespaces._refusal("to mount a tmpfs", 1)).endswith(f": sysctl {advice}")


def test_other_systems(monkeypatch: pytest.MonkeyPatch, mount_point: bytes) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ToolError, match="only Linux has; build this image on Linux"):
        in_root_namespace(lambda: None, mount_point)
    assert not os.path.exists(mount_point)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_where_the_tool_is_killed(public: Path, number: signal.Signals) -> None:
    mount_point = str(public / "work" / "mount")
    process = subprocess.Popen(
        _command(public, "wait"),
        cwd=public / "work",
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with process:
        assert process.stdout and process.stdout.readline()
        assert len(_processes_with(mount_point)) == 2
        process.send_signal(number)
        process.wait()
    _wait_until(lambda: not _processes_with(mount_point))
    assert os.listdir(mount_point) == []


def _processes_with(marker: str) -> list[str]:
    """The processes that have `marker` in their command line, or among their mounts."""
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            texts = [Path("/proc", process, name).read_bytes() for name in ("cmdline", "mountinfo")]
        except OSError:
            continue  # it has just ended, or is a zombie
        if any(marker.encode() in text for text in texts):
            found.append(process)
    return found


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
