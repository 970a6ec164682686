"""Outputs whose rows a selection picked: compared pair by pair, not place by place.

Behind NonMaxSuppression or TopK the smallest error swaps two rows, or takes one of two candidates
that lie on each other, and what stands at one place is something else. So rows are paired first:
boxes with the nearest of their class (intersection over union of 0.5 or more, the surest first, as
COCO matches them), other whole numbers with their equals. How close the pairs are is one figure,
which share of the rows has a pair is the other. What goes into the selection is compared by the
checks of the parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from edgec.compare import Running
from edgec.graphs import inner, reads
from edgec.metrics.boxes import overlap
from edgec.results import Comparison
from edgec.types import Feeds

SELECTIONS = frozenset({"NonMaxSuppression", "TopK"})
SAME_IOU = 0.5
MATCHED = "matched"
SURE = 0.9  # of the rows have a pair, below which a user should look at a metric of the task
MOST_ROWS = 4096  # of a sample: the surest, where there are more


def picked(model: ir.Model) -> frozenset[str]:
    """The outputs that depend on what a selection picked."""
    found: set[ir.Value] = set()
    for node in model.graph:
        selects = any(one.op_type in SELECTIONS for one in inner(node))
        if selects or any(value in found for value in reads(node)):
            found.update(node.outputs)
    return frozenset(str(value.name) for value in model.graph.outputs if value in found)


def doubts(outputs: Sequence[Comparison]) -> list[str]:
    """What a user should know of outputs of which few rows pair up."""
    few = [one for one in outputs if one.agreement_kind == MATCHED and one.agreement < SURE]
    if not few:
        return []
    share = min(one.agreement for one in few)
    names = ", ".join(one.value for one in few)
    return [
        f"{share:.0%} of the rows of {names} pair up with those of the original: of candidates "
        "that are nearly equal others were picked; compare a metric of the task (--metric map)"
    ]


class Paired:
    """As `Running`, for all picked outputs together."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._running = {name: Running("", name) for name in names}
        self._paired = dict.fromkeys(names, 0)
        self._rows = dict.fromkeys(names, 0)

    def add(self, reference: Mapping[str, np.ndarray], built: Mapping[str, np.ndarray]) -> None:
        """One sample's outputs."""
        boxes = next((name for name in self._names if _is_boxes(reference[name])), "")
        left = set(self._names)
        if boxes and _is_boxes(built[boxes]):
            tables = [self._tables(side, boxes) for side in (reference, built)]
            together = [name for name in self._names if all(name in one for one in tables)]
            first, second = ({name: one[name] for name in together} for one in tables)
            pairs = _pairs(first, second, boxes)
            for name in together:
                self._add(name, first[name], second[name], pairs)
            left -= set(together)
        for name in left:
            x, y = reference[name], built[name]
            if x.dtype.kind in "iu" and x.ndim and y.ndim:
                one, other = _items(x), _items(y)
                self._add(name, one, other, _equal(one, other))
            else:
                self._running[name].add(x, y)

    def results(self) -> dict[str, Comparison]:
        """The comparisons over all that was added; `agreement`: the share of rows with a pair."""
        found = {}
        for name, running in self._running.items():
            result, rows = running.result(), self._rows[name]
            if rows:
                share = 2 * self._paired[name] / rows
                result = replace(result, agreement=share, agreement_kind=MATCHED)
            found[name] = result
        return found

    def _tables(self, outputs: Mapping[str, np.ndarray], boxes: str) -> Feeds:
        """The outputs that have a row for each box, as [rows, …]."""
        batched = outputs[boxes].ndim > 2  # [1, rows, 4]
        found = {name: outputs[name] for name in self._names}
        if batched:
            found = {name: a[0] for name, a in found.items() if a.shape[:1] == (1,)}
        count = len(found[boxes])
        return {name: array for name, array in found.items() if array.shape[:1] == (count,)}

    def _add(
        self, name: str, one: np.ndarray, other: np.ndarray, pairs: Sequence[tuple[int, int]]
    ) -> None:
        self._paired[name] += len(pairs)
        self._rows[name] += len(one) + len(other)
        if pairs or not (len(one) or len(other)):
            first, second = np.array(pairs, np.int64).reshape(-1, 2).T
            self._running[name].add(one[first], other[second])
        else:
            self._running[name].add(np.ones(1), np.ones(2))  # nothing is where it was


def _is_boxes(array: np.ndarray) -> bool:
    """[rows, 4], or with a batch of one, or with more columns: score and class, batch before."""
    plain = array.ndim == 2 or (array.ndim == 3 and array.shape[0] == 1)
    return array.dtype.kind == "f" and plain and array.shape[-1] in (4, 6, 7)


def _pairs(one: Feeds, other: Feeds, boxes: str) -> list[tuple[int, int]]:
    """Rows of the same class whose boxes overlap; each takes the nearest that is left."""
    firsts, seconds = (_corners(side[boxes]) for side in (one, other))
    classes = [_classes(side, boxes) for side in (one, other)]
    left, found = np.ones(len(seconds), np.bool_), []
    for index in range(min(len(firsts), MOST_ROWS)):
        if not left.any():
            break
        equal = (seconds == firsts[index]).all(axis=1)
        near = np.where(equal, 1.0, overlap(firsts[index], seconds)) * left
        near = near * (classes[1] == classes[0][index]).all(axis=1)
        best = int(near.argmax())
        if near[best] >= SAME_IOU:
            left[best] = False
            found.append((index, best))
    return found


def _classes(side: Feeds, boxes: str) -> np.ndarray:
    """[rows, …]: the whole numbers beside the boxes."""
    count = len(side[boxes])
    wholes = [
        a.reshape(count, a.size // max(count, 1)) for a in side.values() if a.dtype.kind in "iu"
    ]
    return np.concatenate(wholes, axis=1) if wholes else np.zeros((count, 1), np.int64)


def _corners(boxes: np.ndarray) -> np.ndarray:
    """Boxes as x, y, width and height, if they are corners; the centre's otherwise."""
    first = boxes[:, 1:5] if boxes.shape[1] == 7 else boxes[:, :4]
    wide = first.astype(np.float64)
    low, high = wide[:, :2], wide[:, 2:]
    if (high >= low).all():
        return np.concatenate([low, high - low], axis=1)
    return np.concatenate([low - high / 2, high], axis=1)


def _items(array: np.ndarray) -> np.ndarray:
    """Whole numbers as rows: those of NonMaxSuppression, or each with the place of its row."""
    if array.ndim == 2 and array.shape[1] == 3:  # batch, class, candidate
        return array
    places = np.arange(array.size, dtype=array.dtype) // max(array.shape[-1], 1)
    return np.stack([places, array.ravel()], axis=1)


def _equal(one: np.ndarray, other: np.ndarray) -> list[tuple[int, int]]:
    """Rows that are equal, each once."""
    places: dict[bytes, list[int]] = {}
    for index, row in enumerate(other):
        places.setdefault(row.tobytes(), []).append(index)
    found = []
    for index, row in enumerate(one):
        if left := places.get(row.tobytes()):
            found.append((index, left.pop()))
    return found
