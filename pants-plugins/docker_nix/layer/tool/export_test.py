from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from docker_nix.layer.tool import export
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.tar_format import (
    BLOCK_DEVICE,
    CHARACTER_DEVICE,
    DIRECTORY,
    END,
    FIFO,
    FILE,
    HARDLINK,
    PADDING,
    SYMLINK,
    special_header,
)
from docker_nix.layer.tool.testing import library_dir

CAPABILITY = bytes.fromhex("0100000200240000000000000000000000000000")
DEEP = b"/".join([b"d%d" % number for number in range(300)])


def file(name: bytes, data: bytes = b"", mode: int = 0o644, **fields: Any) -> bytes:
    block = special_header(name, FILE, mode, len(data), **fields)
    return block + data + PADDING[len(data) % 512]


def directory(name: bytes, mode: int = 0o755, **fields: Any) -> bytes:
    return special_header(name, DIRECTORY, mode, **fields)


def symlink(name: bytes, target: bytes) -> bytes:
    return special_header(name, SYMLINK, 0o777, link=target)


def hardlink(name: bytes, target: bytes) -> bytes:
    return special_header(name, HARDLINK, 0o644, link=target)


def tree(root: str) -> dict[bytes, tuple[Any, ...]]:
    """What lies below a directory on disk: kinds, modes, contents, and who is whose hard link."""
    found: dict[bytes, tuple[Any, ...]] = {}
    first: dict[int, bytes] = {}
    top = os.fsencode(root)
    for above, directories, files in os.walk(top):
        for name in directories + files:
            path = os.path.join(above, name)
            status = os.lstat(path)
            relative = os.path.relpath(path, top)
            content: object = None
            if stat.S_ISREG(status.st_mode):
                content = Path(os.fsdecode(path)).read_bytes()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            links = status.st_nlink if not stat.S_ISDIR(status.st_mode) else 1
            found[relative] = (oct(status.st_mode), content, status.st_ino if links > 1 else None)
            if links > 1:
                first[status.st_ino] = min(first.get(status.st_ino, relative), relative)
    return {path: (*row[:2], first.get(row[2])) for path, row in found.items()}


class Image:
    """Layers as files, as an OCI image for umoci, and what `export` makes of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.layers: list[dict[str, str]] = []
        self.blobs = directory / "oci/blobs/sha256"
        self.blobs.mkdir(parents=True)

    def _blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (self.blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def layer(self, *members: bytes, compression: str = "gzip") -> Image:
        data = b"".join(members) + END
        blob = data
        if compression == "gzip":
            blob = gzip.compress(data)
        elif compression == "zstd":
            command = ["zstd", "-c"]
            blob = subprocess.run(command, input=data, check=True, stdout=subprocess.PIPE).stdout
        suffix = "" if compression == "none" else f"+{compression}"
        descriptor = self._blob(blob, f"application/vnd.oci.image.layer.v1.tar{suffix}")
        diff_id = f"sha256:{hashlib.sha256(data).hexdigest()}"
        path = self.blobs / descriptor["digest"][len("sha256:") :]
        self.layers.append({"file": str(path), "diff_id": diff_id, **descriptor})
        return self

    def spec(self) -> dict[str, Any]:
        return {
            "layers": [{key: layer[key] for key in ("file", "diff_id")} for layer in self.layers]
        }

    def export(self) -> bytes:
        output = self.directory / "rootfs.tar"
        export.write(self.spec()["layers"], str(output), str(library_dir()))
        data = output.read_bytes()
        output.unlink()
        return data

    def rows(self) -> list[tuple[Any, ...]]:
        """The members of what is exported: type, path, and content or link."""
        rows = []
        with tarfile.open(fileobj=io.BytesIO(self.export()), errors="surrogateescape") as tar:
            for info in tar:
                opened = tar.extractfile(info) if info.isreg() else None
                what = opened.read() if opened else info.linkname.encode()
                path = info.name.encode("utf-8", "surrogateescape")
                rows.append((info.type, path, what))
        return rows

    def exported(self) -> dict[bytes, tuple[Any, ...]]:
        """What GNU tar unpacks from what is exported."""
        target = self.directory / "exported"
        target.mkdir()
        subprocess.run(
            ["tar", "-xp", "--no-same-owner", "-C", str(target)], input=self.export(), check=True
        )
        return tree(str(target))

    def unpacked(self) -> dict[bytes, tuple[Any, ...]]:
        """What umoci unpacks from the image."""
        types = [{key: x[key] for key in ("mediaType", "digest", "size")} for x in self.layers]
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer["diff_id"] for layer in self.layers]},
        }
        manifest: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self._blob(
                json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"
            ),
            "layers": types,
        }
        entry = self._blob(json.dumps(manifest).encode(), manifest["mediaType"])
        entry["annotations"] = {"org.opencontainers.image.ref.name": "it"}
        oci = self.directory / "oci"
        (oci / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
        (oci / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        target = self.directory / "unpacked"
        subprocess.run(
            ["umoci", "raw", "unpack", "--rootless", "--image", f"{oci}:it", str(target)],
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        return tree(str(target))


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return Image(tmp_path)


# Each has the layers of an image, which umoci flattens to the same.
IMAGES: dict[str, list[list[bytes]]] = {
    "no layer has anything": [[], []],
    "upper files win": [
        [file(b"a", b"low"), file(b"b", b"low"), directory(b"d", 0o700), file(b"d/x", b"x")],
        [file(b"a", b"upper", 0o755), directory(b"d", 0o750), file(b"d/y", b"y")],
    ],
    "whiteouts": [
        [file(b"a"), directory(b"d"), file(b"d/x"), file(b"d/y"), directory(b"e"), file(b"e/f")],
        [file(b".wh.a"), file(b"d/.wh.x"), file(b".wh.e"), file(b"d/.wh.not-there")],
    ],
    "a whiteout and what comes instead": [
        [directory(b"d", 0o700), file(b"d/x", b"low")],
        [file(b".wh.d"), directory(b"d", 0o711), file(b"d/y", b"new")],
    ],
    "a whiteout after what it does not hide": [
        [directory(b"d"), file(b"d/x", b"low"), file(b"d/y", b"low")],
        [directory(b"d"), file(b"d/y", b"new"), file(b"d/.wh.y"), file(b"d/.wh.x")],
    ],
    "opaque directories": [
        [directory(b"d"), file(b"d/x"), directory(b"d/e"), file(b"d/e/f"), file(b"stays")],
        [directory(b"d", 0o750), file(b"d/.wh..wh..opq"), file(b"d/y")],
    ],
    "an opaque mark after what it does not hide": [
        [directory(b"d"), file(b"d/x"), directory(b"d/e"), file(b"d/e/f"), file(b"stays")],
        [directory(b"d"), file(b"d/y", b"new"), file(b"d/x", b"new"), file(b"d/.wh..wh..opq")],
    ],
    "hard links": [
        [file(b"b", b"data"), hardlink(b"a", b"b"), directory(b"d"), hardlink(b"d/c", b"a")],
        [file(b"new", b"x"), hardlink(b"z", b"new")],
    ],
    "a hard link to a file of a lower layer": [
        [file(b"low", b"data"), file(b"other", b"data")],
        [hardlink(b"link", b"low")],
    ],
    "a hard link whose target is removed": [
        [file(b"a", b"data"), hardlink(b"b", b"a"), hardlink(b"c", b"a")],
        [file(b".wh.a")],
    ],
    "a hard link whose target is replaced": [
        [file(b"a", b"data"), hardlink(b"b", b"a")],
        [file(b"a", b"other")],
    ],
    "a hard link to a symlink": [[symlink(b"a", b"nowhere"), hardlink(b"b", b"a")]],
    "hard links of empty files": [[file(b"a"), hardlink(b"b", b"a"), file(b"c")]],
    "a directory replaced by a file": [
        [directory(b"d"), directory(b"d/e"), file(b"d/e/f"), file(b"d/x")],
        [file(b"d", b"file")],
    ],
    "a directory replaced by a symlink": [
        [directory(b"d"), file(b"d/x"), directory(b"e"), file(b"e/y")],
        [symlink(b"d", b"e")],
    ],
    "a file replaced by a directory": [
        [file(b"d", b"file")],
        [directory(b"d", 0o711), file(b"d/x")],
    ],
    "a symlink replaced by a directory": [
        [directory(b"usr"), directory(b"usr/bin"), file(b"usr/bin/a"), symlink(b"bin", b"usr/bin")],
        [directory(b"bin"), file(b"bin/b")],
    ],
    "a symlink replaced by a file": [
        [file(b"target", b"stays"), symlink(b"link", b"target")],
        [file(b"link", b"new")],
    ],
    "below a symlink": [
        [directory(b"usr"), directory(b"usr/bin"), file(b"usr/bin/a"), symlink(b"bin", b"usr/bin")],
        [file(b"bin/b", b"b"), file(b"bin/a", b"new"), symlink(b"bin/c", b"b")],
    ],
    "a whiteout below a symlink": [
        [directory(b"usr"), directory(b"usr/bin"), file(b"usr/bin/a"), symlink(b"bin", b"usr/bin")],
        [file(b"bin/.wh.a")],
    ],
    "below a symlink to an absolute path": [
        [directory(b"a"), directory(b"a/b"), symlink(b"a/b/s", b"/x/y"), directory(b"x/y")],
        [file(b"a/b/s/file", b"in x/y")],
    ],
    "below a symlink that leaves the root": [
        [directory(b"tmp", 0o1777), symlink(b"s", b"../../../../../tmp"), symlink(b"t", b"/../s")],
        [file(b"s/file", b"inside"), file(b"t/other", b"inside")],
    ],
    "below a symlink to what is not there": [
        [symlink(b"s", b"not/there")],
        [file(b"s/file", b"data")],
    ],
    "symlinks in a circle": [
        [symlink(b"a", b"b"), symlink(b"b", b"a"), symlink(b"c", b"c/d"), symlink(b"d", b"d")],
        [file(b"a", b"no more")],
    ],
    "a whiteout of a symlink": [
        [directory(b"d"), file(b"d/x"), symlink(b"s", b"d")],
        [file(b".wh.s")],
    ],
    "a directory in place of a symlink, opaque": [
        [directory(b"d"), file(b"d/x"), symlink(b"s", b"d"), symlink(b"t", b"d")],
        [directory(b"s"), file(b"s/.wh..wh..opq"), file(b"s/y"), directory(b"t"), file(b"t/.wh.x")],
    ],
    "parents that no layer has": [[file(b"a/b/c/d", b"x"), symlink(b"e/f", b"../a")]],
    "the same name twice": [
        [file(b"a", b"1"), file(b"a", b"2"), directory(b"d"), file(b"d/x"), file(b"d", b"file")],
        [symlink(b"s", b"a"), directory(b"s"), file(b"s/x")],
    ],
    "names": [
        [
            file("größe".encode(), b"1"),
            file(b"\xff\xfe", b"2"),
            directory(b"a b\n"),
            file(b"a b\n/\x01'\"\\", b"3"),
            symlink(b"\xfe", b"\xff\xfe"),
            file(b"n" * 255, b"4"),
            file(b"d" * 200 + b"/" + b"e" * 200, b"5"),
            hardlink(b"long", b"d" * 200 + b"/" + b"e" * 200),
            hardlink(b"zz-\xf0", b"\xff\xfe"),
        ],
        [file(b".wh.\xfe"), file(b"a b\n/.wh.\x01'\"\\")],
    ],
    "deep": [[file(DEEP + b"/file", b"deep")], [file(DEEP[:-5] + b"/.wh.d299")]],
    "the order of paths": [
        [file(b"a/x"), file(b"a-b/x"), file(b"a.b"), file(b"ab"), directory(b"a-")],
        [file(b"a/b/c"), file(b"a!")],
    ],
    "special files": [[special_header(b"fifo", FIFO, 0o640)]],
    "modes": [
        [
            file(b"setuid", b"x", 0o4755),
            directory(b"sticky", 0o1777),
            directory(b"setgid", 0o2755),
            file(b"little", b"x", 0o400),
        ]
    ],
    "1000 entries": [
        [file(b"%d/%d" % (n % 10, n), b"%d" % n) for n in range(1000)],
        [file(b"%d/.wh.%d" % (n % 10, n)) for n in range(0, 1000, 3)] + [file(b".wh.7")],
    ],
}


@pytest.mark.parametrize("name", IMAGES)
def test_it_is_what_umoci_unpacks(name: str, image: Image) -> None:
    for layer in IMAGES[name]:
        image.layer(*layer)
    assert image.exported() == image.unpacked()


@pytest.mark.parametrize("name", IMAGES)
def test_the_form_of_the_tar(name: str, image: Image) -> None:
    for layer in IMAGES[name]:
        image.layer(*layer)
    data = image.export()
    assert data == image.export()
    assert data.endswith(END)
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as tar:
        members = tar.getmembers()
    names = [member.name.encode("utf-8", "surrogateescape") for member in members]
    assert names == sorted(set(names))
    assert all(member.mtime == 1 and not member.uname for member in members)
    directories = {name for name, member in zip(names, members) if member.isdir()}
    for name_, member in zip(names, members):
        assert not name_.startswith((b".", b"/"))
        above = name_.rpartition(b"/")[0]
        assert not above or above in directories
        if member.islnk():
            assert member.linkname.encode("utf-8", "surrogateescape") < name_


def test_a_whiteout_hides_lower_layers_wherever_it_stands(image: Image) -> None:
    """Not so in umoci, where the order in the layer tells."""
    image.layer(directory(b"d", 0o700), file(b"d/low"), symlink(b"s", b"d"), file(b"s2"))
    image.layer(file(b"d/new"), file(b"s/new"), file(b".wh.d"), file(b".wh.s"), file(b".wh.s2"))
    assert image.rows() == [
        (DIRECTORY, b"d", b""),
        (FILE, b"d/new", b""),
        (DIRECTORY, b"s", b""),
        (FILE, b"s/new", b""),
    ]
    with tarfile.open(fileobj=io.BytesIO(image.export())) as tar:
        assert tar.getmember("d").mode == 0o755


def test_a_whiteout_hides_nothing_of_its_own_and_of_upper_layers(image: Image) -> None:
    image.layer(file(b".wh.a"), file(b"a", b"1"), directory(b"d"), file(b"d/.wh..wh..opq"))
    image.layer(file(b"d/x"), file(b".wh.a"), file(b".wh.b"))
    image.layer(file(b"b"), file(b".wh..wh..opq"))
    assert image.rows() == [(FILE, b"b", b"")]


def test_marks_where_nothing_is(image: Image) -> None:
    image.layer(file(b"f"), symlink(b"s", b"s"))
    image.layer(file(b"f/.wh.x"), file(b"f/.wh..wh..opq"), file(b"s/.wh.x"), file(b"no/.wh.x"))
    assert image.rows() == [(FILE, b"f", b""), (SYMLINK, b"s", b"s")]


def test_owners_devices_and_attributes(image: Image) -> None:
    attributes = {b"security.capability": CAPABILITY, b"user.b": b"\xff\n", b"user.a": b""}
    image.layer(
        directory(b"./", 0o700, uid=7),
        special_header(b"null", CHARACTER_DEVICE, 0o666, uid=1, device=(1, 3)),
        special_header(b"sda", BLOCK_DEVICE, 0o660, gid=6, device=(8, 0)),
        special_header(b"fifo", FIFO, 0o600, uid=1000, gid=4_000_000_000),
        file(b"ping", b"data", 0o755, xattrs=attributes),
        hardlink(b"pong", b"ping"),
        directory(b"d", uid=5, gid=6, xattrs={b"user.d": b"1"}),
        file(b"d/x"),
    )
    image.layer(directory(b"d", 0o700, xattrs={b"user.e": b"2"}), hardlink(b"zero", b"null"))
    with tarfile.open(fileobj=io.BytesIO(image.export()), errors="surrogateescape") as tar:
        found = {member.name: member for member in tar}

    def xattrs(name: str) -> dict[str, bytes]:
        return {
            key[len("SCHILY.xattr.") :]: value.encode("utf-8", "surrogateescape")
            for key, value in found[name].pax_headers.items()
            if key.startswith("SCHILY.xattr.")
        }

    assert {name: (x.type, x.mode, x.uid, x.gid) for name, x in found.items()} == {
        "d": (DIRECTORY, 0o700, 0, 0),
        "d/x": (FILE, 0o644, 0, 0),
        "fifo": (FIFO, 0o600, 1000, 4_000_000_000),
        "null": (CHARACTER_DEVICE, 0o666, 1, 0),
        "ping": (FILE, 0o755, 0, 0),
        "pong": (HARDLINK, 0o755, 0, 0),
        "sda": (BLOCK_DEVICE, 0o660, 0, 6),
        "zero": (HARDLINK, 0o666, 1, 0),
    }
    assert (found["null"].devmajor, found["null"].devminor) == (1, 3)
    assert (found["sda"].devmajor, found["sda"].devminor) == (8, 0)
    expected = {key.decode(): value for key, value in attributes.items()}
    assert list(xattrs("ping").items()) == sorted(expected.items())
    assert xattrs("pong") == expected
    assert (xattrs("d"), xattrs("d/x")) == ({"user.e": b"2"}, {})


def test_gnu_tar_lists_it(image: Image) -> None:
    image.layer(
        directory(b"etc"),
        file(b"etc/passwd", b"root", uid=12, gid=34),
        hardlink(b"etc/zz", b"etc/passwd"),
        symlink(b"sh", b"bash"),
        special_header(b"null", CHARACTER_DEVICE, 0o666, device=(1, 3)),
        special_header(b"p", FIFO, 0o600),
    )
    listing = subprocess.run(
        ["tar", "--numeric-owner", "--utc", "-tvf", "-"],
        input=image.export(),
        check=True,
        stdout=subprocess.PIPE,
        env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
    ).stdout
    assert [" ".join(line.split()) for line in listing.decode().splitlines()] == [
        "drwxr-xr-x 0/0 0 1970-01-01 00:00 etc/",
        "-rw-r--r-- 12/34 4 1970-01-01 00:00 etc/passwd",
        "hrw-r--r-- 12/34 0 1970-01-01 00:00 etc/zz link to etc/passwd",
        "crw-rw-rw- 0/0 1,3 1970-01-01 00:00 null",
        "prw------- 0/0 0 1970-01-01 00:00 p",
        "lrwxrwxrwx 0/0 0 1970-01-01 00:00 sh -> bash",
    ]


def test_the_first_of_hard_links_by_name_is_the_file(image: Image) -> None:
    image.layer(file(b"m", b"data"), hardlink(b"a", b"m"), hardlink(b"z", b"a"))
    image.layer(hardlink(b"k", b"z"), file(b".wh.a"), file(b"z", b"own"), hardlink(b"m", b"m"))
    assert image.rows() == [
        (FILE, b"k", b"data"),
        (HARDLINK, b"m", b"k"),
        (FILE, b"z", b"own"),
    ]


def test_a_hard_link_found_through_symlinks(image: Image) -> None:
    image.layer(file(b"usr/lib/x", b"data"), symlink(b"lib", b"usr/lib"))
    image.layer(hardlink(b"lib/y", b"lib/x"), hardlink(b"l", b"lib"))
    assert image.rows() == [
        (SYMLINK, b"l", b"usr/lib"),
        (HARDLINK, b"lib", b"l"),
        (DIRECTORY, b"usr", b""),
        (DIRECTORY, b"usr/lib", b""),
        (FILE, b"usr/lib/x", b"data"),
        (HARDLINK, b"usr/lib/y", b"usr/lib/x"),
    ]


def test_layers_of_all_compressions(image: Image) -> None:
    for number, compression in enumerate(["none", "gzip", "zstd"]):
        image.layer(file(b"f%d" % number, b"x" * 300_000), compression=compression)
    assert [(path, len(data)) for _, path, data in image.rows()] == [
        (b"f0", 300_000),
        (b"f1", 300_000),
        (b"f2", 300_000),
    ]


def test_sparse_files_have_their_holes_filled(image: Image, tmp_path: Path) -> None:
    with open(tmp_path / "sparse", "wb") as out:
        out.seek(1_000_000)
        out.write(b"end")
    command = ["tar", "--create", "--sparse", "--format=pax", "-C", str(tmp_path), "sparse"]
    image.layer(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    assert image.rows() == [(FILE, b"sparse", bytes(1_000_000) + b"end")]


def test_nothing_at_all(image: Image) -> None:
    assert image.export() == END


@pytest.mark.parametrize(
    "members, says",
    [
        ([file(b"f"), file(b"f/x")], "member f/x lies below f, which is not a directory"),
        ([symlink(b"s", b"f"), file(b"f"), file(b"s/x")], "member s/x lies below f, which is not"),
        ([symlink(b"s", b"t"), symlink(b"t", b"s"), file(b"s/x")], "member s/x lies behind too"),
        ([hardlink(b"h", b"no")], "member h is a hard link to no, which is not there"),
        ([hardlink(b"h", b"later"), file(b"later")], "hard link to later, which is not there"),
        ([directory(b"d"), hardlink(b"h", b"d")], "member h is a hard link to the directory d"),
        ([file(b"f"), hardlink(b"h", b"f/x")], "member h lies below f, which is not a directory"),
        ([file(b"../f")], '".."'),
        ([file(b"\x1b[1m\n\xff/.."), file(b"a")], r'\x1b[1m\n\\xff/.. has ".."'),
    ],
)
def test_what_cannot_be_put_in_place(members: list[bytes], says: str, image: Image) -> None:
    image.layer(file(b"low")).layer(*members)
    with pytest.raises(ToolError) as raised:
        image.export()
    message = str(raised.value)
    assert says in message
    assert message.startswith(f"the layer {image.layers[1]['diff_id']} in the file ")
    assert message.isprintable()
    assert [path.name for path in image.directory.iterdir()] == ["oci"]


def test_another_layer_than_the_image_says(image: Image) -> None:
    image.layer(file(b"a")).layer(file(b"b"))
    wrong = "sha256:" + "1" * 64
    actual, image.layers[1]["diff_id"] = image.layers[1]["diff_id"], wrong
    with pytest.raises(ToolError, match=f"layer {wrong} .* has another content, {actual}"):
        image.export()
    assert [path.name for path in image.directory.iterdir()] == ["oci"]


def test_a_truncated_layer(image: Image) -> None:
    image.layer(file(b"a", os.urandom(100_000)))
    blob = Path(image.layers[0]["file"])
    blob.write_bytes(blob.read_bytes()[:50_000])
    with pytest.raises(ToolError, match=f"layer {image.layers[0]['diff_id']} .* cannot be read"):
        image.export()
    assert [path.name for path in image.directory.iterdir()] == ["oci"]


def test_the_command(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    image.layer(file(b"a", b"x")).layer(file(b"b"))
    monkeypatch.chdir(image.directory)
    Path("spec.json").write_text(json.dumps(image.spec()))
    export.main(["spec.json"], str(library_dir()))
    assert sorted(os.listdir()) == ["oci", "rootfs.tar", "spec.json"]
    with tarfile.open("rootfs.tar") as tar:
        assert tar.getnames() == ["a", "b"]
    with pytest.raises(ToolError, match="usage: export SPEC"):
        export.main([], "")
    Path(image.layers[1]["file"]).unlink()
    with pytest.raises(ToolError, match="rootfs.tar cannot be made: .*: No such file or directory"):
        export.main(["spec.json"], str(library_dir()))
    assert not Path("rootfs.tar").exists()


def test_memory_does_not_grow_with_files(image: Image) -> None:
    image.layer(file(b"a", bytes(30_000_000)))
    output = image.directory / "rootfs.tar"
    tracemalloc.start()
    export.write(image.spec()["layers"], str(output), "")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert output.stat().st_size > 30_000_000
    assert peak < 3_000_000
