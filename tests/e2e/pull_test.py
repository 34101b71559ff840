"""`docker_nix_pull` and images on it: Pants, with real registries and with failing ones."""

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


def pull_target(
    name: str, image: Optional[str] = None, digest: Optional[str] = None, **fields: object
) -> str:
    required = {"image_name": image, "image_digest": digest}
    given = {**{key: value for key, value in required.items() if value is not None}, **fields}
    more = "".join(f", {field}={value!r}" for field, value in given.items())
    return f"docker_nix_pull(name={name!r}{more})\n"


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
        machine = make_machine(root, *options)
        outputs = []

        def package(way: str, env: Mapping[str, str], *more: str, check: bool = True) -> Run:
            env = {**common, **env}
            run = machine.pants(*more, "package", f"app:{way}", check=check, env=env)
            outputs.append(run.output)
            return run

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
        pull_target("path", known, image.digest, output_path="../x"),
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
            {"address": registry.address, "insecure": False},
            f"{cannot}cannot pull {known}@*: {registry.address} speaks plain http, not https; if "
            "it should, set `insecure` in [docker-nix].registries",
        ),
        (
            {"address": registry.address, "ca_file": "no/ca.pem"},
            f"{option}the ca_file 'no/ca.pem' for the registry 'mine', but there is no file "
            f"{machine.root}/no/ca.pem.\n\nGive the path of a PEM file, absolute or from the root",
        ),
        (
            {"address": registry.address, "certificate": "x"},
            f"{option}the registry 'mine' with the unknown key 'certificate'.\n\nThe keys are "
            "address, ca_file, ",
        ),
        ({"ca_file": "x"}, f"{option}the registry 'mine' without an address.\n\nGive it as "),
        (
            {"address": registry.address, "insecure": "perhaps"},
            f"{option}the registry 'mine' with 'perhaps' for 'insecure'.\n\nIt must be true or",
        ),
        (
            {"address": f"http://{registry.address}"},
            f"{option}the registry 'mine' with the address 'http://{registry.address}'.\n\n"
            "Write it as images' names have it: ",
        ),
        (
            {"address": registry.address, "ca_file": "bad/own.txt"},
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

    said = error(machine, "package", "bad:path")
    assert "The 'output_path' field in target bad:path is '../x'" in said, said
    machine.pants("package", "bad:known")
    dist_manifest(machine, "bad/known")
    assert dist_blob(machine, "bad/known", image.digest) == image.manifest_bytes


# What comes of it


def test_platforms(machine: Repo, folder: Path, registry: Registry, image: Image) -> None:
    layout = folder / "platforms"
    described = []
    for architecture, variant in (("amd64", None), ("arm64", "v8"), ("arm", "v7")):
        made = Image(layout, architecture, architecture=architecture)
        platform = {"os": "linux", "architecture": architecture}
        if variant:
            platform["variant"] = variant
        described.append(
            {
                "mediaType": made.manifest["mediaType"],
                "digest": made.digest,
                "size": len(made.manifest_bytes),
                "platform": platform,
            }
        )
    index_type = f"{OCI}.index.v1+json"
    index = json.dumps({"schemaVersion": 2, "mediaType": index_type, "manifests": described})
    digest = f"sha256:{hashlib.sha256(index.encode()).hexdigest()}"
    (layout / "blobs" / digest.replace(":", "/")).write_text(index)
    entry = {"mediaType": index_type, "digest": digest, "size": len(index)}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    assert registry.push(f"oci:{layout}", "platforms") == digest
    registry.push(f"oci:{image.layout}:base", "single")

    name, single = f"{registry.address}/platforms", f"{registry.address}/single"
    write_targets(
        machine,
        "arch",
        pull_target("base", name, digest),
        pull_target("arm64", name, digest, architecture="arm64"),
        pull_target("v7", name, digest, architecture="arm", variant="v7"),
        pull_target("s390x", name, digest, architecture="s390x"),
        pull_target("v9", name, digest, architecture="arm64", variant="v9"),
        pull_target("single", single, image.digest, architecture="arm64"),
        on_top("on_arm64", "arm64"),
        on_top("on_v7", "v7", architecture="arm"),
        on_top("contrary", "base", architecture="arm64"),
    )
    machine.pants("package", *(f"arch:{x}" for x in ("base", "arm64", "v7", "on_arm64", "on_v7")))
    for target, entry in zip(("base", "arm64", "v7"), described):
        assert machine.digest(f"arch/{target}") == entry["digest"]
        assert dist_manifest(machine, f"arch/{target}")
    for target, architecture in (("on_arm64", "arm64"), ("on_v7", "arm")):
        config = dist_manifest(machine, f"arch/{target}")["config"]["digest"]
        found = json.loads(dist_blob(machine, f"arch/{target}", config))
        assert (found["os"], found["architecture"]) == ("linux", architecture)

    has = "it has: linux/amd64, linux/arm64/v8, linux/arm/v7"
    for target, reason in (
        (
            "s390x",
            "The target arch:s390x cannot be pulled.\n\nerror: "
            f"{name}@{digest}: it has no image for linux/s390x; {has}",
        ),
        (
            "v9",
            "The target arch:v9 cannot be pulled.\n\nerror: "
            f"{name}@{digest}: it has no image for linux/arm64/v9; {has}",
        ),
        (
            "single",
            f"The 'architecture' field in target arch:single is 'arm64', but {single}@"
            f"{image.digest} is an image for 'amd64'.\n\nRemove the field, or give the digest of",
        ),
        (
            "contrary",
            "The 'architecture' field in target arch:contrary is 'arm64', but the base image :base "
            "is for 'amd64'.\n\nRemove the field, or use a base image for that platform.",
        ),
    ):
        said = error(machine, "package", f"arch:{target}")
        assert matches(said, f"DockerNixError: {reason}"), said


def inspect(image: str) -> Dict[str, Any]:
    """What skopeo says of an image in a file or a directory."""
    command = ["skopeo", "inspect", image]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    found: Dict[str, Any] = json.loads(done.stdout)
    return found


def test_manifest_of_dockers_kind(machine: Repo, folder: Path) -> None:
    """It stays as it is, and an image on top of it is OCI's from top to bottom."""
    image = Image(folder / "docker-types", "docker", docker_types=True)
    with StubRegistry(image.content) as stub:
        write_targets(
            machine,
            "docker",
            pull_target("base", f"{stub.address}/base", image.digest, final_image_name="My/Base"),
            pull_target(
                "archive", f"{stub.address}/base", image.digest, output_format="docker-archive"
            ),
            on_top("top", "base", image_tags=["top"]),
        )
        machine.pants("package", "docker:base", "docker:archive", "docker:top")
    dist = machine.root / "dist/docker"
    assert machine.digest("docker/base") == image.digest
    assert dist_blob(machine, "docker/base", image.digest) == image.manifest_bytes
    assert dist_manifest(machine, "docker/base")["mediaType"].startswith(DOCKER)
    names = json.loads((dist / "base/manifest.json").read_text())
    assert names[0]["RepoTags"] == ["my/base:latest"]

    manifest = dist_manifest(machine, "docker/top")
    types = [manifest["mediaType"], *(layer["mediaType"] for layer in manifest["layers"])]
    assert types == [f"{OCI}.manifest.v1+json", *4 * [f"{OCI}.layer.v1.tar+gzip"]]
    assert manifest["config"]["mediaType"] == f"{OCI}.config.v1+json"
    assert [layer["digest"] for layer in manifest["layers"][:2]] == image.layers

    # By its tag, an older skopeo finds a manifest of OCI's kind only, and so does umoci.
    for layout, target, layers in (("base", "base", 2), ("top:top", "top", 4)):
        found = inspect(f"oci:{dist}/{layout}")
        assert found["Digest"] == machine.digest(f"docker/{target}")
        assert len(found["Layers"]) == layers and found["Env"] == CONFIG["Env"]
    assert inspect(f"docker-archive:{dist}/archive.tar")["Env"] == CONFIG["Env"]
    bundle = folder / "unpacked"
    unpacked = subprocess.run(
        ["umoci", "unpack", "--image", f"{dist}/top:top", str(bundle)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert unpacked.returncode == 0, unpacked.stdout
    assert (bundle / "rootfs/etc/name").read_text() == "docker"
    assert (bundle / "rootfs/usr/big").stat().st_size == BIG
    own = bundle / "rootfs/docker/own.txt"
    assert own.is_symlink() and (bundle / f"rootfs{os.readlink(own)}").read_text() == "own"

    with tarfile.open(dist / "archive.tar") as archive:
        (listed,) = json.loads(archive.extractfile("manifest.json").read())  # type: ignore
        assert listed["RepoTags"] == [f"{stub.address}/base:latest"]
        assert archive.extractfile(listed["Config"]).read() == image.blob(  # type: ignore
            image.manifest["config"]["digest"]
        )


def pulls(run: Run) -> List[str]:
    """The processes that pull or pack, which were started in a run with `-ldebug`."""
    return re.findall(r"Starting: ((?:Pulling|Packing) [a-z0-9]+ ?[a-z]*)", run.output)


def test_one_pull_for_all_images_and_machines(folder: Path, image: Image) -> None:
    root = folder / "shared"
    with BuildGrid(root / "grid") as grid, Link(grid.port) as link:

        def machine_of(name: str) -> Repo:
            repo = Repo(
                root / name / "repo",
                store=root / name / "store",
                pantsd=True,
                backends=["docker_nix", "image_digest"],
                options=[
                    "--no-verify-config",
                    f"--pythonpath=+['{root}/{name}/repo/goal']",
                    f"--remote-store-address={link.address}",
                    "--remote-cache-read",
                    "--remote-cache-write",
                    "--cache-content-behavior=defer",
                    "-ldebug",
                ],
            )
            repo.write("goal/image_digest/register.py", _GOAL)
            write_targets(
                repo,
                "app",
                pull_target("base", f"{stub.address}/base", image.digest),
                *(on_top(f"img{n}", "base", config={"Env": [f"N={n}"]}) for n in range(2)),
            )
            return repo

        with StubRegistry(image.content) as stub:
            first = machine_of("first")
            try:
                run = first.pants("package", "app::")
                assert sorted(pulls(run))[-2:] == ["Pulling 2 layers", "Pulling the manifest"]
                for digest in image.layers:
                    (asked,) = [x for x in stub.requests if x.endswith(digest)]
                    assert asked == f"GET /v2/base/blobs/{digest}"
            finally:
                first.close()
            stub.requests.clear()
            assert pulls(first.pants("--no-pantsd", "package", "app::")) == []
            assert stub.requests == []

        # Now there is no registry any more.
        digests = sorted(first.digest(f"app/img{n}") for n in range(2))
        second = machine_of("second")
        try:
            served = link.served
            run = second.pants("image-digest", "app:img0", "app:img1")
            assert sorted(run.stdout.split()) == digests
            assert pulls(run) == []
            # What the files of the base are came, but no layer.
            assert link.served - served < BIG / 2
            run = second.pants("package", "app::")
            assert pulls(run) == []
            assert BIG < link.served - served < 1.5 * BIG
        finally:
            second.close()
        assert sorted(second.digest(f"app/img{n}") for n in range(2)) == digests
        assert second.digest("app/base") == image.digest
        assert stub.requests == []


def test_help_and_dependencies(machine: Repo) -> None:
    write_targets(
        machine,
        "deps",
        pull_target("base", "registry.example.com/base", f"sha256:{64 * '0'}"),
        on_top("img", "base"),
    )
    assert machine.pants("dependencies", "deps:img").stdout.split() == ["deps:base", "deps:own"]
    assert machine.pants("dependents", "deps:base").stdout.split() == ["deps:img"]
    shown = machine.pants("help", "docker_nix_pull").stdout
    for text in ("image_digest", "required", "final_image_tag", "An image in a registry"):
        assert text in shown
    shown = machine.pants("help", "docker-nix").stdout
    for text in ("--docker-nix-registry-timeout", "--docker-nix-env-vars", "ca_file"):
        assert text in shown


GOOD = {"image_name": "registry.example.com/base", "image_digest": f"sha256:{64 * '0'}"}
# A wrong value, and what is said about it after "The 'FIELD' field in target ADDRESS is 'VALUE'".
BAD_VALUES: List[Tuple[str, str, str]] = [
    ("image_name", "", ", which is not a legal image name. Write it as "),
    ("image_name", "Debian", ", which is not a legal image name. Write it as * in lower case."),
    ("image_name", "debian:12", ", which is not a legal image name. Leave the tag out: "),
    ("image_name", "debian@sha256:0", ", * name. Put the digest into 'image_digest'."),
    ("image_digest", "latest", ", which is not a digest. It must be * A tag will not do, "),
    ("image_digest", "sha256:00", ", which is not a digest. It must be 'sha256:' and 64 of"),
    ("image_digest", f"sha256:{64 * 'A'}", ", which is not a digest. It must be 'sha256:' and 64"),
    ("final_image_name", "a:b", ", * name. * without a tag (that goes into 'final_image_tag')."),
    ("final_image_tag", "-x", ", which is not a legal tag. A tag has 1 to 128 letters, "),
    ("architecture", "x86_64", ". Did you mean 'amd64'? It must be one of "),
    ("os", "Linux", ". Did you mean 'linux'? It must be one of "),
    ("variant", "v 8", ". Write it as 'v8'."),
    ("output_format", "tar", ". It must be one of docker-archive, metadata, oci."),
]


def test_bad_values(machine: Repo) -> None:
    rows = [
        ({**GOOD, name: value}, f"The '{name}' field in target {{target}} is {value!r}{reason}")
        for name, value, reason in BAD_VALUES
    ]
    for name in GOOD:
        fields = {key: value for key, value in GOOD.items() if key != name}
        rows.append((fields, f"The '{name}' field in target {{target}} must be defined."))
    rows.append(({**GOOD, "tag": "12"}, "Unrecognized field `tag=12` in target {target}. Valid "))
    for number, (fields, expected) in enumerate(rows):
        directory = f"values{number}"
        write_targets(machine, directory, pull_target("base", **fields))
        said = error(machine, "package", f"{directory}:base")
        pattern = "InvalidTargetException: *: " + expected.format(target=f"{directory}:base")
        assert matches(said, pattern), f"{said}\n{pattern}"
