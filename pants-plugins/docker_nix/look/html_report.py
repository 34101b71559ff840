"""The report as one HTML page: no script, nothing from the network, for any screen.

A treemap of the sizes, a table of which image has which layer, and a table of the layers of each
image. The look is in `page.html`; what is in it is made here, as elements that escape all text.
"""

from __future__ import annotations

import importlib.resources
from string import Template
from typing import Dict, List, Mapping, Optional, Sequence, Set, Tuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from docker_nix.look.compare import Comparison, LayerChange
from docker_nix.look.model import Layer, Report, total_diff_size
from docker_nix.look.text import (
    counted,
    number_ranges,
    path_text,
    pull_text,
    shared_percent,
    short_digest,
)
from docker_nix.look.treemap import Rectangle, squarify
from docker_nix.sizes import size_text

# Width to height of the treemap on a wide screen and on a phone, as in the page's style.
_WIDE, _NARROW = Rectangle(0, 0, 12, 5), Rectangle(0, 0, 4, 5)
# How many store paths of a layer have a rectangle of their own, and how many are listed unfolded.
_MOST_RECTANGLES = 60
_MOST_UNFOLDED = 4
# The share of a layer whose store paths can be told apart in the treemap.
_SMALLEST_WITH_PARTS = 0.02
_KINDS = {
    "base": "base image",
    "store": "store paths",
    "customisation": "links to the contents",
    "single": "single layer of an image",
}


def to_html(report: Report, comparisons: Sequence[Comparison]) -> str:
    """The page, in ASCII.

    :param comparisons: one for each image, in the same order, or none.
    """
    page = _Page(report, comparisons)
    template = Template(importlib.resources.read_text("docker_nix.look", "page.html"))
    body = "\n".join(
        ElementTree.tostring(part, encoding="unicode", method="html") for part in page.parts()
    )
    title = Element("title")
    title.text = page.title
    filled = template.substitute(
        title=ElementTree.tostring(title, encoding="unicode", method="html")[7:-8], body=body
    )
    return filled.encode("ascii", "xmlcharrefreplace").decode()


def _add(parent: Element, tag: str, text: str = "", **attributes: str) -> Element:
    """A new element in `parent`; `class_` and `aria_label` are `class` and `aria-label`."""
    names = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
    element = ElementTree.SubElement(parent, tag, names)
    element.text = text
    return element


class _Page:
    def __init__(self, report: Report, comparisons: Sequence[Comparison]) -> None:
        self._report = report
        self._comparisons = comparisons
        self._owners = report.owners()
        self._pulled: Set[str] = {
            one.layer.digest for comparison in comparisons for one in comparison.added
        }

    @property
    def title(self) -> str:
        images = self._report.images
        return f"Layers of {images[0].address if len(images) == 1 else f'{len(images)} images'}"

    def parts(self) -> List[Element]:
        header, main, footer = Element("header"), Element("main"), Element("footer")
        self._summary(header)
        if len(self._report.images) > 1:
            self._images(main)
        self._treemap(main)
        if len(self._report.images) > 1:
            self._matrix(main)
        for number in range(len(self._report.images)):
            self._image(main, number)
        footer.set("class", "muted small")
        _add(
            footer,
            "p",
            "1 kB is 1000 bytes, 1 MB is 1000 kB. The compressed size is what registries hold and "
            "what nodes pull.",
        )
        return [header, main, footer]

    def _anchor(self, digest: str) -> str:
        """The id of the row of a layer, in the first image that has it."""
        number = self._owners[digest][0]
        layers = self._report.images[number].layers
        position = next(i for i, layer in enumerate(layers) if layer.digest == digest)
        return f"image-{number + 1}-layer-{position}"

    def _summary(self, header: Element) -> None:
        report = self._report
        layers, unique = report.layers, report.unique_layers
        size, unique_size = (sum(layer.size for layer in some) for some in (layers, unique))
        _add(header, "h1", self.title)
        tiles = _add(header, "dl", class_="tiles")
        several = len(report.images) > 1
        diff_size, unique_diff_size = total_diff_size(layers), total_diff_size(unique)
        if several:
            figures = [
                ("Images", str(len(report.images)), "in this selection"),
                ("Layers", str(len(unique)), f"different ones, {len(layers)} in sum"),
                ("Compressed", size_text(unique_size), f"{size_text(size)} in sum"),
                ("Uncompressed", size_text(unique_diff_size), f"{size_text(diff_size)} in sum"),
                (
                    "Shared",
                    shared_percent(size, unique_size),
                    f"{size_text(size - unique_size)} not stored twice",
                ),
            ]
        else:
            figures = [
                ("Layers", str(len(layers)), report.images[0].platform_text),
                ("Compressed", size_text(size), "in a registry"),
                ("Uncompressed", size_text(diff_size), "as tars"),
            ]
            for comparison in self._comparisons:
                instead = f"instead of {size_text(comparison.whole)}"
                figures.append(("To pull", size_text(comparison.pull), instead))
        for name, figure, remark in figures:
            tile = _add(tiles, "div")
            _add(tile, "dt", name)
            value = _add(tile, "dd")
            _add(value, "span", figure, class_="figure")
            _add(value, "span", remark, class_="muted small")

    def _images(self, main: Element) -> None:
        section = _section(main, "images", "Images")
        columns = ["Image", "Layers", "Compressed", "Uncompressed", "In no other"]
        if self._comparisons:
            columns.append("To pull")
        rows = _table(section, "cards", columns)
        for number, image in enumerate(self._report.images):
            row = _add(rows, "tr", role="row")
            name = _add(row, "td", f"{number + 1}. ", class_="whole", role="cell")
            _add(name, "a", image.address, href=f"#image-{number + 1}")
            own = sum(
                layer.size
                for layer in {layer.digest: layer for layer in image.layers}.values()
                if self._owners[layer.digest] == [number]
            )
            values = [str(len(image.layers)), size_text(image.size), size_text(image.diff_size)]
            values.append(size_text(own))
            if self._comparisons:
                values.append(size_text(self._comparisons[number].pull))
            for column, value in zip(columns[1:], values):
                _cell(row, column, value, "number")

    def _treemap(self, main: Element) -> None:
        section = _section(main, "sizes", "Sizes")
        about = "Each area is a layer's share of the compressed bytes, each layer once. "
        if any(len(layer.store_paths) > 1 for layer in self._report.unique_layers):
            about += "Inside of a layer: its store paths, by their own sizes. "
        _add(section, "p", f"{about}Every one leads to the layer's row.", class_="muted small")
        layers = sorted(self._report.unique_layers, key=lambda layer: -layer.size)
        legend = _add(section, "ul", class_="legend")
        for kind, words in _KINDS.items():
            if any(self._class(layer) == kind for layer in layers):
                _add(legend, "li", words, class_=kind)
        if any(self._class(layer) == "kept" for layer in layers):
            _add(legend, "li", "kept: nothing to pull", class_="kept")
        treemap = _add(section, "ol", class_="treemap", role="list")
        sizes = [layer.size for layer in layers]
        both = zip(squarify(sizes, _WIDE), squarify(sizes, _NARROW))
        for layer, (wide, narrow) in zip(layers, both):
            item = _add(
                treemap,
                "li",
                class_=self._class(layer),
                style=_place(wide, narrow, _WIDE, _NARROW),
                data_size=str(layer.size),
            )
            owners = counted(len(self._owners[layer.digest]), "image")
            link = _add(
                item,
                "a",
                href=f"#{self._anchor(layer.digest)}",
                title=f"{layer.title}: {size_text(layer.size)}, {layer.kind}, in {owners}",
            )
            parts = _parts(layer)
            if len(parts) < 2 or layer.size < sum(sizes) * _SMALLEST_WITH_PARTS:
                _add(link, "span", layer.title, class_="label")
                _add(link, "span", size_text(layer.size))
                continue
            _add(link, "span", f"{layer.title}, {size_text(layer.size)}", class_="hidden")
            inside = _add(item, "ol", aria_hidden="true")
            weights = [size for _, size in parts]
            places = zip(squarify(weights, wide), squarify(weights, narrow))
            for (name, size), (in_wide, in_narrow) in zip(parts, places):
                cell = _add(
                    inside,
                    "li",
                    style=_place(in_wide, in_narrow, wide, narrow),
                    data_size=str(size),
                )
                path = _add(cell, "div", class_="path")
                _add(path, "span", name, class_="label")
                _add(path, "span", size_text(size))

    def _class(self, layer: Layer) -> str:
        return "kept" if self._comparisons and layer.digest not in self._pulled else layer.kind

    def _matrix(self, main: Element) -> None:
        section = _section(main, "sharing", "Which image has which layer")
        images = self._report.images
        shared = sum(len(owners) > 1 for owners in self._owners.values())
        text = f"{shared} of {counted(len(self._owners), 'layer')} are in more than one image."
        _add(section, "p", text, class_="muted small")
        scroll = _add(section, "div", class_="scroll", tabindex="0", role="region")
        scroll.set("aria-label", "Which image has which layer")
        table = _add(scroll, "table", class_="matrix")
        head = _add(_add(table, "thead"), "tr")
        _add(head, "th", "Layer", scope="col")
        for number, image in enumerate(images):
            column = _add(head, "th", scope="col", title=image.address)
            link = _add(column, "a", str(number + 1), href=f"#image-{number + 1}")
            _add(link, "span", f": {image.address}", class_="hidden")
        _add(head, "th", "Compressed", scope="col", class_="extent")
        body = _add(table, "tbody")
        largest = max((layer.size for layer in self._report.unique_layers), default=0)
        for layer in self._report.unique_layers:
            row = _add(body, "tr")
            name = _add(row, "th", scope="row")
            _add(name, "a", layer.title, href=f"#{self._anchor(layer.digest)}")
            for number in range(len(images)):
                cell = _add(row, "td")
                if number in self._owners[layer.digest]:
                    dot = _add(cell, "span", class_=f"dot {layer.kind}")
                    _add(dot, "span", "yes", class_="hidden")
            extent = _add(_add(row, "td", class_="extent"), "span")
            _add(extent, "b", size_text(layer.size))
            _bar(extent, layer.size, largest)

    def _image(self, main: Element, number: int) -> None:
        image = self._report.images[number]
        several = len(self._report.images) > 1
        comparison = self._comparisons[number] if self._comparisons else None
        title = f"{number + 1}. {image.address}" if several else "Layers"
        section = _section(main, f"image-{number + 1}", title)
        facts = _add(section, "dl", class_="facts")
        for name, value in (
            *(("Image", f"{image.name}:{tag}") for tag in image.tags),
            ("Platform", image.platform_text),
            ("Digest", image.manifest.digest),
            ("Image ID", image.config.digest),
            ("Compressed", f"{size_text(image.size)} in {counted(len(image.layers), 'layer')}"),
            ("Uncompressed", size_text(image.diff_size)),
        ):
            _add(facts, "dt", name)
            _add(_add(facts, "dd"), "code" if "sha256:" in value else "span", value)
        if comparison:
            _comparison(section, comparison)
        columns = ["#", "Contents", "Kind", "Size", "Compressed", "Digest"]
        if several:
            columns.append("Also in")
        rows = _table(section, "cards", columns)
        largest = max((layer.size for layer in image.layers), default=0)
        for position, layer in enumerate(image.layers):
            change = comparison.layers[position] if comparison else None
            anchor = f"image-{number + 1}-layer-{position}"
            row = _add(rows, "tr", id=anchor, role="row")
            _cell(row, "Layer", str(position), "number lead")
            _contents(_cell(row, "Contents", "", "whole"), layer, change)
            kind = _cell(row, "Kind", "", "tags")
            _add(kind, "span", layer.kind, class_=f"chip {layer.kind}")
            if change:
                mark = "kept" if change.change == "kept" else "new"
                _add(kind, "span", change.change, class_=f"chip {mark}")
            _cell(row, "Uncompressed", size_text(layer.diff_size), "number")
            size = _cell(row, "Compressed", size_text(layer.size), "number")
            _bar(size, layer.size, largest)
            _digests(_cell(row, "Digest", "", "whole digest"), layer)
            if several:
                self._others(_cell(row, "Also in", ""), number, layer)

    def _others(self, cell: Element, number: int, layer: Layer) -> None:
        others = [other + 1 for other in self._owners[layer.digest] if other != number]
        cell.text = number_ranges(others) or "-"
        cell.set("title", "\n".join(self._report.images[other - 1].address for other in others))


def _section(parent: Element, id_: str, title: str) -> Element:
    section = _add(parent, "section", id=id_, aria_labelledby=f"{id_}-title")
    _add(section, "h2", title, id=f"{id_}-title")
    return section


_NUMBERS = ("#", "Layers", "Compressed", "Uncompressed", "Size", "In no other", "To pull")


def _table(parent: Element, class_: str, columns: Sequence[str]) -> Element:
    """The body of a new table. Its roles are said, as on a phone its rows are no rows."""
    table = _add(parent, "table", class_=class_, role="table")
    head = _add(_add(table, "thead", role="rowgroup"), "tr", role="row")
    for column in columns:
        cell = _add(head, "th", column, scope="col", role="columnheader")
        if column in _NUMBERS:
            cell.set("class", "number")
    return _add(table, "tbody", role="rowgroup")


def _cell(row: Element, column: str, text: str, class_: str = "") -> Element:
    cell = _add(row, "td", text, role="cell", data_name=column)
    if class_:
        cell.set("class", class_)
    return cell


def _bar(parent: Element, part: int, whole: int) -> None:
    bar = _add(parent, "span", class_="bar", aria_hidden="true")
    _add(bar, "i", style=f"--part:{_number(100 * part / whole if whole else 0)}")


def _number(value: float) -> str:
    return f"{value:.4f}".rstrip("0").rstrip(".")


def _place(wide: Rectangle, narrow: Rectangle, in_wide: Rectangle, in_narrow: Rectangle) -> str:
    """Where a rectangle is, in percents of the one that it is in, for both shapes of the page."""
    values: Dict[str, float] = {}
    for prefix, one, outer in (("w", wide, in_wide), ("n", narrow, in_narrow)):
        width, height = outer.width or 1, outer.height or 1
        values[f"{prefix}x"] = (one.x - outer.x) / width
        values[f"{prefix}y"] = (one.y - outer.y) / height
        values[f"{prefix}w"] = one.width / width
        values[f"{prefix}h"] = one.height / height
    return ";".join(f"--{name}:{_number(100 * value)}" for name, value in values.items())


def _parts(layer: Layer) -> List[Tuple[str, int]]:
    """The names and sizes of what is in a layer, the largest first, small ones together."""
    parts = sorted(
        ((path.name, path.nar_size) for path in layer.store_paths), key=lambda part: -part[1]
    )
    rest = parts[_MOST_RECTANGLES - 1 :]
    if len(rest) > 1:
        parts[_MOST_RECTANGLES - 1 :] = [(f"{len(rest)} smaller", sum(size for _, size in rest))]
    return parts


def _comparison(section: Element, comparison: Comparison) -> None:
    box = _add(section, "div", class_="pull")
    _add(box, "h3", f"Against {comparison.old.name}").set("style", "margin-top:0")
    _add(_add(box, "p", class_="muted small"), "code", comparison.old.digest or "")
    if comparison.is_same:
        _add(box, "p", "It is the same image: nothing is to be pulled.")
        return
    _add(box, "p", pull_text(comparison))
    _bar(box, comparison.pull, comparison.whole)
    kept = f"{len(comparison.kept)} of {counted(len(comparison.layers), 'layer')} kept, "
    _add(box, "p", f"{kept}{len(comparison.added)} added, {len(comparison.removed)} removed.")
    if not comparison.removed:
        return
    details = _add(box, "details")
    _add(
        details, "summary", f"What is no longer there ({counted(len(comparison.removed), 'layer')})"
    )
    listed = _add(details, "ul", class_="paths")
    for gone in comparison.removed:
        item = _add(listed, "li")
        _add(item, "span", f"layer {gone.position}", class_="chip gone")
        _add(item, "code", f" {short_digest(gone.layer.digest)}").tail = (
            f" {size_text(gone.layer.size)}"
        )
        for path in gone.gone:
            _path(_add(item, "div"), path)


def _contents(cell: Element, layer: Layer, change: Optional[LayerChange]) -> None:
    if change and change.change == "recompressed":
        _add(
            cell, "div", "The same tar as before, compressed in another way.", class_="muted small"
        )
    changes: Mapping[str, str] = {
        path.path: path_text(path) for path in (change.paths if change else ())
    }
    if not layer.store_paths:
        _add(cell, "span", layer.title, class_="muted", title=layer.created_by)
        return
    for folded, paths in enumerate(
        (layer.store_paths[:_MOST_UNFOLDED], layer.store_paths[_MOST_UNFOLDED:])
    ):
        parent = cell
        if folded and paths:
            parent = _add(cell, "details")
            _add(parent, "summary", f"and {len(paths)} more")
        listed = _add(parent, "ul", class_="paths") if paths else None
        for path in paths:
            assert listed is not None
            item = _add(listed, "li")
            _path(item, path.path)
            if path.path in changes:
                _add(item, "div", changes[path.path].strip("()"), class_="muted small")


def _path(parent: Element, path: str) -> None:
    """A store path, whose name stands out."""
    before, dash, name = path.partition("-")
    code = _add(parent, "code")
    _add(code, "span", before + dash, class_="hash")
    _add(code, "strong", name)


def _digests(cell: Element, layer: Layer) -> None:
    details = _add(cell, "details")
    _add(_add(details, "summary"), "code", short_digest(layer.digest))
    listed = _add(details, "dl")
    for name, value in (
        ("digest", layer.digest),
        ("diff ID", layer.diff_id),
        ("media type", layer.media_type),
    ):
        _add(listed, "dt", name)
        _add(_add(listed, "dd"), "code", value)
