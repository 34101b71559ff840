"""The error of the layer tool."""

from __future__ import annotations


class ToolError(Exception):
    """What went wrong, in one line for the user; the tool prints it and exits with 1."""
