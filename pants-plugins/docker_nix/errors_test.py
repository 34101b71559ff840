from __future__ import annotations

import pytest

from docker_nix.errors import engine_error

_PROCESS = """\
Failed to execute: Process {
    argv: [
        "/bin/sh",
    ],
}

"""


@pytest.mark.parametrize(
    ("text", "way_out"),
    [
        ("No space left on device (os error 28)", None),
        ("Failed to pull Docker image `builder:1`", "or with --no-docker-execution"),
        ("Docker said: No such container: 0aa05dca6c79", "kill $(cat .pids/*/pantsd/pid)"),
        ("For action Digest { … }: Execution service is not enabled", "--no-remote-execution"),
        ('Unknown: "request timed out"', "[GLOBAL].remote_store_rpc_timeout_millis"),
    ],
)
def test_it_says_the_way_out_and_not_what_the_process_was(text: str, way_out: str | None) -> None:
    for start in ("", _PROCESS):
        said, _, remedy = engine_error(Exception(start + text)).partition("\n\n")
        assert said == text
        assert (way_out in remedy) if way_out else not remedy
