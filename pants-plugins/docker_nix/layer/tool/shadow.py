"""The files that say who root is, which programs like useradd want to add to.

Source of the rules: `shadowSetup` of Nix' dockerTools; passwd(5), shadow(5), group(5), gshadow(5)
and pam.d(5).
"""

from __future__ import annotations

import os

from docker_nix.layer.tool.rootfs import resolve

TYPE_CHECKING = False
if TYPE_CHECKING:  # at run time, `typing` alone would take as long as a small layer
    from typing import Iterator

_PAM_RULES = (
    b"account required pam_unix.so\n"
    b"auth sufficient pam_rootok.so\n"
    b"password requisite pam_unix.so nullok sha512\n"
    b"session required pam_unix.so\n"
)


def files(shell: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """The path, mode and content of each file, parents of a path being directories of mode 0755.

    :param shell: root's, as in `/bin/sh`.
    """
    yield b"etc/passwd", 0o644, b"root:x:0:0::/root:%s\n" % shell
    yield b"etc/shadow", 0o600, b"root:!x:::::::\n"
    yield b"etc/group", 0o644, b"root:x:0:\n"
    yield b"etc/gshadow", 0o600, b"root:x::\n"
    yield b"etc/pam.d/other", 0o644, _PAM_RULES
    yield b"etc/login.defs", 0o644, b""


def write_absent(root: bytes) -> list[bytes]:
    """Writes those files that the file system in `root` lacks; returns the paths of these.

    Root's shell is bash where /bin/bash is there. Directories that are symlinks are followed inside
    `root`; a file that is a symlink, wherever it leads, is not absent.
    """
    bash = os.path.isfile(os.path.join(root, resolve(root, b"bin/bash")))
    written = []
    for path, mode, content in files(b"/bin/bash" if bash else b"/bin/sh"):
        directory, _, name = path.rpartition(b"/")
        real = os.path.join(root, resolve(root, directory))
        if os.path.lexists(os.path.join(real, name)):
            continue
        _make_directories(real)
        fd = os.open(os.path.join(real, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            os.fchmod(fd, mode)
        written.append(path)
    return written


def _make_directories(path: bytes) -> None:
    """Makes `path` and its parents as far as they are not there, with mode 0755."""
    if not os.path.isdir(path):
        _make_directories(os.path.dirname(path))
        os.mkdir(path)
        os.chmod(path, 0o755)
