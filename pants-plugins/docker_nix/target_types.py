"""The target types."""

from __future__ import annotations

from pants.core.goals.package import OutputPathField
from pants.core.util_rules.environments import EnvironmentField
from pants.engine.target import COMMON_TARGET_FIELDS, InvalidTargetException, Target
from pants.util.docutil import bin_name
from pants.util.strutil import help_text

from docker_nix.base_fields import (
    ExportFromImageField,
    FinalImageNameField,
    FinalImageTagField,
    FromImageField,
    FromImageNameField,
    FromImageTagField,
    PullImageDigestField,
    PullImageNameField,
)
from docker_nix.image_fields import (
    ArchitectureField,
    CompressionField,
    ContentsField,
    CreatedField,
    DiskSizeField,
    ExtraCommandsField,
    GidField,
    ImageConfigField,
    ImageDependenciesField,
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
from docker_nix.publish_fields import RegistriesField, RepositoryField, SkipPushField
from docker_nix.resolve.nix.fields import (
    NixArgumentsField,
    NixAttributeField,
    NixDependenciesField,
    NixEnvironmentField,
    NixExpressionField,
    NixImpureField,
    NixInstallableField,
    NixOutputsField,
    NixStorePathField,
    NixSystemField,
)

_COMMON_FIELDS = (
    *COMMON_TARGET_FIELDS,
    ImageDependenciesField,
    OutputPathField,
    EnvironmentField,
)

_PLATFORM_FIELDS = (ArchitectureField, OsField, VariantField)

_IMAGE_FIELDS = (
    *_COMMON_FIELDS,
    *_PLATFORM_FIELDS,
    ImageNameField,
    ImageTagsField,
    FromImageField,
    FromImageNameField,
    FromImageTagField,
    ContentsField,
    ImageConfigField,
    CreatedField,
    ExtraCommandsField,
    ToolsField,
    UidField,
    GidField,
    IncludeNixDbField,
    PythonInterpreterField,
    PythonBytecodeField,
    CompressionField,
    OutputFormatField,
    RegistriesField,
    RepositoryField,
    SkipPushField,
)


class DockerNixLayeredTarget(Target):
    alias = "docker_nix_layered"
    core_fields = (*_IMAGE_FIELDS, MaxLayersField)
    help = help_text(
        f"""
        A reproducible container image with one layer per store path, built without a daemon.

        Each of `contents` becomes a store path (`/nix/store/<hash>-<name>`), each store path a
        layer, the most popular lowest, and a last layer of links makes the contents appear at `/`.
        Layers are cached one by one, locally and remotely, and shared by all images that have the
        same store paths.

            docker_nix_layered(
                name="image",
                contents=[":app", ":config_files"],
                config={{"Entrypoint": ["/bin/app"]}},
            )

        Build it with `{bin_name()} package path/to:image`, run it with
        `{bin_name()} run path/to:image -- ARGUMENTS`, and push it to a registry with
        `{bin_name()} publish path/to:image`.
        """
    )


class DockerNixImageTarget(Target):
    alias = "docker_nix_image"
    core_fields = (
        *_IMAGE_FIELDS,
        KeepContentsDirlinksField,
        RunAsRootField,
        ShadowSetupField,
        DiskSizeField,
    )
    help = help_text(
        f"""
        A reproducible container image with one layer, on top of a base image or alone, built
        without a daemon.

        The layer has all store paths of `contents` that the base does not have, and links that
        make the contents appear at `/`. A script in `run_as_root` can change the whole root file
        system.

            docker_nix_pull(name="debian", image_name="debian", image_digest="sha256:…")

            docker_nix_image(
                name="image",
                from_image=":debian",
                contents=[":app"],
                run_as_root="useradd --system app",
                config={{"Entrypoint": ["/bin/app"], "User": "app"}},
            )

        Prefer `docker_nix_layered` where no `run_as_root` is needed: its layers are cached and
        shared one by one. Build it with `{bin_name()} package path/to:image`, run it with
        `{bin_name()} run path/to:image -- ARGUMENTS`, and push it to a registry with
        `{bin_name()} publish path/to:image`.
        """
    )


class DockerNixPullTarget(Target):
    alias = "docker_nix_pull"
    core_fields = (
        *_COMMON_FIELDS,
        *_PLATFORM_FIELDS,
        PullImageNameField,
        PullImageDigestField,
        FinalImageNameField,
        FinalImageTagField,
        OutputFormatField,
    )
    help = help_text(
        f"""
        An image in a registry, by its digest: for the `from_image` of other images.

        It is fetched with `skopeo`, which must be installed, once: what was fetched is verified
        against its digests and cached, locally and remotely. Layers are fetched only when something
        needs their bytes.

            docker_nix_pull(
                name="debian",
                image_name="registry.example.com/debian",
                image_digest="sha256:…",
            )

        `{bin_name()} package` writes the image as it is in the registry.
        """
    )


class DockerNixExportTarget(Target):
    alias = "docker_nix_export"
    core_fields = (
        *_COMMON_FIELDS,
        ExportFromImageField,
        FromImageNameField,
        FromImageTagField,
    )
    help = help_text(
        """
        The root file system of an image as one tar: all layers applied in order, without what they
        delete.

            docker_nix_export(name="rootfs", from_image=":image")

        The tar is reproducible: names are sorted, times are one second after the epoch, owners are
        numbers. It can be the `contents` of another image, which then has it as one store path.
        """
    )


class NixPackageTarget(Target):
    alias = "nix_package"
    core_fields = (
        *COMMON_TARGET_FIELDS,
        NixDependenciesField,
        NixExpressionField,
        NixAttributeField,
        NixArgumentsField,
        NixInstallableField,
        NixImpureField,
        NixStorePathField,
        NixOutputsField,
        NixSystemField,
        NixEnvironmentField,
    )
    help = help_text(
        """
        A package built by the Nix of this machine, for the `contents` of images: with its own store
        paths, and everything that they refer to.

            nix_package(
                name="curl",
                expression="curl.nix",
                dependencies=[":pins"],
            )

            docker_nix_layered(name="image", contents=[":curl"])

        Exactly one of `expression`, `installable` and `store_path` says what it is. Where that is
        pinned, a machine without Nix builds the same image from a remote cache.
        """
    )

    def validate(self) -> None:
        kinds = (NixExpressionField, NixInstallableField, NixStorePathField)
        given = [kind for kind in kinds if self[kind].value is not None]
        if len(given) != 1:
            has = " and ".join(repr(kind.alias) for kind in given) or "none of them"
            raise InvalidTargetException(
                f"The target {self.address} needs exactly one of the fields 'expression', "
                f"'installable' and 'store_path', and has {has}."
            )
        for field, fits in (
            (NixAttributeField, {NixExpressionField}),
            (NixArgumentsField, {NixExpressionField}),
            (NixImpureField, {NixInstallableField}),
            (NixOutputsField, {NixExpressionField, NixInstallableField}),
            (NixSystemField, {NixExpressionField, NixInstallableField}),
            (NixDependenciesField, {NixExpressionField, NixInstallableField}),
        ):
            if self[field].value and given[0] not in fits:
                others = " or ".join(sorted(repr(kind.alias) for kind in fits))
                raise InvalidTargetException(
                    f"The '{field.alias}' field in target {self.address} has no meaning beside "
                    f"{given[0].alias!r}. Remove it, or use {others}."
                )
