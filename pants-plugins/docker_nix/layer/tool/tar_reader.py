"""Reading tar streams strictly: the standard library parses, damage is never taken for the end."""

from __future__ import annotations

import tarfile
from typing import IO, Iterator, cast

from docker_nix.layer.tool.decompress import Readable

# tarfile copies what is left of its buffer at every header, so a bigger buffer is not a faster one.
_BUFFER_BYTES = 64 * 1024


class MissingEnd(tarfile.ReadError):
    """The stream ends where a member could, but without the end-of-archive mark."""


class TarMember(tarfile.TarInfo):
    """A `TarInfo` that knows the name as it was spelled, and whose parser reports all damage."""

    # Whether the header's own name field ends in a slash, which tarfile removes from directories.
    slash_in_header: bool = False
    # Whether that field is full, as it is where a longer name comes from a GNU `L` member.
    full_header_name: bool = False

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> TarMember:
        """The member described by a 512 byte header block."""
        return super().frombuf(buf, encoding, errors)._spelled_in(buf)

    @classmethod
    def _frombuf(cls, buf: bytes, encoding: str, errors: str, **options: bool) -> TarMember:
        """What tarfile calls instead since a fix of security, which old releases have got too."""
        member = super()._frombuf(buf, encoding, errors, **options)  # type: ignore[misc]
        return cast(TarMember, member)._spelled_in(buf)

    def _spelled_in(self, header: bytes) -> TarMember:
        field = bytes(header[:100]).partition(b"\0")[0]
        self.slash_in_header = field.endswith(b"/")
        self.full_header_name = len(field) == 100
        return self

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> TarMember:
        """The next member; `tarfile.ReadError` where tarfile would take damage for the end."""
        try:
            member = super().fromtarfile(tarfile_)
        except tarfile.HeaderError as error:
            # The kinds of this error are not in the type stubs, nor in the documentation.
            if isinstance(error, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
                raise
            is_end = isinstance(error, tarfile.EmptyHeaderError)  # type: ignore[attr-defined]
            # Not so after a header that only says more of the next one.
            position = cast(IO[bytes], tarfile_.fileobj).tell()
            if is_end and position == tarfile_.offset:
                raise MissingEnd("it ends without the end-of-archive mark") from error
            raise tarfile.ReadError(str(error)) from error
        if member.size < 0:
            raise tarfile.ReadError("a member has a negative size")
        return member


def members(
    stream: Readable, *, end_mark_required: bool
) -> Iterator[tuple[TarMember, Readable | None]]:
    """The members of the uncompressed tar `stream` in order, regular files with their data.

    A member's data must be read before the next member is asked for. Memory does not grow with the
    number of members. Text is decoded as UTF-8 with `surrogateescape`, so that encoding it the same
    way gives the bytes of the header. Raises `tarfile.TarError` (or, for some malformed headers,
    `ValueError`) on anything that is not a complete tar; the stream is left behind the
    end-of-archive mark.

    Without `end_mark_required`, a stream may also end where a member could, as some builders of
    layers leave it. Where nothing else proves that it is complete, the mark must be required.
    """
    try:
        with _open(stream) as archive:
            for member in archive:
                # tarfile keeps every member it has seen.
                archive.members.clear()  # type: ignore[attr-defined]
                data = archive.extractfile(member) if member.isreg() else None
                yield cast(TarMember, member), data
    except MissingEnd:
        if end_mark_required:
            raise


def _open(stream: Readable) -> tarfile.TarFile:
    return tarfile.open(
        fileobj=cast(IO[bytes], stream),
        mode="r|",
        bufsize=_BUFFER_BYTES,
        tarinfo=TarMember,
        encoding="utf-8",
        errors="surrogateescape",
    )
