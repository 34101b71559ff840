"""The fields that say where an image is published to."""

from __future__ import annotations

from typing import Iterable, Optional, Tuple

from pants.backend.docker.registries import ALL_DEFAULT_REGISTRIES
from pants.engine.addresses import Address
from pants.engine.target import BoolField, StringField, StringSequenceField
from pants.util.docutil import bin_name
from pants.util.strutil import help_text

from docker_nix.assemble.image_config import is_image_name
from docker_nix.image_fields import invalid


class RegistriesField(StringSequenceField):
    alias = "registries"
    default = (ALL_DEFAULT_REGISTRIES,)
    value: Tuple[str, ...]
    help = help_text(
        f"""
        The registries that the image is for: addresses such as `registry.example.com:5000`, and
        aliases such as `@internal` of those in `[docker-nix].registries`.

        By default all registries of that option which are marked with `default = true`, or whose
        alias is `default`.

        The image is named `REGISTRY/REPOSITORY:TAG` for each of them, and `{bin_name()} publish`
        pushes it there. Without any registry its name is `REPOSITORY:TAG`, and it cannot be
        published: not even Docker Hub is meant unless it is named.
        """
    )

    @classmethod
    def compute_value(cls, raw_value: Optional[Iterable[str]], address: Address) -> Tuple[str, ...]:
        value = super().compute_value(raw_value, address) or ()
        for registry in value:
            if registry == ALL_DEFAULT_REGISTRIES or registry.startswith("@"):
                continue
            if not is_image_name(f"{registry}/name"):
                raise invalid(
                    cls.alias,
                    address,
                    f"has {registry!r}, which is not the address of a registry.",
                    "Write it as 'host' or 'host:port', without 'https://', or as '@alias' for one "
                    "in [docker-nix].registries.",
                )
        return tuple(value)


class RepositoryField(StringField):
    alias = "repository"
    help = help_text(
        """
        The repository name of the image, such as `team/app`, instead of `image_name`. Its
        placeholders are `{name}` (the target's), `{directory}` and `{parent_directory}` (the names
        of the directory that the target is in and of the one above), and `{default_repository}`
        (the `image_name`).

        A registry in `[docker-nix].registries` may have a `repository` of its own, in which
        `{target_repository}` is this one.
        """
    )


class SkipPushField(BoolField):
    alias = "skip_push"
    default = False
    help = f"Whether `{bin_name()} publish` leaves this image alone."
