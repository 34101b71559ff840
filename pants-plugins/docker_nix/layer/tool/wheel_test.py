from __future__ import annotations

import base64
import csv
import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from docker_nix.layer.tool.archive import listing, unpack
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.wheel import index_wheel, main

SITE = "lib/python3.11/site-packages"
METADATA = (
    "Metadata-Version: 2.1\nName: My.Project\nVersion: 1.0\n"
    'Requires-Dist: other>=2 ; python_version < "3.12"\n\nSome: text\n'
)
FILES = {
    ".layout.json": '{"stash_dir": ".prefix"}',
    "my/__init__.py": "x = 1\n",
    "my/räw,name.txt": "data",
    "my_project-1.0.dist-info/METADATA": METADATA,
    "my_project-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\nTag: py2-none-any\n",
    "my_project-1.0.dist-info/entry_points.txt": (
        "[console_scripts]\nMy-Tool = my:main [extra]\n[other]\na = b\n"
    ),
    ".prefix/bin/My-Tool": "#!python\nimport my\n",
    ".prefix/bin/latin": "#!python -E\n# caf\udce9\n",
    ".prefix/bin/native": "\x7fELF",
    ".prefix/share/my/data": "shared",
}


def write_zip(path: Path, files: dict[str, str], order: int = 1) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../", "")
        archive.writestr("empty/", "")
        for name, text in list(files.items())[::order]:
            info = zipfile.ZipInfo(name)
            info.create_system = 3
            info.external_attr = (0o100755 if "/bin/" in name else 0o100644) << 16
            archive.writestr(info, text.encode("utf-8", "surrogateescape"))
    return str(path)


def test_files_lie_where_an_installer_puts_them(tmp_path: Path) -> None:
    wheel = write_zip(tmp_path / "w.whl", FILES)
    entries = unpack(wheel, f"wheel:{SITE}", str(tmp_path / "into"), "")
    info = f"{SITE}/my_project-1.0.dist-info"
    assert entries == [
        ["x", "bin/native"],
        ["d", f"{SITE}/empty"],
        ["f", f"{SITE}/my/__init__.py"],
        ["f", f"{SITE}/my/räw,name.txt"],
        ["f", f"{info}/METADATA"],
        ["f", f"{info}/RECORD"],
        ["f", f"{info}/WHEEL"],
        ["f", f"{info}/entry_points.txt"],
        ["f", "share/my/data"],
    ]
    assert (tmp_path / "into/share/my/data").read_text() == "shared"

    rows = list(csv.reader((tmp_path / "into" / info / "RECORD").read_text().splitlines()))
    record = {path: (digest, size) for path, digest, size in rows}
    assert [row[0] for row in rows] == sorted(record)
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"data").digest()).decode().rstrip("=")
    assert record["my/räw,name.txt"] == (f"sha256={digest}", "4")
    assert record["../../../share/my/data"][1] == "6"
    # What an environment writes anew, and the file itself.
    assert record["../../../bin/My-Tool"] == ("", "")
    assert record["my_project-1.0.dist-info/RECORD"] == ("", "")


def test_the_order_of_the_zip_does_not_matter(tmp_path: Path) -> None:
    one = write_zip(tmp_path / "one.whl", FILES)
    other = write_zip(tmp_path / "other.whl", FILES, order=-1)
    assert Path(one).read_bytes() != Path(other).read_bytes()
    assert listing(one, f"wheel:{SITE}", "") == listing(other, f"wheel:{SITE}", "")


def test_the_index_has_what_the_metadata_says(tmp_path: Path) -> None:
    index = index_wheel(write_zip(tmp_path / "w.whl", FILES), SITE, "")
    assert (index["name"], index["version_of_project"]) == ("My.Project", "1.0")
    assert index["requires"] == ['other>=2 ; python_version < "3.12"']
    assert index["tags"] == ["py2-none-any", "py3-none-any"]
    assert index["console_scripts"] == {"My-Tool": "my:main [extra]"}
    assert index["scripts"] == {"My-Tool": "import my\n", "latin": "# caf\udce9\n"}
    assert ["f", "share/my/data", 6, hashlib.sha256(b"shared").hexdigest()] in index["entries"]


def test_the_command_writes_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_zip(tmp_path / "w.whl", FILES)
    Path("spec.json").write_text(json.dumps({"file": "w.whl", "site_packages": SITE}))
    main(["spec.json"], "")
    assert json.loads(Path("wheel.json").read_text()) == index_wheel("w.whl", SITE, "")
    with pytest.raises(ToolError, match="usage: wheel-index"):
        main([], "")


def test_a_zip_without_metadata_is_none(tmp_path: Path) -> None:
    wheel = write_zip(tmp_path / "w.whl", {"my.py": ""})
    with pytest.raises(ToolError, match="no metadata with a name and a version"):
        index_wheel(wheel, SITE, "")


def test_entry_points_that_cannot_be_read(tmp_path: Path) -> None:
    files = {**FILES, "my_project-1.0.dist-info/entry_points.txt": "console_scripts\n"}
    with pytest.raises(ToolError, match="entry_points.txt cannot be read"):
        index_wheel(write_zip(tmp_path / "w.whl", files), SITE, "")
