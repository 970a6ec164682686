"""How a range follows from the statistics of a value: one method a file."""

from __future__ import annotations

from edgec.calibrators import minmax, percentile
from edgec.errors import InternalError
from edgec.types import Method, Statistics

METHODS = {Method.MINMAX: minmax.limits, Method.PERCENTILE: percentile.limits}


def limits(statistics: Statistics, name: str, method: Method) -> tuple[float, float]:
    """The range (low, high) of the value `name`, in its own units."""
    seen = statistics.values.get(name)
    if seen is None or seen.low > seen.high:
        raise InternalError(f"the range of value {name!r} was never observed")
    return METHODS[method](seen)
