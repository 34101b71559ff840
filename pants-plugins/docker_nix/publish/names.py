"""The names of an image in registries, by the conventions of Pants' own docker backend.

There is a name for each registry and tag. The repository is the registry's own `repository`, or
else the target's, or else the image's name.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import Iterator, Mapping, Optional, Sequence, Tuple

from docker_nix.assemble.docker_info import ImageName
from docker_nix.assemble.image_config import is_image_name, is_image_tag


class NameProblem(Exception):
    """A name that cannot be. `origin` is where it comes from, a field or an option."""

    def __init__(self, origin: str, problem: str, remedy: str) -> None:
        super().__init__(f"{origin} {problem} {remedy}")
        self.origin, self.problem, self.remedy = origin, problem, remedy


@dataclass(frozen=True)
class NamedRegistry:
    """A registry that an image is for.

    :param repository: a template, which overrides that of the target.
    """

    address: str
    alias: Optional[str] = None
    repository: Optional[str] = None
    extra_image_tags: Tuple[str, ...] = ()
    use_local_alias: bool = False


def placeholders(spec_path: str, target_name: str) -> Mapping[str, str]:
    """What a template may name of the target `spec_path:target_name`."""
    return {
        "name": target_name,
        "directory": posixpath.basename(spec_path),
        "parent_directory": posixpath.basename(posixpath.dirname(spec_path)),
    }


def image_names(
    default_repository: str,
    repository: Optional[str],
    tags: Sequence[str],
    registries: Sequence[NamedRegistry],
    words: Mapping[str, str],
) -> Tuple[ImageName, ...]:
    """All names of an image, each once; the first is what it is best known by.

    :param default_repository: the repository where nothing else says.
    :param repository: the template in the target's field.
    :param words: what `placeholders` gives.

    Raises `NameProblem`.
    """
    field = "The 'repository' field"
    known = {**words, "default_repository": default_repository}
    own = default_repository
    if repository is not None:
        own = _filled(repository, known, field)
        _check_name(own, repository, field)
    known["target_repository"] = own
    if not registries:
        return tuple(ImageName(own, tag) for tag in tags)
    names = []
    for registry in registries:
        origin = f"The repository of the registry {registry.alias or registry.address!r}"
        its_own = own
        if registry.repository is not None:
            its_own = _filled(registry.repository, known, origin)
            _check_name(its_own, registry.repository, origin)
        _check_name(f"{registry.address}/{its_own}", registry.address, "The registry's address")
        all_tags = dict.fromkeys((*tags, *_extra_tags(registry)))
        alias = registry.alias
        names += [ImageName(its_own, tag, registry.address, alias) for tag in all_tags]
        if registry.use_local_alias and alias:
            names += [ImageName(its_own, tag, registry.address, alias, True) for tag in all_tags]
    return tuple(dict.fromkeys(names))


def _filled(template: str, words: Mapping[str, str], origin: str) -> str:
    def word(match: re.Match[str]) -> str:
        if match[1] not in words:
            raise NameProblem(
                origin,
                f"is {template!r}, with the unknown placeholder {match[0]!r}.",
                f"The placeholders are {', '.join(f'{{{name}}}' for name in sorted(words))}.",
            )
        return words[match[1]]

    return re.sub(r"\{([^{}]*)\}", word, template).lower()


def _check_name(name: str, written: str, origin: str) -> None:
    if not is_image_name(name):
        raise NameProblem(
            origin,
            f"is {written!r}, and {name!r} is not a legal image name.",
            "Use letters, digits, single '.', '_' or '-' between them, and '/', without a tag.",
        )


def _extra_tags(registry: NamedRegistry) -> Iterator[str]:
    for tag in registry.extra_image_tags:
        if not is_image_tag(tag):
            raise NameProblem(
                f"The extra_image_tags of the registry {registry.alias!r}",
                f"have {tag!r}, which is not a legal tag.",
                "A tag has 1 to 128 letters, digits, '_', '.' and '-', and begins with none of the "
                "last two.",
            )
        yield tag.lower()
