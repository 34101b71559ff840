"""How sizes are shown to people."""

from __future__ import annotations

from typing import Optional


def size_text(size: Optional[int]) -> str:
    """A size in the units of the SI (1 kB is 1000 bytes), as registries and Docker show them."""
    if size is None:
        return "unknown"
    if size < 1000:
        return f"{size} B"
    value = float(size)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        # 999.96 would be shown as 1000.0.
        if value < 999.95 or unit == "GB":
            break
    return f"{value:.1f} {unit}"
