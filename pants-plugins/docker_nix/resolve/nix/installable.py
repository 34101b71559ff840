"""References to flakes with an attribute: `github:owner/repo/<rev>#attribute`, `.#attribute`.

Source: Nix manual, "nix flake", "Flake references", and "nix", "Installables".
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import Optional

_COMMIT = re.compile(r"[0-9a-f]{40}")
_FORGES = ("github", "gitlab", "sourcehut")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


class BadInstallable(ValueError):
    """What is no installable, or none for an image; the message goes on after "is '…', "."""


@dataclass(frozen=True)
class Installable:
    """An installable.

    :param text: as Nix takes it; for a flake of the repository, what comes after its directory.
    :param directory: of a flake in the repository, relative to the build root; None otherwise.
    """

    text: str
    directory: Optional[str] = None

    @property
    def unlocked_reference(self) -> Optional[str]:
        """The flake reference, where it may mean something else tomorrow; None otherwise."""
        reference = self.text.partition("#")[0]
        return None if self.directory is not None or _is_locked(reference) else reference


def parse_installable(text: str, spec_path: str) -> Installable:
    """Reads an installable in a BUILD file of the directory `spec_path`.

    A relative path is relative to that directory. Raises BadInstallable.
    """
    reference, hash_, fragment = text.partition("#")
    if not text.strip() or text != text.strip() or text.startswith("-"):
        raise BadInstallable("which is no flake reference. Write it as '.#name'")
    if "^" in fragment:
        raise BadInstallable("which selects outputs. Name them in the 'outputs' field")
    if text.startswith("/nix/store/"):
        raise BadInstallable("which is a store path. Give it as 'store_path'")
    path, _, query = reference.partition("?")
    if path.startswith("path:"):
        path = path[len("path:") :]
    elif _URL.match(path) or not (path in ("", ".", "..") or path.startswith(("./", "../"))):
        return Installable(text)
    if path.startswith("/"):
        return Installable(text)
    if query:
        raise BadInstallable(
            "a flake in the repository with a query. Write the path alone, as './directory#name'"
        )
    directory = posixpath.normpath(posixpath.join(spec_path, path or "."))
    if directory == ".." or directory.startswith("../"):
        raise BadInstallable("which leads out of the repository. Name a flake inside, or a URL")
    return Installable(hash_ + fragment, "" if directory == "." else directory)


def _is_locked(reference: str) -> bool:
    path, _, query = reference.partition("?")
    names = dict(pair.partition("=")[::2] for pair in query.split("&"))
    if _COMMIT.fullmatch(names.get("rev", "")) or names.get("narHash"):
        return True
    scheme, _, rest = path.partition(":")
    return scheme in _FORGES and bool(_COMMIT.fullmatch(rest.rpartition("/")[2]))
