"""Pearson correlation between a score that the model gives and the label that people gave."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgec.errors import InputError
from edgec.metrics import Metric, Rows


def _score(outputs: Mapping[str, np.ndarray], labels: np.ndarray | None) -> Rows:
    if labels is None:
        raise InputError("this metric needs labels", hint="give --labels FILE")
    single = [a for a in outputs.values() if a.dtype.kind == "f" and a.size == len(labels)]
    if not single:
        raise InputError("no output is one number a sample", hint="write a module:function")
    return np.stack([single[0].reshape(-1), labels.astype(np.float64)], axis=1)


def _correlation(rows: Rows) -> float:
    spread = rows.std(axis=0)
    if not spread.all():
        return float("nan")
    return float(np.corrcoef(rows[:, 0], rows[:, 1])[0, 1])


R = Metric("pearson", _score, _correlation)
