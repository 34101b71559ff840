"""The fields of `nix_package`."""

from __future__ import annotations

import re
from typing import Dict, Iterable, Optional, Tuple

from pants.core.util_rules.environments import EnvironmentField
from pants.engine.addresses import Address
from pants.engine.target import (
    BoolField,
    Dependencies,
    DictStringToStringField,
    InvalidFieldException,
    OptionalSingleSourceField,
    StringField,
    StringSequenceField,
)
from pants.util.frozendict import FrozenDict
from pants.util.strutil import help_text

from docker_nix.image_fields import invalid
from docker_nix.resolve import store_path
from docker_nix.resolve.nix.installable import BadInstallable, parse_installable

_ARGUMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_'-]*")
_OUTPUT = re.compile(r"[A-Za-z0-9+\-._?=]+")
_SYSTEM = re.compile(r"[a-z0-9_]+-[a-z0-9_]+")


def _checked_text(alias: str, address: Address, value: Optional[str]) -> Optional[str]:
    if value is not None and (not value.strip() or "\0" in value or "\n" in value):
        raise invalid(alias, address, f"is {value!r}.", "Give it a value, or leave it out.")
    return value


class NixExpressionField(OptionalSingleSourceField):
    alias = "expression"
    # Not `.nix` only: Nix takes any name.
    help = help_text(
        """
        A file with a Nix expression for the package, such as `app.nix`. It must evaluate to a
        derivation, or `attribute` must select one.

        Nix sees this file and those of the targets in `dependencies`, at their paths in the
        repository, and no others.

        Evaluation is tried in pure mode first (no `<nixpkgs>`, no `builtins.currentSystem`, no
        fetching without a hash). Where that works, the result depends on these files only and is
        cached, locally and remotely: a machine without Nix can use it. Otherwise it depends on the
        machine: Nix is asked in each run, and a warning says so.
        """
    )


class NixAttributeField(StringField):
    alias = "attribute"
    help = help_text(
        """
        The attribute path of the package in `expression`, as `nix-build --attr` takes it:
        `packages.app`, or `app.dev` for another output.
        """
    )

    @classmethod
    def compute_value(cls, raw_value: Optional[str], address: Address) -> Optional[str]:
        return _checked_text(cls.alias, address, super().compute_value(raw_value, address))


class NixArgumentsField(DictStringToStringField):
    alias = "arguments"
    help = help_text(
        """
        Strings to call the function in `expression` with, by the names of its arguments, as
        `nix-build --argstr` passes them: `arguments={"system": "x86_64-linux"}`.
        """
    )

    @classmethod
    def compute_value(
        cls, raw_value: Optional[Dict[str, str]], address: Address
    ) -> Optional[FrozenDict[str, str]]:
        value = super().compute_value(raw_value, address)
        for name, text in (value or {}).items():
            if not _ARGUMENT.fullmatch(name):
                raise invalid(
                    cls.alias,
                    address,
                    f"has {name!r}, which is not the name of an argument.",
                    "Use letters, digits, `_`, `-` and `'`, and begin with a letter or `_`.",
                )
            if "\0" in text:
                raise invalid(cls.alias, address, f"has a NUL in {name!r}.", "Remove it.")
        return value


class NixInstallableField(StringField):
    alias = "installable"
    help = help_text(
        """
        A flake reference with an attribute, as `nix build` takes it: `.#app` for a flake in the
        directory of this BUILD file (`../..#app` for one above), or
        `github:owner/repository/<commit>#app`.

        A flake in the repository consists of its `flake.nix`, its `flake.lock` and the files of the
        targets in `dependencies`; Nix sees no others, and needs no Git.

        Evaluation is pure. Where all inputs are locked, the result is cached, locally and remotely;
        otherwise it depends on the time and the machine, Nix is asked in each run, and a warning
        says so.
        """
    )

    @classmethod
    def compute_value(cls, raw_value: Optional[str], address: Address) -> Optional[str]:
        value = _checked_text(cls.alias, address, super().compute_value(raw_value, address))
        if value is not None:
            try:
                parse_installable(value, address.spec_path)
            except BadInstallable as e:
                raise invalid(cls.alias, address, f"is {value!r}, {e}.", "") from e
        return value


class NixImpureField(BoolField):
    alias = "impure"
    default = False
    help = help_text(
        """
        Whether the flake of `installable` may use the environment, the system's type and files of
        this machine (`nix build --impure`). The result is not cached then.
        """
    )


class NixStorePathField(StringField):
    alias = "store_path"
    help = help_text(
        """
        A path of the Nix store, `/nix/store/<hash>-<name>`. Where it is not valid on this machine,
        Nix fetches it from the caches that it is configured for.
        """
    )

    @classmethod
    def compute_value(cls, raw_value: Optional[str], address: Address) -> Optional[str]:
        value = super().compute_value(raw_value, address)
        if value is None:
            return None
        try:
            _, name = store_path.split_path(value)
        except ValueError as e:
            remedy = ""
            if value.startswith("/") and not value.startswith(store_path.STORE_DIR + "/"):
                remedy = (
                    "The hashes of store paths are made for their directory, and an image has "
                    f"them at {store_path.STORE_DIR}, so a store elsewhere cannot be used."
                )
            elif value.startswith(store_path.STORE_DIR + "/") and value.count("/") > 3:
                remedy = "Give the store path itself, without what lies in it."
            raise InvalidFieldException(
                f"The '{cls.alias}' field in target {address} is no store path: {e} {remedy}"
            ) from e
        if name.endswith(".drv"):
            raise invalid(
                cls.alias,
                address,
                f"is {value!r}, a derivation.",
                "Give one of its outputs (`nix-store --query --outputs`), or the expression it "
                "comes from.",
            )
        return value


class NixOutputsField(StringSequenceField):
    alias = "outputs"
    help = help_text(
        """
        The outputs of the derivation that appear at `/`, such as `["out", "man"]`. The store path
        of the target, for `{store_path[…]}`, is that of the first.

        The default is the one output that the attribute stands for, as in Nix: the derivation's
        first. What the outputs refer to comes along in any case.
        """
    )

    @classmethod
    def compute_value(
        cls, raw_value: Optional[Iterable[str]], address: Address
    ) -> Optional[Tuple[str, ...]]:
        value = super().compute_value(raw_value, address)
        if value is None:
            return None
        if not value:
            raise invalid(
                cls.alias, address, "is an empty list.", "Name an output, or leave it out."
            )
        for output in value:
            if not _OUTPUT.fullmatch(output):
                raise invalid(
                    cls.alias,
                    address,
                    f"has {output!r}, which is not the name of an output.",
                    "Outputs have names such as 'out' and 'dev'.",
                )
        return tuple(dict.fromkeys(value))


class NixEnvironmentField(EnvironmentField):
    help = help_text(
        """
        The environment for whose platform it is evaluated, where `system` does not say. The default
        is that of the image which has it among its contents.

        Nix itself runs on this machine, and its store paths are packed here, whatever the
        environment: a cluster or a container has no part of your Nix store. Once they are in a
        remote cache, no machine needs Nix for them.
        """
    )


class NixSystemField(StringField):
    alias = "system"
    help = help_text(
        """
        The system to evaluate for, as Nix spells it. The default is Linux on the architecture of
        the environment, `x86_64-linux` or `aarch64-linux`. To build for another one than that of
        this machine, Nix needs a builder or a cache that has it.
        """
    )

    @classmethod
    def compute_value(cls, raw_value: Optional[str], address: Address) -> Optional[str]:
        value = super().compute_value(raw_value, address)
        if value is not None and not _SYSTEM.fullmatch(value):
            raise invalid(
                cls.alias,
                address,
                f"is {value!r}.",
                "Write it as Nix does, such as 'x86_64-linux' or 'aarch64-linux'.",
            )
        return value


class NixDependenciesField(Dependencies):
    alias = "dependencies"
    help = help_text(
        """
        Targets whose files Nix sees when it evaluates `expression`, or a flake of the repository:
        what these import, and sources to build from.
        """
    )
