"""F1: the harmonic mean of precision and recall, 2 tp / (2 tp + fp + fn), of one class a sample.

macro: the mean of the F1 of each class that occurs among labels or answers. micro: of tp, fp and fn
summed over classes, which is accuracy where a sample has one class. binary: of one class alone.
van Rijsbergen, Information Retrieval, 1979, chapter 7; averages as scikit-learn names them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from edgec.errors import InputError
from edgec.metrics import Measure, Metric, Outputs, Scored
from edgec.metrics.labels import Labels, Wants
from edgec.metrics.options import Options
from edgec.metrics.outputs import is_single, pick
from edgec.metrics.top import Best, check_range
from edgec.metrics.top import take as take_best

NONE = -1  # the answer of a model whose scores are no numbers


def make(options: Options) -> Metric:
    """F1 of the best class, or of one score a sample against a threshold."""
    average = options.choice("average", "macro", "micro", "binary", default="macro")
    positive = options.integer("positive", 1, 0, 1 << 20)
    measures: dict[str, Callable[[np.ndarray], float]] = {
        "macro": macro,
        "micro": micro,
        "binary": partial(binary, positive=positive),
    }
    name, threshold = options.text("output"), options.number("threshold", 0.5)
    return Metric(
        name=options.metric,
        labels=Wants.CLASSES,
        take=partial(_take, name=name, threshold=threshold),
        score=_score,
        measures=(Measure(f"f1 {average}", measures[average]),),
        answer="class",
    )


def macro(rows: np.ndarray) -> float:
    """Of rows [samples, 2]: label and answer."""
    classes = np.unique(rows)
    return float(np.mean([binary(rows, int(one)) for one in classes if one != NONE]))


def micro(rows: np.ndarray) -> float:
    """Of rows [samples, 2]: label and answer."""
    return float(np.mean(rows[:, 0] == rows[:, 1]))


def binary(rows: np.ndarray, positive: int) -> float:
    """Of rows [samples, 2]: label and answer; 0 where the class occurs in neither."""
    label, answer = (rows == positive).T
    return float(2 * (label & answer).sum() / max(1, label.sum() + answer.sum()))


def _take(outputs: Outputs, count: int, name: str, threshold: float) -> list[Best]:
    try:
        return take_best(outputs, count, name, 1)
    except InputError as no_classes:  # but perhaps one score, for the second of two
        try:
            single = pick(outputs, count, name, is_single, "one score a sample")
        except InputError:
            raise no_classes from None
    return [Best(() if np.isnan(x.item()) else (int(x.item() > threshold),), 2) for x in single]


def _score(taken: Sequence[Best], labels: Labels) -> Scored:
    check_range(taken, labels)
    answers = [one.order[0] if one.order else NONE for one in taken]
    return Scored(np.stack([np.array(labels.values), np.array(answers)], axis=1), answers)
