from __future__ import annotations

import hashlib
import os
import random
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any, Sequence

import pytest

from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.nar import nar_hash_of_tree
from docker_nix.layer.tool.nix_db import PathInfo, database, entries

STORE = "/nix/store"


def store_path(name: str) -> str:
    digest = hashlib.sha256(name.encode()).hexdigest().replace("e", "x")  # no "e" in base 32
    return f"{STORE}/{digest[:32]}-{name}"


def info(name: str, *references: str, **fields: Any) -> PathInfo:
    digest = hashlib.sha256(name.encode()).hexdigest()
    paths = [store_path(reference) for reference in references]
    return PathInfo(store_path(name), f"sha256:{digest}", len(name) * 8, paths, **fields)


def closure(count: int, references: int) -> list[PathInfo]:
    """Paths that refer to themselves, and each to some `references` of those before it."""
    names = [f"package-{number}" for number in range(count)]
    paths = []
    for number, name in enumerate(names):
        steps = range(references if number else 0)
        others = [names[(number * 31 + step * step * 7) % number] for step in steps]
        paths.append(info(name, name, *others))
    return paths


def check(connection: sqlite3.Connection) -> None:
    assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
    assert connection.execute("pragma quick_check").fetchall() == [("ok",)]
    assert connection.execute("pragma foreign_key_check").fetchall() == []


def opened(directory: Path, data: bytes) -> Any:
    """A connection to the database `data`, after SQLite has found nothing wrong with it."""
    (directory / "db.sqlite").write_bytes(data)
    connection = sqlite3.connect(directory / "db.sqlite")
    check(connection)
    connection.execute("pragma foreign_keys = on")
    return closing(connection)


def content(connection: sqlite3.Connection) -> dict[str, list[Any]]:
    """The rows of all tables."""
    query = "select name from sqlite_master where type = 'table'"
    return {
        name: connection.execute(f"select rowid, * from {name} order by rowid").fetchall()
        for (name,) in connection.execute(query).fetchall()
    }


def content_by_sqlite(statements: Sequence[str], paths: Sequence[PathInfo]) -> dict[str, list[Any]]:
    """What `content` gives for a database that SQLite made with the same schema and `paths`."""
    paths = sorted(paths, key=lambda path: path.path)
    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.executemany(
            "insert into ValidPaths(path, hash, registrationTime, narSize) values (?, ?, 1, ?)",
            [(path.path, path.nar_hash, path.nar_size) for path in paths],
        )
        ids = dict(connection.execute("select path, id from ValidPaths"))
        connection.executemany(
            "insert into Refs values (?, ?)",
            sorted({(ids[path.path], ids[ref]) for path in paths for ref in path.references}),
        )
        return content(connection)


@pytest.mark.parametrize("count, references", [(0, 0), (1, 0), (50, 7), (5000, 10)])
def test_same_content_as_sqlite(tmp_path: Path, count: int, references: int) -> None:
    paths = closure(count, references)
    with opened(tmp_path, database(paths)) as connection:
        query = "select sql from sqlite_master where sql not null and name not like 'sqlite_%'"
        statements = [row[0] for row in connection.execute(query)]
        assert content(connection) == content_by_sqlite(statements, paths)


def test_rows(tmp_path: Path) -> None:
    drv, ca = store_path("b.drv"), "fixed:r:sha256:0"
    b = info("b", "b", deriver=drv, sigs=["cache-1:c2ln", "cache-2:c2ln"], ca=ca)
    a = info("a", "b")
    assert b.path < a.path
    with opened(tmp_path, database([a, b])) as connection:
        assert connection.execute("select * from ValidPaths").fetchall() == [
            (1, b.path, b.nar_hash, 1, drv, 8, None, "cache-1:c2ln cache-2:c2ln", ca),
            (2, a.path, a.nar_hash, 1, None, 8, None, None, None),
        ]
        assert connection.execute("select * from Refs").fetchall() == [(1, 1), (2, 1)]
        assert connection.execute("select * from DerivationOutputs").fetchall() == []
        sequence = connection.execute("select * from sqlite_sequence").fetchall()
        assert sequence == [("ValidPaths", 2)]


def test_queries_use_the_indexes(tmp_path: Path) -> None:
    queries = {
        f"select id from ValidPaths where path = '{store_path('a')}'": "sqlite_autoindex_ValidP",
        "select * from Refs where referrer = 1 and reference = 2": "sqlite_autoindex_Refs_1",
        "select * from Refs indexed by IndexReferrer where referrer = 1": "IndexReferrer",
        "select * from Refs where reference = 2": "IndexReference",
        "select * from DerivationOutputs where path = ''": "IndexDerivationOutputs",
        "select * from DerivationOutputs where drv = 1 and id = ''": "sqlite_autoindex_Deriv",
    }
    with opened(tmp_path, database([info("a", "b"), info("b")])) as connection:
        for query, index in queries.items():
            assert index in connection.execute(f"explain query plan {query}").fetchone()[3]


def test_sqlite_goes_on_with_it(tmp_path: Path) -> None:
    paths = [info("app", "lib", "app"), info("lib", "lib"), info("other")]
    delete = "delete from ValidPaths where path = ?"
    with opened(tmp_path, database(paths)) as connection:
        with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
            connection.execute(delete, [store_path("lib")])
        connection.execute(delete, [store_path("app")])
        connection.execute(delete, [store_path("lib")])
        assert connection.execute("select * from Refs").fetchall() == []
        insert = "insert into ValidPaths(path, hash, registrationTime) values (?, 'h', 5)"
        assert connection.execute(insert, [store_path("new")]).lastrowid == 4
        check(connection)


def test_long_and_unicode_texts(tmp_path: Path) -> None:
    names = ["é", "日本" * 2000, "x" * 10_000, "\U0001f600" * 300]
    paths = [info(name, names[0], deriver=store_path(f"{name}.drv")) for name in names]
    with opened(tmp_path, database(paths)) as connection:
        query = "select path, deriver from ValidPaths where path = ?"
        for path in paths:
            rows = connection.execute(query, [path.path]).fetchall()
            assert rows == [(path.path, path.deriver)]


def test_bytes_depend_on_content_only() -> None:
    paths = closure(100, 10)
    in_order = database(paths)
    shuffled = []
    random_ = random.Random(2)
    for path in random_.sample(paths, len(paths)):
        references = random_.sample(path.references, len(path.references)) * 2
        shuffled.append(PathInfo(path.path, path.nar_hash, path.nar_size, references))
    assert database(shuffled) == in_order


def test_bytes_are_the_same_everywhere() -> None:
    digest = hashlib.sha256(database(closure(100, 10))).hexdigest()
    assert digest == "30f0ae0f3d23926876f0d0f3ad6a89bb574a2c40751a1f552f721f1629b4eb02"


def test_unknown_reference() -> None:
    with pytest.raises(ToolError) as raised:
        database([info("a", "b")])
    message = f"{store_path('a')} refers to {store_path('b')}, which is not in the image"
    assert str(raised.value) == message


def test_path_twice() -> None:
    with pytest.raises(ToolError, match=f"{store_path('a')} would be in the Nix database twice"):
        database([info("a"), info("b"), info("a")])


@pytest.mark.parametrize("nar_hash", ["0" * 64, "sha256:" + "0" * 52, "md5:" + "0" * 64])
def test_hash_of_another_form(nar_hash: str) -> None:
    with pytest.raises(ValueError, match=f"/nix/store/x: {nar_hash} is not"):
        PathInfo("/nix/store/x", nar_hash, 0, [])


def test_entries() -> None:
    paths = [info("a"), info("b"), info("c")]
    a, c = store_path("a"), store_path("c")
    result = entries(paths, [c, a, c])
    links = [("l", f"nix/var/nix/gcroots/docker/{os.path.basename(x)}", x) for x in (a, c)]
    assert result == [
        ("d", "nix/var"),
        ("d", "nix/var/nix"),
        ("d", "nix/var/nix/db"),
        ("f", "nix/var/nix/db/db.sqlite", database(paths)),
        ("f", "nix/var/nix/db/schema", b"10"),
        ("d", "nix/var/nix/gcroots"),
        ("d", "nix/var/nix/gcroots/docker"),
        *sorted(links),
    ]
    assert [entry[1] for entry in result] == sorted(entry[1] for entry in result)


def test_unknown_root() -> None:
    with pytest.raises(ToolError, match=f"{store_path('b')} is to be kept"):
        entries([info("a")], [store_path("b")])


class Nix:
    """Nix' own tools, at work on a store that needs no root and no /nix."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "root"
        self._env = {
            "HOME": str(directory / "home"),
            "LC_ALL": "C.UTF-8",
            "NIX_CONFIG": "build-users-group =\nsandbox = false\nsubstitute = false\n",
            "NIX_REMOTE": str(self.root),
            "PATH": os.environ["PATH"],
        }

    def run(self, *args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        assert shutil.which("nix-store"), "install Nix (on Debian the package nix-bin)"
        command = ["nix-store", *args]
        return subprocess.run(command, env=self._env, input=stdin, capture_output=True, text=True)

    def store(self, *args: str, stdin: str = "") -> list[str]:
        """The lines that `nix-store` writes."""
        done = self.run(*args, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def install(self, *result: Any) -> None:
        """Writes what `entries` returned."""
        for kind, path, *data in result:
            target = self.root / path
            if kind == "d":
                target.mkdir(exist_ok=True, parents=True)
            elif kind == "f":
                target.write_bytes(data[0])
            else:
                target.symlink_to(data[0])

    def add_files(self, name: str, content: str, *references: str) -> PathInfo:
        """A store path with two files, whose bytes tell what it refers to."""
        path = store_path(name)
        physical = self.root / path[1:]
        physical.mkdir(parents=True)
        (physical / "references").write_text("\n".join(map(store_path, references)))
        (physical / "content").write_text(content)
        for file in (*physical.iterdir(), physical):
            file.chmod(0o555 if file.is_dir() else 0o444)
            os.utime(file, (1, 1))
        digest, size = nar_hash_of_tree(physical)
        paths = [store_path(reference) for reference in references]
        return PathInfo(path, f"sha256:{digest}", size, paths)

    def rows(self) -> dict[str, list[Any]]:
        """What the database holds, without IDs and times."""
        with closing(sqlite3.connect(self.root / "nix/var/nix/db/db.sqlite")) as connection:
            queries = {
                "ValidPaths": "select path, hash, deriver, narSize, ultimate, sigs, ca "
                "from ValidPaths order by path",
                "Refs": "select a.path, b.path from Refs join ValidPaths a on a.id = referrer "
                "join ValidPaths b on b.id = reference order by a.path, b.path",
                "DerivationOutputs": "select * from DerivationOutputs",
            }
            return {name: connection.execute(query).fetchall() for name, query in queries.items()}

    def schema(self) -> set[tuple[str, ...]]:
        """The statements of the schema, without comments, white space and upper case."""
        with closing(sqlite3.connect(self.root / "nix/var/nix/db/db.sqlite")) as connection:
            rows = connection.execute("select type, name, tbl_name, sql from sqlite_master")
            return {(*row[:3], _normal(row[3] or "")) for row in rows}


def _normal(sql: str) -> str:
    without_comments = " ".join(line.partition("--")[0] for line in sql.splitlines())
    return "".join(without_comments.split()).lower()


@pytest.fixture
def nix(tmp_path: Path) -> Nix:
    return Nix(tmp_path)


@pytest.fixture
def image(nix: Nix) -> list[PathInfo]:
    """A store with our database: app needs lib and itself, lib needs dep, and nothing loner."""
    paths = [
        nix.add_files("app", "the app", "lib", "app"),
        nix.add_files("lib", "the library", "dep"),
        nix.add_files("dep", "what it needs"),
        nix.add_files("loner", "nobody needs it"),
    ]
    nix.install(*entries(paths, [store_path("app")]))
    return paths


def _sorted(*names: str) -> list[str]:
    return sorted(map(store_path, names))


def test_nix_answers_queries(nix: Nix, image: list[PathInfo]) -> None:
    app, lib, dep, loner = map(store_path, ("app", "lib", "dep", "loner"))
    assert sorted(nix.store("-qR", app)) == _sorted("app", "lib", "dep")
    assert sorted(nix.store("-q", "--requisites", lib)) == _sorted("lib", "dep")
    assert sorted(nix.store("-q", "--references", app)) == _sorted("app", "lib")
    assert nix.store("-q", "--referrers", dep) == [lib]
    assert sorted(nix.store("-q", "--referrers-closure", dep)) == _sorted("app", "lib", "dep")
    assert nix.store("-q", "--references", loner) == []
    assert nix.store("-q", "--hash", app) != nix.store("-q", "--hash", lib)
    assert nix.store("-q", "--size", app) == [str(image[0].nar_size)]
    assert nix.store("-q", "--deriver", app) == ["unknown-deriver"]


def test_nix_verifies_it(nix: Nix, image: list[PathInfo]) -> None:
    nix.store("--verify", "--check-contents")
    nix.store("--verify-path", *(path.path for path in image))


def test_nix_finds_damage(nix: Nix, image: list[PathInfo]) -> None:
    damaged = nix.root / image[2].path[1:] / "content"
    damaged.chmod(0o644)
    damaged.write_text("something else")
    done = nix.run("--verify", "--check-contents")
    assert done.returncode == 1
    assert f"path '{image[2].path}' was modified" in done.stderr


def test_nix_collects_garbage(nix: Nix, image: list[PathInfo]) -> None:
    assert nix.store("--gc", "--print-dead") == [store_path("loner")]
    assert sorted(nix.store("--gc", "--print-live")) == _sorted("app", "lib", "dep")
    assert "1 store paths deleted" in nix.store("--gc")[-1]
    assert not (nix.root / store_path("loner")[1:]).exists()
    for root in (nix.root / "nix/var/nix/gcroots/docker").iterdir():
        root.unlink()
    assert "3 store paths deleted" in nix.store("--gc")[-1]
    assert nix.rows() == {"ValidPaths": [], "Refs": [], "DerivationOutputs": []}


def test_nix_adds_to_it(nix: Nix, image: list[PathInfo], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")
    (added,) = nix.store("--add", str(tmp_path / "file"))
    assert nix.store("-q", "--size", added) == ["120"]
    nix.store("--verify", "--check-contents")
    assert len(nix.rows()["ValidPaths"]) == 5


def test_same_rows_and_schema_as_nix(tmp_path: Path) -> None:
    paths = [*closure(30, 4), info("built", "package-1", deriver=store_path("built.drv"))]
    lines = []
    for path in paths:
        references = sorted(set(path.references))
        lines += [path.path, path.nar_hash[len("sha256:") :], str(path.nar_size)]
        lines += [path.deriver or "", str(len(references)), *references]
    registration = "\n".join(lines) + "\n"

    theirs = Nix(tmp_path / "theirs")
    theirs.store("--load-db", stdin=registration)
    ours = Nix(tmp_path / "ours")
    ours.install(*entries(paths, []))
    assert ours.rows() == theirs.rows()
    assert ours.schema() == theirs.schema()
    schema_versions = [(x.root / "nix/var/nix/db/schema").read_bytes() for x in (ours, theirs)]
    assert schema_versions == [b"10", b"10"]
    assert ours.store("--dump-db") == theirs.store("--dump-db")
