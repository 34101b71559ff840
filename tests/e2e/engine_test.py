"""Images in a real Docker engine, and read by the other tools of the field."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any, Dict, Iterator

import pytest

from support.docker_engine import DockerEngine, docker_engine
from support.workspace import PROJECT, Repo, checkout


@pytest.fixture(scope="module")
def docker() -> Iterator[DockerEngine]:
    with docker_engine() as engine:
        yield engine


def check_output(*argv: str) -> str:
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, f"{argv}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def unpack(layout: Path, tag: str, into: Path) -> Dict[str, Any]:
    """What `umoci unpack` makes of a layout: each path with its kind, mode and content."""
    check_output("umoci", "unpack", "--rootless", "--image", f"{layout}:{tag}", str(into))
    found: Dict[str, Any] = {}
    for folder, folders, files in os.walk(into / "rootfs"):
        for name in folders + files:
            path = Path(folder, name)
            status = path.lstat()
            if path.is_symlink():
                content: Any = os.readlink(path)
            else:
                content = path.read_bytes() if path.is_file() else None
            found[str(path.relative_to(into / "rootfs"))] = (oct(status.st_mode), content)
    return found


def test_the_examples_run(tmp_path: Path, docker: DockerEngine) -> None:
    """The README's first command in a copy of the project, and what it made in the engine."""
    root = tmp_path / "clone"
    root.mkdir()
    checkout(root)
    done = subprocess.run(
        ["./pants", "--no-pantsd", "package", "src/examples::"],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    dist = root / "dist"

    hello = docker.load(dist / "src.examples.hello/image")
    assert docker.run(hello) == "Hello from an image of one static program.\n"

    north = docker.load(dist / "src.examples.locales/north")
    europe = docker.load(dist / "src.examples.locales/europe")
    files = docker.files(europe)
    for source in sorted((PROJECT / "src/examples/locales").glob("*.json")):
        link, _ = files[f"usr/share/locales/{source.name}"]
        assert link.issym()
        assert files[link.linkname.lstrip("/")][1] == source.read_bytes()
    layers = [
        json.loads(docker.run_client("inspect", image))[0]["RootFS"]["Layers"]
        for image in (north, europe)
    ]
    assert (len(layers[0]), len(layers[1])) == (10, 20)
    assert len(set(layers[0]) & set(layers[1])) >= 5
    history = docker.run_client("history", "--no-trunc", "--format={{.CreatedBy}}", north)
    assert history.decode().splitlines()[-1].startswith("/nix/store/")

    # The engine's own name for each image is what was reported.
    info = json.loads((dist / "src.examples.locales/north.docker-info.json").read_text())
    assert info["registries"][0]["tags"][0]["name"] == north
    loaded = docker.run_client("inspect", "--format={{.Id}}", north)
    assert loaded.decode().strip() == info["image_id"]


def test_python_application_on_an_unpacked_root(tmp_path: Path, docker: DockerEngine) -> None:
    """A PEX beside a Debian root file system with Python, run by an ordinary user."""
    repo = Repo(tmp_path / "repo")
    packages = (
        "python3-minimal,python3.11-minimal,libpython3.11-stdlib,base-files,libc6,dash,coreutils"
    )
    check_output(
        "mmdebstrap",
        "--quiet",
        "--variant=extract",
        "--skip=output/dev",  # a store path cannot hold devices
        f"--include={packages}",
        "bookworm",
        str(repo.root / "debian.tar"),
    )
    example = PROJECT / "src/examples/greeter"
    for file in ("greeter.py", "greeting.json"):
        repo.write(f"src/examples/greeter/{file}", (example / file).read_bytes())
    repo.write("BUILD", 'file(name="debian", source="debian.tar")\n')
    repo.write(
        "src/examples/greeter/BUILD",
        (example / "BUILD")
        .read_text()
        .replace('contents=[":app"]', 'contents=[":app", "//:debian"]')
        .replace('resolve="examples", ', ""),
    )
    repo.write("3rdparty/BUILD", 'python_requirement(requirements=["packaging==24.2"])\n')
    repo.pants("package", "src/examples/greeter:image")

    image = docker.load(repo.root / "dist/src.examples.greeter/image")
    assert docker.run(image, "Ada") == "Hello, Ada!\n"
    inspected = json.loads(docker.run_client("inspect", image))[0]
    assert inspected["Config"]["User"] == "65532:65532"
    # An ordinary user reads the store, and the links of the root file system lead into it.
    shell = ("run", "--rm", "--network", "none", "--entrypoint", "/bin/sh", image, "-c")
    output = docker.run_client(*shell, "id -u; ls /nix/store | wc -l; readlink -f /bin/app.pex")
    user, store_paths, application = output.decode().split()
    assert (user, store_paths) == ("65532", "2")
    assert application.startswith("/nix/store/") and application.endswith("-app/bin/app.pex")


CUSTOM = """\
files(name="data", sources=["data/**"])
file(name="tool", source="tool.tar.gz")
docker_nix_layered(
    name="image",
    image_name="Team/Custom",
    image_tags=["V1", "latest"],
    contents=[":data", ":tool"],
    uid=12345,
    gid=54321,
    config={{
        "Entrypoint": ["{{store_path[:tool]}}/bin/busybox"],
        "Cmd": ["sh", "-c", "cat /etc/motd /odd"],
        "Env": ["A={{{{literal}}}}"],
        "Labels": {{"path": "{{store_path[:data]}}"}},
        "ExposedPorts": {{"8080/tcp": {{}}}},
    }},
    tools=["seq"],
    extra_commands=r'''
mkdir -p etc
printf '%s\\n' "it's \\"odd\\" \\$HOME" '{{x}} ${{y}}' > odd
seq 3 > etc/motd
chmod 4750 etc/motd
cp "$STORE_ROOT{{store_path[:data]}}/data/a b.txt" etc/copy
echo {{store_path[:tool]}} > etc/tool-path
rm data/gone
umask > etc/umask
''',
    {extra}
)
"""


@pytest.fixture(scope="module")
def custom(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    repo = Repo(tmp_path_factory.mktemp("custom"))
    tree = tmp_path_factory.mktemp("tree")
    (tree / "bin").mkdir()
    (tree / "bin/busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (tree / "bin/busybox").chmod(0o755)
    (tree / "bin/sh").symlink_to("busybox")
    check_output("tar", "-czf", str(repo.root / "tool.tar.gz"), "-C", str(tree), ".")
    repo.write("data/a b.txt", "a b")
    repo.write("data/ünï\n.txt", "unicode")
    repo.write("data/gone", "")
    repo.write("data/large", os.urandom(3_000_000))
    variants = {
        "gzip": "",
        "zstd": 'compression="zstd",',
        "none": 'compression="none",',
        "archive": 'output_format="docker-archive",',
    }
    for name, extra in variants.items():
        build = CUSTOM.format(extra=extra).replace('name="image"', f'name="{name}"')
        repo.write("BUILD", (repo.root / "BUILD").read_text() + build if name != "gzip" else build)
    text = (repo.root / "BUILD").read_text()
    targets = 'files(name="data", sources=["data/**"])\nfile(name="tool", source="tool.tar.gz")\n'
    repo.write("BUILD", targets + text.replace(targets, ""))
    repo.pants("package", "//:gzip", "//:zstd", "//:none", "//:archive")
    return repo


def test_customisation_in_the_engine(custom: Repo, docker: DockerEngine) -> None:
    image = docker.load(custom.root / "dist/gzip")
    assert image == "team/custom:v1" or image == "team/custom:latest"
    for tag in ("v1", "latest"):
        assert docker.run(f"team/custom:{tag}") == ('1\n2\n3\nit\'s "odd" $HOME\n{x} ${y}\n')
    files = docker.files(image)
    motd, content = files["etc/motd"]
    assert content == b"1\n2\n3\n"
    assert (motd.uid, motd.gid, motd.mtime) == (12345, 54321, 1)
    assert stat.S_IMODE(motd.mode) == 0o4750
    assert (motd.uname, motd.gname) == ("", "")
    assert files["etc/copy"][1] == b"a b"
    assert files["etc/umask"][1] == b"0022\n"
    assert "data/gone" not in files
    link = files["data/ünï\n.txt"][0]
    assert link.issym() and (link.uid, link.gid) == (12345, 54321)
    assert files[link.linkname.lstrip("/")][1] == b"unicode"
    stored = files[link.linkname.lstrip("/")][0]
    assert (stored.uid, stored.gid, stat.S_IMODE(stored.mode)) == (0, 0, 0o444)
    store = files["nix/store"][0]
    for folder in (store, files["nix"][0]):
        assert (stat.S_IMODE(folder.mode), folder.uid) == (0o755, 0)
    assert files["bin/sh"][0].linkname == "busybox"

    config = json.loads(docker.run_client("inspect", image))[0]["Config"]
    tool = files["etc/tool-path"][1].decode().strip()
    assert config["Entrypoint"] == [f"{tool}/bin/busybox"]
    assert config["Env"] == ["A={literal}"]
    assert config["Labels"]["path"] == link.linkname.split("/data/")[0]
    assert config["ExposedPorts"] == {"8080/tcp": {}}


def test_every_format_is_the_same_image(custom: Repo, docker: DockerEngine, tmp_path: Path) -> None:
    """All hold one file system, which skopeo, umoci and Docker read."""
    dist = custom.root / "dist"
    wanted = unpack(dist / "gzip", "v1", tmp_path / "gzip")
    assert unpack(dist / "none", "latest", tmp_path / "none") == wanted
    infos = {name: custom.info(name) for name in ("gzip", "zstd", "none", "archive")}
    # The image ID is a digest of what is in it; only the manifest knows of compression.
    assert len({info["image_id"] for info in infos.values()}) == 1
    assert len({infos[name]["docker_nix"]["digest"] for name in ("gzip", "zstd", "none")}) == 3

    for name in ("gzip", "zstd", "none"):
        inspected = json.loads(check_output("skopeo", "inspect", f"oci:{dist}/{name}:v1"))
        assert inspected["Digest"] == infos[name]["docker_nix"]["digest"]
        # Another's decompressor finds in each layer the tar that its diff_id promises.
        copy = tmp_path / f"{name}-copy"
        check_output("skopeo", "copy", "--dest-decompress", f"oci:{dist}/{name}:v1", f"dir:{copy}")
        diff_ids = {layer["diff_id"][7:] for layer in infos[name]["docker_nix"]["layers"]}
        assert diff_ids <= {file.name for file in copy.iterdir()}
        for diff_id in diff_ids:
            assert hashlib.sha256((copy / diff_id).read_bytes()).hexdigest() == diff_id
    back = tmp_path / "back"
    check_output("skopeo", "copy", f"docker-archive:{dist}/archive.tar", f"oci:{back}:x")
    assert unpack(back, "x", tmp_path / "archive") == wanted

    docker.run_client("image", "prune", "--all", "--force")
    for output in (dist / "archive.tar", dist / "none"):
        docker.load(output)
        loaded = docker.run_client("inspect", "--format={{.Id}}", "team/custom:v1")
        assert loaded.decode().strip() == infos["gzip"]["image_id"]
        docker.run_client("rmi", "--force", infos["gzip"]["image_id"])


def test_layout_is_what_it_says(custom: Repo) -> None:
    """Each blob has the digest of its name; nothing is there that the manifest does not name."""
    layout = custom.root / "dist/gzip"
    index = json.loads((layout / "index.json").read_text())
    assert [m["annotations"]["org.opencontainers.image.ref.name"] for m in index["manifests"]] == [
        "v1",
        "latest",
    ]
    named = {index["manifests"][0]["digest"]}
    manifest = json.loads((layout / "blobs/sha256" / named.copy().pop()[7:]).read_text())
    for descriptor in (manifest["config"], *manifest["layers"]):
        blob = (layout / "blobs/sha256" / descriptor["digest"][7:]).read_bytes()
        assert len(blob) == descriptor["size"]
        named.add(descriptor["digest"])
    present = set()
    for blob_file in (layout / "blobs/sha256").iterdir():
        digest = hashlib.sha256(blob_file.read_bytes()).hexdigest()
        assert digest == blob_file.name
        present.add(f"sha256:{digest}")
    assert present == named
    loadable = json.loads((layout / "manifest.json").read_text())
    assert loadable[0]["RepoTags"] == ["team/custom:v1", "team/custom:latest"]
    for path in (loadable[0]["Config"], *loadable[0]["Layers"]):
        assert (layout / path).is_file()
