"""Access to registries, offered to the layer tool's processes, and kept from all that Pants keeps.

What a Process is given is in its cache key, in its sandbox and perhaps in a remote cache, so
credentials, proxies and certificates go another way: they are a file in memory of this process,
which only processes of the same user can open, and where the tool finds it by its parent's process
id (`read_access` in the tool's `skopeo`). Where there are no such files (macOS), it is a file that
only the user can read, in a directory of the user's own, removed at exit.
"""

from __future__ import annotations

import atexit
import json
import os
import stat
import threading

from docker_nix.layer.tool.skopeo import ACCESS_DIRECTORY, ACCESS_NAME, Access

_lock = threading.Lock()
# The process that offers (a fork offers nothing of its own), what, how often, and the memory file.
_process = 0
_offered = ""
_sections: Access = {}
_serial = 0
_memory_file: int | None = None


def offer(access: Access) -> None:
    """Makes `access` what processes see that this one starts, with those keys of what was offered
    before that it does not have; the rest of that is gone.

    Raises `OSError` where it cannot be kept from other users.
    """
    global _process, _offered, _serial
    with _lock:
        _sections.update(access)
        text = json.dumps(_sections, sort_keys=True)
        if (_process, _offered) == (os.getpid(), text):
            return
        _serial += 1
        data = f'{{"serial": {_serial}, "access": {text}}}'.encode()
        if hasattr(os, "memfd_create"):
            _offer_in_memory(data)
        else:
            _offer_in_file(data)
        _process, _offered = os.getpid(), text


def _offer_in_memory(data: bytes) -> None:
    global _memory_file
    new = os.memfd_create(ACCESS_NAME)
    with open(new, "wb", buffering=0, closefd=False) as file:
        file.write(data)
    if _memory_file is None:
        _memory_file = new
    else:
        # One step: there is no moment at which a reader finds none.
        os.dup2(new, _memory_file, inheritable=False)
        os.close(new)


def _offer_in_file(data: bytes) -> None:
    directory = ACCESS_DIRECTORY.format(uid=os.geteuid())
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        status = os.lstat(directory)
        private = status.st_uid == os.geteuid() and not status.st_mode & 0o077
        if not stat.S_ISDIR(status.st_mode) or not private:
            raise PermissionError(
                f"{directory} is not a directory that only you can use; remove it"
            ) from None
    for name in os.listdir(directory):
        if name.isdigit() and not _is_alive(int(name)):
            _remove(os.path.join(directory, name))
    path = os.path.join(directory, str(os.getpid()))
    new = f"{path}.new"
    _remove(new)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
    os.replace(new, path)
    if _process != os.getpid():
        atexit.register(_remove_at_exit, path, os.getpid())


def _remove_at_exit(path: str, process: int) -> None:
    if os.getpid() == process:
        _remove(path)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
