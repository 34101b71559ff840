"""The assemble step: layers become an image. It reads JSON and digests, never a layer's bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from pants.core.goals.package import OutputPathField, PackageFieldSet
from pants.core.util_rules.environments import EnvironmentField
from pants.engine.fs import CreateDigest, Digest, FileContent
from pants.engine.internals.native_engine import IntrinsicError
from pants.engine.platform import Platform as BuildPlatform
from pants.engine.rules import Get, MultiGet, _uncacheable_rule, collect_rules, rule
from pants.util.frozendict import FrozenDict
from pants.util.logging import LogLevel

from docker_nix.assemble.image import BuiltImage, ImageLayer
from docker_nix.assemble.image_config import (
    CREATED_DEFAULT,
    HistoryEntry,
    Platform,
    image_config_json,
    to_json_bytes,
)
from docker_nix.assemble.inherit import inherited_config, inherited_history
from docker_nix.assemble.manifest import CONFIG_TYPE, Descriptor, manifest_json
from docker_nix.base.tree import BaseTree
from docker_nix.base.types import BaseTreeRequest, Blobs, BlobsRequest, FromImageRequest
from docker_nix.base_fields import FromImageField, FromImageNameField, FromImageTagField
from docker_nix.build_platform import default_platform
from docker_nix.errors import DockerNixError, engine_error, field_error
from docker_nix.image_fields import (
    ArchitectureField,
    CompressionField,
    ContentsField,
    CreatedField,
    DiskSizeField,
    ExtraCommandsField,
    GidField,
    ImageConfigField,
    ImageNameField,
    ImageTagsField,
    IncludeNixDbField,
    KeepContentsDirlinksField,
    MaxLayersField,
    OsField,
    OutputFormatField,
    PythonBytecodeField,
    PythonInterpreterField,
    RunAsRootField,
    ShadowSetupField,
    ToolsField,
    UidField,
    VariantField,
)
from docker_nix.layer.dirlinks import TooManyEntries, expand_dirlinks
from docker_nix.layer.links import BaseCollision, Collision, HashesNeeded, Link, link_farm
from docker_nix.layer.rules import BuiltLayer, LayerRequest, NixDatabase, RootPart, RootScript
from docker_nix.layer.tool.errors import ToolError
from docker_nix.layer.tool_process import ToolFailed
from docker_nix.plan.layers import MOST_LAYERS, NoRoomForLayers, plan_layers
from docker_nix.publish_fields import RegistriesField, RepositoryField
from docker_nix.resolve.image_contents import ImageContents, ImageContentsRequest
from docker_nix.resolve.python.interpreter import (
    DEFAULT_PATH,
    Interpreter,
    interpreter_at,
    interpreters_on,
)
from docker_nix.resolve.python.types import ImagePython
from docker_nix.resolve.references import fill, parse_text
from docker_nix.resolve.types import Listing, ListingRequest, StoreObject


@dataclass(frozen=True)
class ImageFieldSet(PackageFieldSet):
    """The fields that both image targets have."""

    image_name: ImageNameField
    image_tags: ImageTagsField
    from_image: FromImageField
    from_image_name: FromImageNameField
    from_image_tag: FromImageTagField
    contents: ContentsField
    config: ImageConfigField
    created: CreatedField
    extra_commands: ExtraCommandsField
    tools: ToolsField
    uid: UidField
    gid: GidField
    include_nix_db: IncludeNixDbField
    python_interpreter: PythonInterpreterField
    python_bytecode: PythonBytecodeField
    architecture: ArchitectureField
    os: OsField
    variant: VariantField
    compression: CompressionField
    output_format: OutputFormatField
    registries: RegistriesField
    repository: RepositoryField
    output_path: OutputPathField
    environment: EnvironmentField


@dataclass(frozen=True)
class LayeredImageFieldSet(ImageFieldSet):
    required_fields = (ContentsField, MaxLayersField)

    max_layers: MaxLayersField


@dataclass(frozen=True)
class SingleImageFieldSet(ImageFieldSet):
    required_fields = (ContentsField, RunAsRootField)

    keep_contents_dirlinks: KeepContentsDirlinksField
    run_as_root: RunAsRootField
    shadow_setup: ShadowSetupField
    disk_size: DiskSizeField


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


@dataclass(frozen=True)
class PartsRequest:
    """A request for what an image is made of."""

    field_set: ImageFieldSet
    run_as_root: Optional[RunAsRootField] = None
    expand_dirlinks: bool = False


@dataclass(frozen=True)
class Parts:
    """What an image is made of, before there are layers.

    :param base: the base image.
    :param tree: its files; empty without a base.
    :param links: what appears at `/`.
    """

    platform: Platform
    base: Optional[BuiltImage]
    tree: BaseTree
    contents: ImageContents
    links: Tuple[Link, ...]

    @property
    def base_layers(self) -> Tuple[ImageLayer, ...]:
        return self.base.layers if self.base else ()

    @property
    def new_objects(self) -> Tuple[StoreObject, ...]:
        """The store paths that the base does not have, by their path."""
        there = self.tree.store_paths
        return tuple(
            obj
            for obj in sorted(self.contents.closure.objects, key=lambda obj: obj.path)
            if obj.path not in there
        )


def _platform(field_set: ImageFieldSet, base: BuiltImage) -> Platform:
    """That of the base, which the image's own fields must not contradict."""
    platform = base.platform
    for field, has in (
        (field_set.architecture, platform.architecture),
        (field_set.os, platform.os),
        (field_set.variant, platform.variant),
    ):
        if field.value is not None and has is not None and field.value != has:
            raise field_error(
                field_set.address,
                field.alias,
                f"is {field.value!r}, but the base image {field_set.from_image.value} is for "
                f"{has!r}.",
                "Remove the field, or use a base image for that platform.",
            )
    variant = platform.variant or field_set.variant.value
    return Platform(platform.architecture, platform.os, variant)


def _python(
    field_set: ImageFieldSet, platform: Platform, base: Optional[BuiltImage], tree: BaseTree
) -> ImagePython:
    """The Python that the base image has: where the field says, or else on its PATH."""
    interpreters: Tuple[Interpreter, ...] = ()
    path = field_set.python_interpreter.value
    if path is not None:
        there = interpreter_at(tree, path, platform.architecture)
        interpreters = (there,) if there else ()
    elif base:
        variables = (json.loads(base.config_json).get("config") or {}).get("Env") or []
        search_path = dict(text.partition("=")[::2] for text in variables).get("PATH")
        interpreters = interpreters_on(tree, search_path or DEFAULT_PATH, platform.architecture)
    return ImagePython(
        platform,
        interpreters,
        base.layers if base else (),
        field_set.python_bytecode.value,
        field_set.address,
    )


async def _links(
    field_set: ImageFieldSet,
    contents: ImageContents,
    listings: Dict[str, Listing],
    tree: Optional[BaseTree],
    request: PartsRequest,
) -> Tuple[Link, ...]:
    """The link farm of the contents. Archives are read for their hashes only where they meet."""
    objects = {obj.path: obj for obj in contents.closure.objects}
    origins = {path: str(obj.origin) for path, obj in objects.items()}
    while True:
        try:
            return link_farm(
                [(path, listings[path].entries) for path in contents.closure.roots],
                origins,
                tree,
                (field_set.uid.value, field_set.gid.value),
            )
        except HashesNeeded as needed:
            paths = needed.store_paths
        except BaseCollision as e:
            raise field_error(
                field_set.address,
                "contents",
                f"does not fit the base image: {e}.",
                "Leave it out, move it with a `relocated_files` target, or build on another base.",
            ) from e
        except Collision as e:
            raise field_error(
                field_set.address,
                "contents",
                f"has two targets that want different things at one path: {e}.",
                "Leave one of them out, or move it with a `relocated_files` target.",
            ) from e
        hashed = await MultiGet(
            Get(Listing, ListingRequest, ListingRequest.of(objects[path], hashes=True))
            for path in paths
        )
        for path, listing in zip(paths, hashed):
            entries = listing.entries
            listings[path] = Listing(
                expand_dirlinks(path, entries) if request.expand_dirlinks else entries
            )


@rule(desc="Find the parts of an image", level=LogLevel.DEBUG)
async def find_parts(request: PartsRequest, build_platform: BuildPlatform) -> Parts:
    field_set = request.field_set
    build = default_platform(build_platform)
    platform = Platform(
        field_set.architecture.value or build.architecture,
        field_set.os.value or build.os,
        field_set.variant.value,
    )
    base, tree = None, BaseTree.of(())
    if field_set.from_image.value is None:
        for field in (field_set.from_image_name, field_set.from_image_tag):
            if field.value is not None:
                raise field_error(
                    field_set.address,
                    field.alias,
                    f"is {field.value!r}, but there is no 'from_image'.",
                    "Remove it, or name the archive that holds the image in 'from_image'.",
                )
    else:
        base = await Get(
            BuiltImage,
            FromImageRequest(
                field_set.from_image,
                field_set.from_image_name,
                field_set.from_image_tag,
                platform,
                field_set.compression.value,
            ),
        )
        platform = _platform(field_set, base)
        try:
            tree = await Get(BaseTree, BaseTreeRequest(base.layers))
        except (ToolError, ToolFailed) as e:
            raise field_error(
                field_set.address,
                field_set.from_image.alias,
                f"is {field_set.from_image.value!r}, an image whose layers cannot be used.\n\n{e}",
                "",
            ) from e
    contents = await Get(
        ImageContents,
        ImageContentsRequest(
            field_set.contents,
            field_set.config,
            field_set.extra_commands,
            request.run_as_root,
            field_set.python_interpreter,
            _python(field_set, platform, base, tree),
        ),
    )
    listings = dict(contents.listings)
    if request.expand_dirlinks:
        try:
            for path, listing in listings.items():
                listings[path] = Listing(expand_dirlinks(path, listing.entries))
        except TooManyEntries as e:
            raise field_error(
                field_set.address,
                "contents",
                f"has {e}, if its symlinks to directories become directories.",
                "Set keep_contents_dirlinks=True.",
            ) from e
    links = await _links(field_set, contents, listings, tree if base else None, request)
    return Parts(platform, base, tree, contents, links)


async def _root_part(
    field_set: ImageFieldSet,
    parts: Parts,
    nix_db: Optional[NixDatabase],
    root_script: Optional[RootScript] = None,
) -> RootPart:
    contents = parts.contents
    script, base = None, None
    if field_set.extra_commands.value is not None:
        script = fill(field_set.extra_commands.parts(), contents.script_paths.__getitem__)
        if parts.base and not root_script:
            entries = to_json_bytes(list(parts.tree.entries()))
            base = await Get(Digest, CreateDigest([FileContent("base.json", entries)]))
    return RootPart(
        parts.links,
        script,
        contents.script_closure.objects if script is not None else (),
        field_set.tools.value or (),
        field_set.uid.value,
        field_set.gid.value,
        base,
        root_script,
        nix_db,
    )


async def _nix_db(
    field_set: ImageFieldSet, parts: Parts, layers: Iterable[BuiltLayer], here: Iterable[str]
) -> Optional[NixDatabase]:
    """The database for the last layer, in which the store paths `here` are.

    It has all store paths of the image: those of the layers below, and those of the base.
    """
    if not field_set.include_nix_db.value:
        return None
    known = {info.path: info for info in parts.tree.registered_paths}
    for in_base in parts.base_layers:
        known.update((info.path, info) for info in in_base.store_paths)
    for layer in layers:
        known.update((info.path, info) for info in layer.store_paths)
    unknown = [
        obj
        for obj in parts.contents.closure.objects
        if obj.path not in known and obj.path not in here
    ]
    # A base from elsewhere has them, and no database that knows their hashes: pack them for those.
    packed = await MultiGet(Get(BuiltLayer, LayerRequest((obj,), "none")) for obj in unknown)
    known.update((info.path, info) for layer in packed for info in layer.store_paths)
    return NixDatabase(parts.contents.closure.roots, tuple(known[path] for path in sorted(known)))


def _filled(value: Any, store_paths: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return fill(parse_text(value), store_paths.__getitem__)
    if isinstance(value, Mapping):
        return {key: _filled(item, store_paths) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_filled(item, store_paths) for item in value]
    return value


def _history(layer: ImageLayer) -> Dict[str, Any]:
    # The time of a store path is that of all store paths; `created` is the image's own.
    names = [info.path for info in layer.store_paths]
    comment = "store path" if len(names) == 1 else "store paths"
    if layer.kind != "store":
        comment = f"{comment} and links to the contents" if names else "links to the contents"
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return HistoryEntry(CREATED_DEFAULT, shown or "docker_nix", comment).to_json()


async def _image(field_set: ImageFieldSet, parts: Parts, own: Sequence[ImageLayer]) -> BuiltImage:
    """The image of the base's layers and its own."""
    created = field_set.created.value
    if created == "now":
        created = (await Get(BuildTime, BuildTimeRequest())).value
    config = _filled(field_set.config.value or FrozenDict(), parts.contents.config_paths)
    history: List[Dict[str, Any]] = []
    if parts.base:
        base_config = json.loads(parts.base.config_json)
        config = inherited_config(base_config.get("config") or {}, config)
        history = inherited_history(base_config, len(parts.base_layers))
    layers = (*(layer.as_base() for layer in parts.base_layers), *own)
    config_json = image_config_json(
        config=config,
        created=created,
        platform=parts.platform,
        diff_ids=[layer.diff_id for layer in layers],
        history=[*history, *(_history(layer) for layer in own)],
    )
    descriptor = Descriptor.of(CONFIG_TYPE, config_json)
    return BuiltImage(
        field_set.image_name.value,
        field_set.image_tags.value or (descriptor.digest.partition(":")[2][:32],),
        parts.platform,
        config_json,
        manifest_json(descriptor, [layer.descriptor for layer in layers]),
        layers,
    )


@rule(desc="Build a layered image", level=LogLevel.DEBUG)
async def build_layered_image(field_set: LayeredImageFieldSet) -> BuiltImage:
    address = field_set.address
    parts = await Get(Parts, PartsRequest(field_set))
    objects = {obj.path: obj for obj in parts.contents.closure.objects}
    try:
        plan = plan_layers(
            {path: obj.references for path, obj in objects.items()},
            field_set.max_layers.value,
            base_layers=len(parts.base_layers),
            present=parts.tree.store_paths,
            beside_links=[path for path, obj in objects.items() if obj.with_links],
        )
    except NoRoomForLayers as e:
        raise field_error(
            address, "max_layers", f"is {field_set.max_layers.value}, which is too few.", str(e)
        ) from e
    compression = field_set.compression.value
    try:
        layers = await MultiGet(
            Get(BuiltLayer, LayerRequest(tuple(objects[path] for path in group), compression))
            for group in plan.groups
        )
        nix_db = await _nix_db(field_set, parts, layers, plan.with_customisation)
        top = await Get(
            BuiltLayer,
            LayerRequest(
                tuple(objects[path] for path in plan.with_customisation),
                compression,
                await _root_part(field_set, parts, nix_db),
            ),
        )
    # They know only the layer, as images share it; the latter is such as a full disk.
    except (ToolFailed, DockerNixError) as e:
        raise DockerNixError(f"The target {address} cannot be built. {e}") from e
    except IntrinsicError as e:
        raise DockerNixError(f"The target {address} cannot be built. {engine_error(e)}") from e
    own = [
        *(ImageLayer.of("store", layer) for layer in layers),
        ImageLayer.of("customisation", top),
    ]
    return await _image(field_set, parts, own)


@rule(desc="Build an image of one layer", level=LogLevel.DEBUG)
async def build_single_image(field_set: SingleImageFieldSet) -> BuiltImage:
    address = field_set.address
    parts = await Get(
        Parts,
        PartsRequest(
            field_set,
            field_set.run_as_root,
            expand_dirlinks=not field_set.keep_contents_dirlinks.value,
        ),
    )
    if len(parts.base_layers) >= MOST_LAYERS:
        raise field_error(
            address,
            "from_image",
            f"is {field_set.from_image.value!r}, an image of {len(parts.base_layers)} layers, and "
            f"engines can mount {MOST_LAYERS}.",
            "Use a base image with fewer layers; `docker_nix_export` makes one file system of "
            "them.",
        )
    objects = parts.new_objects
    try:
        nix_db = await _nix_db(field_set, parts, (), {obj.path for obj in objects})
        root_script = None
        if field_set.run_as_root.value is not None or field_set.shadow_setup.value:
            await Get(Blobs, BlobsRequest(parts.base_layers))
            root_script = RootScript(
                fill(field_set.run_as_root.parts(), parts.contents.root_paths.__getitem__),
                tuple((layer.blob, layer.diff_id) for layer in parts.base_layers),
                any(layer.compression == "zstd" for layer in parts.base_layers),
                field_set.disk_size.value,
                field_set.shadow_setup.value,
            )
        root = await _root_part(field_set, parts, nix_db, root_script)
        built = await Get(BuiltLayer, LayerRequest(objects, field_set.compression.value, root))
    except (ToolFailed, DockerNixError) as e:
        raise DockerNixError(f"The target {address} cannot be built. {e}") from e
    except IntrinsicError as e:
        raise DockerNixError(f"The target {address} cannot be built. {engine_error(e)}") from e
    return await _image(field_set, parts, [ImageLayer.of("single", built)])


def rules() -> Iterable[object]:
    return collect_rules()
