"""What both services know."""

from __future__ import annotations

import json
from importlib import resources
from typing import Dict


def prices() -> Dict[str, int]:
    """The price of each article, in cents."""
    text = resources.files(__package__).joinpath("catalogue.json").read_text(encoding="utf-8")
    catalogue: Dict[str, int] = json.loads(text)
    return catalogue
