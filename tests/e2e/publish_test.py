"""`publish`: real registries, one behind a gate that fails as told, a remote cache, an engine."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Dict, Iterator, List, Sequence, Tuple

import pytest

from support.buildgrid import BuildGrid, Link
from support.debian_image import debian_with_python
from support.docker_engine import docker_engine
from support.registry import Fault, Gate, Registry, write_auth_file
from support.workspace import PROJECT, Repo, Run

PASSWORD = "s3cr3t-Passw0rd"
BIG = 3_000_000

_BUILD = """\
for n in range(3):
    file(name=f"big{n}", source=f"big{n}.bin")

file(name="note", source="note.txt")
"""


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """No settings of the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        cache = os.environ.get("XDG_CACHE_HOME", f"{Path.home()}/.cache")
        patch.setenv("XDG_CACHE_HOME", cache)
        for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("publish")


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


def make_machine(root: Path, *options: str, pantsd: bool = True) -> Repo:
    """A machine that has built nothing yet."""
    return Repo(
        root / "repo",
        store=root / "store",
        pantsd=pantsd,
        backends=["docker_nix"],
        options=["--no-verify-config", *options],  # for options of the backends that are left out
    )


def write_app(repo: Repo, directory: str, note: str, *targets: str) -> None:
    """Three large files, and a small one; `directory` makes them other ones."""
    for n in range(3):
        repo.write(f"{directory}/big{n}.bin", random.Random(f"{directory}{n}").randbytes(BIG))
    repo.write(f"{directory}/note.txt", note)
    repo.write(f"{directory}/BUILD", _BUILD + "".join(targets))


def image(name: str, **fields: object) -> str:
    fields = {"contents": [":big0", ":big1", ":big2", ":note"], **fields}
    more = "".join(f", {field}={value!r}" for field, value in fields.items())
    return f"docker_nix_layered(name={name!r}{more})\n"


def registries(**named: Dict[str, object]) -> str:
    return f"--docker-nix-registries={named!r}"


def results(run: Run) -> List[str]:
    """What Pants says in the end: a line for each name, without its sign."""
    return [line[2:] for line in run.stderr.splitlines() if line[:2] in ("✓ ", "✕ ", "- ")]


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def processes_with(word: str) -> List[str]:
    """The ids of the processes that have the word among their arguments."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (process / "cmdline").read_bytes():
                found.append(process.name)
        except OSError:
            pass
    return found


def uploads(requests: Sequence[str]) -> List[str]:
    return [line for line in requests if line.split()[0] in ("POST", "PATCH", "PUT")]


def test_publish(machine: Repo, registry: Registry, folder: Path) -> None:
    """The digest of the report arrives under all tags; the second time nothing is uploaded."""
    write_app(
        machine,
        "app",
        "one",
        image("img", registries=[registry.address], repository="team/App", image_tags=["V1", "b"]),
    )
    machine.pants("package", "app:img")
    info = machine.info("app/img")
    digest = info["docker_nix"]["digest"]
    name = f"{registry.address}/team/app"
    assert info["registries"] == [
        {
            "alias": None,
            "address": registry.address,
            "repository": "team/app",
            "tags": [
                {"template": tag, "tag": tag, "uses_local_alias": False, "name": f"{name}:{tag}"}
                for tag in ("b", "v1")
            ],
        }
    ]
    output = folder / "published.json"
    run = machine.pants("publish", f"--publish-output={output}", "app:img")
    print(run.output)
    assert results(run) == [
        f"{name}:v1 published to {name}@{digest}.",
        f"{name}:b published to {name}@{digest}.",
    ]
    assert registry.tags("team/app") == {"v1": digest, "b": digest}
    assert json.loads(output.read_text())[0] == {
        "digest": digest,
        "exit_code": 0,
        "image_id": info["image_id"],
        "names": [f"{name}:v1"],
        "published": True,
        "publisher": "docker_nix",
        "registries": [registry.address],
        "repository": name,
        "status": f"published to {name}@{digest}",
        "tag": "v1",
        "target": "app:img",
    }
    first = uploads(registry.requests())
    assert [line for line in first if "/manifests/" in line] == [
        "PUT /v2/team/app/manifests/v1 201",
        "PUT /v2/team/app/manifests/b 201",
    ]
    assert len(first) == 3 * 6 + 2  # five layers and the configuration

    # Nothing changed: there is nothing to upload, and no connection has much to carry.
    machine.pants("publish", "app:img")
    assert uploads(registry.requests()) == [*first, first[-2], first[-1]]
    assert registry.tags("team/app") == {"v1": digest, "b": digest}


def test_names(machine: Repo, registry: Registry, folder: Path) -> None:
    """Aliases, defaults, templates, tags of a registry's own, what is skipped and why."""
    named = registries(
        first={
            "address": registry.address,
            "default": True,
            "repository": "{parent_directory}/{directory}/{target_repository}",
            "extra_image_tags": ["Extra"],
        },
        second={
            "address": f"localhost:{registry.port}",
            "default": "true",
            "use_local_alias": True,
        },
        away={"address": "registry.example.com", "skip_push": True},
    )
    everywhere = ["<all default registries>", "@away"]
    write_app(
        machine,
        "up/names",
        "names",
        image("img", contents=[":note"], repository="{name}-{default_repository}", image_tags=["1"])
        + image("all", contents=[":note"], registries=everywhere, image_tags=["1"])
        + image("no", contents=[":note"], image_tags=["1"], skip_push=True)
        + image("none", contents=[":note"], registries=[])
        + image("full", contents=[":note"], image_name=f"{registry.address}/a/b", registries=[]),
    )
    digest = {}
    for name in ("img", "all", "no", "full"):
        machine.pants(named, "package", f"up/names:{name}")
        digest[name] = machine.digest(f"up.names/{name}")
    first, second = registry.address, f"localhost:{registry.port}"
    repository = f"{first}/up/names/img-up/names/img"
    run = machine.pants(named, "publish", "up/names:img")
    assert results(run) == [
        f"{repository}:1 published to {repository}@{digest['img']}.",
        f"{repository}:extra published to {repository}@{digest['img']}.",
        f"{second}/img-up/names/img:1 published to " f"{second}/img-up/names/img@{digest['img']}.",
        "second/img-up/names/img:1 skipped (by `use_local_alias` on registry @second).",
    ]
    assert registry.tags("up/names/img-up/names/img") == {
        "1": digest["img"],
        "extra": digest["img"],
    }
    assert registry.tags("img-up/names/img") == {"1": digest["img"]}
    names = {tag["name"] for r in machine.info("up.names/img")["registries"] for tag in r["tags"]}
    assert names == {line.split()[0] for line in results(run)}

    run = machine.pants(named, "publish", "up/names:all", "up/names:no")
    assert len(results(run)) == 5 + 4
    assert (
        "registry.example.com/up/names/all:1 skipped (by `skip_push` on registry @away)."
        in results(run)
    )
    assert f"{second}/up/names/no:1 skipped (by `skip_push` on up/names:no)." in results(run)
    assert registry.tags("up/names/no") == {}
    run = machine.pants("publish", "up/names:full")
    assert list(registry.tags("a/b").values()) == [digest["full"]]

    # What `package` writes makes no difference, nor does the kind of layers, or of target.
    kinds = {
        "zstd": image("zstd", contents=[":note"], compression="zstd"),
        "archive": image("archive", contents=[":note"], output_format="docker-archive"),
        "metadata": image("metadata", contents=[":note"], output_format="metadata"),
        "single": image("single", contents=[":note"]).replace("_layered(", "_image("),
    }
    write_app(machine, "kinds", "kinds", *kinds.values())
    default = registries(default={"address": registry.address})
    machine.pants(default, "package", *(f"kinds:{kind}" for kind in kinds))
    machine.pants(default, "publish", *(f"kinds:{kind}" for kind in kinds))
    for kind in kinds:
        assert list(registry.tags(f"kinds/{kind}").values()) == [machine.digest(f"kinds/{kind}")]

    no_registry = (
        "The 'registries' field in target up/names:none names no registry, so there is none to "
        "publish up/names/none:"
    )
    for target, option, expected in (
        ("none", named, no_registry),
        (
            "all",
            registries(other={"address": registry.address}),
            "The 'registries' field in target up/names:all has '@away', but "
            "[docker-nix].registries has no such alias.\n\nAdd [docker-nix.registries.away] with "
            "its address, or use one of @other.",
        ),
        (
            "img",
            registries(other={"address": "a.b", "default": True, "repository": "{nam}"}),
            "The target up/names:img cannot be named. The repository of the registry 'other' is "
            "'{nam}', with the unknown placeholder '{nam}'.\n\nThe placeholders are "
            "{default_repository}, {directory}, {name}, {parent_directory}, {target_repository}.",
        ),
        (
            "img",
            registries(other={"address": "a.b", "default": True, "extra_image_tags": ["-"]}),
            "The target up/names:img cannot be named. The extra_image_tags of the registry 'other' "
            "have '-', which is not a legal tag.",
        ),
        (
            "img",
            registries(other={"address": "a.b", "extra_image_tags": "latest"}),
            "The option [docker-nix].registries has the registry 'other' with 'latest' for "
            "'extra_image_tags'.\n\nIt must be a list of strings",
        ),
        (
            "img",
            registries(other={"address": "a.b", "repository": 7}),
            "The option [docker-nix].registries has the registry 'other' with 7 for 'repository'.",
        ),
        (
            "img",
            "--docker-nix-output-format=tar",
            "The option [docker-nix].output_format is 'tar'.\n\nIt must be one of oci, "
            "docker-archive, metadata.",
        ),
    ):
        run = machine.pants(option, "publish", f"up/names:{target}", check=False)
        assert run.exit_code == 1 and expected in run.output, run.output
        assert "Traceback" not in run.output
    for number, (field, value, expected) in enumerate(
        (
            ("registries", ["https://a.b"], "has 'https://a.b', which is not the address of a reg"),
            ("repository", "a:b", "is 'a:b', and 'a:b' is not a legal image name."),
            ("repository", "{x}", "is '{x}', with the unknown placeholder '{x}'."),
            ("output_format", "meta", "is 'meta'. Did you mean 'metadata'?"),
        )
    ):
        target = f"bad{number}:img"
        machine.write(f"bad{number}/note.txt", "")
        machine.write(
            f"bad{number}/BUILD",
            'file(name="note", source="note.txt")\n'
            + image("img", contents=[":note"], **{field: value}),
        )
        run = machine.pants("package", target, check=False)
        expected = f"The '{field}' field in target {target} {expected}"
        assert run.exit_code == 1 and expected in run.output, run.output


LOG_IN = "log in with `docker login {host}` or `skopeo login {host}`, with a user that may push it"
BASIC = {"WWW-Authenticate": 'Basic realm="x"'}
# What goes wrong for good, for how long it may be tried, and what is said of it.
FAULTS: Dict[str, Tuple[Fault, int, str]] = {
    "401": (Fault("", "/v2/", 401, BASIC), 60, f"{{host}} refuses access (*); {LOG_IN}"),
    "403": (Fault("POST", "/uploads/", 403), 60, f"{{host}} refuses access (*403*); {LOG_IN}"),
    "413": (
        Fault("PATCH", "/uploads/", 413, body=b"<html>Too large</html>"),
        60,
        "{host} does not take an upload of that size (*413*); raise the limit of the registry or of"
        " the proxy in front of it",
    ),
    "429": (
        Fault("POST", "/uploads/", 429, {"Retry-After": "1"}),
        9,
        "{host} allows no more requests for now (*); wait, or log in with `docker login {host}` or",
    ),
    "500": (
        Fault("PUT", "/manifests/", 500),
        5,
        "{host} has a fault of its own (*500*); try again later",
    ),
    "dies": (
        Fault("PATCH", "/uploads/", die_after=100_000),
        5,
        "the connection to {host} broke off (*); try again",
    ),
    "hangs": (
        Fault("PUT", "/manifests/", hang=True),
        4,
        "{host} did not answer in time (context deadline exceeded, * s); check the network, or "
        "raise [docker-nix].registry_timeout",
    ),
    "always hangs": (
        Fault("", "/v2/", hang=True),
        2,
        "{host} did not answer in time (context deadline exceeded, * s); check the network, or "
        "raise [docker-nix].registry_timeout",
    ),
    "cannot say": (
        Fault("HEAD", "/blobs/", 500),
        5,
        "{host} has a fault of its own (*500*); try again later",
    ),
}
# What goes wrong, and is gone when it is tried again.
PASSING: Dict[str, Fault] = {
    "429": Fault("POST", "/uploads/", 429, {"Retry-After": "1"}, times=2),
    "429 in the middle": Fault("PATCH", "/uploads/", 429, {"Retry-After": "1"}, times=1),
    "500": Fault("PUT", "/manifests/", 500, times=1),
    "503": Fault("PATCH", "/uploads/", 503, times=2),
    "dies": Fault("PATCH", "/uploads/", die_after=100_000, times=1),
    "cannot say": Fault("HEAD", "/blobs/", 500, times=20),
}


def test_failures(machine: Repo, registry: Registry) -> None:
    """The tag stays where it was, it is said why, and the next time it is done."""
    target = image("img", registries=["127.0.0.1:1"], repository="fail", image_tags=["latest"])
    with Gate(registry.port) as gate:
        host = gate.address
        write_app(machine, "fail", "0", target.replace("127.0.0.1:1", host))
        name = f"{host}/fail:latest"

        def publish(what: str, fault: Fault, *options: str) -> Tuple[Run, str]:
            """Publish another version, with a new layer of 3 MB; what the tag should be then."""
            machine.write("fail/big0.bin", random.Random(what).randbytes(BIG))
            gate.faults = [fault]
            run = machine.pants(*options, "publish", "fail:img", check=False)
            (result,) = results(run)
            end, digest = result.split("@")
            done = "published to" if run.exit_code == 0 else "failed for"
            assert end == f"{name} {done} {host}/fail"
            assert "Traceback" not in run.output
            return run, digest.rstrip(".")

        nothing = Fault("", "/v2/", times=0)
        before = publish("first", nothing)[1]
        for what, (fault, seconds, expected) in FAULTS.items():
            option = f"--docker-nix-registry-timeout={seconds}"
            run, digest = publish(what, fault, option)
            assert run.exit_code == 1, what
            expected = f"error: cannot push {name}: {expected.format(host=host)}"
            pattern = re.escape(expected).replace(r"\*", ".*")
            assert re.search(f"^{pattern}", run.stderr, re.MULTILINE), f"{pattern}\n{run.stderr}"
            assert registry.tags("fail") == {"latest": before}
            run, before = publish(what, nothing)
            assert run.exit_code == 0 and before == digest, run.output
            assert registry.tags("fail") == {"latest": digest}

        # The tag is written, and then it cannot be seen what it is.
        run, _ = publish("unseen", Fault("GET", "/manifests/", 403))
        assert run.exit_code == 1
        expected = f"error: {name} was pushed, but its digest cannot be checked: {host} refuses "
        assert expected in run.stderr
        # Somebody else is faster with the same tag.
        other = b'{"schemaVersion": 2}'
        kind = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
        run, digest = publish("raced", Fault("GET", "/manifests/", 200, kind, other))
        assert run.exit_code == 1
        expected = f"error: {name} is {sha256(other)} now, not {digest} that was pushed: somebody "
        assert expected in run.stderr
        # It is stopped in the middle.
        unmoved = registry.tags("fail")
        machine.write("fail/big0.bin", random.Random("stopped").randbytes(BIG))
        gate.faults = [Fault("PATCH", "/uploads/", hang=True)]
        gate.requests.clear()
        with subprocess.Popen(
            [str(PROJECT / "pants"), *machine.options, "publish", "fail:img"],
            cwd=machine.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as stopped:
            while not any(line.startswith("PATCH ") for line in gate.requests):
                assert stopped.poll() is None
                time.sleep(0.1)
            assert processes_with(name)
            stopped.send_signal(signal.SIGINT)
            _, errors = stopped.communicate(timeout=60)
        assert stopped.returncode != 0 and "Traceback" not in errors, errors
        deadline = time.monotonic() + 30
        while processes_with(name):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert registry.tags("fail") == unmoved
        for what, fault in PASSING.items():
            run, digest = publish(f"passing {what}", fault)
            assert run.exit_code == 0 and fault.times == 0, f"{what}\n{run.output}"
            assert registry.tags("fail") == {"latest": digest}
            # skopeo itself waits for what `Retry-After` says, where it can repeat a request.
            again = "another attempt in 1 s, as this one failed: cannot push" in run.stderr
            assert again == (what != "429"), run.output
            warned = f"It is not known which layers {host}/fail has" in run.output
            assert warned == (what == "cannot say")


_RUNNABLE = """\
file(name="busybox", source="busybox")
relocated_files(name="bin", files_targets=[":busybox"], src="run", dest="bin")
"""


def test_what_is_published_is_what_runs(folder: Path, registry: Registry) -> None:
    """Run, publish, pull back by digest with the engine, run again: with a login and without."""
    root = folder / "secured"
    with (
        docker_engine() as docker,
        Registry(root / "registry", users={"joe": PASSWORD}, tls=True) as secured,
    ):
        login = secured.auth_file(root / "keys/config.json", "joe")
        wrong = write_auth_file(root / "wrong/config.json", secured.address, "joe", "no-password")
        env = {"DOCKER_HOST": docker.host, "DOCKER_CONFIG": str(login.parent)}
        repo = make_machine(
            root / "machine",
            "-ldebug",
            "--docker-nix-run-args=--network=none",
            registries(
                secured={"address": secured.address, "ca_file": str(secured.ca_file)},
                open={"address": registry.address},
            ),
        )
        repo.write("run/busybox", Path("/bin/busybox").read_bytes(), 0o755)

        def write_build(*more: str) -> None:
            entry = {"Entrypoint": ["/bin/busybox", "echo", "hello"]}
            places = ["@open", "@secured"]
            target = image("img", contents=[":bin"], config=entry, registries=places)
            repo.write("run/BUILD", _RUNNABLE + target + "".join(more))

        try:
            write_build()
            outputs = [repo.pants("run", "run:img", "--", "you", env=env)]
            assert outputs[0].stdout == "hello you\n"
            bad = {**env, "DOCKER_CONFIG": str(wrong.parent)}
            refused = repo.pants("publish", "run:img", env=bad, check=False)
            assert refused.exit_code == 1
            assert f"{secured.address} refuses access (unauthorized: " in refused.stderr
            assert [line.split()[1] for line in results(refused)] == ["published", "failed"]
            assert secured.tags("run/img") == {}
            published = repo.pants("publish", "run:img", env=env)
            outputs += [refused, published]
            repo.pants("--docker-nix-output-format=metadata", "package", "run:img", env=env)
            digest = repo.digest("run/img")
            for place in (registry, secured):
                assert list(place.tags("run/img").values()) == [digest]
                name = f"{place.address}/run/img@{digest}"
                assert any(line.endswith(f" published to {name}.") for line in results(published))
                docker.run_client("image", "rm", "--force", *docker.image_ids())
                docker.run_client("pull", name, docker_config=login.parent)
                assert docker.run(name, "you") == "hello you\n"
                # Pants has nothing to load now, be it the image or what it is in the registry.
                write_build(
                    f"docker_nix_pull(name='pulled', image_name='{place.address}/run/img', "
                    f"image_digest='{digest}')\n"
                )
                for target in ("run:img", "run:pulled"):
                    run = repo.pants("run", target, "--", "again", env=env)
                    assert run.stdout == "hello again\n"
                    assert "\nloading " not in run.stderr
            # To run what was pulled takes its layers, where the engine has none.
            docker.run_client("image", "rm", "--force", *docker.image_ids())
            run = repo.pants("run", "run:pulled", "--", "again", env=env)
            assert run.stdout == "hello again\n" and "\nloading " in run.stderr
        finally:
            repo.close()
    secrets = [PASSWORD, base64.b64encode(f"joe:{PASSWORD}".encode()).decode()]
    for output in outputs:
        assert not [secret for secret in secrets if secret in output.output]
    kept = [
        path
        for path in (root / "machine").rglob("*")
        if path.is_file() and any(secret.encode() in path.read_bytes() for secret in secrets)
    ]
    assert kept == []


_SERVICE = """\
file(name="lib", source="lib.bin")
file(name="code", source="service.py")
relocated_files(name="service", files_targets=[":code"], src="service", dest="srv")
"""


def test_bytes_of_a_small_change(folder: Path) -> None:
    """With `defer`, a machine gets from the cache, and sends to the registry, what is new."""
    root = folder / "bytes"
    layout = debian_with_python(root / "debian")
    with (
        Registry(root / "registry") as registry,
        Link(registry.port) as to_registry,
        BuildGrid(root / "grid") as grid,
        Link(grid.port) as to_cache,
    ):
        host = f"127.0.0.1:{to_registry.port}"
        base = registry.push(f"oci:{layout}:base", "base")

        def make(name: str, line: str, *options: str) -> Repo:
            repo = make_machine(
                root / name,
                f"--remote-store-address={to_cache.address}",
                "--remote-cache-read",
                "--remote-cache-write",
                *options,
                pantsd=False,
            )
            repo.write("service/lib.bin", random.Random(1).randbytes(BIG))
            repo.write("service/service.py", f"print('serving')\n{line}\n")
            pull = (
                f"docker_nix_pull(name='debian', image_name='{host}/base', image_digest='{base}')"
            )
            target = image(
                "img",
                from_image=":debian",
                contents=[":lib", ":service"],
                config={"Entrypoint": ["/usr/bin/python3", "/srv/service.py"]},
                image_tags=["v1"],
                registries=[host],
            )
            repo.write("service/BUILD", f"{_SERVICE}{pull}\n{target}")
            return repo

        def publish(repo: Repo) -> Tuple[int, int]:
            """The bytes that came from the cache, and those that went to the registry."""
            served, sent = to_cache.served, to_registry.sent
            repo.pants("publish", "service:img")
            return to_cache.served - served, to_registry.sent - sent

        defer = ("--cache-content-behavior=defer",)
        publish(make("a", "# one"))
        # B builds what is new; C has that built by A and gets it from the cache.
        edited = make("b", "# two", *defer)
        built, sent_built = publish(edited)
        other = make("a2", "# three")
        other.pants("package", "service:img")
        info = other.info("service/img")
        fetched, sent_fetched = publish(make("c", "# three", *defer))
        again, sent_again = publish(make("d", "# three", *defer))
        assert registry.tags("service/img") == {"v1": other.digest("service/img")}
        size = sum(layer["size"] for layer in info["docker_nix"]["layers"])
        print(
            f"\nan image of {size / 1e6:.2f} MB, one line of it edited: bytes from the cache, "
            f"bytes to the registry\n"
            f"  built here:           {built:>10,} {sent_built:>10,}\n"
            f"  built elsewhere:      {fetched:>10,} {sent_fetched:>10,}\n"
            f"  published elsewhere:  {again:>10,} {sent_again:>10,}"
        )
        assert size > 25_000_000
        # Far below the smallest layer that did not change.
        for cached, sent in ((built, sent_built), (fetched, sent_fetched), (again, sent_again)):
            assert cached < BIG and sent < 100_000


def test_layers_that_the_cache_has_lost_are_built_again(folder: Path, registry: Registry) -> None:
    """The cache forgets a blob that it has told of, which is needed only for the upload."""
    root = folder / "lost"
    with BuildGrid(root / "grid") as grid:
        machines = []
        for name in ("a", "b"):
            repo = make_machine(
                root / name,
                f"--remote-store-address=grpc://127.0.0.1:{grid.port}",
                "--remote-cache-read",
                "--remote-cache-write",
                "--cache-content-behavior=defer",
                pantsd=False,
            )
            target = image("img", image_tags=["v1"], registries=[registry.address])
            write_app(repo, "lost", "note", target)
            machines.append(repo)
        machines[0].pants("package", "lost:img")
        for layer in machines[0].info("lost/img")["docker_nix"]["layers"][:2]:
            grid.evict(layer["digest"])
        run = machines[1].pants("publish", "lost:img")
        assert run.output.count("Completed: Packing a layer of ") == 2
        assert registry.tags("lost/img") == {"v1": machines[0].digest("lost/img")}
