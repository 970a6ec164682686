"""Task metrics: figures that users of a model care about, of two models on the same samples.

A metric works in three steps. `take` keeps what it needs of one file's outputs, in the process that
runs the model. `score` turns what was taken of all samples, and their labels, into rows, one a
sample. A measure reduces rows to one figure; it does so for any resample of them as well, so that
the figures of two models pair. One metric a module; a user's own is `module:function`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgec.errors import InputError
from edgec.metrics.labels import NO_LABELS, Labels, Wants
from edgec.metrics.options import Options

RESAMPLES = 2000
Outputs = Mapping[str, np.ndarray]
Take = Callable[[Outputs, int], list[Any]]


@dataclass(frozen=True)
class Measure:
    """One figure: `reduce` makes it of rows, NaN where they have none; `resamples` of its interval.

    Rows are an array [samples, …], or whatever has a length and takes an array of indices.
    """

    name: str
    reduce: Callable[[Any], float]
    resamples: int = RESAMPLES


@dataclass(frozen=True)
class Scored:
    """What one model gave on all samples: rows for the measures, and its answers, one a sample."""

    rows: Any
    answers: Sequence[Any]


def same(one: Scored, other: Scored) -> float:
    """The share of samples with the same answer."""
    pairs = zip(one.answers, other.answers, strict=True)
    return float(np.mean([x == y or (x != x and y != y) for x, y in pairs]))


@dataclass(frozen=True)
class Metric:
    """`take`: (one file's outputs, how many samples it holds) -> one thing a sample, picklable.

    `score`: (what was taken, labels, which may be NO_LABELS where `optional`) -> rows and answers.
    `answer` says what agreement is of: what a sample's answer is, if nothing else.
    """

    name: str
    labels: Wants
    take: Take
    score: Callable[[Sequence[Any], Labels], Scored]
    measures: tuple[Measure, ...]
    answer: str
    agreement: Callable[[Scored, Scored], float] = same
    optional: bool = False


@dataclass(frozen=True)
class Figure:
    """A measure of the original and the built model, with a paired 95 % interval of the difference.

    `low` and `high` bound built minus original, by the paired percentile bootstrap over samples
    (Efron 1979). `agreement`: the share of samples on which both models give the same answer, which
    is an `agreement_kind`; NaN and "none" where nobody asked.
    """

    metric: str
    original: float
    built: float
    difference: float
    low: float
    high: float
    samples: int
    agreement: float = math.nan
    agreement_kind: str = "none"


def metric(text: str) -> Metric:
    """The metric that `NAME`, `NAME:option=value,…` or `module:function` asks for.

    Raises InputError: no such metric or option; ToolchainError: a package that it needs is missing.
    """
    from edgec.metrics import own

    name, colon, rest = text.partition(":")
    makers = known()
    if name in makers and (not colon or "=" in rest):
        options = Options(name, rest)
        made = makers[name](options)
        options.done()
        return made
    if not colon or not rest:
        raise InputError(
            f"unknown metric {text!r}",
            hint=f"choose one of {', '.join(makers)}, or give your own as module:function",
        )
    return own.make(text)


def known() -> Mapping[str, Callable[[Options], Metric]]:
    """What makes each metric that has a name."""
    from edgec.metrics import cer, exact, f1, pearson, retrieval, spearman, top, wer
    from edgec.metrics import map as mean_average_precision

    return {
        "top1": top.top1,
        "top5": top.top5,
        "f1": f1.make,
        "map": mean_average_precision.make,
        "retrieval": retrieval.make,
        "pearson": pearson.make,
        "spearman": spearman.make,
        "wer": wer.make,
        "cer": cer.make,
        "exact": exact.make,
    }


def compare(
    chosen: Metric, original: Sequence[Any], built: Sequence[Any], labels: Labels = NO_LABELS
) -> tuple[Figure, ...]:
    """The metric's figures of two models, from what it took of each sample.

    Raises InputError where labels are missing or do not fit.
    """
    if not labels.given and not chosen.optional:
        raise InputError(f"metric {chosen.name} needs labels", hint="give --labels FILE")
    if len(original) != len(built) or len(labels.given) not in (0, len(original)):
        raise InputError(
            f"metric {chosen.name}: {len(original)} and {len(built)} samples of the models and "
            f"{len(labels.given)} labels do not pair",
            hint="both models have to give as many samples for a file",
        )
    first, second = chosen.score(original, labels), chosen.score(built, labels)
    agreement = chosen.agreement(first, second)
    return tuple(
        paired(measure, first.rows, second.rows, agreement=agreement, kind=chosen.answer)
        for measure in chosen.measures
    )


def paired(
    measure: Measure, original: Any, built: Any, *, agreement: float = math.nan, kind: str = "none"
) -> Figure:
    """Both figures, and the interval of their difference over resampled samples (seeded)."""
    if len(original) != len(built) or not len(original):
        raise InputError(
            f"metric {measure.name}: {len(original)} and {len(built)} scores do not pair",
            hint="a metric returns one number per sample",
        )
    generator = np.random.default_rng(0)
    differences = []
    for _ in range(measure.resamples):
        pick = generator.integers(0, len(original), len(original))
        differences.append(measure.reduce(built[pick]) - measure.reduce(original[pick]))
    defined = [one for one in differences if math.isfinite(one)]  # a resample may lack any label
    low, high = np.percentile(defined, [2.5, 97.5]) if defined else (math.nan, math.nan)
    first, second = measure.reduce(original), measure.reduce(built)
    return Figure(
        measure.name,
        first,
        second,
        second - first,
        float(low),
        float(high),
        len(original),
        agreement,
        kind,
    )


def mean(rows: np.ndarray) -> float:
    """The mean over samples."""
    return float(np.mean(rows))
