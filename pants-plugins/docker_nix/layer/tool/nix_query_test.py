from __future__ import annotations

import subprocess

import pytest

from docker_nix.layer.tool.nix_query import _NOT_SHOWN, nix_string, output_names


def test_output_names() -> None:
    derivation = (
        'Derive([("dev","/nix/store/a-dev","",""),("out","/nix/store/a","sha256","ab")],'
        '[("/nix/store/b.drv",["out"])],["/nix/store/src"],"x86_64-linux","/bin/sh",'
        '["-c","[(\\"no\\",\\"\\",\\"\\",\\"\\")]"],[("name","a")])'
    )
    assert output_names(derivation) == ["dev", "out"]
    assert output_names(derivation.replace("Derive(", 'DrvWithVersion("xp-dyn-drv",')) == [
        "dev",
        "out",
    ]
    assert output_names('Derive([("out","","r:sha256","")],[],[],"s","b",[],[])') == ["out"]
    assert output_names("something else") == []


@pytest.mark.parametrize("text", ["plain", 'a"b\\c', "${x} $${y} $", "new\nline\ttab\r", "größe"])
def test_strings_of_the_language(text: str) -> None:
    done = subprocess.run(
        ["nix-instantiate", "--eval", "--store", "dummy://", "--json", "--expr", nix_string(text)],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    import json

    assert json.loads(done.stdout) == text


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("bin/app", True),
        ("nix-support", False),
        ("nix-support/propagated-build-inputs", False),
        ("share/nix-support/x", True),
        ("nix-supporter", True),
        ("propagated-build-inputs", False),
        ("share/info/dir", False),
        ("share/info/dir.info", True),
        ("lib/perl5/5.36/x86_64/perllocal.pod", False),
    ],
)
def test_what_is_shown(path: str, shown: bool) -> None:
    assert (_NOT_SHOWN.fullmatch(path) is None) == shown
