from __future__ import annotations

from typing import Optional

import pytest

from docker_nix.sizes import size_text


@pytest.mark.parametrize(
    "size, text",
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1024, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (999_999, "1.0 MB"),
        (1_048_576, "1.0 MB"),
        (123_456_789, "123.5 MB"),
        (5_000_000_000_000, "5000.0 GB"),
        (None, "unknown"),
    ],
)
def test_sizes(size: Optional[int], text: str) -> None:
    assert size_text(size) == text
