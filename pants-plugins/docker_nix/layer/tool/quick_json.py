"""JSON without the module `json`, whose import takes longer than packing a small layer.

Nearly all of that time goes into regular expressions for its pure Python half. CPython's other
half, in C, does the work here; where an interpreter has none, `json` is used.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:  # at run time, `typing` alone would take as long as a small layer
    from typing import Any


class _Context:
    """What the scanner in C asks its decoder for: everything as `json.loads` has it by default."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float
    memo: dict[str, str] = {}


def loads(text: str) -> Any:
    """The value that `text`, a JSON document, stands for. Raises ValueError if it is none."""
    try:
        from _json import make_scanner
    except ImportError:
        import json

        return json.loads(text)
    stripped = text.strip(" \t\n\r")
    context: Any = _Context
    try:
        value, end = make_scanner(context)(stripped, 0)
    except StopIteration as error:
        raise ValueError(f"there is no JSON value at character {error.value}") from None
    if end != len(stripped):
        raise ValueError(f"the JSON value ends at character {end}, but the text goes on")
    return value


def dumps(value: Any) -> str:
    """`value`, of dicts, strings and integers, as JSON: compact, with sorted keys, in ASCII."""
    if isinstance(value, dict):
        pairs = (f"{dumps(key)}:{dumps(value[key])}" for key in sorted(value))
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, int):
        return str(value)
    try:
        from _json import encode_basestring_ascii
    except ImportError:
        from json.encoder import encode_basestring_ascii
    return str(encode_basestring_ascii(value))
