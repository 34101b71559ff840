"""The fields that name a base image: on another target, or in a registry."""

from __future__ import annotations

import re
from typing import Optional

from pants.engine.addresses import Address
from pants.engine.target import AsyncFieldMixin, StringField
from pants.util.strutil import help_text

from docker_nix.assemble.image_config import is_image_name, is_image_tag
from docker_nix.image_fields import invalid

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TARGET_KINDS = help_text(
    """
    - another image target, such as a `docker_nix_layered`;

    - a `docker_nix_pull`, an image in a registry;

    - a `file`, or a target that generates a single file, with an image archive: a docker-archive
    as `docker save` writes it, or an OCI image layout, as a tar, compressed or not.
    """
)


class FromImageField(StringField, AsyncFieldMixin):
    alias = "from_image"
    help = help_text(
        f"""
        The address of the base image: what this one is built on top of. It can be

        {_TARGET_KINDS}

        The base's configuration and history are inherited. `Env` is merged by name;
        `ExposedPorts`, `Labels` and `Volumes` by key; anything else is the base's unless it is set
        here, and setting an `Entrypoint` clears an inherited `Cmd`.

        Store paths that the base has are not added again. Where the base has a symlink to a
        directory, such as `/bin -> usr/bin`, what belongs into `/bin` goes where it leads.
        """
    )

    @classmethod
    def compute_value(cls, raw_value: Optional[str], address: Address) -> Optional[str]:
        value = super().compute_value(raw_value, address)
        if value is not None and not value.strip():
            raise invalid(
                cls.alias,
                address,
                f"is {value!r}, which is not the address of a target.",
                "Write it as 'path/to:target', or leave it out for an image without a base.",
            )
        return value


class ExportFromImageField(FromImageField):
    required = True
    value: str
    help = help_text(
        f"""
        The address of the image. It can be

        {_TARGET_KINDS}
        """
    )


class FromImageNameField(StringField):
    alias = "from_image_name"
    help = help_text(
        """
        The repository name of the image to take from the archive in `from_image`, where that holds
        several. The default is the first.
        """
    )


class FromImageTagField(StringField):
    alias = "from_image_tag"
    help = help_text(
        """
        The tag of the image to take from the archive in `from_image`, where that holds several. The
        default is the first.
        """
    )


class PullImageNameField(StringField):
    alias = "image_name"
    required = True
    value: str
    help = help_text(
        """
        The name of the image with the registry it is in, without a tag, such as
        `registry.example.com/team/base`. A name without a registry is one of Docker Hub's, as
        everywhere.

        Registries with a certificate authority of their own, or without TLS, are described by
        `[docker-nix].registries`. To log in, use `docker login` or `skopeo login`.
        """
    )

    @classmethod
    def compute_value(cls, raw_value: Optional[str], address: Address) -> str:
        value = super().compute_value(raw_value, address)
        assert value is not None
        if not is_image_name(value):
            remedy = "Write it as 'registry.example.com/team/base', in lower case."
            if "@" in value:
                remedy = "Put the digest into 'image_digest'."
            elif ":" in value.rpartition("/")[2]:
                remedy = "Leave the tag out: the 'image_digest' says which image it is."
            raise invalid(
                cls.alias, address, f"is {value!r}, which is not a legal image name.", remedy
            )
        return value


class PullImageDigestField(StringField):
    alias = "image_digest"
    required = True
    value: str
    help = help_text(
        """
        The digest of the image's manifest, `sha256:…`, or of an index: then the manifest of the
        platform is taken from it. `skopeo inspect --format '{{.Digest}}' docker://NAME:TAG` prints
        the one that a tag has now.
        """
    )

    @classmethod
    def compute_value(cls, raw_value: Optional[str], address: Address) -> str:
        value = super().compute_value(raw_value, address)
        assert value is not None
        if not _DIGEST.fullmatch(value):
            remedy = "It must be 'sha256:' and 64 of the digits 0-9 and a-f."
            if is_image_tag(value):
                remedy += " A tag will not do, as it may be another image tomorrow."
            raise invalid(cls.alias, address, f"is {value!r}, which is not a digest.", remedy)
        return value


class FinalImageNameField(StringField):
    alias = "final_image_name"
    help = "The name that the image has when it is packaged. The default is the `image_name`."

    @classmethod
    def compute_value(cls, raw_value: Optional[str], address: Address) -> Optional[str]:
        value = super().compute_value(raw_value, address)
        if value is not None and not is_image_name(value.lower()):
            raise invalid(
                cls.alias,
                address,
                f"is {value!r}, which is not a legal image name.",
                "Write it as 'team/base', without a tag (that goes into 'final_image_tag').",
            )
        return value.lower() if value is not None else None


class FinalImageTagField(StringField):
    alias = "final_image_tag"
    default = "latest"
    value: str
    help = "The tag that the image has when it is packaged."

    @classmethod
    def compute_value(cls, raw_value: Optional[str], address: Address) -> str:
        value = super().compute_value(raw_value, address)
        assert value is not None
        if not is_image_tag(value):
            raise invalid(
                cls.alias,
                address,
                f"is {value!r}, which is not a legal tag.",
                "A tag has 1 to 128 letters, digits, `_`, `.` and `-`, and begins with none of the "
                "last two.",
            )
        return value.lower()
