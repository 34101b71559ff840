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
    """What the engine of Pants says, and the way out where a cluster or Docker is the cause."""
    # It begins with all that Pants knows of the process, in some hundred lines.
    text = str(error).rpartition("\n}\n")[2].strip()
    if "No such container" in text or "is not running" in text:
        return (
            f"{text}\n\nPants' daemon goes on asking for a container that is gone. End it with "
            "`kill $(cat .pids/*/pantsd/pid)`, and run again."
        )
    if "request timed out" in text:
        return (
            f"{text}\n\nA blob took longer on its way to or from the cluster than "
            "[GLOBAL].remote_store_rpc_timeout_millis allows (30,000 by default). Set it to what "
            "the largest layer takes on your link, or build here with --no-remote-execution."
        )
    if "Docker" in text:
        return (
            f"{text}\n\nPants runs the processes of a `docker_environment` in the engine that "
            "listens at /var/run/docker.sock. Run again when that engine is up and has the "
            "environment's image, or with --no-docker-execution, which does it where the "
            "environment's 'fallback_environment' says."
        )
    if "For action Digest" not in text:  # how it begins where a server does not execute
        return text
    return (
        f"{text}\n\nRun it again when the cluster of [GLOBAL].remote_execution_address is well, or "
        "have it done here with --no-remote-execution."
    )
