"""Reading the layers of other people's images: what each member of the tar does to the files below.

Source of the rules: OCI image-spec, layer.md ("Representing Changes", "Whiteouts"). Text is bytes.
"""

from __future__ import annotations

import tarfile
from typing import Iterator, Union

from docker_nix.layer.tool import tar_reader
from docker_nix.layer.tool.decompress import CHUNK_BYTES, HashedStream, Readable, open_stream
from docker_nix.layer.tool.entries import show
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.tar_reader import TarMember

_KINDS = {
    tarfile.REGTYPE: "f",
    tarfile.AREGTYPE: "f",
    tarfile.CONTTYPE: "f",
    tarfile.GNUTYPE_SPARSE: "f",
    tarfile.DIRTYPE: "d",
    tarfile.SYMTYPE: "l",
    tarfile.LNKTYPE: "h",
    tarfile.CHRTYPE: "c",
    tarfile.BLKTYPE: "b",
    tarfile.FIFOTYPE: "p",
}
_XATTR_PREFIX = "SCHILY.xattr."
_WHITEOUT, _METADATA, _OPAQUE = b".wh.", b".wh..wh.", b".wh..wh..opq"
_MAX_ID = 2**32 - 2  # the largest 32 bit number means "no id"
_MAX_DEVICE = 0o7777777  # more does not fit the header's field


class Member:
    """One path that a layer puts into the file system.

    :param kind: "d" directory, "f" file, "l" symlink, "h" hard link, "c" character device, "b"
        block device, "p" fifo.
    :param path: without a leading or trailing slash; the root directory is b"".
    :param mode: the permission bits, at most 0o7777.
    :param size: of a file, in bytes; sparse files count, and read, with their holes.
    :param link: the text of a symlink, or the path that a hard link names, in the form of `path`.
    :param device: the major and minor number of a device.
    :param xattrs: extended attributes, with the name's namespace: `security.capability`.
    :param data: the content of a file, to be read before the next member is asked for.

    `mtime` is its time in seconds since the epoch.
    """

    __slots__ = (
        *("kind", "path", "mode", "uid", "gid", "mtime"),
        *("size", "link", "device", "xattrs", "data"),
    )

    def __init__(
        self,
        kind: str,
        path: bytes,
        mode: int,
        uid: int = 0,
        gid: int = 0,
        size: int = 0,
        link: bytes = b"",
        device: tuple[int, int] = (0, 0),
        xattrs: dict[bytes, bytes] | None = None,
        data: Readable | None = None,
    ) -> None:
        self.kind = kind
        self.path = path
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime: float = 0
        self.size = size
        self.link = link
        self.device = device
        self.xattrs = xattrs or {}
        self.data = data


class Whiteout:
    """What lower layers have at `path`, and below it, is hidden."""

    __slots__ = ("path",)

    def __init__(self, path: bytes) -> None:
        self.path = path


class Opaque:
    """What lower layers have below the directory `path` is hidden."""

    __slots__ = ("path",)

    def __init__(self, path: bytes) -> None:
        self.path = path


Change = Union[Member, Whiteout, Opaque]


def layer_members(stream: Readable, title: str = "the layer") -> Iterator[Change]:
    """What the uncompressed layer tar `stream` has, in its order. `title` starts error messages.

    The stream is left behind the end of the archive, which need not be its own end. Raises
    `ToolError`, here and from a file's `data`, where the stream is not a complete tar, and for
    members that no file system can hold or that lead out of the image. `OSError` passes through.
    """
    members = tar_reader.members(stream, end_mark_required=False)
    while True:
        try:
            info, data = next(members)
        except StopIteration:
            return
        except (ToolError, OSError):
            raise
        except Exception as error:  # malformed headers make tarfile raise more than its own kind
            raise _unreadable(title, error) from error
        try:
            change = _change(info)
        except _BadMember as error:
            name = show(_bytes(info.name))
            raise ToolError(f"{title}: the member {name} {error}") from None
        if change is None:
            continue
        if isinstance(change, Member) and data is not None:
            change.data = _Data(data, title, change.size)
        yield change


def sniff_compression(path: str) -> str:
    """How the layer in the file at `path` is compressed: "gzip", "zstd" or "none"."""
    with open(path, "rb") as file:
        magic = file.read(4)
    if magic[:2] == b"\x1f\x8b":
        return "gzip"
    # The other is a frame without content, which may also come first. Sources: RFC 1952, RFC 8878.
    if magic == b"\x28\xb5\x2f\xfd" or magic[1:] == b"\x2a\x4d\x18" and magic[0] >> 4 == 5:
        return "zstd"
    return "none"


class LayerFile:
    """A layer in a file, compressed or not, to be iterated once for its `Change`s.

    When the iteration has come to its end, `diff_id` ("sha256:<hex>") and `diff_size` (bytes) are
    those of the uncompressed tar. Raises `ToolError` as `layer_members` does, and at the end where
    the layer has another `diff_id` than `expected_diff_id`.
    """

    def __init__(self, path: str, lib_dir: str, expected_diff_id: str | None = None) -> None:
        self.title = f"the layer {expected_diff_id or ''}".rstrip() + f" in the file {path}"
        self.compression = sniff_compression(path)
        self.diff_id = ""
        self.diff_size = 0
        self._path = path
        self._lib_dir = lib_dir
        self._expected = expected_diff_id

    def __iter__(self) -> Iterator[Change]:
        with open_stream(self._path, self.compression, self._lib_dir) as stream:
            hashed = HashedStream(stream)
            yield from layer_members(hashed, self.title)
            rest = _Data(hashed, self.title)
            while rest.read(CHUNK_BYTES):  # what follows the end of the archive counts too
                pass
        self.diff_id = f"sha256:{hashed.sha256.hexdigest()}"
        self.diff_size = hashed.size
        if self._expected not in (None, self.diff_id):
            raise ToolError(
                f"{self.title} has another content, {self.diff_id}; it is damaged or another "
                "layer's: fetch it again"
            )


class _Data:
    """A stream of at least `size` bytes, of which all damage is a `ToolError`."""

    __slots__ = ("_stream", "_title", "_missing")

    def __init__(self, stream: Readable, title: str, size: int = 0) -> None:
        self._stream = stream
        self._title = title
        self._missing = size

    def read(self, size: int) -> bytes:
        try:
            data = self._stream.read(size)
        except (ToolError, OSError):
            raise
        except Exception as error:
            raise _unreadable(self._title, error) from error
        self._missing -= len(data)
        if not data and self._missing > 0:
            raise _unreadable(self._title, "a file in it is truncated")
        return data


class _BadMember(Exception):
    """Why a member cannot be used; the text follows its name."""


def _unreadable(title: str, reason: Exception | str) -> ToolError:
    return ToolError(
        f"{title} cannot be read: {str(reason) or type(reason).__name__}; it must be a complete "
        "tar, plain or compressed with gzip or zstd"
    )


def _change(info: TarMember) -> Change | None:
    """What a member of the tar does, without its data; None for what is no part of the image."""
    # Where the name does not fit the header, `path` may come beside it with a made-up name.
    name = _bytes(info.pax_headers.get("GNU.sparse.name", info.name))
    kind = _KINDS.get(info.type)
    if info.type == tarfile.AREGTYPE and name.endswith(b"/"):  # from before there was a type
        kind = "d"
    path = _normalise(name, "its name")
    directory, _, last = path.rpartition(b"/")
    if b"/.wh." in b"/" + path:
        if last == _OPAQUE and b"/.wh." not in b"/" + directory:
            return Opaque(directory)
        if any(part.startswith(_METADATA) for part in path.split(b"/")):
            return None
        hidden = last[len(_WHITEOUT) :]
        if b"/.wh." in b"/" + directory or hidden in (b"", b".", b".."):
            raise _BadMember("has a name that no whiteout can have; .wh. is for whiteouts only")
        return Whiteout(directory + b"/" + hidden if directory else hidden)
    if kind is None:
        raise _BadMember(f"is of the unknown type {info.type!r}")
    if not path and kind != "d":
        raise _BadMember("is the root of the layer, but not a directory")
    if not (0 <= info.uid <= _MAX_ID and 0 <= info.gid <= _MAX_ID):
        raise _BadMember(f"has an impossible owner, {info.uid}:{info.gid}")
    member = Member(kind, path, info.mode & 0o7777, info.uid, info.gid)
    member.mtime = info.mtime
    if kind == "f":
        member.size = info.size
    elif kind == "l":
        member.link = _bytes(info.linkname)
        if not member.link or b"\0" in member.link:
            raise _BadMember("is a symlink to nothing")
    elif kind == "h":
        member.link = _normalise(_bytes(info.linkname), "the name it links to")
        if not member.link or b"/.wh." in b"/" + member.link:
            raise _BadMember("is a hard link to what cannot have one")
    elif kind in "cb":
        member.device = (info.devmajor, info.devminor)
        if not all(0 <= number <= _MAX_DEVICE for number in member.device):
            raise _BadMember(f"has impossible device numbers, {member.device}")
    for key, value in info.pax_headers.items():
        if key.startswith(_XATTR_PREFIX):
            member.xattrs[_bytes(key[len(_XATTR_PREFIX) :])] = _bytes(value)
    return member


def _normalise(name: bytes, what: str) -> bytes:
    if b"\0" in name:
        raise _BadMember(f"has a NUL byte in {what}")
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise _BadMember(f'has ".." in {what}, which could lead out of the image')
    return b"/".join(parts)


def _bytes(text: str) -> bytes:
    """What tarfile decoded as UTF-8 with `surrogateescape`, which it does with values too."""
    return text.encode("utf-8", "surrogateescape")
