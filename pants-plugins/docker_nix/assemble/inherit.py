"""What an image takes over from its base: the configuration and the history.

The fields are those of OCI image-spec `config.md`; how they combine is as in a Dockerfile that
starts `FROM` the base: a list or a text that is set replaces the base's, a map or `Env` is merged.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Sequence

from docker_nix.assemble.image_config import CREATED_DEFAULT

_MAPS = ("ExposedPorts", "Labels", "Volumes")
_VALUES = ("Cmd", "Entrypoint", "Healthcheck", "StopSignal", "User", "WorkingDir")
# Docker's own, which only a base can bring: how the strings of a Dockerfile's commands are run.
_ENGINE_VALUES = ("ArgsEscaped", "Shell")


def inherited_config(base: Mapping[str, Any], own: Mapping[str, Any]) -> Dict[str, Any]:
    """The configuration of an image that sets `own` on a base with the configuration `base`.

    `Env` is merged by name, each name once, at the place where the base has it; own entries win.
    `ExposedPorts`, `Labels` and `Volumes` are merged by key. Everything else is the base's unless
    it is set; an `Entrypoint` that is set clears the base's `Cmd`, which was meant for another.
    """
    result: Dict[str, Any] = {}
    for key in (*_VALUES, *_ENGINE_VALUES):
        value = own[key] if key in own else base.get(key)
        if value or key in own:
            result[key] = value
    if "Entrypoint" in own and "Cmd" not in own:
        result.pop("Cmd", None)
    environment = merged_environment(base.get("Env") or (), own.get("Env") or ())
    if environment or "Env" in own:
        result["Env"] = environment
    for key in _MAPS:
        merged = {**(base.get(key) or {}), **(own.get(key) or {})}
        if merged or key in own:
            result[key] = merged
    return result


def merged_environment(base: Sequence[str], own: Sequence[str]) -> List[str]:
    """`NAME=value` entries with each name once: at its first place, with its last value."""
    values: Dict[str, str] = {}
    for entry in (*base, *own):
        values[entry.partition("=")[0]] = entry
    return list(values.values())


def inherited_history(base_config: Mapping[str, Any], layers: int) -> List[Dict[str, Any]]:
    """The base's lines of history; a line for each of its `layers` where it has none that fit.

    A line that makes no layer is marked `empty_layer`, so all others must be one for each layer.
    """
    history = base_config.get("history") or []
    if sum(not line.get("empty_layer") for line in history) == layers:
        return [dict(line) for line in history]
    return [{"created": CREATED_DEFAULT, "comment": "base image"} for _ in range(layers)]
