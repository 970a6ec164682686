"""Recall@k: whether the right item of the other modality is among the k nearest by cosine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import combinations

import numpy as np

from edgec.errors import InputError
from edgec.metrics import Measure, Metric, Outputs, Scored
from edgec.metrics.labels import Labels, Wants
from edgec.metrics.options import Options
from edgec.metrics.outputs import pick, split

DEPTHS = (1, 5, 10)
BLOCK = 1024  # queries at a time, so that no matrix of all with all is held
Pair = tuple[np.ndarray, np.ndarray]


def make(options: Options) -> Metric:
    """Each sample's first embedding asks for its second among those of all samples.

    Labels, if given, are the numbers of the right samples, from 0.
    """
    k = options.integer("k", 0, 0, 1 << 20)
    query, gallery = options.text("query"), options.text("gallery")
    if bool(query) != bool(gallery):
        raise options.wrong("query and gallery", "one is missing", "name both outputs, or neither")
    return Metric(
        name=options.metric,
        labels=Wants.CLASSES,
        take=partial(_take, query=query, gallery=gallery),
        score=_score,
        measures=tuple(recall(depth) for depth in ((k,) if k else DEPTHS)),
        answer="nearest",
        optional=True,
    )


def recall(k: int) -> Measure:
    """Recall@k over rows that are ranks, from 0."""
    return Measure(f"recall@{k}", partial(_within, k=k))


def ranks(queries: np.ndarray, gallery: np.ndarray, right: np.ndarray) -> np.ndarray:
    """How many others of the gallery [items, d] are as near to each query [n, d] as the right item.

    Ties count against the query, and what is not finite is farthest: a collapsed or broken
    embedding finds nothing.
    """
    return search(queries, gallery, right)[0]


def search(queries: np.ndarray, gallery: np.ndarray, right: np.ndarray) -> Pair:
    """The rank of the right item for each query [n], and the nearest item [n]."""
    items = _unit(gallery).T
    places, nearest = [], []
    for start in range(0, len(queries), BLOCK):
        cosines = np.nan_to_num(_unit(queries[start : start + BLOCK]) @ items, nan=-np.inf)
        own = cosines[np.arange(len(cosines)), right[start : start + BLOCK]]
        places.append((cosines >= own[:, None]).sum(axis=1) - 1)
        nearest.append(cosines.argmax(axis=1))
    return np.concatenate(places), np.concatenate(nearest)


def _unit(array: np.ndarray) -> np.ndarray:
    rows = array.astype(np.float64)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30))


def _within(rows: np.ndarray, k: int) -> float:
    return float(np.mean(rows < k))


def _is_embedding(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" and array.ndim == 1 and array.size > 1


def _take(outputs: Outputs, count: int, query: str, gallery: str) -> list[Pair]:
    """Query and gallery item of each sample: the named outputs, or the first two of one size."""
    sides = [split(array, count) for array in outputs.values()]
    if query:
        sides = [
            pick(outputs, count, name, _is_embedding, "an embedding a sample")
            for name in (query, gallery)
        ]
    sides = [side for side in sides if side and all(_is_embedding(one) for one in side)]
    for one, other in combinations(sides, 2):
        if one[0].size == other[0].size:
            return list(zip(one, other, strict=True))
    raise InputError(
        "retrieval needs two outputs that are embeddings of one size",
        hint="name them with query=NAME,gallery=NAME, or write a module:function",
    )


def _score(taken: Sequence[Pair], labels: Labels) -> Scored:
    right = np.array(labels.values or range(len(taken)))
    for index in np.flatnonzero(right >= len(taken))[:1]:
        raise labels.wrong(
            int(index),
            f"sample {right[index]} of {len(taken)}, which count from 0",
            "a label is the number of the right sample, in the order of the files' names",
        )
    queries, gallery = (np.stack(side) for side in zip(*taken, strict=True))
    places, nearest = search(queries, gallery, right)
    return Scored(places, nearest.tolist())
