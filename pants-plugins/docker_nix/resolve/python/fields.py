"""How a `pex_binary` goes into an image."""

from __future__ import annotations

from enum import Enum

from pants.engine.target import StringField
from pants.util.strutil import help_text


class PythonLayering(Enum):
    """What a `pex_binary` becomes: a store path per distribution, or one with the PEX file."""

    DISTRIBUTION = "distribution"
    BINARY = "binary"


class PythonLayeringField(StringField):
    alias = "python_layering"
    valid_choices = PythonLayering
    default = None
    help = help_text(
        """
        How this `pex_binary` goes into an image of `docker_nix`:

        - `distribution`: as a store path for each third-party distribution, one for the first-party
        sources, and one with the program `bin/<name>`, which runs the entry point or script with
        exactly these. Nothing is unpacked when it starts, and a change of the sources changes their
        layer only. `entry_point`, `script`, `args`, `env`, `execution_mode`, `include_sources`,
        `include_requirements`, `interpreter_constraints`, `resolve`, `platforms`,
        `complete_platforms`, `resolve_local_platforms`, `shebang`, `strip_pex_env` and
        `venv_hermetic_scripts` mean what they mean for a PEX. There is no PEX file, so there is
        nothing for `layout`, `output_path` and `emit_warnings` to say. What cannot be had this way
        (`include_tools`, `inherit_path`, `ignore_errors`, `venv_site_packages_copies`) is an error.

        - `binary`: as one store path with the file that `package` makes.

        The default is the option `[docker-nix].python_layering`.
        """
    )
