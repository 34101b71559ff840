from __future__ import annotations

import hashlib
import io
import tarfile

import pytest

from docker_nix.layer.tool import tar_format
from docker_nix.layer.tool.tarsum import tarsum


def sha256(text: str, data: bytes = b"") -> str:
    return hashlib.sha256(text.encode() + data).hexdigest()


def archive(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def member(name: str, xattrs: dict[str, str] | None = None) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode = 0
    info.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in (xattrs or {}).items()}
    return info


def users_file(name: str, xattrs: dict[str, str] | None = None) -> bytes:
    info = member(name, xattrs)
    info.uid = info.gid = 1000
    info.uname, info.gname = "slartibartfast", "users"
    return archive((info, b"test"))


@pytest.mark.parametrize(
    "tar, expected",
    [
        (
            archive((member("file.txt"), b"")),
            "6ffd43a1573a9913325b4918e124ee982a99c0f3cba90fc032a65f5e20bdd465",
        ),
        (
            users_file("another.txt"),
            "b38166c059e11fb77bef30bf16fba7584446e80fcc156ff46d47e36c5305d8ef",
        ),
        (
            users_file("xattrs.txt", {"user.key1": "value1", "user.key2": "value2"}),
            "4cc2e71ac5d31833ab2be9b4f7842a14ce595ec96a37af4ed08f87bc374228cd",
        ),
        (
            users_file("xattrs.txt", {"user.key2": "value2", "user.KEY1": "value1"}),
            "65f4284fa32c0d4112dd93c3637697805866415b570587e4fd266af241503760",
        ),
    ],
)
def test_vectors_of_the_docker_engine(tar: bytes, expected: str) -> None:
    # From TestIteration in the engine's pkg/tarsum/tarsum_test.go.
    assert tarsum(io.BytesIO(tar)) == f"tarsum.v1+sha256:{expected}"


def test_no_members() -> None:
    assert tarsum(io.BytesIO(tar_format.END)) == f"tarsum.v1+sha256:{sha256('')}"


def test_layer_step_by_step() -> None:
    data = b"#!/bin/sh\n"
    long = "nix/store/" + "d" * 90 + "/" + "f" * 150
    tar = b"".join(
        (
            tar_format.header(b"nix", tar_format.DIRECTORY, 0o755),
            tar_format.header(b"nix/run", tar_format.FILE, 0o555, len(data), 12, 34),
            data + tar_format.PADDING[len(data)],
            tar_format.header(b"nix/same", tar_format.HARDLINK, 0o555, link=b"nix/run"),
            tar_format.header(b"nix/to", tar_format.SYMLINK, 0o777, link=b"/nix/run/"),
            tar_format.header(long.encode(), tar_format.DIRECTORY, 0o555),
            tar_format.END,
        )
    )
    # 0o755 is 493, 0o555 is 365 and 0o777 is 511.
    end = "unamegnamedevmajor0devminor0"
    sums = [
        sha256(f"namenix/mode493uid0gid0size0typeflag5linkname{end}"),
        sha256(f"namenix/runmode365uid12gid34size10typeflag0linkname{end}", data),
        sha256(f"namenix/samemode365uid0gid0size0typeflag1linknamenix/run{end}"),
        sha256(f"namenix/tomode511uid0gid0size0typeflag2linkname/nix/run/{end}"),
        sha256(f"name{long}/mode365uid0gid0size0typeflag5linkname{end}"),
    ]
    assert tarsum(io.BytesIO(tar)) == f"tarsum.v1+sha256:{sha256(''.join(sorted(sums)))}"


_LONG = ["d" * 50 + "/" + "e" * 120]  # more than the name field of ustar has room for
_NAMES = ["d", "d" * 99, "é" * 60 + "/" + "d"]


@pytest.mark.parametrize(
    "format, name",
    [
        *((tarfile.USTAR_FORMAT, name) for name in _NAMES),
        *((tarfile.GNU_FORMAT, name) for name in _NAMES + _LONG),
        *((tarfile.PAX_FORMAT, name) for name in _NAMES + _LONG),
    ],
)
def test_directories_keep_their_slash_in_every_format(format: int, name: str) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    expected = sha256(
        f"name{name}/mode493uid0gid0size0typeflag5linknameunamegnamedevmajor0devminor0"
    )
    tar = archive((info, b""), format=format)
    assert tarsum(io.BytesIO(tar)) == f"tarsum.v1+sha256:{sha256(expected)}"


def test_directory_spelled_without_slash() -> None:
    header = bytearray(tar_format.header(b"d", tar_format.FILE, 0o755))
    header[156:157] = tar_format.DIRECTORY
    header[148:156] = b" " * 8
    header[148:155] = b"%06o\0" % sum(header)
    expected = sha256("namedmode493uid0gid0size0typeflag5linknameunamegnamedevmajor0devminor0")
    assert tarsum(io.BytesIO(bytes(header) + tar_format.END)) == (
        f"tarsum.v1+sha256:{sha256(expected)}"
    )


def test_neither_order_nor_time_matters() -> None:
    one, two = member("one"), member("two")
    forwards = archive((one, b"1"), (two, b"2"))
    one.mtime = 1234567890
    assert tarsum(io.BytesIO(archive((two, b"2"), (one, b"1")))) == tarsum(io.BytesIO(forwards))


def test_damage_is_an_error_but_a_missing_end_is_not() -> None:
    tar = archive((member("one"), b"1"), (member("two"), b"2" * 1000))
    whole = tarsum(io.BytesIO(tar))
    assert tarsum(io.BytesIO(tar[: 2 * 512 + 3 * 512])) == whole
    for size in (2 * 512 + 700, 2 * 512 + 100):
        with pytest.raises(tarfile.TarError):
            tarsum(io.BytesIO(tar[:size]))
    with pytest.raises(tarfile.TarError):
        tarsum(io.BytesIO(tar[: 2 * 512] + b"x" * 512 + tar[3 * 512 :]))
