"""`docker_nix_export`: the root file system of an image as one tar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable

from pants.core.goals.package import (
    BuiltPackage,
    BuiltPackageArtifact,
    OutputPathField,
    PackageFieldSet,
)
from pants.core.util_rules.environments import EnvironmentField
from pants.engine.fs import CreateDigest, Digest, DigestEntries, FileEntry
from pants.engine.platform import Platform as BuildPlatform
from pants.engine.rules import Get, collect_rules, rule
from pants.engine.unions import UnionRule
from pants.util.logging import LogLevel

from docker_nix.assemble.image import BuiltImage, libraries_to_read
from docker_nix.assemble.image_config import to_json_bytes
from docker_nix.base.types import Blobs, BlobsRequest, FromImageRequest
from docker_nix.base_fields import ExportFromImageField, FromImageNameField, FromImageTagField
from docker_nix.build_platform import default_platform
from docker_nix.errors import DockerNixError
from docker_nix.layer.layer_inputs import layer_files, layer_specs
from docker_nix.layer.tool_process import ToolFailed, ToolResult, ToolRun
from docker_nix.output_path import checked_output_path
from docker_nix.sizes import size_text


@dataclass(frozen=True)
class ExportFieldSet(PackageFieldSet):
    required_fields = (ExportFromImageField,)

    from_image: ExportFromImageField
    from_image_name: FromImageNameField
    from_image_tag: FromImageTagField
    output_path: OutputPathField
    environment: EnvironmentField


@rule(desc="Export the root file system of an image", level=LogLevel.DEBUG)
async def export_image(field_set: ExportFieldSet, build_platform: BuildPlatform) -> BuiltPackage:
    path = checked_output_path(field_set.output_path, "tar")
    image = await Get(
        BuiltImage,
        FromImageRequest(
            field_set.from_image,
            field_set.from_image_name,
            field_set.from_image_tag,
            default_platform(build_platform),
            "none",
        ),
    )
    try:
        await Get(Blobs, BlobsRequest(image.layers))
        layers = [(layer.blob, layer.diff_id) for layer in image.layers]
        input_digest = await Get(Digest, CreateDigest, layer_files(layers, "in"))
        result = await Get(
            ToolResult,
            ToolRun(
                "export",
                to_json_bytes({"layers": layer_specs(layers, "in")}),
                input_digest,
                ("rootfs.tar",),
                libraries_to_read(layer.compression for layer in image.layers),
                description=f"Exporting the root file system of {len(image.layers)} layers",
            ),
        )
    except ToolFailed as e:
        raise DockerNixError(f"The target {field_set.address} cannot be built. {e}") from e
    (tar,) = await Get(DigestEntries, Digest, result.digest)
    assert isinstance(tar, FileEntry)
    digest = await Get(Digest, CreateDigest([FileEntry(path, tar.file_digest)]))
    size = tar.file_digest.serialized_bytes_length
    return BuiltPackage(
        digest, (BuiltPackageArtifact(path, extra_log_lines=(f"  {size_text(size)}",)),)
    )


def rules() -> Iterable[object]:
    return (*collect_rules(), UnionRule(PackageFieldSet, ExportFieldSet))
