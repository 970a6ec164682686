"""Two sets of runs on the same device: which is faster, and can it be chance?

Mann and Whitney's U test, exact and two-sided ("On a test of whether one of two random variables is
stochastically larger than the other", 1947), over runs, not over their rounds: rounds of one run
share the machine's state. Marked runs are counted and left out.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgec.farm.history import Result

TEST = "Mann-Whitney U, exact"
LEVEL = 0.05
LEAST = 4  # runs a side: with fewer, p cannot come below 0.05 (3 and 3: 0.1)
MOST = 50  # runs a side, the newest


@dataclass(frozen=True)
class Compared:
    """One device's medians over runs; `ratio` is new over base. `p` None: not judged."""

    driven: tuple[str, ...]
    base: float
    new: float
    ratio: float
    base_runs: int
    new_runs: int
    left_out: int
    p: float | None

    @property
    def judgement(self) -> str:
        """What can be said, and why."""
        if self.p is None:
            return (
                f"not judged: {self.base_runs} and {self.new_runs} clean runs; {TEST} needs "
                f"{LEAST} each, or measure both in turn: edgec bench NEW --against BASE"
            )
        sure = "different" if self.p <= LEVEL else "may be chance"
        return f"{sure}: p = {self.p:.3g} ({TEST})"


def compare(base: Sequence[Result], new: Sequence[Result], metric: str) -> list[Compared]:
    """Each device that ran both in the same way, by the metric's median over clean runs."""
    found = []
    for driven in dict.fromkeys(one.driven for one in base):
        old = [one for one in base if one.driven == driven]
        young = [one for one in new if one.driven == driven]
        a, b = _values(old, metric), _values(young, metric)
        if a and b:
            before, after = statistics.median(a), statistics.median(b)
            judged = min(len(a), len(b)) >= LEAST
            found.append(
                Compared(
                    driven=driven,
                    base=before,
                    new=after,
                    ratio=after / before if before else math.nan,
                    base_runs=len(a),
                    new_runs=len(b),
                    left_out=sum(one.marked for one in (*old, *young)),
                    p=mann_whitney(a, b) if judged else None,
                )
            )
    return found


def mann_whitney(a: Sequence[float], b: Sequence[float]) -> float:
    """The two-sided p of the rank sum of `a`, over all choices of ranks; ties get midranks."""
    both = np.asarray([*a, *b], dtype=np.float64)
    ordered = np.sort(both)
    low = np.searchsorted(ordered, both, side="left")
    high = np.searchsorted(ordered, both, side="right")
    ranks = low + high + 1  # twice the midrank: whole numbers
    n, total = len(a), int(ranks.sum())
    ways = np.zeros((n + 1, total + 1))  # [chosen, sum of their ranks]
    ways[0, 0] = 1.0
    for rank in map(int, ranks):
        ways[1:, rank:] += ways[:-1, : total + 1 - rank].copy()
    share = ways[n] / ways[n].sum()
    mean = n * total / len(both)
    far = abs(int(ranks[:n].sum()) - mean)
    return min(1.0, float(share[np.abs(np.arange(total + 1) - mean) >= far - 1e-9].sum()))


def _values(results: Sequence[Result], metric: str) -> list[float]:
    found = [one.value(metric) for one in results if not one.marked]
    return [value for value in found if value is not None][-MOST:]
