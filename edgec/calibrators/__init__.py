"""How a range follows from the statistics of a value: one method a file."""

from __future__ import annotations

from edgec.calibrators import minmax, percentile
from edgec.errors import InternalError
from edgec.types import Method, Statistics

METHODS = {Method.MINMAX: minmax.limits, Method.PERCENTILE: percentile.limits}


def limits(statistics: Statistics, name: str, method: Method) -> tuple[float, float]:
    """The range (low, high) of the value `name`, in its own units."""
    if name not in statistics.values:
        raise InternalError(f"value {name!r} was never observed")
    return METHODS[method](statistics.values[name])
