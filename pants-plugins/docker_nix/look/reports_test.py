from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Dict, List, Optional, Tuple

from docker_nix.look.compare import compare
from docker_nix.look.html_report import to_html
from docker_nix.look.json_report import to_json
from docker_nix.look.model import Report
from docker_nix.look.old_image import OldImage, OldLayer
from docker_nix.look.testing import (
    base_layer,
    digest,
    image,
    links_layer,
    store_layer,
    store_path,
)
from docker_nix.look.text import number_ranges, short_digest, to_text

BASE, LIB = base_layer(), store_layer("lib", size=2_000_000)
MANY = store_layer(*(f"p{n}" for n in range(12)), size=1_234)
ONE = image("one", [BASE, LIB, store_layer("app", version="2", size=999_960), links_layer("1")])
TWO = image("two", [LIB, MANY, links_layer("2")])
REPORT = Report((ONE, TWO))


def old_layer(layer: object) -> OldLayer:
    return OldLayer(
        layer.digest,  # type: ignore[attr-defined]
        layer.size,  # type: ignore[attr-defined]
        layer.diff_id,  # type: ignore[attr-defined]
        tuple(path.path for path in layer.store_paths),  # type: ignore[attr-defined]
        True,
    )


OLD = OldImage(
    "old:v1",
    digest("old"),
    digest("old id"),
    tuple(map(old_layer, (BASE, LIB, store_layer("app", version="1", size=77)))),
)


def test_text() -> None:
    short = [short_digest(layer.digest) for layer in (*ONE.layers, *TWO.layers)]
    paths = [store_path(f"p{n}") for n in range(12)]
    indent = " " * 61
    more = "\n".join(indent + path for path in paths[1:7])
    assert to_text(REPORT, []) == (
        f"""\
[1] src/one:image
    image     team/one:v1
    image     team/one:latest
    platform  linux/arm64/v8
    digest    {ONE.manifest.digest}
    size      33.0 MB compressed, unknown uncompressed, 4 layers

#  kind              size  compressed  digest        also in  store paths
0  base           unknown     30.0 MB  {short[0]}  -        (ADD file:0123 in /)
1  store           6.0 MB      2.0 MB  {short[1]}  2        {store_path("lib")}
2  store           3.0 MB      1.0 MB  {short[2]}  -        {store_path("app", "2")}
3  customisation   2.0 kB       200 B  {short[3]}  -        (links to the contents)

[2] src/two:image
    image     team/two:v1
    image     team/two:latest
    platform  linux/arm64/v8
    digest    {TWO.manifest.digest}
    size      2.0 MB compressed, 6.0 MB uncompressed, 3 layers

#  kind             size  compressed  digest        also in  store paths
0  store          6.0 MB      2.0 MB  {short[4]}  1        {store_path("lib")}
1  store          3.7 kB      1.2 kB  {short[5]}  -        {paths[0]}
{more}
{indent}and 5 more
2  customisation  2.0 kB       200 B  {short[6]}  -        (links to the contents)

Total of 2 images, compressed (uncompressed):
  summed  7 layers, 35.0 MB (unknown)
  unique  6 layers, 33.0 MB (unknown)
  shared  2.0 MB, 5.7 %
"""
    )


def test_text_against() -> None:
    text = to_text(Report((ONE,)), [compare(ONE, OLD)])
    short = [short_digest(layer.digest) for layer in ONE.layers]
    assert text.startswith("src/one:image\n    image     team/one:v1\n")
    assert "also in" not in text
    assert (
        f"""
Against old:v1 ({digest("old")}):
  A node that has it pulls 1.0 MB (layers 1.0 MB, configuration 1.5 kB, manifest 700 B) \
instead of 33.0 MB.
  kept: 2 of 4 layers
  + 2  {short[2]}  1.0 MB
      {store_path("app", "2")} (was {store_path("app", "1")})
  + 3  {short[3]}  200 B  (links to the contents)
  - 2  {short_digest(OLD.layers[2].digest)}  77 B
      {store_path("app", "1")}

Total of 1 image, compressed (uncompressed):
  4 layers, 33.0 MB (unknown)
"""
        in text
    )
    same = replace(OLD, digest=ONE.manifest.digest)
    assert "It is the same image: nothing is to be pulled." in to_text(
        Report((ONE,)), [compare(ONE, same)]
    )


def test_number_ranges() -> None:
    assert number_ranges([]) == ""
    assert number_ranges([1, 2]) == "1, 2"
    assert number_ranges([1, 2, 3, 5, 7, 8, 9, 10]) == "1-3, 5, 7-10"


def test_json() -> None:
    value = json.loads(to_json(REPORT, [compare(ONE, OLD), compare(TWO, OLD)]))
    assert value["version"] == 1
    assert value["totals"] == {
        "images": 2,
        "summed": {"layers": 7, "size": 35_001_594, "diff_size": None},
        "unique": {"layers": 6, "size": 33_001_594, "diff_size": None},
    }
    one, two = value["images"]
    assert {key: one[key] for key in one if key not in ("layers", "against")} == {
        "address": "src/one:image",
        "name": "team/one",
        "tags": ["v1", "latest"],
        "platform": {"architecture": "arm64", "os": "linux", "variant": "v8"},
        "digest": ONE.manifest.digest,
        "image_id": ONE.config.digest,
        "size": 33_000_160,
        "diff_size": None,
    }
    assert one["layers"][1] == {
        "position": 1,
        "kind": "store",
        "digest": LIB.digest,
        "media_type": LIB.media_type,
        "size": 2_000_000,
        "diff_id": LIB.diff_id,
        "diff_size": 6_000_000,
        "created_by": "",
        "store_paths": [{"path": store_path("lib"), "nar_size": 4_000_000}],
        "shared_with": ["src/two:image"],
    }
    assert one["layers"][0]["shared_with"] == []
    assert one["against"]["layers"][2] == {
        "position": 2,
        "digest": ONE.layers[2].digest,
        "change": "added",
        "store_paths": [
            {
                "path": store_path("app", "2"),
                "change": "changed",
                "old": [store_path("app", "1")],
            }
        ],
    }
    assert one["against"]["removed"] == [
        {
            "position": 2,
            "digest": OLD.layers[2].digest,
            "size": 77,
            "gone": [store_path("app", "1")],
        }
    ]
    assert one["against"]["pull"] == {
        "layers": 1_000_160,
        "config": 1500,
        "manifest": 700,
        "total": 1_002_360,
    }
    assert two["against"]["name"] == "old:v1"
    assert "against" not in json.loads(to_json(REPORT, []))["images"][0]


class Page(HTMLParser):
    """The elements of a page, and whether they are closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: List[Tuple[str, Dict[str, Optional[str]]]] = []
        self.text = ""
        self._open: List[str] = []
        self.feed(page)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: List[Tuple[str, Optional[str]]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag != "meta":
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text += data

    def all(self, name: str) -> List[str]:
        return [value or "" for _, attrs in self.elements for value in [attrs.get(name)] if value]


def test_html() -> None:
    """One page, with nothing to fetch and nothing to run, all of whose links lead somewhere."""
    html = to_html(REPORT, [compare(ONE, OLD), compare(TWO, OLD)])
    assert html.isascii()
    page = Page(html)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "img", "iframe", "object", "form"}
    assert not page.all("src")
    assert "url(" not in html and "@import" not in html
    ids = page.all("id")
    assert len(ids) == len(set(ids))
    assert {f"#{name}" for name in ids} >= set(page.all("href"))
    assert set(ids) >= set(page.all("aria-labelledby"))
    for layer in (*ONE.layers, *TWO.layers):
        assert layer.digest in page.text
        for path in layer.store_paths:
            assert path.path in page.text
    assert store_path("app", "1") in page.text
    assert "A node that has it pulls 1.0 MB" in page.text
    assert html == to_html(REPORT, [compare(ONE, OLD), compare(TWO, OLD)])


def test_html_of_odd_names() -> None:
    """Nothing that a name holds is taken for markup, and none is lost."""
    odd = "</style><script>alert(1)</script>&amp;\"'$body ü 漢 \N{PILE OF POO}"
    layer = replace(BASE, created_by=odd)
    html = to_html(Report((replace(image("x", [layer, LIB]), address=odd),)), [])
    page = Page(html)
    assert "script" not in {tag for tag, _ in page.elements}
    assert page.text.count(odd) >= 2
    assert html.isascii()


def test_areas() -> None:
    """In both layouts a rectangle has its layer's share, and together they are all."""
    page = Page(to_html(REPORT, []))
    cells = [attrs for tag, attrs in page.elements if tag == "li" and "data-size" in attrs]
    outer = [cell for cell in cells if cell.get("class")]
    assert len(outer) == 6
    total = sum(layer.size for layer in REPORT.unique_layers)
    for prefix in "wn":
        whole = 0.0
        for cell in outer:
            places = re.findall(rf"--{prefix}([xywh]):([\d.]+)", cell["style"] or "")
            place = {name: float(value) for name, value in places}
            assert place.keys() == set("xywh")
            area = place["w"] * place["h"] / 100
            assert abs(area - 100 * int(cell["data-size"] or 0) / total) < 0.01
            whole += area
        assert abs(whole - 100) < 0.01


def test_html_of_no_layers() -> None:
    Page(to_html(Report((image("empty", []),)), []))
    assert "Total of 1 image" in to_text(Report((image("empty", []),)), [])
