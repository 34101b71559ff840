"""What `package` writes for an image: an OCI layout or a docker-archive, and a report."""

from __future__ import annotations

import posixpath
from typing import Dict, Iterable, Tuple, Union

from pants.core.goals.package import BuiltPackage, BuiltPackageArtifact, PackageFieldSet
from pants.engine.fs import (
    AddPrefix,
    CreateDigest,
    Digest,
    DigestEntries,
    FileContent,
    FileEntry,
    MergeDigests,
)
from pants.engine.rules import Get, collect_rules, rule
from pants.engine.unions import UnionRule
from pants.util.logging import LogLevel

from docker_nix.assemble import manifest as oci
from docker_nix.assemble.docker_info import ImageName, LayerInfo, docker_info_json
from docker_nix.assemble.image_config import to_json_bytes
from docker_nix.assemble.rules import BuiltImage, LayeredImageFieldSet, layer_descriptor
from docker_nix.errors import DockerNixError, field_error
from docker_nix.layer.tool_process import ToolFailed, ToolResult, ToolRun


def _names(image: BuiltImage) -> Tuple[ImageName, ...]:
    return tuple(ImageName(image.name, tag) for tag in image.tags)


def _docker_info(image: BuiltImage, output_format: str) -> bytes:
    layers = [
        LayerInfo(
            kind="customisation" if layer.has_root else "store",
            digest=layer.digest,
            media_type=layer_descriptor(layer).media_type,
            size=layer.blob.serialized_bytes_length,
            diff_id=layer.diff_id,
            diff_size=layer.diff_size,
            store_paths=tuple(
                {
                    "path": info.path,
                    "nar_hash": info.nar_hash,
                    "nar_size": info.nar_size,
                    "references": list(info.references),
                }
                for info in layer.store_paths
            ),
        )
        for layer in image.layers
    ]
    manifest = oci.Descriptor.of(oci.MANIFEST_TYPE, image.manifest_json)
    return docker_info_json(
        image_id=image.image_id,
        digest=manifest.digest if output_format == "oci" else None,
        names=_names(image),
        platform=image.platform,
        output_format=output_format,
        layers=layers,
    )


async def _oci_layout(image: BuiltImage) -> Digest:
    """An OCI image layout that `docker load` takes too. The layers are named, not read."""
    manifest = oci.Descriptor.of(oci.MANIFEST_TYPE, image.manifest_json)
    layers = [layer_descriptor(layer) for layer in image.layers]
    files: Dict[str, Union[FileContent, FileEntry]] = {
        descriptor.path: FileEntry(descriptor.path, layer.blob)
        for descriptor, layer in zip(layers, image.layers)
    }
    for path, content in (
        (image.config.path, image.config_json),
        (manifest.path, image.manifest_json),
        ("index.json", oci.index_json(manifest, image.platform, image.tags)),
        ("oci-layout", oci.OCI_LAYOUT),
        (
            "manifest.json",
            oci.load_manifest_json(
                image.config.path,
                [layer.path for layer in layers],
                [name.full for name in _names(image)],
            ),
        ),
    ):
        files[path] = FileContent(path, content)
    return await Get(Digest, CreateDigest(files.values()))


async def _docker_archive(image: BuiltImage, file_name: str) -> Digest:
    """One tar for old tools. It has the layers in it, so it is made by a process."""
    blobs = {oci.blob_path(layer.digest): layer for layer in image.layers}
    inputs = await Get(
        Digest,
        CreateDigest(
            (
                *(FileEntry(path, layer.blob) for path, layer in blobs.items()),
                FileContent("config.json", image.config_json),
            )
        ),
    )
    input_digest = await Get(Digest, AddPrefix(inputs, "in"))
    result = await Get(
        ToolResult,
        ToolRun(
            "docker-archive",
            to_json_bytes(
                {
                    "config_file": "in/config.json",
                    "config_digest_hex": image.image_id.partition(":")[2],
                    "repo_tags": [name.full for name in _names(image)],
                    "layers": [
                        {
                            "file": f"in/{oci.blob_path(layer.digest)}",
                            "compression": layer.compression,
                            "diff_id": layer.diff_id,
                            "diff_size": layer.diff_size,
                        }
                        for layer in image.layers
                    ],
                }
            ),
            input_digest,
            ("image.tar",),
            (),
            description="Writing a docker-archive",
        ),
    )
    (archive,) = await Get(DigestEntries, Digest, result.digest)
    assert isinstance(archive, FileEntry)
    return await Get(Digest, CreateDigest([FileEntry(file_name, archive.file_digest)]))


def _output_path(field_set: LayeredImageFieldSet, ending: str) -> str:
    path = field_set.output_path.value_or_default(file_ending=ending or None)
    if posixpath.isabs(path) or posixpath.normpath(path) != path or path in (".", ".."):
        relative = False
    else:
        relative = not path.startswith("../")
    if not relative:
        raise field_error(
            field_set.address,
            "output_path",
            f"is {path!r}, which is not a plain path below the distdir.",
            "Write it as 'images/app', without a leading or trailing '/', './' or '..'.",
        )
    return path


@rule(desc="Package an image", level=LogLevel.DEBUG)
async def package_layered_image(field_set: LayeredImageFieldSet) -> BuiltPackage:
    output_format = field_set.output_format.value
    archive = output_format == "docker-archive"
    if archive and field_set.compression.value == "zstd":
        raise field_error(
            field_set.address,
            "compression",
            "is 'zstd', but a docker-archive holds its layers uncompressed.",
            "Remove it, or use output_format='oci'.",
        )
    path = _output_path(field_set, "tar" if archive else "")
    image = await Get(BuiltImage, LayeredImageFieldSet, field_set)

    if archive:
        try:
            output = await _docker_archive(image, path)
        except ToolFailed as e:
            raise DockerNixError(f"The target {field_set.address} cannot be built. {e}") from e
        load = f"docker load -i {path}"
    else:
        output = await Get(Digest, AddPrefix(await _oci_layout(image), path))
        load = f"tar -cC {path} . | docker load"
    stem = path[: -len(".tar")] if path.endswith(".tar") else path
    info_path = f"{stem}.docker-info.json"
    info = await Get(
        Digest, CreateDigest([FileContent(info_path, _docker_info(image, output_format))])
    )
    digest = await Get(Digest, MergeDigests((output, info)))
    size = sum(layer.blob.serialized_bytes_length for layer in image.layers)
    return BuiltPackage(
        digest,
        (
            BuiltPackageArtifact(
                path,
                extra_log_lines=(
                    *(f"  image: {name.full}" for name in _names(image)),
                    f"  image ID: {image.image_id}",
                    f"  {len(image.layers)} layers, {size / 1e6:.1f} MB",
                    f"  load it with (in the distdir): {load}",
                ),
            ),
            BuiltPackageArtifact(info_path),
        ),
    )


def rules() -> Iterable[object]:
    return (*collect_rules(), UnionRule(PackageFieldSet, LayeredImageFieldSet))
