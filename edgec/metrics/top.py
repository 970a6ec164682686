"""Top-k accuracy: the share of samples whose label is among the k classes of highest score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from edgec.metrics import Measure, Metric, Outputs, Scored, mean
from edgec.metrics.labels import Labels, Wants
from edgec.metrics.options import Options
from edgec.metrics.outputs import is_id, is_scores, pick


@dataclass(frozen=True)
class Best:
    """The best classes of a sample, the best first, out of `classes` (0: not known)."""

    order: tuple[int, ...]
    classes: int


def top1(options: Options) -> Metric:
    """The label is the best class."""
    return _make(options, 1)


def top5(options: Options) -> Metric:
    """The label is among the five best classes."""
    return _make(options, 5)


def best(scores: np.ndarray, k: int) -> Best:
    """The k best of scores [classes]; of equal ones the first, and what is no number is none."""
    flat = scores.reshape(-1)
    order = np.argsort(-flat.astype(np.float64), kind="stable")[:k]
    return Best(tuple(int(i) for i in order if not np.isnan(flat[i])), flat.size)


def take(outputs: Outputs, count: int, name: str, k: int) -> list[Best]:
    """The k best classes of each sample; of a named output of whole numbers, these classes."""
    if name in outputs and outputs[name].dtype.kind in "iu":
        ids = pick(outputs, count, name, is_id, "one class a sample")
        return [Best((int(one.item()),), 0) for one in ids]
    found = pick(outputs, count, name, is_scores, "class scores")
    return [best(one, k) for one in found]


def check_range(taken: Sequence[Best], labels: Labels) -> None:
    """Raises InputError for a label beyond the classes that the model has."""
    for index, (one, label) in enumerate(zip(taken, labels.values, strict=True)):
        if one.classes and label >= one.classes:
            raise labels.wrong(
                index,
                f"class {label}, but the model has {one.classes}, from 0 on",
                hint="number the classes as the model's output does",
            )


def _make(options: Options, k: int) -> Metric:
    return Metric(
        name=options.metric,
        labels=Wants.CLASSES,
        take=partial(take, name=options.text("output"), k=k),
        score=_score,
        measures=(Measure(options.metric, mean),),
        answer="class" if k == 1 else f"best {k}",
    )


def _score(taken: Sequence[Best], labels: Labels) -> Scored:
    check_range(taken, labels)
    hits = [label in one.order for one, label in zip(taken, labels.values, strict=True)]
    return Scored(np.array(hits, dtype=np.float64), [set(one.order) for one in taken])
