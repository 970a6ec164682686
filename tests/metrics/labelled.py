"""Metrics on arrays, without files: what `take` gets, sample by sample, and labels for it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from edgec.metrics import Figure, Metric, Scored, compare, metric
from edgec.metrics.boxes import Found
from edgec.metrics.coco import Picture
from edgec.metrics.labels import NO_LABELS, Label, Labels
from edgec.metrics.map import evaluate

Outputs = Mapping[str, np.ndarray]
Box = Sequence[float]
ALL = "map:boxes=b,scores=s,classes=c"
SQUARE = [10.0, 10.0, 10.0, 10.0]  # x, y, width, height
FAR = [50.0, 50.0, 10.0, 10.0]


def labels(values: Iterable[Any]) -> Labels:
    return Labels(tuple(Label(v, f"labels.csv, line {i}") for i, v in enumerate(values, 1)))


def scored(chosen: Metric | str, outputs: Outputs, values: Iterable[Any] = ()) -> Scored:
    """One model's outputs [samples, …], as one file with all samples."""
    found = metric(chosen) if isinstance(chosen, str) else chosen
    count = len(next(iter(outputs.values())))
    return found.score(found.take(outputs, count), labels(values))


def figure(chosen: Metric | str, outputs: Outputs, values: Iterable[Any] = ()) -> float:
    """The metric's first figure of one model."""
    found = metric(chosen) if isinstance(chosen, str) else chosen
    return found.measures[0].reduce(scored(found, outputs, values).rows)


def by_file(
    chosen: Metric | str, first: Sequence[Outputs], second: Sequence[Outputs], values: Any = None
) -> tuple[Figure, ...]:
    """The figures of two models whose files hold one sample each."""
    found = metric(chosen) if isinstance(chosen, str) else chosen
    sides = [[one for file in side for one in found.take(file, 1)] for side in (first, second)]
    given = NO_LABELS if values is None else labels(values)
    return compare(found, sides[0], sides[1], given)


def picture(
    boxes: Sequence[Box],
    categories: Sequence[int],
    *,
    crowd: Sequence[bool] = (),
    size: tuple[int, int] = (0, 0),
    known: tuple[int, ...] = (1, 2),
) -> Picture:
    """Objects as x, y, width, height."""
    return Picture(
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array(categories, np.int64),
        np.array(crowd or [False] * len(boxes), np.bool_),
        size,
        known,
    )


def coco(detections: Sequence[Found], pictures: Sequence[Picture]) -> tuple[float, float]:
    """Both figures as COCOeval sums them up itself."""
    evaluation = evaluate(detections, pictures)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    precision = evaluation.eval["precision"]
    return float(precision[precision > -1].mean()), float(precision[0][precision[0] > -1].mean())


def naive(one: Sequence[str], other: Sequence[str]) -> int:
    """Levenshtein's distance, row by row."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        last, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (a != b))
    return row[-1]
