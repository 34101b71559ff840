"""The command `python-runtime`: from a base image, as much of its Python as compiling takes.

That is the interpreter with its dynamic loader and libraries, and a little of the standard library.
It runs on any machine of the same kind, without the rest of the image: the loader is told where the
libraries are (ld.so(8), `--library-path`), and the interpreter where its library is (PYTHONHOME).
So the image's modules are compiled by the image's own interpreter, to the same bytes everywhere.
"""

from __future__ import annotations

import io
import json
import os
import posixpath
import re
import shutil
import tempfile
import zipfile
from typing import IO, Any

from docker_nix.layer.tool import elf
from docker_nix.layer.tool.entries import show
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.export import append_content
from docker_nix.layer.tool.file_tree import FileTree, Node
from docker_nix.layer.tool.layer_members import LayerFile, Member
from docker_nix.layer.tool.symlinks import follow

OUTPUT = "runtime"
# What is in it: the loader (none for a static interpreter), the interpreter, the libraries by the
# names they are needed under, and a prefix with the standard library as `lib/python<version>.zip`.
LOADER, PROGRAM, LIBRARIES, PREFIX = "loader", "python", "libraries", "prefix"

_IN_LIB = rb"lib(32|64|x32)?(/[^/]+-linux-[^/]+)?/[^/]+\.so[^/]*"
_LIBRARY = re.compile(rb"(.*/)?" + _IN_LIB)
# Where the loader looks without being told.
_SYSTEM_LIBRARY = re.compile(rb"(usr/)?(local/)?" + _IN_LIB)
_PROGRAM = re.compile(rb"(.*/)?python[^/]*")
_STANDARD_LIBRARY = re.compile(rb"(.*/)?lib/python3\.\d+/((encodings|importlib)/)?[^/]+\.py")


def main(args: list[str], lib_dir: str) -> None:
    """The command `python-runtime <spec.json>`: writes the directory `runtime`.

    The spec is `{"layers": [{"file": path, "diff_id": "sha256:<hex>"}, ...], "interpreter": path}`,
    lowest layer first; the path has no leading slash. Raises `ToolError`, and `OSError`, and then
    leaves no `runtime`.
    """
    if len(args) != 1:
        raise ToolError("usage: python-runtime SPEC")
    with open(args[0], encoding="utf-8") as spec_file:
        spec = json.load(spec_file)
    try:
        extract(spec["layers"], spec["interpreter"], OUTPUT, lib_dir)
    except BaseException:
        shutil.rmtree(OUTPUT, ignore_errors=True)
        raise


def extract(layers: list[dict[str, Any]], interpreter: str, into: str, lib_dir: str) -> None:
    """Writes what the interpreter at the path `interpreter` needs to the directory `into`.

    `layers` is as in `main`. The memory it takes does not grow with the layers. Raises `ToolError`
    where they do not have all that is needed, and `OSError`.
    """
    os.makedirs(os.path.join(into, LIBRARIES))
    with tempfile.TemporaryFile(dir=os.path.dirname(into) or ".") as contents:
        image = _Image(layers, lib_dir, contents)
        program = image.resolve(interpreter)
        version = re.fullmatch(r"python(3\.\d+)", posixpath.basename(program))
        if version is None:
            raise _Unusable(f"/{program} does not have its version in its name")
        image.write(program, os.path.join(into, PROGRAM), executable=True)
        loader = image.elf(program).loader
        if loader is not None:
            image.write(image.resolve(loader), os.path.join(into, LOADER), executable=True)
            for name, path in image.libraries(program).items():
                image.write(path, os.path.join(into, LIBRARIES, name))
        prefix = posixpath.dirname(posixpath.dirname(program))
        library = posixpath.join(prefix, "lib", f"python{version[1]}")
        modules = image.below(library)
        if f"{library}/os.py" not in modules:
            raise _Unusable(f"there is no /{library}/os.py beside /{program}")
        # One file, on Python's path anyway: some remote caches do not take hundreds at once.
        archive = os.path.join(into, PREFIX, "lib", f"python{version[1].replace('.', '')}.zip")
        os.makedirs(os.path.dirname(archive))
        with zipfile.ZipFile(archive, "w") as zipped:
            for path in modules:
                zipped.writestr(zipfile.ZipInfo(path[len(library) + 1 :]), image.read(path))


class _Unusable(ToolError):
    def __init__(self, reason: str) -> None:
        super().__init__(f"the Python of the base image cannot compile modules here: {reason}")


class _Image:
    """The files of the image that may be needed. Paths have no leading slash."""

    def __init__(self, layers: list[dict[str, Any]], lib_dir: str, contents: IO[bytes]) -> None:
        self._contents = contents
        patterns = (_LIBRARY, _PROGRAM, _STANDARD_LIBRARY)

        def keep(member: Member) -> int | None:
            wanted = any(pattern.fullmatch(member.path) for pattern in patterns)
            return append_content(contents, member) if wanted else None

        tree = FileTree()
        for layer in layers:
            file = LayerFile(layer["file"], lib_dir, layer["diff_id"])
            tree.apply(file, keep, file.title)
        self._nodes: dict[str, Node] = {os.fsdecode(path): node for path, node in tree.entries()}

    def _symlink(self, path: str) -> str | None:
        node = self._nodes.get(path)
        return os.fsdecode(node.link) if node and node.kind == "l" else None

    def _find(self, path: str) -> str | None:
        """Where `path` leads, if to a file whose content is known."""
        place, _ = follow(path, self._symlink)
        node = self._nodes.get(place) if place else None
        return place if node and node.kind == "f" and node.content is not None else None

    def resolve(self, path: str) -> str:
        found = self._find(path)
        if found is None:
            raise _Unusable(f"there is no file /{path.lstrip('/')} in the image")
        return found

    def read(self, path: str) -> bytes:
        node = self._nodes[path]
        self._contents.seek(node.content)
        return self._contents.read(node.size)

    def write(self, path: str, to: str, executable: bool = False) -> None:
        os.makedirs(os.path.dirname(to), exist_ok=True)
        with open(to, "wb") as file:
            file.write(self.read(path))
        os.chmod(to, 0o755 if executable else 0o644)

    def below(self, directory: str) -> list[str]:
        """The paths of files whose content is known below `directory`, sorted."""
        return [
            path
            for path, node in self._nodes.items()
            if path.startswith(f"{directory}/") and node.kind == "f" and node.content is not None
        ]

    def elf(self, path: str) -> elf.Elf:
        try:
            return elf.read(io.BytesIO(self.read(path)))
        except ValueError as error:
            raise _Unusable(f"/{show(os.fsencode(path))} is {error}") from None

    def libraries(self, program: str) -> dict[str, str]:
        """The paths of all libraries that the program needs, by the names it needs them under."""
        directories = sorted(
            {
                posixpath.dirname(path)
                for path in self._nodes
                if _SYSTEM_LIBRARY.fullmatch(os.fsencode(path))
            },
            # As the loader has it: /usr/local before /usr (ld.so.conf), the system's after that.
            key=lambda path: ("local" not in path, path),
        )
        found: dict[str, str] = {}
        pending = [program]
        while pending:
            path = pending.pop()
            needs = self.elf(path)
            origin = f"/{posixpath.dirname(path)}"
            own = [
                part.replace("${ORIGIN}", origin).replace("$ORIGIN", origin)
                for part in needs.search_path
            ]
            for name in needs.needed:
                if name in found or "/" in name:
                    continue
                places = (self._find(f"{place}/{name}") for place in (*own, *directories))
                library = next((place for place in places if place), None)
                if library is None:
                    raise _Unusable(f"it needs {name}, which the image does not have")
                found[name] = library
                pending.append(library)
        return found
