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
from functools import partial
from typing import Any

from docker_nix.layer.tool import elf
from docker_nix.layer.tool.decompress import CHUNK_BYTES
from docker_nix.layer.tool.entries import show
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.file_tree import FileTree, Node
from docker_nix.layer.tool.layer_members import LayerFile, Member
from docker_nix.layer.tool.symlinks import follow

OUTPUT = "runtime"
# What is in it: the loader (none for a static interpreter), the interpreter, the libraries by the
# names they are needed under, and the prefix with `lib/python<version>`.
LOADER, PROGRAM, LIBRARIES, PREFIX = "loader", "python", "libraries", "prefix"

_LIBRARY = re.compile(rb"(usr/)?(local/)?lib(32|64|x32)?(/[^/]+-linux-[^/]+)?/[^/]+\.so[^/]*")
_STANDARD_LIBRARY = re.compile(rb"(.*/)?lib/python3\.\d+/((encodings|importlib)/)?[^/]+\.py")
_WHAT = "the Python of the base image cannot compile modules here"


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
    """Writes what the interpreter at the path `interpreter` needs to the directory `into`."""
    image = _Image(layers, interpreter, lib_dir)
    program = image.resolve(interpreter)
    os.makedirs(os.path.join(into, LIBRARIES))
    _write(os.path.join(into, PROGRAM), image.content(program), executable=True)
    loader = image.elf(program).loader
    if loader is not None:
        _write(os.path.join(into, LOADER), image.content(image.resolve(loader)), executable=True)
        for name, path in image.libraries(program).items():
            _write(os.path.join(into, LIBRARIES, name), image.content(path))
    prefix = posixpath.dirname(posixpath.dirname(program))
    version = re.search(r"python(3\.\d+)", posixpath.basename(program))
    standard_library = f"{prefix}/lib/python{version[1] if version else '3'}/".lstrip("/")
    modules = image.below(standard_library)
    if "os.py" not in modules:
        raise ToolError(f"{_WHAT}: there is no /{standard_library}os.py beside /{program}")
    for name, content in modules.items():
        _write(
            os.path.join(into, PREFIX, "lib", f"python{version[1]}" if version else "", name),
            content,
        )


def _write(path: str, content: bytes, executable: bool = False) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, 0o755 if executable else 0o644)


class _Image:
    """The files of the image that may be needed, in memory. Paths have no leading slash."""

    def __init__(self, layers: list[dict[str, Any]], interpreter: str, lib_dir: str) -> None:
        names = {os.fsencode(interpreter)}

        def keep(member: Member) -> bytes | None:
            assert member.data is not None
            # The interpreter's own path may lead through symlinks of any layer.
            wanted = (
                member.path in names
                or re.fullmatch(rb"(.*/)?bin/python[^/]*", member.path)
                or _LIBRARY.fullmatch(member.path)
                or _STANDARD_LIBRARY.fullmatch(member.path)
            )
            return b"".join(iter(partial(member.data.read, CHUNK_BYTES), b"")) if wanted else None

        tree = FileTree()
        for layer in layers:
            file = LayerFile(layer["file"], lib_dir, layer["diff_id"])
            tree.apply(file, keep, file.title)
        self._nodes: dict[str, Node] = {os.fsdecode(path): node for path, node in tree.entries()}

    def _symlink(self, path: str) -> str | None:
        node = self._nodes.get(path)
        return os.fsdecode(node.link) if node and node.kind == "l" else None

    def find(self, path: str) -> str | None:
        """Where `path` leads, if to a file whose content is known."""
        place, _ = follow(path, self._symlink)
        node = self._nodes.get(place) if place else None
        return place if node and node.kind == "f" and node.content is not None else None

    def resolve(self, path: str) -> str:
        found = self.find(path)
        if found is None:
            raise ToolError(f"{_WHAT}: there is no file /{path.lstrip('/')} in the image")
        return found

    def content(self, path: str) -> bytes:
        content: bytes = self._nodes[path].content
        return content

    def below(self, directory: str) -> dict[str, bytes]:
        """The files whose content is known below `directory`, which ends with a slash."""
        place, _ = follow(directory, self._symlink)
        start = f"{place}/"
        return {
            path[len(start) :]: node.content
            for path, node in self._nodes.items()
            if path.startswith(start) and node.kind == "f" and node.content is not None
        }

    def elf(self, path: str) -> elf.Elf:
        try:
            return elf.read(io.BytesIO(self.content(path)))
        except ValueError as error:
            raise ToolError(f"{_WHAT}: /{show(os.fsencode(path))} is {error}") from None

    def libraries(self, program: str) -> dict[str, str]:
        """The paths of all libraries that the program needs, by the names it needs them under."""
        directories = sorted(
            {
                posixpath.dirname(path)
                for path in self._nodes
                if _LIBRARY.fullmatch(os.fsencode(path))
            },
            # As the loader has it: /usr/local before /usr (ld.so.conf), the system's after that.
            key=lambda path: ("local" not in path, path),
        )
        found: dict[str, str] = {}
        pending = [program]
        while pending:
            path = pending.pop()
            needs = self.elf(path)
            origin = posixpath.dirname(path)
            own = [
                part.replace("${ORIGIN}", origin).replace("$ORIGIN", origin)
                for part in needs.search_path
            ]
            for name in needs.needed:
                if name in found or "/" in name:
                    continue
                places = (self.find(f"{place}/{name}") for place in (*own, *directories))
                library = next((place for place in places if place), None)
                if library is None:
                    raise ToolError(f"{_WHAT}: it needs {name}, which the image does not have")
                found[name] = library
                pending.append(library)
        return found
