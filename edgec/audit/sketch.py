"""What is remembered of one array: a few numbers, a hash, and a sketch to compare it by.

A sketch of floats is the average over at most 8 bins along every axis; of integers, the counts of
hashed ids, trailing padding left out (feature hashing: Weinberger et al. 2009, arXiv:0902.2206).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

BINS = 8  # along every axis of a picture or a sound
VECTOR_BINS = 64  # along the axis of a vector
MOST = 1024  # numbers in a sketch, about
BUCKETS = 128  # for token ids
GOLDEN = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio: Knuth's multiplicative hash


@dataclass(frozen=True)
class Sight:
    """One input of one sample.

    `tokens`: of a matrix of integers, the columns of its longest row before the last id begins to
    repeat; of a mask, those that it keeps; else 0. `spread`: the standard deviation. `sketch`
    float32 [n].
    """

    shape: tuple[int, ...]
    digest: str
    low: float
    high: float
    spread: float
    whole: bool
    tokens: int
    sketch: np.ndarray


def look(array: np.ndarray, *, mask: bool) -> Sight:
    """Reduce a checked array (finite, not empty) to what the audit remembers of it."""
    plain = np.ascontiguousarray(array)
    head = f"{plain.dtype}\0{plain.shape}\0".encode()
    numbers = plain if plain.dtype.kind in "iub" else plain.astype(np.float64)
    integer = plain.dtype.kind in "iub"
    tokens = 0
    if mask:
        tokens = int((plain != 0).sum(axis=1).max())
    elif integer and plain.ndim == 2:
        tokens = int(_lengths(plain).max())
    return Sight(
        shape=plain.shape,
        digest=hashlib.sha256(head + plain.tobytes()).hexdigest(),
        low=float(numbers.min()),
        high=float(numbers.max()),
        spread=float(numbers.std()),
        whole=integer or bool((numbers == np.rint(numbers)).all()),
        tokens=tokens,
        sketch=_bag(plain) if integer else _pooled(numbers),
    )


def _lengths(ids: np.ndarray) -> np.ndarray:
    """Per row, how many columns come before the last id begins to repeat (at least 1)."""
    differs = ids != ids[:, -1:]
    columns = np.arange(1, ids.shape[1] + 1)
    last = np.where(differs, columns, 0).max(axis=1)
    return np.asarray(np.minimum(last + 1, ids.shape[1]))


def _pooled(array: np.ndarray) -> np.ndarray:
    bins = VECTOR_BINS if array.ndim <= 2 else BINS
    while array.ndim > 2 and bins > 1 and bins**array.ndim > MOST * BINS:
        bins //= 2
    for axis, size in enumerate(array.shape):
        if size > bins:
            starts = np.arange(bins) * size // bins
            widths = np.diff(np.append(starts, size))
            shape = [-1 if other == axis else 1 for other in range(array.ndim)]
            array = np.add.reduceat(array, starts, axis=axis) / widths.reshape(shape)
    return np.asarray(array, np.float32).ravel()


def _bag(ids: np.ndarray) -> np.ndarray:
    rows = ids.reshape(-1, ids.shape[-1]) if ids.ndim else ids.reshape(1, 1)
    kept = np.arange(rows.shape[1]) < _lengths(rows)[:, None]
    hashed = rows[kept].astype(np.uint64) * np.uint64(GOLDEN) >> np.uint64(57)
    counts = np.bincount(hashed.astype(np.int64), minlength=BUCKETS)
    return np.asarray(counts, np.float32)
