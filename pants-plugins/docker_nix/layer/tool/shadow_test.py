from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from docker_nix.layer.tool import root_script, shadow
from docker_nix.layer.tool.namespaces import in_root_namespace

ALL = [
    b"etc/passwd",
    b"etc/shadow",
    b"etc/group",
    b"etc/gshadow",
    b"etc/pam.d/other",
    b"etc/login.defs",
]


def test_an_empty_root(tmp_path: Path) -> None:
    previous = os.umask(0o077)
    try:
        assert shadow.write_absent(bytes(tmp_path)) == ALL
    finally:
        os.umask(previous)
    etc = tmp_path / "etc"
    assert (etc / "passwd").read_text() == "root:x:0:0::/root:/bin/sh\n"
    assert (etc / "shadow").read_text() == "root:!x:::::::\n"
    assert (etc / "group").read_text() == "root:x:0:\n"
    assert (etc / "gshadow").read_text() == "root:x::\n"
    assert (etc / "login.defs").read_text() == ""
    assert (etc / "pam.d" / "other").read_text() == (
        "account required pam_unix.so\n"
        "auth sufficient pam_rootok.so\n"
        "password requisite pam_unix.so nullok sha512\n"
        "session required pam_unix.so\n"
    )
    modes = {
        str(path.relative_to(tmp_path)): path.stat().st_mode & 0o7777
        for path in tmp_path.rglob("*")
    }
    assert modes == {
        "etc": 0o755,
        "etc/pam.d": 0o755,
        "etc/pam.d/other": 0o644,
        "etc/passwd": 0o644,
        "etc/shadow": 0o600,
        "etc/group": 0o644,
        "etc/gshadow": 0o600,
        "etc/login.defs": 0o644,
    }
    assert shadow.write_absent(bytes(tmp_path)) == []


def test_what_is_there_stays(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "passwd").write_text("joe\n")
    (etc / "shadow").symlink_to("/nix/store/x/shadow")
    assert shadow.write_absent(bytes(tmp_path)) == ALL[2:]
    assert (etc / "passwd").read_text() == "joe\n"
    assert os.readlink(etc / "shadow") == "/nix/store/x/shadow"


def test_directories_that_are_symlinks_lead_nowhere_outside(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "etc").symlink_to("../../../usr/etc")
    assert shadow.write_absent(bytes(root)) == ALL
    assert (root / "usr" / "etc" / "passwd").is_file()
    assert sorted(os.listdir(tmp_path)) == ["root"]


def test_bash_is_the_shell_where_it_is_there(tmp_path: Path) -> None:
    (tmp_path / "usr" / "bin").mkdir(parents=True)
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "usr" / "bin" / "bash").symlink_to("/opt/bash")
    shadow.write_absent(bytes(tmp_path))
    passwd = tmp_path / "etc" / "passwd"
    assert passwd.read_text() == "root:x:0:0::/root:/bin/sh\n"
    passwd.unlink()
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt" / "bash").touch()
    shadow.write_absent(bytes(tmp_path))
    assert passwd.read_text() == "root:x:0:0::/root:/bin/bash\n"


def test_programs_add_users_to_it(tmp_path: Path) -> None:
    """The machine's `useradd` and `groupadd`, run in a root that has nothing but these files."""
    mount_point = bytes(tmp_path / "mount")
    root = os.path.join(os.fsdecode(mount_point), "root")
    programs = ["/bin/sh", "/usr/sbin/useradd", "/usr/sbin/groupadd"]
    modules = "/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu"

    def work() -> dict[str, str]:
        found = [
            word
            for program in programs
            for word in subprocess.check_output(["ldd", program], text=True).split()
            if word.startswith("/")
        ]
        for path in {*programs, *found}:
            os.makedirs(os.path.dirname(root + path), exist_ok=True)
            shutil.copy(path, root + path)
        for directory in modules:
            if os.path.isdir(f"{directory}/security"):
                os.makedirs(f"{root}{directory}/security", exist_ok=True)
                for name in ("pam_unix.so", "pam_rootok.so"):
                    shutil.copy(f"{directory}/security/{name}", f"{root}{directory}/security")
        shadow.write_absent(os.fsencode(root))
        script = "groupadd -g 500 staff; useradd -u 1000 -g staff -M -d /home/joe -s /bin/sh joe"
        root_script.run(script, os.fsencode(root), disk_size=8)
        return {name: Path(root, "etc", name).read_text() for name in ("passwd", "group")}

    assert in_root_namespace(work, mount_point) == {
        "passwd": "root:x:0:0::/root:/bin/sh\njoe:x:1000:500::/home/joe:/bin/sh\n",
        "group": "root:x:0:\nstaff:x:500:\n",
    }
