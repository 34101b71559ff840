from __future__ import annotations

from typing import Any, List

import pytest

from docker_nix.look.model import STORE_PATH, Layer, Report, created_by
from docker_nix.look.testing import base_layer, image, links_layer, store_layer, store_path


def test_sharing() -> None:
    a, b, c = store_layer("a"), store_layer("b"), links_layer("c")
    # One has a layer twice, which counts once where layers are stored, twice in the sum.
    report = Report((image("one", [a, b, c]), image("two", [b, a, b]), image("three", [c])))
    assert report.owners() == {a.digest: [0, 1], b.digest: [0, 1], c.digest: [0, 2]}
    assert report.layers == (a, b, c, b, a, b, c)
    assert report.unique_layers == (a, b, c)
    assert Report((report.images[1],)).unique_layers == (b, a)


def test_an_unknown_size_makes_the_sum_unknown() -> None:
    assert image("a", [store_layer("a"), links_layer("a")]).diff_size == 5048
    assert image("a", [store_layer("a"), base_layer()]).diff_size is None


@pytest.mark.parametrize(
    "layer, title",
    [
        (store_layer("a"), "a"),
        (store_layer("a", "b"), "a and b"),
        (store_layer("a", "b", "c"), "a and 2 more"),
        (links_layer("a"), "links to the contents"),
        (base_layer(), "ADD file:0123 in /"),
        (Layer("base", "", "", 0, "", None), "base layer"),
        (Layer("single", "", "", 0, "", None), "files and links"),
        (Layer("base", "", "", 0, "", None, (), "RUN " + 80 * "x"), f"RUN {55 * 'x'}…"),
    ],
)
def test_titles(layer: Layer, title: str) -> None:
    assert layer.title == title


@pytest.mark.parametrize(
    "history, texts",
    [
        ([{"created_by": "a"}, {"comment": "b"}], ("a", "b")),
        ([{"created_by": "a"}, {"created_by": "x", "empty_layer": True}, {}], ("a", "")),
        ([{"created_by": "RUN a \\\n\t b"}, {"created_by": 7}], ("RUN a \\ b", "")),
        ([{"created_by": "docker_nix", "comment": "links"}, {"created_by": "b"}], ("links", "b")),
        # Not one line for each layer, so nobody knows which is whose.
        ([{"created_by": "a"}], ("", "")),
        ([], ("", "")),
        (None, ("", "")),
        ("nonsense", ("", "")),
        ([None, 7], ("", "")),
    ],
)
def test_history(history: Any, texts: Any) -> None:
    assert created_by({"history": history}, 2) == texts


def test_store_paths_in_text() -> None:
    one, two = store_path("a-1.0+b"), store_path("c")
    found: List[str] = STORE_PATH.findall(f"{one}, {two} and 7 more")
    assert found == [one, two]
    assert not STORE_PATH.findall("/nix/store/too-short")
