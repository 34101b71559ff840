"""docs/reference.md says what the help texts say, on any machine and with any settings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from support.workspace import checkout


def test_the_reference_is_current(tmp_path: Path) -> None:
    """If this fails, run `build-support/reference.py` and commit what it writes."""
    root = tmp_path / "checkout"
    checkout(root)
    reference = root / "docs/reference.md"
    committed = reference.read_text()

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(root / "build-support/reference.py"), *args],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Nothing of these may be seen in it.
            env={**os.environ, "PANTS_DOCKER_NIX_PYTHON": "/of/this/machine"},
        )

    done = run("--check")
    assert done.returncode == 0, done.stderr
    # Every field and option is explained.
    texts = re.findall(r"\n\*In [^\n]*\.\*\n\n(.*?)\n(?=\n<a|\n## )", committed, re.DOTALL)
    assert len(texts) == committed.count("<a id=") and min(map(len, texts)) > 20
    options = re.findall(r"\n\*`--[^\n]*\*\n\n(.*?)(?=\n#|$)", committed, re.DOTALL)
    assert len(options) == committed.count("\n#### ") and min(map(len, options)) > 20
    assert str(tmp_path) not in committed and "/of/this/machine" not in committed

    reference.write_text(committed.replace("### `contents`", "### `content`"))
    stale = run("--check")
    assert stale.returncode == 1
    assert "-### `content`\n+### `contents`\n" in stale.stderr
    assert stale.stderr.endswith(
        "docs/reference.md is not current; run: build-support/reference.py\n"
    )
    assert run().returncode == 0
    assert reference.read_text() == committed
    assert run("--help").returncode == 2
