from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from docker_nix.layer.tool import skopeo
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.skopeo import Access, RegistryAccess, Skopeo
from docker_nix.layer.tool.skopeo_errors import (
    LATE,
    OTHER,
    REFUSED,
    TEMPORARY,
    UNREACHABLE,
    RegistryError,
    explain,
)

IMAGE = "registry.example.com:5000/team/app"
DIGEST = f"sha256:{'a' * 64}"
HOST = "registry.example.com:5000"


class FakeSkopeo:
    """A `skopeo` in a directory of its own, which writes down how it was called."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()

    def write(self, script: str = "echo output", version: str = "skopeo version 1.9.3") -> None:
        program = self.directory / "skopeo"
        program.write_text(
            f'#!/bin/sh\nif [ "$1" = --version ]; then echo "{version}"; exit; fi\n'
            f'echo "$*" >> {self.directory}/calls\nenv > {self.directory}/env\n{script}\n'
        )
        program.chmod(0o755)

    def access(self, **env: str) -> Access:
        return {"env": {"PATH": f"{self.directory}:/usr/bin:/bin", **env}}

    @property
    def calls(self) -> list[str]:
        """The arguments of each call but those for the version."""
        return (self.directory / "calls").read_text().splitlines()


@pytest.fixture
def fake(tmp_path: Path) -> FakeSkopeo:
    fake = FakeSkopeo(tmp_path / "bin")
    fake.write()
    return fake


def test_calls(fake: FakeSkopeo, tmp_path: Path) -> None:
    client = Skopeo(IMAGE, fake.access(), str(tmp_path))
    assert client.manifest(DIGEST) == client.config(DIGEST) == b"output\n"
    client.copy(DIGEST, str(tmp_path / "to"))
    source = f"docker://{IMAGE}@{DIGEST}"
    assert fake.calls == [
        f"--command-timeout=120s --tmpdir={tmp_path} inspect --raw --retry-times 3 {source}",
        f"--command-timeout=120s --tmpdir={tmp_path} inspect --config --raw --retry-times 3 "
        f"{source}",
        f"--command-timeout=600s --tmpdir={tmp_path} copy --quiet --retry-times 3 {source} "
        f"dir:{tmp_path}/to",
    ]


def test_push(fake: FakeSkopeo, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----")
    access = fake.access(DOCKER_CONFIG=str(tmp_path))
    access["registries"] = {HOST: {"ca_file": str(tmp_path / "ca.pem")}}
    client = Skopeo(IMAGE, access, str(tmp_path), "push")
    client.push("oci:layout:v1", "v1", 7)
    client.push("docker://x", DIGEST, 0, "--src-no-creds")
    options = f"--dest-cert-dir={tmp_path}/certificates --dest-authfile={tmp_path}/config.json"
    assert fake.calls == [
        f"--command-timeout=7s --tmpdir={tmp_path} copy --quiet --preserve-digests {options} "
        f"oci:layout:v1 docker://{IMAGE}:v1",
        f"--command-timeout=1s --tmpdir={tmp_path} copy --quiet --preserve-digests "
        f"--src-no-creds {options} docker://x docker://{IMAGE}@{DIGEST}",
    ]


def test_errors_of_a_push(fake: FakeSkopeo, tmp_path: Path) -> None:
    fake.write("echo 'level=fatal msg=\"writing blob: EOF\"' >&2; exit 1")
    with pytest.raises(RegistryError) as error:
        Skopeo(IMAGE, fake.access(), str(tmp_path), "push").push("oci:l:v1", "v1", 7)
    assert str(error.value) == (
        f"cannot push {IMAGE}:v1: the connection to {HOST} broke off (EOF); try again"
    )
    assert error.value.kind == TEMPORARY
    with pytest.raises(ToolError, match="^pushing an image needs skopeo, which is not on "):
        Skopeo(IMAGE, {"env": {"PATH": f"{tmp_path}"}}, str(tmp_path), "push")
    fake.write(version="skopeo version 1.4.0")
    with pytest.raises(ToolError, match="^pushing an image needs skopeo 1.5 or newer, and .* 1.4;"):
        Skopeo(IMAGE, fake.access(), str(tmp_path), "push")


def test_environment_is_what_is_offered(fake: FakeSkopeo, tmp_path: Path) -> None:
    Skopeo(IMAGE, fake.access(HTTPS_PROXY="http://p"), str(tmp_path)).manifest(DIGEST)
    lines = set((fake.directory / "env").read_text().splitlines())
    lines -= {f"PWD={os.getcwd()}", "_=/usr/bin/env", "SHLVL=0", "SHLVL=1", f"OLDPWD={os.getcwd()}"}
    path = f"PATH={fake.directory}:/usr/bin:/bin"
    assert lines == {path, "HTTPS_PROXY=http://p", f"TMPDIR={tmp_path}"}


def test_timeout_is_for_layers_and_an_upper_limit_for_manifests(
    fake: FakeSkopeo, tmp_path: Path
) -> None:
    for timeout, for_manifests in ((900, 120), (20, 20)):
        client = Skopeo(IMAGE, {**fake.access(), "timeout": timeout}, str(tmp_path))
        client.manifest(DIGEST)
        client.copy(DIGEST, "to")
        inspect, copy = fake.calls[-2:]
        assert f"--command-timeout={for_manifests}s" in inspect
        assert f"--command-timeout={timeout}s" in copy


def tls_options(fake: FakeSkopeo, host: str, scratch: Path, **settings: Any) -> list[str]:
    registry: RegistryAccess = cast(RegistryAccess, settings)
    access: Access = {**fake.access(), "registries": {host: registry}}
    scratch.mkdir(exist_ok=True)
    client = Skopeo(f"{host}/app", access, str(scratch))
    client.manifest(DIGEST)
    client.copy(DIGEST, "to")
    inspect, copy = (
        [word for word in call.split() if "tls" in word or "cert-dir" in word]
        for call in fake.calls[-2:]
    )
    assert [f"--src-{word[2:]}" for word in inspect] == copy
    return inspect


@pytest.mark.parametrize("host", ["localhost", "localhost:5000", "127.0.0.1:1", "[::1]:5000"])
def test_loopback_addresses_need_no_certificate(
    fake: FakeSkopeo, tmp_path: Path, host: str
) -> None:
    assert tls_options(fake, host, tmp_path) == ["--tls-verify=false"]
    assert tls_options(fake, host, tmp_path, insecure=None, ca_file=None) == ["--tls-verify=false"]
    assert tls_options(fake, host, tmp_path, insecure=False) == []


@pytest.mark.parametrize("host", ["docker.io", "localhost.example.com", "127.0.0.1.example.com"])
def test_other_addresses_need_one(fake: FakeSkopeo, tmp_path: Path, host: str) -> None:
    assert tls_options(fake, host, tmp_path) == []
    assert tls_options(fake, host, tmp_path, insecure=True) == ["--tls-verify=false"]


@pytest.mark.parametrize("host", ["localhost:5000", "registry.example.com"])
def test_ca_file(fake: FakeSkopeo, tmp_path: Path, host: str) -> None:
    ca_file = tmp_path / "own.pem"
    ca_file.write_text("-----BEGIN CERTIFICATE-----")
    scratch = tmp_path / "scratch"
    option = f"--cert-dir={scratch}/certificates"
    assert tls_options(fake, host, scratch, ca_file=str(ca_file)) == [option]
    assert (scratch / "certificates/ca.crt").read_text() == ca_file.read_text()
    ca_file.write_bytes(b"0\x82\x01")
    with pytest.raises(ToolError, match="own.pem of the registry .* has no certificate in the PEM"):
        tls_options(fake, host, scratch, ca_file=str(ca_file))


def test_docker_config(fake: FakeSkopeo, tmp_path: Path) -> None:
    def options(**env: str) -> list[str]:
        client = Skopeo(IMAGE, fake.access(**env), str(tmp_path))
        client.manifest(DIGEST)
        client.copy(DIGEST, "to")
        inspect, copy = (
            [word for word in call.split() if "authfile" in word] for call in fake.calls[-2:]
        )
        assert inspect == copy
        return inspect

    assert options(DOCKER_CONFIG=str(tmp_path)) == []  # no such file
    (tmp_path / "config.json").write_text("{}")
    assert options(DOCKER_CONFIG=str(tmp_path)) == [f"--authfile={tmp_path}/config.json"]
    assert options(DOCKER_CONFIG=str(tmp_path), REGISTRY_AUTH_FILE="/x") == []


def test_no_skopeo(tmp_path: Path) -> None:
    with pytest.raises(ToolError) as error:
        Skopeo(IMAGE, {"env": {"PATH": f"{tmp_path}:relative"}}, str(tmp_path))
    assert str(error.value) == (
        f"pulling an image needs skopeo, which is not on {tmp_path}; install it (Debian, Ubuntu: "
        "`apt-get install skopeo`; Fedora: `dnf install skopeo`; macOS: `brew install skopeo`)"
    )


def test_old_or_broken_skopeo(fake: FakeSkopeo, tmp_path: Path) -> None:
    fake.write(version="skopeo version 1.1.1-dev")
    with pytest.raises(ToolError, match=r"needs skopeo 1\.2 or newer, and .*skopeo is 1\.1; inst"):
        Skopeo(IMAGE, fake.access(), str(tmp_path))
    fake.write(version="what?")
    with pytest.raises(ToolError, match="does not run: `skopeo --version` says no version"):
        Skopeo(IMAGE, fake.access(), str(tmp_path))


@pytest.mark.parametrize(
    "text",
    [
        "Error loading trust policy: open /etc/containers/policy.json: no such file or directory",
        'no policy.json file found at any of the following: \\"/etc/containers/policy.json\\"',
    ],
)
def test_without_signature_policy_none_is_asked_for(
    fake: FakeSkopeo, tmp_path: Path, text: str
) -> None:
    fake.write(f'case "$1" in --insecure-policy) ;; *) echo "{text}" >&2; exit 1;; esac')
    Skopeo(IMAGE, fake.access(), str(tmp_path)).copy(DIGEST, "to")
    first, second = fake.calls
    assert second == f"--insecure-policy {first}"


def test_secrets_are_not_shown(fake: FakeSkopeo, tmp_path: Path) -> None:
    fake.write("echo 'odd: http://joe:geheim@proxy/ and geheim and https://a:b@c/d' >&2; exit 1")
    client = Skopeo(IMAGE, fake.access(HTTPS_PROXY="http://joe:geheim@proxy/"), str(tmp_path))
    with pytest.raises(ToolError) as error:
        client.manifest(DIGEST)
    assert str(error.value) == (
        f"cannot pull {IMAGE}@{DIGEST}: skopeo failed with exit code 1: "
        "odd: http://***@proxy/ and *** and https://***@c/d"
    )


def test_skopeo_that_ignores_its_timeout(
    fake: FakeSkopeo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(skopeo, "_GRACE_SECONDS", 1)
    fake.write("exec sleep 1000")
    client = Skopeo(IMAGE, {**fake.access(), "timeout": 1}, str(tmp_path))
    with pytest.raises(ToolError, match=r"did not answer in time \(.*, 1 s\)"):
        client.manifest(DIGEST)


# What versions of skopeo from 1.4 to 1.18 say.
MESSAGES = {
    'pinging container registry {host}: Get "https://{host}/v2/": tls: failed to verify '
    "certificate: x509: certificate signed by unknown authority": "is not trusted (x509: "
    "certificate signed by unknown authority); name the CA",
    'pinging container registry {host}: Get "https://{host}/v2/": http: server gave HTTP response'
    " to HTTPS client": "speaks plain http, not https",
    "reading manifest {digest} in {image}: unauthorized: access to the requested resource is not "
    "authorized": f"log in with `docker login {HOST}` or `skopeo login {HOST}`",
    "reading manifest {digest} in {image}: denied: requested access to the resource is denied": (
        "refuses access (denied: requested access to the resource is denied)"
    ),
    "unable to retrieve auth token: invalid username/password: unauthorized: incorrect username or "
    "password": "refuses access (invalid username/password)",
    "reading manifest {digest} in {image}: toomanyrequests: You have reached your pull rate limit."
    "": "allows no more requests for now (toomanyrequests)",
    "reading manifest {digest} in {image}: name unknown: repository name not known to registry": (
        "has no such image (name unknown)"
    ),
    "reading manifest {digest} in {image}: received unexpected HTTP status: 502 Bad Gateway": (
        "has a fault of its own (HTTP status: 502 Bad Gateway); try again later"
    ),
    'pinging container registry {host}: Get "https://{host}/v2/": dial tcp: lookup '
    "registry.example.com on 10.0.0.1:53: no such host": "cannot be reached (no such host)",
    'pinging container registry {host}: Get "https://{host}/v2/": dial tcp 10.0.0.1:5000: i/o '
    "timeout": "did not answer in time (i/o timeout, 60 s)",
    'writing blob: storing blob to file \\"/tmp/x\\": write /tmp/x: no space left on device': (
        "the disk is full (no space left on device)"
    ),
    'reading blob {digest}: Get \\"https://{host}/v2/{name}/blobs/{digest}\\": EOF': (
        "broke off (EOF)"
    ),
    "getting username and password: error getting credentials - err: exec: "
    '\\"docker-credential-gone\\": executable file not found in $PATH': (
        "the credentials for registry.example.com:5000 cannot be read: getting username and "
        'password: error getting credentials - err: exec: "docker-credential-gone": executable'
    ),
    "writing blob: happened during read: Digest did not match, expected sha256:1, got sha256:2": (
        "sent other bytes than the digest stands for (Digest did not match, expected sha256:1, got "
        "sha256:2); nothing was kept"
    ),
    "something that nobody has seen in {image}": (
        f"skopeo failed with exit code 1: something that nobody has seen in {IMAGE}"
    ),
}


PUSH_MESSAGES = {
    "writing blob: initiating layer upload to /v2/{name}/blobs/uploads/ in {host}: denied: "
    "requested access to the resource is denied": (
        REFUSED,
        "refuses access (denied: requested access to the resource is denied); log in with `docker "
        f"login {HOST}` or `skopeo login {HOST}`, with a user that may push it",
    ),
    "reading blob {digest}: open /tmp/s/layout/blobs/sha256/0a1: no such file or directory": (
        OTHER,
        "lacks layers that it was said to have, or that were to come with another tag; publish ag",
    ),
    "writing blob: uploading layer chunked: StatusCode: 413, <html>": (
        OTHER,
        "does not take an upload of that size (413, <html>)",
    ),
    "writing manifest: uploading manifest v1 to {image}: tag invalid: The image tag 'v1' already "
    "exists in the 'app' repository and cannot be overwritten because the repository is "
    "immutable.": (
        OTHER,
        "does not let the tag be given to another image (cannot be overwritten because the ",
    ),
    "writing manifest: uploading manifest v1 to {image}: manifest invalid: manifest invalid": (
        OTHER,
        "does not take this kind of image (manifest invalid: manifest invalid); if it is old",
    ),
    "initiating layer upload to /v2/{name}/blobs/uploads/ in {host}: name unknown: The repository "
    "with name 'app' does not exist in the registry": (
        OTHER,
        "has no such repository (name unknown: The repository with name 'app' does not exist in",
    ),
    "trying to reuse blob {digest} at destination: failed to read from destination repository "
    "{name}: 503 (Service Unavailable)": (
        TEMPORARY,
        "has a fault of its own (team/app: 503 (Service Unavailable)); try again later",
    ),
    "trying to reuse blob {digest} at destination: failed to read from destination repository "
    "{name}: 403 (Forbidden)": (REFUSED, "refuses access (403 (Forbidden)"),
    "writing blob: uploading layer chunked: StatusCode: 502, <html>": (
        TEMPORARY,
        "has a fault of its own (StatusCode: 502, <html>); try again later",
    ),
    "too many requests to registry": (TEMPORARY, "(too many requests); wait, or log in with"),
    'writing blob: Patch \\"https://{host}/v2/{name}/blobs/uploads/x\\": write tcp 1: '
    "use of closed network connection": (
        TEMPORARY,
        "broke off (use of closed network connection); try again",
    ),
    'pinging container registry {host}: Get \\"https://{host}/v2/\\": dial tcp: connect: '
    "connection refused": (UNREACHABLE, "cannot be reached (connection refused)"),
    "context deadline exceeded": (LATE, "did not answer in time (context deadline exceeded, 60 s)"),
}


@pytest.mark.parametrize("message", PUSH_MESSAGES)
def test_explanations_of_a_push(message: str) -> None:
    text = message
    parts = {"host": HOST, "image": IMAGE, "digest": DIGEST, "name": "team/app"}
    for key, value in parts.items():
        text = text.replace(f"{{{key}}}", value)
    kind, reason = explain(1, f'level=fatal msg="{text}"\n', IMAGE, "v1", 60, "push")
    assert kind == PUSH_MESSAGES[message][0]
    assert PUSH_MESSAGES[message][1] in reason


@pytest.mark.parametrize("message", MESSAGES)
def test_explanations(message: str) -> None:
    text = message
    parts = {"host": HOST, "image": IMAGE, "digest": DIGEST, "name": "team/app"}
    for key, value in parts.items():
        text = text.replace(f"{{{key}}}", value)
    log = (
        'time="2026-01-01T00:00:00Z" level=warning msg="Failed, retrying in 1s ... (1/3). Error: '
        'unauthorized"\n'
        f'time="2026-01-01T00:00:00Z" level=fatal msg="{text}"\n'
    )
    if '"https://' in text and "\\" not in text:
        log = log.replace('"https://', '\\"https://').replace('/v2/"', '/v2/\\"')
    assert MESSAGES[message] in explain(1, log, IMAGE, DIGEST, 60)[1]


def test_names_without_a_registry(fake: FakeSkopeo, tmp_path: Path) -> None:
    error = "reading manifest x in docker.io/library/debian: denied: no"
    fake.write(f"echo 'level=fatal msg=\"{error}\"' >&2; exit 1")
    access = fake.access()
    access["registries"] = {"docker.io": {"insecure": True}, "team": {"ca_file": "/nothing"}}
    for image in ("debian", "team/app"):
        with pytest.raises(ToolError) as raised:
            Skopeo(image, access, str(tmp_path)).manifest(DIGEST)
        assert str(raised.value).startswith(
            f"cannot pull {image}@{DIGEST}: docker.io refuses access (denied: no); log in with "
            "`docker login docker.io`"
        )
        assert fake.calls[-1].endswith(f" --tls-verify=false docker://{image}@{DIGEST}")


def test_explanation_without_a_message() -> None:
    unknown = 'level=fatal msg="reading manifest: manifest unknown"'
    assert explain(1, unknown, IMAGE, DIGEST, 60)[1].endswith("the repository and the digest")
    assert explain(1, unknown, IMAGE, "v1", 60)[1].endswith("the repository and the tag")
    assert explain(-9, "", IMAGE, DIGEST, 60)[1] == "skopeo was ended by signal 9"
    text = explain(2, "one\n\n  two \nthree\nfour\n", IMAGE, DIGEST, 60)[1]
    assert text == "skopeo failed with exit code 2: two | three | four"


def test_nothing_is_offered() -> None:
    # The parent is a shell.
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); "
        "from docker_nix.layer.tool.skopeo import read_access; print(read_access())"
    )
    plugins = str(Path(__file__).parents[3])
    command = ["/bin/sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", code, plugins]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    assert json.loads(done.stdout) == {}
