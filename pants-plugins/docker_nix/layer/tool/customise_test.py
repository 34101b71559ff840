from __future__ import annotations

import os
import socket
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from docker_nix.layer.tool import script as script_module
from docker_nix.layer.tool.customise import remove_tree, root_entries
from docker_nix.layer.tool.entries import Entry
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.tar_format import DIRECTORY, FILE, HARDLINK, SYMLINK

ONE = "0123456789abcdfghijklmnpqrsvwxyz-one"


@pytest.fixture(autouse=True)
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _run(script: str, links: list[list[str]] | None = None, **fields: Any) -> dict[str, Entry]:
    root = {"uid": 0, "gid": 0, "links": links or [], "script": script, "store": [], **fields}
    return {entry.name.decode(): entry for entry in root_entries(root, "scratch", "lib")}


def _kinds(entries: dict[str, Entry]) -> dict[str, tuple[bytes, int]]:
    return {name: (entry.kind, entry.mode) for name, entry in sorted(entries.items())}


def test_what_the_script_leaves() -> None:
    entries = _run(
        """
        rm etc/gone
        mkdir -p var/cache; chmod 1777 var/cache
        echo text > f; chmod 4750 f
        ln -s /nowhere l
        """,
        [["l", "etc/gone", "/nix/store/x/gone"], ["l", "etc/motd", "/nix/store/x/motd"]],
        uid=1000,
        gid=100,
    )
    assert _kinds(entries) == {
        "etc": (DIRECTORY, 0o755),
        "etc/motd": (SYMLINK, 0o777),
        "f": (FILE, 0o4750),
        "l": (SYMLINK, 0o777),
        "var": (DIRECTORY, 0o755),
        "var/cache": (DIRECTORY, 0o1777),
    }
    assert entries["etc/motd"].link == b"/nix/store/x/motd"
    assert Path(entries["f"].path.decode()).read_text() == "text\n"
    assert {(entry.uid, entry.gid) for entry in entries.values()} == {(1000, 100)}


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_modes_do_not_depend_on_the_umask(umask: int) -> None:
    previous = os.umask(umask)
    try:
        entries = _run("mkdir d; touch d/f", [["d", "tmp"]])
    finally:
        os.umask(previous)
    assert _kinds(entries) == {
        "d": (DIRECTORY, 0o755),
        "d/f": (FILE, 0o644),
        "tmp": (DIRECTORY, 0o755),
    }


def test_a_directory_that_passes_on_its_group(sandbox: Path) -> None:
    sandbox.chmod(0o2755)
    assert _kinds(_run("mkdir d"))["d"] == (DIRECTORY, 0o755)


def test_hard_links_point_to_the_first_name() -> None:
    entries = _run("mkdir a; echo 1 > z; ln z a/b; ln z a-b; chmod 600 z; touch alone")
    assert _kinds(entries) == {
        "a": (DIRECTORY, 0o755),
        "a-b": (FILE, 0o600),
        "a/b": (HARDLINK, 0o600),
        "alone": (FILE, 0o644),
        "z": (HARDLINK, 0o600),
    }
    assert entries["a/b"].link == entries["z"].link == b"a-b"


def test_what_nobody_may_read_is_packed_with_its_mode() -> None:
    entries = _run("mkdir d; echo 1 > d/f; ln d/f d/g; chmod 0 d/f; chmod 0 d")
    assert _kinds(entries) == {
        "d": (DIRECTORY, 0),
        "d/f": (FILE, 0),
        "d/g": (HARDLINK, 0),
    }
    assert os.stat(entries["d/f"].path).st_mode & stat.S_IRUSR


def test_the_environment(sandbox: Path) -> None:
    (sandbox / "shims").mkdir()
    entries = _run("/usr/bin/env -0 > env; pwd > pwd; umask > umask; cat > in", path="shims")
    text = Path(entries["env"].path.decode()).read_text()
    env = dict(item.split("=", 1) for item in text.split("\0") if item)
    scratch = sandbox / "scratch"
    for name in ("_", "SHLVL", "OLDPWD"):  # bash's own
        env.pop(name, None)
    assert env == {
        "PATH": f"{sandbox}/shims:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(scratch / "home"),
        "TMPDIR": str(scratch / "home"),
        "LC_ALL": "C",
        "SOURCE_DATE_EPOCH": "1",
        "STORE_ROOT": str(scratch / "nix-root"),
        "PWD": str(scratch / "root"),
    }
    read = {name: Path(entries[name].path.decode()).read_text() for name in ("pwd", "umask", "in")}
    assert read == {"pwd": f"{scratch}/root\n", "umask": "0022\n", "in": ""}


def test_odd_quoting() -> None:
    script = """echo 'a "b" $c' "d 'e' \\$f" `echo g` > f # "'\ncat <<'E' >> f\n'"\\n$x\nE\n"""
    entries = _run(script)
    assert Path(entries["f"].path.decode()).read_text() == "a \"b\" $c d 'e' $f g\n'\"\\n$x\n"


def test_a_long_script() -> None:
    assert "f" in _run("# " + "x" * 300_000 + "\ntouch f")


@pytest.mark.parametrize(
    "script, message",
    [
        ("false; touch f", "extra_commands failed with exit code 1"),
        ("exit 42", "extra_commands failed with exit code 42"),
        ("(exit 3)", "extra_commands failed with exit code 3"),
        ("no-such-command", "extra_commands failed with exit code 127"),
        ("kill -9 $$", "extra_commands was ended by signal 9"),
        ("mkfifo p", "extra_commands made p, which is a fifo"),
        ("mkdir d; touch d/.wh.f", r"d/\.wh\.f: names that start with \.wh\. mark deletions"),
    ],
)
def test_failures(script: str, message: str) -> None:
    with pytest.raises(ToolError, match=message):
        _run(script)


def test_sockets(sandbox: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        with pytest.raises(ToolError, match="extra_commands made s, which is a socket"):
            _run("cp -a ../../s . 2>/dev/null || mv ../../s .")


@pytest.mark.parametrize(
    "script", ["mkdir -p nix/store/x", "touch nix", "ln -s /tmp nix", "mkdir nix; touch nix/store"]
)
def test_the_store_is_not_for_scripts(script: str) -> None:
    with pytest.raises(ToolError, match="extra_commands made nix.* keeps its store paths there"):
        _run(script)


def test_beside_the_store() -> None:
    assert {"nix", "nix/var", "nix/storey"} <= _run("mkdir -p nix/var nix/storey").keys()


def test_no_bash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script_module, "_SHELLS", ("/no/bash",))
    with pytest.raises(ToolError, match="extra_commands need bash, which is at none of /no/bash"):
        _run("true")


def test_nothing_survives_the_script() -> None:
    entries = _run("sleep 100 & echo $! > pid")
    pid = int(Path(entries["pid"].path.decode()).read_text())
    for _ in range(100):
        try:
            with open(f"/proc/{pid}/stat") as status:
                if status.read().rpartition(")")[2].split()[0] == "Z":
                    return
            os.kill(pid, 0)
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.05)
    pytest.fail("the background process lives on")


def test_output_goes_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    _run("echo out; echo err >&2")
    assert capfd.readouterr() == ("", "out\nerr\n")


def test_the_store_is_a_copy() -> None:
    tree = Path("in", ONE)
    (tree / "bin").mkdir(parents=True)
    (tree / "bin" / "x").write_text("original")
    store = {
        "name": ONE,
        "source": "tree",
        "entries": [["x", "bin/x"], ["l", "l", "bin/x"], ["d", "empty"]],
    }
    entries = _run(
        f"""
        top=$STORE_ROOT/nix/store/{ONE}
        cp -L "$top/l" copy
        test -d "$top/empty"
        chmod u+w "$top/bin/x"; echo changed > "$top/bin/x"
        """,
        store=[store],
    )
    assert Path(entries["copy"].path.decode()).read_text() == "original"
    assert entries["copy"].mode == 0o555
    assert (tree / "bin" / "x").read_text() == "original"


def test_remove_tree(tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "b" / "f").touch()
    (top / "l").symlink_to("/etc")
    (top / "a" / "b").chmod(0)
    (top / "a").chmod(0o500)
    remove_tree(str(top))
    assert not top.exists()
