"""Installed wheels: the distributions of a packed PEX, as they go into a store path.

Pex keeps each distribution as one zip: what belongs into `site-packages` at its root, scripts and
data below `.prefix`, and `.layout.json`, which says so. It leaves out the RECORD, which depends on
where the rest goes; here it is written again. Scripts of Python are no part of a store path: they
name their interpreter, and so belong to an environment. Sources: Python Packaging User Guide,
"Recording installed projects" and "Core metadata specifications".
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
from typing import Any, Iterable, Iterator

from docker_nix.layer.tool.archive import Member, listing, zip_members
from docker_nix.layer.tool.decompress import Readable
from docker_nix.layer.tool.errors import ToolError

OUTPUT = "wheel.json"
_LAYOUT, _STASH = ".layout.json", ".prefix/"
# A script of Python begins with a line that an installer replaces (PEP 427, "Recommended installer
# features").
_PLACEHOLDER = b"#!python"
_MOST_SCRIPT_BYTES = 1 << 20


def installed_members(members: Iterable[Member], site_packages: str) -> Iterator[Member]:
    """The members of a store path, from those of the zip: moved to their places, with a RECORD.

    `site_packages` is the directory, relative to the store path, that goes onto `sys.path`.
    """
    record: list[tuple[str, str, str]] = []
    metadata_directory = ""
    up = "../" * len(site_packages.split("/"))
    for member in members:
        name = member.name
        if name.rstrip("/") in ("..", _LAYOUT, _STASH.rstrip("/")):
            continue
        in_site = not name.startswith(_STASH)
        if in_site and name.partition("/")[0].endswith(".dist-info"):
            metadata_directory = name.partition("/")[0]
        if in_site and name == f"{metadata_directory}/RECORD":
            continue
        place = f"{site_packages}/{name}" if in_site else name[len(_STASH) :]
        if member.data is None:
            yield member._replace(name=place)
            continue
        content = _program(member)
        if content is not None and content.startswith(_PLACEHOLDER):
            record.append((up + place, "", ""))
            continue
        data = _Hashing(member.data if content is None else io.BytesIO(content))
        yield member._replace(name=place, data=data)
        record.append((name if in_site else up + place, *data.finish()))
    if metadata_directory:
        content = _record_text(record, f"{metadata_directory}/RECORD").encode()
        yield Member(
            f"{site_packages}/{metadata_directory}/RECORD",
            "f",
            data=io.BytesIO(content),
            size=len(content),
        )


def main(args: list[str], lib_dir: str) -> None:
    """The command `wheel-index <spec.json>`: writes what a distribution is to `wheel.json`.

    The spec is `{"file": path, "site_packages": directory}`, the output what `index_wheel` returns,
    compact and with sorted keys. Raises as that does, and then writes nothing.
    """
    if len(args) != 1:
        raise ToolError("usage: wheel-index SPEC")
    with open(args[0], encoding="utf-8") as spec_file:
        spec = json.load(spec_file)
    index = index_wheel(spec["file"], spec["site_packages"], lib_dir)
    with open(OUTPUT, "w", encoding="utf-8") as file:
        json.dump(index, file, sort_keys=True, separators=(",", ":"))


def index_wheel(path: str, site_packages: str, lib_dir: str) -> dict[str, Any]:
    """What the installed wheel in the zip at `path` is.

    - `entries`: what it unpacks to, as `archive.listing` has it, with sizes and hashes;
    - `name`, `version`, `requires`: from its metadata, requirements as they are written there;
    - `tags`: what it is built for, such as `cp311-cp311-manylinux_2_17_x86_64`;
    - `console_scripts`: the text of each entry point by its name;
    - `scripts`: of each file in `bin/` that is a script of Python its text after the first line.

    Raises `ToolError` where that cannot be told.
    """
    metadata = _Metadata()
    for member in zip_members(path):
        metadata.read(member)
    return {
        "version": 1,
        "entries": listing(path, f"wheel:{site_packages}", lib_dir),
        **metadata.result(path),
    }


def _program(member: Member) -> bytes | None:
    """The content of a program in `bin` that is small enough to be a script."""
    directory, _, name = member.name.rpartition("/")
    if directory != f"{_STASH}bin" or member.data is None or member.size > _MOST_SCRIPT_BYTES:
        return None
    return _read_all(member.data)


class _Metadata:
    def __init__(self) -> None:
        self._files: dict[str, str] = {}
        self._scripts: dict[str, str] = {}

    def read(self, member: Member) -> None:
        directory, _, file = member.name.partition("/")
        if member.data is None:
            return
        if directory.endswith(".dist-info") and file in ("METADATA", "WHEEL", "entry_points.txt"):
            self._files[file] = _read_all(member.data).decode("utf-8", "replace")
            return
        content = _program(member)
        if content is not None and content.startswith(_PLACEHOLDER):
            text = content.partition(b"\n")[2].decode("utf-8", "surrogateescape")
            self._scripts[member.name.rpartition("/")[2]] = text

    def result(self, path: str) -> dict[str, Any]:
        from email.parser import HeaderParser

        metadata = HeaderParser().parsestr(self._files.get("METADATA", ""))
        if not metadata["Name"] or not metadata["Version"]:
            raise ToolError(f"the distribution {path!r} has no metadata with a name and a version")
        tags = HeaderParser().parsestr(self._files.get("WHEEL", "")).get_all("Tag") or []
        return {
            "name": str(metadata["Name"]).strip(),
            "version_of_project": str(metadata["Version"]).strip(),
            "requires": [str(text) for text in metadata.get_all("Requires-Dist") or []],
            "tags": sorted(set(tags)),
            "console_scripts": _console_scripts(self._files.get("entry_points.txt", "")),
            "scripts": self._scripts,
        }


def _console_scripts(text: str) -> dict[str, str]:
    """The entry points of the group `console_scripts` (PyPA, "Entry points specification")."""
    import configparser

    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise ToolError(f"a distribution's entry_points.txt cannot be read: {error}") from error
    return dict(parser["console_scripts"]) if parser.has_section("console_scripts") else {}


def _read_all(data: Readable) -> bytes:
    return b"".join(iter(lambda: data.read(1 << 20), b""))


class _Hashing:
    """A stream that hashes what is read from it."""

    def __init__(self, data: Readable) -> None:
        self._data = data
        self._digest = hashlib.sha256()
        self._size = 0

    def read(self, size: int) -> bytes:
        chunk = self._data.read(size)
        self._digest.update(chunk)
        self._size += len(chunk)
        return chunk

    def finish(self) -> tuple[str, str]:
        """Hash and size of what was read, as a RECORD has them."""
        encoded = base64.urlsafe_b64encode(self._digest.digest()).rstrip(b"=").decode()
        return f"sha256={encoded}", str(self._size)


def _record_text(rows: list[tuple[str, str, str]], record: str) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(sorted([*rows, (record, "", "")]))
    return text.getvalue()
