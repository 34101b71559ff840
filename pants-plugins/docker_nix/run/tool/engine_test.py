from __future__ import annotations

from pathlib import Path

import pytest

from docker_nix.layer.tool.errors import ToolError
from docker_nix.run.tool.engine import Engine, find

LAYERS = ["sha256:a", "sha256:b", "sha256:c"]


def write(directory: Path, name: str, script: str) -> Path:
    program = directory / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


def docker(directory: Path, script: str) -> Engine:
    """An engine that answers by the first two words of its arguments."""
    program = write(directory, "docker", f'case "$1 $2" in\n{script}\nesac')
    return Engine("docker", str(program), {"PATH": "/usr/bin:/bin"})


IMAGES = """\
"image ls") printf 'one\\ntwo\\none\\n';;
"image inspect")
  shift 4; test "$*" = "one two" || exit 9
  echo '["sha256:a","sha256:x","sha256:c"]'; echo '["sha256:a","sha256:b"]'; echo null
  echo 'Error: No such image: three' >&2; exit 1;;
"""


def test_layers_from_the_lowest_on(tmp_path: Path) -> None:
    engine = docker(tmp_path, IMAGES + '"info --format") echo null;;')
    assert engine.known_layers(LAYERS) == 2
    assert engine.known_layers(LAYERS[1:]) == 0
    assert engine.known_layers([]) == 0


def test_a_store_that_wants_blobs_is_given_all(tmp_path: Path) -> None:
    status = '[["driver-type","io.containerd.snapshotter.v1"]]'
    assert (
        docker(tmp_path, IMAGES + f"\"info --format\") echo '{status}';;").known_layers(LAYERS) == 0
    )
    assert docker(tmp_path, IMAGES + '"info --format") exit 1;;').known_layers(LAYERS) == 0
    podman = Engine("podman", str(tmp_path / "docker"), {})
    assert podman.known_layers(LAYERS) == 0


def test_ids(tmp_path: Path) -> None:
    script = '"image inspect") test "$5" != gone || exit 1; echo "$5";;'
    engine = docker(tmp_path, script)
    assert engine.image_id("gone") is None
    assert engine.image_id("sha256:1") == "sha256:1"
    assert engine.image_id("12ab") == "sha256:12ab"
    assert engine.first_id(["gone", "sha256:2", "sha256:3"]) == "sha256:2"
    assert engine.first_id(["gone"]) is None


def test_the_first_that_answers(tmp_path: Path) -> None:
    env = {"PATH": f"relative:{tmp_path}"}
    with pytest.raises(ToolError) as error:
        find("auto", env)
    assert str(error.value) == f"Neither docker nor podman nor nerdctl is on {tmp_path}"
    with pytest.raises(ToolError, match=f"^podman is not on {tmp_path}$"):
        find("podman", env)
    write(tmp_path, "docker", "echo; echo 'no daemon' >&2; exit 1")
    write(tmp_path, "podman", "exit 3")
    with pytest.raises(ToolError) as error:
        find("auto", env)
    assert str(error.value) == (
        f"{tmp_path}/docker cannot be used (no daemon); "
        f"{tmp_path}/podman cannot be used (`podman version` exits with 3)"
    )
    write(tmp_path, "nerdctl", 'test "$1" = version')
    assert find("auto", env).name == "nerdctl"
    write(tmp_path, "podman", "exit 0")
    assert find("auto", env).name == "podman"
    assert find("nerdctl", env).program == f"{tmp_path}/nerdctl"
    with pytest.raises(ToolError, match=r"docker cannot be used \(no daemon\)$"):
        find("docker", env)
