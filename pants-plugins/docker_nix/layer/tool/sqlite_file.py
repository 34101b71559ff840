"""SQLite database files, as bytes that depend on nothing but their content.

The sqlite3 module would write the version of its library, and lay out pages as that version likes
to. Here a database is built from the bottom up, each b-tree in one go out of sorted rows.

Source of the format: sqlite.org, "Database File Format". Pages have 4096 bytes, text is UTF-8,
there is no write-ahead log. Values are None, int, str and bytes; columns are in BINARY collation.
What is missing: floating point numbers, tables WITHOUT ROWID, partial indexes, indexes on
expressions or in descending order.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:  # at run time, `typing` alone would take as long as a small layer
    from typing import Iterable, Iterator, Sequence, Union

    Value = Union[None, int, str, bytes]
    Row = Sequence[Value]

_PAGE_SIZE = 4096
_FILE_HEADER_SIZE = 100
# The page at 1 GiB is for locks, and must not be used.
_MAX_PAGES = (1 << 30) // _PAGE_SIZE

_INDEX_INTERIOR, _TABLE_INTERIOR, _INDEX_LEAF, _TABLE_LEAF = 2, 5, 10, 13
_POINTER_SIZE = 2
_LEAF_CAPACITY = _PAGE_SIZE - 8
_INTERIOR_CAPACITY = _PAGE_SIZE - 12

# How much of a record is on its b-tree page; the rest is on a chain of overflow pages.
_MAX_LOCAL_IN_TABLE = _PAGE_SIZE - 35
_MAX_LOCAL_IN_INDEX = (_PAGE_SIZE - 12) * 64 // 255 - 23
_MIN_LOCAL = (_PAGE_SIZE - 12) * 32 // 255 - 23
_OVERFLOW_CAPACITY = _PAGE_SIZE - 4

_INTEGER_LIMIT = 1 << 63
# Serial types: of 0 (1 is the next one), of blobs and text without any bytes, and of integers by
# the number of bytes that they take at least. The sizes are what they get.
_NULL, _ZERO, _BLOB, _TEXT = 0, 8, 12, 13
_INTEGER_SIZES = (1, 1, 2, 3, 4, 6, 6, 8, 8)
_INTEGER_TYPES = (1, 1, 2, 3, 4, 5, 5, 6, 6)

# Tells who wrote the file last. Any release would do, as long as it is always the same one.
_SQLITE_VERSION_NUMBER = 3038002


class Table:
    """A table and its rows.

    :param sql: its CREATE TABLE statement, as `sqlite_schema` shall have it.
    :param columns: the names of all columns, in order.
    :param rows: a value for each column, in any order of the rows. Values have to be what the
        column's type makes of them (no numbers in a text column), and fit its constraints.
    :param rowid_column: the column that is `integer primary key`. Without one, rows are numbered
        from 1 in the order given.
    :param autoincrement: whether that column is `autoincrement` as well.
    :param unique: the columns of each other `unique` or `primary key` constraint, in the order of
        the statement.

    Raises ValueError where two rows have one ID.
    """

    kind = "table"

    def __init__(
        self,
        name: str,
        sql: str,
        columns: Sequence[str],
        rows: Iterable[Row] = (),
        rowid_column: str | None = None,
        autoincrement: bool = False,
        unique: Sequence[Sequence[str]] = (),
    ) -> None:
        self.name = self.table = name
        self.sql = sql
        self.columns = list(columns)
        self.autoincrement = autoincrement
        self.unique = unique
        self.rows_by_id: dict[int, Row]
        self.rowid_position: int | None = None
        if rowid_column is None:
            self.rows_by_id = dict(enumerate(rows, 1))
        else:
            self.rowid_position = self.columns.index(rowid_column)
            self.rows_by_id = _by_id(rows, self.rowid_position)


class Index:
    """An index on the `columns` of `table`, made by the CREATE INDEX statement `sql`."""

    kind = "index"

    def __init__(
        self, name: str, table: str, sql: str | None, columns: Sequence[str], unique: bool = False
    ) -> None:
        self.name = name
        self.table = table
        self.sql = sql
        self.columns = columns
        self.unique = unique


class Trigger:
    """A trigger on `table`, made by the CREATE TRIGGER statement `sql`."""

    kind = "trigger"

    def __init__(self, name: str, table: str, sql: str) -> None:
        self.name = name
        self.table = table
        self.sql = sql


def database(objects: Sequence[Table | Index | Trigger]) -> bytes:
    """The database file with `objects`, each after the table that it belongs to.

    Raises ValueError for what no database can hold: two rows with the same values in unique
    columns, an integer of more than 64 bits, a file of more than 1 GiB.
    """
    pages = _Pages()
    tables: dict[str, Table] = {}
    schema: list[Row] = []
    for item in _with_implied(objects):
        root = 0
        if isinstance(item, Table):
            tables[item.name] = item
            root = _table_tree(pages, item)
        elif isinstance(item, Index):
            root = _index_tree(pages, item, tables[item.table])
        schema.append((item.kind, item.name, item.table, root, item.sql))
    columns = ("type", "name", "tbl_name", "rootpage", "sql")
    _table_tree(pages, Table("sqlite_schema", "", columns, schema))
    pages.move_root_to_page_1()
    return bytes(pages.data)


def _by_id(rows: Iterable[Row], position: int) -> dict[int, Row]:
    """`rows` in the order of their IDs, which are in the column at `position`."""
    pairs = [(_integer(row[position]), row) for row in rows]
    pairs.sort(key=lambda pair: pair[0])
    by_id = dict(pairs)
    if len(by_id) < len(pairs):
        raise ValueError("two rows have the same ID")
    return by_id


def _integer(value: Value) -> int:
    if not isinstance(value, int) or not -_INTEGER_LIMIT <= value < _INTEGER_LIMIT:
        raise ValueError(f"{value!r} cannot be the ID of a row")
    return value


def _with_implied(objects: Sequence[Table | Index | Trigger]) -> Iterator[Table | Index | Trigger]:
    """`objects` in order, and what SQLite makes on its own, where it would make it."""
    sequence_is_there = False
    for item in objects:
        yield item
        if not isinstance(item, Table):
            continue
        for number, columns in enumerate(item.unique, 1):
            name = f"sqlite_autoindex_{item.name}_{number}"
            yield Index(name, item.name, None, columns, unique=True)
        if item.autoincrement and not sequence_is_there:
            sequence_is_there = True
            yield _sequence(objects)


def _sequence(objects: Iterable[Table | Index | Trigger]) -> Table:
    """The table in which SQLite keeps the last ID of each `autoincrement` table that has rows."""
    rows = [
        (item.name, max(item.rows_by_id))
        for item in objects
        if isinstance(item, Table) and item.autoincrement and item.rows_by_id
    ]
    sql = "CREATE TABLE sqlite_sequence(name,seq)"
    return Table("sqlite_sequence", sql, ("name", "seq"), rows)


class _Pages:
    """The pages of a file. The first is left free until all others are there."""

    def __init__(self) -> None:
        self.data = bytearray(_PAGE_SIZE)

    def append(self, page: bytes) -> bytes:
        """Adds a page; returns its number as 4 bytes, the form of all references to pages."""
        self.data += page
        return self._count()

    def overflow(self, content: bytes) -> bytes:
        """Adds the chain of pages that holds `content`; returns the number of the first."""
        starts = range(0, len(content), _OVERFLOW_CAPACITY)
        following = bytes(4)
        for start in reversed(starts):
            piece = content[start : start + _OVERFLOW_CAPACITY]
            following = self.append(following + piece.ljust(_OVERFLOW_CAPACITY, b"\0"))
        return following

    def move_root_to_page_1(self) -> None:
        """Makes the last page, the root of `sqlite_schema`, the first, behind the file's header."""
        if _free_bytes(self.data[-_PAGE_SIZE:]) < _FILE_HEADER_SIZE:
            # Page 1 is the only one which may have a single child and no key.
            self.append(_page(_TABLE_INTERIOR, [], self._count()))
        root = self.data[-_PAGE_SIZE:]
        del self.data[-_PAGE_SIZE:]
        content = int.from_bytes(root[5:7], "big")
        root_page = root[: content - _FILE_HEADER_SIZE] + root[content:]
        self.data[:_PAGE_SIZE] = _file_header(self._count()) + root_page

    def _count(self) -> bytes:
        count = len(self.data) // _PAGE_SIZE
        if count > _MAX_PAGES:
            raise ValueError("a database of more than 1 GiB cannot be written")
        return count.to_bytes(4, "big")


def _file_header(page_count: bytes) -> bytes:
    change_counter = 1
    return struct.pack(
        ">16sH6BI4s10I20x2I",
        b"SQLite format 3\0",
        _PAGE_SIZE,
        1,  # format version for writing: no write-ahead log
        1,  # format version for reading
        0,  # reserved bytes at the end of each page
        64,  # this and the next two are fixed
        32,
        32,
        change_counter,
        page_count,
        0,  # first page of the free list
        0,  # pages in the free list
        1,  # schema cookie
        4,  # schema format: integers 0 and 1 without bytes of their own
        0,  # default size of the page cache
        0,  # largest root page, for auto-vacuum
        1,  # UTF-8
        0,  # user version
        0,  # incremental vacuum
        0,  # application ID
        change_counter,  # for which the number of pages is valid
        _SQLITE_VERSION_NUMBER,
    )


def _table_tree(pages: _Pages, table: Table) -> int:
    """Writes the b-tree with the rows of `table`; returns the number of its root page."""
    children: list[bytes] = []
    dividers: list[bytes] = []
    cells: list[bytes] = []
    room = _LEAF_CAPACITY
    last = b""
    for rowid, row in table.rows_by_id.items():
        if table.rowid_position is not None:
            row = (*row[: table.rowid_position], None, *row[table.rowid_position + 1 :])
        key = _varint(rowid)
        record = _record(row)
        cell = _varint(len(record)) + key + _local(pages, record, _MAX_LOCAL_IN_TABLE)
        if len(cell) + _POINTER_SIZE > room:
            children.append(pages.append(_page(_TABLE_LEAF, cells)))
            dividers.append(last)
            cells = []
            room = _LEAF_CAPACITY
        cells.append(cell)
        room -= len(cell) + _POINTER_SIZE
        last = key
    children.append(pages.append(_page(_TABLE_LEAF, cells)))
    return _interior_levels(pages, _TABLE_INTERIOR, children, dividers)


def _index_tree(pages: _Pages, index: Index, table: Table) -> int:
    """Writes the b-tree of `index`; returns the number of its root page."""
    cells = []
    for key in _index_keys(index, table):
        record = _record(key)
        cells.append(_varint(len(record)) + _local(pages, record, _MAX_LOCAL_IN_INDEX))
    groups, dividers = _split(cells, _LEAF_CAPACITY)
    children = [pages.append(_page(_INDEX_LEAF, group)) for group in groups]
    return _interior_levels(pages, _INDEX_INTERIOR, children, dividers)


def _interior_levels(pages: _Pages, kind: int, children: list[bytes], dividers: list[bytes]) -> int:
    """Writes what is above `children` up to the root, and returns the root's number.

    `dividers` are the keys between two children each, in the form of the tree's interior cells.
    """
    while dividers:
        cells = [child + divider for child, divider in zip(children, dividers)]
        groups, moved_up = _split(cells, _INTERIOR_CAPACITY)
        # A cell that moves up leaves its child behind, as the last one of the page before it.
        last_children = [cell[:4] for cell in moved_up] + children[-1:]
        children = [
            pages.append(_page(kind, group, last)) for group, last in zip(groups, last_children)
        ]
        dividers = [cell[4:] for cell in moved_up]
    return int.from_bytes(children[0], "big")


def _split(cells: list[bytes], capacity: int) -> tuple[list[list[bytes]], list[bytes]]:
    """Deals `cells` out to pages: returns those of each page, and those between, which move up."""
    groups: list[list[bytes]] = [[]]
    moved_up: list[bytes] = []
    room = capacity
    for cell in cells:
        size = len(cell) + _POINTER_SIZE
        if size <= room:
            groups[-1].append(cell)
            room -= size
        else:
            moved_up.append(cell)
            groups.append([])
            room = capacity
    if moved_up and not groups[-1]:
        groups[-1].append(moved_up[-1])
        moved_up[-1] = groups[-2].pop()
    return groups, moved_up


def _page(kind: int, cells: list[bytes], last_child: bytes = b"") -> bytes:
    """A page of a b-tree: header, pointers to the cells, and the cells from the end backwards."""
    start = _PAGE_SIZE
    pointers = []
    for cell in cells:
        start -= len(cell)
        pointers.append(start)
    count = len(cells)
    header = struct.pack(">BHHHB", kind, 0, count, start, 0) + last_child
    front = header + struct.pack(f">{count}H", *pointers)
    return front.ljust(start, b"\0") + b"".join(reversed(cells))


def _free_bytes(page: bytes) -> int:
    """The bytes between the pointers and the cells of a page."""
    kind, _, count, start = struct.unpack(">BHHH", page[:7])
    header_size = 12 if kind in (_INDEX_INTERIOR, _TABLE_INTERIOR) else 8
    return int(start) - header_size - count * _POINTER_SIZE


def _local(pages: _Pages, record: bytes, max_local: int) -> bytes:
    """What a cell holds of `record`, the rest of which goes to overflow pages."""
    if len(record) <= max_local:
        return record
    local = _MIN_LOCAL + (len(record) - _MIN_LOCAL) % _OVERFLOW_CAPACITY
    if local > max_local:
        local = _MIN_LOCAL
    return record[:local] + pages.overflow(record[local:])


def _index_keys(index: Index, table: Table) -> Iterator[Row]:
    """The keys of `index`, sorted: the values of its columns, and the rowid."""
    positions = [table.columns.index(column) for column in index.columns]
    keys = [(*(row[x] for x in positions), rowid) for rowid, row in table.rows_by_id.items()]
    keys.sort(key=_sort_key)
    previous = None
    for key in keys:
        columns = key[:-1]
        if index.unique and columns == previous and None not in columns:
            raise ValueError(f"the table {table.name} has {columns!r} twice in {index.columns!r}")
        previous = columns
        yield key


def _sort_key(values: Row) -> tuple[tuple[int, Value], ...]:
    return tuple(map(_rank, values))


def _rank(value: Value) -> tuple[int, Value]:
    """Sorts values as SQLite does. Strings compare by code point, the same as by UTF-8 bytes."""
    if value is None:
        return (0, 0)
    return (1 if isinstance(value, int) else 2 if isinstance(value, str) else 3, value)


def _record(values: Iterable[Value]) -> bytes:
    """A row, or a key of an index, in the record format."""
    types = bytearray()
    body = b""
    for value in values:
        if isinstance(value, int):
            if not -_INTEGER_LIMIT <= value < _INTEGER_LIMIT:
                raise ValueError(f"{value} does not fit into 64 bits")
            if value == 0 or value == 1:
                types.append(_ZERO + value)
            else:
                least = ((value if value >= 0 else ~value).bit_length() + 8) // 8
                types.append(_INTEGER_TYPES[least])
                body += value.to_bytes(_INTEGER_SIZES[least], "big", signed=True)
        elif value is None:
            types.append(_NULL)
        elif isinstance(value, str):
            content = value.encode()
            types += _varint(_TEXT + 2 * len(content))
            body += content
        else:
            types += _varint(_BLOB + 2 * len(value))
            body += value
    size = len(types) + 1  # the size of the header counts itself
    return _varint(size if size < 0x80 else size + 1) + types + body


def _varint(value: int) -> bytes:
    """A number as 1 to 9 bytes of 7 bits each, the highest first; the ninth byte has 8 bits."""
    if 0 <= value < 0x80:
        return bytes((value,))
    if 0 <= value < 0x4000:
        return bytes((value >> 7 | 0x80, value & 0x7F))
    value &= (1 << 64) - 1
    if value >> 56:
        return bytes([value >> shift & 0x7F | 0x80 for shift in range(57, 7, -7)] + [value & 0xFF])
    groups = [value & 0x7F]
    while value > 0x7F:
        value >>= 7
        groups.append(value & 0x7F | 0x80)
    return bytes(reversed(groups))
