"""A Python application with a third-party dependency and a data file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from packaging.version import Version


def greeting(name: str) -> str:
    """What the application says to `name`."""
    data = Path(__file__).with_name("greeting.json").read_text()
    return json.loads(data)["text"].format(name=name)


def main() -> None:
    assert Version("1.0") < Version("1.10")
    print(greeting(sys.argv[1] if len(sys.argv) > 1 else "you"))


if __name__ == "__main__":
    main()
