"""The command `nix-closure`: has Nix realise a package, and asks it for the package's closure.

What is evaluated is first evaluated in pure mode: where that works, the result depends on what is
in the spec alone, so it may be cached and hold for all machines.
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any, Callable, Dict, List, Sequence, Tuple

from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.nix_cli import Nix, NixFailed, Registered
from docker_nix.layer.tool.nix_store import (
    CASE_HACK,
    MISSING,
    STORE_DIR,
    check_hash,
    locate,
    read_tree,
)

CLOSURE, SCRATCH = "closure.json", "scratch"
_FLAKES = ("--extra-experimental-features", "nix-command flakes")
# What the value of a flake's attribute is; only a derivation can be realised.
_DESCRIBE = (
    'v: if !builtins.isAttrs v then { type = builtins.typeOf v; } else if (v.type or "") == '
    '"derivation" then { inherit (v) drvPath outputName; } else { names = builtins.attrNames v; }'
)
# What no user wants to have at `/`, and what collides as all packages have it. Source: buildEnv of
# nixpkgs, which leaves out the same.
_NOT_SHOWN = re.compile(
    r"(nix-support|propagated-build-inputs)(/.*)?|(.*/)?(info/dir|perllocal\.pod)"
)


def main(args: list[str], lib_dir: str) -> None:
    """`SPEC`: writes `closure.json`.

    The spec is an object with `kind`: `expression` (then `expression`, the path of a file in the
    source tree, `attribute`, a path or None, and `arguments`, strings by name), `flake` (then
    `installable`, and `local`: whether its flake is the source tree; `impure`) or `store_path`
    (then `store_path`). `source` is the source tree in the form of `entries.tree_entries`, with the
    files below `in/`. `outputs` are names or None, `system` is as Nix spells it. With `pinned`, the
    result must not depend on this machine.

    The result is an object with `roots`, `paths` (each `[path, NAR hash, NAR size, references]`)
    and `listings`, by root `[kind, path]`, with the target for a symlink, with SHA-256 and size for
    a file. Where a pinned result was wanted and there is none, it is `{"unpinned": why}`.

    Raises `ToolError`, and then leaves no output.
    """
    from shutil import rmtree

    if len(args) != 1:
        raise ToolError("usage: nix-closure SPEC")
    with open(args[0], encoding="utf-8") as file:
        spec = json.load(file)
    os.makedirs(SCRATCH, exist_ok=True)
    try:
        result = _Query(spec, Nix(SCRATCH)).result()
    finally:
        rmtree(SCRATCH, ignore_errors=True)
    with open(CLOSURE, "w", encoding="utf-8") as output:
        json.dump(result, output, separators=(",", ":"), sort_keys=True)


class _Impure(Exception):
    """An evaluation that needs the machine; the message is what Nix said in pure mode."""


class _Query:
    def __init__(self, spec: Dict[str, Any], nix: Nix) -> None:
        self._spec, self._nix = spec, nix
        self._source = self._source_hash = ""

    def result(self) -> Dict[str, Any]:
        store_dir = self._nix.store_dir()
        if store_dir != STORE_DIR:
            raise ToolError(
                f"the Nix of this machine has its store at {store_dir}. The hashes of store paths "
                f"are made for their directory, and an image has it at {STORE_DIR}: use a Nix with "
                "that store (are NIX_STORE_DIR or NIX_REMOTE set?)"
            )
        try:
            roots = self._realise()
        except _Impure as reason:
            return {"unpinned": str(reason)}
        for root in roots:
            _check_here(root)
        closure = self._nix.closure(roots)
        infos = {info.path: info for info in closure}
        return {
            "roots": roots,
            "paths": [list(info) for info in closure],
            "listings": {root: _listing(root, infos) for root in roots},
        }

    def _realise(self) -> List[str]:
        """The store paths of the outputs that are wanted. Raises `_Impure`."""
        kind = self._spec["kind"]
        if kind == "store_path":
            path = self._spec["store_path"]
            try:
                self._nix.run("nix-store", "--realise", path)
            except NixFailed as error:
                raise ToolError(
                    f"{path} {MISSING}, and Nix cannot fetch it from elsewhere; build it here, or "
                    "copy it with `nix copy`; Nix said:",
                    error.details,
                ) from error
            return [path]
        evaluate = self._flake if kind == "flake" else self._expression
        derivation, output = self._pure_first(evaluate)
        return self._build(derivation, self._spec["outputs"] or [output])

    def _pure_first(self, evaluate: Callable[[bool], Tuple[str, str]]) -> Tuple[str, str]:
        if not self._spec["pinned"]:
            return self._shown(evaluate, False)
        try:
            return evaluate(True)
        except NixFailed as error:
            self._shown(evaluate, False)
            raise _Impure("\n".join(self._readable(error.details))) from error

    def _shown(self, evaluate: Callable[[bool], Tuple[str, str]], pure: bool) -> Tuple[str, str]:
        try:
            return evaluate(pure)
        except NixFailed as error:
            details = self._readable(error.details)
            hint = ""
            if self._source and re.search(
                rf"{re.escape(self._source)}.*(No such file|does not exist)",
                "\n".join(error.details),
            ):
                hint = " (it sees no files but those of the target and of its 'dependencies')"
            raise ToolError(f"Nix cannot evaluate it{hint}:", details) from error

    def _readable(self, lines: Sequence[str]) -> List[str]:
        """What Nix says, with the paths of the user's files as the user has them."""
        if not self._source:
            return list(lines)
        return [line.replace(f"{self._source}/", "") for line in lines]

    def _add_source(self) -> None:
        """Makes the source tree a store path, which is the same for all machines."""
        if self._source:
            return
        from docker_nix.layer.tool.entries import tree_entries
        from docker_nix.layer.tool.tar_format import DIRECTORY, SYMLINK

        directory = os.path.join(SCRATCH, "source")
        for entry in tree_entries(self._spec["source"], b"source", b"in").values():
            path = os.path.join(SCRATCH.encode(), entry.name)
            if entry.kind == DIRECTORY:
                os.makedirs(path, 0o755, exist_ok=True)
            elif entry.kind == SYMLINK:
                os.symlink(entry.link, path)
            else:
                _copy(entry.path, path, bool(entry.mode & 0o100))
        self._source, self._source_hash = self._nix.add_source(os.path.abspath(directory))

    def _system(self) -> Tuple[str, ...]:
        """Options for another system than this one, which is Nix' default."""
        system = self._spec["system"]
        machine = {"arm64": "aarch64"}.get(os.uname().machine, os.uname().machine)
        native = f"{machine}-{'darwin' if sys.platform == 'darwin' else 'linux'}"
        return () if system in (None, native) else ("--option", "system", system)

    def _expression(self, pure: bool) -> Tuple[str, str]:
        """The derivation that an expression evaluates to, and the output it stands for.

        Pure mode reads no file but what is in the store by a hash that the expression has.
        """
        spec = self._spec
        self._add_source()
        text = (
            f'import (builtins.path {{ path = {self._source}; name = "source"; sha256 = '
            f'"{self._source_hash}"; }} + {nix_string("/" + spec["expression"])})'
        )
        args = ["--option", "pure-eval", "true" if pure else "false", *self._system()]
        if spec["attribute"]:
            args += ["--attr", spec["attribute"]]
        for name, value in sorted(spec["arguments"].items()):
            args += ["--argstr", name, value]
        found = self._nix.run("nix-instantiate", *args, "--expr", text).split()
        if len(found) != 1:
            names = sorted(path.partition("-")[2].partition(".drv")[0] for path in found)
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            what = (
                f"{len(found)} derivations ({', '.join(names[:5])}{more})" if found else "nothing"
            )
            raise ToolError(
                f"it evaluates to {what}, and one is needed; name one of its attributes in "
                "'attribute'"
            )
        derivation, _, output = found[0].partition("!")
        return derivation, output or "out"

    def _flake(self, pure: bool) -> Tuple[str, str]:
        """The same for a flake: pure means that all its inputs are locked."""
        spec = self._spec
        installable = spec["installable"]
        if spec["local"]:
            self._add_source()
            installable = f"path:{self._source}{installable}"
        args = [*_FLAKES, "eval", "--json", *self._system()]
        args += ["--no-update-lock-file"] if pure else ["--no-write-lock-file"]
        args += ["--impure"] if spec["impure"] else []
        value = json.loads(self._nix.run("nix", *args, "--apply", _DESCRIBE, installable))
        if "drvPath" in value:
            return value["drvPath"], value["outputName"]
        if "type" in value:
            raise ToolError(f"it is a {value['type']}, and a derivation is needed")
        names = value["names"]
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        raise ToolError(
            "it is no derivation, but a set of attributes; name one of them: "
            f"{', '.join(names[:10])}{more}"
        )

    def _build(self, derivation: str, outputs: Sequence[str]) -> List[str]:
        _check_here(derivation)
        with open(derivation, encoding="utf-8", errors="surrogateescape") as file:
            known = output_names(file.read())
        for output in outputs:
            if output not in known:
                raise ToolError(f"it has no output {output!r}, but {', '.join(known)}")
        try:
            self._nix.run("nix-store", "--realise", f"{derivation}!{','.join(outputs)}")
            return [
                self._nix.run("nix-store", "--realise", f"{derivation}!{output}").strip()
                for output in outputs
            ]
        except NixFailed as error:
            raise ToolError(
                f"Nix cannot build {derivation}; the end of what it said:",
                self._readable(error.details),
            ) from error


def _check_here(path: str) -> None:
    """Raises `ToolError` where a path that Nix has made is not on this machine."""
    if not os.path.lexists(path):
        raise ToolError(
            f"Nix has made {path}, which {MISSING}: its store is elsewhere (is NIX_REMOTE set, or "
            f"`store` in nix.conf?), and only files of this machine can be read. Use the store at "
            f"{STORE_DIR}"
        )


def output_names(derivation: str) -> List[str]:
    """The names of the outputs of a derivation, given the content of its file."""
    outputs = re.match(r"(?:Derive|DrvWithVersion)\((?:\"[^\"]*\",)?\[(.*?)\],\[", derivation, re.S)
    return re.findall(r'\("([^"]*)","[^"]*","[^"]*","[^"]*"\)', outputs.group(1) if outputs else "")


def nix_string(text: str) -> str:
    """A string of the Nix language."""
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("${", "\\${")
    return '"' + quoted.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") + '"'


def _copy(path: bytes, to: bytes, executable: bool) -> None:
    from shutil import copyfile

    copyfile(path, to)
    os.chmod(to, 0o755 if executable else 0o644)


def _listing(root: str, infos: Dict[str, Registered]) -> List[List[Any]]:
    """The entries of a root; those of the directory that it leads to where it is a symlink."""
    shown = _behind(root, infos)
    name, _, below = shown[len(STORE_DIR) + 1 :].partition("/")
    info = infos[f"{STORE_DIR}/{name}"]
    manifest, top = locate(name, info.nar_hash)
    nar_hash, _, files = read_tree(manifest, top)
    check_hash(name, info.nar_hash, f"sha256:{nar_hash}")
    parents = {entry[1].rpartition("/")[0] for entry in manifest}
    listing: List[List[Any]] = []
    for kind, path, *more in manifest:
        if below and not path.startswith(f"{below}/"):
            continue
        visible = path[len(below) + 1 :] if below else path
        if _NOT_SHOWN.fullmatch(visible) or (kind == "d" and (path in parents or not visible)):
            continue
        details: Sequence[Any] = files[path] if kind in "fx" else more
        listing.append([kind, visible, *details])
    return listing


def _behind(root: str, infos: Dict[str, Registered]) -> str:
    """The directory in the closure that `root` leads to; `root` itself where there is none."""
    if not os.path.islink(root) or CASE_HACK in (target := os.path.realpath(root)):
        return root
    name = target[len(STORE_DIR) + 1 :].partition("/")[0]
    in_closure = target.startswith(f"{STORE_DIR}/") and f"{STORE_DIR}/{name}" in infos
    return target if in_closure and os.path.isdir(target) else root
