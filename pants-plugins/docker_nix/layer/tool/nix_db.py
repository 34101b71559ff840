"""The Nix database of an image, with which `nix-store` in a container knows the image's paths.

The schema is that of Nix 2.8, which later versions read as well: Nix source, libstore/schema.sql.
The same paths always give the same bytes: IDs follow the sorted paths, and each path was
registered in the first second of 1970.
"""

from __future__ import annotations

from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.sqlite_file import Index, Table, Trigger
from docker_nix.layer.tool.sqlite_file import database as sqlite_database

TYPE_CHECKING = False
if TYPE_CHECKING:  # at run time, `typing` alone would take as long as a small layer
    from typing import Sequence, Union

    from docker_nix.layer.tool.sqlite_file import Row

    # ("d", path), ("f", path, content) or ("l", path, target)
    Entry = Union[tuple[str, str], tuple[str, str, bytes], tuple[str, str, str]]

REGISTRATION_TIME = 1
SCHEMA_VERSION = b"10"

_STATE = "nix/var/nix"
_DATABASE = f"{_STATE}/db"
_GC_ROOTS = f"{_STATE}/gcroots"
_ROOTS_OF_IMAGE = f"{_GC_ROOTS}/docker"

_VALID_PATHS = """\
CREATE TABLE ValidPaths (
    id integer primary key autoincrement not null,
    path text unique not null,
    hash text not null,
    registrationTime integer not null,
    deriver text,
    narSize integer,
    ultimate integer,
    sigs text,
    ca text
)"""
_VALID_PATHS_COLUMNS = "id path hash registrationTime deriver narSize ultimate sigs ca"
_REFS = """\
CREATE TABLE Refs (
    referrer integer not null,
    reference integer not null,
    primary key (referrer, reference),
    foreign key (referrer) references ValidPaths(id) on delete cascade,
    foreign key (reference) references ValidPaths(id) on delete restrict
)"""
_DELETE_SELF_REFS = """\
CREATE TRIGGER DeleteSelfRefs before delete on ValidPaths
begin
    delete from Refs where referrer = old.id and reference = old.id;
end"""
_DERIVATION_OUTPUTS = """\
CREATE TABLE DerivationOutputs (
    drv integer not null,
    id text not null,
    path text not null,
    primary key (drv, id),
    foreign key (drv) references ValidPaths(id) on delete cascade
)"""


class PathInfo:
    """What Nix knows about a store path.

    :param path: the full path, `/nix/store/<hash>-<name>`.
    :param nar_hash: `sha256:` and the hash of its NAR in hexadecimal.
    :param nar_size: the size of its NAR in bytes.
    :param references: the full paths that it refers to, itself included where it does.
    :param deriver: the full path of the derivation that it comes from.
    :param sigs: signatures of caches, `<key name>:<base 64>`.
    :param ca: what its path was computed from, where it was computed from its content.

    Raises ValueError for a hash of another form.
    """

    __slots__ = ("path", "nar_hash", "nar_size", "references", "deriver", "sigs", "ca")

    def __init__(
        self,
        path: str,
        nar_hash: str,
        nar_size: int,
        references: Sequence[str],
        deriver: str | None = None,
        sigs: Sequence[str] = (),
        ca: str | None = None,
    ) -> None:
        if not nar_hash.startswith("sha256:") or len(nar_hash) != len("sha256:") + 64:
            raise ValueError(f"{path}: {nar_hash} is not sha256: and 64 hexadecimal digits")
        self.path = path
        self.nar_hash = nar_hash
        self.nar_size = nar_size
        self.references = references
        self.deriver = deriver
        self.sigs = sigs
        self.ca = ca


def database(paths: Sequence[PathInfo]) -> bytes:
    """The file db.sqlite in which `paths`, in any order, are valid.

    Raises `ToolError` for a reference to a path that is not among them, and for two of one name.
    """
    ordered = sorted(paths, key=lambda info: info.path)
    ids = {info.path: number for number, info in enumerate(ordered, 1)}
    if len(ids) < len(ordered):
        twice = next(a.path for a, b in zip(ordered, ordered[1:]) if a.path == b.path)
        raise ToolError(f"{twice} would be in the Nix database twice")
    return sqlite_database(
        [
            Table(
                "ValidPaths",
                _VALID_PATHS,
                columns=_VALID_PATHS_COLUMNS.split(),
                rows=[_valid_path(ids[info.path], info) for info in ordered],
                rowid_column="id",
                autoincrement=True,
                unique=[["path"]],
            ),
            Table(
                "Refs",
                _REFS,
                columns=("referrer", "reference"),
                rows=[row for info in ordered for row in _refs(info, ids)],
                unique=[["referrer", "reference"]],
            ),
            Index(
                "IndexReferrer",
                "Refs",
                "CREATE INDEX IndexReferrer on Refs(referrer)",
                columns=["referrer"],
            ),
            Index(
                "IndexReference",
                "Refs",
                "CREATE INDEX IndexReference on Refs(reference)",
                columns=["reference"],
            ),
            Trigger("DeleteSelfRefs", "ValidPaths", _DELETE_SELF_REFS),
            Table(
                "DerivationOutputs",
                _DERIVATION_OUTPUTS,
                columns=("drv", "id", "path"),
                unique=[["drv", "id"]],
            ),
            Index(
                "IndexDerivationOutputs",
                "DerivationOutputs",
                "CREATE INDEX IndexDerivationOutputs on DerivationOutputs(path)",
                columns=["path"],
            ),
        ]
    )


def entries(paths: Sequence[PathInfo], roots: Sequence[str]) -> list[Entry]:
    """What an image needs for its Nix database, sorted by path, without owners and modes.

    :param paths: all store paths of the image.
    :param roots: the full store paths that garbage collection has to keep.

    Directories are ("d", path), files ("f", path, content), symlinks ("l", path, target), with
    paths relative to the image's root. Of the directories, `nix` itself is left to the caller. Nix
    writes into them, and to the database: they need the modes 0755 and 0644.

    Raises `ToolError` as `database` does, and for a root that is not among `paths`.
    """
    known = {info.path for info in paths}
    result: list[Entry] = [
        ("d", "nix/var"),
        ("d", _STATE),
        ("d", _DATABASE),
        ("f", f"{_DATABASE}/db.sqlite", database(paths)),
        ("f", f"{_DATABASE}/schema", SCHEMA_VERSION),
        ("d", _GC_ROOTS),
        ("d", _ROOTS_OF_IMAGE),
    ]
    for root in sorted(set(roots)):
        if root not in known:
            raise ToolError(f"{root} is to be kept by the garbage collection, but not in the image")
        result.append(("l", f"{_ROOTS_OF_IMAGE}/{root.rpartition('/')[2]}", root))
    return result


def _valid_path(number: int, info: PathInfo) -> Row:
    return (
        number,
        info.path,
        info.nar_hash,
        REGISTRATION_TIME,
        info.deriver,
        info.nar_size,
        None,  # ultimate: whether Nix built it on this very machine
        " ".join(info.sigs) or None,
        info.ca,
    )


def _refs(info: PathInfo, ids: dict[str, int]) -> list[Row]:
    try:
        references = sorted({ids[reference] for reference in info.references})
    except KeyError as error:
        raise ToolError(
            f"{info.path} refers to {error.args[0]}, which is not in the image"
        ) from None
    return [(ids[info.path], reference) for reference in references]
