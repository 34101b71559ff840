from __future__ import annotations

import json
from typing import Any

import pytest

from docker_nix.assemble.image_config import (
    ConfigError,
    HistoryEntry,
    Platform,
    check_config,
    check_created,
    default_image_name,
    image_config_json,
    is_image_name,
    is_image_tag,
)


def test_a_full_config_is_kept() -> None:
    config = {
        "Cmd": ["--help"],
        "Entrypoint": ["/bin/app"],
        "Env": ["A=1", "B=x=y", "C="],
        "ExposedPorts": {"8080/tcp": {}, "53/udp": {}, "9000": {}, "7000-7010/tcp": {}},
        "Healthcheck": {"Test": ["CMD", "/bin/true"], "Interval": 10**9, "Retries": 3},
        "Labels": {"a": "b"},
        "StopSignal": "SIGINT",
        "User": "65532:65532",
        "Volumes": {"/data": {}},
        "WorkingDir": "/srv",
    }
    assert check_config(config) == config
    assert check_config({}) == {}


@pytest.mark.parametrize(
    "config, message",
    [
        ({"cmd": ["x"]}, "config: has the unknown key 'cmd'. Did you mean 'Cmd'? The keys are Cmd"),
        ({"Entrypiont": []}, "has the unknown key 'Entrypiont'. Did you mean 'Entrypoint'?"),
        ({7: "x"}, "config: has the unknown key 7. The keys are Cmd, Entrypoint"),
        (
            {"Cmd": "ls -l"},
            "config['Cmd']: must be a list of strings, but is a string: 'ls -l'. "
            'Write it as ["/bin/app", "--flag"]',
        ),
        ({"Cmd": ["a", 1]}, "config['Cmd'][1]: must be a string, but is an int: 1"),
        ({"Env": {"A": "1"}}, "config['Env']: must be a list of strings, but is a dict"),
        ({"Env": ["A"]}, "config['Env'][0]: is 'A', which is not of the form NAME=value"),
        ({"Env": ["=x"]}, "config['Env'][0]: is '=x', which is not of the form NAME=value"),
        ({"Env": ["A=1", "A=2"]}, "is 'A=2', which sets A a second time (the first is 'A=1')"),
        ({"ExposedPorts": ["80"]}, "config['ExposedPorts']: must be a dict whose values are all"),
        ({"ExposedPorts": {"http": {}}}, "has 'http', which is not a port such as '8080/tcp'"),
        ({"ExposedPorts": {"80": 1}}, "config['ExposedPorts']['80']: must be {} (an empty dict)"),
        ({"ExposedPorts": {"65536/tcp": {}}}, "has '65536/tcp', which is not a port"),
        ({"ExposedPorts": {"20-10": {}}}, "has '20-10', which is not a port"),
        ({"Cmd": ["a\0b"]}, r"config['Cmd']: has a NUL character in 'a\x00b'. Remove it"),
        ({"Labels": {"\udc80": ""}}, r"config['Labels']: has half a character in '\udc80'."),
        ({"Volumes": {"data": {}}}, "has 'data', which is not an absolute path"),
        ({"Labels": {"a": 1}}, "config['Labels']['a']: must be a string, but is an int: 1"),
        ({"User": 1000}, "config['User']: must be a string, but is an int: 1000"),
        ({"Healthcheck": {"test": []}}, "has the unknown key 'test'. Did you mean 'Test'?"),
        ({"Healthcheck": {"Test": ["ls"]}}, "must begin with NONE, CMD or CMD-SHELL"),
        ({"Healthcheck": {"Retries": True}}, "must be a whole number, but is a bool: True"),
        ({"Healthcheck": {"Interval": "1s"}}, "must be a whole number of nanoseconds"),
    ],
)
def test_config_errors(config: Any, message: str) -> None:
    with pytest.raises(ConfigError) as e:
        check_config(config)
    assert message in str(e.value)


@pytest.mark.parametrize(
    "value",
    ["now", "1970-01-01T00:00:01Z", "2024-02-29T23:59:59.123+05:30", "2024-01-01T00:00:00-08:00"],
)
def test_created(value: str) -> None:
    assert check_created(value) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "today",
        "2024-01-01",
        "2023-02-29T00:00:00Z",
        "2024-01-01T25:00:00Z",
        "2024-01-01T00:00:00",
    ],
)
def test_created_errors(value: str) -> None:
    with pytest.raises(ValueError):
        check_created(value)


def test_config_json() -> None:
    blob = image_config_json(
        config={"Cmd": ["é"]},
        created="1970-01-01T00:00:01Z",
        platform=Platform("arm64", "linux", "v8"),
        diff_ids=["sha256:aa"],
        history=[HistoryEntry("1970-01-01T00:00:01Z", "x", "y").to_json()],
    )
    assert json.loads(blob) == {
        "architecture": "arm64",
        "os": "linux",
        "variant": "v8",
        "config": {"Cmd": ["é"]},
        "created": "1970-01-01T00:00:01Z",
        "history": [{"created": "1970-01-01T00:00:01Z", "created_by": "x", "comment": "y"}],
        "rootfs": {"type": "layers", "diff_ids": ["sha256:aa"]},
    }
    # The bytes themselves are a promise: another order or spacing would be another image.
    assert blob.startswith(b'{"architecture":"arm64","config":{"Cmd":["\xc3\xa9"]},"created"')


@pytest.mark.parametrize(
    "spec_path, name, image",
    [
        ("src/team/app", "app", "src/team/app"),
        ("src/team/app", "image", "src/team/app/image"),
        ("", "root", "root"),
        ("Src/My App", "Ünï", "src/my-app/n"),
        ("a", "x@compression=zstd", "a/x-compression-zstd"),
        ("a", "__x..y--", "a/x.y"),
        ("a", "é", "a/x"),
    ],
)
def test_default_image_name(spec_path: str, name: str, image: str) -> None:
    assert default_image_name(spec_path, name) == image
    assert is_image_name(image)


def test_image_names_and_tags() -> None:
    for name in ("a", "a/b_c/d.e", "a__b", "a---b", "localhost:5000/x", "registry.example.com/a/b"):
        assert is_image_name(name), name
    for name in ("", "A", "/a", "a/", "a//b", "-a", "a-", "a..b", "a:tag", "a b", "a" * 256, "ü"):
        assert not is_image_name(name), name
    for tag in ("latest", "1.0", "_x", "V1-rc.2", "a" * 128):
        assert is_image_tag(tag), tag
    for tag in ("", "-a", ".a", "a b", "a:b", "a/b", "é", "a" * 129):
        assert not is_image_tag(tag), tag
