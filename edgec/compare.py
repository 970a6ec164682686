"""How close one array stream is to another: error, cosine, SQNR and agreement, in one pass.

SQNR = 10 log10(sum x^2 / sum (x - y)^2) dB over all samples; cosine over all samples as one vector.
Agreement is what a user of the value would notice: the same top-1 class, or the same nearest
neighbour among the samples, or equal integers.
"""

from __future__ import annotations

import math

import numpy as np

from edgec.results import Comparison

UNIT = 1e-3  # how far from 1 the norm of an embedding, or the sum of probabilities, may be
EMBEDDING_WORDS = ("embed", "feature", "pooled", "hidden")
MOST_ROWS = 1024


class Running:
    """Accumulates one value over samples; memory does not grow beyond MOST_ROWS rows."""

    def __init__(self, part: str, value: str) -> None:
        self._part, self._value = part, value
        self._max = self._dot = self._reference = self._built = self._error = 0.0
        self._kind = ""
        self._hits = self._asked = 0
        self._rows: list[tuple[np.ndarray, np.ndarray]] = []
        self._samples = 0

    def add(self, reference: np.ndarray, built: np.ndarray) -> None:
        """One sample's arrays, of equal shape; a difference in shape counts as total failure."""
        self._samples += 1
        if not self._kind:
            self._kind = _kind(self._value, reference)
        if reference.shape != built.shape:
            self._max = self._error = math.inf
            self._asked += 1
            return
        x = reference.astype(np.float64, copy=False).ravel()
        y = built.astype(np.float64, copy=False).ravel()
        same = ~np.isfinite(x) & ((x == y) | (np.isnan(x) & np.isnan(y)))
        if same.any():  # a mask's -inf, say: equal, and no number to sum
            x, y = x[~same], y[~same]
        difference = np.abs(x - y)
        self._max = max(self._max, float(difference.max(initial=0.0)))
        self._dot += float(x @ y)
        self._reference += float(x @ x)
        self._built += float(y @ y)
        self._error += float(difference @ difference)
        self._agree(reference, built)

    def result(self) -> Comparison:
        """The comparison over all that was added."""
        if self._kind == "neighbour":
            self._hits, self._asked = _neighbours(self._rows)
        product = self._reference * self._built
        cosine = self._dot / math.sqrt(product) if product > 0 else float(self._error == 0)
        broken = not math.isfinite(self._error)  # no number, or arrays of another shape
        if self._error == 0:
            sqnr = math.inf
        else:
            sqnr = 10 * math.log10(max(self._reference, 1e-300) / (1.0 if broken else self._error))
        return Comparison(
            part=self._part,
            value=self._value,
            max_abs=self._max if not broken else math.inf,
            cosine=-1.0 if broken or math.isnan(cosine) else min(1.0, cosine),
            sqnr_db=-math.inf if broken else sqnr,
            agreement=self._hits / self._asked if self._asked else math.nan,
            agreement_kind=self._kind if self._asked else "none",
            samples=self._samples,
        )

    def _agree(self, reference: np.ndarray, built: np.ndarray) -> None:
        if self._kind == "equal":
            self._hits += int((reference == built).sum())
            self._asked += reference.size
        elif self._kind == "top-1":
            same = reference.argmax(axis=-1) == built.argmax(axis=-1)
            self._hits += int(same.sum())
            self._asked += same.size
        elif self._kind == "neighbour" and len(self._rows) < MOST_ROWS:
            self._rows.extend(zip(reference, built, strict=True))


def _kind(name: str, array: np.ndarray) -> str:
    """What a value looks like: integers, an embedding, class scores, or none of these."""
    if array.dtype.kind in "iub":
        return "equal"
    if array.ndim < 2 or array.shape[-1] < 2:
        return "none"
    rows = array.reshape(-1, array.shape[-1]).astype(np.float64)
    if array.ndim == 2:
        unit = bool(np.all(np.abs(np.linalg.norm(rows, axis=1) - 1) < UNIT))
        named = any(word in name.lower() for word in EMBEDDING_WORDS)
        return "neighbour" if (unit and array.shape[-1] >= 16) or named else "top-1"
    chances = bool(np.all(rows >= 0) and np.all(np.abs(rows.sum(axis=1) - 1) < UNIT))
    return "top-1" if chances else "none"


def _neighbours(rows: list[tuple[np.ndarray, np.ndarray]]) -> tuple[int, int]:
    """For how many samples the nearest other sample stays the same, out of how many."""
    if len(rows) < 3:
        return 0, 0
    nearest = []
    for side in (0, 1):
        matrix = np.stack([row[side] for row in rows]).astype(np.float64)
        matrix /= np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-30)
        likeness = matrix @ matrix.T
        np.fill_diagonal(likeness, -np.inf)
        nearest.append(likeness.argmax(axis=1))
    return int((nearest[0] == nearest[1]).sum()), len(rows)
