"""Packages of the machine's Nix as store paths: `nix_package`.

Nix is asked by a process of the layer tool, whose cache key holds what is asked and the files that
Nix may read. How Nix is reached is no part of it: see `pull/access.py`.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass, replace
from typing import Any, Dict, Iterable, List, Tuple

from pants.core.util_rules.environments import (
    LOCAL_ENVIRONMENT_MATCHER,
    EnvironmentNameRequest,
)
from pants.engine.env_vars import EnvironmentVars, EnvironmentVarsRequest
from pants.engine.environment import EnvironmentName
from pants.engine.fs import (
    EMPTY_DIGEST,
    CreateDigest,
    Digest,
    DigestContents,
    DigestEntries,
    Directory,
    FileEntry,
    MergeDigests,
    PathGlobs,
    SymlinkEntry,
)
from pants.engine.internals.native_engine import IntrinsicError
from pants.engine.platform import Platform
from pants.engine.process import ProcessCacheScope
from pants.engine.rules import Get, MultiGet, _uncacheable_rule, collect_rules, rule
from pants.engine.target import (
    HydratedSources,
    HydrateSourcesRequest,
    SourcesField,
    Target,
    TransitiveTargets,
    TransitiveTargetsRequest,
)
from pants.engine.unions import UnionMembership, UnionRule
from pants.util.logging import LogLevel

from docker_nix.errors import DockerNixError, field_error
from docker_nix.layer.links import Entry
from docker_nix.layer.tool_process import LocalToolRun, ToolFailed, ToolResult, ToolRun
from docker_nix.pull import access
from docker_nix.resolve.files import SOURCE_FIELDS, FilesClosureRequest
from docker_nix.resolve.nix.fields import (
    NixArgumentsField,
    NixAttributeField,
    NixEnvironmentField,
    NixExpressionField,
    NixImpureField,
    NixInstallableField,
    NixOutputsField,
    NixStorePathField,
    NixSystemField,
)
from docker_nix.resolve.nix.installable import Installable, parse_installable
from docker_nix.resolve.nix.types import NixPath, NixQuery, Realised, RealiseRequest
from docker_nix.resolve.types import StoreClosure, StoreClosureRequest, StoreObject
from docker_nix.subsystem import DockerNixSubsystem

logger = logging.getLogger(__name__)

# What Nix and what it calls (SSH, Git, curl) go by.
_ENVIRONMENT = (
    "ALL_PROXY",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "LOGNAME",
    "NIX_BUILD_HOOK",
    "NIX_CONFIG",
    "NIX_CONF_DIR",
    "NIX_DAEMON_SOCKET_PATH",
    "NIX_DATA_DIR",
    "NIX_IGNORE_SYMLINK_STORE",
    "NIX_LOCALSTATE_DIR",
    "NIX_LOG_DIR",
    "NIX_PATH",
    "NIX_REMOTE",
    "NIX_SSHOPTS",
    "NIX_SSL_CERT_FILE",
    "NIX_STATE_DIR",
    "NIX_STORE",
    "NIX_STORE_DIR",
    "NIX_USER_CONF_FILES",
    "NO_PROXY",
    "PATH",
    "SSH_AUTH_SOCK",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "USER",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_DIRS",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)
_SYSTEMS = {
    Platform.linux_arm64: "aarch64-linux",
    Platform.linux_x86_64: "x86_64-linux",
    Platform.macos_arm64: "aarch64-linux",
    Platform.macos_x86_64: "x86_64-linux",
}


@dataclass(frozen=True)
class NixAccess:
    """That processes of this run find out how to reach Nix."""


@dataclass(frozen=True)
class NixAnswer:
    """What Nix said: the closure as the tool's `nix_query` has it, or why it is not pinned."""

    content: bytes


@dataclass(frozen=True)
class NixAnswerRequest:
    query: NixQuery
    attempt: int = 0


@dataclass(frozen=True)
class NixClosureRequest(StoreClosureRequest):
    @classmethod
    def applies_to(cls, target: Target, union_membership: UnionMembership) -> bool:
        return target.has_field(NixStorePathField)


@dataclass(frozen=True)
class SourceTree:
    """The files that Nix may read.

    :param entries: in the form of the tool's `entries.tree_entries`, the files numbered.
    :param digest: the files below `in/`, by their numbers.
    """

    entries: Tuple[Tuple[str, ...], ...]
    digest: Digest


@dataclass(frozen=True)
class SourceTreeRequest:
    """A request for the files that Nix may read.

    :param own: those of the target itself.
    :param directory: the directory they must lie in, and are relative to.
    """

    target: Target
    own: Digest
    directory: str = ""


@_uncacheable_rule
async def offer_nix_access(options: DockerNixSubsystem) -> NixAccess:
    environment = await Get(
        EnvironmentVars, EnvironmentVarsRequest([*_ENVIRONMENT, *options.env_vars])
    )
    access.offer({"nix_env": dict(environment)})
    return NixAccess()


@rule(desc="Find the sources of a Nix package", level=LogLevel.DEBUG)
async def find_sources(request: SourceTreeRequest, union_membership: UnionMembership) -> SourceTree:
    target = request.target
    transitive = await Get(TransitiveTargets, TransitiveTargetsRequest([target.address]))
    sources = await MultiGet(
        Get(
            HydratedSources,
            HydrateSourcesRequest(
                dependency.get(SourcesField),
                for_sources_types=(
                    SOURCE_FIELDS
                    if FilesClosureRequest.applies_to(dependency, union_membership)
                    else (SourcesField,)
                ),
                enable_codegen=FilesClosureRequest.applies_to(dependency, union_membership),
            ),
        )
        for dependency in transitive.dependencies
    )
    digests = [request.own, *(one.snapshot.digest for one in sources)]
    try:
        merged = await Get(Digest, MergeDigests(digests))
    except IntrinsicError as e:
        raise field_error(
            target.address,
            "dependencies",
            f"brings different files for one path: {e}",
            "Leave one of them out.",
        ) from e
    prefix = f"{request.directory}/" if request.directory else ""
    entries: List[Tuple[str, ...]] = []
    files: List[FileEntry] = []
    for entry in await Get(DigestEntries, Digest, merged):
        if not entry.path.startswith(prefix):
            if isinstance(entry, Directory):
                continue
            raise field_error(
                target.address,
                "dependencies",
                f"brings the file {entry.path!r}, which Nix does not see, as it lies outside of "
                f"the flake's directory {request.directory!r}.",
                "Remove it, or move the flake to a directory above both (`installable='..#name'`).",
            )
        path = entry.path[len(prefix) :]
        if isinstance(entry, FileEntry):
            number = str(len(files))
            files.append(FileEntry(f"in/{number}", entry.file_digest))
            entries.append(("x" if entry.is_executable else "f", path, number))
        elif isinstance(entry, SymlinkEntry):
            entries.append(("l", path, entry.target))
        elif path:
            entries.append(("d", path))
    return SourceTree(tuple(entries), await Get(Digest, CreateDigest(files)))


@rule(desc="Ask Nix", level=LogLevel.DEBUG)
async def ask_nix(request: NixAnswerRequest, _: NixAccess) -> NixAnswer:
    query = request.query
    scope = ProcessCacheScope.SUCCESSFUL
    if request.attempt or not query.pinned:
        scope = ProcessCacheScope.PER_SESSION
    result = await Get(
        ToolResult,
        LocalToolRun(
            ToolRun(
                "nix-closure",
                query.spec,
                query.input_digest,
                ("closure.json",),
                (),
                cache_scope=scope,
                attempt=request.attempt,
                description=f"Realising {query.address} with Nix",
            ),
            "Nix",
        ),
    )
    (file,) = await Get(DigestContents, Digest, result.digest)
    return NixAnswer(file.content)


def _fields_error(target: Target, output: str) -> DockerNixError:
    """The error for what the tool says on failing."""
    address = target.address
    attribute, outputs = target[NixAttributeField], target[NixOutputsField]
    if attribute.value and "in selection path" in output:
        alias, value = attribute.alias, repr(attribute.value)
    elif outputs.value and "it has no output" in output:
        alias, value = outputs.alias, repr(list(outputs.value))
    else:
        field = next(
            target[kind]
            for kind in (NixExpressionField, NixInstallableField, NixStorePathField)
            if target[kind].value is not None
        )
        alias, value = field.alias, repr(field.value)
        if attribute.value:
            value += f" with the attribute {attribute.value!r}"
    problem = output[len("error: ") :] if output.startswith("error: ") else output
    return field_error(address, alias, f"is {value}, which gives no package.", problem)


async def _query(target: Target, platform: Platform, version: str) -> Tuple[NixQuery, str]:
    """What to ask for the target; and, where it cannot be pinned, why."""
    address = target.address
    spec: Dict[str, Any] = {
        "outputs": target[NixOutputsField].value,
        "system": target[NixSystemField].value or _SYSTEMS[platform],
        "cache_version": version,
    }
    expression = target[NixExpressionField]
    installable = target[NixInstallableField]
    why = ""
    digest = EMPTY_DIGEST
    if expression.value is not None:
        path = os.path.join(address.spec_path, expression.value)
        hydrated = await Get(HydratedSources, HydrateSourcesRequest(expression))
        if path not in hydrated.snapshot.files:
            raise field_error(
                address,
                expression.alias,
                f"is {expression.value!r}, but there is no file {path!r}.",
                "Create the file, or check that Pants does not ignore it (`pants_ignore`, "
                "`.gitignore`). Of a directory, name its 'default.nix'.",
            )
        tree = await Get(SourceTree, SourceTreeRequest(target, hydrated.snapshot.digest))
        digest = tree.digest
        spec.update(
            kind="expression",
            expression=path,
            attribute=target[NixAttributeField].value,
            arguments=dict(target[NixArgumentsField].value or {}),
            source=tree.entries,
        )
    elif installable.value is not None:
        flake = parse_installable(installable.value, address.spec_path)
        local = flake.directory is not None
        spec.update(kind="flake", installable=flake.text, local=local, source=())
        spec["impure"] = target[NixImpureField].value
        if flake.directory is not None:
            tree = await _flake_tree(target, flake, flake.directory)
            digest = tree.digest
            spec["source"] = tree.entries
        if spec["impure"]:
            why = "impure=True"
        elif flake.unlocked_reference:
            why = f"{flake.unlocked_reference!r} names no commit (`?rev=…`) or hash (`?narHash=…`)"
    else:
        spec.update(kind="store_path", store_path=target[NixStorePathField].value)
        del spec["system"], spec["outputs"]
    spec["pinned"] = not why
    query = NixQuery(address, json.dumps(spec, sort_keys=True).encode(), digest, not why)
    return query, why


async def _flake_tree(target: Target, flake: Installable, directory: str) -> SourceTree:
    prefix = f"{directory}/" if directory else ""
    own = await Get(Digest, PathGlobs([f"{prefix}flake.nix", f"{prefix}flake.lock"]))
    tree = await Get(SourceTree, SourceTreeRequest(target, own, directory))
    if not any(entry[1] == "flake.nix" for entry in tree.entries):
        raise field_error(
            target.address,
            "installable",
            f"is {target[NixInstallableField].value!r}, but there is no file "
            f"'{prefix}flake.nix'.",
            "Give the directory of the flake, relative to this BUILD file, or create the file.",
        )
    return tree


_REMEDIES = {
    NixExpressionField: (
        "Pin it: fetch nixpkgs with a hash (`fetchTarball { url = …; sha256 = …; }`) instead of "
        "<nixpkgs>, and pass the system with arguments={'system': 'x86_64-linux'} instead of using "
        "builtins.currentSystem."
    ),
    NixInstallableField: (
        "Pin it: name a commit, and lock the flake's inputs (`nix flake lock`; flake.lock belongs "
        "into the repository)."
    ),
}


def _warn(target: Target, why: str) -> None:
    remedy = next(text for field, text in _REMEDIES.items() if target[field].value is not None)
    reason = why.replace("\n", "\n  ")
    logger.warning(
        f"The target {target.address} is not pinned: what it is depends on this machine, and its "
        "result is not cached, so that a machine without Nix cannot use it. The reason:\n\n"
        f"  {reason}\n\n{remedy}"
    )


# Not cacheable, so that it warns in each run: not only in the first one that a daemon serves.
@_uncacheable_rule(desc="Resolve a Nix package to store paths", level=LogLevel.DEBUG)
async def resolve_nix_package(
    request: NixClosureRequest, platform: Platform, options: DockerNixSubsystem
) -> StoreClosure:
    target = request.target
    if target[NixEnvironmentField].value != LOCAL_ENVIRONMENT_MATCHER:
        environment = await Get(
            EnvironmentName, EnvironmentNameRequest, EnvironmentNameRequest.from_target(target)
        )
        platform = await Get(Platform, EnvironmentName, environment)
    query, why = await _query(target, platform, options.nix_cache_version)
    try:
        answer = json.loads((await Get(NixAnswer, NixAnswerRequest(query))).content)
        if "unpinned" in answer:
            why = answer["unpinned"]
            spec = {**json.loads(query.spec), "pinned": False}
            query = replace(query, spec=json.dumps(spec, sort_keys=True).encode(), pinned=False)
            answer = json.loads((await Get(NixAnswer, NixAnswerRequest(query))).content)
    except ToolFailed as e:
        raise _fields_error(target, e.output) from e
    if why:
        _warn(target, why)
    listings = {
        root: tuple(_entry(*listed) for listed in listing)
        for root, listing in answer["listings"].items()
    }
    objects = tuple(
        StoreObject(
            path,
            EMPTY_DIGEST,
            references=tuple(references),
            origin=target.address,
            nix=NixPath(nar_hash, nar_size, query, listings.get(path, ())),
        )
        for path, nar_hash, nar_size, references in answer["paths"]
    )
    return StoreClosure(tuple(answer["roots"]), objects, answer["roots"][0])


def _entry(kind: str, path: str, *more: Any) -> Entry:
    if kind == "l":
        return Entry(kind, path, target=more[0])
    if kind == "d":
        return Entry(kind, path)
    return Entry(kind, path, sha256=more[0], size=more[1])


@rule(desc="Realise a store path again", level=LogLevel.DEBUG)
async def realise_again(request: RealiseRequest) -> Realised:
    origin = f"{request.path}, of {request.query.address}, is in no cache and not on this machine"
    try:
        asked = await Get(NixAnswer, NixAnswerRequest(request.query, attempt=1))
    except ToolFailed as e:
        raise DockerNixError(f"{origin}.\n\n{e.output}") from e
    answer = json.loads(asked.content)
    found = {path: nar_hash for path, nar_hash, *_ in answer.get("paths", ())}
    if request.path not in found:
        raise DockerNixError(
            f"{origin}, and Nix does not make it again: the target has become something else "
            "meanwhile.\n\nRun again."
        )
    if found[request.path] != request.nar_hash:
        raise DockerNixError(
            f"{origin}. Nix has made it again, but with other content: its NAR hash was "
            f"{request.nar_hash} and is {found[request.path]}, so its build is not reproducible."
            "\n\nSet [docker-nix].nix_cache_version to another value to ask Nix for everything "
            "again, or copy the path from where it was built first (`nix copy --from`)."
        )
    return Realised()


def rules() -> Iterable[object]:
    return (*collect_rules(), UnionRule(StoreClosureRequest, NixClosureRequest))
