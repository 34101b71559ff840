"""The one error type of the plugin: what is wrong, where, and the way out."""

from __future__ import annotations


class DockerNixError(Exception):
    """A build that cannot go on, for a reason the user can mend.

    The message names the target, the field, the value and what to do.
    """


def field_error(address: object, field: str, problem: str, remedy: str) -> DockerNixError:
    """An error about the field `field` of the target at `address`."""
    return DockerNixError(f"The '{field}' field in target {address} {problem}\n\n{remedy}")


def engine_error(error: Exception) -> str:
    """What the engine of Pants says, and the way out where a cluster is the cause."""
    text = str(error)
    if "For action Digest" not in text:  # how it begins where a server does not execute
        return text
    return (
        f"{text}\n\nRun it again when the cluster of [GLOBAL].remote_execution_address is well, or "
        "have it done here with --no-remote-execution."
    )
