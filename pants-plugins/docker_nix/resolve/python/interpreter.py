"""The Python of an image, as far as its distributions must fit it. Pure.

Source of the rules for tags: PyPA, "Platform compatibility tags" (PEP 425, 600, 656).
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from docker_nix.layer.links import BaseFiles
from docker_nix.layer.tool.symlinks import follow

# Where programs are looked up in an image that does not say (Docker's default PATH).
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_VERSIONED = re.compile(r"python(3\.\d+)")
_NEWEST_MINOR = 30

# As `uname -m` has the architectures of the OCI image spec.
_MACHINES = {
    "386": "i686",
    "amd64": "x86_64",
    "arm": "armv7l",
    "arm64": "aarch64",
    "loong64": "loongarch64",
}
_LOADERS = {
    "glibc": ("lib64/ld-linux-x86-64.so.2", "lib/ld-linux-aarch64.so.1", "lib/ld-linux-armhf.so.3"),
    "musl": ("lib/ld-musl-x86_64.so.1", "lib/ld-musl-aarch64.so.1", "lib/ld-musl-armhf.so.1"),
}


@dataclass(frozen=True)
class Interpreter:
    """A Python that an image has.

    :param path: its absolute path in the image.
    :param version: `3.11`.
    :param architecture: of the image, as the OCI image spec names it.
    :param libc: `glibc` or `musl`; None where that is not known.
    :param in_base: whether its files are those of the base image.
    :param store_path: the store path that it is in, if any.
    """

    path: str
    version: str
    architecture: str
    libc: Optional[str] = None
    in_base: bool = False
    store_path: Optional[str] = None

    @property
    def site_packages(self) -> str:
        """The directory of distributions, relative to a store path or an environment."""
        return f"lib/python{self.version}/site-packages"

    @property
    def cache_tag(self) -> str:
        """That of CPython (PEP 3147)."""
        return f"cpython-{self.version.replace('.', '')}"

    @property
    def machine(self) -> str:
        return _MACHINES.get(self.architecture, self.architecture)

    @property
    def markers(self) -> Dict[str, str]:
        """The environment of dependency markers (PEP 508). The patch version is not known."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.version}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.version}.0",
            "python_version": self.version,
            "sys_platform": "linux",
        }

    def __str__(self) -> str:
        libc = f", {self.libc}" if self.libc else ""
        return f"{self.path} (CPython {self.version}, {self.machine}{libc})"


def version_of(path: str) -> Optional[str]:
    """The version of the interpreter at a path that ends in `python3.11`; None for other names."""
    match = _VERSIONED.fullmatch(posixpath.basename(path))
    return match[1] if match else None


def libc_of(files: BaseFiles) -> Optional[str]:
    """The C library of a base image, by its dynamic loader."""
    for libc, loaders in _LOADERS.items():
        if any(_file(files, loader) for loader in loaders):
            return libc
    return None


def _file(files: BaseFiles, path: str) -> Optional[str]:
    """Where `path`, with or without a leading slash, leads if to a file; without a slash."""
    place, _ = follow(path.lstrip("/"), files.symlink)
    return place if place and files.what(place) == "a file" else None


def interpreter_at(files: BaseFiles, path: str, architecture: str) -> Optional[Interpreter]:
    """The interpreter at the absolute path `path` of a base image; None if there is none.

    Its version is that in its name, or in the name of the file that a symlink there leads to.
    """
    place = _file(files, path)
    if place is None:
        return None
    version = version_of(path) or version_of(place)
    if version is None:
        return None
    return Interpreter(path, version, architecture, libc_of(files), in_base=True)


def interpreters_on(
    files: BaseFiles, search_path: str, architecture: str
) -> Tuple[Interpreter, ...]:
    """All interpreters of a base image on a search path (`PATH`), the preferred one first.

    That is, for each directory in turn, what `python3` is, and then the newest. One that has
    several names counts once, under its versioned name.
    """
    found: Dict[str, Interpreter] = {}
    for directory in search_path.split(":"):
        if not directory.startswith("/"):
            continue
        names = ["python3", "python", *(f"python3.{n}" for n in range(_NEWEST_MINOR, 5, -1))]
        for name in names:
            path = posixpath.join(directory, name)
            interpreter = interpreter_at(files, path, architecture)
            if interpreter is None:
                continue
            place = _file(files, path) or ""
            versioned = posixpath.join(directory, f"python{interpreter.version}")
            if version_of(name) is None and _file(files, versioned) == place:
                interpreter = interpreter_at(files, versioned, architecture) or interpreter
            found.setdefault(place, interpreter)
    return tuple(found.values())


def interpreters_among(
    store_paths: Iterable[Tuple[str, Iterable[str]]], architecture: str
) -> Iterator[Interpreter]:
    """The interpreters `bin/python3.X` among store paths, each given with the paths it holds."""
    for store_path, paths in store_paths:
        for path in paths:
            version = version_of(path)
            if version and path == f"bin/python{version}":
                yield Interpreter(
                    f"{store_path}/{path}", version, architecture, store_path=store_path
                )


def misfit(tags: Sequence[str], interpreter: Interpreter) -> Optional[str]:
    """Why a distribution built for `tags` cannot be used by the interpreter; None if it can.

    A distribution without tags fits.
    """
    reasons: List[str] = []
    for tag in tags:
        python, _, rest = tag.partition("-")
        abi, _, platform = rest.partition("-")
        reason = _python_misfit(python, abi, interpreter) or _platform_misfit(platform, interpreter)
        if reason is None:
            return None
        reasons.append(reason)
    return reasons[0] if reasons else None


def _python_misfit(python: str, abi: str, interpreter: Interpreter) -> Optional[str]:
    minor = int(interpreter.version.partition(".")[2])
    own = f"cp3{minor}"
    match = re.fullmatch(r"(py|cp)3(\d*)", python)
    if match is None:
        return f"it is for {python}"
    least = int(match[2]) if match[2] else 0
    if abi == "none" and match[1] == "py":
        fits = least <= minor
    elif abi in ("none", "abi3"):
        fits = python == own or (least <= minor and abi == "abi3")
    else:
        fits = python == own and abi in (own, f"{own}m")
    return None if fits else f"its ABI is {python}-{abi}"


def _platform_misfit(platform: str, interpreter: Interpreter) -> Optional[str]:
    if platform == "any":
        return None
    match = re.fullmatch(r"(linux|manylinux[^_]*(?:_\d+_\d+)?|musllinux_\d+_\d+)_(.+)", platform)
    if match is None or match[2] != interpreter.machine:
        return f"it is for {platform}"
    libc = {"many": "glibc", "musl": "musl"}.get(match[1][:4])
    if libc and interpreter.libc and libc != interpreter.libc:
        return f"it is for {platform}, which needs {libc}"
    return None
