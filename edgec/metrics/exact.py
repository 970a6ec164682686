"""Exact match: the share of samples whose text is the label, white space at the ends aside."""

from __future__ import annotations

from edgec.metrics import Measure, Metric, mean
from edgec.metrics.options import Options
from edgec.metrics.texts import make as of_texts


def make(options: Options) -> Metric:
    """Of decoded texts; a row is 1 or 0."""
    return of_texts(options, _row, Measure(options.metric, mean))


def _row(label: str, text: str) -> tuple[float]:
    return (float(label == text),)
