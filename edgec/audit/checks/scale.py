"""Samples on another scale than the rest: one that was not normalised, or normalised twice.

The spread (standard deviation) of a float input differs from the median spread by more than 16x.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgec.audit.context import Context
from edgec.audit.finding import Finding, warning

NAME = "scale"
TIMES = 16.0
LEAST = 4  # samples
RANK = 3  # from which a spread within a sample says something


def check(context: Context) -> Iterator[Finding]:
    """One warning for each input; samples of one number alone are told of by `constant`."""
    samples = context.survey.samples
    for need in context.prepared.inputs:
        spreads = np.array([sample.sights[need.name].spread for sample in samples])
        varied = spreads > 0
        ranks = {len(sample.sights[need.name].shape) for sample in samples}
        if need.dtype.kind != "f" or varied.sum() < LEAST or min(ranks) < RANK:
            continue
        usual = float(np.median(spreads[varied]))
        off = varied & ((spreads > TIMES * usual) | (spreads < usual / TIMES))
        if off.any():
            names = tuple(s.name for s, yes in zip(samples, off, strict=True) if yes)
            worst = max(spreads[off], key=lambda one: abs(np.log(one / usual)))
            yield warning(
                NAME,
                f"{need.name} is on another scale in {len(names)} of {len(samples)} samples: its "
                f"standard deviation is {worst:.3g}, where {usual:.3g} is usual",
                names,
                hint="normalise all samples alike; one such sample widens the range for all",
            )
