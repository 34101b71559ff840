"""Packages of a real Nix in images: their bytes, order, database; other machines; what goes wrong.

The store is that of this machine, as no other directory can be in an image. Every store path of a
test has a random text in its name, by which it is removed at the end.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Sequence

import pytest

from support.buildgrid import BuildGrid, Link
from support.debian_image import debian_with_python
from support.docker_engine import docker_engine
from support.nix import ENV, delete, dump, nix, path_without_nix, references
from support.workspace import Repo, Run

BACKENDS = ("docker_nix",)

# Everything is made by one static program. `run` is a derivation whose script has it as $bb.
PACKAGES = r"""
{ system, salt }:
let
  raw = args: derivation ({ inherit system; } // args);
  run = name: script: extra: raw ({
    name = "${name}-${salt}";
    builder = "${./bin}/busybox";
    bb = "${./bin}/busybox";
    args = [ "sh" "-euc" script ];
  } // extra);
  chain = n: run "chain-${toString n}" ''
    $bb mkdir -p $out/share/chain
    echo ${if n == 0 then busybox else chain (n - 1)} > $out/share/chain/${toString n}
  '' {};
  busybox = run "busybox" ''
    $bb mkdir -p $out/bin
    $bb cp $bb $out/bin/busybox
    for name in sh cat echo ls; do $bb ln -s busybox $out/bin/$name; done
  '' {};
  bottom = run "bottom" "echo ${busybox} > $out" {};
  side = name: run name "$bb mkdir $out; echo ${bottom} > $out/${name}" {};
  left = side "left";
  right = side "right";
  top = run "top" "$bb mkdir $out; echo ${left} ${right} > $out/top" {};
in rec {
  inherit busybox top;
  last = chain 12;
  self = run "self" "$bb mkdir -p $out/libexec; echo $out/libexec/me > $out/libexec/me" {};
  two = run "two" ''
    $bb mkdir -p $out/bin $dev/include $out/nix-support
    echo $dev > $out/nix-support/note
    { echo "#!${busybox}/bin/sh"; echo "cat ${plain}; echo two; cat ${top}/top"; } > $out/bin/two
    $bb chmod 755 $out/bin/two
    echo header > $dev/include/two.h
  '' { outputs = [ "out" "dev" ]; };
  plain = run "plain" "echo a plain file, with ${bottom} > $out" {};
  link = run "link" "$bb ln -s ${two.dev} $out" {};
  dangling = run "dangling" "$bb ln -s /nowhere $out" {};
  odd = run "odd" ''
    $bb mkdir -p $out/share/odd/foo $out/share/odd/empty $out/share/odd/größe
    cd $out/share/odd
    echo x > foo/bar; echo x > foo-1.0; echo x > "foo bar"; : > zero; echo x > .hidden
    echo x > größe/日本; echo x > "a~nix~case~hack~1"; $bb ln -s ../nowhere dangling
    $bb ln -s foo foolink; echo '#!${busybox}/bin/sh' > run; $bb chmod 755 run
    $bb chmod 600 zero; $bb printf 'not UTF-8' > $($bb printf 'latin-\344')
  '' {};
  python = run "python" ''
    $bb mkdir -p $out/bin $out/lib
    $bb cp /usr/bin/python3.11 $out/bin
    $bb cp -r /usr/lib/python3.11 $out/lib
    $bb rm -rf $out/lib/python3.11/sitecustomize.py $out/lib/python3.11/dist-packages
  '' {};
  bad = run "bad" "echo compiling; echo it went boom >&2; exit 3" {};
  set = { a = top; b = plain; };
  text = "not a derivation";
  impure = run "impure" "echo ${builtins.currentSystem} > $out" {};
  lookup = run "lookup" "echo ${toString <salt>} > $out" {};
  broken = run "broken" "echo ${import ./missing.nix} > $out" {};
  ifd = run "ifd" "$bb mkdir $out; echo ${builtins.readFile plain} > $out/ifd" {};
}
"""

BUILD = """\
files(name="tools", sources=["bin/busybox", "salt-*"])

def package(name, attribute=None, **kwargs):
    nix_package(
        name=name,
        expression="packages.nix",
        attribute=attribute or name,
        arguments={"system": "x86_64-linux", "salt": "SALT"},
        dependencies=[":tools"],
        **kwargs,
    )

for name in ("busybox", "top", "last", "self", "plain", "link", "odd"):
    package(name)
package("two", outputs=["out", "dev"])
package("dev", "two.dev")

files(name="files", sources=["greeting.txt"])

docker_nix_layered(
    name="image",
    contents=[":busybox", ":last", ":self", ":two", ":link", ":odd", ":files"],
    config={
        "Entrypoint": ["/bin/two"],
        "Env": ["PLAIN={store_path[nix:plain]}", "DEV={store_path[nix:dev]}", "PATH=/bin"],
    },
    include_nix_db=True,
)
docker_nix_image(
    name="single",
    contents=[":top", ":files"],
    extra_commands="cat $STORE_ROOT{store_path[nix:top]}/top > copied",
    run_as_root="read line < {store_path[nix:top]}/top; echo $line > by-root",
    include_nix_db=True,
    compression="none",
)
docker_nix_layered(
    name="upper",
    from_image=":image",
    contents=[":top", ":last"],
    include_nix_db=True,
)
"""


def fill(repo: Repo, salt: str, build: str = BUILD) -> None:
    busybox = shutil.which("busybox")
    assert busybox, "install busybox-static"
    repo.write("nix/bin/busybox", Path(busybox).read_bytes(), mode=0o755)
    repo.write(f"nix/salt-{salt}", "")
    repo.write("nix/packages.nix", PACKAGES)
    repo.write("nix/greeting.txt", "hello\n")
    repo.write("nix/BUILD", build.replace("SALT", salt))


@pytest.fixture
def salt() -> Iterator[str]:
    text = secrets.token_hex(8)
    yield text
    delete(text)


def machine(root: Path, salt: str, *options: str, build: str = BUILD, **kwargs: Any) -> Repo:
    repo = Repo(
        root / "repo",
        store=root / "store",
        backends=BACKENDS,
        options=["--no-verify-config", *options],
        **kwargs,
    )
    fill(repo, salt, build)
    return repo


def layers(repo: Repo, output: str) -> List[Dict[str, Any]]:
    """The layers of a packaged image, lowest first."""
    found: List[Dict[str, Any]] = repo.info(output)["docker_nix"]["layers"]
    return found


def store_paths(repo: Repo, output: str) -> List[Dict[str, Any]]:
    return [path for layer in layers(repo, output) for path in layer["store_paths"]]


def unpack(
    repo: Repo,
    output: str,
    into: Path,
    kinds: Sequence[str] = ("base", "store", "customisation", "single"),
) -> None:
    """Lays the layers of these kinds over each other."""
    for layer in layers(repo, output):
        if layer["kind"] not in kinds:
            continue
        name = layer["digest"].partition(":")[2]
        with tarfile.open(repo.root / "dist" / output / "blobs/sha256" / name) as tar:
            tar.extractall(into)


def tool_runs(run: Run) -> Counter[str]:
    """The processes for layers and of Nix that were started."""
    return Counter(re.findall(r"Starting: ((?:Packing a|Realising) .*)", run.output))


def by_popularity(graph: Mapping[str, Sequence[str]]) -> List[str]:
    """The specified order, by the letter of the specification."""
    known: Dict[str, Counter[str]] = {}

    def below(node: str) -> Counter[str]:
        if node not in known:
            counts: Counter[str] = Counter()
            for child in set(graph[node]) - {node}:
                counts[child] += 1
                for path, count in below(child).items():
                    counts[path] += count + 1
            known[node] = counts
        return known[node]

    referred = {child for node, children in graph.items() for child in children if child != node}
    scores: Counter[str] = Counter()
    for root in set(graph) - referred:
        scores[root] += 1
        for path, count in below(root).items():
            scores[path] += count + 1

    def tie(path: str) -> str:
        prefix, _, name = path.partition("-")
        return f"{name}-{prefix}"

    return sorted(graph, key=lambda path: (-scores[path], tie(path)))


def test_closures_become_images(salt: str, tmp_path: Path) -> None:
    """Bytes, order, links, configuration, database; in a real engine, and for a real Nix."""
    repo = machine(tmp_path, salt)
    run = repo.pants("package", "nix:image", "nix:single", "nix:upper", env=ENV)
    assert "not pinned" not in run.output
    paths = {path["path"]: path for path in store_paths(repo, "nix/image")}
    of_nix = {path: info for path, info in paths.items() if not path.endswith("-files")}
    assert len(paths) - len(of_nix) == 1
    names = [path.partition("-")[2].replace(f"-{salt}", "") for path in of_nix]
    assert {*names} >= {f"chain-{n}" for n in range(13)} | {"top", "left", "right", "bottom"}
    assert {*names} >= {"two", "two-dev", "self", "plain", "link", "odd", "busybox"}

    # What Nix says of them, self-references and all.
    for path, info in of_nix.items():
        assert info["references"] == sorted(references(path))
        registered = nix("nix-store", "--dump-db", path).split("\n")
        assert info["nar_hash"] == f"sha256:{registered[1]}"
        assert info["nar_size"] == int(registered[2])
    (itself,) = [path for path in of_nix if path.endswith(f"-self-{salt}")]
    assert of_nix[itself]["references"] == [itself]
    requisites = nix("nix-store", "--query", "--requisites", *of_nix).split()
    assert sorted(requisites) == sorted(of_nix)

    # The bytes are those of the store.
    root = tmp_path / "root"
    unpack(repo, "nix/image", root)
    for path in of_nix:
        assert dump(Path(f"{root}{path}")) == dump(Path(path)), path
        assert hashlib.sha256(dump(Path(path))).hexdigest() == paths[path]["nar_hash"][7:]

    # One layer for each, in the order of Nix' real graph.
    graph = {path: info["references"] for path, info in paths.items()}
    ordered = [layer["store_paths"] for layer in layers(repo, "nix/image")]
    assert ordered.pop() == []
    assert all(len(group) == 1 for group in ordered)
    assert [group[0]["path"] for group in ordered] == by_popularity(graph)

    # At `/`, the roots: both outputs, what a symlink leads to, and nothing that is for Nix only.
    (link,) = [path for path in of_nix if path.endswith(f"-link-{salt}")]
    (two,) = [path for path in of_nix if path.endswith(f"-two-{salt}")]
    (dev,) = [path for path in of_nix if path.endswith(f"-two-{salt}-dev")]
    (plain,) = [path for path in of_nix if path.endswith(f"-plain-{salt}")]
    assert os.readlink(root / "bin/two") == f"{two}/bin/two"
    assert os.readlink(root / "include/two.h") in (f"{dev}/include/two.h", f"{link}/include/two.h")
    assert sorted(os.listdir(root)) == ["bin", "include", "libexec", "nix", "share"]
    assert not (root / "nix-support").exists() and not (root / "top").exists()
    assert (root / "share/odd/empty").is_dir()
    assert os.readlink(root / "share/odd/dangling") == "../nowhere"
    config = json.loads((repo.root / "dist/nix/image/manifest.json").read_text())[0]["Config"]
    env = json.loads((repo.root / "dist/nix/image" / config).read_text())["config"]["Env"]
    assert env == [f"PLAIN={plain}", f"DEV={dev}", "PATH=/bin"]

    # The database has both kinds of paths.
    check_database(root, list(paths))
    single = tmp_path / "single"
    unpack(repo, "nix/single", single)
    check_database(single, [path["path"] for path in store_paths(repo, "nix/single")])
    (top,) = [path for path in of_nix if path.endswith(f"-top-{salt}")]
    assert (single / "copied").read_text() == Path(f"{top}/top").read_text()

    assert (single / "by-root").read_text() == Path(f"{top}/top").read_text()

    # What a base has is not added again.
    upper = layers(repo, "nix/upper")
    assert [layer["digest"] for layer in upper[:-1]] == [
        layer["digest"] for layer in layers(repo, "nix/image")
    ]
    assert upper[-1]["store_paths"] == []
    above = tmp_path / "above"
    unpack(repo, "nix/upper", above)
    check_database(above, list(paths))
    assert os.readlink(above / "top") == f"{top}/top"

    with docker_engine() as engine:
        image = engine.load(repo.root / "dist/nix/image")
        said = engine.run(image)
        assert said.splitlines()[0].startswith("a plain file, with /nix/store/")
        assert said.splitlines()[1] == "two"
        assert len(said.splitlines()) == 3


def check_database(root: Path, paths: List[str]) -> None:
    """A real Nix finds the store at `root` in order, and with these paths."""
    store = ["--store", str(root)]
    nix("nix-store", *store, "--verify", "--check-contents")
    assert sorted(nix("nix-store", *store, "--query", "--requisites", *paths).split()) == sorted(
        paths
    )


MIXED = """\
files(name="tools", sources=["bin/busybox", "salt-*"])
nix_package(
    name="python",
    expression="packages.nix",
    attribute="python",
    arguments={"system": "x86_64-linux", "salt": "SALT"},
    dependencies=[":tools"],
)
file(name="base", source="base.tar")
python_sources(name="sources")
python_requirement(name="six", requirements=["six==1.17.0"])
pex_binary(
    name="app", entry_point="main.py", interpreter_constraints=["CPython==3.11.*"]
)
docker_nix_layered(
    name="image",
    from_image=":base",
    contents=[":app", ":python"],
    config={"Entrypoint": ["{store_path[:app]}/bin/app", "{store_path[:python]}"]},
    include_nix_db=True,
)
docker_nix_layered(
    name="named",
    from_image=":base",
    contents=[":app"],
    python_interpreter="{store_path[:python]}/bin/python3.11",
    config={"Entrypoint": ["/bin/app"]},
)
"""


def test_a_python_application_whose_python_is_of_nix(salt: str, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "repo", store=tmp_path / "store")
    fill(repo, salt, MIXED)
    repo.write("nix/main.py", "import six, sys; print(six.__version__, sys.base_prefix, *sys.argv)")
    layout = debian_with_python(tmp_path / "base")
    with tarfile.open(repo.root / "nix/base.tar", "w") as tar:
        tar.add(layout, ".")
    repo.pants("package", "nix:image", "nix:named", env=ENV)
    paths = {path["path"].partition("-")[2]: path for path in store_paths(repo, "nix/image")}
    python = paths[f"python-{salt}"]["path"]
    # The environment refers to the Python that it is for, and the program to the environment.
    assert python in paths["python3.11-environment"]["references"]
    assert paths["python3.11-environment"]["path"] in paths["app"]["references"]
    assert {*paths} == {
        *("app", "python-sources", "python3.11-environment", "six-1.17.0", f"python-{salt}")
    }
    root = tmp_path / "root"
    unpack(repo, "nix/image", root, ("store", "customisation"))
    check_database(root, [info["path"] for info in paths.values()])

    with docker_engine() as engine:
        image = engine.load(repo.root / "dist/nix/image")
        version, prefix, _, *args = engine.run(image, "a").split()
        assert (version, prefix, args) == ("1.17.0", python, [python, "a"])
        named = engine.load(repo.root / "dist/nix/named")
        assert engine.run(named).split()[:2] == ["1.17.0", python]


MACHINES = """\
files(name="tools", sources=["bin/busybox", "salt-*"])
nix_package(
    name="two",
    expression="packages.nix",
    attribute="two",
    arguments={"system": "x86_64-linux", "salt": "SALT"},
    dependencies=[":tools"],
)
docker_nix_layered(name="image", contents=[":two"])
docker_nix_layered(name="other", contents=[":two"], compression="none")
"""


def test_other_machines(salt: str, tmp_path: Path) -> None:
    """A machine without Nix has all from the cache; one with Nix makes again what is lost."""
    with BuildGrid(tmp_path / "grid") as grid, Link(grid.port) as link:
        remote = (
            f"--remote-store-address={link.address}",
            "--remote-cache-read",
            "--remote-cache-write",
        )
        without = path_without_nix(tmp_path / "path")
        first = machine(tmp_path / "a", salt, *remote, build=MACHINES)
        run = first.pants("package", "nix:image", env=ENV)
        digest = first.digest("nix/image")
        paths = [path["path"] for path in store_paths(first, "nix/image")]
        assert tool_runs(run)["Realising nix:two with Nix"] == 1
        assert len(tool_runs(run)) == len(paths) + 2

        delete(salt)
        assert not any(os.path.lexists(path) for path in paths)

        # Neither Nix, nor the paths, nor a NIX_CONFIG.
        second = machine(tmp_path / "b", salt, *remote, "--no-remote-cache-write", build=MACHINES)
        run = second.pants("package", "nix:image", env={**without, "HOME": os.environ["HOME"]})
        assert tool_runs(run) == {}
        assert second.digest("nix/image") == digest
        assert not any(os.path.lexists(path) for path in paths)

        # A layer that no cache has, where there is no Nix.
        run = second.pants("package", "nix:other", check=False, env=without)
        assert run.exit_code == 1
        assert re.search(
            r"The target nix:other cannot be built\. (/nix/store/\S+), of nix:two, is in no cache "
            r"and not on this machine\.\n\nerror: there is no Nix on PATH, and no cache has the "
            r"result\. Install Nix 2\.4 or newer \(Debian, Ubuntu: `apt-get install nix-bin`; .*\);"
            r" or build this once on a machine that has Nix, with a remote cache that both use "
            r"\(remote_cache_write there, remote_cache_read here\)",
            run.output,
        ), run.output
        assert not (second.root / "dist/nix/other").exists()

        # The same where there is one: it is realised again.
        run = second.pants("package", "nix:other", env=ENV)
        assert tool_runs(run)["Realising nix:two with Nix"] == 1
        assert all(os.path.lexists(path) for path in paths)
        unpack(second, "nix/other", tmp_path / "root")
        for path in paths:
            assert dump(Path(f"{tmp_path}/root{path}")) == dump(Path(path))

        # Not even the answer of Nix is in a cache.
        third = machine(tmp_path / "c", salt, build=MACHINES)
        run = third.pants("package", "nix:image", check=False, env=without)
        assert (
            "The 'expression' field in target nix:two is 'packages.nix' with the attribute 'two', "
            "which gives no package.\n\nthere is no Nix on PATH, and no cache has the result. "
            "Install Nix 2.4 or newer" in run.output
        ), run.output


PATHS = """\
files(name="tools", sources=["bin/busybox", "salt-*"])
nix_package(
    name="dice",
    expression="dice.nix",
    attribute="dice",
    arguments={"salt": "SALT"},
    dependencies=[":tools"],
)
nix_package(name="added", store_path="ADDED")
docker_nix_layered(name="image", contents=[":dice", ":added"])
docker_nix_layered(name="other", contents=[":dice"], compression="none")
docker_nix_layered(name="more", contents=[":dice"], compression="zstd")
docker_nix_layered(name="again", contents=[":added"], compression="none")
"""
DICE = """\
{ salt }: {
  dice = derivation {
    name = "dice-${salt}";
    system = "x86_64-linux";
    builder = "${./bin}/busybox";
    args = [ "sh" "-euc" "$bb mkdir $out; $bb cat /proc/sys/kernel/random/uuid > $out/dice" ];
    bb = "${./bin}/busybox";
  };
}
"""


def test_paths_that_are_not_what_they_were(salt: str, tmp_path: Path) -> None:
    """A build that is not reproducible is not mixed with what it was; a lost path is an error."""
    source = tmp_path / f"added-{salt}"
    source.mkdir()
    (source / "added.txt").write_text("added")
    added = nix("nix-store", "--add", str(source)).strip()
    repo = machine(tmp_path, salt, build=PATHS.replace("ADDED", added), pantsd=True)
    repo.write("nix/dice.nix", DICE)
    try:
        repo.pants("package", "nix:image", env=ENV)
        info = {path["path"]: path["nar_hash"] for path in store_paths(repo, "nix/image")}
        (dice,) = [path for path in info if path.endswith(f"-dice-{salt}")]
        assert {*info} == {dice, added}

        # It is built again, to something else.
        delete(salt)
        run = repo.pants("package", "nix:other", check=False, env=ENV)
        assert run.exit_code == 1
        assert (
            f"The target nix:other cannot be built. {dice}, of nix:dice, is in no cache and not "
            "on this machine. Nix has made it again, but with other content: its NAR hash was "
            f"{info[dice]} and is sha256:" in run.output
        ), run.output
        assert "Set [docker-nix].nix_cache_version to another value" in run.output
        run = repo.pants("package", "nix:other", check=False, env=ENV)
        assert (
            f"error: {dice} has the NAR hash sha256:" in run.output
            and "the build is not reproducible" in run.output
        ), run.output
        version = "--docker-nix-nix-cache-version=2"
        repo.pants(version, "package", "nix:other", "nix:more", env=ENV)
        (path,) = store_paths(repo, "nix/other")
        assert path["nar_hash"] != info[dice]

        # What came from elsewhere cannot be made again.
        run = repo.pants("package", "nix:again", check=False, env=ENV)
        assert (
            f"The target nix:again cannot be built. {added}, of nix:added, is in no cache and not "
            f"on this machine.\n\nerror: {added} is not in the Nix store of this machine, and Nix "
            "cannot fetch it from elsewhere" in run.output
        ), run.output
        nix("nix-store", "--add", str(source))
        repo.pants("package", "nix:again", env=ENV)
    finally:
        repo.close()


ERRORS = (
    BUILD
    + """\
for name in ("bad", "text", "nope", "broken", "dangling", "set", "lookup"):
    package(name)
package("outputs", "top", outputs=["out", "man"])
nix_package(name="gone", store_path="/nix/store/00000000000000000000000000000000-gone-SALT")
for name in ("bad", "text", "nope", "broken", "set", "outputs", "gone", "plain", "dangling"):
    docker_nix_layered(name=f"image-{name}", contents=[f":{name}"])
docker_nix_layered(name="top-image", contents=[":top"])
docker_nix_layered(name="top-again", contents=[":top"], compression="none")
docker_nix_layered(name="lookup-image", config={"Cmd": ["{store_path[nix:lookup]}"]})
docker_nix_layered(
    name="lookups", config={"Env": ["A={store_path[nix:lookup]}", "B={store_path[nix:impure]}"]}
)
package("impure")
"""
)


def test_what_goes_wrong(salt: str, tmp_path: Path) -> None:
    repo = machine(tmp_path, salt, build=ERRORS, pantsd=True)

    def fails(target: str, *texts: str, env: Mapping[str, str] = {}) -> str:
        run = repo.pants("package", target, check=False, env={**ENV, **env})
        assert run.exit_code == 1, run.output
        for text in texts:
            assert text in run.output, run.output
        assert not (repo.root / "dist" / target.replace(":", "/")).exists()
        return run.output

    def field(attribute: str) -> str:
        return (
            f"The 'expression' field in target nix:{attribute} is 'packages.nix' with the "
            f"attribute '{attribute}', which gives no package.\n\n"
        )

    try:
        # A build that fails: the end of its log.
        said = fails("nix:image-bad", field("bad"), "\ncompiling\n", "\nit went boom\n")
        assert re.search(r"Nix cannot build /nix/store/\S+-bad-\S+\.drv; the end of what", said)
        assert re.search(r"error: builder for '/nix/store/.*-bad-.*' failed with exit code 3", said)

        # Evaluation: what Nix says, with the user's own paths.
        fails(
            "nix:image-text",
            field("text") + "Nix cannot evaluate it:\n",
            "error: expression does not evaluate to a derivation",
        )
        fails(
            "nix:image-nope",
            "The 'attribute' field in target nix:nope is 'nope', which gives no package.\n\n"
            "Nix cannot evaluate it:\nerror: attribute 'nope' in selection path 'nope' not found",
        )
        fails(
            "nix:image-broken",
            field("broken") + "Nix cannot evaluate it (it sees no files but those of the target "
            "and of its 'dependencies'):\n",
            "'nix/missing.nix': No such file or directory",
        )
        fails(
            "nix:image-set",
            "it evaluates to 2 derivations (plain-",
            ", and one is needed; name one of its attributes in 'attribute'",
        )
        fails(
            "nix:image-outputs",
            "The 'outputs' field in target nix:outputs is ['out', 'man'], which gives no "
            "package.\n\nit has no output 'man', but out",
        )
        gone = f"/nix/store/00000000000000000000000000000000-gone-{salt}"
        fails(
            "nix:image-gone",
            f"The 'store_path' field in target nix:gone is '{gone}', which gives no package.\n\n"
            f"{gone} is not in the Nix store of this machine, and Nix cannot fetch it from "
            "elsewhere; build it here, or copy it with `nix copy`; Nix said:\n",
            "don't know how to build these paths",
        )

        # What has nothing to show at `/`.
        for name, what in (("plain", "a file"), ("dangling", "a symlink to /nowhere")):
            fails(
                f"nix:image-{name}",
                f"The 'contents' field in target nix:image-{name} has nix:{name}, which is {what},"
                " not a directory, so that nothing of it can appear at /.",
                f"{{store_path[nix:{name}]}}",
            )

        # Stores elsewhere.
        fails(
            "nix:top-image",
            "the Nix of this machine has its store at /elsewhere/store. The hashes of store paths "
            "are made for their directory, and an image has it at /nix/store",
            env={"NIX_STORE_DIR": "/elsewhere/store"},
        )
        fails(
            "nix:top-image",
            "which is not in the Nix store of this machine: its store is elsewhere (is NIX_REMOTE "
            "set, ",
            env={"NIX_REMOTE": f"local?root={tmp_path}/chroot"},
        )

        # An old Nix.
        old = tmp_path / "old/nix-store"
        old.parent.mkdir()
        old.write_text("#!/bin/sh\necho 'nix-store (Nix) 2.3.16'\n")
        old.chmod(0o755)
        fails(
            "nix:top-image",
            f"{old} is 'nix-store (Nix) 2.3.16', and Nix 2.4 or newer is needed; upgrade it",
            env={"PATH": f"{old.parent}:{os.environ['PATH']}"},
        )

        # Nothing of all this was kept.
        repo.pants("package", "nix:top-image", env=ENV)

        # A store that is not what it should be. Of one path, in the layer that is not cached yet.
        paths = [path["path"] for path in store_paths(repo, "nix/top-image")]
        (left,) = [path for path in paths if path.endswith(f"-left-{salt}")]
        file = Path(left, "left")
        good = file.read_bytes()
        file.chmod(0o644)
        file.write_bytes(bytes([good[0] ^ 1]) + good[1:])
        file.chmod(0o444)
        fails(
            "nix:top-again",
            f"The target nix:top-again cannot be built. Packing a layer of left-{salt} "
            "(352 B) failed.",
            f"error: {left} is corrupted: its NAR hash is sha256:",
            f"Repair it with `nix-store --repair-path {left}` or `nix-store --verify "
            "--check-contents --repair`",
        )
        file.chmod(0o644)
        file.write_bytes(good)
        file.chmod(0o444)
        file.chmod(0o555)
        fails("nix:top-again", f"{left} is corrupted")
        file.chmod(0o444)
        repo.pants("package", "nix:top-again", env=ENV)
    finally:
        repo.close()


def test_fields_that_are_wrong(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "repo", backends=BACKENDS, options=["--no-verify-config"], pantsd=True)
    path = "/nix/store/00000000000000000000000000000000-x"
    one = "needs exactly one of the fields 'expression', 'installable' and 'store_path', and has "
    try:
        for fields, message in (
            ("", f"The target //:x {one}none of them."),
            (
                f'store_path="{path}", installable=".#x"',
                f"The target //:x {one}'installable' and 'store_path'.",
            ),
            ('store_path="/gnu/store/a-b"', "The 'store_path' field in target //:x is no store"),
            ('store_path="/gnu/store/a-b"', "so a store elsewhere cannot be used."),
            (f'store_path="{path}/bin/x"', "Give the store path itself, without what lies in it."),
            (f'store_path="{path}.drv"', f"is '{path}.drv', a derivation. Give one of its outputs"),
            (
                f'store_path="{path}", outputs=["out"]',
                "The 'outputs' field in target //:x has no meaning beside 'store_path'. Remove it,"
                " or use 'expression' or 'installable'.",
            ),
            ('installable="--help"', "is '--help', which is no flake reference. Write it as"),
            ('installable=".#x^dev"', "which selects outputs. Name them in the 'outputs' field"),
            ('installable="..#x"', "which leads out of the repository. Name a flake inside, or"),
            ('installable=".#x", outputs=[]', "The 'outputs' field in target //:x is an empty"),
            ('installable=".#x", outputs=["a!b"]', "has 'a!b', which is not the name of an output"),
            ('installable=".#x", system="intel"', "The 'system' field in target //:x is 'intel'."),
            (
                'installable=".#x", attribute="y"',
                "The 'attribute' field in target //:x has no mean",
            ),
            (
                'expression="x.nix", arguments={"1": "a"}',
                "has '1', which is not the name of an arg",
            ),
            ('expression="x.nix", arguments={"a": 1}', "The 'arguments' field in target //:x must"),
            ('expression="x.nix", attribute=" "', "The 'attribute' field in target //:x is ' '."),
            ('expression="x.nix", impure=True', "The 'impure' field in target //:x has no meaning"),
            ('expression="x.nix"', "x.nix"),
        ):
            contents = 'docker_nix_layered(name="image", contents=[":x"])\n'
            repo.write("BUILD", f'nix_package(name="x", {fields})\n{contents}')
            run = repo.pants("package", "//:image", check=False, env=ENV)
            assert run.exit_code == 1
            assert message in run.output, run.output
    finally:
        repo.close()


def test_what_is_not_pinned(salt: str, tmp_path: Path) -> None:
    """It follows the machine, says so once, and has no place in a cache."""
    repo = machine(tmp_path, salt, build=ERRORS)
    value = tmp_path / "salt.nix"

    def package(targets: Sequence[str], text: str) -> Run:
        value.write_text(text)
        search_path = {"NIX_PATH": f"salt={value}"}
        return repo.pants("package", *targets, env={**ENV, **search_path})

    run = package(["nix:lookups", "nix:lookup-image"], "1")
    warnings = re.findall(r"\[WARN\] The target (\S+) is not pinned", run.output)
    assert sorted(warnings) == ["nix:impure", "nix:lookup"]
    assert "error: cannot look up '<salt>' in pure evaluation mode" in run.output
    assert "error: attribute 'currentSystem' missing" in run.output
    assert "Pin it: fetch nixpkgs with a hash" in run.output
    before = repo.digest("nix/lookups")

    # Asked again in the next run, though no file has changed.
    run = package(["nix:lookups"], "1")
    assert tool_runs(run)["Realising nix:lookup with Nix"] == 1
    assert repo.digest("nix/lookups") == before
    assert "is not pinned" in run.output
    other = tmp_path / "other.nix"
    value = other
    package(["nix:lookups"], "2")
    assert repo.digest("nix/lookups") != before


FLAKE = """\
{ inputs = { INPUTS }; outputs = inputs: { packages.x86_64-linux = rec {
  app = import ./lib/app.nix "SALT";
  default = app;
  deep.er = app;
  text = "text";
}; }; }
"""
FLAKE_APP = """\
salt: derivation {
  name = "flake-${salt}";
  system = "x86_64-linux";
  builder = "${./bin}/busybox";
  args = [ "sh" "-c" "${./bin}/busybox mkdir $out; echo from a flake > $out/flake" ];
}
"""
FLAKES = """\
files(name="lib", sources=["lib/**", "salt-*"])
for name, fragment in (("app", "#app"), ("default", ""), ("deep", "#deep.er"), ("nope", "#nope"),
                       ("text", "#text")):
    nix_package(name=name, installable=f".{fragment}", dependencies=[":lib"])
    docker_nix_layered(name=f"image-{name}", contents=[f":{name}"])
nix_package(name="impure", installable="path:.#app", impure=True, dependencies=[":lib"])
docker_nix_layered(name="image-impure", contents=[":impure"])
"""


def test_flakes(salt: str, tmp_path: Path) -> None:
    """A flake of the repository, without Git: pinned where it has no inputs, or a lock file."""
    busybox = shutil.which("busybox")
    assert busybox
    repo = Repo(
        tmp_path / "repo",
        store=tmp_path / "store",
        backends=BACKENDS,
        options=["--no-verify-config"],
        pantsd=True,
    )
    repo.write("f/lib/bin/busybox", Path(busybox).read_bytes(), mode=0o755)
    repo.write("f/lib/app.nix", FLAKE_APP)
    repo.write(f"f/salt-{salt}", "")
    repo.write("f/BUILD", FLAKES)

    def flake(inputs: str) -> None:
        text = FLAKE.replace("INPUTS", inputs).replace("SALT", salt)
        repo.write("f/flake.nix", text)

    def realised(run: Run) -> int:
        return sum(n for name, n in tool_runs(run).items() if name.startswith("Realising"))

    try:
        run = repo.pants("package", "f:image-app", check=False, env=ENV)
        assert (
            "The 'installable' field in target f:app is '.#app', but there is no file "
            "'f/flake.nix'.\n\nGive the directory of the flake" in run.output
        ), run.output

        flake("")
        targets = ("f:image-app", "f:image-default", "f:image-deep")
        run = repo.pants("package", *targets, env=ENV)
        assert "is not pinned" not in run.output
        assert realised(run) == 3
        digests = {repo.digest(target.replace(":", "/")) for target in targets}
        assert len(digests) == 1
        assert realised(repo.pants("--no-pantsd", "package", *targets, env=ENV)) == 0

        run = repo.pants("package", "f:image-nope", check=False, env=ENV)
        assert "The 'installable' field in target f:nope is '.#nope', which gives no" in run.output
        assert "does not provide attribute 'packages.x86_64-linux.nope'" in run.output
        run = repo.pants("package", "f:image-text", check=False, env=ENV)
        assert "it is a string, and a derivation is needed" in run.output

        run = repo.pants("package", "f:image-impure", env=ENV)
        assert "[WARN] The target f:impure is not pinned" in run.output
        assert "impure=True" in run.output
        assert repo.digest("f/image-impure") in digests

        # With an input that is not locked; then it is.
        other = tmp_path / "other"
        other.mkdir()
        (other / "flake.nix").write_text("{ outputs = _: {}; }\n")
        flake(f'other.url = "path:{other}";')
        for _ in range(2):
            run = repo.pants("package", "f:image-app", env=ENV)
            assert "[WARN] The target f:app is not pinned" in run.output
            assert "requires lock file changes" in run.output
            assert realised(run) >= 1
        lock = ["--extra-experimental-features", "nix-command flakes", "flake", "lock"]
        nix("nix", *lock, f"path:{repo.root}/f")
        run = repo.pants("package", "f:image-app", env=ENV)
        assert "is not pinned" not in run.output
        assert realised(run) == 1
        assert realised(repo.pants("--no-pantsd", "package", "f:image-app", env=ENV)) == 0
        assert repo.digest("f/image-app") in digests
    finally:
        repo.close()
