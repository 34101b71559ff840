"""The names of an image, from its target's fields and the options: see `names`."""

from __future__ import annotations

from typing import Protocol, Tuple

from pants.backend.docker.registries import DockerRegistryOptionsNotFoundError
from pants.engine.addresses import Address

from docker_nix.assemble.docker_info import ImageName
from docker_nix.assemble.image import BuiltImage
from docker_nix.errors import DockerNixError, field_error
from docker_nix.publish.names import NamedRegistry, NameProblem, image_names, placeholders
from docker_nix.publish_fields import RegistriesField, RepositoryField
from docker_nix.subsystem import DockerNixSubsystem


class NamingFields(Protocol):
    """The field set of an image target."""

    @property
    def address(self) -> Address: ...

    @property
    def registries(self) -> RegistriesField: ...

    @property
    def repository(self) -> RepositoryField: ...


def names_of(
    image: BuiltImage, fields: NamingFields, options: DockerNixSubsystem
) -> Tuple[ImageName, ...]:
    """All names of the image. Raises DockerNixError."""
    address = fields.address
    known = options.parsed_registries
    try:
        registries = list(known.get(*fields.registries.value))
    except DockerRegistryOptionsNotFoundError as e:
        aliases = sorted(name for name in known.registries if name.startswith("@"))
        missing = next(
            name
            for name in fields.registries.value
            if name.startswith("@") and name not in known.registries
        )
        there = f"one of {', '.join(aliases)}" if aliases else "the address of a registry"
        raise field_error(
            address,
            fields.registries.alias,
            f"has {missing!r}, but [docker-nix].registries has no such alias.",
            f"Add [docker-nix.registries.{missing[1:]}] with its address, or use {there}.",
        ) from e
    try:
        return image_names(
            image.name,
            fields.repository.value,
            image.tags,
            [
                NamedRegistry(
                    registry.address,
                    registry.alias or None,
                    registry.repository,
                    registry.extra_image_tags,
                    registry.use_local_alias,
                )
                for registry in registries
            ],
            placeholders(address.spec_path, address.generated_name or address.target_name),
        )
    except NameProblem as e:
        if e.origin == f"The '{fields.repository.alias}' field":
            raise field_error(address, fields.repository.alias, e.problem, e.remedy) from e
        raise DockerNixError(
            f"The target {address} cannot be named. {e.origin} {e.problem}\n\n{e.remedy}"
        ) from e
