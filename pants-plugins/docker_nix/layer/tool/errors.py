"""The error of the layer tool."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:  # at run time, `typing` alone would take as long as a small layer
    from typing import Sequence


class ToolError(Exception):
    """What went wrong, in one line for the user; the tool prints it and exits with 1.

    :param details: lines of another program, printed below.
    """

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.details = details
