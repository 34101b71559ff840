"""Images on base images: what other tools wrote, in a real engine and read by other tools."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence, Tuple

import pytest

from support.debian_image import write_layout
from support.docker_engine import DockerEngine, docker_engine
from support.workspace import PROJECT, Repo

OCI, DOCKER = "application/vnd.oci.image", "application/vnd.docker"
NIX_CONFIG = "build-users-group =\nsandbox = false\nsubstitute = false\n"
BASE_CONFIG = {
    "Cmd": ["cat", "/etc/motd"],
    "Env": ["PATH=/bin", "A=base", "B=base"],
    "ExposedPorts": {"80/tcp": {}},
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 30_000_000_000},
    "Labels": {"base": "yes", "both": "base"},
    "StopSignal": "SIGQUIT",
    "User": "1000:1000",
    "Volumes": {"/data": {}},
    "WorkingDir": "/tmp",
}


def check_output(*argv: object) -> str:
    done = subprocess.run(
        [str(arg) for arg in argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert done.returncode == 0, f"{argv}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def layer(*members: Tuple[Any, ...]) -> bytes:
    """The tar of a layer: members as `(path, type, mode, uid, gid, bytes or target or device)`."""
    data = BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, mode, uid, gid, *more in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.uid, info.gid, info.mtime = kind, mode, uid, gid, 1
            content = b""
            if kind == tarfile.REGTYPE and more:
                content = more[0]
                info.size = len(content)
            elif kind == tarfile.CHRTYPE:
                info.devmajor, info.devminor = more[0]
            elif more:
                info.linkname = more[0]
            archive.addfile(info, BytesIO(content))
    return data.getvalue()


def directory(path: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> Tuple[Any, ...]:
    return (path, tarfile.DIRTYPE, mode, uid, gid)


def file(path: str, content: bytes = b"", mode: int = 0o644) -> Tuple[Any, ...]:
    return (path, tarfile.REGTYPE, mode, 0, 0, content)


def symlink(path: str, target: str) -> Tuple[Any, ...]:
    return (path, tarfile.SYMTYPE, 0o777, 0, 0, target)


def hard_link(path: str, target: str) -> Tuple[Any, ...]:
    return (path, tarfile.LNKTYPE, 0o644, 0, 0, target)


def base_layers(motd: str = "from the base\n") -> List[bytes]:
    """A small system, and a layer that deletes of it."""
    programs = (
        "cat",
        "chmod",
        "echo",
        "env",
        "false",
        "id",
        "ls",
        "mkdir",
        "rm",
        "sh",
        "stat",
        "true",
    )
    return [
        layer(
            symlink("bin", "usr/bin"),
            *(directory(path) for path in ("etc", "home", "opq", "opq/deep", "usr", "usr/bin")),
            file("usr/bin/busybox", Path("/bin/busybox").read_bytes(), 0o755),
            *(symlink(f"usr/bin/{name}", "busybox") for name in programs),
            file("etc/motd", motd.encode()),
            file("etc/gone", b"gone"),
            file("etc/same", b"same\n"),
            file("etc/first", b"linked"),
            hard_link("etc/hard", "etc/first"),
            file("opq/deep/old", b"old"),
            directory("home/u", 0o700, 1000, 1000),
            directory("tmp", 0o1777),
            directory("var"),
            directory("var/mail", 0o2775, 0, 8),
        ),
        layer(
            directory("etc"),
            file("etc/.wh.gone"),
            file("etc/second", b"second"),
            directory("opq"),
            file("opq/.wh..wh..opq"),
            file("opq/new", b"new"),
        ),
    ]


def special_layers() -> List[bytes]:
    """What only an export can have: devices, and files that changed in odd ways."""
    return [
        layer(
            directory("a"),
            file("a/file", b"one"),
            hard_link("a/link", "a/file"),
            directory("a/dir", 0o750, 3, 4),
            file("a/dir/below", b"x"),
            file("a/suid", b"suid", 0o4755),
            ("a/null", tarfile.CHRTYPE, 0o666, 0, 0, (1, 3)),
            ("a/fifo", tarfile.FIFOTYPE, 0o600, 5, 5),
            symlink("a/dangling", "nowhere"),
            symlink("linked", "a/dir"),
        ),
        layer(
            directory("a"),
            file("a/.wh.file"),
            file("a/dir", b"now a file"),
            directory("a/dangling", 0o711),
            file("a/dangling/x", b"x"),
            hard_link("a/again", "a/link"),
        ),
        layer(directory("a"), file("a/.wh.dangling"), directory("b", 0o1777), file("b/é x", b"y")),
    ]


def mixed_layout(layout: Path, layers: Sequence[Tuple[str, bytes]]) -> None:
    """A layout of layers that are each of another media type, as a registry may have it."""
    check = {
        f"{OCI}.layer.v1.tar+gzip": lambda tar: gzip.compress(tar, 6, mtime=0),
        f"{DOCKER}.image.rootfs.diff.tar.gzip": lambda tar: gzip.compress(tar, 1, mtime=0),
        f"{OCI}.layer.v1.tar+zstd": lambda tar: subprocess.run(
            ["zstd", "-qc"], input=tar, stdout=subprocess.PIPE, check=True
        ).stdout,
        f"{OCI}.layer.v1.tar": lambda tar: tar,
    }
    write_layout(layout, [tar for _, tar in layers], BASE_CONFIG)
    index = json.loads((layout / "index.json").read_text())
    blobs = layout / "blobs/sha256"
    manifest = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_text())
    manifest["layers"] = []

    def add(media_type: str, content: bytes) -> Dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    for media_type, tar in layers:
        manifest["layers"].append(add(media_type, check[media_type](tar)))
    index["manifests"] = [add(manifest["mediaType"], json.dumps(manifest).encode())]
    (layout / "index.json").write_text(json.dumps(index))


def pack(layout: Path, tar: Path) -> None:
    check_output("tar", "-cf", tar, "-C", layout, ".")


def diff_ids(tars: Sequence[bytes]) -> List[str]:
    return [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in tars]


@pytest.fixture(scope="module")
def docker() -> Iterator[DockerEngine]:
    with docker_engine() as engine:
        yield engine


FIRST_BUILD = """\
file(name="oci", source="oci.tar")
files(name="own-data", sources=["own/**"])
docker_nix_layered(name="own", from_image=":oci", contents=[":own-data"], image_name="our/own")
docker_nix_layered(
    name="own_archive",
    from_image=":oci",
    contents=[":own-data"],
    image_name="our/own",
    output_format="docker-archive",
)
docker_nix_layered(name="own_db", contents=[":own-data"], include_nix_db=True)
docker_nix_layered(name="own_zstd", from_image=":oci", contents=[":own-data"], compression="zstd")
"""
ARCHIVES = ("saved", "skopeo", "oci", "own", "own_archive")
BUILD = """\
files(name="files", sources=["data/**"])
relocated_files(name="data", files_targets=[":files"], src="data", dest="")
file(name="dirlinks", source="dirlinks.tar")

for archive in {archives}:
    for ending, suffix in (("tar", ""), ("tar.gz", "_gz")):
        if archive != "oci" or suffix:
            file(name=archive + suffix, source=f"{{archive}}.{{ending}}")
        docker_nix_layered(
            name=f"on_{{archive}}{{suffix}}",
            from_image=f":{{archive}}{{suffix}}",
            contents=[":data"],
        )

for name in ("bare", "two", "refs", "mixed", "plain_mixed", "special"):
    file(name=name, source=name + ".tar")
docker_nix_layered(
    name="second", from_image=":two", from_image_name="base/two", from_image_tag="v2"
)
docker_nix_layered(name="first", from_image=":two")
docker_nix_image(name="ref", from_image=":refs", from_image_tag="other")
shell_command(
    name="made",
    command="cp saved.tar made.tar",
    tools=["cp"],
    output_files=["made.tar"],
    execution_dependencies=[":saved"],
)
docker_nix_image(name="on_made", from_image=":made", contents=[":data"])
files(name="one_file", sources=["saved.tar"])
docker_nix_image(name="on_files", from_image=":one_file", contents=[":data"])
docker_nix_image(name="on_bare", from_image=":bare", architecture="arm64")

for name in ("mixed", "plain_mixed"):
    docker_nix_layered(name=f"on_{{name}}", from_image=f":{{name}}", contents=[":data"])
docker_nix_layered(
    name="mixed_archive", from_image=":mixed", contents=[":data"], output_format="docker-archive"
)
docker_nix_export(name="mixed_rootfs", from_image=":mixed")

for kind, target in (("layered", docker_nix_layered), ("single", docker_nix_image)):
    target(
        name=f"fitted_{{kind}}",
        from_image=":oci",
        contents=[":data"],
        uid=7,
        gid=8,
        config={{
            "Entrypoint": ["/bin/app"],
            "Env": ["B=own", "C=own"],
            "ExposedPorts": {{"81/tcp": {{}}}},
            "Labels": {{"both": "own", "own": "yes"}},
            "Volumes": {{"/more": {{}}}},
        }},
    )
    target(
        name=f"script_{{kind}}",
        from_image=":oci",
        contents=[":data"],
        extra_commands=\"\"\"
            mkdir -p bin etc home/u/new opt
            cp "$STORE_ROOT{{store_path[:data]}}/bin/app" bin/copy
            echo made > tmp/made
            chmod 0750 home/u/new
            echo same > etc/same
            echo other > etc/motd
            ln tmp/made bin/made
        \"\"\",
    )
    target(
        name=f"nothing_{{kind}}",
        from_image=":oci",
        extra_commands="mkdir -p etc tmp bin; echo same > etc/same; ln -s busybox bin/sh",
    )

# The base has a store path already, in an image target, in a layout and in a docker-archive.
for base in (":on_oci", ":own", ":own_archive"):
    docker_nix_layered(
        name="again" + base.replace(":", "_"), from_image=base, contents=[":data", ":own-data"]
    )

docker_nix_layered(name="exact", from_image=":oci", contents=[":data", ":own-data"], max_layers=5)
docker_nix_layered(name="tight", from_image=":oci", contents=[":data", ":own-data"], max_layers=4)
docker_nix_layered(name="full", from_image=":oci", contents=[":data", ":own-data"], max_layers=3)

for keep in (True, False):
    docker_nix_image(
        name=f"dirlinks_{{keep}}", contents=[":dirlinks"], keep_contents_dirlinks=keep
    )

file(name="own_db", source="own_db.tar")
docker_nix_layered(
    name="db_on_db", from_image=":own_db", contents=[":data"], include_nix_db=True
)
docker_nix_image(
    name="db_on_none", from_image=":own", contents=[":data", ":own-data"], include_nix_db=True
)
for name in ("db_on_db", "db_on_none"):
    docker_nix_export(name=f"{{name}}_rootfs", from_image=f":{{name}}")

docker_nix_layered(name="on_special", from_image=":special", contents=[":data"])
docker_nix_export(name="special_rootfs", from_image=":on_special")
docker_nix_export(name="plain_rootfs", from_image=":oci")
docker_nix_layered(
    name="of_export", contents=[":plain_rootfs"], config={{"Cmd": ["/bin/cat", "/etc/motd"]}}
)
docker_nix_export(name="of_two", from_image=":two", from_image_name="base/two")
"""
DATA = {
    "bin/app": "#!/bin/sh\ncat /tmp/x /var/mail/m\n",
    "tmp/x": "x in tmp\n",
    "var/mail/m": "a mail\n",
    "home/u/f": "of u\n",
}


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory, docker: DockerEngine) -> Iterator[Repo]:
    """A repository with archives of all kinds, and all of `BUILD` packaged."""
    made = Repo(tmp_path_factory.mktemp("repo") / "r", pantsd=True)
    try:
        fill(made, tmp_path_factory.mktemp("archives"), docker)
        yield made
    finally:
        made.close()


def fill(made: Repo, folder: Path, docker: DockerEngine) -> None:
    for path, content in DATA.items():
        made.write(f"data/{path}", content, 0o755 if path == "bin/app" else 0o644)
    made.write("own/own.txt", "own\n")
    root = made.root

    one, two = folder / "one", folder / "two"
    write_layout(one, base_layers(), BASE_CONFIG)
    write_layout(two, base_layers("from another\n"), BASE_CONFIG, tag="other")
    check_output("skopeo", "copy", f"oci:{one}:base", f"oci-archive:{root}/oci.tar:base")
    check_output(
        "skopeo", "copy", f"oci:{one}:base", f"docker-archive:{root}/skopeo.tar:base/one:v1"
    )
    check_output("skopeo", "copy", f"oci:{two}:other", f"docker-archive:{folder}/2.tar:base/two:v2")
    for archive in (root / "skopeo.tar", folder / "2.tar"):
        docker.load(archive)
    docker.run_client("save", "-o", str(root / "saved.tar"), "base/one:v1")
    docker.run_client("save", "-o", str(root / "two.tar"), "base/one:v1", "base/two:v2")

    refs = folder / "refs"
    shutil.copytree(one, refs)
    shutil.copytree(two / "blobs", refs / "blobs", dirs_exist_ok=True)
    index, other = (json.loads((x / "index.json").read_text()) for x in (one, two))
    index["manifests"] += other["manifests"]
    (refs / "index.json").write_text(json.dumps(index))
    pack(refs, root / "refs.tar")

    first, second = base_layers()
    extra = layer(directory("etc"), file("etc/third", b"third"))
    last = layer(directory("etc"), file("etc/.wh.third"), file("etc/fourth", b"fourth"))
    kinds = {
        "mixed": (f"{OCI}.layer.v1.tar+zstd", f"{OCI}.layer.v1.tar"),
        "plain_mixed": (f"{OCI}.layer.v1.tar", f"{OCI}.layer.v1.tar"),
    }
    for name, (third, fourth) in kinds.items():
        mixed_layout(
            folder / name,
            [
                (f"{OCI}.layer.v1.tar+gzip", first),
                (f"{DOCKER}.image.rootfs.diff.tar.gzip", second),
                (third, extra),
                (fourth, last),
            ],
        )
        pack(folder / name, root / f"{name}.tar")
    write_layout(folder / "bare", base_layers(), {}, architecture="")
    pack(folder / "bare", root / "bare.tar")
    write_layout(folder / "special", special_layers(), {})
    pack(folder / "special", root / "special.tar")
    made.write(
        "dirlinks.tar",
        layer(
            directory("lib"),
            file("lib/so.1", b"library"),
            symlink("lib/so", "so.1"),
            symlink("lib64", "lib"),
            symlink("usr", "."),
            symlink("loop", "loop"),
            symlink("out", "../elsewhere"),
            symlink("absolute", "/etc"),
        ),
    )

    made.write("BUILD", FIRST_BUILD)
    made.pants("package", "//:own", "//:own_archive", "//:own_db", "//:own_zstd")
    for name in ("own", "own_db"):
        pack(root / "dist" / name, root / f"{name}.tar")
    (root / "own_archive.tar").write_bytes((root / "dist/own_archive.tar").read_bytes())
    for name in ARCHIVES:
        made.write(f"{name}.tar.gz", gzip.compress((root / f"{name}.tar").read_bytes(), 1))
    made.write(
        "BUILD",
        'file(name="oci", source="oci.tar")\nfiles(name="own-data", sources=["own/**"])\n'
        + BUILD.format(archives=ARCHIVES),
    )
    made.pants("package", "//:")


def info(repo: Repo, name: str) -> Dict[str, Any]:
    report: Dict[str, Any] = repo.info(name)["docker_nix"]
    return report


def layer_ids(repo: Repo, name: str) -> List[str]:
    return [one["diff_id"] for one in info(repo, name)["layers"]]


def store_paths(repo: Repo, name: str) -> List[str]:
    return [path["path"] for one in info(repo, name)["layers"] for path in one["store_paths"]]


def manifest(layout: Path) -> Dict[str, Any]:
    index = json.loads((layout / "index.json").read_text())
    blob = layout / "blobs/sha256" / index["manifests"][0]["digest"][7:]
    parsed: Dict[str, Any] = json.loads(blob.read_text())
    return parsed


def config(layout: Path) -> Dict[str, Any]:
    blob = layout / "blobs/sha256" / manifest(layout)["config"]["digest"][7:]
    parsed: Dict[str, Any] = json.loads(blob.read_text())
    return parsed


def top_members(layout: Path) -> Dict[str, tarfile.TarInfo]:
    """What is in the last layer of an image."""
    digest = manifest(layout)["layers"][-1]["digest"]
    with tarfile.open(layout / "blobs/sha256" / digest[7:]) as archive:
        return {member.name: member for member in archive}


def umoci_rootfs(layout: Path, into: Path) -> Path:
    index = json.loads((layout / "index.json").read_text())
    tag = index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"]
    check_output("umoci", "unpack", "--image", f"{layout}:{tag}", into)
    return into / "rootfs"


def tree(root: Path) -> Dict[str, Tuple[Any, ...]]:
    """All paths below `root`: mode, owner, content, device, and the first path of the same file."""
    found: Dict[str, Tuple[Any, ...]] = {}
    first: Dict[int, str] = {}
    paths = sorted(
        os.path.join(folder, name)
        for folder, folders, files in os.walk(os.fsencode(root))
        for name in folders + files
    )
    for path in map(os.fsdecode, paths):
        status, name = os.lstat(path), os.path.relpath(path, root)
        content: Any = None
        if stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            content = Path(path).read_bytes()
        same = name
        if not stat.S_ISDIR(status.st_mode):
            same = first.setdefault(status.st_ino, name)
        owner = (status.st_uid, status.st_gid)
        found[name] = (oct(status.st_mode), owner, status.st_rdev, content, same)
    return found


def inspect(docker: DockerEngine, image: str) -> Dict[str, Any]:
    inspected: Dict[str, Any] = json.loads(docker.run_client("inspect", image))[0]
    return inspected


def shell(docker: DockerEngine, image: str, command: str) -> str:
    argv = ("run", "--rm", "--network=none", "--user=0", "--entrypoint=/bin/sh")
    return docker.run_client(*argv, image, "-c", command).decode()


def test_archives_of_every_kind_are_bases(repo: Repo, docker: DockerEngine) -> None:
    base = diff_ids(base_layers())
    names = [f"on_{archive}{suffix}" for archive in ARCHIVES for suffix in ("", "_gz")]
    for name in (*names, "on_made", "on_files"):
        own = 2 if name.startswith("on_own") else 0
        ids = layer_ids(repo, name)
        assert ids[:2] == base, name
        assert len(ids) == 2 + own + (1 if name in ("on_made", "on_files") else 2), name
        kinds = [one["kind"] for one in info(repo, name)["layers"]]
        assert kinds[: 2 + own] == ["base"] * (2 + own)
        if name.endswith("_gz"):
            assert repo.info(name)["image_id"] == repo.info(name[:-3])["image_id"]
    assert layer_ids(repo, "on_own")[:4] == layer_ids(repo, "own")
    assert layer_ids(repo, "on_own_archive") == layer_ids(repo, "on_own")
    assert repo.info("on_files")["image_id"] == repo.info("on_made")["image_id"]
    assert config(repo.root / "dist/on_bare")["architecture"] == "arm64"
    with tarfile.open(repo.root / "own_archive.tar") as archive:
        assert any(name.endswith("/layer.tar") for name in archive.getnames())

    for name in ("on_saved", "on_skopeo_gz", "on_oci", "on_own_gz", "on_own_archive", "on_made"):
        image = docker.load(repo.root / "dist" / name)
        assert docker.run(image) == "from the base\n", name
        assert inspect(docker, image)["RootFS"]["Layers"] == layer_ids(repo, name)
        assert inspect(docker, image)["Config"]["Labels"] == BASE_CONFIG["Labels"]
        assert shell(docker, image, "/bin/app") == "x in tmp\na mail\n"


def test_one_of_several_images_in_an_archive(repo: Repo, docker: DockerEngine) -> None:
    one, two = diff_ids(base_layers()), diff_ids(base_layers("from another\n"))
    with tarfile.open(repo.root / "two.tar") as archive:
        manifest = archive.extractfile("manifest.json")
        assert manifest
        # `docker save` writes several images in an order of its own.
        first = one if "base/one:v1" in json.load(manifest)[0]["RepoTags"] else two
    for name, base in (("second", two), ("first", first), ("ref", two)):
        assert layer_ids(repo, name)[:2] == base, name
    for name in ("second", "ref"):
        assert docker.run(docker.load(repo.root / "dist" / name)) == "from another\n"
    with tarfile.open(repo.root / "dist/of_two.tar") as archive:
        motd = archive.extractfile("etc/motd")
        assert motd and motd.read() == b"from another\n"


def test_layers_of_mixed_media_types(repo: Repo, docker: DockerEngine, tmp_path: Path) -> None:
    dist = repo.root / "dist"
    layout = dist / "on_mixed"
    media_types = [one["mediaType"] for one in manifest(layout)["layers"]]
    suffixes = ["+gzip", "+gzip", "+zstd", "", "+gzip", "+gzip"]
    assert media_types == [f"{OCI}.layer.v1.tar{suffix}" for suffix in suffixes]
    assert media_types == [one["media_type"] for one in info(repo, "on_mixed")["layers"]]
    inspected = json.loads(check_output("skopeo", "inspect", f"oci:{layout}"))
    digests = [one["digest"] for one in info(repo, "on_mixed")["layers"]]
    assert inspected["Layers"] == digests
    assert inspected["Digest"] == info(repo, "on_mixed")["digest"]
    # Each blob is the tar that the configuration says, to another's decompressor.
    check_output("skopeo", "copy", "--dest-decompress", f"oci:{layout}", f"dir:{tmp_path}/d")
    for diff_id in layer_ids(repo, "on_mixed"):
        tar = (tmp_path / "d" / diff_id[7:]).read_bytes()
        assert f"sha256:{hashlib.sha256(tar).hexdigest()}" == diff_id

    rootfs = umoci_rootfs(dist / "on_plain_mixed", tmp_path / "plain")
    assert sorted(os.listdir(rootfs / "etc")) == [
        "first",
        "fourth",
        "hard",
        "motd",
        "same",
        "second",
    ]
    back = tmp_path / "back"
    check_output("skopeo", "copy", f"docker-archive:{dist}/mixed_archive.tar", f"oci:{back}:x")
    assert tree(umoci_rootfs(back, tmp_path / "archive")) == tree(rootfs)
    for output in ("on_plain_mixed", "mixed_archive.tar"):
        image = docker.load(dist / output)
        assert shell(docker, image, "cd /etc; echo *; cat second") == (
            "first fourth hard hostname hosts motd mtab resolv.conf same second\nsecond"
        )
    with tarfile.open(dist / "mixed_rootfs.tar") as archive:
        assert {"etc/fourth", "etc/second"} < set(archive.getnames())
        assert not {"etc/third", "etc/gone"} & set(archive.getnames())


@pytest.mark.parametrize("kind", ["layered", "single"])
def test_what_the_base_says_of_its_directories_stays(
    repo: Repo, docker: DockerEngine, kind: str
) -> None:
    for name in (f"fitted_{kind}", f"script_{kind}"):
        files = docker.files(docker.load(repo.root / "dist" / name))
        assert files["bin"][0].linkname == "usr/bin"
        found = {
            path: (stat.S_IMODE(files[path][0].mode), files[path][0].uid, files[path][0].gid)
            for path in ("tmp", "var/mail", "home/u", "usr/bin", "opq")
        }
        assert found == {
            "tmp": (0o1777, 0, 0),
            "var/mail": (0o2775, 0, 8),
            "home/u": (0o700, 1000, 1000),
            "usr/bin": (0o755, 0, 0),
            "opq": (0o755, 0, 0),
        }
        for path, content in DATA.items():
            link = files[path.replace("bin/", "usr/bin/")][0]
            assert link.issym() and (link.uid, link.gid) == ((7, 8) if "fitted" in name else (0, 0))
            assert files[link.linkname.lstrip("/")][1] == content.encode()
        assert "etc/gone" not in files and "opq/deep" not in files
        assert files["opq/new"][1] == b"new"
        assert files["etc/hard"][0].islnk() or files["etc/first"][0].islnk()
    assert files["usr/bin/copy"][1] == DATA["bin/app"].encode()
    assert files["tmp/made"][1] == b"made\n" and files["bin/made".replace("bin", "usr/bin")]
    assert stat.S_IMODE(files["home/u/new"][0].mode) == 0o750
    assert files["etc/motd"][1] == b"other\n"

    top = top_members(repo.root / "dist" / f"script_{kind}")
    own = {name for name in top if not name.startswith("nix")}
    assert own == {
        *("etc", "etc/motd", "home", "home/u", "home/u/f", "home/u/new", "opt"),
        *("tmp", "tmp/made", "tmp/x", "usr", "usr/bin", "usr/bin/app", "usr/bin/copy"),
        *("usr/bin/made", "var", "var/mail", "var/mail/m"),
    }, "not etc/same, which the base has"
    assert top_members(repo.root / "dist" / f"nothing_{kind}") == {}


@pytest.mark.parametrize("kind", ["layered", "single"])
def test_configuration_is_inherited(repo: Repo, docker: DockerEngine, kind: str) -> None:
    image = docker.load(repo.root / "dist" / f"fitted_{kind}")
    found = inspect(docker, image)["Config"]
    assert found["Env"] == ["PATH=/bin", "A=base", "B=own", "C=own"]
    assert (found["Entrypoint"], found["Cmd"]) == (["/bin/app"], None)
    assert found["Labels"] == {"base": "yes", "both": "own", "own": "yes"}
    assert found["ExposedPorts"] == {"80/tcp": {}, "81/tcp": {}}
    assert found["Volumes"] == {"/data": {}, "/more": {}}
    assert found["Healthcheck"] == BASE_CONFIG["Healthcheck"]
    for key in ("StopSignal", "User", "WorkingDir"):
        assert found[key] == BASE_CONFIG[key]
    plain = inspect(docker, docker.load(repo.root / "dist" / f"script_{kind}"))["Config"]
    assert plain["Cmd"] == BASE_CONFIG["Cmd"] and not plain["Entrypoint"]
    history = docker.run_client("history", "--no-trunc", "--format={{.CreatedBy}}", image)
    shown = history.decode().splitlines()
    assert shown[-3:] == ["CMD", "layer 1 of the base", "layer 0 of the base"]
    assert len(shown) == 3 + (2 if kind == "layered" else 1)
    assert docker.run(image) == "x in tmp\na mail\n"


def test_layers_and_store_paths_of_the_base_count(repo: Repo) -> None:
    assert len(layer_ids(repo, "exact")) == 5
    assert [len(layer_ids(repo, name)) for name in ("tight", "full")] == [4, 3]
    for name in ("exact", "tight", "full"):
        assert len(store_paths(repo, name)) == len(set(store_paths(repo, name))) == 2
    assert sorted(store_paths(repo, "exact")) == sorted(store_paths(repo, "full"))

    for name, base, new in (
        ("again_on_oci", "on_oci", "own-data"),
        ("again_own", "own", "data"),
        ("again_own_archive", "own", "data"),
    ):
        ids, below = layer_ids(repo, name), layer_ids(repo, base)
        assert ids[: len(below)] == below and len(ids) == len(below) + 2
        (added,) = [one["store_paths"] for one in info(repo, name)["layers"]][len(below) : -1]
        assert [path["path"].partition("-")[2] for path in added] == [new]
    # In the order of popularity, whatever the base has: as without a base.
    layers = info(repo, "exact")["layers"][2:-1]
    assert [one["store_paths"][0]["path"].partition("-")[2] for one in layers] == [
        "data",
        "own-data",
    ]


def test_symlinks_to_directories_among_the_contents(repo: Repo, docker: DockerEngine) -> None:
    kept, expanded = (
        docker.files(docker.load(repo.root / "dist" / f"dirlinks_{keep}")) for keep in (True, False)
    )
    for files in (kept, expanded):
        assert files["lib/so"][0].linkname == "so.1"
        assert files["loop"][0].linkname == "loop"
        assert files["absolute"][0].linkname == "/etc"
        assert files["usr"][0].linkname == ".", "a directory that would hold itself"
        (tree_root,) = [name for name in files if name.count("/") == 2 and name.startswith("nix/s")]
        assert files["out"][0].linkname == f"/{tree_root}/out"
        assert files[f"{tree_root}/lib64"][0].linkname == "lib"
        assert files["lib/so.1"][0].linkname == f"/{tree_root}/lib/so.1"
    assert kept["lib64"][0].linkname == "lib"
    assert expanded["lib64"][0].isdir()
    assert expanded["lib64/so.1"][0].linkname == f"/{tree_root}/lib64/so.1"
    assert expanded["lib64/so"][0].linkname == f"/{tree_root}/lib/so"


@pytest.mark.parametrize("name", ["db_on_db", "db_on_none"])
def test_nix_database_on_a_base_from_a_file(repo: Repo, tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    check_output("tar", "-xf", repo.root / "dist" / f"{name}_rootfs.tar", "-C", root)

    def nix_store(*args: str) -> str:
        done = subprocess.run(
            ["nix-store", "--store", str(root), *args],
            env={**os.environ, "NIX_CONFIG": NIX_CONFIG, "HOME": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    nix_store("--verify", "--check-contents")
    there = sorted(
        f"/nix/store/{path}" for path in os.listdir(root / "nix/store") if path[0] != "."
    )
    assert len(there) == 2
    assert sorted(nix_store("-qR", *there).split()) == there
    # The roots are the contents of the image and, if it has a database, of its base.
    roots = os.listdir(root / "nix/var/nix/gcroots/docker")
    assert sorted(path.partition("-")[2] for path in roots) == ["data", "own-data"]


def test_an_export_is_what_other_tools_unpack(
    repo: Repo, docker: DockerEngine, tmp_path: Path
) -> None:
    for name in ("special", "plain"):
        (tmp_path / name).mkdir()
        tar = repo.root / "dist" / f"{name}_rootfs.tar"
        check_output("tar", "--numeric-owner", "-xpf", tar, "-C", tmp_path / name)
    layout = repo.root / "dist/on_special"
    unpacked = tree(umoci_rootfs(layout, tmp_path / "umoci"))
    assert tree(tmp_path / "special") == unpacked
    assert unpacked["a/link"][4] == "a/again" and "a/dangling" not in unpacked
    write_layout(tmp_path / "base", base_layers(), {})
    assert tree(tmp_path / "plain") == tree(umoci_rootfs(tmp_path / "base", tmp_path / "b"))

    image = docker.load(repo.root / "dist/of_export")
    assert docker.run(image) == "from the base\n"
    assert "etc/gone" not in docker.files(image)


BAD_BUILD = """\
file(name="rootfs", source="rootfs.tar")
file(name="text", source="text.tar")
file(name="cut", source="cut.tar")
file(name="cut_gz", source="cut.tar.gz")
file(name="damaged", source="damaged.tar")
files(name="pair", sources=["rootfs.tar", "text.tar"])
target(name="nothing")
file(name="many", source="many.tar")
file(name="two", source="two.tar")
file(name="deep", source="deep.tar")
relocated_files(name="as-etc", files_targets=[":file"], src="bad/over", dest="")
relocated_files(name="below-file", files_targets=[":file"], src="bad/over", dest="etc/motd")
file(name="file", source="over/etc")

docker_nix_image(name="no_tag", from_image=":two", from_image_tag="v3")
docker_nix_image(name="no_name", from_image=":two", from_image_name="base/x", from_image_tag="v1")
for name in ("rootfs", "text", "cut", "cut_gz", "damaged", "pair", "nothing", "deep"):
    docker_nix_image(name="on_" + name, from_image=":" + name)
docker_nix_layered(name="unknown", from_image=":not-there")
docker_nix_image(name="itself", from_image=":itself")
docker_nix_image(name="ring_a", from_image=":ring_b")
docker_nix_layered(name="ring_b", from_image=":ring_a")
docker_nix_image(name="named_image", from_image=":fine", from_image_name="x")
docker_nix_image(name="named_nothing", from_image_tag="x")
docker_nix_layered(name="fine")
docker_nix_layered(name="arm", from_image="//:oci", architecture="arm64")
docker_nix_layered(name="windows", from_image="//:oci", os="windows")
docker_nix_export(name="export", from_image=":export")
docker_nix_layered(name="no_room", from_image="//:oci", contents=["//:data"], max_layers=2)
docker_nix_image(name="too_many", from_image=":many", contents=["//:data"])
docker_nix_image(name="on_export", from_image="//:plain_rootfs")
docker_nix_layered(name="ring_c", from_image=":ring_a")
for kind, target in (("layered", docker_nix_layered), ("single", docker_nix_image)):
    target(name=f"hides_{kind}", from_image="//:oci", contents=[":as-etc"])
    target(name=f"below_{kind}", from_image="//:oci", contents=[":below-file"])
    target(name=f"script_hides_{kind}", from_image="//:oci", extra_commands="echo > etc")
    target(name=f"script_below_{kind}", from_image="//:oci", extra_commands="mkdir -p etc/motd")
"""


@pytest.fixture(scope="module")
def bad(repo: Repo, tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Targets that cannot be built, in `bad/`."""
    folder = tmp_path_factory.mktemp("bad")
    good = (repo.root / "oci.tar").read_bytes()
    damaged = bytearray(good)
    damaged[damaged.index(b"\x1f\x8b") + 1000] ^= 1
    files = {
        "rootfs.tar": base_layers()[0],
        "text.tar": b"no tar\n" * 1000,
        "cut.tar": good[: len(good) // 2],
        "cut.tar.gz": gzip.compress(good, 1)[:-1000],
        "damaged.tar": bytes(damaged),
        "two.tar": (repo.root / "two.tar").read_bytes(),
        "over/etc": b"",
    }
    for name, content in files.items():
        repo.write(f"bad/{name}", content)
    write_layout(folder / "many", [layer(file("same"))] * 125, {})
    pack(folder / "many", repo.root / "bad/many.tar")
    write_layout(folder / "deep", base_layers(), {})
    check_output("tar", "-cf", repo.root / "bad/deep.tar", "-C", folder, "deep")
    repo.write("bad/BUILD", BAD_BUILD)
    return repo


ARCHIVE_ERROR = (
    "DockerNixError: The 'from_image' field in target bad:{name} is ':{archive}', whose archive "
    "cannot be used.\n\nerror: the archive"
)
NO_IMAGE = (
    "Name an image target, a `docker_nix_pull`, or a `file` with a docker-archive or an OCI layout "
    "archive."
)
EXPECTED = (
    "; expected is an image as `docker save` or `skopeo copy … oci-archive:` writes it; a root "
    "file system goes into `contents`"
)
DOES_NOT_FIT = "does not fit the base image: "
# Name of a target in `bad/`, and texts of the error.
ERRORS = {
    "no_tag": ["has no image any name:v3; it has: base/", "base/one:v1"],
    "no_name": ["has no image base/x:v1; it has: base/", "base/two:v2"],
    "on_rootfs": [f"looks like a root file system, not like an image{EXPECTED}"],
    "on_text": [f"is no complete tar (invalid header){EXPECTED}"],
    "on_cut": [f"is no complete tar (unexpected end of data){EXPECTED}"],
    "on_cut_gz": ["is damaged: as gzip, the compressed data is truncated"],
    "on_damaged": [": layer 1 (sha256:", ") is damaged: its digest is sha256:"],
    "on_deep": ["in a directory of its own; make the archive inside of that"],
    "on_pair": [
        "is ':pair', but bad:pair, a `files` target, is no image and has 2 files.",
        NO_IMAGE,
    ],
    "on_nothing": [
        "is ':nothing', but bad:nothing, a `target` target, ",
        "has no files.",
        NO_IMAGE,
    ],
    "on_export": ["but //:plain_rootfs, a `docker_nix_export` target, is no image", NO_IMAGE],
    "unknown": [
        "The address bad:not-there from the 'from_image' field in target bad:unknown does not exist"
    ],
    "itself": ["'from_image' field in target bad:itself names the target itself", "Name another"],
    "export": ["'from_image' field in target bad:export names the target itself", "Name another"],
    "ring_a": ["is ':ring_b', an image", "bad:ring_a -> bad:ring_b -> bad:ring_a.", "Base one"],
    "ring_c": [
        "'from_image' field in target bad:ring_",
        "on this one: bad:ring_",
        "Base one of them",
    ],
    "named_image": [
        "The 'from_image_name' field in target bad:named_image is 'x', but bad:fine is one image, "
        "not an archive of several.\n\nRemove the field."
    ],
    "named_nothing": [
        "The 'from_image_tag' field in target bad:named_nothing is 'x', but there is no "
        "'from_image'.\n\nRemove it, or name the archive that holds the image in 'from_image'."
    ],
    "arm": [
        "The 'architecture' field in target bad:arm is 'arm64', but the base image //:oci is for "
        "'amd64'.\n\nRemove the field, or use a base image for that platform."
    ],
    "windows": ["The 'os' field in target bad:windows is 'windows', but ", " is for 'linux'."],
    "no_room": [
        "The 'max_layers' field in target bad:no_room is 2, which is too few.\n\nThe image may "
        "have 2 layers, but the base image has 2 and at least 1 must be added. Raise max_layers to "
    ],
    "too_many": [
        "is ':many', an image of 125 layers, and engines can mount 125.",
        "Use a base image",
    ],
    "hides_layered": [
        DOES_NOT_FIT + "/etc is a directory in the base image and a file in bad:as-etc."
    ],
    "below_single": [
        DOES_NOT_FIT + "/etc/motd is a file in the base image and a directory in bad:below-file."
    ],
    "script_hides_single": [
        "/etc is a directory in the base image; a file in its place would hide"
    ],
    "script_below_layered": ["/etc/motd is a file in the base image, and a directory here; use"],
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_cannot_be_a_base(bad: Repo, name: str) -> None:
    run = bad.pants("package", f"bad:{name}", check=False)
    assert run.exit_code == 1, run.output
    error = run.output.partition("in `package` goal")[2]
    for text in ERRORS[name]:
        assert text in error
    assert f"target bad:{name}" in error or name == "ring_c"
    if "whose archive" in error:
        start = ARCHIVE_ERROR.format(name=name, archive=name[3:] if name[:3] == "on_" else "two")
        assert error.strip().startswith(start)
    assert not list((bad.root / "dist").glob(f"bad/{name}*"))


MACHINE_BUILD = """\
file(name="base", source="base.tar.gz")
files(name="data", sources=["data/**"])
docker_nix_layered(
    name="layered",
    from_image=":base",
    contents=[":data"],
    include_nix_db=True,
    extra_commands="mkdir -p bin tmp; echo x > tmp/x; ln tmp/x bin/x",
)
docker_nix_image(name="single", from_image=":base", contents=[":data"], include_nix_db=True)
docker_nix_image(
    name="as_root",
    from_image=":layered",
    run_as_root="mkdir -p /made; echo x > /made/a; rm /etc/same; chmod 4750 /made/a",
    compression="zstd",
)
docker_nix_export(name="rootfs", from_image=":as_root")
"""


def test_two_machines_make_the_same(tmp_path: Path) -> None:
    """Another path, umask, locale, time zone, number of cores and Python; no shared cache."""
    write_layout(tmp_path / "base", base_layers(), BASE_CONFIG)
    pack(tmp_path / "base", tmp_path / "base.tar")
    archive = gzip.compress((tmp_path / "base.tar").read_bytes(), 1)
    pythons = ("/usr/bin/python3", os.path.realpath(sys.executable))
    plugins = tmp_path / "another place" / "ü" / "plugins"
    shutil.copytree(
        PROJECT / "pants-plugins", plugins, ignore=shutil.ignore_patterns("__pycache__")
    )
    first = Repo(
        tmp_path / "a", store=tmp_path / "store-a", options=[f"--docker-nix-python={pythons[0]}"]
    )
    second = Repo(
        plugins.parent / "b",
        store=plugins.parent / "store",
        plugins=plugins,
        options=(f"--docker-nix-python={pythons[1]}", "--process-execution-local-parallelism=1"),
    )
    for machine in (first, second):
        machine.write("BUILD", MACHINE_BUILD)
        machine.write("base.tar.gz", archive)
        machine.write("data/file", "file")
    first.pants("package", "//:", env={"LC_ALL": "C", "TZ": "UTC"})
    second.pants(
        "package",
        "//:",
        env={"LC_ALL": "tr_TR.UTF-8", "TZ": "Asia/Kolkata"},
        prefix=["taskset", "-c", "0", "sh", "-c", 'umask 077; exec "$@"', "sh"],
    )
    for name in ("layered", "single", "as_root"):
        assert first.info(name) == second.info(name)
    check_output("diff", "-r", first.root / "dist", second.root / "dist")
    with tarfile.open(first.root / "dist/rootfs.tar") as rootfs:
        names = rootfs.getnames()
        assert "etc/same" not in names and "nix/var/nix/db/db.sqlite" in names
        assert stat.S_IMODE(rootfs.getmember("made/a").mode) == 0o4750
