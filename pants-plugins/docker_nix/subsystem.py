"""The options of the plugin."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from typing import Any, Iterator, Optional, Tuple

from pants.backend.docker.registries import DockerRegistries, DockerRegistryOptions
from pants.core.util_rules.search_paths import ExecutableSearchPathsOptionMixin
from pants.core.util_rules.system_binaries import SEARCH_PATHS
from pants.option.errors import BooleanConversionError
from pants.option.option_types import (
    DictOption,
    EnumOption,
    IntOption,
    ShellStrListOption,
    StrListOption,
    StrOption,
)
from pants.option.parser import Parser
from pants.option.subsystem import Subsystem
from pants.util.docutil import bin_name
from pants.util.memo import memoized_property
from pants.util.strutil import softwrap

from docker_nix.assemble.image_config import is_image_name
from docker_nix.errors import DockerNixError
from docker_nix.image_fields import OUTPUT_FORMATS
from docker_nix.resolve.python.fields import PythonLayering

_REGISTRY_KEYS = {
    *(name for name in DockerRegistryOptions.__dataclass_fields__ if name != "alias"),
    "insecure",
    "ca_file",
}


class Engine(Enum):
    """What runs containers; each is the name of its command."""

    auto = "auto"
    docker = "docker"
    podman = "podman"
    nerdctl = "nerdctl"


@dataclass(frozen=True)
class RegistryTransport:
    """How the registry at an address (`host[:port]`) is reached, where that is not plain HTTPS.

    :param insecure: whether plain HTTP, and HTTPS without a valid certificate, will do; None for
        the default, which is to take it from this machine itself and from no other.
    :param ca_file: path of the certificates to trust besides the system's.
    """

    address: str
    insecure: Optional[bool]
    ca_file: Optional[str]


class DockerNixSubsystem(Subsystem):
    options_scope = "docker-nix"
    help = "Reproducible container images from store paths, as Nix' dockerTools builds them."

    registries = DictOption[Any](
        help=softwrap(
            """
            Registries by an alias, as in `[docker].registries`, with two more keys for how they are
            reached:

                [docker-nix.registries.internal]
                address = "registry.internal:5000"
                ca_file = "build-support/ca.pem"  # certificates to trust, PEM
                insecure = false                  # true: plain HTTP, or any certificate

            The other keys are those of `[docker].registries`, and say how images are published:

                default = true               # for images without `registries`; so has `default`
                repository = "team/{name}"   # instead of the target's
                extra_image_tags = ["latest"]
                skip_push = false            # true: named after it, not published there
                use_local_alias = false      # true: on this machine also named `internal/…`

            A registry on a loopback address may be plain HTTP without being listed.

            Credentials do not belong here: log in with `docker login` or `skopeo login`.
            """
        ),
        fromfile=True,
    )

    env_vars = StrListOption(
        help=softwrap(
            """
            Names of environment variables for the processes that speak to registries and to
            engines, such as those that a credential helper reads, and for Nix. They are passed on
            at run time and are part of no cache key. Those that `skopeo`, the engines and Nix
            themselves know (for the home directory, authentication files, proxies, certificates,
            and where an engine listens) are always passed on.
            """
        ),
    )

    registry_timeout = IntOption(
        default=600,
        help=softwrap(
            """
            After how many seconds one exchange with a registry, such as fetching the layers of an
            image, or pushing them with all attempts, is given up.
            """
        ),
    )

    output_format = StrOption(
        default=None,
        help=softwrap(
            f"""
            What `{bin_name()} package` writes for every image, instead of what the image's
            `output_format` field says: {", ".join(f"`{name}`" for name in OUTPUT_FORMATS)}. With
            `metadata`, no layer is fetched or written, in a build that publishes images.
            """
        ),
    )

    python_layering = EnumOption(
        default=PythonLayering.DISTRIBUTION,
        help=softwrap(
            """
            How a `pex_binary` goes into an image, where its field `python_layering` does not say:
            as a store path for each distribution, or as one with the file that `package` makes.
            """
        ),
    )

    nix_cache_version = StrOption(
        default="",
        help=softwrap(
            """
            Any text, part of the cache keys of what Nix was asked for `nix_package` targets. Change
            it to have Nix asked again for all of them, as for a package that was built to other
            content than before.
            """
        ),
    )

    engine = EnumOption(
        default=Engine.auto,
        help=softwrap(
            f"""
            The container engine of `{bin_name()} run`. `auto` is the first one that is installed
            and answers.
            """
        ),
    )

    run_args = ShellStrListOption(
        help=softwrap(
            f"""
            Arguments of the engine's `run` command, as in
            `{bin_name()} run --docker-nix-run-args="--publish 8080:80" path/to:image -- ARGUMENTS`.

            Before them stand `--rm`, `--interactive` and, on a terminal, `--tty`, which they may
            take back: `--rm=false`.
            """
        ),
    )

    run_env = StrListOption(
        help=softwrap(
            f"""
            Environment variables of the container in `{bin_name()} run`: `NAME=value`, or `NAME`
            for the value that it has where `{bin_name()}` is run.
            """
        ),
    )

    @property
    def checked_output_format(self) -> Optional[str]:
        """The option `output_format`. Raises DockerNixError."""
        if self.output_format not in (None, *OUTPUT_FORMATS):
            raise DockerNixError(
                f"The option [docker-nix].output_format is {self.output_format!r}.\n\nIt must be "
                f"one of {', '.join(OUTPUT_FORMATS)}."
            )
        return self.output_format

    @memoized_property
    def parsed_registries(self) -> DockerRegistries:
        """The registries as Pants' own docker backend understands them. Raises DockerNixError."""
        for alias, options in self.registries.items():
            where = f"The option [docker-nix].registries has the registry {alias!r}"
            if not isinstance(options, dict) or not options.get("address"):
                raise DockerNixError(
                    f"{where} without an address.\n\nGive it as "
                    f'[docker-nix.registries.{alias}] with address = "host:port".'
                )
            unknown = sorted(options.keys() - _REGISTRY_KEYS)
            if unknown:
                raise DockerNixError(
                    f"{where} with the unknown key {unknown[0]!r}.\n\nThe keys are "
                    f"{', '.join(sorted(_REGISTRY_KEYS))}."
                )
            address = options["address"]
            if not isinstance(address, str) or not is_image_name(f"{address}/name"):
                raise DockerNixError(
                    f"{where} with the address {address!r}.\n\nWrite it as images' names have it: "
                    '"host" or "host:port", without "https://".'
                )
            for key in ("default", "insecure", "skip_push", "use_local_alias"):
                try:
                    Parser.ensure_bool(options.get(key) or False)
                except BooleanConversionError as e:
                    raise DockerNixError(
                        f"{where} with {options[key]!r} for {key!r}.\n\nIt must be true or false."
                    ) from e
            if not isinstance(options.get("repository") or "", str):
                raise DockerNixError(
                    f"{where} with {options['repository']!r} for 'repository'.\n\nIt must be a "
                    'string such as "team/{name}".'
                )
            tags = options.get("extra_image_tags") or []
            if not isinstance(tags, (list, tuple)) or not all(isinstance(t, str) for t in tags):
                raise DockerNixError(
                    f"{where} with {tags!r} for 'extra_image_tags'.\n\nIt must be a list of "
                    'strings such as ["latest"].'
                )
        return DockerRegistries.from_dict(self.registries)

    def transports(self, build_root: str) -> Iterator[RegistryTransport]:
        """How each of the registries is reached. Raises DockerNixError."""
        for registry in dict.fromkeys(self.parsed_registries.registries.values()):
            options = self.registries[registry.alias]
            path = None
            if options.get("ca_file") is not None:
                path = os.path.join(build_root, os.path.expanduser(str(options["ca_file"])))
                if not os.path.isfile(path):
                    raise DockerNixError(
                        f"The option [docker-nix].registries has the ca_file "
                        f"{options['ca_file']!r} for the registry {registry.alias!r}, but there "
                        f"is no file {path}.\n\nGive the path of a PEM file, absolute or from the "
                        "root of the repository."
                    )
            insecure = options.get("insecure")
            if insecure is not None:
                insecure = Parser.ensure_bool(insecure)
            host = registry.address.partition("/")[0]
            yield RegistryTransport(host, insecure, path)

    class EnvironmentAware(ExecutableSearchPathsOptionMixin, Subsystem.EnvironmentAware):
        env_vars_used_by_options = ("PATH",)
        executable_search_paths_help = softwrap(
            """
            The PATH on which the programs of the `tools` field are looked up, and the Python
            interpreter that builds layers where `python` is not set. Where there is no PATH, as on
            a remote worker, it is the system's usual folders.
            """
        )

        python = StrOption(
            default=None,
            help=softwrap(
                """
                Absolute path of the Python (3.8 or newer, standard library only) that runs the
                tool which builds layers.

                By default the first `python3` on the search path that works. The choice changes
                neither the bytes of a layer nor its cache key.
                """
            ),
        )

        @property
        def search_path(self) -> Tuple[str, ...]:
            """The folders of the option, or the usual ones if it comes to none."""
            return self.executable_search_path or SEARCH_PATHS
