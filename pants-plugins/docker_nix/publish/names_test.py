from __future__ import annotations

from typing import Any, Optional, Sequence

import pytest

from docker_nix.assemble.docker_info import ImageName
from docker_nix.publish.names import NamedRegistry, NameProblem, image_names, placeholders

WORDS = placeholders("src/team/app", "image")


def names(
    *registries: NamedRegistry, repository: Optional[str] = None, tags: Sequence[str] = ("1",)
) -> list[str]:
    return [name.full for name in image_names("src/app", repository, tags, registries, WORDS)]


def test_without_a_registry() -> None:
    assert names(tags=("1", "b")) == ["src/app:1", "src/app:b"]
    assert names(repository="Team/{name}") == ["team/image:1"]


def test_placeholders() -> None:
    assert names(repository="{parent_directory}/{directory}/{name}/{default_repository}") == [
        "team/app/image/src/app:1"
    ]
    at_root = placeholders("", "image")
    assert at_root == {"name": "image", "directory": "", "parent_directory": ""}
    (name,) = image_names("d", "x/{name}", ["1"], [], at_root)
    assert name.full == "x/image:1"


def test_registries() -> None:
    plain = NamedRegistry("a.b:5000")
    own = NamedRegistry("c.d", "own", "mirror/{target_repository}", ("Latest", "1"))
    assert names(plain, own, repository="r") == [
        "a.b:5000/r:1",
        "c.d/mirror/r:1",
        "c.d/mirror/r:latest",
    ]
    assert names(NamedRegistry("c.d", "own", "only")) == ["c.d/only:1"]
    # Named twice, and an address that goes on.
    assert names(plain, plain) == ["a.b:5000/src/app:1"]
    assert names(NamedRegistry("c.d/team")) == ["c.d/team/src/app:1"]


def test_local_alias() -> None:
    found = image_names("r", None, ["1"], [NamedRegistry("a.b", "own", None, (), True)], WORDS)
    assert found == (
        ImageName("r", "1", "a.b", "own"),
        ImageName("r", "1", "a.b", "own", uses_local_alias=True),
    )
    assert [name.full for name in found] == ["a.b/r:1", "own/r:1"]
    assert found[1].image == "own/r"


@pytest.mark.parametrize(
    "repository, registry, message",
    [
        ("{nam}", {}, "The 'repository' field is '{nam}', with the unknown placeholder '{nam}'. "),
        ("{target_repository}", {}, "The 'repository' field is '{target_repository}', with the un"),
        ("a:b", {}, "The 'repository' field is 'a:b', and 'a:b' is not a legal image name. "),
        ("", {}, "The 'repository' field is '', and '' is not a legal image name. "),
        ("{name}/", {}, "The 'repository' field is '{name}/', and 'image/' is not a legal image n"),
        (None, {"repository": "ü"}, "The repository of the registry 'own' is 'ü', and 'ü' is not"),
        (
            None,
            {"extra_image_tags": (".",)},
            "The extra_image_tags of the registry 'own' have '.',",
        ),
    ],
)
def test_names_that_cannot_be(
    repository: Optional[str], registry: dict[str, Any], message: str
) -> None:
    with pytest.raises(NameProblem) as error:
        names(NamedRegistry("a.b", "own", **registry), repository=repository)
    assert str(error.value).startswith(message)
