"""`docker_nix_pull` and images on what it pulls: Pants, with real registries and with failing ones."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import random
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import pytest

from support.buildgrid import BuildGrid, Link, free_port
from support.debian_image import write_layout
from support.registry import Answer, Registry, StubRegistry, write_auth_file
from support.workspace import Repo, Run

PASSWORD = "s3cr3t-Passw0rd"
BIG = 3_000_000
OCI, DOCKER = "application/vnd.oci.image", "application/vnd.docker"
CONFIG = {"Env": ["BASE=1"], "Cmd": ["/bin/sh"]}

# What says how registries are reached; tests set it as they need it.
_SETTINGS = ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME")

# A goal that needs an image, and none of its bytes.
_GOAL = """\
from pants.engine.console import Console
from pants.engine.goal import Goal, GoalSubsystem
from pants.engine.rules import Get, collect_rules, goal_rule
from pants.engine.target import Targets

from docker_nix.assemble.image import BuiltImage
from docker_nix.assemble.rules import LayeredImageFieldSet


class DigestSubsystem(GoalSubsystem):
    name = "image-digest"
    help = "Print the digests of images."


class DigestGoal(Goal):
    subsystem_cls = DigestSubsystem
    environment_behavior = Goal.EnvironmentBehavior.LOCAL_ONLY


@goal_rule
async def image_digest(console: Console, targets: Targets) -> DigestGoal:
    for target in targets:
        field_set = LayeredImageFieldSet.create(target)
        image = await Get(BuiltImage, LayeredImageFieldSet, field_set)
        console.print_stdout(image.manifest.digest)
    return DigestGoal(exit_code=0)


def rules():
    return collect_rules()
"""


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """No settings of the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        # Where the launcher keeps Pants, which need not be installed for each home directory.
        cache = os.environ.get("XDG_CACHE_HOME", f"{Path.home()}/.cache")
        patch.setenv("XDG_CACHE_HOME", cache)
        for name in _SETTINGS:
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pull")


def tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


class Image:
    """An image of two layers, as an OCI layout in `layout`; `name` makes it a different one."""

    def __init__(self, layout: Path, name: str, **options: Any) -> None:
        self.layout = layout
        big = random.Random(name).randbytes(BIG)
        tars = [tar({"etc/name": name.encode()}), tar({"usr/big": big})]
        self.digest = write_layout(layout, tars, CONFIG, **options)
        self.manifest_bytes = self.blob(self.digest)
        self.manifest = json.loads(self.manifest_bytes)
        self.layers = [layer["digest"] for layer in self.manifest["layers"]]

    def blob(self, digest: str) -> bytes:
        return (self.layout / "blobs" / digest.replace(":", "/")).read_bytes()

    @property
    def content(self) -> List[Tuple[str, bytes]]:
        """What a registry has of it, with media types."""
        blobs = [self.manifest["config"]["digest"], *self.layers]
        return [
            (self.manifest["mediaType"], self.manifest_bytes),
            *(("application/octet-stream", self.blob(digest)) for digest in blobs),
        ]


@pytest.fixture(scope="module")
def machine(folder: Path) -> Iterator[Repo]:
    """A machine with a daemon for all tests that need no other."""
    repo = make_machine(folder / "machine")
    yield repo
    repo.close()


@pytest.fixture(scope="module")
def registry(folder: Path) -> Iterator[Registry]:
    with Registry(folder / "registry") as registry:
        yield registry


@pytest.fixture(scope="module")
def image(folder: Path) -> Image:
    return Image(folder / "image", "base")


def pull_target(name: str, image: str, digest: str, **fields: object) -> str:
    more = "".join(f", {field}={value!r}" for field, value in fields.items())
    return f"docker_nix_pull(name={name!r}, image_name={image!r}, image_digest={digest!r}{more})\n"


def on_top(name: str, base: str, **fields: object) -> str:
    more = "".join(f", {field}={value!r}" for field, value in fields.items())
    return f"docker_nix_layered(name={name!r}, from_image=':{base}', contents=[':own']{more})\n"


def make_machine(root: Path, *options: str, pantsd: bool = True) -> Repo:
    """A machine that has built nothing yet."""
    return Repo(
        root / "repo",
        store=root / "store",
        pantsd=pantsd,
        backends=["docker_nix"],
        options=["--no-verify-config", *options],  # for options of the backends that are left out
    )


def write_targets(repo: Repo, directory: str, *targets: str) -> None:
    repo.write(f"{directory}/own.txt", "own")
    repo.write(f"{directory}/BUILD", "file(name='own', source='own.txt')\n" + "".join(targets))


def registries(**options: object) -> str:
    return f"--docker-nix-registries={ {'mine': options} !r}"


def error(repo: Repo, *args: str, env: Optional[Mapping[str, str]] = None) -> str:
    """What a failing run says, without the traces of the engine, and with nothing left in dist."""
    shutil.rmtree(repo.root / "dist", ignore_errors=True)
    run = repo.pants(*args, check=False, env=env)
    assert run.exit_code == 1, run.output
    assert "Traceback" not in run.output, run.output
    assert not (repo.root / "dist").exists()
    return run.output.partition("Engine traceback:")[2].partition("\n\n")[2] or run.output


def matches(text: str, pattern: str) -> bool:
    """Whether the text begins with the pattern, in which `*` is anything in one line."""
    return re.match(re.escape(pattern).replace(r"\*", ".*"), text) is not None


def dist_blob(repo: Repo, output: str, digest: str) -> bytes:
    return (repo.root / "dist" / output / "blobs" / digest.replace(":", "/")).read_bytes()


def dist_manifest(repo: Repo, output: str) -> Dict[str, Any]:
    """The manifest of a layout, all blobs of which are checked."""
    index = json.loads((repo.root / "dist" / output / "index.json").read_text())
    (entry,) = index["manifests"]
    manifest: Dict[str, Any] = json.loads(dist_blob(repo, output, entry["digest"]))
    assert manifest["mediaType"] == entry["mediaType"]
    for part in (entry, manifest["config"], *manifest["layers"]):
        data = dist_blob(repo, output, part["digest"])
        assert part["digest"] == f"sha256:{hashlib.sha256(data).hexdigest()}"
        assert part["size"] == len(data)
    return manifest


# Credentials


def forms(secret: str) -> List[bytes]:
    """The text itself, and what all its base64 forms have in common, whatever stands before it."""
    found = [secret.encode()]
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + secret.encode())
        found.append(encoded[(before * 8 + 5) // 6 : -4])
    return found


def files_with(words: Sequence[bytes], *folders: Path) -> List[Path]:
    found = []
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes()
                if any(word in content for word in words):
                    found.append(path)
    return sorted(found)


_HELPER = """\
#!/bin/sh
test "$1" = get
read -r server
printf '{"ServerURL": "%s", "Username": "joe", "Secret": "%s"}' "$server" "$HELPER_SECRET"
"""


def test_logins_and_where_they_must_not_be(folder: Path, image: Image) -> None:
    """Each way to log in works, a changed login is seen, and no trace of any of them is kept."""
    root = folder / "logins"
    ways = ("docker-config", "home", "auth-file", "helper", "no-pantsd")
    with (
        Registry(root / "registry", users={"joe": PASSWORD}, tls=True) as registry,
        BuildGrid(root / "grid") as grid,
    ):
        for way in ways:
            assert registry.push(f"oci:{image.layout}:base", f"team/{way}") == image.digest
        ca_file = root / "keys/ca.pem"
        ca_file.parent.mkdir()
        shutil.copy(f"{registry.ca_file}", ca_file)
        options = [
            "-ldebug",
            f"--named-caches-dir={root}/named",
            f"--local-execution-root-dir={root}/sandboxes",
            "--keep-sandboxes=always",
            f"--remote-store-address=grpc://127.0.0.1:{grid.port}",
            "--remote-cache-read",
            "--remote-cache-write",
            "--docker-nix-env-vars=['HELPER_SECRET']",
            registries(address=registry.address, ca_file=str(ca_file)),
        ]
        for name in ("sandboxes", "tmp"):
            (root / name).mkdir()
        homes = {name: root / "keys" / name for name in ("nobody", "joe")}
        for home in homes.values():
            home.mkdir()
            for settings in (".config", ".pip"):  # which package index to use
                (home / settings).symlink_to(Path.home() / settings)
        common = {
            "HOME": str(homes["nobody"]),
            "PATH": f"{root}/bin:{os.environ['PATH']}",
            "TMPDIR": str(root / "tmp"),
        }
        helper = root / "bin/docker-credential-test"
        helper.parent.mkdir()
        helper.write_text(_HELPER)
        helper.chmod(0o755)
        helped = root / "keys/helped/config.json"
        helped.parent.mkdir()
        helped.write_text(json.dumps({"credHelpers": {registry.address: "test"}}))
        logins = [
            registry.auth_file(root / "keys/config/config.json", "joe"),
            registry.auth_file(homes["joe"] / ".docker/config.json", "joe"),
            registry.auth_file(root / "keys/auth.json", "joe"),
        ]
        with_helper = {"DOCKER_CONFIG": str(helped.parent), "HELPER_SECRET": PASSWORD}
        environments = {
            "docker-config": {"DOCKER_CONFIG": str(logins[0].parent)},
            "home": {"HOME": str(homes["joe"])},
            "auth-file": {"REGISTRY_AUTH_FILE": str(logins[2])},
            "helper": with_helper,
            "no-pantsd": with_helper,
        }
        outputs = []

        def package(way: str, env: Mapping[str, str], *more: str, check: bool = True) -> Run:
            env = {**common, **env}
            run = machine.pants(*more, "package", f"app:{way}", check=check, env=env)
            outputs.append(run.output)
            return run

        machine = make_machine(root, *options)
        write_targets(
            machine,
            "app",
            *(
                pull_target(f"base-{way}", f"{registry.address}/team/{way}", image.digest)
                + on_top(way, f"base-{way}")
                for way in ways
            ),
        )
        refused = (
            "The target app:base-docker-config cannot be pulled.\n\nerror: cannot pull "
            f"{registry.address}/team/docker-config@{image.digest}: {registry.address} refuses "
            "access (unauthorized: authentication required); log in with "
            f"`docker login {registry.address}` or `skopeo login {registry.address}`, with a user "
            "that may pull it\n"
        )

        try:
            wrong = write_auth_file(
                root / "keys/wrong/config.json", registry.address, "joe", f"not-{PASSWORD}"
            )
            bad_logins = [{}, {"DOCKER_CONFIG": str(wrong.parent)}]
            bad_logins.append({**with_helper, "HELPER_SECRET": f"not-{PASSWORD}"})
            for env in bad_logins:
                run = package("docker-config", env, check=False)
                assert run.exit_code == 1 and refused in run.output, run.output
            unknown_ca = registries(address=registry.address, insecure=False)
            run = package("home", environments["home"], unknown_ca, check=False)
            expected = (
                f"{registry.address} is not trusted (x509: certificate signed by unknown "
                "authority); name the CA that vouches for it as `ca_file` in "
                "[docker-nix].registries, or set `insecure` there\n"
            )
            assert run.exit_code == 1 and expected in run.output, run.output
            for way in ways[:-1]:
                package(way, environments[way])
        finally:
            machine.close()
        machine = make_machine(root, *options, pantsd=False)
        package("no-pantsd", environments["no-pantsd"])

        for way in ways:
            layers = machine.info(f"app/{way}")["docker_nix"]["layers"]
            assert [layer["digest"] for layer in layers[:2]] == image.layers
            assert machine.digest(f"app/{way}") == machine.digest("app/home")

    # All that is below `root` was made by these runs: the repository with what Pants has there, the
    # local store, named caches, sandboxes, temporary files, and what the remote cache has.
    assert any((root / "sandboxes").iterdir()) and any((root / "named").iterdir())
    login = f"joe:{PASSWORD}"
    words = [*forms(PASSWORD), *forms(login), *forms(f"not-{PASSWORD}")]
    pushed = root / "registry/push-auth.json"
    assert files_with(words, root) == sorted([*logins, wrong, pushed])
    for output in outputs:
        assert not [word for word in words if word.decode() in output]
    # Nor is there how the registry was reached in what machines share.
    assert not files_with([str(root / "keys").encode()], root / "grid")


# Failures

NO_LOGIN = {"WWW-Authenticate": 'Basic realm="x"'}
LOG_IN = "log in with `docker login {host}` or `skopeo login {host}`"
FAULTS: Dict[str, Tuple[Answer, str]] = {
    "401": (Answer(401, headers=NO_LOGIN), f"{{host}} refuses access (*); {LOG_IN}, with a user"),
    "403": (Answer(403), f"{{host}} refuses access (*); {LOG_IN}, with a user"),
    "404": (Answer(404), "{host} has no such image (*404*); check the repository and the digest"),
    "429": (
        Answer(429, headers={"Retry-After": "1"}),
        f"{{host}} allows no more requests *; wait, use a mirror, or {LOG_IN}",
    ),
    "500": (Answer(500), "{host} has a fault of its own (*500*); try again later"),
    "cut": (Answer(cut=True), "the connection to {host} broke off (unexpected EOF); try again"),
    "garbled": (Answer(garbled=True), "; nothing was kept; fetch it again"),
    "hang": (
        Answer(hang=True),
        "{host} did not answer in time (context deadline exceeded, 2 s); check the network, or "
        "raise [docker-nix].registry_timeout",
    ),
}


def test_failures_of_a_registry_are_told_and_not_kept(machine: Repo, image: Image) -> None:
    with StubRegistry(image.content) as stub:
        name = f"{stub.address}/team/base"
        write_targets(
            machine, "fail", pull_target("base", name, image.digest), on_top("img", "base")
        )
        manifest_error = "DockerNixError: The target fail:base cannot be pulled.\n\n"
        layers_error = (
            "DockerNixError: The 'from_image' field in target fail:img is ':base', an image whose "
            f"layers cannot be used.\n\nPulling 2 layers (3.0 MB) of {name} failed.\n\n"
        )
        config = image.manifest["config"]["digest"]
        for key, faults, beginning in (
            ("/manifests/", FAULTS, manifest_error),
            (config, ("404", "500", "cut", "garbled"), manifest_error),
            # Now it goes wrong when the manifest is there already.
            (image.layers[0], ("401", "500", "cut"), layers_error),
            (image.layers[1], ("cut", "garbled"), layers_error),
        ):
            for fault in faults:
                answer, expected = FAULTS[fault]
                stub.answers = {key: answer}
                seconds = 2 if fault == "hang" else 60
                said = error(
                    machine, f"--docker-nix-registry-timeout={seconds}", "package", "fail:img"
                )
                reason = expected.format(host=stub.address)
                pattern = f"{beginning}error: *{name}@{image.digest}: *{reason}"
                assert matches(said, pattern), f"{key} {fault}\n{said}\n{pattern}"
        stub.answers = {}
        machine.pants("package", "fail:img")
        manifest = dist_manifest(machine, "fail/img")
        assert [layer["digest"] for layer in manifest["layers"][:2]] == image.layers


def test_settings_that_do_not_do(
    machine: Repo, folder: Path, registry: Registry, image: Image
) -> None:
    registry.push(f"oci:{image.layout}:base", "known")
    zeros = f"sha256:{64 * '0'}"
    nobody = f"127.0.0.1:{free_port()}"
    known = f"{registry.address}/known"
    write_targets(
        machine,
        "bad",
        pull_target("known", known, image.digest),
        pull_target("digest", known, zeros),
        pull_target("name", f"{registry.address}/unknown", image.digest),
        pull_target("nobody", f"{nobody}/base", image.digest),
        pull_target("nowhere", "registry.invalid/base", image.digest),
    )
    missing = "check the repository and the digest"
    unreachable = "check the name, the port, the network and the proxy"
    for target, reason in (
        ("digest", f"{known}@{zeros}: {registry.address} has no such image (*); {missing}"),
        ("name", f"*: {registry.address} has no such image (*); {missing}"),
        ("nobody", f"*: {nobody} cannot be reached (connection refused); {unreachable}"),
        ("nowhere", f"*: registry.invalid cannot be reached (*); {unreachable}"),
    ):
        said = error(machine, "package", f"bad:{target}")
        beginning = f"DockerNixError: The target bad:{target} cannot be pulled.\n\n"
        assert matches(said, f"{beginning}error: cannot pull {reason}"), said

    option = "DockerNixError: The option [docker-nix].registries has "
    cannot = "DockerNixError: The target bad:known cannot be pulled.\n\nerror: "
    for options, reason in (
        (
            dict(address=registry.address, insecure=False),
            f"{cannot}cannot pull {known}@*: {registry.address} speaks plain http, not https; if "
            "it should, set `insecure` in [docker-nix].registries",
        ),
        (
            dict(address=registry.address, ca_file="no/ca.pem"),
            f"{option}the ca_file 'no/ca.pem' for the registry 'mine', but there is no file "
            f"{machine.root}/no/ca.pem.\n\nGive the path of a PEM file, absolute or from the root",
        ),
        (
            dict(address=registry.address, certificate="x"),
            f"{option}the registry 'mine' with the unknown key 'certificate'.\n\nThe keys are "
            "address, ca_file, ",
        ),
        (dict(ca_file="x"), f"{option}the registry 'mine' without an address.\n\nGive it as "),
        (
            dict(address=registry.address, insecure="perhaps"),
            f"{option}the registry 'mine' with 'perhaps' for 'insecure'.\n\nIt must be true or",
        ),
        (
            dict(address=f"http://{registry.address}"),
            f"{option}the registry 'mine' with the address 'http://{registry.address}'.\n\n"
            "Write it as images' names have it: ",
        ),
        (
            dict(address=registry.address, ca_file="bad/own.txt"),
            f"{cannot}the ca_file {machine.root}/bad/own.txt of the registry {registry.address} "
            "has no certificate in the PEM format; see [docker-nix].registries",
        ),
    ):
        said = error(machine, registries(**options), "package", "bad:known")
        assert matches(said, reason), said

    programs = folder / "programs"
    programs.mkdir()
    for directory in ("/usr/local/bin", "/usr/bin", "/bin"):
        for program in os.listdir(directory):
            if program != "skopeo" and not (programs / program).is_symlink():
                (programs / program).symlink_to(f"{directory}/{program}")
    said = error(machine, "package", "bad:known", env={"PATH": str(programs)})
    needs = f"pulling an image needs skopeo, which is not on {programs}; install it (Debian, "
    assert matches(said, cannot + needs), said

    machine.pants("package", "bad:known")
    dist_manifest(machine, "bad/known")
    assert dist_blob(machine, "bad/known", image.digest) == image.manifest_bytes
