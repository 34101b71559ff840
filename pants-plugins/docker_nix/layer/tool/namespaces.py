"""A place where the tool is root and may mount, of which nothing is left however the tool ends.

Source of the rules: the manual pages user_namespaces(7), mount_namespaces(7), newuidmap(1),
subuid(5), tmpfs(5) and prctl(2).

Work is done by forked processes in namespaces of their own. Each is killed by the kernel when the
one that forked it ends, and with the last of them their mounts and the files on these are gone.
"""

from __future__ import annotations

import os
import signal
import sys

from docker_nix.layer.tool.errors import ToolError

TYPE_CHECKING = False
if TYPE_CHECKING:  # at run time, `typing` alone would take as long as a small layer
    from typing import Any, Callable, NoReturn

# Source: <sched.h>, <sys/mount.h>, <sys/prctl.h> of Linux; the same on all its architectures.
NEW_MOUNTS, NEW_UTS, NEW_IPC = 0x00020000, 0x04000000, 0x08000000
NEW_USERS, NEW_PIDS, NEW_NETWORK = 0x10000000, 0x20000000, 0x40000000
READ_ONLY, NO_SETUID, NO_DEVICES, NO_EXEC = 1, 2, 4, 8
REMOUNT, BIND, RECURSIVE, PRIVATE = 32, 4096, 16384, 1 << 18
_DETACH = 2
_PR_SET_PDEATHSIG = 1

_SECONDS_BETWEEN_LOOKS = 0.5
_MEBIBYTE = 1024 * 1024
_BYTES_PER_INODE = 4096
# Any number would do, as long as there is one: a mount without a limit never gets one.
_MANY = 1 << 40

_HELPER_DIRECTORIES = ("/usr/bin", "/usr/local/bin", "/bin", "/run/wrappers/bin", "/usr/sbin")
_ID_FILES = {"uid": "/etc/subuid", "gid": "/etc/subgid"}
_IN_A_CONTAINER = (
    "a container must allow it: for Docker and Podman, start it with --privileged, or with "
    "--security-opt for each of seccomp=unconfined, apparmor=unconfined, systempaths=unconfined"
)


class Refused(Exception):
    """The kernel refused `action`, for the reason `number` of `errno`."""

    def __init__(self, action: str, number: int) -> None:
        super().__init__(action, number)
        self.action = action
        self.number = number


class Child:
    """A forked process that runs `work`, and dies with this one.

    `result` gives what `work` returned: anything that `marshal` can write. To be used as a context
    manager, in a thread that lasts as long: on leaving, the process is killed if it still runs.
    """

    def __init__(self, work: Callable[[], Any]) -> None:
        self._reader, writer = os.pipe()
        self._status: int | None = None
        self._parent = os.getppid()
        sys.stdout.flush()
        sys.stderr.flush()
        # A handler of ours that raised in the child could lead it out of here.
        ours = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        self.pid = os.fork()
        if not self.pid:
            try:
                os.close(self._reader)
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_SETMASK, ours)
                _die_with_parent(writer)
                _report(work, writer)
            finally:
                os._exit(1)
        os.close(writer)
        signal.pthread_sigmask(signal.SIG_SETMASK, ours)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._reader)
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def result(self) -> Any:
        """Waits for the end, and gives what `work` returned.

        Raises `ToolError` where it raised one, or `OSError`, or was killed.
        """
        result = self.result_or_exit()
        if not isinstance(result, tuple):
            return self._no_result(result)
        return result[0]

    def result_or_exit(self) -> tuple[Any] | int:
        """As `result`, with the result in a tuple; if `work` became another program, how that
        ended: its exit code, or minus the number of the signal that killed it."""
        self._wait()
        with os.fdopen(os.dup(self._reader), "rb") as file:
            data = file.read()
        self._status = status = os.waitpid(self.pid, 0)[1]
        if not data:
            return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        import marshal

        kind, *values = marshal.loads(data)
        if kind == "result":
            return (values[0],)
        if kind == "refused":
            raise _refusal(*values)
        if kind == "error":
            raise ToolError(values[0])
        raise RuntimeError(values[0])

    def _wait(self) -> None:
        """Waits until the child has something to say, or ends this process when its parent is gone.

        The kernel could do the latter, but it goes by the thread of the parent that started this
        process, which may end while the parent lives on.
        """
        import select

        while not select.select([self._reader], [], [], _SECONDS_BETWEEN_LOOKS)[0]:
            if os.getppid() != self._parent:
                os._exit(1)

    def _no_result(self, code: int) -> NoReturn:
        if code == -signal.SIGKILL:
            raise ToolError(
                "run_as_root was killed, probably for lack of memory, which its files are kept in"
            )
        raise ToolError(f"run_as_root was ended with code {code}")


def in_root_namespace(work: Callable[[], Any], mount_point: bytes) -> Any:
    """What `work` returns, run as root of new user and mount namespaces; see `Child` for both.

    :param mount_point: a directory, made if need be, where `work` finds an empty tmpfs. It may hold
        as much as there is free memory, unless `limit_disk` says less.

    As root, the ids are those outside; as another user they are its own, as root's, and its
    subordinate ones. Everything else is as outside, the working directory too. `work` must not
    depend on threads of this process. Raises `ToolError` as `Child.result` does, and where
    something is missing on the machine; it says what.
    """
    if sys.platform != "linux":
        raise ToolError(
            "run_as_root needs namespaces, which only Linux has; build this image on Linux, or "
            "with remote execution there"
        )
    os.makedirs(mount_point, exist_ok=True)
    unshared, tell_unshared = os.pipe()
    mapped, tell_mapped = os.pipe()

    def become_root_and_work() -> Any:
        os.close(tell_mapped)
        unshare(NEW_USERS | NEW_MOUNTS, "new user and mount namespaces")
        os.write(tell_unshared, b"u")
        if not os.read(mapped, 1):
            raise ToolError("run_as_root was cancelled")
        try:
            os.setgroups([])
        except PermissionError:
            pass  # a namespace around this one forbids it to all in it
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        _die_with_parent(mapped)  # as the kernel forgets that whenever the ids change
        for fd in (unshared, tell_unshared, mapped):
            os.close(fd)
        mount(b"none", b"/", None, RECURSIVE | PRIVATE, action="private mounts")
        options = b"mode=0755,size=%d,nr_inodes=%d" % (_free_memory(), _MANY)
        mount(b"tmpfs", mount_point, b"tmpfs", 0, options, action="to mount a tmpfs")
        return work()

    try:
        with Child(become_root_and_work) as child:
            os.close(tell_unshared)
            tell_unshared = -1
            if os.read(unshared, 1):
                _write_id_maps(child.pid)
                os.write(tell_mapped, b"m")
            return child.result()
    finally:
        for fd in (unshared, tell_unshared, mapped, tell_mapped):
            if fd != -1:
                os.close(fd)


def limit_disk(mount_point: bytes, mebibytes: int) -> None:
    """Leaves space for `mebibytes` on the tmpfs at `mount_point` beyond what is on it now."""
    status = os.statvfs(mount_point)
    used = (status.f_blocks - status.f_bfree) * status.f_frsize
    more = mebibytes * _MEBIBYTE
    inodes = status.f_files - status.f_ffree + more // _BYTES_PER_INODE
    options = b"size=%d,nr_inodes=%d" % (used + more, inodes)
    mount(b"tmpfs", mount_point, b"tmpfs", REMOUNT, options, action="to limit a tmpfs")


def disk_is_full(mount_point: bytes, mebibytes: int) -> bool:
    """Whether hardly anything of what `limit_disk` left is still free."""
    status = os.statvfs(mount_point)
    left = status.f_bfree * status.f_frsize
    return left < max(64 * 1024, mebibytes * _MEBIBYTE // 100) or not status.f_ffree


def unshare(flags: int, what: str) -> None:
    """Makes new namespaces for this process. Raises `Refused`, with `what` they are."""
    import ctypes

    _call(what, "unshare", ctypes.c_int(flags))


def mount(
    source: bytes,
    target: bytes,
    kind: bytes | None,
    flags: int,
    options: bytes | None = None,
    *,
    action: str,
) -> None:
    """As mount(2). Raises `Refused`."""
    import ctypes

    _call(action, "mount", source, target, kind, ctypes.c_ulong(flags), options)


def change_root(directory: bytes) -> None:
    """Makes `directory`, a mount point, all that this process can see. Raises `Refused`."""
    os.chdir(directory)
    # The old root then lies over the new one, until it is detached: pivot_root(2), "Notes".
    _call("to change its root directory", "pivot_root", b".", b".")
    _call("to leave its old root directory", "umount2", b".", _DETACH)
    os.chdir("/")


def _call(action: str, function: str, *arguments: Any) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*arguments) != 0:
        raise Refused(action, ctypes.get_errno())


def _die_with_parent(pipe: int) -> None:
    """Lets the kernel kill this process when its parent ends, which has the other end of `pipe`."""
    import ctypes
    import select

    if sys.platform == "linux":
        kill, nothing = ctypes.c_ulong(signal.SIGKILL), ctypes.c_ulong(0)
        _call("to die", "prctl", _PR_SET_PDEATHSIG, kill, nothing, nothing, nothing)
    # It may have ended before: then the pipe has no other end.
    poll = select.poll()
    poll.register(pipe, 0)
    if poll.poll(0):
        os._exit(1)


def _report(work: Callable[[], Any], writer: int) -> None:
    """Runs `work`, and writes to `writer` how that ended."""
    import marshal

    try:
        message = marshal.dumps(("result", work()))
    except Refused as error:
        message = marshal.dumps(("refused", error.action, error.number))
    except ToolError as error:
        message = marshal.dumps(("error", str(error)))
    except OSError as error:
        name = os.fsdecode(error.filename) if error.filename else ""
        text = f"{name}: {error.strerror}" if name else str(error)
        message = marshal.dumps(("error", text))
    except BaseException:
        import traceback

        message = marshal.dumps(("crash", traceback.format_exc()))
    sys.stdout.flush()
    sys.stderr.flush()
    with os.fdopen(writer, "wb") as file:
        file.write(message)
    os._exit(0)


def _free_memory() -> int:
    """How many bytes of memory and swap are free."""
    sizes = {}
    with open("/proc/meminfo", "rb") as file:
        for line in file:
            name, _, rest = line.partition(b":")
            sizes[name] = int(rest.split()[0]) * 1024
    return sizes[b"MemAvailable"] + sizes.get(b"SwapFree", 0)


def _write_id_maps(pid: int) -> None:
    for kind in ("uid", "gid"):
        if os.geteuid() == 0:
            _write_own_ids(pid, kind)
        else:
            _write_subordinate_ids(pid, kind)


def _write_own_ids(pid: int, kind: str) -> None:
    """Maps every id that this process has to itself."""
    with open(f"/proc/self/{kind}_map", encoding="ascii") as file:
        ranges = [line.split() for line in file]
    text = "".join(f"{first} {first} {count}\n" for first, _, count in ranges)
    try:
        with open(f"/proc/{pid}/{kind}_map", "w", encoding="ascii") as file:
            file.write(text)
    except OSError as error:
        raise ToolError(
            f"run_as_root may not give its user namespace ids ({error.strerror}); root in a "
            "container needs the capabilities SETUID, SETGID and SETFCAP for that"
        ) from error


def _write_subordinate_ids(pid: int, kind: str) -> None:
    import pwd
    import subprocess

    helper = _helper(f"new{kind}map")
    try:
        user = pwd.getpwuid(os.getuid())
    except KeyError:
        raise ToolError(
            f"run_as_root needs a user with subordinate ids, and user {os.getuid()} has no name in "
            "/etc/passwd; run Pants as a user that has one"
        ) from None
    own = user.pw_uid if kind == "uid" else user.pw_gid
    arguments = ["0", str(own), "1"]
    first = 1
    for start, count in _subordinate_ids(_ID_FILES[kind], user.pw_name, user.pw_uid):
        arguments += [str(first), str(start), str(count)]
        first += count
    if first == 1:
        raise ToolError(
            f"run_as_root needs subordinate ids, and {_ID_FILES[kind]} has none for "
            f"{user.pw_name}; add some: sudo usermod --add-subuids 100000-165535 "
            f"--add-subgids 100000-165535 {user.pw_name}"
        )
    ended = subprocess.run(
        [helper, str(pid), *arguments], capture_output=True, env={}, encoding="utf-8"
    )
    if ended.returncode:
        reason = " ".join(ended.stderr.split())
        raise ToolError(
            f"run_as_root got no subordinate ids: {reason or 'new' + kind + 'map failed'}; "
            f"{helper} must be setuid root, {_ID_FILES[kind]} right for {user.pw_name}, and "
            "new privileges must not be forbidden (no_new_privs)"
        )


def _helper(name: str) -> str:
    for directory in _HELPER_DIRECTORIES:
        path = f"{directory}/{name}"
        if os.access(path, os.X_OK):
            return path
    raise ToolError(
        f"run_as_root needs {name}, which is in none of {', '.join(_HELPER_DIRECTORIES)}; install "
        "it (Debian, Ubuntu: apt-get install uidmap; Fedora: dnf install shadow-utils)"
    )


def _subordinate_ids(path: str, name: str, uid: int) -> list[tuple[int, int]]:
    """The ranges, (first, count), that the file at `path` has for a user."""
    ranges = []
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                user, start, count, *_ = (*line.strip().split(":"), "", "")
                if user in (name, str(uid)) and start.isdigit() and count.isdigit():
                    ranges.append((int(start), int(count)))
    except FileNotFoundError:
        pass
    return [(start, count) for start, count in ranges if count]


def _refusal(action: str, number: int) -> ToolError:
    return ToolError(
        f"run_as_root needs {action}, which this machine refuses ({os.strerror(number)}): "
        f"{_remedy(number)}"
    )


def _remedy(number: int) -> str:
    import errno

    if not os.path.exists("/proc/self/ns/user"):
        return "its kernel was built without user namespaces (CONFIG_USER_NS)"
    if number in (errno.ENOSPC, errno.EUSERS):
        limits = {
            name: int(_read(f"/proc/sys/user/{name}") or 0)
            for name in ("max_user_namespaces", "max_mnt_namespaces", "max_pid_namespaces")
            + ("max_ipc_namespaces", "max_uts_namespaces", "max_net_namespaces")
        }
        lowest = min(limits, key=lambda name: limits[name])
        return f"sysctl user.{lowest} is {limits[lowest]}; set it to a higher number"
    if os.geteuid() != 0:
        for name, forbids in (
            ("unprivileged_userns_clone", "0"),
            ("apparmor_restrict_unprivileged_userns", "1"),
        ):
            if _read(f"/proc/sys/kernel/{name}") == forbids:
                return f"sysctl kernel.{name} is {forbids}; set it to {1 - int(forbids)}"
    return _IN_A_CONTAINER


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
