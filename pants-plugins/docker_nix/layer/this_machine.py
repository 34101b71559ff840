"""Where a process runs that must not run elsewhere, and when."""

from __future__ import annotations

from pants.engine.platform import Platform
from pants.engine.process import ProcessExecutionEnvironment

# Pants starts a process while it still looks it up in the remote cache, unless it is told to wait.
# After a miss or an error it waits no longer; this is for a cache that is slow to answer.
CACHE_HEAD_START_MILLIS = 10_000


def is_elsewhere(environment: ProcessExecutionEnvironment) -> bool:
    """Whether its processes run in a container or on a cluster."""
    return environment.remote_execution or environment.docker_image is not None


def this_machine() -> ProcessExecutionEnvironment:
    """For a process that runs here in any environment, and with `[GLOBAL].remote_execution`.

    In a `Get` of a process' result it takes the place of what the environment says. A process may
    name paths of this machine, so that it should be made in the local environment as well.
    """
    return ProcessExecutionEnvironment(
        environment_name=None,
        platform=Platform.create_for_localhost().value,
        docker_image=None,
        remote_execution=False,
        remote_execution_extra_platform_properties=[],
    )
