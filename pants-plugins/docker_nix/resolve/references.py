"""Store path references: `{store_path[ADDRESS]}` inside a string.

In `config` a brace has no other meaning, so a stray one is an error and a literal one is doubled.
In a script braces belong to the shell, so only `{store_path[` opens a reference, and
`${store_path[0]}` stays the array that bash takes it for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, List, Tuple, Union

_OPEN = "{store_path["
_CLOSE = "]}"


class MalformedReference(ValueError):
    """A brace or reference that cannot be read; the message has its place and the way out."""


@dataclass(frozen=True)
class Reference:
    """A reference to the store path of the target at `address` (as spelled in the text)."""

    address: str
    place: str


Part = Union[str, Reference]


def _place(text: str, offset: int) -> str:
    column = offset - text.rfind("\n", 0, offset)
    return f"line {text.count(chr(10), 0, offset) + 1}, column {column}"


def _reference_at(text: str, start: int) -> Tuple[Reference, int]:
    end = text.find(_CLOSE, start)
    address = text[start + len(_OPEN) : end] if end >= 0 else ""
    if not address.strip() or "\n" in address or "{" in address:
        raise MalformedReference(
            f"a store path reference without an address or an end at {_place(text, start)}. "
            "Write it as {store_path[path/to:target]}"
        )
    return Reference(address.strip(), _place(text, start)), end + len(_CLOSE)


def parse_text(text: str) -> Tuple[Part, ...]:
    """Split a string of `config` into literal text and references.

    `{{` and `}}` are literal braces; any other brace outside a reference is a MalformedReference.
    """
    parts: List[Part] = []
    literal = ""
    at = 0
    while at < len(text):
        char = text[at]
        if text[at : at + 2] in ("{{", "}}"):
            literal += char
            at += 2
        elif text.startswith(_OPEN, at):
            reference, at = _reference_at(text, at)
            parts += [literal, reference]
            literal = ""
        elif char in "{}":
            raise MalformedReference(
                f"a stray {char!r} at {_place(text, at)}. Write {char * 2} for a literal brace, or "
                "{store_path[path/to:target]} for a store path"
            )
        else:
            literal += char
            at += 1
    return (*parts, literal)


def parse_script(text: str) -> Tuple[Part, ...]:
    """Split a script into literal text and references; all other braces stay as they are."""
    parts: List[Part] = []
    begin = at = 0
    while True:
        at = text.find(_OPEN, at)
        if at < 0:
            return (*parts, text[begin:])
        if at > 0 and text[at - 1] == "$":
            at += 1
            continue
        reference, end = _reference_at(text, at)
        parts += [text[begin:at], reference]
        begin = at = end


def references(parts: Tuple[Part, ...]) -> Tuple[Reference, ...]:
    """The references among `parts`, in their order."""
    return tuple(part for part in parts if isinstance(part, Reference))


def fill(parts: Tuple[Part, ...], store_path: Callable[[str], str]) -> str:
    """The text with each reference replaced by `store_path(address)`."""
    return "".join(
        store_path(part.address) if isinstance(part, Reference) else part for part in parts
    )
