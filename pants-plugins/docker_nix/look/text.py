"""The report as text for a terminal: columns that line up, in the order of the layers."""

from __future__ import annotations

from typing import Dict, Iterator, List, Sequence, Tuple

from docker_nix.look.compare import Comparison, LayerChange, PathChange
from docker_nix.look.model import Image, Layer, Report, total_diff_size
from docker_nix.sizes import size_text

# Of a layer with more store paths than that, no more are listed: JSON has them all.
_MOST_PATHS = 8
_HEADER = ("#", "kind", "size", "compressed", "digest", "also in", "store paths")
_RIGHT = (0, 2, 3)
_OTHERS = 5


def to_text(report: Report, comparisons: Sequence[Comparison]) -> str:
    """The report, with a line break at its end.

    :param comparisons: one for each image, in the same order, or none.
    """
    owners = report.owners()
    lines: List[str] = []
    for number, image in enumerate(report.images):
        lines += _heading(number, image, numbered=len(report.images) > 1)
        lines += ["", *_table(number, image, owners, len(report.images) > 1), ""]
        if comparisons:
            lines += [*_comparison(comparisons[number]), ""]
    return "\n".join([*lines, *_totals(report)]) + "\n"


def short_digest(digest: str) -> str:
    """The first twelve digits, as engines show them."""
    return digest.partition(":")[2][:12]


def counted(number: int, what: str) -> str:
    """`1 layer`, `2 layers`."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def number_ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as `1, 3-5`."""
    ranges: List[Tuple[int, int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ", ".join(
        str(a) if a == b else f"{a}, {b}" if b == a + 1 else f"{a}-{b}" for a, b in ranges
    )


def _heading(number: int, image: Image, numbered: bool) -> Iterator[str]:
    yield (f"[{number + 1}] " if numbered else "") + image.address
    for tag in image.tags:
        yield f"    image     {image.name}:{tag}"
    yield f"    platform  {image.platform_text}"
    yield f"    digest    {image.manifest.digest}"
    yield (
        f"    size      {size_text(image.size)} compressed, "
        f"{size_text(image.diff_size)} uncompressed, {counted(len(image.layers), 'layer')}"
    )


def _table(number: int, image: Image, owners: Dict[str, List[int]], with_others: bool) -> List[str]:
    rows: List[Sequence[str]] = [_HEADER]
    for position, layer in enumerate(image.layers):
        others = [other + 1 for other in owners[layer.digest] if other != number]
        first, *more = _contents(layer)
        rows.append(
            (
                str(position),
                layer.kind,
                size_text(layer.diff_size),
                size_text(layer.size),
                short_digest(layer.digest),
                number_ranges(others) or "-",
                first,
            )
        )
        rows += [("", "", "", "", "", "", line) for line in more]
    return _aligned(
        rows if with_others else [(*row[:_OTHERS], *row[_OTHERS + 1 :]) for row in rows]
    )


def _contents(layer: Layer) -> List[str]:
    paths = [path.path for path in layer.store_paths]
    if len(paths) > _MOST_PATHS:
        paths[_MOST_PATHS - 1 :] = [f"and {len(paths) - _MOST_PATHS + 1} more"]
    return paths or [f"({layer.title})"]


def _aligned(rows: Sequence[Sequence[str]]) -> List[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join(
            cell.rjust(width) if i in _RIGHT else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]


def _comparison(comparison: Comparison) -> Iterator[str]:
    image, old = comparison.image, comparison.old
    yield f"Against {old.name} ({old.digest or old.image_id}):"
    if comparison.is_same:
        yield "  It is the same image: nothing is to be pulled."
        return
    yield f"  {pull_text(comparison)}"
    kept = len(comparison.kept)
    yield f"  kept: {kept} of {counted(len(image.layers), 'layer')}"
    for one in comparison.added:
        yield f"  + {_added(one)}"
        for path in one.paths:
            yield f"      {path.path} {path_text(path)}"
    for gone in comparison.removed:
        layer = gone.layer
        yield f"  - {gone.position}  {short_digest(layer.digest)}  {size_text(layer.size)}"
        for line in gone.gone:
            yield f"      {line}"


def pull_text(comparison: Comparison) -> str:
    """How much a node that has the old image pulls, in a sentence."""
    parts = [
        f"{what} {size_text(size)}"
        for what, size in (
            ("layers", comparison.pull_layers),
            ("configuration", comparison.pull_config),
            ("manifest", comparison.pull_manifest),
        )
        if size
    ]
    return (
        f"A node that has it pulls {size_text(comparison.pull)} ({', '.join(parts)}) "
        f"instead of {size_text(comparison.whole)}."
    )


def path_text(path: PathChange) -> str:
    """What became of a store path, in brackets."""
    if path.change == "changed":
        return f"(was {', '.join(path.old)})"
    return {
        "moved": "(was in another layer)",
        "new": "(new)",
        "unknown": "(new or changed: the old image does not say)",
    }[path.change]


def _added(one: LayerChange) -> str:
    layer = one.layer
    text = f"{one.position}  {short_digest(layer.digest)}  {size_text(layer.size)}"
    if one.change == "recompressed":
        text += "  (the same tar as before, compressed in another way)"
    return text if layer.store_paths else f"{text}  ({layer.title})"


def _totals(report: Report) -> Iterator[str]:
    layers, unique = report.layers, report.unique_layers
    size, unique_size = (sum(layer.size for layer in some) for some in (layers, unique))

    def total(some: Sequence[Layer], size: int) -> str:
        count = counted(len(some), "layer")
        return f"{count}, {size_text(size)} ({size_text(total_diff_size(some))})"

    yield f"Total of {counted(len(report.images), 'image')}, compressed (uncompressed):"
    if len(layers) == len(unique):
        yield f"  {total(layers, size)}"
        return
    yield f"  summed  {total(layers, size)}"
    yield f"  unique  {total(unique, unique_size)}"
    yield f"  shared  {size_text(size - unique_size)}, {shared_percent(size, unique_size)}"


def shared_percent(summed: int, unique: int) -> str:
    """How much of the sum is not stored a second time."""
    return f"{100 * (summed - unique) / summed:.1f} %" if summed else "0.0 %"
