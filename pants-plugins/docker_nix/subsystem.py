"""The options of the plugin."""

from __future__ import annotations

from pants.core.util_rules.search_paths import ExecutableSearchPathsOptionMixin
from pants.option.option_types import StrOption
from pants.option.subsystem import Subsystem
from pants.util.strutil import softwrap


class DockerNixSubsystem(Subsystem):
    options_scope = "docker-nix"
    help = "Reproducible container images from store paths, as Nix' dockerTools builds them."

    class EnvironmentAware(ExecutableSearchPathsOptionMixin, Subsystem.EnvironmentAware):
        env_vars_used_by_options = ("PATH",)
        executable_search_paths_help = softwrap(
            """
            The PATH on which the programs of the `tools` field are looked up, and the Python
            interpreter that builds layers where `python` is not set.
            """
        )

        python = StrOption(
            default=None,
            help=softwrap(
                """
                Absolute path of the Python (3.8 or newer, standard library only) that runs the
                tool which builds layers.

                By default the first `python3` on the search path that works. The choice changes
                neither the bytes of a layer nor its cache key.
                """
            ),
        )
