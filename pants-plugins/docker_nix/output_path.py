"""Where `package` writes: the `output_path` field, checked."""

from __future__ import annotations

import posixpath
from typing import Optional

from pants.core.goals.package import OutputPathField

from docker_nix.errors import field_error


def checked_output_path(field: OutputPathField, file_ending: Optional[str]) -> str:
    """The path below the distdir. Raises DockerNixError for one that is not plainly there.

    :param file_ending: without the dot, for the default; None for a directory.
    """
    path = field.value_or_default(file_ending=file_ending)
    if posixpath.isabs(path) or posixpath.normpath(path) != path or path in (".", ".."):
        relative = False
    else:
        relative = not path.startswith("../")
    if not relative:
        raise field_error(
            field.address,
            field.alias,
            f"is {path!r}, which is not a plain path below the distdir.",
            "Write it as 'images/app', without a leading or trailing '/', './' or '..'.",
        )
    return path
