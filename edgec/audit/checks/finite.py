"""Samples that the float model itself turns into NaN or infinity: calibration would refuse them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgec.audit.context import Context
from edgec.audit.finding import Finding, warning

NAME = "finite"


def check(context: Context) -> Iterator[Finding]:
    """At most one warning, with the first value in which it shows."""
    found = context.extremes
    bad = ~(np.isfinite(found.low) & np.isfinite(found.high))
    names = tuple(
        name for (name, _), row in zip(context.survey.files, bad, strict=True) if row.any()
    )
    if names:
        value = found.values[int(np.argmax(bad.any(axis=0)))]
        yield warning(
            NAME,
            f"the float model turns {len(names)} samples into NaN or infinity, as at {value!r}",
            names,
            hint="leave them out, or find out what is wrong with them",
        )
