"""Which input says what is padding, which inputs share its dimension, and how long the data are.

A mask is a matrix [rows, columns] of ones followed by zeros, in every row of every sample, whose
columns vary. Its name helps, its values decide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgec.runtime.buckets import Axis
from edgec.samples import Input, stream
from edgec.types import Feeds

WORD = "mask"  # of an input's name
NONE = "no input is a mask, a matrix of ones followed by zeros"
UNNAMED = "?"  # what `samples.inputs` calls a dimension without a name


@dataclass(frozen=True)
class Sample:
    """One file: the shapes of all inputs, and those matrices that may be masks or token ids."""

    file: str
    shapes: Mapping[str, tuple[int, ...]]
    matrices: Feeds


@dataclass(frozen=True)
class Mask:
    """A mask, and per file its rows, its columns, and how many of them the longest row keeps."""

    need: Input
    rows: tuple[int, ...]
    widths: tuple[int, ...]
    lengths: tuple[int, ...]

    @property
    def dimension(self) -> str:
        """The name of the columns, as a manifest has it."""
        name = str((self.need.shape or ())[1])
        return f"{self.need.name}_1" if name == UNNAMED else name

    @property
    def counts(self) -> Counter[int]:
        """How many rows run at each length: the longest row of a file decides for all."""
        found = Counter[int]()
        for rows, length in zip(self.rows, self.lengths, strict=True):
            found[length] += rows
        return found

    @property
    def kept(self) -> int:
        """Tokens in use: columns times rows."""
        return sum(length * rows for length, rows in self.counts.items())

    @property
    def fed(self) -> int:
        """Tokens that were fed."""
        return sum(rows * width for rows, width in zip(self.rows, self.widths, strict=True))


def read(files: Sequence[Path], inputs: Sequence[Input]) -> list[Sample]:
    """What the search needs of the samples; pictures are not kept."""
    found = []
    for path, feeds in zip(files, stream(files, inputs), strict=True):
        matrices = {
            name: array
            for name, array in feeds.items()
            if array.ndim == 2 and (array.dtype.kind in "iub" or _binary(array))
        }
        found.append(Sample(path.name, {n: a.shape for n, a in feeds.items()}, matrices))
    return found


def find_mask(inputs: Sequence[Input], seen: Sequence[Sample]) -> Mask | str:
    """The mask, or why there is none that can be used.

    Of several sequences the one with the most padding is taken; of several masks of one sequence
    the one that keeps most.
    """
    named: list[Mask] = []
    others: list[Mask] = []
    complaints = []
    for need in inputs:
        judged = _judge(need, seen)
        if isinstance(judged, Mask):
            (named if _named(need) else others).append(judged)
        elif _named(need):
            complaints.append(f"{need.name} {judged}")
    if not named and complaints:
        return "; ".join(complaints)
    # without the name, nothing but padding tells a mask from any other flags
    masks = named or [one for one in others if one.kept < one.fed]
    if not masks:
        return NONE
    first = max(masks, key=lambda one: one.fed - one.kept)
    alike = [one for one in masks if _axes(one.need, first.need, inputs, seen)]
    return max(alike, key=lambda one: one.kept)


def companions(mask: Mask, inputs: Sequence[Input], seen: Sequence[Sample]) -> list[Axis] | str:
    """The inputs that have the mask's dimension, itself included, or why they cannot be cut."""
    places = []
    for need in inputs:
        axes = _axes(need, mask.need, inputs, seen)
        if len(axes) > 1 or 0 in axes:
            dims = " and ".join(map(str, axes))
            return f"input {need.name!r} has {mask.dimension} in dimension {dims}"
        places += [Axis(need.name, axis, _pad(need, mask, seen)) for axis in axes]
    if len(places) == 1:
        return f"no other input shares {mask.dimension} with {mask.need.name}"
    return places


def _named(need: Input) -> bool:
    return WORD in need.name.lower()


def _judge(need: Input, seen: Sequence[Sample]) -> Mask | str:
    """What an input keeps, or why it is no mask that can be trimmed."""
    if need.shape is None or len(need.shape) != 2:
        return "is no matrix [rows, columns]"
    if isinstance(need.shape[1], int):
        return f"is fixed at {need.shape[1]} columns: export the model with a dynamic length"
    rows, widths, lengths = [], [], []
    ones = 0
    for one in seen:
        array = one.matrices.get(need.name)
        if array is None or not _binary(array):
            return f"holds other numbers than 0 and 1 in {one.file}"
        kept = array != 0
        counts = kept.sum(axis=1)
        if (kept != (np.arange(array.shape[1]) < counts[:, None])).any():
            return f"has 0 before 1 in {one.file}: padding must be on the right, and marked by 0"
        ones += int(counts.sum())
        rows.append(array.shape[0])
        widths.append(array.shape[1])
        lengths.append(max(1, int(counts.max())))
    if not ones:
        return "is 0 in all samples"
    return Mask(need, tuple(rows), tuple(widths), tuple(lengths))


def _axes(need: Input, mask: Input, inputs: Sequence[Input], seen: Sequence[Sample]) -> list[int]:
    """The axes of an input that are the mask's second dimension.

    By its name; or, where an exporter gave every dimension a name of its own, by the same length
    in every sample, if the input is a matrix of integers.
    """
    shape, name = need.shape or (), (mask.shape or ())[1]
    if need is mask:
        return [axis for axis, dim in enumerate(shape) if axis == 1 or dim == name != UNNAMED]
    axes = [axis for axis, dim in enumerate(shape) if dim == name != UNNAMED]
    if axes or len(shape) != 2 or need.dtype.kind not in "iub" or isinstance(shape[1], int):
        return axes
    single = _owners(name, inputs) == _owners(shape[1], inputs) == 1
    equal = all(one.shapes[need.name][1] == one.shapes[mask.name][1] for one in seen)
    return [1] if single and equal else []


def _owners(name: int | str, inputs: Sequence[Input]) -> int:
    """How many inputs have the dimension; one without a name is its input's own."""
    return 1 if name == UNNAMED else sum(name in (one.shape or ()) for one in inputs)


def _pad(need: Input, mask: Mask, seen: Sequence[Sample]) -> int:
    """What the data hold where they are padded, if that is one integer; else 0."""
    found: set[int] = set()
    for one in seen:
        array, kept = one.matrices.get(need.name), one.matrices[mask.need.name]
        if need is mask.need or array is None or array.shape != kept.shape:
            return 0
        found.update(map(int, np.unique(array[kept == 0]).tolist()))
    return found.pop() if len(found) == 1 else 0


def _binary(array: np.ndarray) -> bool:
    return bool(((array == 0) | (array == 1)).all())
