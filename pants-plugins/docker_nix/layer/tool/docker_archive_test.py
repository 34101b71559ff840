from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from docker_nix.layer.tool import docker_archive, tar_format
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.testing import library_dir

CONFIG = {
    "architecture": "arm64",
    "os": "linux",
    "created": "2020-02-02T00:00:00Z",
    "config": {"Cmd": ["/run"], "Env": ["A=ü"]},
    "rootfs": {"type": "layers", "diff_ids": []},
}


def layer_tar(name: str, data: bytes) -> bytes:
    header = tar_format.header(name.encode(), tar_format.FILE, 0o555, len(data))
    return header + data + tar_format.PADDING[len(data) % 512] + tar_format.END


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(autouse=True)
def in_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.makedirs("in/blobs")


def spec(
    layers: list[tuple[bytes, str]], repo_tags: tuple[str, ...] = ("app:1",), **changes: Any
) -> dict[str, Any]:
    """A spec for layers of the given tars and compressions, and the files it names."""
    config = json.dumps(CONFIG).encode()
    Path("in/config.json").write_bytes(config)
    compressions = {
        "none": lambda data: data,
        # Two members, as layers are compressed in pieces.
        "gzip": lambda data: gzip.compress(data[:700]) + gzip.compress(data[700:]),
        "zstd": lambda data: subprocess.run(
            ["zstd", "-c"], input=data, stdout=subprocess.PIPE, check=True
        ).stdout,
    }
    layer_specs = []
    for number, (data, compression) in enumerate(layers):
        file = f"in/blobs/{number}"
        Path(file).write_bytes(compressions[compression](data))
        layer_specs.append(
            {
                "file": file,
                "compression": compression,
                "diff_id": f"sha256:{sha256(data)}",
                "diff_size": len(data),
            }
        )
    return {
        "config_file": "in/config.json",
        "config_digest_hex": sha256(config),
        "repo_tags": list(repo_tags),
        "layers": layer_specs,
        **changes,
    }


def run(spec: dict[str, Any], lib_dir: str = "") -> dict[str, bytes]:
    """The files of the archive that the command makes of a spec."""
    Path("spec.json").write_text(json.dumps(spec))
    docker_archive.main(["spec.json"], lib_dir)
    with tarfile.open("image.tar", "r:") as archive:
        members = archive.getmembers()
        names = [member.name + "/" * member.isdir() for member in members]
        assert names == sorted(names)
        for member in members:
            assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
            assert member.mtime == 1
            assert member.mode == (0o755 if member.isdir() else 0o644)
            assert not member.pax_headers
            assert member.isfile() or member.isdir()
        return {
            name: archive.extractfile(member).read() if member.isfile() else b""  # type: ignore
            for name, member in zip(names, members)
        }


def tarsum_of_one(name: str, data: bytes) -> str:
    # 0o555 is 365.
    one = sha256(
        f"name{name}mode365uid0gid0size{len(data)}typeflag0linkname".encode()
        + b"unamegnamedevmajor0devminor0"
        + data
    )
    return f"tarsum.v1+sha256:{sha256(one.encode())}"


def test_two_layers() -> None:
    lower, upper = layer_tar("lower", b"1" * 2000), layer_tar("upper", b"2")
    made = spec([(lower, "gzip"), (upper, "none")], ("app:1", "app:2", "host:5000/a/b:latest"))
    files = run(made)
    lower_json = (
        '{"Size":%d,"architecture":"arm64","checksum":"%s","created":"1970-01-01T00:00:01Z",%s'
        '"os":"linux"}'
    )
    lower_checksum = tarsum_of_one("lower", b"1" * 2000)
    lower_id = sha256((lower_json % (len(lower), lower_checksum, "")).encode())
    upper_json = (
        '{"Size":%d,"architecture":"arm64","checksum":"%s","config":{"Cmd":["/run"],'
        '"Env":["A=\\u00fc"]},"created":"1970-01-01T00:00:01Z",%s"os":"linux","parent":"%s"}'
    )
    upper_checksum = tarsum_of_one("upper", b"2")
    upper_id = sha256((upper_json % (len(upper), upper_checksum, "", lower_id)).encode())
    config_name = f"{made['config_digest_hex']}.json"
    manifest = (
        f'[{{"Config":"{config_name}","Layers":["{lower_id}/layer.tar","{upper_id}/layer.tar"],'
        '"RepoTags":["app:1","app:2","host:5000/a/b:latest"]}]'
    )
    repositories = (
        f'{{"app":{{"1":"{upper_id}","2":"{upper_id}"}},'
        f'"host:5000/a/b":{{"latest":"{upper_id}"}}}}'
    )
    assert files == {
        f"{lower_id}/": b"",
        f"{lower_id}/VERSION": b"1.0",
        f"{lower_id}/json": (
            lower_json % (len(lower), lower_checksum, f'"id":"{lower_id}",')
        ).encode(),
        f"{lower_id}/layer.tar": lower,
        f"{upper_id}/": b"",
        f"{upper_id}/VERSION": b"1.0",
        f"{upper_id}/json": (
            upper_json % (len(upper), upper_checksum, f'"id":"{upper_id}",', lower_id)
        ).encode(),
        f"{upper_id}/layer.tar": upper,
        config_name: json.dumps(CONFIG).encode(),
        "manifest.json": manifest.encode(),
        "repositories": repositories.encode(),
    }


def layer_ids(files: dict[str, bytes]) -> list[str]:
    [manifest] = json.loads(files["manifest.json"])
    return [layer.rpartition("/")[0] for layer in manifest["Layers"]]


def test_compression_does_not_show() -> None:
    data = layer_tar("a", b"1" * 5000)
    assert run(spec([(data, "gzip")])) == run(spec([(data, "none")]))


@pytest.mark.skipif(not shutil.which("zstd"), reason="needs the command zstd")
def test_zstd() -> None:
    data = layer_tar("a", b"1" * 5000)
    files = run(spec([(data, "zstd")]), str(library_dir()))
    assert files == run(spec([(data, "none")]))


def test_lower_layers_are_the_same_in_every_image(monkeypatch: pytest.MonkeyPatch) -> None:
    lower = (layer_tar("lower", b"1"), "none")
    first = layer_ids(run(spec([lower, (layer_tar("a", b""), "none")])))
    monkeypatch.setitem(CONFIG, "created", "2021-01-01T00:00:00Z")
    monkeypatch.setitem(CONFIG, "config", {})
    second = layer_ids(run(spec([lower, (layer_tar("b", b""), "none")])))
    assert first[0] == second[0] and first[1] != second[1]


def test_equal_layers_have_ids_of_their_own() -> None:
    layer = (layer_tar("a", b"1"), "none")
    ids = layer_ids(run(spec([layer] * 3)))
    assert len(set(ids)) == 3


def test_no_layers() -> None:
    files = run(spec([]))
    assert json.loads(files["manifest.json"])[0]["Layers"] == []
    assert files["repositories"] == b"{}"
    assert len(files) == 3


def test_no_tags() -> None:
    files = run(spec([(layer_tar("a", b""), "none")], ()))
    assert json.loads(files["manifest.json"])[0]["RepoTags"] == []
    assert files["repositories"] == b"{}"


@pytest.mark.parametrize("tag", ["app", "host:5000/app", ":1", "app:"])
def test_tags_must_have_a_name_and_a_tag(tag: str) -> None:
    with pytest.raises(ToolError, match="repo_tags"):
        run(spec([(layer_tar("a", b""), "none")], (tag,)))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"diff_id": "sha256:" + "0" * 64}, r"layer 2 \(sha256:0+, .*another digest, sha256:"),
        ({"diff_size": 5}, "layer 2 .*its size is 2048 bytes, not 5"),
        ({"compression": "gzip"}, "layer 2 .*not readable as gzip"),
        ({"file": "in/none"}, "in/none No such file"),
    ],
)
def test_layers_that_are_not_what_the_spec_says(change: dict[str, Any], message: str) -> None:
    made = spec([(layer_tar("a", b"1"), "gzip"), (layer_tar("b", b"2"), "none")])
    made["layers"][1].update(change)
    with pytest.raises(ToolError, match=message):
        run(made)
    assert not os.path.exists("image.tar")


def test_layer_that_is_no_tar() -> None:
    with pytest.raises(ToolError, match="layer 1 .*not a tar"):
        run(spec([(b"<html>" * 1000, "gzip")]))


def test_layer_that_is_truncated() -> None:
    made = spec([(layer_tar("a", b"1" * 3000), "gzip")])
    Path("in/blobs/0").write_bytes(Path("in/blobs/0").read_bytes()[:-5])
    with pytest.raises(ToolError, match="layer 1 .*truncated"):
        run(made)


def test_config_is_verified() -> None:
    with pytest.raises(ToolError, match="config does not have the digest sha256:ab"):
        run(spec([], config_digest_hex="ab"))


def test_nothing_is_left_where_writing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(docker_archive, "_write_layer", full)
    with pytest.raises(ToolError, match="image.tar cannot be made: No space left"):
        run(spec([(layer_tar("a", b""), "none")]))
    assert not os.path.exists("image.tar")


def test_the_archive_is_a_complete_tar() -> None:
    run(spec([(layer_tar("a", b""), "none")]))
    data = Path("image.tar").read_bytes()
    assert len(data) % 512 == 0 and data.endswith(bytes(1024))
    assert tarfile.open(fileobj=io.BytesIO(data)).getmember("manifest.json")
