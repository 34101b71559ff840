from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.pack import pack

NAME = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-app"
STORE = f"/nix/store/{NAME}"


@pytest.fixture(autouse=True)
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store path of an app, and a base image with busybox, in a sandbox's directory."""
    monkeypatch.chdir(tmp_path)
    app = tmp_path / "in" / NAME
    (app / "etc").mkdir(parents=True)
    (app / "etc" / "conf").write_text("content\n")
    with tarfile.open("base.tar", "w") as archive:
        archive.add("/bin/busybox", "usr/bin/busybox")
        for name in ("cat", "chmod", "chown", "ln", "mkdir", "mv", "rm", "sh", "touch"):
            link(archive, f"usr/bin/{name}", "busybox")
        link(archive, "bin", "usr/bin")
        for name, content, mode in (
            ("etc/base", b"base", 0o644),
            ("etc/gone", b"gone", 0o644),
            ("var/lib/a/x", b"x", 0o600),
        ):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            archive.addfile(member, io.BytesIO(content))
        tmp = tarfile.TarInfo("tmp")
        tmp.type, tmp.mode = tarfile.DIRTYPE, 0o1777
        archive.addfile(tmp)


def link(archive: tarfile.TarFile, name: str, target: str) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    archive.addfile(member)


def run(text: str, extra_commands: str | None = None, **more: Any) -> dict[str, tarfile.TarInfo]:
    """The members of a layer that a script ran for, with their content as `content`."""
    diff_id = hashlib.sha256(Path("base.tar").read_bytes()).hexdigest()
    as_root = {
        "text": text,
        "disk_mib": 16,
        "shadow_setup": False,
        "layers": [{"file": "base.tar", "diff_id": f"sha256:{diff_id}"}],
        **more,
    }
    root = {
        "uid": 7,
        "gid": 8,
        "links": [["d", "etc", 0o755, 0, 0], ["l", "etc/conf", f"{STORE}/etc/conf"]],
        "script": extra_commands,
        "store": [],
        "path": None,
        "as_root": as_root,
    }
    paths = [{"name": NAME, "source": "tree", "entries": [["f", "etc/conf"]]}]
    for output in ("layer.blob", "layer.json"):
        if os.path.exists(output):
            os.unlink(output)
    try:
        pack({"compression": "none", "paths": paths, "root": root}, 1, "lib")
    finally:
        shutil.rmtree("scratch")
    members = {}
    with tarfile.open("layer.blob") as archive:
        for member in archive:
            assert member.mtime == 1 and member.name not in members
            members[member.name] = member
    return members


def own(members: dict[str, tarfile.TarInfo]) -> list[str]:
    """The names of what is not the store's."""
    return [name for name in members if name.split("/")[0] != "nix"]


def test_without_a_change_there_are_only_the_contents() -> None:
    members = run("cat /etc/conf /etc/base")
    assert own(members) == ["etc", "etc/conf"]
    assert members["etc/conf"].linkname == f"{STORE}/etc/conf"
    assert (members["etc/conf"].uid, members["etc/conf"].gid) == (7, 8)
    assert members["etc"].uid == 0, "it is the base's directory"
    assert members[f"nix/store/{NAME}/etc/conf"].mode == 0o444


def test_what_a_script_changes() -> None:
    members = run(
        """
        rm /etc/gone
        rm -r /var/lib/a
        echo new > /tmp/new; chown 12345:54321 /tmp/new; chmod 4755 /tmp/new
        mkdir /srv; ln -s new /srv/link; ln /tmp/new /srv/hard
        mv /etc/base /etc/moved
        """
    )
    assert own(members) == [
        *("etc", "etc/.wh.base", "etc/.wh.gone", "etc/conf", "etc/moved"),
        *("srv", "srv/hard", "srv/link", "tmp", "tmp/new", "var", "var/lib", "var/lib/.wh.a"),
    ]
    assert members["tmp"].mode == 0o1777
    new = members["srv/hard"]
    assert (new.uid, new.gid, new.mode) == (12345, 54321, 0o4755)
    assert members["tmp/new"].linkname == "srv/hard"
    assert members["etc/.wh.gone"].isreg() and members["etc/.wh.gone"].size == 0


def test_extra_commands_see_the_layer_only() -> None:
    members = run(
        "mkdir -p /opt/made; chown 5:6 /opt/made; touch /opt/made/x; chmod 4711 /opt/made/x; "
        "rm /etc/gone",
        extra_commands="ls > opt/list; ls etc >> opt/list; chmod 0700 opt/made; touch etc/gone",
    )
    assert own(members) == [
        *("etc", "etc/conf", "etc/gone", "opt", "opt/list", "opt/made", "opt/made/x"),
    ]
    made = members["opt/made"]
    assert (made.uid, made.gid, made.mode) == (5, 6, 0o700)
    assert members["opt/made/x"].mode == 0o4711
    with tarfile.open("layer.blob") as archive:
        listed = archive.extractfile("opt/list")
        assert listed and listed.read() == b"etc\nopt\nconf\n"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (f"echo x > {STORE}/etc/conf", f"run_as_root changed {STORE}/etc/conf"),
        (f"chmod 600 {STORE}/etc/conf", f"run_as_root changed {STORE}/etc/conf"),
        (f"rm -r {STORE}", f"run_as_root removed {STORE}"),
        (f"touch {STORE}/new", f"run_as_root made {STORE}/new"),
        ("touch /nix/store/new", "run_as_root made /nix/store/new"),
        (
            f"mv {STORE} /x; mkdir {STORE}",
            f"run_as_root (changed|removed|made) {STORE}",
        ),
        ("exit 3", "run_as_root failed with exit code 3"),
    ],
)
def test_errors(script: str, message: str) -> None:
    with pytest.raises(ToolError, match=message):
        run(script)
    assert not os.path.exists("layer.blob")


def test_hard_links_to_the_store_are_no_change() -> None:
    members = run(f"ln {STORE}/etc/conf /zzz; ln {STORE}/etc/conf /aaa")
    assert members["zzz"].islnk() and members["zzz"].linkname in (
        "aaa",
        f"nix/store/{NAME}/etc/conf",
    )
    assert members[f"nix/store/{NAME}/etc/conf"].isreg()


def test_shadow_setup_without_a_script() -> None:
    members = run("", shadow_setup=True)
    assert {"etc/passwd", "etc/shadow", "etc/group", "etc/gshadow"} <= set(members)
    assert (members["etc/shadow"].mode, members["etc/shadow"].uid) == (0o600, 0)


def test_capabilities_are_kept() -> None:
    # Version 2: effective, cap_net_bind_service permitted. Only root of a namespace may set it.
    value = bytes.fromhex("0100000200040000000000000000000000000000")
    base = Path("base.tar").read_bytes()
    with tarfile.open("base.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        with tarfile.open(fileobj=io.BytesIO(base)) as old:
            for member in old:
                archive.addfile(member, old.extractfile(member) if member.isreg() else None)
        member = tarfile.TarInfo("srv/server")
        member.pax_headers = {"SCHILY.xattr.security.capability": value.decode("latin-1")}
        archive.addfile(member)
    assert value.isascii(), "which tarfile writes as it is"
    members = run("mv /srv/server /srv/moved; touch /srv/other")
    assert own(members)[-4:] == ["srv", "srv/.wh.server", "srv/moved", "srv/other"]
    headers = members["srv/moved"].pax_headers
    assert headers["SCHILY.xattr.security.capability"] == value.decode("latin-1")
    assert not members["srv/other"].pax_headers


def test_the_same_bytes_again_and_with_compression(tmp_path: Path) -> None:
    first = run("mkdir /srv; touch /srv/b /srv/a")
    blob = Path("layer.blob").read_bytes()
    assert run("mkdir /srv; touch /srv/b /srv/a").keys() == first.keys()
    assert Path("layer.blob").read_bytes() == blob
    diff_id = hashlib.sha256(Path("base.tar").read_bytes()).hexdigest()
    Path("base.gz").write_bytes(gzip.compress(Path("base.tar").read_bytes()))
    run(
        "mkdir /srv; touch /srv/b /srv/a",
        layers=[{"file": "base.gz", "diff_id": f"sha256:{diff_id}"}],
    )
    assert Path("layer.blob").read_bytes() == blob
