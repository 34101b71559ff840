from __future__ import annotations

import hashlib
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Iterator, Sequence

import pytest

from docker_nix.layer.tool import sqlite_file
from docker_nix.layer.tool.sqlite_file import Index, Table, Trigger, database

# Lengths around which a record changes its form: sizes of varints, and of what is on a page.
LENGTHS = sorted(
    {
        edge + offset
        for edge in (0, 57, 127, 489, 1002, 4061, 4092, 4581, 5094, 8153, 8192, 8673, 16384)
        for offset in range(-14, 15)
        if edge + offset >= 0
    }
)
INTEGERS = sorted(
    {
        sign * ((1 << bits) + offset)
        for bits in (0, 7, 8, 14, 15, 16, 21, 23, 24, 31, 32, 47, 48, 56, 62)
        for offset in (-1, 0, 1)
        for sign in (-1, 1)
    }
    | {(1 << 63) - 1, -(1 << 63)}
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "db.sqlite"


def opened(path: Path, data: bytes) -> Any:
    """A connection to the database `data`, after SQLite has found nothing wrong with it."""
    path.write_bytes(data)
    connection = sqlite3.connect(path)
    check(connection)
    return closing(connection)


def check(connection: sqlite3.Connection) -> None:
    assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
    assert connection.execute("pragma quick_check").fetchall() == [("ok",)]
    assert connection.execute("pragma foreign_key_check").fetchall() == []


def content(connection: sqlite3.Connection) -> dict[str, list[Any]]:
    """The schema, without page numbers, and the rows of all tables."""
    schema = "select type, name, tbl_name, sql from sqlite_master order by rowid"
    result = {"schema": connection.execute(schema).fetchall()}
    for kind, name, *_ in result["schema"]:
        if kind == "table":
            rows = connection.execute(f'select rowid, * from "{name}" order by rowid')
            result[name] = rows.fetchall()
    return result


def content_by_sqlite(objects: Sequence[Table | Index | Trigger]) -> dict[str, list[Any]]:
    """What `content` gives for a database that SQLite made with the same statements and rows."""
    with closing(sqlite3.connect(":memory:")) as connection:
        for item in objects:
            connection.execute(item.sql or "")
            if isinstance(item, Table):
                marks = ", ".join("?" * len(item.columns))
                rows = item.rows_by_id.values()
                connection.executemany(f'insert into "{item.name}" values ({marks})', rows)
        check(connection)
        return content(connection)


def assert_same_as_sqlite(path: Path, objects: Sequence[Table | Index | Trigger]) -> None:
    with opened(path, database(objects)) as connection:
        assert content(connection) == content_by_sqlite(objects)


def key_value(rows: Sequence[Any], name: str = "kv") -> Table:
    sql = f"CREATE TABLE {name}(k integer primary key, v)"
    return Table(name, sql, ["k", "v"], rows, rowid_column="k")


def index_on(column: str, table: str = "kv") -> Index:
    name = f"{table}_{column}"
    return Index(name, table, f"CREATE INDEX {name} on {table}({column})", [column])


def two_tables(rows: Sequence[Any]) -> list[Table | Index | Trigger]:
    """A table of everything that this module knows, and one for its trigger to write to."""
    return [
        Table(
            "t",
            "CREATE TABLE t(id integer primary key autoincrement, a text unique, b integer, "
            "unique (b, a))",
            ["id", "a", "b"],
            rows,
            rowid_column="id",
            autoincrement=True,
            unique=[["a"], ["b", "a"]],
        ),
        Table("log", "CREATE TABLE log(what text not null)", ["what"], [["created"]]),
        index_on("b", "t"),
        Trigger(
            "on_delete",
            "t",
            "CREATE TRIGGER on_delete before delete on t begin insert into log values (old.a); end",
        ),
    ]


def test_no_objects(path: Path) -> None:
    with opened(path, database([])) as connection:
        assert content(connection) == {"schema": []}
        connection.execute("create table t(x)")
        check(connection)
    assert len(database([])) == 4096


@pytest.mark.parametrize("count", [0, 1, 2, 50, 5000])
def test_same_content_as_sqlite(path: Path, count: int) -> None:
    rows = [(number * 3, f"n{number * 7919 % 5003}", number % 10) for number in range(count)]
    assert_same_as_sqlite(path, two_tables(rows))


def test_header(path: Path) -> None:
    data = database([key_value([(number, "x" * 100) for number in range(1000)])])
    assert data[96:100] == (3038002).to_bytes(4, "big")
    with opened(path, data) as connection:
        pragmas = ("journal_mode", "page_size", "encoding", "page_count", "freelist_count")
        values = [connection.execute(f"pragma {name}").fetchone()[0] for name in pragmas]
    assert values == ["delete", 4096, "UTF-8", len(data) // 4096, 0]


def test_every_kind_of_value(path: Path) -> None:
    texts = ["", "a", "A", "é", "日本", "\U0001f600", "\uffff", "\ue000", "a\0b", "a" * 200]
    values = [None, None, *INTEGERS, *texts, *(text.encode() for text in texts), b"\xff\0"]
    rows = list(enumerate(values))
    random.Random(1).shuffle(rows)
    assert_same_as_sqlite(path, [key_value(rows), index_on("v"), index_on("k")])
    with opened(path, database([key_value(rows), index_on("v")])) as connection:
        query = "select v from kv indexed by kv_v order by v"
        by_index = [row[0] for row in connection.execute(query)]
        by_sorting = connection.execute("select v from kv not indexed order by v")
        assert by_index == [row[0] for row in by_sorting]
        assert by_index[:3] == [None, None, -(1 << 63)]


def test_every_kind_of_row_id(path: Path) -> None:
    rows = [(number, str(number)) for number in INTEGERS]
    assert_same_as_sqlite(path, [key_value(rows), index_on("v")])


def test_every_form_of_record(path: Path) -> None:
    rows = [(length, f"{length:x<{length}}"[:length]) for length in LENGTHS]
    assert_same_as_sqlite(path, [key_value(rows), index_on("v")])


@pytest.mark.parametrize("columns", [1, 126, 127, 128, 500])
def test_many_columns(path: Path, columns: int) -> None:
    names = [f"c{number}" for number in range(columns)]
    rows: list[Any] = [[number * 7 for number in range(columns)], [None] * columns, ["x"] * columns]
    table = Table("wide", f"CREATE TABLE wide({', '.join(names)})", names, rows)
    assert_same_as_sqlite(path, [table, index_on(names[-1], "wide")])


def test_every_number_of_rows(path: Path) -> None:
    """A page holds 4 of these keys: 120 of them make three levels, which end in all ways."""
    for count in range(120):
        rows = [(number, f"{number:1000}") for number in range(count)]
        assert_same_as_sqlite(path, [key_value(rows), index_on("v")])


def test_table_of_three_levels(path: Path) -> None:
    rows = [(number << 40, "x" * 4000) for number in range(1000)]
    assert_same_as_sqlite(path, [key_value(rows)])


def test_random_rows(path: Path) -> None:
    random_ = random.Random(2)

    def values() -> Iterator[Any]:
        while True:
            yield random_.choice(INTEGERS)
            yield "".join(random_.choices("aé日\U0001f600", k=random_.choice([1, 9, 300, 1500])))
            yield bytes(random_.randrange(256) for _ in range(random_.choice([0, 5, 600])))
            yield None

    value = values()
    for _ in range(5):
        rows = [(next(value), next(value), next(value)) for _ in range(random_.randrange(800))]
        table = Table("t", "CREATE TABLE t(a, b, c)", ["a", "b", "c"], rows)
        two = Index("two", "t", "CREATE INDEX two on t(c, b)", ["c", "b"])
        assert_same_as_sqlite(path, [table, two, index_on("a", "t")])


def test_schema_of_several_pages(path: Path) -> None:
    objects: list[Any] = []
    for number in range(200):
        objects.append(key_value([(1, number)], name=f"table_{number}"))
        objects.append(index_on("v", f"table_{number}"))
    assert_same_as_sqlite(path, objects)


def test_every_length_of_statement(path: Path) -> None:
    """Page 1 has 100 bytes less than others, so some statements do not fit into it."""
    for length in [*range(3850, 4100), 10_000]:
        table = key_value([(1, 2)])
        table.sql = table.sql[:-1].ljust(length - 1) + ")"
        with opened(path, database([table])) as connection:
            assert content(connection)["schema"] == [("table", "kv", "kv", table.sql)]
            connection.execute("create table other(x)")
            check(connection)


def test_queries_use_the_indexes(path: Path) -> None:
    rows = [(number, f"n{number}", number % 10) for number in range(1000)]
    plans = {
        "a = 'n77'": ("sqlite_autoindex_t_1", [77]),
        "b = 7 and a = 'n77'": ("sqlite_autoindex_t_", [77]),
        "b = 7 and id < 30": ("t_b", [7, 17, 27]),
        "id = 5": ("INTEGER PRIMARY KEY", [5]),
    }
    with opened(path, database(two_tables(rows))) as connection:
        for condition, (used, ids) in plans.items():
            query = f"select id from t where {condition}"
            assert used in connection.execute(f"explain query plan {query}").fetchone()[3]
            assert [row[0] for row in connection.execute(query)] == ids


def test_sqlite_goes_on_with_it(path: Path) -> None:
    rows = [(number, f"{number:500}", number % 10) for number in range(1, 1001)]
    with opened(path, database(two_tables(rows))) as connection:
        connection.execute("delete from t where id = 1000")
        assert connection.execute("insert into t(a, b) values ('new', 1)").lastrowid == 1001
        with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
            connection.execute("insert into t(a, b) values ('new', 2)")
        connection.execute("delete from t where b = 3")
        logged = connection.execute("select count(*), min(what) from log").fetchone()
        assert logged == (102, f"{3:500}")
        check(connection)
        more = [(f"{number}:{'y' * (number % 3000)}", number) for number in range(2000)]
        connection.executemany("insert into t(a, b) values (?, ?)", more)
        connection.execute("delete from t where id % 3 = 0")
        connection.commit()
        check(connection)
        connection.execute("vacuum")
        check(connection)


def test_autoincrement_of_two_tables(path: Path) -> None:
    tables = [
        Table(
            name,
            f"CREATE TABLE {name}(id integer primary key autoincrement)",
            ["id"],
            rows,
            rowid_column="id",
            autoincrement=True,
        )
        for name, rows in {"a": [[5], [3]], "empty": [], "b": [[1 << 40]]}.items()
    ]
    assert_same_as_sqlite(path, tables)
    with opened(path, database(tables)) as connection:
        assert connection.execute("insert into a values (null)").lastrowid == 6
        assert connection.execute("insert into empty values (null)").lastrowid == 1


def test_null_is_never_twice_in_unique_columns(path: Path) -> None:
    assert_same_as_sqlite(path, two_tables([(1, None, 1), (2, None, 1), (3, "a", None)]))


@pytest.mark.parametrize(
    "rows, error",
    [
        ([(1, "a", 1), (2, "a", 2)], "the table t has .'a',. twice"),
        ([(1, "a", 1), (1, "b", 2)], "same ID"),
        ([(None, "a", 1)], "None cannot be the ID"),
        ([("1", "a", 1)], "'1' cannot be the ID"),
        ([(1 << 63, "a", 1)], "9223372036854775808 cannot be the ID"),
        ([(1, "a", 1 << 63)], "9223372036854775808 does not fit"),
        ([(1, "a", -(1 << 63) - 1)], "-9223372036854775809 does not fit"),
    ],
)
def test_what_no_database_can_hold(rows: list[Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        database(two_tables(rows))


def test_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "_MAX_PAGES", 10)
    assert database([key_value([(1, "x" * 30_000)])])
    with pytest.raises(ValueError, match="1 GiB"):
        database([key_value([(1, "x" * 40_000)])])


def test_bytes_depend_on_content_only() -> None:
    rows = [(number, f"n{number % 1000}-{number}", number % 7) for number in range(-50, 2000)]
    in_order = database(two_tables(rows))
    random.Random(3).shuffle(rows)
    assert database(two_tables(rows)) == in_order
    assert database(two_tables(rows[1:])) != in_order


def test_bytes_are_the_same_everywhere() -> None:
    rows = [(number, f"{number:{length}}", number) for number, length in enumerate(LENGTHS)]
    digest = hashlib.sha256(database(two_tables(rows))).hexdigest()
    assert digest == "26abc681d58ef225c0b764fe4e5eeb6ab65ee80d0ac334f9b8f71257a381f517"
