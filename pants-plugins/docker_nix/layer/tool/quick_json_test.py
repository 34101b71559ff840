from __future__ import annotations

import json
from typing import Any

import pytest

from docker_nix.layer.tool.quick_json import dumps, loads

_VALUE: dict[str, Any] = {
    "paths": [["f", "größe/日本語"], ["l", 'q"uo\\te\n', "\U0001f600"], []],
    "root": None,
    "yes": True,
    "no": False,
    "uid": 1000,
    "ratio": 1.5,
    "empty": {},
}


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("indent", [None, 2])
def test_loads_what_json_writes(ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(_VALUE, ensure_ascii=ascii_only, indent=indent)
    assert loads(f"\n {text} \n") == _VALUE


@pytest.mark.parametrize("text", ["", " ", "{", '{"a" 1}', "[1,]", "{} {}", "x"])
def test_loads_nothing_else(text: str) -> None:
    with pytest.raises(ValueError):
        loads(text)


def test_dumps_compact_and_sorted() -> None:
    value = {"b": 1, "a": {"é": 'x"y', "z": {}}}
    assert dumps(value) == json.dumps(value, sort_keys=True, separators=(",", ":"))
