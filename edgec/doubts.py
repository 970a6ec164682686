"""What in statistics should make a user wonder; nothing of it stops a build.

A value that is constant, or that no sample ever produced (an empty tensor, a branch that never
ran), gets the scale 1 where its own range gives none.
"""

from __future__ import annotations

from collections.abc import Callable

from edgec.types import Statistics, ValueStatistics

NAMED = 3  # values that a sentence names

_DOUBTS: tuple[tuple[Callable[[ValueStatistics], bool], str], ...] = (
    (lambda one: not one.seen, "no sample gave a number for {}: nothing is known of the range"),
    (lambda one: one.seen > 0 and one.low == one.high, "the same number in all samples: {}"),
    (lambda one: one.nans > 0, "NaN, which is left out of the range: {}"),
    (lambda one: one.infinities > 0, "infinite numbers, which are left out of the range: {}"),
)


def doubts(statistics: Statistics) -> tuple[str, ...]:
    """A sentence for each kind of doubt, with the names of values."""
    ranged = {n: one for n, one in sorted(statistics.values.items()) if one.histogram is not None}
    found = []
    for test, sentence in _DOUBTS:
        names = [repr(name) for name, one in ranged.items() if test(one)]
        if names:
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            found.append(sentence.format(", ".join(names[:NAMED]) + more))
    return tuple(found)
