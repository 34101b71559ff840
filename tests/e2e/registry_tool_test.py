"""The layer tool's `pull-…` commands, with real registries, and with one that fails as told."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import signal
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import pytest

from docker_nix.layer.tool.skopeo import ACCESS_DIRECTORY
from docker_nix.layer.tool.testing import install_tool
from docker_nix.pull import access
from support.registry import Answer, Registry, StubRegistry, write_auth_file

PASSWORD = "s3cr3t-Passw0rd"
OCI = "application/vnd.oci.image."
DOCKER = "application/vnd.docker."


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def layer_tar(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


class Image:
    """An image of gzipped layers, in OCI's or Docker's form."""

    def __init__(self, *tars: bytes, architecture: str = "amd64", docker: bool = False) -> None:
        self.blobs = [gzip.compress(data, mtime=0) for data in tars]
        self.diff_ids = [sha256(data) for data in tars]
        config = {"architecture": architecture, "os": "linux", "config": {"Cmd": ["/run"]}}
        config["rootfs"] = {"type": "layers", "diff_ids": self.diff_ids}
        self.config = json.dumps(config).encode()
        config_type = f"{DOCKER}container.image.v1+json" if docker else f"{OCI}config.v1+json"
        layer_type = f"{DOCKER}image.rootfs.diff.tar.gzip" if docker else f"{OCI}layer.v1.tar+gzip"
        self.media_type = (
            f"{DOCKER}distribution.manifest.v2+json" if docker else f"{OCI}manifest.v1+json"
        )
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": self.media_type,
                "config": descriptor(config_type, self.config),
                "layers": [descriptor(layer_type, blob) for blob in self.blobs],
            },
            indent=3,
        ).encode()

    @property
    def digest(self) -> str:
        return sha256(self.manifest)

    @property
    def content(self) -> List[Tuple[str, bytes]]:
        """What a registry has of it, with media types."""
        blobs = [("application/octet-stream", data) for data in (self.config, *self.blobs)]
        return [(self.media_type, self.manifest), *blobs]

    @property
    def layers(self) -> List[Dict[str, Any]]:
        """The layers as the spec of `pull-layers` has them."""
        return [
            {"digest": sha256(blob), "size": len(blob), "diff_id": diff_id}
            for blob, diff_id in zip(self.blobs, self.diff_ids)
        ]


def descriptor(media_type: str, data: bytes, **more: object) -> Dict[str, Any]:
    return {"mediaType": media_type, "digest": sha256(data), "size": len(data), **more}


def index(*entries: Tuple[Image, Dict[str, str]]) -> bytes:
    manifests = [
        descriptor(image.media_type, image.manifest, platform=platform)
        for image, platform in entries
    ]
    return json.dumps(
        {"schemaVersion": 2, "mediaType": f"{OCI}index.v1+json", "manifests": manifests}
    ).encode()


def write_layout(path: Path, top: Tuple[str, bytes], *content: Tuple[str, bytes]) -> str:
    """Write an OCI layout, and return how skopeo names it."""
    blobs = path / "blobs/sha256"
    blobs.mkdir(parents=True)
    for _, data in (top, *content):
        (blobs / sha256(data).partition(":")[2]).write_bytes(data)
    (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    manifests = [descriptor(*top)]
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))
    return f"oci:{path}"


BASE = Image(layer_tar("etc/hostname", b"base\n"), layer_tar("data", os.urandom(300_000)))
ARM = Image(layer_tar("arm", b"64"), architecture="arm64")
ARM_V7 = Image(layer_tar("arm", b"v7"), architecture="arm")
DOCKERS = Image(layer_tar("docker", b"2.2"), docker=True)
# The same layer twice.
TWICE = Image(layer_tar("one", b"1"), layer_tar("two", b"2"), layer_tar("one", b"1"))

AMD64 = {"os": "linux", "architecture": "amd64"}
ARM64 = {"os": "linux", "architecture": "arm64"}


def offer(
    env: Optional[Dict[str, str]] = None,
    registries: Optional[Dict[str, Any]] = None,
    timeout: int = 60,
) -> None:
    env = {"PATH": os.environ["PATH"], **(env or {})}
    access.offer({"env": env, "registries": registries or {}, "timeout": timeout})


@pytest.fixture(scope="module", autouse=True)
def tool(tmp_path_factory: pytest.TempPathFactory) -> None:
    Sandbox.tool = install_tool(tmp_path_factory.mktemp("tool"))


@pytest.fixture(autouse=True)
def offered(tmp_path: Path) -> Iterator[None]:
    """Access without the credentials that the user may have."""
    offer({"HOME": str(tmp_path / "home")})
    yield


class Sandbox:
    """A directory as Pants makes it for a process, and the tool run in it."""

    tool: Path

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    def start(self, command: str, **spec: Any) -> subprocess.Popen[str]:
        (self.path / "spec.json").write_text(json.dumps(spec))
        return subprocess.Popen(
            ["/bin/sh", str(self.tool), command, "spec.json"],
            cwd=self.path,
            env={},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, command: str, **spec: Any) -> None:
        process = self.start(command, **spec)
        output = process.communicate()
        assert (process.returncode, *output) == (0, "", "")

    def error(self, command: str, **spec: Any) -> str:
        """The message of a failing run, which leaves nothing behind."""
        process = self.start(command, **spec)
        output, message = process.communicate()
        assert (process.returncode, output) == (1, ""), message
        assert message.startswith("error: ") and message.count("\n") == 1, message
        assert self.files() == ["spec.json"]
        return message[len("error: ") : -1]

    def files(self) -> List[str]:
        return sorted(
            str(path.relative_to(self.path)) for path in self.path.rglob("*") if path.is_file()
        ) + [str(path) for path in self.path.rglob("*") if path.is_symlink()]

    def pull_manifest(self, image: str, digest: str, platform: Dict[str, Any] = AMD64) -> None:
        self.run("pull-manifest", image=image, digest=digest, platform=platform)

    def manifest_error(self, image: str, digest: str, platform: Dict[str, Any] = AMD64) -> str:
        return self.error("pull-manifest", image=image, digest=digest, platform=platform)

    def pull_layers(self, name: str, image: Image) -> None:
        self.run("pull-layers", image=name, digest=image.digest, layers=image.layers)

    def layers_error(self, name: str, image: Image) -> str:
        return self.error("pull-layers", image=name, digest=image.digest, layers=image.layers)

    def check_manifest(self, image: Image) -> None:
        assert (self.path / "manifest.json").read_bytes() == image.manifest
        assert (self.path / "config.json").read_bytes() == image.config
        assert self.files() == ["config.json", "manifest.json", "spec.json"]

    def check_layers(self, image: Image) -> None:
        expected = ["spec.json"]
        for blob, diff_id in zip(image.blobs, image.diff_ids):
            name = "layers/" + sha256(blob).partition(":")[2]
            expected += [name, f"{name}.json"]
            assert (self.path / name).read_bytes() == blob
            found = json.loads((self.path / f"{name}.json").read_text())
            assert found["digest"] == sha256(blob) and found["size"] == len(blob)
            assert found["diff_id"] == diff_id and found["compression"] == "gzip"
        assert self.files() == sorted(set(expected))


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path / "sandbox")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry") / "r") as registry:
        yield registry


def push(registry: Registry, folder: Path, repository: str, image: Image) -> str:
    """Push the image, with its digest as it is; the name to pull it by."""
    layout = write_layout(folder / "layout", (image.media_type, image.manifest), *image.content)
    assert registry.push(layout, repository) == image.digest
    return f"{registry.address}/{repository}"


def test_image_by_digest(registry: Registry, tmp_path: Path) -> None:
    name = push(registry, tmp_path, "deep/name/base", BASE)
    manifest, layers = Sandbox(tmp_path / "1"), Sandbox(tmp_path / "2")
    manifest.pull_manifest(name, BASE.digest)
    manifest.check_manifest(BASE)
    layers.pull_layers(name, BASE)
    layers.check_layers(BASE)


def test_docker_schema_2_and_layer_that_is_twice_in_it(registry: Registry, tmp_path: Path) -> None:
    for repository, image in (("docker", DOCKERS), ("twice", TWICE)):
        folder = tmp_path / repository
        folder.mkdir()
        name = push(registry, folder, repository, image)
        manifest, layers = Sandbox(folder / "1"), Sandbox(folder / "2")
        manifest.pull_manifest(name, image.digest)
        manifest.check_manifest(image)
        layers.pull_layers(name, image)
        layers.check_layers(image)


def test_only_the_wanted_layers_are_written(registry: Registry, tmp_path: Path) -> None:
    name = push(registry, tmp_path, "some", BASE)
    sandbox = Sandbox(tmp_path / "sandbox")
    sandbox.run("pull-layers", image=name, digest=BASE.digest, layers=BASE.layers[1:])
    hexadecimal = sha256(BASE.blobs[1]).partition(":")[2]
    expected = [f"layers/{hexadecimal}", f"layers/{hexadecimal}.json", "spec.json"]
    assert sandbox.files() == expected


def test_image_of_no_layers(registry: Registry, tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path / "sandbox")
    empty = Image()
    name = push(registry, tmp_path, "empty", empty)
    sandbox.pull_manifest(name, empty.digest)
    sandbox.check_manifest(empty)
    sandbox.pull_layers(name, empty)


def test_index_leads_to_the_image_for_the_platform(registry: Registry, tmp_path: Path) -> None:
    listed = index(
        (BASE, {"os": "unknown", "architecture": "unknown"}),
        (DOCKERS, AMD64),
        (ARM, {**ARM64, "variant": "v8"}),
        (ARM_V7, {"os": "linux", "architecture": "arm", "variant": "v7"}),
    )
    content = [*BASE.content, *DOCKERS.content, *ARM.content, *ARM_V7.content]
    layout = write_layout(tmp_path / "layout", (f"{OCI}index.v1+json", listed), *content)
    assert registry.push(layout, "index") == sha256(listed)
    name = f"{registry.address}/index"
    cases: List[Tuple[Dict[str, Any], Image]] = [
        (AMD64, DOCKERS),
        (ARM64, ARM),
        ({**ARM64, "variant": "v8"}, ARM),
        ({"os": "linux", "architecture": "arm", "variant": None}, ARM_V7),
    ]
    for number, (platform, image) in enumerate(cases):
        sandbox = Sandbox(tmp_path / str(number))
        sandbox.pull_manifest(name, sha256(listed), platform)
        sandbox.check_manifest(image)
    sandbox = Sandbox(tmp_path / "error")
    assert sandbox.manifest_error(name, sha256(listed), {**ARM64, "variant": "v9"}) == (
        f"{name}@{sha256(listed)}: it has no image for linux/arm64/v9; "
        "it has: linux/amd64, linux/arm64/v8, linux/arm/v7"
    )


def test_what_the_registry_does_not_have(
    registry: Registry, tmp_path: Path, sandbox: Sandbox
) -> None:
    name = push(registry, tmp_path, "known", BASE)
    nothing = f"sha256:{'0' * 64}"
    for image, digest in ((name, nothing), (f"{registry.address}/unknown", BASE.digest)):
        assert sandbox.manifest_error(image, digest) == (
            f"cannot pull {image}@{digest}: {registry.address} has no such image "
            "(manifest unknown); check the repository and the digest"
        )


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with a password, a certificate that nobody knows, and `BASE` as `base`."""
    folder = tmp_path_factory.mktemp("private")
    with Registry(folder / "r", users={"joe": PASSWORD}, tls=True) as registry:
        push(registry, folder, "base", BASE)
        yield registry


def test_password_and_own_certificates(private: Registry, tmp_path: Path) -> None:
    name = f"{private.address}/base"
    registries = {private.address: {"insecure": False, "ca_file": str(private.ca_file)}}
    logins = {
        "REGISTRY_AUTH_FILE": private.auth_file(tmp_path / "keys/auth.json", "joe"),
        "DOCKER_CONFIG": private.auth_file(tmp_path / "keys/config.json", "joe").parent,
        "HOME": private.auth_file(tmp_path / "keys/.docker/config.json", "joe").parents[1],
    }
    for variable, path in logins.items():
        offer({"HOME": str(tmp_path / "home"), variable: str(path)}, registries)
        folder = tmp_path / variable
        folder.mkdir()
        manifest, layers = Sandbox(folder / "1"), Sandbox(folder / "2")
        manifest.pull_manifest(name, BASE.digest)
        manifest.check_manifest(BASE)
        layers.pull_layers(name, BASE)
        layers.check_layers(BASE)
        check_no_traces(folder, tmp_path / "keys", private)


def check_no_traces(folder: Path, keys: Path, registry: Registry) -> None:
    """Neither the password nor what names it or the certificate is in a file below `folder`."""
    words = [PASSWORD, str(keys), str(registry.ca_file)]
    words.append(json.loads((keys / "auth.json").read_text())["auths"][registry.address]["auth"])
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [word for word in words if word.encode() in content], path


@pytest.mark.parametrize("command", ["manifest", "layers"])
def test_refused_access(private: Registry, tmp_path: Path, sandbox: Sandbox, command: str) -> None:
    name = f"{private.address}/base"
    registries = {private.address: {"ca_file": str(private.ca_file)}}
    expected = (
        f"cannot pull {name}@{BASE.digest}: {private.address} refuses access (unauthorized: "
        f"authentication required); log in with `docker login {private.address}` or "
        f"`skopeo login {private.address}`, with a user that may pull it"
    )
    wrong = write_auth_file(tmp_path / "auth.json", private.address, "joe", f"not-{PASSWORD}")
    for env in ({}, {"REGISTRY_AUTH_FILE": str(wrong)}):
        offer({"HOME": str(tmp_path / "home"), **env}, registries)
        if command == "manifest":
            assert sandbox.manifest_error(name, BASE.digest) == expected
        else:
            assert sandbox.layers_error(name, BASE) == expected


def test_untrusted_certificate(private: Registry, tmp_path: Path, sandbox: Sandbox) -> None:
    login = private.auth_file(tmp_path / "auth.json", "joe")
    env = {"HOME": str(tmp_path / "home"), "REGISTRY_AUTH_FILE": str(login)}
    offer(env, {private.address: {"insecure": False, "ca_file": None}})
    name = f"{private.address}/base"
    message = sandbox.manifest_error(name, BASE.digest)
    assert f"the certificate of {private.address} is not trusted (x509: " in message
    assert "`ca_file` in [docker-nix].registries" in message
    # Certificates of this machine's own registries are not checked, and of others if told so.
    for number, registries in enumerate(({}, {private.address: {"insecure": True}})):
        offer(env, registries)
        Sandbox(tmp_path / str(number)).pull_manifest(name, BASE.digest)


def test_certificates_of_the_environment(private: Registry, tmp_path: Path) -> None:
    login = private.auth_file(tmp_path / "auth.json", "joe")
    env = {"REGISTRY_AUTH_FILE": str(login), "SSL_CERT_FILE": str(private.ca_file)}
    offer(env, {private.address: {"insecure": False}})
    Sandbox(tmp_path / "sandbox").pull_manifest(f"{private.address}/base", BASE.digest)


def test_unusable_settings(private: Registry, tmp_path: Path, sandbox: Sandbox) -> None:
    name = f"{private.address}/base"
    offer({}, {private.address: {"ca_file": "/nothing/here.crt"}})
    assert sandbox.manifest_error(name, BASE.digest) == (
        f"the ca_file /nothing/here.crt of the registry {private.address} cannot be read; "
        "see [docker-nix].registries"
    )
    bad = tmp_path / "bad.json"
    bad.write_text(f"auths: {PASSWORD}")
    offer({"REGISTRY_AUTH_FILE": str(bad)}, {private.address: {"insecure": True}})
    message = sandbox.manifest_error(name, BASE.digest)
    assert f"the credentials for {private.address} cannot be read: " in message
    assert PASSWORD not in message


@pytest.fixture
def stub() -> Iterator[StubRegistry]:
    with StubRegistry(BASE.content) as stub:
        yield stub


FAILURES = {
    "401": (Answer(401, headers={"WWW-Authenticate": 'Basic realm="x"'}), "refuses access ("),
    "403": (Answer(403), "refuses access ("),
    "404": (Answer(404), "has no such image (404"),
    "429": (Answer(429, headers={"Retry-After": "1"}), "allows no more requests for now ("),
    "500": (Answer(500), "has a fault of its own ("),
    "503": (Answer(503), "has a fault of its own ("),
    "cut": (Answer(cut=True), "broke off (unexpected EOF); try again"),
    "garbled": (Answer(garbled=True), "nothing was kept"),
    "hang": (Answer(hang=True), "did not answer in time (context deadline exceeded, 2 s)"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_failing_registry(
    stub: StubRegistry, tmp_path: Path, sandbox: Sandbox, failure: str
) -> None:
    name = f"{stub.address}/my/base"
    offer({"HOME": str(tmp_path / "home")}, timeout=2 if failure == "hang" else 60)
    answer, expected = FAILURES[failure]
    stub.answers = {"/manifests/": answer}
    assert expected in sandbox.manifest_error(name, BASE.digest)
    stub.answers = {"/blobs/": answer}
    assert expected in sandbox.manifest_error(name, BASE.digest)
    assert expected in sandbox.layers_error(name, BASE)


def test_layer_that_fails_while_others_come(stub: StubRegistry, sandbox: Sandbox) -> None:
    stub.answers = {sha256(BASE.blobs[1]): Answer(garbled=True)}
    message = sandbox.layers_error(f"{stub.address}/base", BASE)
    assert "sent other bytes than the digest stands for (Digest did not match" in message
    assert sha256(BASE.blobs[1]) in message


def test_names_that_sound_like_errors(stub: StubRegistry, sandbox: Sandbox) -> None:
    stub.answers = {"/manifests/": Answer(500)}
    for name in ("unauthorized", "manifest-unknown/x509", "toomanyrequests/429"):
        message = sandbox.manifest_error(f"{stub.address}/{name}", BASE.digest)
        assert "has a fault of its own (HTTP status: 500 Internal Server Error)" in message


def test_layer_of_another_size_or_content(stub: StubRegistry, sandbox: Sandbox) -> None:
    name = f"{stub.address}/base"
    size = {**BASE.layers[0], "size": 5}
    message = sandbox.error("pull-layers", image=name, digest=BASE.digest, layers=[size])
    assert "bytes, not 5; nothing was kept" in message
    content = {**BASE.layers[0], "diff_id": BASE.diff_ids[1]}
    message = sandbox.error("pull-layers", image=name, digest=BASE.digest, layers=[content])
    assert BASE.diff_ids[1] in message
    missing = {**BASE.layers[0], "digest": f"sha256:{'1' * 64}"}
    message = sandbox.error("pull-layers", image=name, digest=BASE.digest, layers=[missing])
    assert "it did not come with the image; nothing was kept" in message


def test_unreachable_registry(sandbox: Sandbox) -> None:
    with StubRegistry() as stub:
        address = stub.address
    assert sandbox.manifest_error(f"{address}/a", BASE.digest) == (
        f"cannot pull {address}/a@{BASE.digest}: {address} cannot be reached (connection refused); "
        "check the name, the port, the network and the proxy"
    )
    message = sandbox.manifest_error("registry.invalid/a", BASE.digest)
    assert "registry.invalid cannot be reached (" in message


def test_plain_http_where_https_was_asked(stub: StubRegistry, sandbox: Sandbox) -> None:
    offer({}, {stub.address: {"insecure": False}})
    message = sandbox.manifest_error(f"{stub.address}/a", BASE.digest)
    assert f"{stub.address} speaks plain http, not https" in message
    assert "set `insecure` in [docker-nix].registries" in message


def test_unreachable_proxy_and_its_password(sandbox: Sandbox, tmp_path: Path) -> None:
    proxy = f"http://joe:{PASSWORD}@127.0.0.1:1"
    offer({"HTTPS_PROXY": proxy, "HTTP_PROXY": proxy, "HOME": str(tmp_path)})
    message = sandbox.manifest_error("registry.invalid/a", BASE.digest)
    assert "cannot be reached (proxyconnect tcp: " in message
    assert PASSWORD not in message and "joe" not in message


def test_manifests_that_are_no_images(tmp_path: Path) -> None:
    oci = f"{OCI}manifest.v1+json"
    config = descriptor(f"{OCI}config.v1+json", BASE.config)

    def manifest(config: Dict[str, Any], *layers: Dict[str, Any]) -> bytes:
        return json.dumps({"schemaVersion": 2, "config": config, "layers": layers}).encode()

    def layer(media_type: str) -> Dict[str, Any]:
        return descriptor(media_type, BASE.blobs[0])

    no_diff_ids = b'{"os": "linux", "architecture": "amd64"}'
    good = layer(f"{OCI}layer.v1.tar+gzip")
    cases = [
        (
            manifest(descriptor("application/vnd.cncf.helm.config.v1+json", b"{}")),
            "it is not an image, but an artifact of 'application/vnd.cncf.helm.config.v1+json'",
        ),
        (
            manifest(config, layer(f"{OCI}layer.nondistributable.v1.tar+gzip")),
            "may not be distributed",
        ),
        (
            manifest(config, layer(f"{DOCKER}image.rootfs.foreign.diff.tar.gzip")),
            "may not be distributed",
        ),
        (manifest(config, layer(f"{OCI}layer.v1.tar+gzip+encrypted")), "is encrypted"),
        (manifest(config, layer("application/wasm")), "is not a layer of files"),
        (manifest(config, good), "it has 1 layers, but its config 2 diff_ids"),
        (
            manifest(descriptor(f"{OCI}config.v1+json", no_diff_ids), good),
            "its config has no rootfs.diff_ids",
        ),
        (
            manifest({**config, "size": 7}, good, good),
            f"its size is {len(BASE.config)} bytes, not 7",
        ),
        (b"[]", "it is not a JSON object"),
    ]
    content = [(oci, data) for data, _ in cases]
    content.append(("application/octet-stream", no_diff_ids))
    with StubRegistry([*BASE.content, *content]) as stub:
        for number, (data, expected) in enumerate(cases):
            sandbox = Sandbox(tmp_path / str(number))
            assert expected in sandbox.manifest_error(f"{stub.address}/a", sha256(data))


def test_schema_1(tmp_path: Path, sandbox: Sandbox) -> None:
    old = json.dumps({"schemaVersion": 1, "name": "a", "tag": "1", "fsLayers": []}).encode()
    with StubRegistry([(f"{DOCKER}distribution.manifest.v1+json", old)]) as stub:
        message = sandbox.manifest_error(f"{stub.address}/a", sha256(old))
    assert "it is in the old format `schema 1`" in message


def test_index_in_an_index(tmp_path: Path) -> None:
    inner = index((BASE, AMD64), (ARM, ARM64))
    index_type = f"{OCI}index.v1+json"

    def outer(data: bytes) -> bytes:
        entries = [descriptor(index_type, data)]
        return json.dumps({"schemaVersion": 2, "manifests": entries}).encode()

    nested = [inner]
    for _ in range(4):
        nested.append(outer(nested[-1]))
    content = [(index_type, data) for data in nested]
    with StubRegistry([*BASE.content, *content]) as stub:
        sandbox = Sandbox(tmp_path / "1")
        sandbox.pull_manifest(f"{stub.address}/a", sha256(nested[1]))
        sandbox.check_manifest(BASE)
        message = Sandbox(tmp_path / "2").manifest_error(f"{stub.address}/a", sha256(nested[4]))
        assert "it is an index in an index" in message


def test_nothing_offered(stub: StubRegistry, tmp_path: Path, sandbox: Sandbox) -> None:
    # Its parent is a shell that offers nothing.
    spec = {"image": f"{stub.address}/a", "digest": BASE.digest, "platform": AMD64}
    (sandbox.path / "spec.json").write_text(json.dumps(spec))
    tool = ["/bin/sh", str(sandbox.tool), "pull-manifest", "spec.json"]
    command = ["/bin/sh", "-c", '"$@"; exit $?', "sh", *tool]
    subprocess.run(command, cwd=sandbox.path, env={}, check=True)
    sandbox.check_manifest(BASE)
    assert not Path(ACCESS_DIRECTORY.format(uid=os.geteuid()), str(os.getpid())).exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_ended_from_outside(stub: StubRegistry, sandbox: Sandbox, number: int) -> None:
    stub.answers = {"/blobs/": Answer(hang=True)}
    name = f"{stub.address}/base"
    process = sandbox.start(
        "pull-layers", image=name, digest=BASE.digest, layers=BASE.layers, platform=AMD64
    )
    deadline = time.monotonic() + 60
    while not any("/blobs/" in request for request in stub.requests):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    assert name in commands_of_all_processes()
    process.send_signal(number)
    process.communicate()
    while name in commands_of_all_processes():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    if number != signal.SIGKILL:
        assert sandbox.files() == ["spec.json"]


def commands_of_all_processes() -> str:
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            commands.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            pass
    return "\n".join(commands)


def test_machine_without_signature_policy(stub: StubRegistry, sandbox: Sandbox) -> None:
    # A wrapper that hides /etc/containers, where Debian has the policy.
    tools = sandbox.path.parent / "bin"
    tools.mkdir()
    wrapper = tools / "skopeo"
    script = 'mount -t tmpfs none /etc/containers; exec /usr/bin/skopeo "$@"'
    quoted = script.replace('"', '\\"').replace("$", "\\$")
    wrapper.write_text(f'#!/bin/sh\nexec unshare -m sh -c "{quoted}" sh "$@"\n')
    wrapper.chmod(0o755)
    offer({"PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(tools)})
    sandbox.pull_layers(f"{stub.address}/base", BASE)
    sandbox.check_layers(BASE)


def test_signature_policy_is_obeyed(stub: StubRegistry, sandbox: Sandbox, tmp_path: Path) -> None:
    policy = tmp_path / "home/.config/containers/policy.json"
    policy.parent.mkdir(parents=True)
    policy.write_text('{"default": [{"type": "reject"}]}')
    message = sandbox.layers_error(f"{stub.address}/base", BASE)
    assert "the signature policy of this machine (containers-policy.json) forbids it" in message


def test_full_disk(stub: StubRegistry, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "none", str(folder)], check=True)
    try:
        message = Sandbox(folder / "sandbox").layers_error(f"{stub.address}/base", BASE)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    assert "the disk is full (no space left on device); make room" in message
