"""The assemble step: layers become an image. It reads JSON and digests, never a layer's bytes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Iterable, Mapping, Tuple

from pants.core.goals.package import OutputPathField, PackageFieldSet
from pants.core.util_rules.environments import EnvironmentField
from pants.engine.internals.native_engine import IntrinsicError
from pants.engine.platform import Platform as BuildPlatform
from pants.engine.rules import Get, MultiGet, _uncacheable_rule, collect_rules, rule
from pants.util.frozendict import FrozenDict
from pants.util.logging import LogLevel

from docker_nix.assemble.image_config import (
    CREATED_DEFAULT,
    HistoryEntry,
    Platform,
    default_image_name,
    image_config_json,
)
from docker_nix.assemble.manifest import CONFIG_TYPE, LAYER_TYPES, Descriptor, manifest_json
from docker_nix.errors import DockerNixError, field_error
from docker_nix.layer.links import Collision, HashesNeeded, link_farm
from docker_nix.layer.rules import BuiltLayer, LayerRequest, RootPart
from docker_nix.plan.layers import plan_layers
from docker_nix.resolve.image_contents import ImageContents, ImageContentsRequest
from docker_nix.resolve.references import fill, parse_text
from docker_nix.resolve.types import Listing, ListingRequest
from docker_nix.target_types import (
    ArchitectureField,
    CompressionField,
    ContentsField,
    CreatedField,
    ExtraCommandsField,
    GidField,
    ImageConfigField,
    ImageNameField,
    ImageTagsField,
    MaxLayersField,
    OsField,
    OutputFormatField,
    ToolsField,
    UidField,
    VariantField,
)

_ARCHITECTURES = {
    BuildPlatform.linux_x86_64: "amd64",
    BuildPlatform.linux_arm64: "arm64",
    BuildPlatform.macos_x86_64: "amd64",
    BuildPlatform.macos_arm64: "arm64",
}


@dataclass(frozen=True)
class LayeredImageFieldSet(PackageFieldSet):
    required_fields = (ContentsField, MaxLayersField)

    image_name: ImageNameField
    image_tags: ImageTagsField
    contents: ContentsField
    config: ImageConfigField
    created: CreatedField
    extra_commands: ExtraCommandsField
    tools: ToolsField
    uid: UidField
    gid: GidField
    architecture: ArchitectureField
    os: OsField
    variant: VariantField
    compression: CompressionField
    output_format: OutputFormatField
    max_layers: MaxLayersField
    output_path: OutputPathField
    environment: EnvironmentField


@dataclass(frozen=True)
class BuiltImage:
    """An image by its JSON and the digests of its layers, lowest first.

    :param name: the repository name.
    :param tags: one or more.
    """

    name: str
    tags: Tuple[str, ...]
    platform: Platform
    config_json: bytes
    manifest_json: bytes
    layers: Tuple[BuiltLayer, ...]

    @property
    def config(self) -> Descriptor:
        return Descriptor.of(CONFIG_TYPE, self.config_json)

    @property
    def image_id(self) -> str:
        return self.config.digest


@dataclass(frozen=True)
class BuildTime:
    """The time of this run, as RFC 3339 in UTC."""

    value: str


@dataclass(frozen=True)
class BuildTimeRequest:
    pass


@_uncacheable_rule
async def build_time(_: BuildTimeRequest) -> BuildTime:
    return BuildTime(datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"))


def layer_descriptor(layer: BuiltLayer) -> Descriptor:
    return Descriptor(
        LAYER_TYPES[layer.compression], layer.digest, layer.blob.serialized_bytes_length
    )


def _filled(value: Any, store_paths: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return fill(parse_text(value), store_paths.__getitem__)
    if isinstance(value, Mapping):
        return {key: _filled(item, store_paths) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_filled(item, store_paths) for item in value]
    return value


async def _links(contents: ImageContents) -> Tuple[Tuple[str, ...], ...]:
    """The link farm of the contents. Archives are read for their hashes only where they meet."""
    objects = {obj.path: obj for obj in contents.closure.objects}
    origins = {path: str(obj.origin) for path, obj in objects.items()}
    listings = dict(contents.listings)
    while True:
        try:
            return link_farm(
                [(path, listings[path].entries) for path in contents.closure.roots], origins
            )
        except HashesNeeded as needed:
            paths = needed.store_paths
        hashed = await MultiGet(
            Get(
                Listing,
                ListingRequest(
                    objects[path].digest, objects[path].unpack, objects[path].origin, hashes=True
                ),
            )
            for path in paths
        )
        listings.update(zip(paths, hashed))


async def _root_part(field_set: LayeredImageFieldSet, contents: ImageContents) -> RootPart:
    try:
        links = await _links(contents)
    except Collision as e:
        raise field_error(
            field_set.address,
            "contents",
            f"has two targets that want different things at one path: {e}.",
            "Leave one of them out, or move it with a `relocated_files` target.",
        ) from e
    script = None
    if field_set.extra_commands.value is not None:
        script = fill(field_set.extra_commands.parts(), contents.script_paths.__getitem__)
    return RootPart(
        links,
        script,
        contents.script_closure.objects,
        field_set.tools.value or (),
        field_set.uid.value,
        field_set.gid.value,
    )


def _history(layer: BuiltLayer) -> HistoryEntry:
    # The time of a store path is that of all store paths; `created` is the image's own.
    names = [info.path for info in layer.store_paths]
    comment = "store path" if len(names) == 1 else "store paths"
    if layer.has_root:
        comment = f"{comment} and links to the contents" if names else "links to the contents"
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return HistoryEntry(CREATED_DEFAULT, shown or "docker_nix", comment)


@rule(desc="Build a layered image", level=LogLevel.DEBUG)
async def build_layered_image(
    field_set: LayeredImageFieldSet, build_platform: BuildPlatform
) -> BuiltImage:
    address = field_set.address
    contents = await Get(
        ImageContents,
        ImageContentsRequest(field_set.contents, field_set.config, field_set.extra_commands),
    )
    objects = {obj.path: obj for obj in contents.closure.objects}
    plan = plan_layers(
        {path: obj.references for path, obj in objects.items()}, field_set.max_layers.value
    )
    compression = field_set.compression.value
    requests = [
        LayerRequest(tuple(objects[path] for path in group), compression) for group in plan.groups
    ]
    requests.append(
        LayerRequest(
            tuple(objects[path] for path in plan.with_customisation),
            compression,
            await _root_part(field_set, contents),
        )
    )
    try:
        layers = await MultiGet(Get(BuiltLayer, LayerRequest, request) for request in requests)
    # They know only the layer, as images share it; the latter is such as a full disk.
    except (DockerNixError, IntrinsicError) as e:
        raise DockerNixError(f"The target {address} cannot be built. {e}") from e

    created = field_set.created.value
    if created == "now":
        created = (await Get(BuildTime, BuildTimeRequest())).value
    platform = Platform(
        field_set.architecture.value or _ARCHITECTURES[build_platform],
        field_set.os.value or "linux",
        field_set.variant.value,
    )
    config_json = image_config_json(
        config=_filled(field_set.config.value or FrozenDict(), contents.config_paths),
        created=created,
        platform=platform,
        diff_ids=[layer.diff_id for layer in layers],
        history=[_history(layer) for layer in layers],
    )
    config = Descriptor.of(CONFIG_TYPE, config_json)
    target_name = address.generated_name or address.target_name
    return BuiltImage(
        field_set.image_name.value
        or default_image_name(address.spec_path, target_name + address.parameters_repr),
        field_set.image_tags.value or (config.digest.partition(":")[2][:32],),
        platform,
        config_json,
        manifest_json(config, [layer_descriptor(layer) for layer in layers]),
        tuple(layers),
    )


def rules() -> Iterable[object]:
    return collect_rules()
