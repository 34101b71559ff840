from __future__ import annotations

from docker_nix.assemble.inherit import inherited_config, inherited_history, merged_environment

BASE = {
    "Cmd": ["python3"],
    "Entrypoint": ["/init"],
    "Env": ["PATH=/usr/bin", "LANG=C.UTF-8", "A=1"],
    "ExposedPorts": {"80/tcp": {}},
    "Healthcheck": {"Test": ["CMD", "/check"]},
    "Hostname": "7f3c1d",
    "Image": "sha256:0",
    "Labels": {"maintainer": "base", "kept": "yes"},
    "OnBuild": ["RUN false"],
    "Shell": ["/bin/bash", "-c"],
    "StopSignal": "SIGINT",
    "User": "nobody",
    "Volumes": {"/data": {}},
    "WorkingDir": "/srv",
}


def test_what_is_not_set_is_the_bases() -> None:
    inherited = inherited_config(BASE, {})
    assert inherited == {k: v for k, v in BASE.items() if k not in ("Hostname", "Image", "OnBuild")}


def test_what_is_set_wins() -> None:
    own = {
        "Cmd": ["serve"],
        "Healthcheck": {"Test": ["NONE"]},
        "StopSignal": "SIGTERM",
        "User": "65532",
        "WorkingDir": "/",
    }
    inherited = inherited_config(BASE, own)
    assert {key: inherited[key] for key in own} == own
    assert inherited["Entrypoint"] == ["/init"]


def test_an_entrypoint_clears_the_command_of_the_base() -> None:
    assert "Cmd" not in inherited_config(BASE, {"Entrypoint": ["/bin/app"]})
    both = inherited_config(BASE, {"Entrypoint": ["/bin/app"], "Cmd": ["--help"]})
    assert both["Cmd"] == ["--help"]


def test_an_empty_value_that_is_set_replaces_the_bases() -> None:
    inherited = inherited_config(BASE, {"Cmd": [], "User": ""})
    assert inherited["Cmd"] == [] and inherited["User"] == ""


def test_maps_are_merged_by_key() -> None:
    own = {
        "ExposedPorts": {"443/tcp": {}},
        "Labels": {"maintainer": "app"},
        "Volumes": {"/log": {}},
    }
    inherited = inherited_config(BASE, own)
    assert inherited["ExposedPorts"] == {"80/tcp": {}, "443/tcp": {}}
    assert inherited["Labels"] == {"maintainer": "app", "kept": "yes"}
    assert inherited["Volumes"] == {"/data": {}, "/log": {}}


def test_environment_has_each_name_once() -> None:
    assert merged_environment(
        ["PATH=/usr/bin", "LANG=C", "PATH=/bin"], ["LANG=C.UTF-8", "NEW=a=b"]
    ) == ["PATH=/bin", "LANG=C.UTF-8", "NEW=a=b"]


def test_nulls_of_a_base_are_nothing() -> None:
    # Docker writes null where nothing is set.
    base = {"Cmd": None, "Env": None, "Labels": None, "User": "", "WorkingDir": ""}
    assert inherited_config(base, {}) == {}


def test_history_is_kept_or_made_up() -> None:
    history = [
        {"created": "2024-01-01T00:00:00Z", "created_by": "ADD rootfs"},
        {"created": "2024-01-01T00:00:00Z", "created_by": "CMD sh", "empty_layer": True},
    ]
    assert inherited_history({"history": history}, 1) == history
    assert len(inherited_history({"history": history}, 2)) == 2
    assert inherited_history({}, 0) == []
    assert len(inherited_history({"history": None}, 3)) == 3
