"""Store paths, named and hashed the way Nix names and hashes them.

Source of the rules: Nix manual, "Store path specification".
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Iterable

from docker_nix.resolve import base32

STORE_DIR = "/nix/store"
MAX_NAME_LENGTH = 211

_HASH_SIZE = 20
_HASH_LENGTH = base32.encoded_length(_HASH_SIZE)
_HASH_PART = re.compile(f"[{base32.ALPHABET}]{{{_HASH_LENGTH}}}")
_LEGAL_NAME = re.compile(rf"(?!\.)[A-Za-z0-9+\-._?=]{{1,{MAX_NAME_LENGTH}}}")
_ILLEGAL_RUN = re.compile(r"[^A-Za-z0-9+\-._?=]+")
_HEX_LENGTHS = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}


def validate_name(name: str) -> None:
    """Raises ValueError where `name` cannot be the name of a store path."""
    if not _LEGAL_NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot be the name of a store path: a name is 1 to {MAX_NAME_LENGTH} "
            "characters of A-Z, a-z, 0-9 and +-._?=, and does not start with a dot."
        )


def legal_name(text: str) -> str:
    """A legal store path name that resembles `text`; the same text always gives the same name.

    Each run of characters that a name may not hold becomes one dash; dots and dashes are taken
    off the start, dashes off the end; what is too long is cut; where nothing is left, the name is
    `unnamed`. A final `.drv` becomes `-drv`, as Nix takes such a path for a derivation.

    Different texts may give the same name. That is harmless: a store path's hash tells contents
    apart, the name is for people.
    """
    name = _ILLEGAL_RUN.sub("-", text).lstrip(".-")[:MAX_NAME_LENGTH].rstrip("-")
    if name.endswith(".drv"):
        name = f"{name[:-4]}-drv"
    return name or "unnamed"


def split_path(path: str) -> tuple[str, str]:
    """The hash part and the name of the store path `path`.

    Raises ValueError where `path` is not exactly `/nix/store/<hash>-<name>`.
    """
    store_dir, _, base_name = path.rpartition("/")
    digest, dash, name = base_name.partition("-")
    if store_dir != STORE_DIR or not dash or not _HASH_PART.fullmatch(digest):
        raise ValueError(
            f"{path!r} is not a store path: it should be {STORE_DIR}/<hash>-<name>, where the "
            f"hash is {_HASH_LENGTH} characters of {base32.ALPHABET}."
        )
    validate_name(name)
    return digest, name


def hash_part(path: str) -> str:
    """The 32 characters before the name; raises ValueError where `path` is no store path."""
    return split_path(path)[0]


def name_part(path: str) -> str:
    """The name after the hash; raises ValueError where `path` is no store path."""
    return split_path(path)[1]


def make_store_path(type_: str, hash_hex: str, name: str) -> str:
    """The full store path for a fingerprint's `type_`, inner SHA-256 (hex) and `name`.

    Raises ValueError for an illegal name, or a hash that is not 64 lower-case hex digits.
    """
    validate_name(name)
    _validate_hex("sha256", hash_hex)
    fingerprint = f"{type_}:sha256:{hash_hex}:{STORE_DIR}:{name}"
    folded = _fold(hashlib.sha256(fingerprint.encode()).digest())
    return f"{STORE_DIR}/{base32.encode(folded)}-{name}"


def source_path(
    nar_sha256_hex: str,
    name: str,
    references: Iterable[str] = (),
    self_reference: bool = False,
) -> str:
    """The path of a tree that is named by its NAR hash, as `nix-store --add` names it.

    `references` are full store paths, in any order.
    """
    type_ = _with_references("source", references)
    return make_store_path(f"{type_}:self" if self_reference else type_, nar_sha256_hex, name)


def fixed_output_path(algo: str, hash_hex: str, name: str, recursive: bool) -> str:
    """The path of a fixed-output derivation's output.

    `algo` is md5, sha1, sha256 or sha512, and `hash_hex` the hash in it: of the NAR if
    `recursive`, else of the file's bytes.
    """
    _validate_hex(algo, hash_hex)
    if recursive and algo == "sha256":
        return source_path(hash_hex, name)
    inner = f"fixed:out:{'r:' if recursive else ''}{algo}:{hash_hex}:"
    return make_store_path("output:out", _sha256(inner.encode()), name)


def text_path(contents: bytes, name: str, references: Iterable[str] = ()) -> str:
    """The path of a text file, as `builtins.toFile` names it."""
    return make_store_path(_with_references("text", references), _sha256(contents), name)


def input_addressed_path(
    name: str,
    digest_fingerprint: str,
    digest_size: int,
    references: Iterable[str] = (),
    kind: str = "tree",
) -> str:
    """The path of a tree built by Pants: a function of its Pants digest and its references.

    `digest_fingerprint` (hex) and `digest_size` (bytes) are the Pants `Digest`. `kind` says what is
    made of the digest, so that, say, an archive and the tree unpacked from it have two paths.

    The fingerprint is that of an output in Nix, over the SHA-256 of a JSON list, which cannot
    mean two things. Its first element changes whenever the same digest comes to give other bytes.
    """
    _validate_hex("sha256", digest_fingerprint)
    inputs = ["docker-nix-1", kind, digest_fingerprint, digest_size, _sorted_paths(references)]
    inner = json.dumps(inputs, separators=(",", ":"))
    return make_store_path("output:out", _sha256(inner.encode()), name)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _fold(digest: bytes) -> bytes:
    """`digest` made 20 bytes long by xoring what is beyond onto the start."""
    folded = bytearray(_HASH_SIZE)
    for index, byte in enumerate(digest):
        folded[index % _HASH_SIZE] ^= byte
    return bytes(folded)


def _sorted_paths(paths: Iterable[str]) -> list[str]:
    """`paths` sorted, each once; raises ValueError for one that is no store path."""
    unique = sorted(set(paths))
    for path in unique:
        split_path(path)
    return unique


def _with_references(type_: str, references: Iterable[str]) -> str:
    return ":".join([type_, *_sorted_paths(references)])


def _validate_hex(algo: str, hash_hex: str) -> None:
    if algo not in _HEX_LENGTHS:
        raise ValueError(f"{algo!r} is not a hash of Nix: it has {', '.join(_HEX_LENGTHS)}.")
    if not re.fullmatch(f"[0-9a-f]{{{_HEX_LENGTHS[algo]}}}", hash_hex):
        raise ValueError(
            f"{hash_hex!r} is not a {algo} hash: it should be {_HEX_LENGTHS[algo]} lower-case hex "
            "digits."
        )
