"""Tar headers: ustar wherever it will do, a pax extended header before it where it will not.

Source of the format: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header". What
POSIX leaves open is fixed here, so that equal entries are equal bytes: the time is always
`MTIME`, owners are numbers only, names are raw UTF-8, and a long name is split as late as possible.
An archive ends with `END`, the two zero blocks that POSIX demands, and is not padded further.
"""

from __future__ import annotations

import struct

MTIME = 1
FILE, HARDLINK, SYMLINK, DIRECTORY = b"0", b"1", b"2", b"5"
CHARACTER_DEVICE, BLOCK_DEVICE, FIFO = b"3", b"4", b"6"

BLOCK_SIZE = 512
END = bytes(2 * BLOCK_SIZE)
# PADDING[size % BLOCK_SIZE] follows a file of `size` bytes.
PADDING = [bytes(-used % BLOCK_SIZE) for used in range(BLOCK_SIZE)]

_NAME_SIZE, _PREFIX_SIZE, _LINK_SIZE = 100, 155, 100
_MAX_ID, _MAX_SIZE = 0o7777777, 0o77777777777
_PAX_TYPE, _PAX_NAME = b"x", b"PaxHeader"

# name, mode, uid, gid, size, mtime, checksum, type, link, magic to devminor, prefix
_HEADER = struct.Struct("100s 8s 8s 8s 12s 12s 8s c 100s 88s 155s 12x")
_MTIME_FIELD = b"%011o\0" % MTIME
_MAGIC = b"ustar\0" + b"00"
_NO_NAMES = bytes(32 + 32)
_DEVICE = b"%07o\0%07o\0"
_NO_DEVICE = _DEVICE % (0, 0)
_CONSTANT = _MAGIC + _NO_NAMES + _NO_DEVICE
_XATTR = b"SCHILY.xattr."
_CHECKSUM_AT = 148
_NO_CHECKSUM = b" " * 8


def header(
    name: bytes,
    kind: bytes,
    mode: int,
    size: int = 0,
    uid: int = 0,
    gid: int = 0,
    link: bytes = b"",
) -> bytes:
    """The header of one entry, with what must precede it: a multiple of 512 bytes.

    :param name: the path, without a leading or trailing slash.
    :param kind: `FILE`, `HARDLINK`, `SYMLINK` or `DIRECTORY`.
    :param mode: the permission bits, at most 0o7777.
    :param size: the bytes of content that follow; 0 for anything but a file.
    :param link: the text of a symlink, or the name of the entry that a hard link is the same as.
    """
    if kind == DIRECTORY:
        name += b"/"
    prefix, rest = (b"", name) if len(name) <= _NAME_SIZE else _split(name)
    if rest and len(link) <= _LINK_SIZE and size <= _MAX_SIZE and max(uid, gid) <= _MAX_ID:
        return _ustar(prefix, rest, kind, mode, size, uid, gid, link)
    return _extended(name, kind, mode, size, uid, gid, link, _CONSTANT, {})


def special_header(
    name: bytes,
    kind: bytes,
    mode: int,
    size: int = 0,
    uid: int = 0,
    gid: int = 0,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
    xattrs: dict[bytes, bytes] | None = None,
) -> bytes:
    """What `header` returns, for entries of the other kinds and with extended attributes too.

    :param kind: any that this module names.
    :param device: the major and minor number of a device, each at most 0o7777777.
    :param xattrs: values by names without "=", in a record `SCHILY.xattr.<name>` each.
    """
    records = {_XATTR + key: value for key, value in sorted((xattrs or {}).items())}
    if kind == DIRECTORY:
        name += b"/"
    constant = _MAGIC + _NO_NAMES + _DEVICE % device
    return _extended(name, kind, mode, size, uid, gid, link, constant, records)


def _extended(
    name: bytes,
    kind: bytes,
    mode: int,
    size: int,
    uid: int,
    gid: int,
    link: bytes,
    constant: bytes,
    xattrs: dict[bytes, bytes],
) -> bytes:
    """A header with an extended one before it for what does not fit, if there is any.

    A directory's `name` ends in a slash here.
    """
    prefix, rest = (b"", name) if len(name) <= _NAME_SIZE else _split(name)
    records = {}
    if not rest:
        records[b"path"] = name
        prefix, rest = b"", name[:_NAME_SIZE]
    if len(link) > _LINK_SIZE:
        records[b"linkpath"] = link
        link = link[:_LINK_SIZE]
    if size > _MAX_SIZE:
        records[b"size"] = b"%d" % size
        size = 0
    if uid > _MAX_ID:
        records[b"uid"] = b"%d" % uid
        uid = 0
    if gid > _MAX_ID:
        records[b"gid"] = b"%d" % gid
        gid = 0
    pax = _pax(records, xattrs) if records or xattrs else b""
    return pax + _ustar(prefix, rest, kind, mode, size, uid, gid, link, constant)


def _split(name: bytes) -> tuple[bytes, bytes]:
    """`name` as ustar's prefix and name fields; the latter is empty where that is not possible."""
    slash = name.rfind(b"/", 0, min(_PREFIX_SIZE + 1, len(name) - 1))
    if slash > 0 and len(name) - slash - 1 <= _NAME_SIZE:
        return name[:slash], name[slash + 1 :]
    return b"", b""


def _ustar(
    prefix: bytes,
    name: bytes,
    kind: bytes,
    mode: int,
    size: int,
    uid: int,
    gid: int,
    link: bytes,
    constant: bytes = _CONSTANT,
) -> bytes:
    block = _HEADER.pack(
        name,
        b"%07o\0" % mode,
        b"%07o\0" % uid,
        b"%07o\0" % gid,
        b"%011o\0" % size,
        _MTIME_FIELD,
        _NO_CHECKSUM,
        kind,
        link,
        constant,
        prefix,
    )
    checksum = b"%06o\0 " % sum(block)
    return block[:_CHECKSUM_AT] + checksum + block[_CHECKSUM_AT + len(checksum) :]


def _pax(records: dict[bytes, bytes], xattrs: dict[bytes, bytes]) -> bytes:
    """An extended header: what `records` say overrides the header that follows it."""
    if not all(map(_is_utf8, records.values())):
        # Must come first: it says how to read the values of the others.
        records = {b"hdrcharset": b"BINARY", **records}
    # The values of `xattrs` are bytes whatever the character set.
    records = {**records, **xattrs}
    body = b"".join(_record(key, value) for key, value in records.items())
    block = _ustar(b"", _PAX_NAME, _PAX_TYPE, 0o644, len(body), 0, 0, b"")
    return block + body + PADDING[len(body) % BLOCK_SIZE]


def _record(key: bytes, value: bytes) -> bytes:
    """`<length> <key>=<value>` and a newline, where the length counts its own digits too."""
    rest = b" %s=%s\n" % (key, value)
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length += 1
    return b"%d%s" % (length, rest)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
