"""Samples that stand there twice: exactly, by hash, and nearly, by sketch.

Near: for every input, |a - b| is below 2 % of the usual distance of two samples: the median, which
a few on another scale do not move. For token ids the bags must be equal.
Sketches are compared block by block, so that memory grows with the number of samples, not with its
square.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from edgec.audit.context import Context, some
from edgec.audit.finding import Finding, note, warning
from edgec.audit.survey import Sample

EXACT, NEAR = "duplicate", "near-duplicate"
CLOSE = 0.02
BLOCK = 256


def exact(context: Context) -> Iterator[Finding]:
    """One warning for each group of samples that are equal in every input."""
    for group in _equal(context.survey.samples):
        if len(group) > 1:
            names = tuple(sample.name for sample in group)
            yield warning(
                EXACT,
                f"{some(names)} are equal",
                names,
                hint="keep one: a repeated sample adds no range, and if its twin verifies, the "
                "checks judge what was calibrated on",
            )


def near(context: Context) -> Iterator[Finding]:
    """One note for each group of samples that are alike in every input, and not equal."""
    firsts = [group[0] for group in _equal(context.survey.samples)]
    names = [need.name for need in context.prepared.inputs if need.name not in context.constants]
    by_form: dict[tuple[int, ...], list[Sample]] = defaultdict(list)
    for sample in firsts:
        by_form[tuple(len(sample.sights[name].sketch) for name in names)].append(sample)
    for alike in by_form.values():
        sketches = [np.stack([s.sights[name].sketch for s in alike]) for name in names]
        for group in _clusters(sketches):
            found = tuple(alike[index].name for index in group)
            yield note(
                NEAR,
                f"{some(found)} are nearly equal",
                found,
                hint="if they are frames of one film or crops of one picture, keep one of them",
            )


def _equal(samples: Sequence[Sample]) -> list[list[Sample]]:
    groups: dict[tuple[tuple[str, str], ...], list[Sample]] = defaultdict(list)
    for sample in samples:
        key = tuple(sorted((name, one.digest) for name, one in sample.sights.items()))
        groups[key].append(sample)
    return list(groups.values())


def _clusters(sketches: Sequence[np.ndarray]) -> list[list[int]]:
    """Groups of rows that are close in every sketch [rows, n], joined over common members."""
    count = len(sketches[0]) if sketches else 0
    if count < 3:  # two samples have no usual distance
        return []
    centred = [rows - np.median(rows, axis=0) for rows in sketches]
    if not any(rows.any() for rows in centred):
        return []
    usual = [_usual(rows) for rows in centred]
    parents = list(range(count))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        close = np.arange(count)[None] > np.arange(start, stop)[:, None]
        for rows, square in zip(centred, usual, strict=True):
            close &= _squares(rows[start:stop], rows) <= CLOSE**2 * square
        for one, other in np.argwhere(close):
            parents[root(int(other))] = root(int(one) + start)
    groups: dict[int, list[int]] = defaultdict(list)
    for index in range(count):
        groups[root(index)].append(index)
    return [group for group in groups.values() if len(group) > 1]


def _squares(some_rows: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """|a - b|² for all pairs [some rows, rows]."""
    norms, others = (some_rows**2).sum(axis=1), (rows**2).sum(axis=1)
    return np.asarray(norms[:, None] + others - 2 * some_rows @ rows.T)


def _usual(rows: np.ndarray) -> float:
    """The median of |a - b|² over pairs, of at most a block of rows, evenly."""
    few = rows[:: -(-len(rows) // BLOCK)]
    return float(np.median(_squares(few, few)[np.triu_indices(len(few), 1)]))
