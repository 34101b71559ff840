from __future__ import annotations

from typing import Optional

import pytest

from docker_nix.resolve.nix.installable import BadInstallable, Installable, parse_installable

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "fragment", "directory"),
    [
        (".#app", "#app", "src/app"),
        (".", "", "src/app"),
        ("#app", "#app", "src/app"),
        ("./nix#app", "#app", "src/app/nix"),
        ("path:./nix/#app", "#app", "src/app/nix"),
        ("path:nix#app", "#app", "src/app/nix"),
        ("..#a.b.c", "#a.b.c", "src"),
        ("../..#app", "#app", ""),
    ],
)
def test_flakes_of_the_repository(text: str, fragment: str, directory: str) -> None:
    parsed = parse_installable(text, "src/app")
    assert parsed == Installable(fragment, directory)
    assert parsed.unlocked_reference is None


@pytest.mark.parametrize(
    ("text", "unlocked"),
    [
        (f"github:owner/repo/{COMMIT}#app", None),
        (f"gitlab:owner/repo/{COMMIT}?dir=nix#app", None),
        ("github:owner/repo#app", "github:owner/repo"),
        ("github:owner/repo/main#app", "github:owner/repo/main"),
        (f"github:owner/repo?rev={COMMIT}#app", None),
        (f"git+https://example.com/repo?ref=main&rev={COMMIT}#app", None),
        ("git+https://example.com/repo?ref=main#app", "git+https://example.com/repo?ref=main"),
        ("https://example.com/a.tar.gz?narHash=sha256-x#app", None),
        ("nixpkgs#hello", "nixpkgs"),
        ("nixpkgs", "nixpkgs"),
        (f"nixpkgs/{COMMIT}#hello", f"nixpkgs/{COMMIT}"),
        ("flake:nixpkgs#hello", "flake:nixpkgs"),
        ("/home/me/flake#app", "/home/me/flake"),
        ("path:/home/me/flake#app", "path:/home/me/flake"),
        ("path:/home/me/flake?narHash=sha256-x#app", None),
        (f"git+file:///repo?rev={COMMIT[:7]}#app", f"git+file:///repo?rev={COMMIT[:7]}"),
    ],
)
def test_flakes_from_elsewhere(text: str, unlocked: Optional[str]) -> None:
    parsed = parse_installable(text, "src/app")
    assert parsed == Installable(text)
    assert parsed.unlocked_reference == unlocked


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no flake reference"),
        (" .#app", "no flake reference"),
        ("--impure", "no flake reference"),
        ("../../..#app", "leads out of the repository"),
        (".?dir=nix#app", "with a query"),
        (".#app^dev", "selects outputs"),
        ("/nix/store/abc-app", "is a store path"),
    ],
)
def test_what_is_no_installable(text: str, message: str) -> None:
    with pytest.raises(BadInstallable, match=message):
        parse_installable(text, "src/app")
