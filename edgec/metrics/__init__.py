"""Task metrics: a figure that a user of the model cares about, per sample, so that it pairs.

A metric maps stacked outputs and labels to rows of numbers, one row a sample, and reduces rows to
one figure. A user's own is `module:function`: it gets (outputs, labels) and returns one number per
sample, whose mean is the figure.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from edgec.errors import InputError

Rows = np.ndarray
Score = Callable[[Mapping[str, np.ndarray], np.ndarray | None], Rows]
RESAMPLES = 2000


@dataclass(frozen=True)
class Metric:
    """`score`: (outputs by name [samples, …], labels) -> rows [samples, k]; `reduce`: rows -> x."""

    name: str
    score: Score
    reduce: Callable[[Rows], float]


@dataclass(frozen=True)
class Figure:
    """A metric for the original and the built model, with a paired 95 % interval of the difference.

    `low` and `high` bound built minus original, by the paired percentile bootstrap (Efron 1979).
    """

    metric: str
    original: float
    built: float
    difference: float
    low: float
    high: float
    samples: int


def mean(rows: Rows) -> float:
    """The mean over samples."""
    return float(np.mean(rows))


def metric(name: str) -> Metric:
    """The metric called `name`. Raises InputError where there is none."""
    from edgec.metrics import pearson, retrieval, top

    known = {"top1": top.TOP1, "top5": top.TOP5, "retrieval": retrieval.R1, "pearson": pearson.R}
    if name in known:
        return known[name]
    module, _, function = name.partition(":")
    if not function:
        raise InputError(
            f"unknown metric {name!r}",
            hint=f"choose one of {', '.join(known)}, or give your own as module:function",
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        score = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"metric {name!r}: {error}", hint="the module is looked for in this folder too"
        ) from error
    return Metric(name, lambda outputs, labels: np.asarray(score(outputs, labels)), mean)


def compare(
    chosen: Metric,
    original: Mapping[str, np.ndarray],
    built: Mapping[str, np.ndarray],
    labels: np.ndarray | None,
) -> Figure:
    """The metric of two models over the same samples."""
    return paired(chosen, chosen.score(original, labels), chosen.score(built, labels))


def paired(chosen: Metric, original: Rows, built: Rows) -> Figure:
    """Both figures, and the interval of their difference over resampled samples (seeded)."""
    if len(original) != len(built) or not len(original):
        raise InputError(
            f"metric {chosen.name}: {len(original)} and {len(built)} scores do not pair",
            hint="a metric returns one number per sample",
        )
    generator = np.random.default_rng(0)
    differences = []
    for _ in range(RESAMPLES):
        pick = generator.integers(0, len(original), len(original))
        differences.append(chosen.reduce(built[pick]) - chosen.reduce(original[pick]))
    low, high = np.nanpercentile(differences, [2.5, 97.5])
    first, second = chosen.reduce(original), chosen.reduce(built)
    return Figure(
        chosen.name, first, second, second - first, float(low), float(high), len(original)
    )
