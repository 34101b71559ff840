"""What `package` writes for an image: an OCI layout or a docker-archive, and a report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Tuple, Union

from pants.core.goals.package import (
    BuiltPackage,
    BuiltPackageArtifact,
    OutputPathField,
    PackageFieldSet,
)
from pants.engine.addresses import Address
from pants.engine.fs import (
    AddPrefix,
    CreateDigest,
    Digest,
    DigestEntries,
    FileContent,
    FileEntry,
    MergeDigests,
)
from pants.engine.rules import Get, MultiGet, collect_rules, rule
from pants.engine.unions import UnionRule
from pants.util.logging import LogLevel

from docker_nix.assemble.docker_info import ImageName, LayerInfo, docker_info_json
from docker_nix.assemble.image import BuiltImage, libraries_to_read
from docker_nix.assemble.image_config import to_json_bytes
from docker_nix.assemble.layout import Layout, LayoutRequest
from docker_nix.assemble.rules import ImageFieldSet, LayeredImageFieldSet, SingleImageFieldSet
from docker_nix.base.types import Blobs, BlobsRequest, LayerIndex, LayerIndexRequest
from docker_nix.errors import DockerNixError, field_error
from docker_nix.image_fields import OutputFormatField
from docker_nix.layer.tool_process import ToolFailed, ToolResult, ToolRun
from docker_nix.output_path import checked_output_path
from docker_nix.publish.image_names import names_of
from docker_nix.pull.rules import PullFieldSet
from docker_nix.sizes import size_text
from docker_nix.subsystem import DockerNixSubsystem


@dataclass(frozen=True)
class PackageImageRequest:
    """A request to write `image` as its target's fields say."""

    image: BuiltImage
    names: Tuple[ImageName, ...]
    address: Address
    output_format: OutputFormatField
    output_path: OutputPathField

    @classmethod
    def of(
        cls,
        image: BuiltImage,
        names: Tuple[ImageName, ...],
        field_set: Union[ImageFieldSet, PullFieldSet],
    ) -> PackageImageRequest:
        return cls(image, names, field_set.address, field_set.output_format, field_set.output_path)


def _docker_info(image: BuiltImage, names: Tuple[ImageName, ...], output_format: str) -> bytes:
    layers = [
        LayerInfo(
            kind=layer.kind,
            digest=layer.descriptor.digest,
            media_type=layer.descriptor.media_type,
            size=layer.descriptor.size,
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
    return docker_info_json(
        image_id=image.image_id,
        digest=image.manifest.digest,
        names=names,
        platform=image.platform,
        output_format=output_format,
        layers=layers,
    )


async def _docker_archive(
    image: BuiltImage, names: Tuple[ImageName, ...], file_name: str
) -> Digest:
    """One tar for old tools. It has the layers in it, so it is made by a process."""
    await Get(Blobs, BlobsRequest(image.layers))
    blobs = {layer.descriptor.path: layer for layer in image.layers}
    # The layers of a base were not packed here, so their sizes come from their indexes.
    unknown = [layer for layer in image.layers if layer.diff_size is None]
    indexes = await MultiGet(Get(LayerIndex, LayerIndexRequest(layer)) for layer in unknown)
    sizes = {layer.diff_id: layer.diff_size for layer in image.layers}
    sizes.update((layer.diff_id, one.index["diff_size"]) for layer, one in zip(unknown, indexes))
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
                    "repo_tags": [name.full for name in names],
                    "layers": [
                        {
                            "file": f"in/{layer.descriptor.path}",
                            "compression": layer.compression,
                            "diff_id": layer.diff_id,
                            "diff_size": sizes[layer.diff_id],
                        }
                        for layer in image.layers
                    ],
                }
            ),
            input_digest,
            ("image.tar",),
            libraries_to_read(layer.compression for layer in image.layers),
            description="Writing a docker-archive",
        ),
    )
    (archive,) = await Get(DigestEntries, Digest, result.digest)
    assert isinstance(archive, FileEntry)
    return await Get(Digest, CreateDigest([FileEntry(file_name, archive.file_digest)]))


@rule(desc="Package an image", level=LogLevel.DEBUG)
async def package_image(request: PackageImageRequest, options: DockerNixSubsystem) -> BuiltPackage:
    image, names = request.image, request.names
    output_format = options.checked_output_format or request.output_format.value
    archive = output_format == "docker-archive"
    path = checked_output_path(request.output_path, "tar" if archive else None)
    try:
        if archive:
            output = await _docker_archive(image, names, path)
            use = f"load it with (in the distdir): docker load -i {path}"
        else:
            full = output_format == "oci"
            layout = await Get(
                Layout,
                LayoutRequest(
                    image,
                    image.layers if full else (),
                    tuple(dict.fromkeys(name.tag for name in names)),
                    tuple(name.full for name in names) if full else (),
                ),
            )
            output = await Get(Digest, AddPrefix(layout.digest, path))
            use = f"load it with (in the distdir): tar -cC {path} . | docker load"
            if not full:
                use = "written without its layers, as its output format is 'metadata'"
    except ToolFailed as e:
        raise DockerNixError(f"The target {request.address} cannot be built. {e}") from e
    stem = path[: -len(".tar")] if path.endswith(".tar") else path
    info_path = f"{stem}.docker-info.json"
    info = await Get(
        Digest, CreateDigest([FileContent(info_path, _docker_info(image, names, output_format))])
    )
    digest = await Get(Digest, MergeDigests((output, info)))
    size = sum(layer.descriptor.size for layer in image.layers)
    return BuiltPackage(
        digest,
        (
            BuiltPackageArtifact(
                path,
                extra_log_lines=(
                    *(f"  image: {name.full}" for name in names),
                    f"  image ID: {image.image_id}",
                    f"  {len(image.layers)} layers, {size_text(size)}",
                    f"  {use}",
                ),
            ),
            BuiltPackageArtifact(info_path),
        ),
    )


@rule
async def package_layered_image(
    field_set: LayeredImageFieldSet, options: DockerNixSubsystem
) -> BuiltPackage:
    output_format = options.checked_output_format or field_set.output_format.value
    if output_format == "docker-archive" and field_set.compression.value == "zstd":
        raise field_error(
            field_set.address,
            "compression",
            "is 'zstd', but a docker-archive holds its layers uncompressed.",
            "Remove it, or use output_format='oci'.",
        )
    image = await Get(BuiltImage, LayeredImageFieldSet, field_set)
    names = names_of(image, field_set, options)
    return await Get(
        BuiltPackage, PackageImageRequest, PackageImageRequest.of(image, names, field_set)
    )


@rule
async def package_single_image(
    field_set: SingleImageFieldSet, options: DockerNixSubsystem
) -> BuiltPackage:
    image = await Get(BuiltImage, SingleImageFieldSet, field_set)
    names = names_of(image, field_set, options)
    return await Get(
        BuiltPackage, PackageImageRequest, PackageImageRequest.of(image, names, field_set)
    )


@rule
async def package_pulled_image(field_set: PullFieldSet) -> BuiltPackage:
    image = await Get(BuiltImage, PullFieldSet, field_set)
    names = tuple(ImageName(image.name, tag) for tag in image.tags)
    return await Get(
        BuiltPackage, PackageImageRequest, PackageImageRequest.of(image, names, field_set)
    )


def rules() -> Iterable[object]:
    return (
        *collect_rules(),
        UnionRule(PackageFieldSet, LayeredImageFieldSet),
        UnionRule(PackageFieldSet, SingleImageFieldSet),
        UnionRule(PackageFieldSet, PullFieldSet),
    )
