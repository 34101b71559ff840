"""Running a script as root in an image's file system, with nothing of the machine around it.

Source of the rules: the manual pages pid_namespaces(7), pivot_root(2) and proc(5); for the files in
/dev, the OCI runtime-spec, config-linux.md ("Default Devices", "Dev symbolic links").

The shell is process 1, as it is where an engine runs the command of an image: when it ends, the
kernel kills all that it started.
"""

from __future__ import annotations

import os
import signal
import stat

from docker_nix.layer.tool import host_programs, namespaces
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.namespaces import Child
from docker_nix.layer.tool.rootfs import resolve

TYPE_CHECKING = False
if TYPE_CHECKING:  # at run time, `typing` alone would take as long as a small layer
    from typing import Mapping, NoReturn, Sequence

_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "USER": "root",
    "LC_ALL": "C",
    "SOURCE_DATE_EPOCH": "1",
}
_SHELLS = (
    ("/bin/bash", ("--noprofile", "--norc", "-e")),
    ("/usr/bin/bash", ("--noprofile", "--norc", "-e")),
    ("/bin/sh", ("-e",)),
    ("/usr/bin/sh", ("-e",)),
)
_NAME, _HOSTNAME = "run_as_root", "localhost"

_DEVICES = (b"null", b"zero", b"full", b"random", b"urandom")
_DEVICE_LINKS = {
    b"fd": b"/proc/self/fd",
    b"stdin": b"/proc/self/fd/0",
    b"stdout": b"/proc/self/fd/1",
    b"stderr": b"/proc/self/fd/2",
}
_SHARED_MEMORY_SIZE = b"mode=1777,size=64m"
# What root could change the machine with, where its id is the machine's root's.
_READ_ONLY_PROC = (b"sys", b"sysrq-trigger", b"irq", b"bus", b"fs")

# Source: <net/if.h> and <linux/sockios.h>.
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


def run(
    script: str,
    root: bytes,
    *,
    disk_size: int,
    env: Mapping[str, str] | None = None,
    lent_programs: Sequence[str] = (),
    description: str = _NAME,
) -> None:
    """Runs `script` in the directory `root`, as it looks from there: `root` is /.

    :param root: on the tmpfs of `namespaces.in_root_namespace`, whose `work` must call this. The
        shell is its bash or sh, or else this machine's; it stops at the first command that fails.
    :param disk_size: the MiB that the script may write.
    :param env: variables beside the usual ones.
    :param lent_programs: names of programs of this machine that the script may call where the image
        does not have them.
    :param description: what the script is called in errors.

    The script has its own processes, mounts, network (a loopback device) and host name. Its input
    is empty, and its output goes to stderr. Nothing that it starts outlives it. Raises `ToolError`
    if it fails, or cannot be run.
    """
    root = mount_point = os.path.abspath(root)
    while not os.path.ismount(mount_point):
        mount_point = os.path.dirname(mount_point)
    namespaces.limit_disk(mount_point, disk_size)
    made = [name for name in (b"proc", b"dev") if _make_mount_point(root, name)]
    host = _Host(root, lent_programs)

    def supervise() -> int:
        namespaces.unshare(
            namespaces.NEW_MOUNTS
            | namespaces.NEW_PIDS
            | namespaces.NEW_IPC
            | namespaces.NEW_UTS
            | namespaces.NEW_NETWORK,
            "new mount, pid, ipc, uts and network namespaces",
        )
        with Child(lambda: _become_script(script, root, env or {}, host)) as shell:
            code = shell.result_or_exit()
            assert isinstance(code, int)
            return code

    with Child(supervise) as supervisor:
        code = supervisor.result()
    for name in made:
        try:
            os.rmdir(os.path.join(root, name))
        except OSError:
            pass  # the script has put something there, or removed it
    if code:
        how = f"failed with exit code {code}" if code > 0 else f"was ended by signal {-code}"
        if namespaces.disk_is_full(mount_point, disk_size):
            how += (
                f"; it has used up the space that it may write to, disk_size={disk_size} MiB: "
                "raise disk_size"
            )
        raise ToolError(f"{description} {how}")


def _make_mount_point(root: bytes, name: bytes) -> bool:
    """Makes the directory `name` in `root`; False if it was there."""
    path = os.path.join(root, name)
    try:
        os.mkdir(path, 0o755)
        os.chmod(path, 0o755)
        return True
    except FileExistsError:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            return False
        raise ToolError(
            f"run_as_root needs /{name.decode()} to be a directory; the image has something else "
            "there"
        ) from None


class _Host:
    """What the script uses of this machine: the shell, where the image has none, and programs."""

    def __init__(self, root: bytes, programs: Sequence[str]) -> None:
        self.functions = ""
        self.shell: list[str] | None = None
        if programs:
            self.functions = host_programs.functions(programs)
        if not any(_is_there(root, shell) for shell, _ in _SHELLS):
            self.shell = host_programs.command("bash")

    def mount(self, dev: bytes) -> None:
        """Makes the machine's programs visible in the image's /dev."""
        if not self.functions and not self.shell:
            return
        place = os.path.join(dev, os.path.basename(host_programs.PLACE))
        for name in host_programs.DIRECTORIES:
            source, target = b"/" + name, os.path.join(place, name)
            # Those that are symlinks lead to another of them, and their programs are there.
            if os.path.isdir(source) and not os.path.islink(source):
                os.makedirs(target)
                _bind_read_only(source, target, "to mount directories")


def _is_there(root: bytes, path: str) -> bool:
    return os.path.exists(os.path.join(root, resolve(root, path.encode())))


def _become_script(script: str, root: bytes, env: Mapping[str, str], host: _Host) -> NoReturn:
    """Makes this process, which must be the first of its pid namespace, the shell."""
    import socket

    os.setsid()
    socket.sethostname(_HOSTNAME)
    _start_loopback()
    text = (host.functions + script).encode("utf-8", "surrogateescape")
    _mount_all(root, text, host)
    namespaces.change_root(root)
    os.umask(0o022)
    shell, options = _shell(host)
    # Where the text is does not show in $0, as it does when the shell is given a file.
    arguments = [shell, *options, "-c", f". /dev/{_NAME}", _NAME]
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    _close_on_exec()
    # Python ignores these, and programs would inherit it.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execve(shell, arguments, {**_ENVIRONMENT, **env})
    except OSError as error:
        raise ToolError(
            f"{_NAME} cannot run the image's {shell} ({error.strerror}); it must be for this "
            "machine's architecture, with all the libraries that it needs"
        ) from error


def _mount_all(root: bytes, script: bytes, host: _Host) -> None:
    """Mounts `root` on itself, and in it /proc and a /dev with the script's text in it."""
    mount, action = namespaces.mount, "to mount devices"
    mount(root, root, None, namespaces.BIND | namespaces.RECURSIVE, action="to mount directories")
    proc, dev = os.path.join(root, b"proc"), os.path.join(root, b"dev")
    harmless = namespaces.NO_SETUID | namespaces.NO_DEVICES | namespaces.NO_EXEC
    mount(b"proc", proc, b"proc", harmless, action="to mount /proc")
    for below in _READ_ONLY_PROC:
        path = os.path.join(proc, below)
        if os.path.exists(path):
            _bind_read_only(path, path, action)

    size = b"mode=0755,size=%d" % (len(script) + 1024 * 1024)
    mount(b"tmpfs", dev, b"tmpfs", namespaces.NO_SETUID, size, action=action)
    for device in _DEVICES:
        path = os.path.join(dev, device)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o666))
        _bind_read_only(b"/dev/" + device, path, action)
    for link, target in _DEVICE_LINKS.items():
        os.symlink(target, os.path.join(dev, link))
    shared = os.path.join(dev, b"shm")
    os.mkdir(shared)
    mount(b"tmpfs", shared, b"tmpfs", harmless, _SHARED_MEMORY_SIZE, action=action)
    with open(os.path.join(dev, _NAME.encode()), "wb") as file:
        file.write(script)
    host.mount(dev)


def _bind_read_only(source: bytes, target: bytes, action: str) -> None:
    """Devices can still be written to; their modes and owners, the machine's, cannot be changed."""
    namespaces.mount(source, target, None, namespaces.BIND, action=action)
    # What the machine's mount forbids must not be allowed here.
    kept = os.statvfs(target).f_flag & (
        namespaces.NO_SETUID | namespaces.NO_DEVICES | namespaces.NO_EXEC
    )
    flags = namespaces.REMOUNT | namespaces.BIND | namespaces.READ_ONLY | kept
    namespaces.mount(b"none", target, None, flags, action=action)


def _start_loopback() -> None:
    import fcntl
    import socket
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _IFF_UP))


def _shell(host: _Host) -> tuple[str, tuple[str, ...]]:
    for path, options in _SHELLS:
        if os.access(path, os.X_OK):
            return path, options
    if host.shell:
        return host.shell[0], (*host.shell[1:], *_SHELLS[0][1])
    raise ToolError(
        "run_as_root needs a shell, and the image has neither /bin/bash nor /bin/sh, nor does this "
        "machine have a bash to lend; add one to contents, or build from an image that has one"
    )


def _close_on_exec() -> None:
    """Closes all files but the standard ones as soon as the shell runs: until then, the one that
    errors are told through is needed."""
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2:
            try:
                os.set_inheritable(fd, False)
            except OSError:
                pass  # it was the list's own
