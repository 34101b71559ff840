"""The trees of store paths: among the inputs of a layer, or in this machine's Nix store."""

from __future__ import annotations

import os

from docker_nix.layer.tool.errors import ToolError

TYPE_CHECKING = False
if TYPE_CHECKING:  # at run time, `typing` alone would take as long as a small layer
    from typing import Any

INPUTS = "in"


def locate_tree(spec: dict[str, Any], unpack_into: str, lib_dir: str) -> tuple[list[Any], str]:
    """The manifest of the store path that `spec` describes, and where its files are.

    The manifest has the form of `entries.tree_entries`. An archive is unpacked into `unpack_into`
    first, and Python modules are compiled where `spec` says with what. Raises `ToolError` where
    that fails.
    """
    manifest, directory = _locate(spec, unpack_into, lib_dir)
    if spec.get("bytecode"):
        from docker_nix.layer.tool.bytecode import compile_modules

        manifest = compile_modules(manifest, directory, unpack_into + ".pyc", *spec["bytecode"])
    return manifest, directory


def _locate(spec: dict[str, Any], unpack_into: str, lib_dir: str) -> tuple[list[Any], str]:
    directory = os.path.join(INPUTS, spec["name"])
    if spec["source"] == "tree":
        return spec["entries"], directory
    if spec["source"] == "archive":
        from docker_nix.layer.tool.archive import unpack

        archive = os.path.join(directory, spec["file"])
        return unpack(archive, spec["format"], unpack_into, lib_dir), unpack_into
    if spec["source"] == "nix":
        from docker_nix.layer.tool.nix_store import locate

        return locate(spec["name"], spec["nar_hash"])
    raise ToolError(f"unknown source {spec['source']!r} of {spec['name']}")
