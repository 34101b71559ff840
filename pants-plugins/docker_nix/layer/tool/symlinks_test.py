from __future__ import annotations

import pytest

from docker_nix.layer.tool.symlinks import follow

LINKS = {
    "bin": "usr/bin",
    "lib": "/usr/lib",
    "usr/lib/x": "../../opt//./x",
    "circle": "round",
    "round": "circle",
    "up": "/../../etc",
    "self": "self/deeper",
}


@pytest.mark.parametrize(
    ("path", "leads_to", "by_symlink"),
    [
        ("usr/bin/sh", "usr/bin/sh", False),
        ("bin/sh", "usr/bin/sh", True),
        ("lib/x/y", "opt/x/y", True),
        ("up/passwd", "etc/passwd", True),
        ("circle/x", None, True),
        ("self", None, True),
        ("", "", False),
    ],
)
def test_follow(path: str, leads_to: str | None, by_symlink: bool) -> None:
    assert follow(path, LINKS.get) == (leads_to, by_symlink)
