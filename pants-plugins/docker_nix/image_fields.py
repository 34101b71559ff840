"""The fields of image targets."""

from __future__ import annotations

import difflib
from typing import Any, ClassVar, Dict, Iterable, Mapping, Optional, Tuple

from pants.engine.addresses import Address
from pants.engine.target import (
    BoolField,
    Dependencies,
    Field,
    IntField,
    InvalidFieldException,
    SpecialCasedDependencies,
    StringField,
    StringSequenceField,
)
from pants.util.docutil import bin_name
from pants.util.frozendict import FrozenDict
from pants.util.strutil import help_text

from docker_nix.assemble.image_config import (
    ARCHITECTURES,
    CREATED_DEFAULT,
    OPERATING_SYSTEMS,
    ConfigError,
    check_config,
    check_created,
    default_image_name,
    is_image_name,
    is_image_tag,
    is_unicode,
)
from docker_nix.resolve.references import MalformedReference, Part, parse_script, parse_text


def invalid(alias: str, address: Address, problem: str, remedy: str) -> InvalidFieldException:
    return InvalidFieldException(f"The '{alias}' field in target {address} {problem} {remedy}")


# What other tools call an architecture, and Go does not.
_OTHER_ARCHITECTURES = {
    "aarch64": "arm64",
    "armv7l": "arm",
    "i386": "386",
    "i686": "386",
    "x86_64": "amd64",
    "x86-64": "amd64",
}


def check_choice(alias: str, address: Address, value: str, choices: Iterable[str]) -> None:
    if value in choices:
        return
    known = _OTHER_ARCHITECTURES.get(value.lower(), "")
    if known in choices:
        near = [known]
    else:
        near = difflib.get_close_matches(value.lower(), tuple(choices), n=1, cutoff=0.4)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise invalid(
        alias, address, f"is {value!r}.", f"{hint}It must be one of {', '.join(sorted(choices))}."
    )


class ImageNameField(StringField):
    alias = "image_name"
    value: str
    help = help_text(
        """
        The repository name of the image, such as `team/app`, in lower case (upper case is lowered).

        The default is made of the target's directory and its name, the name left out where it
        repeats the directory's: `src/team/app:app` gives `src/team/app`.
        """
    )

    @classmethod
    def compute_value(cls, raw_value: Optional[str], address: Address) -> str:
        value = super().compute_value(raw_value, address)
        if value is None:
            target_name = address.generated_name or address.target_name
            return default_image_name(address.spec_path, target_name + address.parameters_repr)
        if not is_image_name(value.lower()):
            raise invalid(
                cls.alias,
                address,
                f"is {value!r}, which is not a legal image name.",
                "Use letters, digits, single `.`, `_` or `-` between them, and `/`, without a tag "
                "(tags go into 'image_tags').",
            )
        return value.lower()


class ImageTagsField(StringSequenceField):
    alias = "image_tags"
    help = help_text(
        """
        The tags of the image, in lower case (upper case is lowered).

        The default is one tag: the first 32 characters of the image ID, which is a digest of the
        image's content. The same content has the same tag.
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
                cls.alias,
                address,
                "is an empty list.",
                "Give at least one tag, or leave the field out for a tag made from the content.",
            )
        for tag in value:
            if not is_image_tag(tag):
                raise invalid(
                    cls.alias,
                    address,
                    f"has {tag!r}, which is not a legal tag.",
                    "A tag has 1 to 128 letters, digits, `_`, `.` and `-`, and begins with none of "
                    "the last two.",
                )
        return tuple(dict.fromkeys(tag.lower() for tag in value))


class ContentsField(SpecialCasedDependencies):
    alias = "contents"
    help = help_text(
        f"""
        Addresses of what goes into the image. Each becomes a store path, and its tree appears at
        `/` of the image as links into the store.

        You can list:

        - `file`, `files`, `resource`, `resources` and `relocated_files` targets, and targets that
        generate files: their files, at the path that an `archive` target would give them
        (use `relocated_files` to put them elsewhere), and those of the file targets in their
        `dependencies`;

        - anything that `{bin_name()} package` builds: an executable goes to `bin/`, an archive is
        unpacked, other artifacts stay at their path;

        - a `file` target whose source is an archive (`.tar`, `.tar.gz`, `.tar.xz`, `.tar.bz2`,
        `.tar.zst`, `.zip`): it is unpacked. To keep it packed, list it in a `files` target;

        - a `nix_package`: what Nix builds, in its own store paths. What they refer to comes along,
        but does not appear at `/`;

        - a `target` that only has `dependencies`: all of them.

        Two contents that have the same directory are merged; two that have different files at one
        path are an error.

        Pants follows symlinks among the sources of a target, so they become what they point to; one
        that it cannot follow is an error. Archives and generated files keep their symlinks.
        """
    )

    @classmethod
    def compute_value(
        cls, raw_value: Optional[Iterable[str]], address: Address
    ) -> Optional[Tuple[str, ...]]:
        value = super().compute_value(raw_value, address)
        for spelled in value or ():
            path = spelled[2:] if spelled.startswith("//") else spelled
            if not path or path.startswith("/") or ".." in path.split("/"):
                raise invalid(
                    cls.alias,
                    address,
                    f"has {spelled!r}, which is not the address of a target.",
                    "Write it as 'path/to:target', from the root of the repository, or ':target' "
                    "for one in the same directory.",
                )
        return value


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return FrozenDict({key: _frozen(item) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(item) for item in value)
    return value


def config_strings(value: Any) -> Iterable[str]:
    """All strings in a config value that may hold store path references (dict keys do not)."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from config_strings(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from config_strings(item)


class ImageConfigField(Field):
    alias = "config"
    value: Optional[FrozenDict[str, Any]]
    default: ClassVar[Optional[FrozenDict[str, Any]]] = None
    help = help_text(
        """
        The configuration a container starts with, spelled as in the OCI image spec: `Cmd`,
        `Entrypoint`, `Env`, `ExposedPorts`, `Healthcheck`, `Labels`, `StopSignal`, `User`,
        `Volumes`, `WorkingDir`. What is not set is as in the base image. For example:

            config={
                "Entrypoint": ["/bin/app"],
                "Env": ["MODE=production"],
                "ExposedPorts": {"8080/tcp": {}},
                "User": "65532:65532",
            }

        A string may name the store path of a target with `{store_path[ADDRESS]}`, as in
        `"Cmd": ["{store_path[src/app:bin]}/bin/app"]`. What it names becomes part of the image,
        though it does not appear at `/`. A literal brace is written `{{` or `}}`.
        """
    )

    @classmethod
    def compute_value(
        cls, raw_value: Optional[Dict[str, Any]], address: Address
    ) -> Optional[FrozenDict[str, Any]]:
        value = super().compute_value(raw_value, address)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise invalid(
                cls.alias,
                address,
                f"must be a dict, but is {value!r}.",
                'Write it as {"Entrypoint": ["/bin/app"]}.',
            )
        try:
            checked = check_config(value)
        except ConfigError as e:
            raise invalid(
                cls.alias, address, f"is wrong: {e.key} {e.problem}.", f"{e.remedy}."
            ) from e
        for text in config_strings(checked):
            try:
                parse_text(text)
            except MalformedReference as e:
                raise invalid(cls.alias, address, f"has {text!r} with {e}.", "") from e
        return _frozen(checked)

    def parts(self) -> Iterable[Tuple[Part, ...]]:
        """Each string of the config, split into text and references."""
        return (parse_text(text) for text in config_strings(self.value or {}))


class CreatedField(StringField):
    alias = "created"
    default = CREATED_DEFAULT
    value: str
    help = help_text(
        """
        The creation time in the image's configuration, as RFC 3339. It never changes a layer.

        With `"now"` it is the time of the build, and the image is not reproducible.
        """
    )

    @classmethod
    def compute_value(cls, raw_value: Optional[str], address: Address) -> str:
        value = super().compute_value(raw_value, address)
        assert value is not None
        try:
            return check_created(value)
        except ValueError as e:
            raise invalid(
                cls.alias, address, f"is {value!r}, which {e}.", f"Write it as {CREATED_DEFAULT!r}."
            ) from e


class _ScriptField(StringField):
    @classmethod
    def compute_value(cls, raw_value: Optional[str], address: Address) -> Optional[str]:
        value = super().compute_value(raw_value, address)
        if value is not None:
            try:
                parse_script(value)
            except MalformedReference as e:
                raise invalid(cls.alias, address, f"has {e}.", "") from e
            if "\0" in value:
                raise invalid(cls.alias, address, "has a NUL character.", "Remove it.")
            if not is_unicode(value):
                raise invalid(cls.alias, address, "has half a character.", "Write it as UTF-8.")
        return value

    def parts(self) -> Tuple[Part, ...]:
        """The script, split into text and references."""
        return parse_script(self.value or "")


class ExtraCommandsField(_ScriptField):
    alias = "extra_commands"
    help = help_text(
        """
        Shell commands that run in the root of the last layer before it is packed, with `bash` and
        `set -e`, without root. What they create, change, delete and the modes they set is kept.

        `PATH` is `/usr/local/bin:/usr/bin:/bin`, with the programs of `tools` before it; the umask
        is 022; do not count on a network. `{store_path[ADDRESS]}` is replaced by a target's
        store path, which becomes part of the image; while the commands run, its files can be read
        below `$STORE_ROOT`, as in `cp "$STORE_ROOT{store_path[src/conf]}/app.conf" etc/`. Other
        braces are left to the shell.
        """
    )


class RunAsRootField(_ScriptField):
    alias = "run_as_root"
    help = help_text(
        """
        A shell script that runs as root in the image's root file system: that of `from_image` with
        the `contents` in it. What it creates, changes and deletes becomes part of the layer, with
        the owners and modes it sets, such as `useradd app; chown app /srv`.

        It runs in namespaces of its own without a network, with the image's own `bash` (or
        `/bin/sh`; or this machine's `bash`, where the image has neither) and `set -e`; no daemon or
        virtual machine is needed, only a Linux that lets the user make namespaces. `PATH` is
        `/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`, the umask 022.

        `{store_path[ADDRESS]}` is replaced by a target's store path, which becomes part of the
        image. Other braces are left to the shell. Store paths cannot be changed.

        The root file system is held in memory while the script runs.
        """
    )


class PythonInterpreterField(StringField):
    alias = "python_interpreter"
    help = help_text(
        """
        The path in the image of the Python that runs its `pex_binary` targets, such as
        `/opt/python/bin/python3.11`.

        By default it is the first that fits their interpreter constraints: `bin/python3.X` of one
        of the `contents`, or else what is found on the `PATH` of the base image. A store path may
        be named: `{store_path[//:python]}/bin/python3.11`. Where the base image does not have the
        path, it must end in the version, as these do.
        """
    )

    @classmethod
    def compute_value(cls, raw_value: Optional[str], address: Address) -> Optional[str]:
        value = super().compute_value(raw_value, address)
        if value is None:
            return None
        try:
            parts = parse_text(value)
        except MalformedReference as e:
            raise invalid(cls.alias, address, f"has {value!r} with {e}.", "") from e
        if (parts[0] == "" and len(parts) == 1) or not (
            str(parts[0]).startswith("/") or (parts[0] == "" and len(parts) > 1)
        ):
            raise invalid(
                cls.alias,
                address,
                f"is {value!r}, which is not an absolute path.",
                "Write it as '/usr/bin/python3.11'.",
            )
        return value

    def parts(self) -> Tuple[Part, ...]:
        """The path, split into text and references."""
        return parse_text(self.value or "")


class PythonBytecodeField(BoolField):
    alias = "python_bytecode"
    default = True
    help = help_text(
        """
        Whether the modules of `pex_binary` targets are compiled when the image is built, so that
        programs start faster. What is compiled is valid whatever the times of files are.

        The Python of the base image compiles them, on every machine that builds the image. Nothing
        is compiled where the Python comes from elsewhere, nor for a `pex_binary` with
        `complete_platforms`, which may be built on a machine that cannot run it.
        """
    )


class ToolsField(StringSequenceField):
    alias = "tools"
    default = ()
    help = help_text(
        """
        Names of programs that `extra_commands` runs, beyond those in `/usr/local/bin`, `/usr/bin`
        and `/bin`, such as `["openssl"]`.

        They are looked up on `[docker-nix].executable_search_paths`, as `shell_command` does with
        its `tools`.
        """
    )

    @classmethod
    def compute_value(
        cls, raw_value: Optional[Iterable[str]], address: Address
    ) -> Optional[Tuple[str, ...]]:
        value = super().compute_value(raw_value, address)
        for tool in value or ():
            if not tool or "/" in tool:
                raise invalid(
                    cls.alias,
                    address,
                    f"has {tool!r}, which is not the name of a program.",
                    "Give a name without a directory.",
                )
        return value


class _IdField(IntField):
    default = 0
    value: int

    @classmethod
    def compute_value(cls, raw_value: Optional[int], address: Address) -> int:
        value = super().compute_value(raw_value, address)
        assert value is not None
        if isinstance(value, bool) or not 0 <= value <= 4294967294:
            raise invalid(
                cls.alias, address, f"is {value!r}.", "It must be a number from 0 to 4294967294."
            )
        return value


class UidField(_IdField):
    alias = "uid"
    help = "The number of the user who owns the files that the last layer has outside of the store."


class GidField(_IdField):
    alias = "gid"
    help = (
        "The number of the group that owns the files that the last layer has outside of the store."
    )


class ArchitectureField(StringField):
    alias = "architecture"
    help = help_text(
        """
        The CPU architecture the image is for, as Go names it: `amd64`, `arm64`, ….

        The default is that of the base image, or else of the platform that builds it.
        """
    )

    @classmethod
    def compute_value(cls, raw_value: Optional[str], address: Address) -> Optional[str]:
        value = super().compute_value(raw_value, address)
        if value is not None:
            check_choice(cls.alias, address, value, ARCHITECTURES)
        return value


class OsField(StringField):
    alias = "os"
    help = help_text(
        """
        The operating system the image is for, as Go names it. The default is that of the base
        image, or else `linux`.
        """
    )

    @classmethod
    def compute_value(cls, raw_value: Optional[str], address: Address) -> Optional[str]:
        value = super().compute_value(raw_value, address)
        if value is not None:
            check_choice(cls.alias, address, value, OPERATING_SYSTEMS)
        return value


class VariantField(StringField):
    alias = "variant"
    help = help_text(
        """
        The variant of the CPU architecture, such as `v8` for `arm64`. The default is that of the
        base image, or else none.
        """
    )

    @classmethod
    def compute_value(cls, raw_value: Optional[str], address: Address) -> Optional[str]:
        value = super().compute_value(raw_value, address)
        if value is not None and not (value.isascii() and value.isalnum()):
            raise invalid(cls.alias, address, f"is {value!r}.", "Write it as 'v8'.")
        return value


class CompressionField(StringField):
    alias = "compression"
    default = "gzip"
    value: str
    help = help_text(
        """
        How layers are compressed: `gzip`, which every engine and registry takes; `zstd`, which is
        smaller and faster to unpack and which Docker takes from version 23 on; or `none`.
        """
    )

    @classmethod
    def compute_value(cls, raw_value: Optional[str], address: Address) -> str:
        value = super().compute_value(raw_value, address)
        assert value is not None
        check_choice(cls.alias, address, value, ("gzip", "zstd", "none"))
        return value


OUTPUT_FORMATS = ("oci", "docker-archive", "metadata")


class OutputFormatField(StringField):
    alias = "output_format"
    default = "oci"
    value: str
    help = help_text(
        """
        What is written to the distdir:

        - `oci`: a directory that is an OCI image layout, and that `docker load` takes as well
        (`tar -cC DIR . | docker load`).

        - `docker-archive`: one `.tar` file for old tools, with uncompressed layers.

        - `metadata`: the OCI image layout without the layers, which are not fetched for it either:
        for a build that publishes the image and has no other use for it.

        A `.docker-info.json` with names, digests and layers stands beside each. The option
        `[docker-nix].output_format` overrides this field for all images.
        """
    )

    @classmethod
    def compute_value(cls, raw_value: Optional[str], address: Address) -> str:
        value = super().compute_value(raw_value, address)
        assert value is not None
        check_choice(cls.alias, address, value, OUTPUT_FORMATS)
        return value


class MaxLayersField(IntField):
    alias = "max_layers"
    default = 100
    value: int
    help = help_text(
        """
        How many layers the image may have, those of the base image and the customisation layer
        included; 1 to 125.

        With fewer store paths than that, each gets a layer of its own. With more, the most popular
        ones do, and the last store layer takes all the rest.
        """
    )

    @classmethod
    def compute_value(cls, raw_value: Optional[int], address: Address) -> int:
        value = super().compute_value(raw_value, address)
        assert value is not None
        if isinstance(value, bool) or not 1 <= value <= 125:
            raise invalid(
                cls.alias,
                address,
                f"is {value!r}.",
                "It must be a number from 1 to 125, which is what engines can mount.",
            )
        return value


class ImageDependenciesField(Dependencies):
    help = help_text(
        f"""
        Addresses of targets that this one depends on, beside those that its other fields name.

        They do not go into the image: what does is listed in `contents`. They make
        `{bin_name()} dependents` and `--changed-dependents` count this target in when they change.
        """
    )


class IncludeNixDbField(BoolField):
    alias = "include_nix_db"
    default = False
    help = help_text(
        """
        Whether the image has a Nix database in which all its store paths are valid, and garbage
        collector roots for the `contents`, so that Nix in a container knows them.
        """
    )


class KeepContentsDirlinksField(BoolField):
    alias = "keep_contents_dirlinks"
    default = False
    help = help_text(
        """
        Whether a symlink to a directory among the `contents` stays a symlink at `/`. If not, it
        becomes a directory with what it points to. Symlinks that lead out of their store path, or
        in a circle, always stay.
        """
    )


class ShadowSetupField(BoolField):
    alias = "shadow_setup"
    default = False
    help = help_text(
        """
        Whether `/etc/passwd`, `/etc/shadow`, `/etc/group`, `/etc/gshadow`, `/etc/pam.d/other` and
        `/etc/login.defs` are made where they are absent, with the user and group root, before
        `run_as_root` runs. In it, `useradd`, `groupadd` and their like work, be it the image's own
        or, where that has none, this machine's.
        """
    )


class DiskSizeField(IntField):
    alias = "disk_size"
    default = 1024
    value: int
    help = "How much `run_as_root` may write, in MiB."

    @classmethod
    def compute_value(cls, raw_value: Optional[int], address: Address) -> int:
        value = super().compute_value(raw_value, address)
        assert value is not None
        if isinstance(value, bool) or not 1 <= value <= 1024 * 1024:
            raise invalid(
                cls.alias,
                address,
                f"is {value!r}.",
                "It must be a number of MiB from 1 to 1048576.",
            )
        return value
