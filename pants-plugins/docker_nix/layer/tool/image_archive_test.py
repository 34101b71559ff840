from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any, Callable

import pytest

from docker_nix.layer.tool import docker_archive, image_archive, tar_format
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.image_archive import Wanted
from docker_nix.layer.tool.testing import library_dir

OCI = "application/vnd.oci.image."
Members = dict[str, Any]


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def blob_name(data: bytes) -> str:
    return f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"


def layer_tar(name: str, data: bytes) -> bytes:
    header = tar_format.header(name.encode(), tar_format.FILE, 0o555, len(data))
    return header + data + tar_format.PADDING[len(data) % 512] + tar_format.END


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout


LOW = layer_tar("low", b"low")
HIGH = layer_tar("high", bytes(range(256)) * 20_000)


def config(*tars: bytes, **more: Any) -> bytes:
    diff_ids = [sha256(data) for data in tars]
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    return json.dumps({"os": "linux", "architecture": "amd64", "rootfs": rootfs, **more}).encode()


def write_tar(path: str, members: Members) -> None:
    """Write a tar: bytes are files, strings targets of symlinks, tuples of hard links."""
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            elif isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            else:
                member.type, (member.linkname,) = tarfile.LNKTYPE, content
                archive.addfile(member)


def descriptor(media_type: str, data: bytes, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha256(data), "size": len(data), **more}


def oci_image(*blobs: bytes, tars: tuple[bytes, ...], **more: Any) -> tuple[bytes, Members]:
    """The manifest of an image, and the blobs with it."""
    image_config = config(*tars, **more)
    suffixes = {b"\x1f\x8b": "+gzip", b"\x28\xb5": "+zstd"}
    layers = [descriptor(f"{OCI}layer.v1.tar{suffixes.get(blob[:2], '')}", blob) for blob in blobs]
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{OCI}manifest.v1+json",
            "config": descriptor(f"{OCI}config.v1+json", image_config),
            "layers": layers,
        }
    ).encode()
    return manifest, {blob_name(data): data for data in (*blobs, image_config, manifest)}


def index(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"schemaVersion": 2, "manifests": entries}).encode()


def manifest_entry(data: bytes, **more: Any) -> dict[str, Any]:
    return descriptor(f"{OCI}manifest.v1+json", data, **more)


def oci_layout(blobs: Members, *entries: dict[str, Any]) -> Members:
    return {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index(*entries), **blobs}


GZIPPED = (gzip.compress(LOW), gzip.compress(HIGH))
MANIFEST, BLOBS = oci_image(*GZIPPED, tars=(LOW, HIGH))


def docker_image(
    layers: dict[str, Any], *tars: bytes, tags: list[str] | None = None, **more: Any
) -> Members:
    """The members of an archive as `docker save` wrote it, with layers at the given paths."""
    image_config = config(*tars, **more)
    name = f"{sha256(image_config)[7:]}.json"
    entry = {"Config": name, "RepoTags": tags, "Layers": list(layers)}
    return {name: image_config, **layers, "manifest.json": json.dumps([entry]).encode()}


@pytest.fixture(autouse=True)
def in_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = tmp_path / "sandbox"
    sandbox.mkdir()
    monkeypatch.chdir(sandbox)


class Split:
    """What the command makes of the file `archive`."""

    def __init__(self, archive: str = "archive", threads: int = 0, **spec: Any) -> None:
        defaults = {"file": archive, "name": None, "tag": None, "platform": None}
        Path("spec.json").write_text(json.dumps({**defaults, "compression": "gzip", **spec}))
        arguments = ["--threads", str(threads)] if threads else []
        before = set(os.listdir())
        try:
            image_archive.main([*arguments, "spec.json"], str(library_dir()))
        except ToolError:
            assert set(os.listdir()) == before
            raise
        assert set(os.listdir()) == before | {"image"}
        self.files = {
            str(path.relative_to("image")): path.read_bytes()
            for path in Path("image").rglob("*")
            if path.is_file()
        }
        os.rename("image", f"image-{len(before)}")
        self.config = self.files["config.json"]
        self.layers = json.loads(self.files["layers.json"])
        self.blobs = [self.files["layers/" + layer["digest"][7:]] for layer in self.layers]
        for layer, blob in zip(self.layers, self.blobs):
            assert (sha256(blob), len(blob)) == (layer["digest"], layer["size"])
            found = json.loads(self.files[f"layers/{layer['digest'][7:]}.json"])
            assert {key: found[key] for key in layer} == layer
        digests = {layer["digest"] for layer in self.layers}
        assert len(self.files) == 2 + 2 * len(digests)

    def check(self, image_config: bytes, *tars: bytes) -> None:
        assert self.config == image_config
        assert [layer["diff_id"] for layer in self.layers] == [sha256(data) for data in tars]
        opened = {"gzip": gzip.decompress, "zstd": unzstd, "none": lambda data: data}
        for layer, blob, data in zip(self.layers, self.blobs, tars):
            assert opened[layer["compression"]](blob) == data


def unzstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-dc"], input=data, stdout=subprocess.PIPE, check=True).stdout


def error(archive: str = "archive", **spec: Any) -> str:
    with pytest.raises(ToolError) as raised:
        Split(archive, **spec)
    message = str(raised.value)
    assert message.startswith("the image archive ") and "\n" not in message
    return message


def test_old_docker_save_with_a_layer_that_is_a_link() -> None:
    first, second, third = ("1" * 64, "2" * 64, "3" * 64)
    layers = {
        f"{first}/layer.tar": LOW,
        f"{second}/layer.tar": HIGH,
        f"{third}/layer.tar": f"../{first}/layer.tar",
    }
    members = docker_image(layers, LOW, HIGH, LOW, tags=["app:1"])
    members[f"{first}/VERSION"] = b"1.0"
    write_tar("archive", members)
    image = Split()
    image.check(config(LOW, HIGH, LOW), LOW, HIGH, LOW)
    assert image.layers[0] == image.layers[2]
    layers[f"{third}/layer.tar"] = (f"{first}/layer.tar",)
    write_tar("archive", docker_image(layers, LOW, HIGH, LOW))
    assert Split().files == image.files


def test_docker_save_of_today() -> None:
    """Blobs of an OCI layout, but not compressed, and a manifest.json that names them."""
    gzipped = gzip.compress(HIGH)
    manifest, blobs = oci_image(LOW, gzipped, tars=(LOW, HIGH))
    image_config = config(LOW, HIGH)
    entry = {
        "Config": blob_name(image_config),
        "RepoTags": ["app:1"],
        "Layers": [blob_name(LOW), blob_name(gzipped)],
    }
    members = oci_layout(blobs, manifest_entry(manifest))
    members["manifest.json"] = json.dumps([entry]).encode()
    write_tar("archive", members)
    image = Split()
    image.check(image_config, LOW, HIGH)
    assert [layer["compression"] for layer in image.layers] == ["gzip", "gzip"]
    assert image.blobs[1] == gzipped


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_compression_of_plain_layers_is_reproducible(compression: str) -> None:
    write_tar("archive", docker_image({"a.tar": LOW, "b.tar": HIGH}, LOW, HIGH))
    image = Split(compression=compression)
    image.check(config(LOW, HIGH), LOW, HIGH)
    assert [layer["compression"] for layer in image.layers] == [compression] * 2
    assert Split(compression=compression, threads=1).files == image.files
    assert Split(compression=compression, threads=4).files == image.files


def test_layers_that_are_compressed_stay_as_they_are() -> None:
    layers = {"a.tar": gzip.compress(LOW), "b.tar": zstd(HIGH)}
    write_tar("archive", docker_image(layers, LOW, HIGH))
    image = Split(compression="none")
    image.check(config(LOW, HIGH), LOW, HIGH)
    assert image.blobs == list(layers.values())
    blobs = (LOW, zstd(HIGH))
    manifest, members = oci_image(*blobs, tars=(LOW, HIGH))
    write_tar("archive", oci_layout(members, manifest_entry(manifest)))
    image = Split()
    image.check(config(LOW, HIGH), LOW, HIGH)
    assert image.blobs == list(blobs)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, zstd])
def test_compressed_archives(compress: Callable[[bytes], bytes]) -> None:
    write_tar("plain", oci_layout(BLOBS, manifest_entry(MANIFEST)))
    plain = Path("plain").read_bytes()
    Path("archive").write_bytes(compress(plain))
    assert Split().files == Split("plain").files
    Path("archive").write_bytes(compress(plain)[:-9])
    assert "the image archive archive is damaged: as " in error()


def test_names_with_a_dot_and_no_end_mark() -> None:
    members = oci_layout(BLOBS, manifest_entry(MANIFEST))
    write_tar("archive", {f"./{name}": content for name, content in members.items()})
    with open("archive", "r+b") as file, tarfile.open("archive") as archive:
        last = archive.getmembers()[-1]
        file.truncate(last.offset_data + (last.size + 511) // 512 * 512)
    Split().check(config(LOW, HIGH), LOW, HIGH)


def test_image_without_layers() -> None:
    empty: list[str] = []
    for layers in (empty, None):
        members = docker_image({})
        (entry,) = json.loads(members["manifest.json"])
        members["manifest.json"] = json.dumps([{**entry, "Layers": layers}]).encode()
        write_tar("archive", members)
        image = Split()
        assert (image.config, image.layers) == (config(), [])


def run_skopeo(*args: str) -> None:
    subprocess.run(["skopeo", "copy", "--quiet", *args], check=True)


def unpacked_layout(members: Members) -> str:
    for name, content in members.items():
        path = Path("layout", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return "oci:layout"


def test_what_skopeo_writes() -> None:
    source = unpacked_layout(oci_layout(BLOBS, manifest_entry(MANIFEST)))
    run_skopeo(source, "docker-archive:docker.tar:app:1")
    run_skopeo(source, "oci-archive:oci.tar:app:1")
    docker, oci = Split("docker.tar", name="app"), Split("oci.tar", name="app", tag="1")
    docker.check(config(LOW, HIGH), LOW, HIGH)
    oci.check(config(LOW, HIGH), LOW, HIGH)
    assert oci.blobs == list(GZIPPED)


def test_what_we_write() -> None:
    Path("config").write_bytes(config(LOW, LOW))
    Path("blob").write_bytes(GZIPPED[0])
    layer = {
        "file": "blob",
        "compression": "gzip",
        "diff_id": sha256(LOW),
        "diff_size": len(LOW),
    }
    spec = {
        "config_file": "config",
        "config_digest_hex": sha256(config(LOW, LOW))[7:],
        "repo_tags": ["app:1"],
        "layers": [layer, layer],
    }
    docker_archive.write(spec, "archive", str(library_dir()))
    image = Split()
    image.check(config(LOW, LOW), LOW, LOW)
    assert image.layers[0] == image.layers[1]


def two_docker_images() -> Members:
    members: Members = {}
    entries = []
    for tars, tags in (
        ((LOW,), ["app:1", "app:latest"]),
        ((HIGH,), ["docker.io/team/other:1", "registry.example.com:5000/app:2"]),
        ((LOW, HIGH), None),
    ):
        layers = {f"{sha256(data)[7:20]}.tar": data for data in tars}
        image = docker_image(layers, *tars, tags=tags)
        entries += json.loads(image.pop("manifest.json"))
        members.update(image)
    return {**members, "manifest.json": json.dumps(entries).encode()}


@pytest.mark.parametrize(
    ("name", "tag", "layer"),
    [
        (None, None, "low"),
        ("app", None, "low"),
        ("docker.io/library/app", "latest", "low"),
        ("docker.io/app", "latest", "low"),
        (None, "2", "high"),
        ("team/other", None, "high"),
        ("index.docker.io/team/other", "1", "high"),
        ("registry.example.com:5000/app", "2", "high"),
    ],
)
def test_choice_by_repo_tag(name: str | None, tag: str | None, layer: str) -> None:
    write_tar("archive", two_docker_images())
    data = {"low": LOW, "high": HIGH}[layer]
    Split(name=name, tag=tag).check(config(data), data)


def test_no_such_repo_tag() -> None:
    write_tar("archive", two_docker_images())
    there = "app:1, app:latest, docker.io/team/other:1, registry.example.com:5000/app:2"
    assert error(name="app", tag="2") == (
        f"the image archive archive has no image app:2; it has: {there}"
    )
    assert "has no image any name:3; it has" in error(tag="3")
    write_tar("archive", docker_image({"a.tar": LOW}, LOW))
    assert "has no image other; it has: none by name" in error(name="other")
    write_tar("archive", {"manifest.json": b"[]"})
    assert error() == "the image archive archive has no images in it"


AMD64 = {"os": "linux", "architecture": "amd64"}
ARM64 = {"os": "linux", "architecture": "arm64"}
NAME, REF = "io.containerd.image.name", "org.opencontainers.image.ref.name"


def test_choice_by_annotation() -> None:
    other, other_blobs = oci_image(GZIPPED[0], tars=(LOW,))
    third, third_blobs = oci_image(GZIPPED[1], tars=(HIGH,))
    members = oci_layout(
        {**BLOBS, **other_blobs, **third_blobs},
        manifest_entry(MANIFEST, annotations={NAME: "docker.io/library/app:1", REF: "1"}),
        manifest_entry(other, annotations={NAME: "docker.io/team/other:1", REF: "1"}),
        manifest_entry(third, annotations={REF: "other.example.com/third:latest"}),
    )
    write_tar("archive", members)
    for name, tag, tars in (
        (None, None, (LOW, HIGH)),
        ("app", None, (LOW, HIGH)),
        (None, "1", (LOW, HIGH)),
        ("team/other", "1", (LOW,)),
        ("other.example.com/third", None, (HIGH,)),
        (None, "latest", (HIGH,)),
    ):
        Split(name=name, tag=tag).check(config(*tars), *tars)
    assert error(name="app", tag="2") == (
        "the image archive archive has no image app:2; it has: docker.io/library/app:1, 1, "
        "docker.io/team/other:1, 1, other.example.com/third:latest"
    )


def test_only_a_tag_is_said() -> None:
    write_tar("archive", oci_layout(BLOBS, manifest_entry(MANIFEST, annotations={REF: "1.0"})))
    Split(tag="1.0").check(config(LOW, HIGH), LOW, HIGH)
    assert "has no image app:1.0; it has: 1.0" in error(name="app", tag="1.0")


@pytest.mark.parametrize("nested", [False, True])
def test_choice_by_platform(nested: bool) -> None:
    arm, arm_blobs = oci_image(GZIPPED[0], tars=(LOW,), architecture="arm64")
    unknown = {"os": "unknown", "architecture": "unknown"}
    entries = [
        manifest_entry(MANIFEST, platform=unknown),
        manifest_entry(MANIFEST, platform=AMD64),
        manifest_entry(arm, platform=ARM64),
    ]
    members = oci_layout({**BLOBS, **arm_blobs}, *entries)
    if nested:
        inner = members["index.json"]
        entry = descriptor(f"{OCI}index.v1+json", inner, annotations={REF: "app:1"})
        members["index.json"] = index(entry)
        members[blob_name(inner)] = inner
    write_tar("archive", members)
    for platform in (None, AMD64, {**AMD64, "variant": None}):
        Split(platform=platform).check(config(LOW, HIGH), LOW, HIGH)
    Split(platform=ARM64).check(config(LOW, architecture="arm64"), LOW)
    assert error(platform={"os": "linux", "architecture": "s390x"}) == (
        "the image archive archive: it has no image for linux/s390x; "
        "it has: linux/amd64, linux/arm64"
    )


def test_damaged_docker_archives() -> None:
    good = docker_image({"a.tar": LOW}, LOW)
    (config_name,) = (name for name in good if name.endswith(".json") and len(name) > 64)
    for changes, expected in (
        ({"a.tar": HIGH}, f"layer 1 (a.tar) is damaged: its digest is {sha256(HIGH)}, not"),
        ({"a.tar": b"no tar"}, "layer 1 (a.tar) is damaged"),
        ({"a.tar": bz2.compress(LOW)}, "layer 1 (a.tar) is compressed with bzip2, as no layer"),
        ({config_name: good[config_name] + b" "}, f"{config_name}: the digest is sha256:"),
        ({"manifest.json": b"{"}, "manifest.json is not JSON"),
        ({"manifest.json": b'[{"Config": 1}]'}, "manifest.json is not a list of images"),
        ({"a.tar": "gone.tar"}, "lacks a.tar, which it says it has; save it again"),
        ({"a.tar": "a.tar"}, "lacks a.tar"),
        (docker_image({"a.tar": LOW}), "it has 1 layers, but its config 0 diff_ids"),
    ):
        write_tar("archive", {**good, **changes})
        assert expected in error()


def test_damaged_oci_archives() -> None:
    good = oci_layout(BLOBS, manifest_entry(MANIFEST))
    low = blob_name(GZIPPED[0])
    image_config = blob_name(config(LOW, HIGH))
    changed = GZIPPED[0][:-1] + b"x"
    for changes, expected in (
        ({low: changed}, f"its digest is {sha256(changed)}, not {sha256(GZIPPED[0])}"),
        ({low: GZIPPED[0] + b"x"}, f"it has {len(GZIPPED[0]) + 1} bytes, not {len(GZIPPED[0])}"),
        ({image_config: config(LOW)}, "the digest is sha256:"),
        ({blob_name(MANIFEST): MANIFEST + b" "}, "the digest is sha256:"),
        ({"index.json": index()}, "has no images in it"),
        ({"index.json": MANIFEST}, "index.json is no index"),
    ):
        write_tar("archive", {**good, **changes})
        assert expected in error()
    del good[low]
    write_tar("archive", good)
    assert f"lacks {low}, which it says it has; save it again" in error()


def test_images_that_cannot_be_a_base() -> None:
    layer = descriptor(f"{OCI}layer.nondistributable.v1.tar+gzip", GZIPPED[0])
    image_config = config(LOW)
    for manifest, expected in (
        (
            {"config": descriptor(f"{OCI}config.v1+json", image_config), "layers": [layer]},
            "may not be distributed",
        ),
        (
            {"config": descriptor(f"{OCI}config.v1+json", image_config), "layers": [
                {**layer, "mediaType": f"{OCI}layer.v1.tar+gzip+encrypted"}
            ]},
            "is encrypted",
        ),
        (
            {"config": descriptor("application/vnd.oci.empty.v1+json", b"{}"), "layers": []},
            "it is not an image, but an artifact of 'application/vnd.oci.empty.v1+json'",
        ),
        ({"schemaVersion": 1, "fsLayers": []}, "it is in the old format `schema 1`"),
    ):  # fmt: skip
        data = json.dumps({"schemaVersion": 2, **manifest}).encode()
        members = {blob_name(data): data, blob_name(image_config): image_config}
        members[blob_name(GZIPPED[0])] = GZIPPED[0]
        write_tar("archive", oci_layout(members, manifest_entry(data)))
        assert expected in error()


def test_indexes_without_end() -> None:
    data = MANIFEST
    members = dict(BLOBS)
    for _ in range(4):
        data = index(descriptor(f"{OCI}index.v1+json", data))
        members[blob_name(data)] = data
    write_tar("archive", {**oci_layout(members), "index.json": data})
    assert "it is an index in an index in an index" in error()


def test_files_that_are_no_image_archive() -> None:
    expected = "; a root file system goes into `contents`"
    for members, looks in (
        ({"bin/sh": b"", "etc/passwd": b""}, "looks like a root file system, not like an image"),
        ({"repositories": b"{}", "x/json": b"{}"}, "was saved by a Docker older than 1.10"),
        ({"oci-layout": b"{}"}, "is an OCI image layout without index.json"),
        ({"x/oci-layout": b"{}", "x/index.json": b"{}"}, "in a directory of its own"),
        ({"readme": b""}, "is a tar without manifest.json and index.json (it has readme)"),
    ):
        write_tar("archive", members)
        assert looks in error() and expected in error()
    write_tar("archive", {})
    assert "is an empty tar" in error()
    with zipfile.ZipFile("archive", "w") as archive:
        archive.writestr("index.json", "{}")
    assert "is a zip, not a tar" in error() and expected in error()
    for data, looks in (
        (b"", "is no complete tar"),
        (b"some text\n" * 100, "is no complete tar"),
        (b"\x7fELF" + bytes(600), "is a program, not a tar"),
        (b'{"schemaVersion": 2}' + bytes(600), "is JSON, not a tar"),
    ):
        Path("archive").write_bytes(data)
        assert looks in error() and expected in error()


def test_truncated_archive() -> None:
    write_tar("archive", docker_image({"a.tar": HIGH}, HIGH))
    size = os.path.getsize("archive")
    os.truncate("archive", size // 2)
    assert "is no complete tar" in error()


def test_it_says_which_library_it_lacks(tmp_path: Path) -> None:
    manifest, blobs = oci_image(zstd(LOW), tars=(LOW,))
    write_tar("archive", oci_layout(blobs, manifest_entry(manifest)))
    spec = {"file": "archive", "name": None, "tag": None, "platform": None, "compression": "gzip"}
    Path("spec.json").write_text(json.dumps(spec))
    image_archive.main(["spec.json"], str(tmp_path))
    assert os.listdir("image") == ["lacks.json"]
    lacks = json.loads(Path("image/lacks.json").read_text())
    assert lacks["library"] == "zstd" and "is not part of the layer tool" in lacks["message"]
    assert not os.path.exists("scratch")


def test_usage() -> None:
    with pytest.raises(ToolError, match=r"usage: split-archive \[--threads N\] SPEC"):
        image_archive.main(["--threads", "1"], "")


@pytest.mark.parametrize(
    ("name", "tag", "reference", "fits"),
    [
        ("app", None, "app", True),
        ("app", "latest", "app", False),
        ("localhost:5000/app", None, "localhost:5000/app", True),
        ("localhost/app", "1", "localhost/app:1", True),
        ("app", "1", "localhost/app:1", False),
        ("example.com/library/app", None, "app:1", False),
        ("library/app", "1", "app:1", True),
        ("app", "1", f"app:1@sha256:{'0' * 64}", True),
    ],
)
def test_names(name: str, tag: str | None, reference: str, fits: bool) -> None:
    assert Wanted(name, tag, None).fits(reference) is fits


RUN = """
import sys
sys.path.insert(0, sys.argv[1])
from docker_nix.layer.tool.image_archive import main
main(["--threads", "2", "spec.json"], sys.argv[2])
"""
# In a process of its own, as a new one counts as as large as the one that it is forked from.
MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def test_memory_does_not_grow_with_layers() -> None:
    data = layer_tar("big", bytes(200 << 20))
    layers = {"plain.tar": data, "gzipped.tar": gzip.compress(data, 1)}
    write_tar("archive", docker_image(layers, data, data))
    spec = {"file": "archive", "name": None, "tag": None, "platform": None}
    Path("spec.json").write_text(json.dumps({**spec, "compression": "gzip"}))
    plugins = str(Path(__file__).parents[3])
    command = [sys.executable, "-I", "-S", "-c", RUN, plugins, str(library_dir())]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *command], stdout=subprocess.PIPE, check=True
    )
    assert int(done.stdout) * (1 if sys.platform == "darwin" else 1024) < 64_000_000
