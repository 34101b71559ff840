"""The image configuration: which keys and values are legal, and the JSON that describes an image.

Source of the rules: OCI image-spec, `config.md`; `Healthcheck` is from the Docker image
specification v1.2, which every engine that knows it reads from the same place.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Callable, Mapping, Optional, Sequence

CREATED_DEFAULT = "1970-01-01T00:00:01Z"

# GOOS and GOARCH values, which the OCI image spec says `os` and `architecture` should be.
OPERATING_SYSTEMS = ("linux", "windows", "freebsd", "darwin")
ARCHITECTURES = (
    "386",
    "amd64",
    "arm",
    "arm64",
    "loong64",
    "mips64le",
    "ppc64le",
    "riscv64",
    "s390x",
)


class ConfigError(ValueError):
    """A value of the `config` field that is not legal: `key` says where, `remedy` what to do."""

    def __init__(self, key: str, problem: str, remedy: str) -> None:
        super().__init__(f"{key}: {problem}. {remedy}")
        self.key = key
        self.problem = problem
        self.remedy = remedy


def _type_name(value: Any) -> str:
    return {"bool": "a bool", "int": "an int", "float": "a float", "str": "a string"}.get(
        type(value).__name__, f"a {type(value).__name__}"
    )


def _fail(key: str, value: Any, expected: str, example: str) -> ConfigError:
    return ConfigError(
        key,
        f"must be {expected}, but is {_type_name(value)}: {value!r}",
        f"Write it as {example}",
    )


def _string(example: str) -> Callable[[str, Any], str]:
    def check(key: str, value: Any) -> str:
        if not isinstance(value, str):
            raise _fail(key, value, "a string", example)
        return value

    return check


def _strings(example: str) -> Callable[[str, Any], list[str]]:
    def check(key: str, value: Any) -> list[str]:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise _fail(key, value, "a list of strings", example)
        for i, item in enumerate(value):
            if not isinstance(item, str):
                raise _fail(f"{key}[{i}]", item, "a string", example)
        return list(value)

    return check


def _env(key: str, value: Any) -> list[str]:
    example = '["NAME=value"]'
    seen: dict[str, str] = {}
    for i, item in enumerate(_strings(example)(key, value)):
        name, equals, _ = item.partition("=")
        if not name or not equals:
            raise ConfigError(
                f"{key}[{i}]",
                f"is {item!r}, which is not of the form NAME=value",
                f"Write it as {example}",
            )
        if name in seen:
            raise ConfigError(
                f"{key}[{i}]",
                f"is {item!r}, which sets {name} a second time (the first is {seen[name]!r})",
                "Keep one of the two",
            )
        seen[name] = item
    return list(value)


def _empty_map(
    example: str, is_legal: Callable[[str], bool], key_form: str
) -> Callable[[str, Any], dict]:
    def check(key: str, value: Any) -> dict[str, dict]:
        if not isinstance(value, Mapping):
            raise _fail(key, value, "a dict whose values are all {}", example)
        for name, item in value.items():
            if not isinstance(name, str) or not is_legal(name):
                raise ConfigError(
                    key, f"has {name!r}, which is not {key_form}", f"Write it as {example}"
                )
            if not isinstance(item, Mapping) or item:
                raise _fail(f"{key}[{name!r}]", item, "{} (an empty dict)", example)
        return {name: {} for name in value}

    return check


def _labels(key: str, value: Any) -> dict[str, str]:
    example = '{"org.opencontainers.image.title": "name"}'
    if not isinstance(value, Mapping):
        raise _fail(key, value, "a dict of strings", example)
    for name, item in value.items():
        if not isinstance(name, str):
            raise _fail(key, name, "a dict whose keys are strings", example)
        if not isinstance(item, str):
            raise _fail(f"{key}[{name!r}]", item, "a string", example)
    return dict(value)


def _healthcheck(key: str, value: Any) -> dict[str, Any]:
    example = '{"Test": ["CMD", "/bin/check"], "Interval": 30000000000}'
    if not isinstance(value, Mapping):
        raise _fail(key, value, "a dict", example)
    known = ("Test", "Interval", "Timeout", "StartPeriod", "StartInterval", "Retries")
    result: dict[str, Any] = {}
    for name, item in value.items():
        _check_known(key, name, known)
        where = f"{key}[{name!r}]"
        if name == "Test":
            result[name] = _strings(example)(where, item)
            if result[name] and result[name][0] not in ("NONE", "CMD", "CMD-SHELL"):
                raise ConfigError(
                    where,
                    f"must begin with NONE, CMD or CMD-SHELL, but begins with {item[0]!r}",
                    f"Write it as {example}",
                )
        elif isinstance(item, bool) or not isinstance(item, int) or item < 0:
            unit = "" if name == "Retries" else " of nanoseconds"
            raise _fail(where, item, f"a whole number{unit}", example)
        else:
            result[name] = item
    return result


def _check_known(where: str, name: Any, known: Sequence[str]) -> None:
    if name in known:
        return
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    by_case = [k for k in known if k.lower() == str(name).lower()]
    hint = next(iter(by_case or near), None)
    raise ConfigError(
        where,
        f"has the unknown key {name!r}",
        (f"Did you mean {hint!r}? " if hint else "") + f"The keys are {', '.join(sorted(known))}",
    )


_PORT = re.compile(r"([1-9][0-9]{0,4})(?:-([1-9][0-9]{0,4}))?(/(tcp|udp|sctp))?")


def _is_port(name: str) -> bool:
    match = _PORT.fullmatch(name)
    return match is not None and int(match[1]) <= int(match[2] or match[1]) <= 65535


def _is_absolute(name: str) -> bool:
    return name.startswith("/")


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "Cmd": _strings('["/bin/app", "--flag"]'),
    "Entrypoint": _strings('["/bin/app"]'),
    "Env": _env,
    "ExposedPorts": _empty_map('{"8080/tcp": {}}', _is_port, "a port such as '8080/tcp'"),
    "Healthcheck": _healthcheck,
    "Labels": _labels,
    "StopSignal": _string('"SIGTERM"'),
    "User": _string('"1000:1000"'),
    "Volumes": _empty_map('{"/data": {}}', _is_absolute, "an absolute path"),
    "WorkingDir": _string('"/srv"'),
}


def _check_characters(key: str, value: Any) -> None:
    """Raises ConfigError for text that neither a process nor UTF-8 can hold."""
    if isinstance(value, str):
        if "\0" in value:
            raise ConfigError(key, f"has a NUL character in {value!r}", "Remove it")
        if not is_unicode(value):
            raise ConfigError(key, f"has half a character in {value!r}", "Write it as UTF-8")
    elif isinstance(value, Mapping):
        for item in (*value, *value.values()):
            _check_characters(key, item)
    elif isinstance(value, Sequence):
        for item in value:
            _check_characters(key, item)


def is_unicode(text: str) -> bool:
    """Whether `text` can be written as UTF-8: lone surrogates cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_config(config: Mapping[Any, Any]) -> dict[str, Any]:
    """The `config` field as plain lists and dicts, checked.

    Raises ConfigError where a key is unknown (naming the nearest one) or a value has the wrong
    type or form.
    """
    result = {}
    for key, value in config.items():
        _check_known("config", key, tuple(_CHECKS))
        result[key] = _CHECKS[key](f"config[{key!r}]", value)
        _check_characters(f"config[{key!r}]", value)
    return result


_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)", re.ASCII
)


def check_created(value: str) -> str:
    """`value` where it is `now` or an RFC 3339 time; ValueError otherwise."""
    if value == "now":
        return value
    match = _RFC3339.fullmatch(value)
    if not match:
        raise ValueError("is neither 'now' nor an RFC 3339 time")
    try:
        datetime.strptime(f"{match[1]} {match[2]}", "%Y-%m-%d %H:%M:%S")
    except ValueError as e:
        raise ValueError(f"is not a time that exists ({e})") from None
    return value


@dataclass(frozen=True)
class Platform:
    """The platform an image is for, in the words of the OCI image spec."""

    architecture: str
    os: str
    variant: Optional[str] = None

    def to_json(self) -> dict[str, str]:
        result = {"architecture": self.architecture, "os": self.os}
        if self.variant:
            result["variant"] = self.variant
        return result


@dataclass(frozen=True)
class HistoryEntry:
    """One line of an image's history: what made the layer."""

    created: str
    created_by: str
    comment: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"created": self.created, "created_by": self.created_by, "comment": self.comment}


def to_json_bytes(value: Any) -> bytes:
    """Canonical JSON: sorted keys, no spaces, UTF-8. The same value gives the same bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def image_config_json(
    *,
    config: Mapping[str, Any],
    created: str,
    platform: Platform,
    diff_ids: Sequence[str],
    history: Sequence[Mapping[str, Any]],
) -> bytes:
    """The OCI image configuration blob. Its SHA-256 is the image ID.

    :param config: what check_config returned, with store path references replaced.
    :param diff_ids: `sha256:…` of each layer's uncompressed tar, lowest first.
    :param history: one line for each layer, and those of steps that made no layer.
    """
    return to_json_bytes(
        {
            **platform.to_json(),
            "config": dict(config),
            "created": created,
            "history": list(history),
            "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        }
    )


_NAME_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::[0-9]+)?|\[[0-9a-fA-F:]+\](?::[0-9]+)?)"
_NAME = re.compile(rf"(?:{_HOST}/)?{_NAME_COMPONENT}(?:/{_NAME_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)


def is_image_name(name: str) -> bool:
    """Whether `name` is legal by the grammar of the OCI distribution spec ("Pulling manifests")."""
    return len(name) <= 255 and bool(_NAME.fullmatch(name))


def is_image_tag(tag: str) -> bool:
    """Whether `tag` is legal by the grammar of the OCI distribution spec ("Pulling manifests")."""
    return bool(_TAG.fullmatch(tag))


def default_image_name(spec_path: str, target_name: str) -> str:
    """The image name for the target `spec_path:target_name`.

    The directory, then the target name unless it repeats the directory's; whatever the grammar of
    image names forbids becomes a `-`.
    """
    parts = [p for p in spec_path.split("/") if p]
    for part in target_name.split("/"):
        if part and not (parts and parts[-1] == part):
            parts.append(part)
    legal = []
    for part in parts:
        part = re.sub(r"[^a-z0-9._-]+", "-", part.lower())
        part = re.sub(r"([._-])[._-]+", r"\1", part).strip("._-")
        legal.append(part or "x")
    return "/".join(legal)[-255:].lstrip("/._-") or "image"
