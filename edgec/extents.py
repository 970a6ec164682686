"""Which sizes the dimensions that vary have: stated by `--shape`, and seen in the samples.

Backends that compile for a range of shapes need bounds for all of it (TensorRT's optimisation
profiles). A stated range wins; where none is stated the samples' own least and largest sizes bound
a dimension, and their median is what it is tuned for.
"""

from __future__ import annotations

import statistics
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from numpy.lib import format as npy

from edgec.samples import Input
from edgec.types import Extent, Graph, Range


def extents(graph: Graph, samples: Sequence[Path], inputs: Sequence[Input]) -> dict[str, Extent]:
    """By the name of the dimension. What neither is stated nor seen is left out."""
    names = {one.name for one in inputs}
    dims: dict[str, list[tuple[str, int]]] = {}
    for value in graph.model.graph.inputs:
        if value.name in names and value.shape is not None:
            for axis, dim in enumerate(value.shape):
                if not isinstance(dim, int) and dim.value is not None:
                    dims.setdefault(str(dim.value), []).append((str(value.name), axis))
    if not dims:
        return {}
    seen: dict[tuple[str, int], list[int]] = {}
    for path in samples:
        for name, shape in _shapes(path).items():
            for axis, size in enumerate(shape):
                seen.setdefault((name, axis), []).append(size)
    found = {}
    for name, places in dims.items():
        sizes = [size for place in places for size in seen.get(place, [])]
        stated = _stated(graph.shapes, places)
        if stated is not None:
            inside = [size for size in sizes if stated.low <= size <= stated.high]
            usual = int(statistics.median(inside)) if inside else stated.high
            found[name] = Extent(stated.low, usual, stated.high)
        elif sizes:
            found[name] = Extent(min(sizes), int(statistics.median(sizes)), max(sizes))
    return found


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes in an `.npz` file that was checked before; the arrays themselves are not read."""
    found = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            with archive.open(member) as stream:
                old = npy.read_magic(stream) == (1, 0)
                read = npy.read_array_header_1_0 if old else npy.read_array_header_2_0
                found[member.removesuffix(".npy")] = read(stream)[0]
    return found


def _stated(
    shapes: Mapping[str, Sequence[Range]], places: Sequence[tuple[str, int]]
) -> Range | None:
    for name, axis in places:
        if name in shapes and axis < len(shapes[name]):
            return shapes[name][axis]
    return None
