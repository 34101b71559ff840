"""The command `split-archive`: an image from a file, taken apart into a config and layers.

The file is a tar, which may be compressed, of one of two kinds:

- what `docker save` writes: a `manifest.json` that names the config and the layers of each image.
  It is used wherever it is. Layers are `<id>/layer.tar`, perhaps a link to another layer's, or
  `blobs/sha256/<hex>`. Source: the engine's image/spec/v1.2.md.
- an OCI image layout: `index.json` and `blobs/`. Source: OCI image-spec, image-layout.md.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import tarfile
from hashlib import sha256
from typing import Any, BinaryIO, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from docker_nix.layer.tool.blob import BlobWriter
from docker_nix.layer.tool.compress import codec
from docker_nix.layer.tool.decompress import CHUNK_BYTES, CorruptStream, open_stream
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool.libraries import LibraryMissing
from docker_nix.layer.tool.oci_types import (
    Descriptor,
    Json,
    Manifest,
    Platform,
    check_digest,
    choose,
    parse_diff_ids,
    parse_manifest,
)
from docker_nix.layer.tool.tar_reader import MissingEnd, TarMember

OUTPUT, SCRATCH = "image", "scratch"
# Configs and manifests are read into memory; registries allow 4 MiB.
_MAX_JSON_BYTES = 64 << 20
_MAX_INDEXES = 3
_EXPECTED = (
    "expected is an image as `docker save` or `skopeo copy … oci-archive:` writes it; "
    "a root file system goes into `contents`"
)
_COMPRESSIONS = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
)
_OTHER_FORMATS = (
    (b"PK\x03\x04", "a zip"),
    (b"hsqs", "a squashfs"),
    (b"QFI\xfb", "a disk image"),
    (b"\x7fELF", "a program"),
    (b"!<arch>\n", "a Debian package or a library"),
    (b"{", "JSON"),
)
_HEX_NAME = re.compile(r"(?:.*/)?([0-9a-f]{64})(?:\.json)?")


class Wanted(NamedTuple):
    """Which image of several; what is None does not matter."""

    name: Optional[str]
    tag: Optional[str]
    platform: Optional[Platform]

    def fits(self, reference: str) -> bool:
        """Whether this image's name, or `name:tag`, or tag, may be `reference`."""
        name, tag = _name_and_tag(reference)
        if self.tag is not None and self.tag != tag:
            return self.name is None and self.tag == reference
        return self.name is None or _full_name(self.name) == _full_name(name)

    def __str__(self) -> str:
        return ":".join(filter(None, (self.name or "any name", self.tag)))


def main(args: list[str], lib_dir: str) -> None:
    """The command `split-archive [--threads N] SPEC`: writes the directory `image`.

    The spec is an object with `file`, the path of the archive; `name`, `tag` and `platform` (`os`,
    `architecture`, `variant`), each null where it does not matter; and `compression` ("gzip",
    "zstd" or "none") of layers that the archive of `docker save` has uncompressed. All others stay
    as they are. The output is
    - `config.json`, as it is;
    - `layers.json`, the layers from the lowest, each with `digest`, `size`, `diff_id` and
      `compression`;
    - `layers/<hex>`, a layer's blob, and `layers/<hex>.json`, its index (see `layer_index`).

    Where several images fit, it is the first. Where the archive turns out to take a library that
    the tool was not given, the output is `lacks.json` alone, with the `library` and a `message`:
    so it can be tried with few, as libraries are much larger than what most archives take. Raises
    `ToolError`, and then leaves no output.
    """
    from shutil import rmtree

    from docker_nix.layer.tool.pack import thread_count

    threads = "all"
    if args[:1] == ["--threads"] and len(args) == 3:
        _, threads, *args = args
    if len(args) != 1:
        raise ToolError("usage: split-archive [--threads N] SPEC")
    with open(args[0], encoding="utf-8") as file:
        spec = json.load(file)
    os.mkdir(SCRATCH)
    try:
        split(spec, OUTPUT, thread_count(threads), lib_dir)
    except LibraryMissing as missing:
        rmtree(OUTPUT, ignore_errors=True)
        os.mkdir(OUTPUT)
        with open(os.path.join(OUTPUT, "lacks.json"), "w", encoding="utf-8") as file:
            json.dump({"library": missing.library, "message": str(missing)}, file)
    except BaseException:
        rmtree(OUTPUT, ignore_errors=True)
        raise
    finally:
        rmtree(SCRATCH, ignore_errors=True)


def split(spec: Json, output: str, threads: int, lib_dir: str) -> None:
    """Writes what `main` says, for its spec, to the new directory `output`.

    Uses the existing directory `scratch`. Raises `ToolError`, and may leave a part of the output.
    """
    platform = spec["platform"]
    wanted = Wanted(spec["name"], spec["tag"], Platform.of(platform) if platform else None)
    with _open(spec["file"], lib_dir) as archive:
        if "manifest.json" in archive:
            image = _docker_image(archive, wanted)
        elif "index.json" in archive:
            image = _oci_image(archive, wanted)
        else:
            raise ToolError(f"{archive.title} {_looks_like(archive)}; {_EXPECTED}")
        os.makedirs(os.path.join(output, "layers"))
        writer = _LayerWriter(os.path.join(output, "layers"), spec["compression"], threads, lib_dir)
        layers = [writer.write(archive, layer) for layer in image.layers]
    with open(os.path.join(output, "config.json"), "wb") as file:
        file.write(image.config)
    with open(os.path.join(output, "layers.json"), "w", encoding="utf-8") as file:
        json.dump(layers, file, sort_keys=True, separators=(",", ":"))


class _Layer(NamedTuple):
    """A layer in the archive; `title` names it in messages.

    The blob at `path` has `digest`, if that is known. `may_compress` is whether it has to be
    compressed where it is not.
    """

    title: str
    path: str
    digest: Optional[str]
    size: Optional[int]
    diff_id: str
    may_compress: bool


class _Image(NamedTuple):
    config: bytes
    layers: List[_Layer]


class _Archive:
    """The regular files of an uncompressed tar, to be read in any order.

    Names have no leading "./"; links to files of the archive count as those files.
    """

    def __init__(self, file: BinaryIO, title: str) -> None:
        self.title = title
        self._file = file
        self._places: Dict[str, Tuple[int, int]] = {}
        self.names: List[str] = []
        links: Dict[str, str] = {}
        with tarfile.open(
            fileobj=file, mode="r:", tarinfo=TarMember, encoding="utf-8", errors="surrogateescape"
        ) as tar:
            for member in _all_members(tar):
                name = posixpath.normpath(member.name)
                self.names.append(name)
                if member.isreg() and not member.issparse():
                    self._places[name] = (member.offset_data, member.size)
                    links.pop(name, None)
                elif member.issym():
                    target = posixpath.join(posixpath.dirname(name), member.linkname)
                    links[name] = posixpath.normpath(target)
                elif member.islnk():
                    links[name] = posixpath.normpath(member.linkname)
        end = file.seek(0, os.SEEK_END)
        for offset, size in self._places.values():
            if offset + size > end:
                raise tarfile.ReadError("it is truncated")
        for name in links:
            target, seen = name, set()
            while target in links and target not in seen:
                seen.add(target)
                target = links[target]
            if target in self._places:
                self._places[name] = self._places[target]

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __enter__(self) -> _Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def place(self, name: str) -> tuple[int, int]:
        """Where the file `name` is: its offset and its size, in bytes. Links share it."""
        if name not in self._places:
            raise ToolError(f"{self.title} lacks {name}, which it says it has; save it again")
        return self._places[name]

    def read(self, name: str) -> bytes:
        """The content of the file `name`, which must be small."""
        _, size = self.place(name)
        if size > _MAX_JSON_BYTES:
            raise ToolError(f"{self.title}: {name} has {size} bytes, too many for what it is")
        return b"".join(self.chunks(name))

    def chunks(self, name: str) -> Iterator[bytes]:
        """The content of the file `name`, piece by piece."""
        offset, left = self.place(name)
        while left:
            self._file.seek(offset)
            data = self._file.read(min(left, CHUNK_BYTES))
            if not data:
                raise ToolError(f"{self.title} became shorter while it was read")
            yield data
            offset += len(data)
            left -= len(data)

    def starts_with(self, name: str, size: int) -> bytes:
        """The first `size` bytes of the file `name`, or all if it has fewer."""
        offset, length = self.place(name)
        self._file.seek(offset)
        return self._file.read(min(size, length))


def _all_members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    try:
        for member in tar:
            tar.members.clear()  # type: ignore[attr-defined]
            yield member
    except MissingEnd:
        pass  # every file that is used is verified, so nothing can be lost unseen


def _open(path: str, lib_dir: str) -> _Archive:
    title = f"the image archive {os.path.basename(path)}"
    with open(path, "rb") as start:
        magic = start.read(8)
    compression = _sniff(magic)
    if compression != "none":
        path = _unpacked(path, compression, lib_dir, title)
    file = open(path, "rb")
    try:
        return _Archive(file, title)
    except (tarfile.TarError, ValueError) as error:
        file.close()
        for other, kind in _OTHER_FORMATS:
            if magic.startswith(other):
                raise ToolError(f"{title} is {kind}, not a tar; {_EXPECTED}") from error
        raise ToolError(f"{title} is no complete tar ({error}); {_EXPECTED}") from error


def _sniff(magic: bytes) -> str:
    for start, compression in _COMPRESSIONS:
        if magic.startswith(start):
            return compression
    return "none"


def _unpacked(path: str, compression: str, lib_dir: str, title: str) -> str:
    """The path of the uncompressed archive, since a compressed one can only be read in order."""
    result = os.path.join(SCRATCH, "archive.tar")
    try:
        with open_stream(path, compression, lib_dir) as stream, open(result, "wb") as file:
            for data in iter(lambda: stream.read(CHUNK_BYTES), b""):
                file.write(data)
    except CorruptStream as error:
        raise ToolError(f"{title} is damaged: as {compression}, {error}") from error
    return result


def _looks_like(archive: _Archive) -> str:
    top = {name.partition("/")[0] for name in archive.names} - {"."}
    if "repositories" in top:
        return "was saved by a Docker older than 1.10; load it and save it again"
    if "oci-layout" in top or "blobs" in top:
        return "is an OCI image layout without index.json"
    if len(top & {"bin", "etc", "lib", "usr", "var", "sbin", "nix", "dev"}) > 1:
        return "looks like a root file system, not like an image"
    if "oci-layout" in {name.rpartition("/")[2] for name in archive.names}:
        return "has an OCI image layout in a directory of its own; make the archive inside of that"
    if not top:
        return "is an empty tar"
    return f"is a tar without manifest.json and index.json (it has {_some(sorted(top))})"


def _some(names: Sequence[str], limit: int = 8) -> str:
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")


def _docker_image(archive: _Archive, wanted: Wanted) -> _Image:
    what = f"{archive.title}: manifest.json"
    try:
        images = json.loads(archive.read("manifest.json").decode())
    except (ValueError, RecursionError) as error:
        raise ToolError(f"{what} is not JSON: {error}") from error
    if not isinstance(images, list) or not all(map(_is_docker_image, images)):
        raise ToolError(f"{what} is not a list of images; {_EXPECTED}")
    image = _select(images, lambda image: image.get("RepoTags") or [], wanted, archive.title)

    config_path = posixpath.normpath(image["Config"])
    config = archive.read(config_path)
    config_digest = _digest_in_name(config_path)
    if config_digest:
        check_digest(config, config_digest, f"{archive.title}: {config_path}")
    paths = [posixpath.normpath(path) for path in image["Layers"] or []]
    diff_ids = parse_diff_ids(config, len(paths), archive.title)
    return _Image(
        config,
        [
            _Layer(
                title=f"{archive.title}: layer {number} ({path})",
                path=path,
                digest=_digest_in_name(path),
                size=None,
                diff_id=diff_id,
                may_compress=True,
            )
            for number, (path, diff_id) in enumerate(zip(paths, diff_ids), start=1)
        ],
    )


def _is_docker_image(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("Config"), str)
        and all(isinstance(path, str) for path in value.get("Layers") or [])
        and all(isinstance(name, str) for name in value.get("RepoTags") or [])
    )


def _digest_in_name(path: str) -> str | None:
    """The digest that the name of a file claims, where it does."""
    match = _HEX_NAME.fullmatch(path)
    return f"sha256:{match[1]}" if match else None


def _select(images: list[Any], names: Any, wanted: Wanted, title: str) -> Any:
    """The first of the images that has the wanted name and tag among its `names(image)`."""
    if not images:
        raise ToolError(f"{title} has no images in it")
    if wanted.name is None and wanted.tag is None:
        return images[0]
    for image in images:
        if any(wanted.fits(name) for name in names(image)):
            return image
    there = [name for image in images for name in names(image)]
    raise ToolError(f"{title} has no image {wanted}; it has: {_some(there, 50) or 'none by name'}")


def _name_and_tag(reference: str) -> tuple[str, str | None]:
    name, colon, tag = reference.partition("@")[0].rpartition(":")
    # A colon before the last slash belongs to the port of a registry.
    return (name, tag) if colon and "/" not in tag else (reference, None)


def _full_name(name: str) -> str:
    """The name with the registry and the namespace that Docker lets people leave out."""
    first, slash, _ = name.partition("/")
    if first == "index.docker.io":
        name = name[len("index.") :]
    elif not slash:
        return f"docker.io/library/{name}"
    elif not ("." in first or ":" in first or first == "localhost"):
        return f"docker.io/{name}"
    if name.startswith("docker.io/") and name.count("/") == 1:
        return name.replace("/", "/library/")
    return name


def _oci_image(archive: _Archive, wanted: Wanted) -> _Image:
    entries = _parse(archive, archive.read("index.json"), "index.json")
    if isinstance(entries, Manifest):
        raise ToolError(f"{archive.title}: index.json is no index")
    first = _select(entries, _oci_names, wanted, archive.title)
    # One name may stand for an image of each of several platforms.
    entries = [entry for entry in entries if _oci_names(entry) == _oci_names(first)]
    manifest = _resolve(archive, entries, wanted.platform)
    config = _read_blob(archive, manifest.config)
    diff_ids = parse_diff_ids(config, len(manifest.layers), archive.title)
    return _Image(
        config,
        [
            _Layer(
                title=f"{archive.title}: layer {number} ({layer.digest})",
                path=_blob_path(layer),
                digest=layer.digest,
                size=layer.size,
                diff_id=diff_id,
                may_compress=False,
            )
            for number, (layer, diff_id) in enumerate(zip(manifest.layers, diff_ids), start=1)
        ],
    )


def _oci_names(entry: Descriptor) -> list[str]:
    keys = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
    return [str(entry.annotations[key]) for key in keys if entry.annotations.get(key)]


def _resolve(archive: _Archive, entries: list[Descriptor], platform: Platform | None) -> Manifest:
    for _ in range(_MAX_INDEXES):
        if all(entry.platform is None for entry in entries):
            platform_asked, entries = None, entries[:1]  # layouts of one image seldom say it
        else:
            platform_asked = platform
        chosen = choose(entries, platform_asked, archive.title)
        document = _parse(archive, _read_blob(archive, chosen), chosen.digest)
        if isinstance(document, Manifest):
            return document
        entries = document
    raise ToolError(f"{archive.title}: it is an index in an index in an index, and no image")


def _parse(archive: _Archive, data: bytes, name: str) -> Manifest | list[Descriptor]:
    return parse_manifest(data, f"{archive.title}: {name}")


def _read_blob(archive: _Archive, descriptor: Descriptor) -> bytes:
    data = archive.read(_blob_path(descriptor))
    descriptor.check(data, f"{archive.title}: {descriptor.digest}")
    return data


def _blob_path(descriptor: Descriptor) -> str:
    return f"blobs/sha256/{descriptor.hex}"


class _LayerWriter:
    """Writes layers, each verified, as blobs named by their digest and with an index, only once."""

    def __init__(self, directory: str, compression: str, threads: int, lib_dir: str) -> None:
        self._directory = directory
        self._compression = compression
        self._threads = threads
        self._lib_dir = lib_dir
        # Place in the archive, and the layer's diff_id -> what `layers.json` says.
        self._written: Dict[Tuple[int, int, str], Json] = {}

    def write(self, archive: _Archive, layer: _Layer) -> Json:
        """Writes the layer unless it is there; what `layers.json` says of it."""
        key = (*archive.place(layer.path), layer.diff_id)
        if key not in self._written:
            self._written[key] = self._write(archive, layer)
        return self._written[key]

    def _write(self, archive: _Archive, layer: _Layer) -> Json:
        from docker_nix.layer.tool.layer_index import write_index

        scratch = os.path.join(SCRATCH, "layer")
        compression = _sniff(archive.starts_with(layer.path, 8))
        if compression in ("xz", "bzip2"):
            raise ToolError(f"{layer.title} is compressed with {compression}, as no layer may be")
        if compression == "none" and layer.may_compress:
            digest = self._compress(archive, layer, scratch)
        else:
            digest = self._copy(archive, layer, scratch)
        path = os.path.join(self._directory, digest)
        os.replace(scratch, path)
        index = write_index(path, f"{path}.json", self._lib_dir, layer.diff_id)
        return {key: index[key] for key in ("digest", "size", "diff_id", "compression")}

    def _compress(self, archive: _Archive, layer: _Layer, path: str) -> str:
        """Writes the uncompressed layer to `path`, compressed; the blob's digest in hex."""
        with BlobWriter(path, codec(self._compression, self._lib_dir), self._threads) as blob:
            for data in archive.chunks(layer.path):
                blob.write(data)
        for expected in (layer.digest, layer.diff_id):
            if expected not in (None, f"sha256:{blob.diff_digest}"):
                raise ToolError(
                    f"{layer.title} is damaged: its digest is sha256:{blob.diff_digest}, "
                    f"not {expected}"
                )
        return blob.digest

    def _copy(self, archive: _Archive, layer: _Layer, path: str) -> str:
        """Writes the layer to `path` as it is; its digest in hex."""
        hashed = sha256()
        with open(path, "wb") as file:
            for data in archive.chunks(layer.path):
                hashed.update(data)
                file.write(data)
        _, size = archive.place(layer.path)
        if layer.size not in (None, size):
            raise ToolError(f"{layer.title} is damaged: it has {size} bytes, not {layer.size}")
        if layer.digest not in (None, f"sha256:{hashed.hexdigest()}"):
            raise ToolError(
                f"{layer.title} is damaged: its digest is sha256:{hashed.hexdigest()}, "
                f"not {layer.digest}"
            )
        return hashed.hexdigest()
