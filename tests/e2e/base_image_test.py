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
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

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
    programs = ("cat", "echo", "env", "false", "id", "ls", "mkdir", "sh", "stat", "true")
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

for name in ("two", "refs", "mixed", "plain_mixed", "special"):
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
            cp "$STORE_ROOT{{store_path[:data]}}/bin/app" bin/copy
            echo made > tmp/made
            mkdir -p etc home/u/new opt
            chmod 0750 home/u/new
            echo same > etc/same
            echo other > etc/motd
            ln tmp/made bin/made
        \"\"\",
    )
    target(name=f"nothing_{{kind}}", from_image=":oci", extra_commands="echo same > /dev/null; mkdir -p etc tmp; echo same > etc/same")

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
    folder = tmp_path_factory.mktemp("archives")
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
    yield made
    made.close()
