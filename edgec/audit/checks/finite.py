"""Samples that the float model itself turns into NaN or infinity, and values that are always empty.

Calibration would leave such numbers out, and know nothing of the range of such values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edgec.audit.context import Context, some
from edgec.audit.finding import Finding, warning

NAME = "finite"


def check(context: Context) -> Iterator[Finding]:
    """At most one warning of each kind, with the first values in which it shows."""
    found, ran = context.extremes, context.ran
    bad = np.any(found.bad, axis=0)
    if bad.any():
        names = tuple(name for (name, _), row in zip(ran, found.bad, strict=True) if row.any())
        yield warning(
            NAME,
            f"the float model turns {len(names)} samples into NaN or infinity, first at "
            f"{_first(found.values, bad, 1)}",
            names,
            hint="leave them out, or find out what is wrong with them",
        )
    empty = ~(found.seen | found.bad).any(axis=0)
    if ran and empty.any():
        yield warning(
            NAME,
            f"no sample gave a number for {_first(found.values, empty, 3)}: nothing is known of "
            "the range",
            hint="add samples in which it is not empty: with something for a detector to find, say",
        )


def _first(values: Sequence[str], chosen: np.ndarray, most: int) -> str:
    return some([repr(name) for name, yes in zip(values, chosen, strict=True) if yes], most)
