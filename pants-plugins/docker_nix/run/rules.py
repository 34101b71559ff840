"""The run step: an image is loaded into a container engine, as far as that lacks it, and run.

What the engine has is asked before any layer is there to be loaded, so that no others need to reach
this machine.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Iterable, Tuple

from pants.core.goals.run import RunFieldSet, RunInSandboxBehavior, RunRequest
from pants.engine.addresses import Address
from pants.engine.fs import (
    EMPTY_DIGEST,
    AddPrefix,
    CreateDigest,
    Digest,
    DigestContents,
    FileContent,
    MergeDigests,
)
from pants.engine.process import ProcessCacheScope
from pants.engine.rules import Get, MultiGet, collect_rules, rule
from pants.util.docutil import bin_name
from pants.util.logging import LogLevel

from docker_nix.assemble.docker_info import ImageName
from docker_nix.assemble.image import BuiltImage
from docker_nix.assemble.image_config import to_json_bytes
from docker_nix.assemble.layout import Layout, LayoutRequest
from docker_nix.base.types import TargetImageRequest
from docker_nix.base_fields import PullImageDigestField
from docker_nix.errors import DockerNixError
from docker_nix.image_fields import ContentsField
from docker_nix.layer.tool_process import (
    CACHES,
    TOOL_DIR,
    LayerTool,
    LayerToolRequest,
    LocalToolRun,
    ToolFailed,
    ToolInterpreter,
    ToolInterpreterRequest,
    ToolResult,
    ToolRun,
)
from docker_nix.publish.image_names import names_of
from docker_nix.publish_fields import RegistriesField, RepositoryField
from docker_nix.pull.rules import RegistryAccess
from docker_nix.subsystem import DockerNixSubsystem

# The tool looks for its interpreter where it is started; the container is to be run where the user
# is. So it is told that directory, before the user's arguments.
_START = (
    'here=$PWD; cd "$1" || exit; start=$2 command=$3 spec=$4; shift 4; '
    'exec /bin/sh "$start" "$command" "$spec" "$here" "$@"'
)


@dataclass(frozen=True)
class RunImageFieldSet(RunFieldSet):
    required_fields = (ContentsField, RegistriesField)
    run_in_sandbox_behavior = RunInSandboxBehavior.NOT_SUPPORTED

    registries: RegistriesField
    repository: RepositoryField


@dataclass(frozen=True)
class RunPulledImageFieldSet(RunFieldSet):
    required_fields = (PullImageDigestField,)
    run_in_sandbox_behavior = RunInSandboxBehavior.NOT_SUPPORTED

    image_digest: PullImageDigestField


@dataclass(frozen=True)
class RunImageRequest:
    """A request for what runs the image; the first of the names is that of this machine."""

    address: Address
    image: BuiltImage
    names: Tuple[ImageName, ...]


@rule(desc="Prepare to run an image", level=LogLevel.DEBUG)
async def prepare_run(
    request: RunImageRequest,
    options: DockerNixSubsystem,
    _: RegistryAccess,
) -> RunRequest:
    image = request.image
    ids = [image.image_id, image.manifest.digest]
    try:
        found = await Get(
            ToolResult,
            LocalToolRun(
                ToolRun(
                    "docker_nix.run.tool.engine:find_engine",
                    to_json_bytes(
                        {
                            "engine": options.engine.value,
                            "ids": ids,
                            "diff_ids": [layer.diff_id for layer in image.layers],
                        }
                    ),
                    EMPTY_DIGEST,
                    ("engine.json",),
                    (),
                    steps=("run",),
                    cache_scope=ProcessCacheScope.PER_SESSION,
                    description="Looking for a container engine",
                ),
                "the container engine",
            ),
        )
    except ToolFailed as e:
        prefix = "error: "
        reason = e.output[len(prefix) :] if e.output.startswith(prefix) else e.output
        raise DockerNixError(
            f"The target {request.address} cannot be run. {reason}.\n\nInstall or start a "
            "container engine (Docker, Podman or nerdctl), or choose one with "
            "[docker-nix].engine. To run the image elsewhere, write it with "
            f"`{bin_name()} package {request.address}`, which says how to load it."
        ) from e
    (file,) = await Get(DigestContents, Digest, found.digest)
    engine = json.loads(file.content)
    loads = image.layers[engine["layers"] :]
    names = tuple(name.full for name in request.names)
    await Get(ToolInterpreter, ToolInterpreterRequest(local=True))
    layout, tool, spec = await MultiGet(
        Get(Layout, LayoutRequest(image, loads, image.tags, names)),
        Get(LayerTool, LayerToolRequest((), ("run",))),
        Get(
            Digest,
            CreateDigest(
                [
                    FileContent(
                        "spec.json",
                        to_json_bytes(
                            {
                                **engine,
                                "engine": options.engine.value,
                                "ids": ids,
                                "names": names,
                                "layers": len(image.layers),
                                "loads": len(loads),
                                "load_bytes": sum(layer.descriptor.size for layer in loads),
                                "args": [
                                    *(f"--env={variable}" for variable in options.run_env),
                                    *options.run_args,
                                ],
                            }
                        ),
                    )
                ]
            ),
        ),
    )
    layout_digest = await Get(Digest, AddPrefix(layout.digest, "layout"))
    return RunRequest(
        digest=await Get(Digest, MergeDigests((layout_digest, spec))),
        args=(
            *("/bin/sh", "-c", _START, "run", "{chroot}", f"{TOOL_DIR}/start.sh"),
            *("docker_nix.run.tool.start:main", "spec.json"),
        ),
        immutable_input_digests={TOOL_DIR: tool.digest},
        append_only_caches=CACHES,
    )


@rule
async def run_image(field_set: RunImageFieldSet, options: DockerNixSubsystem) -> RunRequest:
    image = await Get(BuiltImage, TargetImageRequest(field_set.address))
    names = names_of(image, field_set, options)
    # A local alias is there to be the name on this machine.
    names = tuple(sorted(names, key=lambda name: not name.uses_local_alias))
    return await Get(RunRequest, RunImageRequest(field_set.address, image, names))


@rule
async def run_pulled_image(field_set: RunPulledImageFieldSet) -> RunRequest:
    image = await Get(BuiltImage, TargetImageRequest(field_set.address))
    names = tuple(ImageName(image.name, tag) for tag in image.tags)
    return await Get(RunRequest, RunImageRequest(field_set.address, image, names))


def rules() -> Iterable[object]:
    return (
        *collect_rules(),
        *RunImageFieldSet.rules(),
        *RunPulledImageFieldSet.rules(),
    )
