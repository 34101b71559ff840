"""The base step: what `from_image` names becomes an image, and its layers become one tree of files.

A consumer of a base needs the tree, which comes from a small cached index per layer, and not the
layers themselves.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Iterable, List

from pants.core.target_types import (
    FilesGeneratingSourcesField,
    FileSourceField,
    ResourcesGeneratingSourcesField,
    ResourceSourceField,
)
from pants.core.util_rules.environments import EnvironmentNameRequest
from pants.engine.addresses import Address, Addresses, UnparsedAddressInputs
from pants.engine.environment import EnvironmentName
from pants.engine.fs import (
    CreateDigest,
    Digest,
    DigestContents,
    DigestEntries,
    DigestSubset,
    FileDigest,
    FileEntry,
    PathGlobs,
)
from pants.engine.rules import Get, MultiGet, collect_rules, rule
from pants.engine.target import (
    FieldSet,
    HydratedSources,
    HydrateSourcesRequest,
    InferDependenciesRequest,
    InferredDependencies,
    SourcesField,
    Target,
    UnexpandedTargets,
)
from pants.engine.unions import UnionRule
from pants.util.logging import LogLevel

from docker_nix.assemble.image import BuiltImage, ImageLayer, RegistryImage, libraries_to_read
from docker_nix.assemble.image_config import Platform, to_json_bytes
from docker_nix.assemble.manifest import CONFIG_TYPE, Descriptor, manifest_json
from docker_nix.assemble.rules import LayeredImageFieldSet, SingleImageFieldSet
from docker_nix.base.tree import BaseTree
from docker_nix.base.types import (
    BaseTreeRequest,
    Blobs,
    BlobsRequest,
    FromImageRequest,
    LayerIndex,
    LayerIndexRequest,
    TargetImageRequest,
)
from docker_nix.base_fields import FromImageField
from docker_nix.errors import field_error
from docker_nix.layer.native_libraries import TO_COMPRESS
from docker_nix.layer.tool_process import ToolFailed, ToolResult, ToolRun
from docker_nix.pull.rules import PulledLayers, PullFieldSet


async def _address(field: FromImageField) -> Addresses:
    return await Get(
        Addresses,
        UnparsedAddressInputs(
            (field.value,) if field.value else (),
            owning_address=field.address,
            description_of_origin=f"the '{field.alias}' field in target {field.address}",
        ),
    )


async def _check_that_bases_end(owner: Address, field: FromImageField, base: Target) -> None:
    """Raises an error where the image `base` is itself built on the target `owner`.

    The engine would find the circle too, but not always where it can be told to whom it belongs.
    """
    chain: List[Address] = []
    while base.address not in chain:
        chain.append(base.address)
        if base.address == owner:
            raise field_error(
                owner,
                field.alias,
                f"is {field.value!r}, an image that is itself built on this one: "
                f"{' -> '.join(map(str, (owner, *chain)))}.",
                "Base one of them on another image.",
            )
        addresses = await _address(base.get(FromImageField))
        if not addresses:
            return
        (base,) = await Get(UnexpandedTargets, Addresses, addresses)


async def _single_file(request: FromImageRequest, target: Target) -> FileDigest:
    owner, field = request.owner, request.from_image
    sources = await Get(
        HydratedSources,
        HydrateSourcesRequest(
            target.get(SourcesField),
            for_sources_types=(
                FileSourceField,
                FilesGeneratingSourcesField,
                ResourceSourceField,
                ResourcesGeneratingSourcesField,
            ),
            enable_codegen=True,
        ),
    )
    entries = await Get(DigestEntries, Digest, sources.snapshot.digest)
    files = [entry for entry in entries if isinstance(entry, FileEntry)]
    if len(files) != 1:
        what = f"has {len(files)} files" if files else "has no files"
        raise field_error(
            owner,
            field.alias,
            f"is {field.value!r}, but {target.address}, a `{target.alias}` target, is no image and "
            f"{what}.",
            "Name an image target, a `docker_nix_pull`, or a `file` with a docker-archive or an "
            "OCI layout archive.",
        )
    return files[0].file_digest


async def _split_archive(request: FromImageRequest, target: Target) -> Digest:
    """The output of the tool's `split-archive`."""
    owner, field = request.owner, request.from_image
    archive = await _single_file(request, target)
    run = ToolRun(
        "split-archive",
        to_json_bytes(
            {
                "file": "in/archive",
                "name": request.name.value,
                "tag": request.tag.value,
                "platform": request.platform.to_json(),
                "compression": request.compression,
            }
        ),
        await Get(Digest, CreateDigest([FileEntry("in/archive", archive)])),
        (),
        TO_COMPRESS[request.compression],
        output_directories=("image",),
        description=f"Reading the image archive of {target.address}",
    )
    problem = f"is {field.value!r}, whose archive cannot be used."
    while True:
        try:
            result = await Get(ToolResult, ToolRun, run)
        except ToolFailed as e:
            output = e.output.strip().replace("the image archive archive", "the archive", 1)
            raise field_error(owner, field.alias, problem, output) from e
        subset = DigestSubset(result.digest, PathGlobs(["image/lacks.json"]))
        lacks = await Get(DigestContents, DigestSubset, subset)
        if not lacks:
            return result.digest
        lacking = json.loads(lacks[0].content)
        if lacking["library"] in run.libraries:
            raise field_error(owner, field.alias, problem, f"error: {lacking['message']}")
        run = replace(run, libraries=tuple(sorted({*run.libraries, lacking["library"]})))


async def _image_of_archive(request: FromImageRequest, target: Target) -> BuiltImage:
    digest = await _split_archive(request, target)
    described, entries = await MultiGet(
        Get(
            Digest,
            DigestSubset(digest, PathGlobs(["image/config.json", "image/layers.json"])),
        ),
        Get(DigestEntries, Digest, digest),
    )
    digests = {entry.path: entry.file_digest for entry in entries if isinstance(entry, FileEntry)}
    files = {file.path: file.content for file in await Get(DigestContents, Digest, described)}
    config_json = files["image/config.json"]
    config = json.loads(config_json)
    layers = tuple(
        ImageLayer(
            "base",
            FileDigest(layer["digest"].partition(":")[2], layer["size"]),
            layer["compression"],
            layer["diff_id"],
            None,
            index=digests[f"image/layers/{layer['digest'].partition(':')[2]}.json"],
        )
        for layer in json.loads(files["image/layers.json"])
    )
    return BuiltImage(
        target.address.target_name,
        ("latest",),
        Platform(
            config.get("architecture") or request.platform.architecture,
            config.get("os") or request.platform.os,
            config.get("variant") or None,
        ),
        config_json,
        manifest_json(
            Descriptor.of(CONFIG_TYPE, config_json), [layer.descriptor for layer in layers]
        ),
        layers,
    )


@rule
async def image_of_target(request: TargetImageRequest) -> BuiltImage:
    (target,) = await Get(UnexpandedTargets, Addresses((request.address,)))
    environment = await Get(
        EnvironmentName, EnvironmentNameRequest, EnvironmentNameRequest.from_target(target)
    )
    if LayeredImageFieldSet.is_applicable(target):
        layered = LayeredImageFieldSet.create(target)
        return await Get(BuiltImage, {layered: LayeredImageFieldSet, environment: EnvironmentName})
    if SingleImageFieldSet.is_applicable(target):
        single = SingleImageFieldSet.create(target)
        return await Get(BuiltImage, {single: SingleImageFieldSet, environment: EnvironmentName})
    pulled = PullFieldSet.create(target)
    return await Get(BuiltImage, {pulled: PullFieldSet, environment: EnvironmentName})


@rule(desc="Resolve a base image", level=LogLevel.DEBUG)
async def resolve_from_image(request: FromImageRequest) -> BuiltImage:
    owner, field = request.owner, request.from_image
    addresses = await _address(field)
    (target,) = await Get(UnexpandedTargets, Addresses, addresses)
    if target.address == owner:
        raise field_error(
            owner, field.alias, "names the target itself.", "Name another image, or none."
        )
    await _check_that_bases_end(owner, field, target)
    if not any(
        kind.is_applicable(target)
        for kind in (LayeredImageFieldSet, SingleImageFieldSet, PullFieldSet)
    ):
        return await _image_of_archive(request, target)
    for chosen in (request.name, request.tag):
        if chosen.value is not None:
            raise field_error(
                owner,
                chosen.alias,
                f"is {chosen.value!r}, but {target.address} is one image, not an archive of "
                "several.",
                "Remove the field.",
            )
    return await Get(BuiltImage, TargetImageRequest(target.address))


async def _index_file(digest: Digest, path: str) -> LayerIndex:
    only = await Get(Digest, DigestSubset(digest, PathGlobs([path])))
    (file,) = await Get(DigestContents, Digest, only)
    return LayerIndex(json.loads(file.content))


@rule(desc="Index a layer", level=LogLevel.DEBUG)
async def index_layer(request: LayerIndexRequest) -> LayerIndex:
    layer = request.layer
    if layer.registry:
        pulled = await Get(PulledLayers, RegistryImage, layer.registry)
        return await _index_file(pulled.digest, f"layers/{layer.blob.fingerprint}.json")
    if layer.index:
        known = await Get(Digest, CreateDigest([FileEntry("index.json", layer.index)]))
        return await _index_file(known, "index.json")
    input_digest = await Get(Digest, CreateDigest([FileEntry("in/layer", layer.blob)]))
    result = await Get(
        ToolResult,
        ToolRun(
            "layer-index",
            to_json_bytes({"file": "in/layer", "diff_id": layer.diff_id}),
            input_digest,
            ("layer-index.json",),
            libraries_to_read([layer.compression]),
            description="Reading a layer of a base image",
        ),
    )
    return await _index_file(result.digest, "layer-index.json")


@rule(desc="Merge the layers of a base image", level=LogLevel.DEBUG)
async def merge_layers(request: BaseTreeRequest) -> BaseTree:
    indexes = await MultiGet(Get(LayerIndex, LayerIndexRequest(layer)) for layer in request.layers)
    return BaseTree.of([one.index for one in indexes])


@rule
async def fetch_blobs(request: BlobsRequest) -> Blobs:
    images = dict.fromkeys(layer.registry for layer in request.layers if layer.registry)
    await MultiGet(Get(PulledLayers, RegistryImage, image) for image in images)
    return Blobs()


@dataclass(frozen=True)
class FromImageFieldSet(FieldSet):
    required_fields = (FromImageField,)

    from_image: FromImageField


class InferBaseImage(InferDependenciesRequest):
    infer_from = FromImageFieldSet


@rule(desc="Infer the dependency on a base image", level=LogLevel.DEBUG)
async def infer_base_image(request: InferBaseImage) -> InferredDependencies:
    return InferredDependencies(await _address(request.field_set.from_image))


def rules() -> Iterable[object]:
    return (*collect_rules(), UnionRule(InferDependenciesRequest, InferBaseImage))
