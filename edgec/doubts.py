"""What in statistics should make a user wonder; nothing of it stops a build.

A value that is zero, or that no sample ever produced (an empty tensor, a branch that never ran),
gets the scale 1 in Q/DQ. A calibration cache for TensorRT has no line for the latter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgec.quantize.static import LEAST_SCALE
from edgec.types import Statistics, ValueStatistics

NAMED = 3  # values that a sentence names


def _no_range(one: ValueStatistics) -> bool:
    """Whether some grid of 8 bits has no scale for it."""
    return max(one.high, 0.0) - min(one.low, 0.0) <= 255 * LEAST_SCALE


_DOUBTS: tuple[tuple[Callable[[ValueStatistics], bool], str], ...] = (
    (lambda one: not one.seen, "no sample gave a number for {}: nothing is known of the range"),
    (
        lambda one: one.seen > 0 and _no_range(one),
        "zero or too near to it for a scale, which is 1 instead: {}",
    ),
    (
        lambda one: one.seen > 0 and one.low == one.high and not _no_range(one),
        "the same number in all samples: {}",
    ),
    (lambda one: one.nans > 0, "NaN, which is left out of the range: {}"),
    (lambda one: one.infinities > 0, "infinite numbers, which are left out of the range: {}"),
)


def doubts(statistics: Statistics) -> tuple[str, ...]:
    """A sentence for each kind of doubt, with the names of values."""
    ranged = {n: one for n, one in sorted(statistics.values.items()) if one.histogram is not None}
    found = []
    for test, sentence in _DOUBTS:
        names = [name for name, one in ranged.items() if test(one)]
        if names:
            found.append(sentence.format(listed(names)))
    return tuple(found)


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(repr, names[:NAMED])) + more
