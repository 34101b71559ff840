from __future__ import annotations

import hashlib
import io
import json
import mmap
import os
import shutil
import socket
import stat
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from docker_nix.layer.tool import namespaces, root_script, rootfs
from docker_nix.layer.tool.entries import Entry
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.namespaces import in_root_namespace

BUSYBOX = "/bin/busybox"
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw+ep
DIRECTORY, FIFO, HARDLINK, SYMLINK = (
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
)
CHARACTER, BLOCK = tarfile.CHRTYPE, tarfile.BLKTYPE


def _layer(path: Path, *members: tuple[Any, ...]) -> dict[str, str]:
    """A layer of (name, content) or (name, type, link), and a dict of more for its `TarInfo`."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, *rest in members:
            info = tarfile.TarInfo(name)
            more = rest.pop() if isinstance(rest[-1], dict) else {}
            data = rest[0].encode() if isinstance(rest[0], str) else b""
            if not isinstance(rest[0], str):
                info.type, info.linkname = (*rest, "")[:2]
            info.mode = 0o755 if info.type == DIRECTORY else 0o644
            info.size = len(data)
            for field, value in more.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(data))
    return {"file": str(path), "diff_id": f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"}


@pytest.fixture(scope="module")
def busybox(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A layer with busybox, and `bin/NAME` for each of its programs."""
    path = tmp_path_factory.mktemp("busybox") / "layer.tar"
    programs = subprocess.check_output([BUSYBOX, "--list"], text=True).split()
    with tarfile.open(path, "w") as archive:
        archive.add(BUSYBOX, "bin/busybox")
        for name in programs:
            if name != "busybox":
                info = tarfile.TarInfo(f"bin/{name}")
                info.type, info.linkname = SYMLINK, "busybox"
                archive.addfile(info)
    return {"file": str(path), "diff_id": f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"}


def _lay_out(tmp_path: Path, *layers: dict[str, str]) -> dict[str, tuple[Any, ...]]:
    """What the layers are on disk, by path; see `_on_disk`."""
    mount_point = bytes(tmp_path / "mount")

    def work() -> dict[str, tuple[Any, ...]]:
        root = _new(mount_point)
        os.umask(0o077)
        rootfs.unpack_layers(layers, root, "lib")
        assert os.listdir(mount_point) == [b"root"]
        return _on_disk(os.fsdecode(root))

    return dict(in_root_namespace(work, mount_point))


def _new(mount_point: bytes) -> bytes:
    root = os.path.join(mount_point, b"root")
    os.mkdir(root)
    return root


def _on_disk(root: str) -> dict[str, tuple[Any, ...]]:
    """Type, mode, owner, and the content of files or the text of symlinks, by path."""
    found: dict[str, tuple[Any, ...]] = {}
    for parent, directories, files in os.walk(root):
        for name in [*directories, *files] if parent != root else ["", *directories, *files]:
            path = os.path.join(parent, name)
            status = os.lstat(path)
            kind = stat.filemode(status.st_mode)[0]
            content = ""
            if kind == "-":
                content = Path(path).read_text(encoding="latin-1")
            elif kind == "l":
                content = os.readlink(path)
            key = os.path.relpath(path, root)
            mode = stat.S_IMODE(status.st_mode)
            found[key] = (kind, mode, status.st_uid, status.st_gid, content)
    return found


class Result:
    """What `rootfs.changes` found, comparable, and with the content of files."""

    def __init__(self, found: tuple[Any, ...]) -> None:
        self.entries: dict[str, tuple[Any, ...]]
        self.entries, self.whiteouts, self.parents, self.xattrs, self.order = found


def _change(
    tmp_path: Path,
    script: str,
    *layers: dict[str, str],
    contents: Callable[[str], None] | None = None,
) -> Result:
    """Runs `script` in the file system that the layers are."""
    mount_point = bytes(tmp_path / "mount")

    def work() -> tuple[Any, ...]:
        root = _new(mount_point)
        base = rootfs.unpack_layers(layers, root, "lib")
        if contents:
            contents(os.fsdecode(root))
        if script:
            root_script.run(script, root, disk_size=16)
        found = rootfs.changes(root, base, mount_point + b"/empty")
        for entry in found.whiteouts:
            assert (entry.kind, entry.mode, entry.uid, entry.gid) == (b"0", 0o600, 0, 0)
            assert os.path.getsize(entry.path) == 0
        names = [entry.name for entry in found.entries]
        assert names == sorted(names)
        return (
            {entry.name.decode(): _plain(entry) for entry in found.entries},
            [entry.name.decode() for entry in found.whiteouts],
            {entry.name.decode(): _plain(entry) for entry in found.parents},
            {name.decode(): values for name, values in found.xattrs.items()},
            names,
        )

    return Result(in_root_namespace(work, mount_point))


def _plain(entry: Entry) -> tuple[Any, ...]:
    kind = {b"0": "f", b"1": "h", b"2": "l", b"5": "d"}[entry.kind]
    content = Path(os.fsdecode(entry.path)).read_text() if kind == "f" else entry.link.decode()
    return (kind, entry.mode, entry.uid, entry.gid, content)


# Laying out


def test_all_that_layers_have(tmp_path: Path) -> None:
    lower = _layer(
        tmp_path / "lower.tar",
        (".", DIRECTORY, {"mode": 0o711, "uid": 1}),
        ("d", DIRECTORY, {"mode": 0o1777, "uid": 5, "gid": 6}),
        ("d/f", "text", {"mode": 0o6755, "uid": 1000, "gid": 100}),
        ("d/gone", "x"),
        ("d/hard", HARDLINK, "d/f"),
        ("unreadable", "x", {"mode": 0, "uid": 12345}),
        ("p", FIFO, {"mode": 0o620, "uid": 7}),
        ("made/up/f", "x"),
    )
    upper = _layer(
        tmp_path / "upper.tar",
        ("d/.wh.gone", ""),
        ("d/l", SYMLINK, "/etc/\u00fc", {"uid": 8}),
        ("r", DIRECTORY, {"mode": 0o500}),
        ("r/f", "x"),
        ("sparse", "\0" * 300_000 + "end"),
    )
    found = _lay_out(tmp_path, lower, upper)
    assert found == {
        ".": ("d", 0o711, 1, 0, ""),
        "d": ("d", 0o1777, 5, 6, ""),
        "d/f": ("-", 0o6755, 1000, 100, "text"),
        "d/hard": ("-", 0o6755, 1000, 100, "text"),
        "d/l": ("l", 0o777, 8, 0, "/etc/\u00fc"),
        "unreadable": ("-", 0, 12345, 0, "x"),
        "p": ("p", 0o620, 7, 0, ""),
        "made": ("d", 0o755, 0, 0, ""),
        "made/up": ("d", 0o755, 0, 0, ""),
        "made/up/f": ("-", 0o644, 0, 0, "x"),
        "r": ("d", 0o500, 0, 0, ""),
        "r/f": ("-", 0o644, 0, 0, "x"),
        "sparse": ("-", 0o644, 0, 0, "\0" * 300_000 + "end"),
    }


def test_times(tmp_path: Path) -> None:
    layer = _layer(tmp_path / "l.tar", ("d/f", "x", {"mtime": 5}), ("d/l", SYMLINK, "x"))
    mount_point = bytes(tmp_path / "mount")

    def work() -> list[int]:
        root = _new(mount_point)
        rootfs.unpack_layers([layer], root, "lib")
        names = (b"", b"d", b"d/f", b"d/l")
        return [os.lstat(os.path.join(root, name)).st_mtime_ns for name in names]

    assert in_root_namespace(work, mount_point) == [0, 0, 5_000_000_000, 0]


def test_hard_links_are_one_file(tmp_path: Path) -> None:
    layer = _layer(tmp_path / "l.tar", ("b", "x"), ("a", HARDLINK, "b"), ("d/c", HARDLINK, "a"))
    mount_point = bytes(tmp_path / "mount")

    def work() -> list[int]:
        root = _new(mount_point)
        rootfs.unpack_layers([layer], root, "lib")
        return [os.stat(os.path.join(root, n)).st_ino for n in (b"a", b"b", b"d/c")]

    assert len(set(in_root_namespace(work, mount_point))) == 1


def test_devices_are_left_out(tmp_path: Path) -> None:
    layer = _layer(
        tmp_path / "l.tar",
        ("dev/null", CHARACTER, {"devmajor": 1, "devminor": 3}),
        ("dev/sda", BLOCK, {"devmajor": 8}),
        ("dev/zero", HARDLINK, "dev/null"),
    )
    assert sorted(_lay_out(tmp_path, layer)) == [".", "dev"]


def test_symlinks_do_not_lead_out(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    layer = _layer(
        tmp_path / "l.tar",
        ("absolute", SYMLINK, str(outside)),
        ("absolute/f", "x"),
        ("relative", SYMLINK, "../../../../../../" + str(outside)),
        ("relative/g", "x"),
        ("file", SYMLINK, f"{outside}/h"),
        ("file", "replaced"),
    )
    found = _lay_out(tmp_path, layer)
    inside = str(outside)[1:]
    assert found[f"{inside}/f"][4] == found[f"{inside}/g"][4] == "x"
    assert found["file"] == ("-", 0o644, 0, 0, "replaced")
    assert os.listdir(outside) == []


def test_attributes(tmp_path: Path) -> None:
    attributes = {
        "SCHILY.xattr.security.capability": CAPABILITY.decode("utf-8", "surrogateescape"),
        "SCHILY.xattr.user.note": "a note",
        "SCHILY.xattr.security.selinux": "system_u",
    }
    layer = _layer(tmp_path / "l.tar", ("f", "x", {"uid": 1, "pax_headers": attributes}))
    mount_point = bytes(tmp_path / "mount")

    def work() -> dict[str, bytes]:
        root = _new(mount_point)
        rootfs.unpack_layers([layer], root, "lib")
        path = os.path.join(root, b"f")
        return {name: os.getxattr(path, name) for name in os.listxattr(path)}

    found = in_root_namespace(work, mount_point)
    assert found["security.capability"] == CAPABILITY
    assert set(found) <= {"security.capability", "user.note"}


def test_a_wrong_diff_id(tmp_path: Path) -> None:
    layer = _layer(tmp_path / "l.tar", ("f", "x"))
    wrong = {**layer, "diff_id": "sha256:" + "0" * 64}
    with pytest.raises(ToolError, match=f"has another content, {layer['diff_id']}"):
        _lay_out(tmp_path, wrong)


def test_an_owner_that_the_namespace_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = _layer(tmp_path / "l.tar", ("etc/f", "x", {"uid": 70000, "gid": 3}))
    # As many as an ordinary user has; all of them where the tests run in a container.
    monkeypatch.setattr(namespaces, "_write_own_ids", _write_few_ids)
    with pytest.raises(ToolError) as error:
        _lay_out(tmp_path, layer)
    assert str(error.value) == (
        "etc/f of the base image belongs to 70000:3, and there are no such ids here (user ids: 0 "
        "to 65535; group ids: 0 to 65535); give the user who runs Pants more subordinate ids in "
        "/etc/subuid and /etc/subgid, or the container more ids"
    )


def _write_few_ids(pid: int, kind: str) -> None:
    Path(f"/proc/{pid}/{kind}_map").write_text("0 0 65536")


def test_a_base_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "_free_memory", lambda: 100_000)
    layer = _layer(tmp_path / "l.tar", ("f", "x" * 200_000))
    with pytest.raises(ToolError, match="the base image does not fit into the free memory"):
        _lay_out(tmp_path, layer)


# Changes


def test_no_change(tmp_path: Path, busybox: dict[str, str]) -> None:
    result = _change(tmp_path, "true", busybox)
    assert (result.entries, result.whiteouts, result.parents) == ({}, [], {})


def test_each_kind_of_change(tmp_path: Path, busybox: dict[str, str]) -> None:
    base = _layer(
        tmp_path / "base.tar",
        ("etc", DIRECTORY, {"mode": 0o751, "uid": 3}),
        *((f"etc/{name}", "text") for name in ("appended", "gone", "mode", "moved", "owner")),
        ("etc/link", SYMLINK, "a"),
        ("etc/link-owner", SYMLINK, "a"),
        ("etc/same", "text"),
    )
    script = """
        cd /etc
        echo more >>appended; rm gone; chmod 4750 mode; mv moved new-name; chown 12345:54 owner
        ln -sf b link; chown -h 7 link-owner
        mkdir -p /var/lib/x; chmod 1777 /var/lib/x; echo text >/var/lib/x/f
        ln -s /nowhere /var/l
        """
    result = _change(tmp_path, script, busybox, base)
    assert result.entries == {
        "etc/appended": ("f", 0o644, 0, 0, "textmore\n"),
        "etc/link": ("l", 0o777, 0, 0, "b"),
        "etc/link-owner": ("l", 0o777, 7, 0, "a"),
        "etc/mode": ("f", 0o4750, 0, 0, "text"),
        "etc/new-name": ("f", 0o644, 0, 0, "text"),
        "etc/owner": ("f", 0o644, 12345, 54, "text"),
        "var": ("d", 0o755, 0, 0, ""),
        "var/l": ("l", 0o777, 0, 0, "/nowhere"),
        "var/lib": ("d", 0o755, 0, 0, ""),
        "var/lib/x": ("d", 0o1777, 0, 0, ""),
        "var/lib/x/f": ("f", 0o644, 0, 0, "text\n"),
    }
    assert result.whiteouts == ["etc/.wh.gone", "etc/.wh.moved"]
    assert result.parents == {"etc": ("d", 0o751, 3, 0, "")}


def test_what_ends_as_it_began_is_no_change(tmp_path: Path, busybox: dict[str, str]) -> None:
    base = _layer(
        tmp_path / "base.tar",
        ("d", DIRECTORY),
        ("d/f", "text"),
        ("d/g", "text", {"uid": 5}),
        ("d/l", SYMLINK, "f"),
        ("d/p", FIFO),
        ("d/sub", DIRECTORY),
    )
    script = """
        cd /d
        touch f; chmod 600 f; chmod 644 f
        cp g h; rm g; mv h g; chown 5 g
        rm l; ln -s f l
        rmdir sub; mkdir sub
        touch new; rm new
        ln f second; rm second
        """
    result = _change(tmp_path, script, busybox, base)
    assert (result.entries, result.whiteouts) == ({}, [])


def test_content_of_the_same_size(tmp_path: Path, busybox: dict[str, str]) -> None:
    base = _layer(tmp_path / "base.tar", ("f", "abc"))
    result = _change(tmp_path, "printf abd >/f; touch -d @1 /f", busybox, base)
    assert result.entries == {"f": ("f", 0o644, 0, 0, "abd")}


@pytest.mark.parametrize("times_tell", [True, False])
def test_writes_that_go_through_a_mapping(
    tmp_path: Path, busybox: dict[str, str], monkeypatch: pytest.MonkeyPatch, times_tell: bool
) -> None:
    """Where those do not change times, as in some kernels, contents are compared."""
    if not times_tell:
        monkeypatch.setattr(rootfs, "_scan", _scan_without_times(rootfs._scan))
        monkeypatch.setattr(rootfs, "_mapped_writes_change_times", lambda path: False)
    base = _layer(tmp_path / "base.tar", ("f", "text"), ("g", "text"), ("d", DIRECTORY))

    def contents(root: str) -> None:
        with open(f"{root}/f", "r+b") as file, mmap.mmap(file.fileno(), 4) as mapped:
            mapped[1:2] = b"3"

    result = _change(tmp_path, "", busybox, base, contents=contents)
    assert result.entries == {"f": ("f", 0o644, 0, 0, "t3xt")}


def _scan_without_times(scan: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def changed(directory: bytes) -> Any:
        paths = scan(directory)
        for found in paths.values():
            found.ctime = 0
        return paths

    return changed


def test_whiteouts_are_for_the_topmost_only(tmp_path: Path, busybox: dict[str, str]) -> None:
    base = _layer(
        tmp_path / "base.tar", ("d/a/f", "x"), ("d/a/g/h", "x"), ("d/kept", "x"), ("e/f", "x")
    )
    result = _change(tmp_path, "rm -r /d/a /e", busybox, base)
    assert result.entries == {}
    assert result.whiteouts == [".wh.e", "d/.wh.a"]
    assert list(result.parents) == ["d"]


def test_kinds_that_change(tmp_path: Path, busybox: dict[str, str]) -> None:
    base = _layer(
        tmp_path / "base.tar",
        *(("to-link/f", "x"), ("to-file/f", "x"), ("again/f", "x"), ("again/g/h", "x")),
        *(("file", "x"), ("link", SYMLINK, "again")),
    )
    script = """
        for name in to-link to-file again file link; do rm -r /$name; done
        ln -s again /to-link; echo >/to-file
        mkdir -p /again/g /file /link; touch /again/new /file/f /link/f
        """
    result = _change(tmp_path, script, busybox, base)
    assert {name: values[0] for name, values in result.entries.items()} == {
        **{"again/new": "f", "file": "d", "file/f": "f", "link": "d", "link/f": "f"},
        **{"to-file": "f", "to-link": "l"},
    }
    assert result.whiteouts == ["again/.wh.f", "again/g/.wh.h"]
    assert list(result.parents) == ["again", "again/g"]


def test_hard_links(tmp_path: Path, busybox: dict[str, str]) -> None:
    base = _layer(
        tmp_path / "base.tar",
        ("base", "base"),
        ("one", "x"),
        ("two", HARDLINK, "one"),
        ("zero", HARDLINK, "one"),
        ("other", "x"),
    )
    script = """
        ln /base /b; ln /base /a; ln /base /d
        echo new >/n; mkdir /m; ln /n /m/n; ln /n /l
        chmod 600 /two
        ln /other /other2; rm /other
        """
    result = _change(tmp_path, script, busybox, base)
    assert {name: (values[0], values[4]) for name, values in result.entries.items()} == {
        "a": ("f", "base"),
        "b": ("h", "a"),
        "d": ("h", "a"),
        "l": ("f", "new\n"),
        "m": ("d", ""),
        "m/n": ("h", "l"),
        "n": ("h", "l"),
        "one": ("f", "x"),
        "other2": ("f", "x"),
        "two": ("h", "one"),
        "zero": ("h", "one"),
    }
    assert result.whiteouts == [".wh.other"]


def test_a_user_that_is_added(tmp_path: Path, busybox: dict[str, str]) -> None:
    base = _layer(
        tmp_path / "base.tar", ("etc/passwd", "root:x:0:0::/:/bin/sh\n"), ("home", DIRECTORY)
    )
    script = """
        echo joe:x:1234:1235::/home/joe:/bin/sh >>/etc/passwd
        mkdir -m 2750 /home/joe; chown joe:1235 /home/joe
        su joe -c 'touch /home/joe/f'
        """
    result = _change(tmp_path, script, busybox, base)
    assert result.entries == {
        "etc/passwd": (
            *("f", 0o644, 0, 0),
            "root:x:0:0::/:/bin/sh\njoe:x:1234:1235::/home/joe:/bin/sh\n",
        ),
        "home/joe": ("d", 0o2750, 1234, 1235, ""),
        "home/joe/f": ("f", 0o644, 1234, 1235, ""),
    }
    assert set(result.parents) == {"etc", "home"}


def test_contents_are_changes_unless_the_base_has_them(
    tmp_path: Path, busybox: dict[str, str]
) -> None:
    base = _layer(tmp_path / "base.tar", ("etc/same", "x"), ("etc/other", "x"), ("bin2/f", "x"))

    def contents(root: str) -> None:
        for name in ("etc/same", "etc/other", "etc/new"):
            path = Path(root, name)
            if path.exists():
                path.unlink()
            path.write_text("x" if name.endswith("same") else "y")
            path.chmod(0o644)
        shutil.rmtree(f"{root}/bin2")
        os.symlink("bin", f"{root}/bin2")

    result = _change(tmp_path, "rm /etc/new; echo z >/etc/newer", busybox, base, contents=contents)
    assert {name: (values[0], values[4]) for name, values in result.entries.items()} == {
        "bin2": ("l", "bin"),
        "etc/newer": ("f", "z\n"),
        "etc/other": ("f", "y"),
    }
    assert result.whiteouts == []


def test_no_base(tmp_path: Path) -> None:
    result = _change(tmp_path, "", contents=lambda root: os.mkdir(f"{root}/d"))
    assert list(result.entries) == ["d"]


def test_attributes_that_change(tmp_path: Path, busybox: dict[str, str]) -> None:
    text = CAPABILITY.decode("utf-8", "surrogateescape")
    header = {"pax_headers": {"SCHILY.xattr.security.capability": text}}
    base = _layer(tmp_path / "base.tar", ("set", "x"), ("kept", "x", header), ("lost", "x", header))

    def contents(root: str) -> None:
        os.setxattr(f"{root}/set", "security.capability", CAPABILITY)
        os.chmod(f"{root}/kept", 0o600)
        os.chmod(f"{root}/kept", 0o644)
        os.removexattr(f"{root}/lost", "security.capability")

    result = _change(tmp_path, "cp /set /new; ln /set /set2", busybox, base, contents=contents)
    assert {name: values[0] for name, values in result.entries.items()} == {
        **{"lost": "f", "new": "f", "set": "f", "set2": "h"},
    }
    assert result.xattrs == {"set": {b"security.capability": CAPABILITY}}


@pytest.mark.parametrize(
    "script, what",
    [("mkfifo /d/x", "d/x, which is a fifo"), ("chmod 600 /p", "p, which is a fifo")],
)
def test_fifos(tmp_path: Path, busybox: dict[str, str], script: str, what: str) -> None:
    base = _layer(tmp_path / "base.tar", ("d", DIRECTORY), ("p", FIFO))
    with pytest.raises(ToolError, match=f"^run_as_root made {what}; a layer can hold files"):
        _change(tmp_path, script, busybox, base)


def test_sockets(tmp_path: Path) -> None:
    def contents(root: str) -> None:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"{root}/x")

    with pytest.raises(ToolError, match="^run_as_root made x, which is a socket; a layer can hold"):
        _change(tmp_path, "", contents=contents)


def test_names_of_whiteouts(tmp_path: Path, busybox: dict[str, str]) -> None:
    with pytest.raises(ToolError, match=r"d/\.wh\.x: names that start with \.wh\."):
        _change(tmp_path, "mkdir /d; touch /d/.wh.x", busybox)


def test_any_name(tmp_path: Path, busybox: dict[str, str]) -> None:
    base = _layer(tmp_path / "base.tar", ("gone \u00fc\n", "x"))
    script = "rm /gone*; printf x >\"$(printf '/new \\303\\274\\n\\\\x')\""
    result = _change(tmp_path, script, busybox, base)
    assert list(result.entries) == ["new \u00fc\n\\x"]
    assert result.whiteouts == [".wh.gone \u00fc\n"]


def test_umoci_gets_the_same_from_base_and_changes(tmp_path: Path, busybox: dict[str, str]) -> None:
    base = _layer(
        tmp_path / "base.tar",
        *(("a/f", "x"), ("a/g/h", "x"), ("b/c/d", "x"), ("l", SYMLINK, "a"), ("z", "x")),
        *(("t", DIRECTORY, {"mode": 0o1777}), ("t/f", "x"), ("t/g", "x", {"uid": 5})),
    )
    script = """
        rm -r /a/g /l; mkdir /l; echo y >/l/f; chmod 700 /a; echo y >>/a/f; ln /a/f /hard; rm /z
        rm -r /b; ln -s t /b; rm /t/f; chown 6:7 /t/g
        """
    mount_point = bytes(tmp_path / "mount")
    upper = tmp_path / "upper.tar"

    def work() -> dict[str, tuple[Any, ...]]:
        root = _new(mount_point)
        snapshot = rootfs.unpack_layers([busybox, base], root, "lib")
        root_script.run(script, root, disk_size=1)
        found = rootfs.changes(root, snapshot, mount_point + b"/empty")
        with tarfile.open(upper, "w") as archive:
            for entry in (*found.parents, *found.entries, *found.whiteouts):
                info = tarfile.TarInfo(entry.name.decode())
                info.type, info.linkname = entry.kind, entry.link.decode()
                info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
                data = Path(os.fsdecode(entry.path)).read_bytes() if entry.path else b""
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return _on_disk(os.fsdecode(root))

    left = in_root_namespace(work, mount_point)
    layers = [Path(busybox["file"]), Path(base["file"]), upper]
    image = _oci_layout(tmp_path / "image", layers)
    subprocess.run(["umoci", "raw", "unpack", "--image", image, tmp_path / "out"], check=True)
    assert _on_disk(str(tmp_path / "out")) == left


ORDINARY_USER = "games"  # an account of Debian that nobody uses
PROGRAM = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from docker_nix.layer.tool import namespaces, root_script, rootfs

mount_point = os.fsencode(sys.argv[2])
layers = json.loads(sys.argv[3])

def work():
    root = mount_point + b"/root"
    os.mkdir(root)
    base = rootfs.unpack_layers(layers, root, "lib")
    root_script.run(sys.argv[4], root, disk_size=16)
    found = rootfs.changes(root, base, mount_point + b"/empty")
    for entry in found.entries:
        text = open(entry.path).read() if entry.path else ""
        print([entry.name.decode(), entry.mode, entry.uid, entry.gid, text], flush=True)

namespaces.in_root_namespace(work, mount_point)
"""


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory of the user's own, who may use subordinate ids meanwhile."""
    directory = Path(tempfile.mkdtemp(prefix="docker-nix-test-"))
    shutil.chown(directory, ORDINARY_USER)
    before = {}
    try:
        for file in (Path("/etc/subuid"), Path("/etc/subgid")):
            before[file] = file.read_bytes() if file.exists() else None
            file.write_bytes((before[file] or b"") + f"{ORDINARY_USER}:300000:65536\n".encode())
        yield directory
    finally:
        for file, content in before.items():
            file.unlink() if content is None else file.write_bytes(content)
        shutil.rmtree(directory)


def test_all_of_it_as_an_ordinary_user(public: Path, busybox: dict[str, str]) -> None:
    package = public / "tool" / "docker_nix" / "layer" / "tool"
    package.mkdir(parents=True)
    for source in Path(__file__).parent.glob("*.py"):
        shutil.copy(source, package)
    shutil.copy(busybox["file"], public / "busybox.tar")
    base = _layer(public / "base.tar", ("etc/f", "x", {"uid": 1000, "gid": 65535, "mode": 0o600}))
    layers = [{**busybox, "file": str(public / "busybox.tar")}, base]
    script = """
        stat -c '%u %g %a' /etc/f
        id -u; sed 1,2d /proc/net/dev | cut -d: -f1; hostname; ls /proc | grep -c '^[0-9]'
        echo x >/dev/null
        chown 1:2 /etc/f
        """
    result = subprocess.run(
        [
            *("/usr/bin/setpriv", f"--reuid={ORDINARY_USER}", f"--regid={ORDINARY_USER}"),
            *("--clear-groups", "/usr/bin/python3", "-I", "-S", "-B", "-c", PROGRAM),
            *(str(public / "tool"), str(public / "mount"), json.dumps(layers)),
            "{\n" + script + "} >/out",
        ],
        cwd=public,
        env={},
        capture_output=True,
        text=True,
    )
    assert (result.stderr, result.stdout.splitlines()) == (
        "",
        [
            "['etc/f', 384, 1, 2, 'x']",
            "['out', 420, 0, 0, '1000 65535 600\\n0\\n    lo\\nlocalhost\\n3\\n']",
        ],
    )


def _oci_layout(directory: Path, layers: list[Path]) -> str:
    """Makes an image of uncompressed layers; returns what umoci calls it."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(kind: str, data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        media_type = f"application/vnd.oci.image.{kind}"
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    descriptors = [blob("layer.v1.tar", layer.read_bytes()) for layer in layers]
    diff_ids = [descriptor["digest"] for descriptor in descriptors]
    rootfs_part = {"type": "layers", "diff_ids": diff_ids}
    config = {"os": "linux", "architecture": "amd64", "config": {}, "rootfs": rootfs_part}
    manifest = {
        "schemaVersion": 2,
        "config": blob("config.v1+json", json.dumps(config).encode()),
        "layers": descriptors,
    }
    tagged = blob("manifest.v1+json", json.dumps(manifest).encode())
    tagged["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [tagged]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return f"{directory}:latest"


# Paths


def test_where_paths_lead(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "usr" / "bin").mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    (root / "abs").symlink_to("/usr/../usr/./bin")
    (root / "up").symlink_to("../../../usr")
    (root / "loop").symlink_to("loop")
    (root / "usr" / "bin" / "sh").symlink_to("../missing/sh")

    def resolve(path: bytes) -> bytes:
        return rootfs.resolve(bytes(root), path)

    assert resolve(b"") == b""
    assert resolve(b"/bin") == resolve(b"abs/") == resolve(b"up/bin") == b"usr/bin"
    assert resolve(b"bin/sh") == b"usr/missing/sh"
    assert resolve(b"bin/../../../x") == b"x"
    with pytest.raises(ToolError, match="loop/x lies behind symlinks that lead in a circle"):
        resolve(b"loop/x")
