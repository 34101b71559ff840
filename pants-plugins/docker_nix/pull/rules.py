"""The pull step: images in registries, as verified outputs of cached processes.

One process fetches manifest and configuration; another fetches the layers, and runs only when
something needs them. What a process needs to reach the registry (credentials, proxies, certificate
authorities) is no part of its cache key: see `access.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Iterable

from pants.base.build_environment import get_buildroot
from pants.core.goals.package import OutputPathField, PackageFieldSet
from pants.core.util_rules.environments import EnvironmentField
from pants.engine.env_vars import EnvironmentVars, EnvironmentVarsRequest
from pants.engine.fs import EMPTY_DIGEST, Digest, DigestContents, FileDigest
from pants.engine.platform import Platform as BuildPlatform
from pants.engine.rules import Get, _uncacheable_rule, collect_rules, rule
from pants.util.logging import LogLevel

from docker_nix.assemble.image import (
    BuiltImage,
    ImageLayer,
    RegistryImage,
    RegistryLayer,
    libraries_to_read,
)
from docker_nix.assemble.image_config import Platform, to_json_bytes
from docker_nix.assemble.manifest import MANIFEST_TYPE, Descriptor, compression_of
from docker_nix.base_fields import (
    FinalImageNameField,
    FinalImageTagField,
    PullImageDigestField,
    PullImageNameField,
)
from docker_nix.build_platform import default_platform
from docker_nix.errors import DockerNixError, field_error
from docker_nix.image_fields import ArchitectureField, OsField, OutputFormatField, VariantField
from docker_nix.layer.tool_process import LocalToolRun, ToolFailed, ToolResult, ToolRun
from docker_nix.pull import access
from docker_nix.sizes import size_text
from docker_nix.subsystem import DockerNixSubsystem

# What skopeo, credential helpers and container engines go by.
_ENVIRONMENT = (
    "CONTAINERD_ADDRESS",
    "CONTAINERD_NAMESPACE",
    "CONTAINERS_CONF",
    "CONTAINERS_STORAGE_CONF",
    "CONTAINER_CONNECTION",
    "CONTAINER_HOST",
    "CONTAINER_SSHKEY",
    "DBUS_SESSION_BUS_ADDRESS",
    "DOCKER_API_VERSION",
    "DOCKER_CERT_PATH",
    "DOCKER_CONFIG",
    "DOCKER_CONTEXT",
    "DOCKER_HOST",
    "DOCKER_TLS",
    "DOCKER_TLS_VERIFY",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "LOGNAME",
    "NERDCTL_TOML",
    "NO_PROXY",
    "PATH",
    "REGISTRY_AUTH_FILE",
    "SSH_AUTH_SOCK",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "USER",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)


@dataclass(frozen=True)
class PullFieldSet(PackageFieldSet):
    required_fields = (PullImageNameField, PullImageDigestField)

    image_name: PullImageNameField
    image_digest: PullImageDigestField
    final_image_name: FinalImageNameField
    final_image_tag: FinalImageTagField
    architecture: ArchitectureField
    os: OsField
    variant: VariantField
    output_format: OutputFormatField
    output_path: OutputPathField
    environment: EnvironmentField


@dataclass(frozen=True)
class RegistryAccess:
    """That processes of this run find out how to reach registries."""


@dataclass(frozen=True)
class PulledLayers:
    """The blobs of an image below `layers/`, each with its index as `.json` beside it."""

    digest: Digest


@_uncacheable_rule
async def offer_registry_access(options: DockerNixSubsystem) -> RegistryAccess:
    environment = await Get(
        EnvironmentVars, EnvironmentVarsRequest([*_ENVIRONMENT, *options.env_vars])
    )
    access.offer(
        {
            "env": dict(environment),
            "registries": {
                registry.address: {"insecure": registry.insecure, "ca_file": registry.ca_file}
                for registry in options.transports(get_buildroot())
            },
            "timeout": options.registry_timeout,
        }
    )
    return RegistryAccess()


@rule(desc="Pull the manifest of an image", level=LogLevel.DEBUG)
async def pull_image(
    field_set: PullFieldSet, build_platform: BuildPlatform, _: RegistryAccess
) -> BuiltImage:
    address = field_set.address
    name, digest = field_set.image_name.value, field_set.image_digest.value
    build = default_platform(build_platform)
    platform = Platform(
        field_set.architecture.value or build.architecture,
        field_set.os.value or build.os,
        field_set.variant.value,
    )
    try:
        result = await Get(
            ToolResult,
            LocalToolRun(
                ToolRun(
                    "pull-manifest",
                    to_json_bytes(
                        {
                            "image": name,
                            "digest": digest,
                            "platform": platform.to_json(),
                        }
                    ),
                    EMPTY_DIGEST,
                    ("manifest.json", "config.json"),
                    (),
                    description=f"Pulling the manifest of {name}@{digest}",
                ),
                "the registry",
            ),
        )
    except ToolFailed as e:
        raise DockerNixError(f"The target {address} cannot be pulled.\n\n{e.output}") from e
    files = {file.path: file.content for file in await Get(DigestContents, Digest, result.digest)}
    manifest_json, config_json = files["manifest.json"], files["config.json"]
    manifest, config = json.loads(manifest_json), json.loads(config_json)
    found = Platform(
        config.get("architecture") or platform.architecture,
        config.get("os") or platform.os,
        config.get("variant") or None,
    )
    for field, wanted, has in (
        (field_set.architecture, field_set.architecture.value, found.architecture),
        (field_set.os, field_set.os.value, found.os),
        (field_set.variant, field_set.variant.value, found.variant or field_set.variant.value),
    ):
        if wanted and wanted != has:
            raise field_error(
                address,
                field.alias,
                f"is {wanted!r}, but {name}@{digest} is an image for {has!r}.",
                "Remove the field, or give the digest of an image for that platform, or of an "
                "index that has one.",
            )
    manifest_type = manifest.get("mediaType") or MANIFEST_TYPE
    try:
        layers = tuple(
            RegistryLayer(
                layer["digest"], layer["size"], diff_id, compression_of(layer["mediaType"])
            )
            for layer, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"])
        )
    except ValueError as e:
        raise DockerNixError(
            f"The target {address} cannot be pulled. {name}@{digest} has {e}."
        ) from e
    registry = RegistryImage(name, Descriptor.of(manifest_type, manifest_json).digest, layers)
    return BuiltImage(
        field_set.final_image_name.value or name,
        (field_set.final_image_tag.value,),
        found,
        config_json,
        manifest_json,
        tuple(
            ImageLayer(
                "base",
                FileDigest(layer.digest.partition(":")[2], layer.size),
                layer.compression,
                layer.diff_id,
                None,
                registry=registry,
            )
            for layer in layers
        ),
        manifest_type,
    )


@rule(desc="Pull the layers of an image", level=LogLevel.DEBUG)
async def pull_layers(image: RegistryImage, _: RegistryAccess) -> PulledLayers:
    names = sorted({layer.digest.partition(":")[2] for layer in image.layers})
    size = sum(layer.size for layer in image.layers)
    result = await Get(
        ToolResult,
        LocalToolRun(
            ToolRun(
                "pull-layers",
                to_json_bytes(
                    {
                        "image": image.name,
                        "digest": image.digest,
                        "layers": [
                            {"digest": layer.digest, "size": layer.size, "diff_id": layer.diff_id}
                            for layer in image.layers
                        ],
                    }
                ),
                EMPTY_DIGEST,
                tuple(f"layers/{name}{ending}" for name in names for ending in ("", ".json")),
                libraries_to_read(layer.compression for layer in image.layers),
                description=f"Pulling {len(names)} layers ({size_text(size)}) of {image.name}",
            ),
            "the registry",
        ),
    )
    return PulledLayers(result.digest)


def rules() -> Iterable[object]:
    return collect_rules()
