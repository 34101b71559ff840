"""The publish step: images go to registries, and of their layers only what those lack.

Which layers a repository lacks is asked before any is there to be sent, so that with a remote cache
and `cache_content_behavior = "defer"` no others reach this machine. The asking and the pushing is
done by commands of the tool, in `tool/`, which get at credentials as those that pull do.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Dict, Iterable, List, Tuple

from pants.backend.docker.registries import DockerRegistries
from pants.core.goals.publish import (
    PublishFieldSet,
    PublishOutputData,
    PublishPackages,
    PublishProcesses,
    PublishRequest,
)
from pants.engine.fs import (
    EMPTY_DIGEST,
    AddPrefix,
    CreateDigest,
    Digest,
    DigestContents,
    FileContent,
    MergeDigests,
)
from pants.engine.process import InteractiveProcess, ProcessCacheScope
from pants.engine.rules import Get, MultiGet, collect_rules, rule
from pants.util.logging import LogLevel

from docker_nix.assemble.docker_info import ImageName
from docker_nix.assemble.image import BuiltImage, ImageLayer
from docker_nix.assemble.image_config import to_json_bytes
from docker_nix.assemble.layout import Layout, LayoutRequest
from docker_nix.base.types import TargetImageRequest
from docker_nix.errors import field_error
from docker_nix.layer.tool.skopeo_errors import names_registry
from docker_nix.layer.tool_process import (
    CACHES,
    TOOL_DIR,
    LayerTool,
    LayerToolRequest,
    LocalToolRun,
    ToolInterpreter,
    ToolInterpreterRequest,
    ToolResult,
    ToolRun,
)
from docker_nix.publish.image_names import names_of
from docker_nix.publish_fields import RegistriesField, RepositoryField, SkipPushField
from docker_nix.pull.rules import RegistryAccess
from docker_nix.subsystem import DockerNixSubsystem

logger = logging.getLogger(__name__)


class PublishImageRequest(PublishRequest):
    pass


@dataclass(frozen=True)
class PublishImageFieldSet(PublishFieldSet):
    publish_request_type = PublishImageRequest
    required_fields = (RegistriesField, SkipPushField)

    registries: RegistriesField
    repository: RepositoryField
    skip_push: SkipPushField

    def get_output_data(self) -> PublishOutputData:
        return PublishOutputData(
            {
                "publisher": "docker_nix",
                "registries": self.registries.value,
                **super().get_output_data(),
            }
        )


@dataclass(frozen=True)
class LackingRequest:
    """A request for those of the layers that the repository lacks, at this moment.

    :param repository: with the registry.
    """

    repository: str
    layers: Tuple[ImageLayer, ...]


@dataclass(frozen=True)
class Lacking:
    """Each blob once; all, where the registry cannot say."""

    layers: Tuple[ImageLayer, ...]


@rule(desc="Ask a registry which layers it has", level=LogLevel.DEBUG)
async def find_lacking(request: LackingRequest, _: RegistryAccess) -> Lacking:
    layers = {layer.descriptor.digest: layer for layer in request.layers}
    result = await Get(
        ToolResult,
        LocalToolRun(
            ToolRun(
                "docker_nix.publish.tool.lacking:main",
                to_json_bytes(
                    {
                        "image": request.repository,
                        "layers": [layer.descriptor.to_json() for layer in layers.values()],
                    }
                ),
                EMPTY_DIGEST,
                ("lacking.json",),
                (),
                steps=("publish",),
                cache_scope=ProcessCacheScope.PER_SESSION,
                description=f"Asking which of {len(layers)} layers {request.repository} has",
            ),
            "the registry",
        ),
    )
    (file,) = await Get(DigestContents, Digest, result.digest)
    answer = json.loads(file.content)
    if answer["lacking"] is not None:
        return Lacking(tuple(layers[digest] for digest in answer["lacking"]))
    if answer["hopeless"]:
        # Pushing will say so, and it need not wait for layers to arrive here.
        return Lacking(())
    logger.warning(
        f"It is not known which layers {request.repository} has, so all will be ready to be "
        f"pushed: {answer['reason']}"
    )
    return Lacking(tuple(layers.values()))


@dataclass(frozen=True)
class PushRequest:
    """A request for the process that gives the image a name, after uploading the layers."""

    image: BuiltImage
    name: ImageName
    uploads: Tuple[ImageLayer, ...]


@dataclass(frozen=True)
class Push:
    process: InteractiveProcess


@rule
async def prepare_push(request: PushRequest, _: RegistryAccess) -> Push:
    image = request.image
    await Get(ToolInterpreter, ToolInterpreterRequest(local=True))
    layout, tool, spec = await MultiGet(
        Get(Layout, LayoutRequest(image, request.uploads, (request.name.tag,))),
        Get(LayerTool, LayerToolRequest((), ("publish",))),
        Get(
            Digest,
            CreateDigest(
                [
                    FileContent(
                        "spec.json",
                        to_json_bytes(
                            {
                                "image": request.name.image,
                                "tag": request.name.tag,
                                "digest": image.manifest.digest,
                                "layers": len(image.layers),
                                "uploads": len(request.uploads),
                                "upload_bytes": sum(
                                    layer.descriptor.size for layer in request.uploads
                                ),
                            }
                        ),
                    )
                ]
            ),
        ),
    )
    layout_digest = await Get(Digest, AddPrefix(layout.digest, "layout"))
    input_digest = await Get(Digest, MergeDigests((layout_digest, spec)))
    return Push(
        InteractiveProcess(
            (
                "/bin/sh",
                f"{TOOL_DIR}/start.sh",
                "docker_nix.publish.tool.push:main",
                "spec.json",
            ),
            input_digest=input_digest,
            immutable_input_digests={TOOL_DIR: tool.digest},
            append_only_caches=CACHES,
        )
    )


def _skip_reason(name: ImageName, registries: DockerRegistries) -> str:
    """Why the name is not to be pushed; empty if it is."""
    registry = registries.registries.get(f"@{name.alias}") if name.alias else None
    if registry and registry.skip_push:
        return f"(by `skip_push` on registry @{name.alias})"
    if name.uses_local_alias:
        return f"(by `use_local_alias` on registry @{name.alias})"
    return ""


@rule(desc="Publish an image", level=LogLevel.DEBUG)
async def publish_image(
    request: PublishImageRequest, options: DockerNixSubsystem
) -> PublishProcesses:
    field_set = request.field_set
    assert isinstance(field_set, PublishImageFieldSet)
    image = await Get(BuiltImage, TargetImageRequest(field_set.address))
    names = names_of(image, field_set, options)
    if field_set.skip_push.value:
        reason = f"(by `{field_set.skip_push.alias}` on {field_set.address})"
        full_names = tuple(name.full for name in names)
        return PublishProcesses([PublishPackages(full_names, description=reason)])
    if not all(name.address or names_registry(name.image) for name in names):
        raise field_error(
            field_set.address,
            field_set.registries.alias,
            f"names no registry, so there is none to publish {names[0].full} to.",
            "Name one in the field, as 'host' or 'host:port', or mark one in "
            "[docker-nix].registries with `default = true`; or set skip_push=True.",
        )
    pushed: Dict[str, List[ImageName]] = {}
    skipped: Dict[str, List[ImageName]] = {}
    for name in names:
        reason = _skip_reason(name, options.parsed_registries)
        if reason:
            skipped.setdefault(reason, []).append(name)
        else:
            pushed.setdefault(name.image, []).append(name)
    lacking = await MultiGet(
        Get(Lacking, LackingRequest(repository, image.layers)) for repository in pushed
    )
    # The first name of a repository takes the layers there, the others find them.
    requests = [
        PushRequest(image, name, () if number else lack.layers)
        for group, lack in zip(pushed.values(), lacking)
        for number, name in enumerate(group)
    ]
    pushes = await MultiGet(Get(Push, PushRequest, one) for one in requests)
    digest = image.manifest.digest
    published = [
        PublishPackages(
            (one.name.full,),
            push.process,
            f"{one.name.image}@{digest}",
            PublishOutputData(
                {
                    "digest": digest,
                    "image_id": image.image_id,
                    "repository": one.name.image,
                    "tag": one.name.tag,
                }
            ),
        )
        for one, push in zip(requests, pushes)
    ]
    return PublishProcesses(
        [
            *published,
            *(
                PublishPackages(tuple(name.full for name in group), description=reason)
                for reason, group in skipped.items()
            ),
        ]
    )


def rules() -> Iterable[object]:
    return (*collect_rules(), *PublishImageFieldSet.rules())
