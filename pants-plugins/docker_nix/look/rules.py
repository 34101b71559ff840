"""The goal `image-layers`: what is in images, from their manifests and digests, without a blob."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Dict, Iterable, Optional, Tuple

from pants.base.build_environment import get_buildroot
from pants.core.util_rules.environments import EnvironmentNameRequest
from pants.engine.console import Console
from pants.engine.environment import EnvironmentName
from pants.engine.fs import EMPTY_DIGEST, Digest, DigestContents
from pants.engine.goal import Goal, GoalSubsystem, Outputting
from pants.engine.process import ProcessCacheScope
from pants.engine.rules import Get, MultiGet, _uncacheable_rule, collect_rules, goal_rule
from pants.engine.target import (
    FieldSet,
    NoApplicableTargetsBehavior,
    TargetRootsToFieldSets,
    TargetRootsToFieldSetsRequest,
)
from pants.engine.unions import UnionMembership, UnionRule, union
from pants.option.option_types import EnumOption, StrOption
from pants.util.strutil import softwrap

from docker_nix.assemble.image import BuiltImage
from docker_nix.assemble.image_config import Platform, is_image_name, is_image_tag, to_json_bytes
from docker_nix.assemble.rules import LayeredImageFieldSet, SingleImageFieldSet
from docker_nix.base.types import LayerIndex, LayerIndexRequest
from docker_nix.errors import DockerNixError
from docker_nix.layer.tool_process import LocalToolRun, ToolFailed, ToolResult, ToolRun
from docker_nix.look import old_image
from docker_nix.look.compare import compare
from docker_nix.look.html_report import to_html
from docker_nix.look.json_report import to_json
from docker_nix.look.model import Blob, Image, Layer, Report, StorePath, created_by
from docker_nix.look.old_image import NotAnImage, OldImage
from docker_nix.look.text import to_text
from docker_nix.pull.rules import PullFieldSet, RegistryAccess


class OutputFormat(Enum):
    TEXT = "text"
    JSON = "json"
    HTML = "html"


@union(in_scope_types=[EnvironmentName])
class LookFieldSet(FieldSet):
    """The field sets that have a rule for a BuiltImage."""


class ImageLayersSubsystem(Outputting, GoalSubsystem):
    name = "image-layers"
    help = softwrap(
        """
        Show the layers of images: how large each one is, what is in it, and which images share it.

        No layer is fetched for it: sizes and digests are known without the bytes. Sizes are in
        units of the SI: 1 kB is 1000 bytes, 1 MB is 1000 kB.
        """
    )

    output_format = EnumOption(
        default=OutputFormat.TEXT,
        help=softwrap(
            """
            `text` for a terminal; `json` for programs; `html` for one self-contained page with a
            treemap of the sizes and a table of who shares what, which needs no network.
            """
        ),
    )
    against = StrOption(
        default=None,
        metavar="<docker-info.json or image>",
        help=softwrap(
            """
            Also show what changed from this image, and how many bytes a node that has it must pull.

            Either the path of a `.docker-info.json`, which an earlier
            `package` wrote, or an image in a registry, with a tag or a digest, such as
            `registry.example.com/team/app:v1`. It is looked up at each run; only its manifest and
            configuration are read.
            """
        ),
    )

    @classmethod
    def activated(cls, union_membership: UnionMembership) -> bool:
        return LookFieldSet in union_membership


class ImageLayers(Goal):
    subsystem_cls = ImageLayersSubsystem
    environment_behavior = Goal.EnvironmentBehavior.USES_ENVIRONMENTS


@dataclass(frozen=True)
class _LookedAt:
    """An image of the selection, and the environment in which it is built."""

    field_set: LookFieldSet
    environment: EnvironmentName
    image: BuiltImage


@dataclass(frozen=True)
class RegistryImageRequest:
    """A request for what a registry has now.

    :param image: with the registry, without tag and digest.
    :param reference: a tag, or a digest `sha256:…`.
    :param platform: the one to take, where it is an index.
    """

    image: str
    reference: str
    platform: Platform

    @property
    def name(self) -> str:
        separator = "@" if ":" in self.reference else ":"
        return f"{self.image}{separator}{self.reference}"


@_uncacheable_rule
async def read_registry_image(request: RegistryImageRequest, _: RegistryAccess) -> OldImage:
    result = await Get(
        ToolResult,
        LocalToolRun(
            ToolRun(
                "read-image",
                to_json_bytes(
                    {
                        "image": request.image,
                        "reference": request.reference,
                        "platform": request.platform.to_json(),
                    }
                ),
                EMPTY_DIGEST,
                ("manifest.json", "config.json"),
                (),
                # A tag can be moved at any time.
                cache_scope=ProcessCacheScope.PER_SESSION,
                description=f"Reading the manifest of {request.name}",
            ),
            "the registry",
        ),
    )
    files = {file.path: file.content for file in await Get(DigestContents, Digest, result.digest)}
    manifest = files["manifest.json"]
    return old_image.of_manifest(
        request.name,
        Blob.of(manifest).digest,
        json.loads(manifest),
        json.loads(files["config.json"]),
    )


def _against_error(against: str, problem: str, remedy: str) -> DockerNixError:
    return DockerNixError(
        f"The option --image-layers-against is {against!r}, {problem}.\n\n{remedy}"
    )


_EITHER = (
    "Give the path of a .docker-info.json that `package` wrote, or an image in a registry with a "
    "tag or a digest, such as 'registry.example.com/team/app:v1'."
)


def _parse_reference(against: str) -> Tuple[str, str]:
    """The name and the tag or digest of an image. Raises DockerNixError."""
    name, at, digest = against.partition("@")
    if at:
        # As everywhere, a tag beside a digest says nothing.
        if ":" in name.rpartition("/")[2]:
            name = name.rpartition(":")[0]
        if old_image.is_digest(digest) and is_image_name(name):
            return name, digest
        raise _against_error(
            against,
            "whose digest is not 'sha256:' and 64 of the digits 0-9 and a-f",
            "Write it as 'registry.example.com/team/app@sha256:…'.",
        )
    name, colon, tag = against.rpartition(":")
    if not colon or not is_image_name(name) or not is_image_tag(tag):
        raise _against_error(
            against, "which is neither a file nor the name of an image with a tag", _EITHER
        )
    return name, tag


def _read_file(against: str) -> Optional[OldImage]:
    """The image that a file describes; None if there is no such file. Raises DockerNixError."""
    if not against:
        return None
    path = os.path.join(get_buildroot(), os.path.expanduser(against))
    if not os.path.lexists(path):
        if against.endswith(".json") or against.startswith(("/", ".", "~")):
            raise _against_error(
                against,
                "and there is no such file",
                "Give a path that is absolute or from the root of the repository. `package` "
                "writes a .docker-info.json beside each image, below dist/.",
            )
        return None
    try:
        return old_image.of_docker_info(against, Path(path).read_bytes())
    except OSError as e:
        raise _against_error(against, f"which cannot be read ({e.strerror})", _EITHER) from e
    except NotAnImage as e:
        raise _against_error(against, f"but {e}", _EITHER) from e


async def _old_images(against: str, looked_at: Iterable[_LookedAt]) -> Tuple[OldImage, ...]:
    """The old image for each of the images, as there may be one for each platform."""
    from_file = _read_file(against)
    if from_file:
        return tuple(from_file for _ in looked_at)
    name, reference = _parse_reference(against)
    try:
        return await MultiGet(
            Get(
                OldImage,
                {
                    RegistryImageRequest(name, reference, one.image.platform): RegistryImageRequest,
                    one.environment: EnvironmentName,
                },
            )
            for one in looked_at
        )
    except ToolFailed as e:
        raise _against_error(
            against, "an image that cannot be read", e.output.removeprefix("error: ")
        ) from e


async def _diff_sizes(looked_at: Iterable[_LookedAt]) -> Dict[str, int]:
    """The sizes of the tars of base layers, by digest, where a build has looked into them anyway.

    What is pulled and no base of another image stays unknown: it would have to be fetched.
    """
    unknown = {
        layer.blob.fingerprint: (layer, one.environment)
        for one in looked_at
        if not isinstance(one.field_set, PullFieldSet)
        for layer in one.image.layers
        if layer.diff_size is None
    }
    indexes = await MultiGet(
        Get(
            LayerIndex,
            {LayerIndexRequest(layer): LayerIndexRequest, environment: EnvironmentName},
        )
        for layer, environment in unknown.values()
    )
    return {
        f"sha256:{fingerprint}": one.index["diff_size"]
        for fingerprint, one in zip(unknown, indexes)
    }


def _image(looked_at: _LookedAt, diff_sizes: Dict[str, int]) -> Image:
    built = looked_at.image
    lines = created_by(json.loads(built.config_json), len(built.layers))
    return Image(
        looked_at.field_set.address.spec,
        built.name,
        built.tags,
        built.platform.to_json(),
        Blob(built.manifest.digest, built.manifest.size),
        Blob(built.config.digest, built.config.size),
        tuple(
            Layer(
                layer.kind,
                layer.descriptor.digest,
                layer.descriptor.media_type,
                layer.descriptor.size,
                layer.diff_id,
                (
                    diff_sizes.get(layer.descriptor.digest)
                    if layer.diff_size is None
                    else layer.diff_size
                ),
                tuple(StorePath(info.path, info.nar_size) for info in layer.store_paths),
                line,
            )
            for layer, line in zip(built.layers, lines)
        ),
    )


def _write(path: str, text: str) -> None:
    """Write a file as a whole or not at all. Raises DockerNixError."""
    target = Path(get_buildroot(), os.path.expanduser(path)).resolve()
    try:
        if target.exists() and not target.is_file():
            target.write_text(text, encoding="utf-8")  # a device or a pipe; no directory takes it
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        new = target.with_name(f"{target.name}.{os.getpid()}.new")
        try:
            new.write_text(text, encoding="utf-8")
            new.replace(target)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
    except OSError as e:
        raise DockerNixError(
            f"The option --image-layers-output-file is {path!r}, which cannot be written "
            f"({e.strerror}).\n\nGive the path of a file in a directory that you can write to."
        ) from e


@goal_rule
async def image_layers(console: Console, options: ImageLayersSubsystem) -> ImageLayers:
    roots = await Get(
        TargetRootsToFieldSets,
        TargetRootsToFieldSetsRequest(
            LookFieldSet,
            goal_description="the `image-layers` goal",
            no_applicable_targets_behavior=NoApplicableTargetsBehavior.warn,
        ),
    )
    if not roots.field_sets:
        return ImageLayers(exit_code=0)
    field_sets = sorted(roots.field_sets, key=lambda field_set: field_set.address)
    environments = await MultiGet(
        Get(
            EnvironmentName,
            EnvironmentNameRequest,
            EnvironmentNameRequest.from_field_set(field_set),
        )
        for field_set in field_sets
    )
    built = await MultiGet(
        Get(BuiltImage, {field_set: LookFieldSet, environment: EnvironmentName})
        for field_set, environment in zip(field_sets, environments)
    )
    looked_at = [_LookedAt(*one) for one in zip(field_sets, environments, built)]
    diff_sizes = await _diff_sizes(looked_at)
    report = Report(tuple(_image(one, diff_sizes) for one in looked_at))
    comparisons = []
    if options.against is not None:
        olds = await _old_images(options.against, looked_at)
        comparisons = [compare(image, old) for image, old in zip(report.images, olds)]
    render = {
        OutputFormat.TEXT: to_text,
        OutputFormat.JSON: to_json,
        OutputFormat.HTML: to_html,
    }[options.output_format]
    text = render(report, comparisons)
    if options.output_file:
        _write(options.output_file, text)
    else:
        console.write_stdout(text)
    return ImageLayers(exit_code=0)


def rules() -> Iterable[object]:
    return (
        *collect_rules(),
        UnionRule(LookFieldSet, LayeredImageFieldSet),
        UnionRule(LookFieldSet, SingleImageFieldSet),
        UnionRule(LookFieldSet, PullFieldSet),
    )
