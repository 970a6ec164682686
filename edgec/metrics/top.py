"""Top-k accuracy: whether the label is among the k highest scores."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgec.errors import InputError
from edgec.metrics import Metric, Rows, mean


def hits(scores: np.ndarray, labels: np.ndarray, k: int) -> Rows:
    """scores [samples, classes], labels [samples] -> 1.0 where the label is in the top k."""
    best = np.argpartition(-scores, min(k, scores.shape[1]) - 1, axis=1)[:, :k]
    found: Rows = (best == labels.reshape(-1, 1)).any(axis=1).astype(np.float64)
    return found


def _score(outputs: Mapping[str, np.ndarray], labels: np.ndarray | None, k: int) -> Rows:
    if labels is None:
        raise InputError("this metric needs labels", hint="give --labels FILE")
    flat = {
        name: array.reshape(array.shape[0], -1)
        for name, array in outputs.items()
        if array.dtype.kind == "f" and array.size > array.shape[0]
    }
    if not flat:
        raise InputError("no output looks like class scores", hint="write a module:function")
    return hits(next(iter(flat.values())), labels.astype(np.int64), k)


TOP1 = Metric("top1", lambda outputs, labels: _score(outputs, labels, 1), mean)
TOP5 = Metric("top5", lambda outputs, labels: _score(outputs, labels, 5), mean)
