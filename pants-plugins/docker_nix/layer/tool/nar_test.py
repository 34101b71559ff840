from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Callable

import pytest

from docker_nix.layer.tool import nar
from docker_nix.layer.tool.nar import NarHasher, nar_hash_of_tree, nar_order, nar_string
from docker_nix.resolve.store_path import source_path

HELLO = ("0a430879c266f8b57f4092a0f935cf3facd48bbccde5760d4748ca405171e969", 120)
DEP = "/nix/store/gxv3qypm353mppc37b42mzfnhcc5hczj-dep"


def tokens(*strings: bytes) -> bytes:
    return b"".join(map(nar_string, strings))


def add_file(hasher: NarHasher, path: bytes, data: bytes, executable: bool = False) -> None:
    hasher.begin_file(path, len(data), executable)
    hasher.data(data)
    hasher.end_file()


def random_bytes(random_: random.Random, size: int) -> bytes:
    return random_.getrandbits(size * 8 + 1).to_bytes(size + 1, "little")[:size]


def in_root() -> NarHasher:
    hasher = NarHasher()
    hasher.directory(b"")
    return hasher


def test_string_padding() -> None:
    for size in range(20):
        encoded = nar_string(b"x" * size)
        assert encoded.startswith(bytes([size, 0, 0, 0, 0, 0, 0, 0]) + b"x" * size)
        assert len(encoded) == 8 + (size + 7) // 8 * 8


def test_file_vector() -> None:
    hasher = NarHasher()
    add_file(hasher, b"", b"hello")
    assert hasher.finish() == HELLO


def test_chunks_do_not_matter() -> None:
    hasher = NarHasher()
    hasher.begin_file(b"", 5, False)
    for chunk in (b"", b"h", memoryview(b"ell"), bytearray(b"o"), b""):
        hasher.data(chunk)
    hasher.end_file()
    assert hasher.finish() == HELLO


def test_store_path_vectors(tmp_path: Path) -> None:
    (tmp_path / "dep").write_text("dep-content")
    assert source_path(nar_hash_of_tree(tmp_path / "dep")[0], "dep") == DEP
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/f").write_text(f"{DEP}\n")
    lib = source_path(nar_hash_of_tree(tmp_path / "lib")[0], "lib", [DEP])
    assert lib == "/nix/store/m12s0qn3rjipgqsqbva18jwmzfka8cay-lib"


def test_every_kind_of_node() -> None:
    written = bytearray()
    hasher = NarHasher(written.extend)
    hasher.directory(b"")
    hasher.directory(b"a")
    hasher.directory(b"a/empty")
    add_file(hasher, b"a/x", b"#!", executable=True)
    add_file(hasher, b"a-b", b"")
    hasher.symlink(b"l", b"/a")
    expected = tokens(b"nix-archive-1", b"(", b"type", b"directory")
    expected += tokens(b"entry", b"(", b"name", b"a", b"node", b"(", b"type", b"directory")
    expected += tokens(b"entry", b"(", b"name", b"empty", b"node", b"(", b"type", b"directory")
    expected += tokens(b")", b")")
    expected += tokens(b"entry", b"(", b"name", b"x", b"node", b"(", b"type", b"regular")
    expected += tokens(b"executable", b"", b"contents", b"#!", b")", b")", b")", b")")
    expected += tokens(b"entry", b"(", b"name", b"a-b", b"node", b"(", b"type", b"regular")
    expected += tokens(b"contents", b"", b")", b")")
    expected += tokens(b"entry", b"(", b"name", b"l", b"node", b"(", b"type", b"symlink")
    expected += tokens(b"target", b"/a", b")", b")", b")")
    assert hasher.finish() == (hashlib.sha256(expected).hexdigest(), len(expected))
    assert written == expected


@pytest.mark.parametrize(
    "size",
    [1, 1000, nar._BUFFER_SIZE - 1, nar._BUFFER_SIZE, nar._BUFFER_SIZE + 1, 1_000_003],
)
def test_big_contents_stream_through(size: int) -> None:
    """What the buffer holds back, and what goes round it, come out in order."""
    data = random_bytes(random.Random(1), 1_000_003)
    written: list[bytes] = []
    hasher = NarHasher(lambda chunk: written.append(bytes(chunk)))
    hasher.begin_file(b"", len(data), False)
    for start in range(0, len(data), size):
        hasher.data(data[start : start + size])
    hasher.end_file()
    expected = tokens(b"nix-archive-1", b"(", b"type", b"regular", b"contents", data, b")")
    assert hasher.finish() == (hashlib.sha256(expected).hexdigest(), len(expected))
    assert b"".join(written) == expected
    assert max(map(len, written)) <= max(size, 2 * nar._BUFFER_SIZE)


def test_nar_order_is_depth_first() -> None:
    random_ = random.Random(2)
    names = [b"a", b"a-b", b"a.b", b"a b", b"a\x01", b"b", "é".encode(), b"\xff", b"A", b"0"]
    for _ in range(500):
        paths = {
            b"/".join(random_.choice(names) for _ in range(random_.randint(1, 4)))
            for _ in range(20)
        }
        assert sorted(paths, key=nar_order) == sorted(paths, key=lambda path: path.split(b"/"))
    assert sorted([b"a.b", b"a-b", b"a/x", b"", b"a"], key=nar_order) == [
        b"",
        b"a",
        b"a/x",
        b"a-b",
        b"a.b",
    ]


@pytest.mark.parametrize(
    ("event", "complaint"),
    [
        (lambda h: h.directory(b""), "The root of a NAR comes first, and once"),
        (lambda h: h.symlink(b"b", b"x"), "'b' comes after 'b' of the same directory"),
        (lambda h: h.symlink(b"a", b"x"), "'a' comes after 'b' of the same directory"),
        (lambda h: h.symlink(b"b/x", b"x"), "'b/x' is out of order: its directory is not open"),
        (lambda h: h.symlink(b"a/x", b"x"), "'a/x' is out of order"),
        (lambda h: h.symlink(b"c/x", b"x"), "'c/x' is out of order"),
        (lambda h: h.symlink(b"/c", b"x"), "'/c' cannot be a path in a NAR"),
        (lambda h: h.symlink(b"c/", b"x"), "'c/' cannot be a path in a NAR"),
        (lambda h: h.symlink(b"..", b"x"), "'..' cannot be a path in a NAR"),
        (lambda h: h.symlink(b".", b"x"), "'.' cannot be a path in a NAR"),
        (lambda h: h.symlink(b"c\0", b"x"), "cannot be a path in a NAR"),
        (lambda h: h.symlink(b"c", b""), "'c' cannot have the target b''"),
        (lambda h: h.symlink(b"c", b"\0"), "'c' cannot have the target"),
        (lambda h: h.data(b"x"), "1 bytes belong to no file"),
        (lambda h: h.end_file(), "There is no file to end"),
        (lambda h: add_file(h, b"\xff/x", b""), r"'\\udcff/x' is out of order"),
    ],
)
def test_wrong_events(event: Callable[[NarHasher], None], complaint: str) -> None:
    hasher = in_root()
    hasher.directory(b"a")
    hasher.symlink(b"b", b"x")
    with pytest.raises(ValueError, match=complaint):
        event(hasher)


def test_nothing_beside_a_root_that_is_no_directory() -> None:
    hasher = NarHasher()
    hasher.symlink(b"", b"x")
    with pytest.raises(ValueError, match="'a' is out of order"):
        hasher.symlink(b"a", b"x")
    with pytest.raises(ValueError, match="The root of a NAR comes first, and once"):
        hasher.directory(b"")


def test_a_root_is_needed() -> None:
    with pytest.raises(ValueError, match="needs at least a root"):
        NarHasher().finish()
    with pytest.raises(ValueError, match="'a' is out of order"):
        NarHasher().symlink(b"a", b"x")


def test_wrong_sizes() -> None:
    hasher = in_root()
    hasher.begin_file(b"a", 3, False)
    hasher.data(b"12")
    with pytest.raises(ValueError, match="The file 'a' has 2 bytes instead of 3"):
        hasher.end_file()
    with pytest.raises(ValueError, match="The file 'a' was not ended"):
        hasher.directory(b"b")
    with pytest.raises(ValueError, match="The file 'a' was not ended"):
        hasher.finish()
    with pytest.raises(ValueError, match="The file 'a' has at least 4 bytes instead of 3"):
        hasher.data(b"34")


def test_special_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ValueError, match="fifo' is not a file, directory or symlink"):
        nar_hash_of_tree(tmp_path)


def make_awkward_tree(root: Path) -> None:
    """Names that sort in a treacherous way, every kind of node, sizes around the padding."""
    for directory in ("a/x/y", "a.b", "a-b", "empty", "é/ü", "日本", "a b", "sorted/Z", "sorted/a"):
        (root / directory).mkdir(parents=True)
    for name in (
        "a/x.y",
        "a/x-y",
        "a/x/z",
        "a.b/a",
        "a-c",
        "A",
        "é/ü/ö",
        "日本/語",
        "e\u0301",
        "-",
    ):
        (root / name).write_text(name)
    for size in (0, 1, 7, 8, 9, 15, 16, 17, 4096, 1_500_001):
        (root / f"size{size}").write_bytes(b"\xa5" * size)
    (root / "run").write_text("#!/bin/sh\n")
    (root / "run").chmod(0o700)
    (root / "group-executable").write_text("")
    (root / "group-executable").chmod(0o610)
    (root / "empty-executable").write_text("")
    (root / "empty-executable").chmod(0o755)
    (root / "dangling").symlink_to("no/such/file")
    (root / "absolute").symlink_to("/no/such/directory")
    (root / "to-directory").symlink_to("a/x")
    (root / "loop").symlink_to("loop")
    with open(os.path.join(os.fsencode(root), b"not-utf8-\xff\xfe"), "w") as file:
        file.write("x")
    deep = root / "deep"
    deep.mkdir()
    for _ in range(100):
        deep = deep / "d"
        deep.mkdir()


AddToNix = Callable[[Path], str]


@pytest.fixture
def add_to_nix(tmp_path: Path) -> AddToNix:
    """`nix-store --add` into a store of the test's own, which needs no root and no /nix."""
    nix_store = shutil.which("nix-store")
    if not nix_store:
        if os.environ.get("CI") == "true":
            pytest.fail("nix-store is not on the PATH, and in CI it has to be.")
        pytest.skip("nix-store is not on the PATH: install Nix to compare with it.")
    env = {
        "HOME": str(tmp_path / "home"),
        "LC_ALL": "C.UTF-8",
        "NIX_CONFIG": "build-users-group =\nsandbox = false\nsubstitute = false\n",
        "NIX_REMOTE": str(tmp_path / "store"),
        "PATH": os.environ["PATH"],
    }

    def add(path: Path) -> str:
        command = [str(nix_store), "--add", str(path)]
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True)
        return done.stdout.decode().strip()

    return add


def test_same_path_as_nix(tmp_path: Path, add_to_nix: AddToNix) -> None:
    trees = tmp_path / "trees"
    make_awkward_tree(trees / "awkward")
    (trees / "empty").mkdir()
    (trees / "one").mkdir()
    (trees / "one/f").write_text("f")
    (trees / "file").write_text("hello")
    (trees / "empty-file").write_text("")
    (trees / "program").write_text("#!/bin/sh\n")
    (trees / "program").chmod(0o755)
    (trees / "link").symlink_to("no/such/file")
    for tree in sorted(trees.iterdir()):
        assert source_path(nar_hash_of_tree(tree)[0], tree.name) == add_to_nix(tree), tree.name


def test_same_path_as_nix_for_random_trees(tmp_path: Path, add_to_nix: AddToNix) -> None:
    random_ = random.Random(3)
    characters = "ab-._ +é日\x01\x7f"
    for number in range(10):
        tree = tmp_path / f"tree{number}"
        directories = [tree]
        tree.mkdir()
        for _ in range(60):
            name = "".join(random_.choice(characters) for _ in range(random_.randint(1, 3)))
            path = random_.choice(directories) / f"{name}x"
            if os.path.lexists(path):
                continue
            kind = random_.choice("ddffxl")
            if kind == "d":
                path.mkdir()
                directories.append(path)
            elif kind == "l":
                path.symlink_to(name)
            else:
                path.write_bytes(random_bytes(random_, random_.randint(0, 40)))
                path.chmod(0o755 if kind == "x" else 0o644)
        assert source_path(nar_hash_of_tree(tree)[0], tree.name) == add_to_nix(tree)
