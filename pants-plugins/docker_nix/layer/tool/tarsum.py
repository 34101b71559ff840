"""Docker's TarSum, version 1: a checksum of a tar's members without their order and times.

The rules are in `pkg/tarsum/tarsum_spec.md` of the Docker engine. Only old image formats carry the
sum; it is no protection against anybody.
"""

from __future__ import annotations

import hashlib
import tarfile

from docker_nix.layer.tool import tar_reader
from docker_nix.layer.tool.decompress import CHUNK_BYTES, Readable
from docker_nix.layer.tool.tar_reader import TarMember

_XATTR_PREFIX = "SCHILY.xattr."


def tarsum(stream: Readable) -> str:
    """The sum `tarsum.v1+sha256:<hex>` of the uncompressed tar `stream`.

    Memory grows with the number of members only, by their digests. Raises as `tar_reader.members`
    does, and leaves the stream where that leaves it.

    Where a tar has several members of one name, the engine's order of their sums depends on its
    sorting algorithm; here they are sorted like all others.
    """
    sums = []
    for member, data in tar_reader.members(stream, end_mark_required=False):
        digest = hashlib.sha256(b"".join(_headers(member)))
        while data:
            chunk = data.read(CHUNK_BYTES)
            if not chunk:
                break
            digest.update(chunk)
        sums.append(digest.hexdigest())
    return "tarsum.v1+sha256:" + hashlib.sha256("".join(sorted(sums)).encode()).hexdigest()


def _headers(member: TarMember) -> list[bytes]:
    """What goes into a member's sum before its data: keys and values in the order of the rules."""
    kind = tarfile.REGTYPE if member.type == tarfile.AREGTYPE else member.type
    headers = [
        ("name", _raw_name(member)),
        ("mode", member.mode),
        ("uid", member.uid),
        ("gid", member.gid),
        ("size", member.size),
        ("typeflag", kind.decode("ascii")),
        ("linkname", member.linkname),
        ("uname", member.uname),
        ("gname", member.gname),
        ("devmajor", member.devmajor),
        ("devminor", member.devminor),
    ]
    xattrs = {
        _bytes(key[len(_XATTR_PREFIX) :]): _bytes(value)
        for key, value in member.pax_headers.items()
        if key.startswith(_XATTR_PREFIX)
    }
    return [_bytes(f"{key}{value}") for key, value in headers] + [
        key + xattrs[key] for key in sorted(xattrs)
    ]


def _raw_name(member: TarMember) -> str:
    """The name as the archive spells it, of which tarfile cuts a trailing slash."""
    pax = member.pax_headers
    if "path" in pax:
        return pax.get("GNU.sparse.name", pax["path"])
    if not member.isdir():
        return member.name
    # A name that does not fit the header is in a GNU `L` member, where directories end in a slash.
    slash = member.slash_in_header or member.full_header_name
    return member.name.rstrip("/") + ("/" if slash else "")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
