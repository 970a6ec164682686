"""Recall@k: whether the right item of the other modality is among the k nearest by cosine."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgec.errors import InputError
from edgec.metrics import Metric, Rows, mean


def ranks(queries: np.ndarray, gallery: np.ndarray, right: np.ndarray) -> np.ndarray:
    """How many others of the gallery [items, d] are as near to each query [n, d] as the right item.

    Ties count against the query, and what is not finite is farthest: a collapsed or broken
    embedding finds nothing.
    """
    likeness = np.nan_to_num(_unit(queries) @ _unit(gallery).T, nan=-np.inf)
    own = likeness[np.arange(len(queries)), right]
    return np.asarray((likeness >= own[:, None]).sum(axis=1) - 1)


def recall(k: int) -> Metric:
    """Recall@k over ranks that are already known, as rows."""
    return Metric(f"recall@{k}", lambda outputs, _: (outputs["ranks"] < k).astype(float), mean)


def _score(outputs: Mapping[str, np.ndarray], labels: np.ndarray | None) -> Rows:
    pairs = [
        array.reshape(len(array), -1)
        for array in outputs.values()
        if array.dtype.kind == "f" and array.ndim == 2 and array.shape[1] > 1
    ]
    pairs = [array for array in pairs if array.shape == pairs[0].shape]
    if len(pairs) < 2:
        raise InputError(
            "retrieval needs two outputs that are embeddings of one size",
            hint="write a module:function for this model",
        )
    right = np.arange(len(pairs[0])) if labels is None else labels.astype(np.int64)
    found: Rows = (ranks(pairs[0], pairs[1], right) < 1).astype(np.float64)
    return found


def _unit(array: np.ndarray) -> np.ndarray:
    rows = array.astype(np.float64)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30))


R1 = Metric("retrieval", _score, mean)
