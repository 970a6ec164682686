"""How a range follows from the statistics of a value: one method a file."""

from __future__ import annotations

from edgec.calibrators import entropy, minmax, moving_average, mse, percentile
from edgec.errors import InternalError
from edgec.types import Grid, Method, Statistics

METHODS = {
    Method.MINMAX: minmax.limits,
    Method.MOVING_AVERAGE: moving_average.limits,
    Method.PERCENTILE: percentile.limits,
    Method.MSE: mse.limits,
    Method.ENTROPY: entropy.limits,
}
AUTO = "auto"  # all of them are tried, from min-max on; see `edgec.tune`
CHOICES = (*map(str, METHODS), AUTO)
FROM_HISTOGRAMS = frozenset({Method.PERCENTILE, Method.MSE, Method.ENTROPY})


def limits(statistics: Statistics, name: str, method: Method, grid: Grid) -> tuple[float, float]:
    """The range (low, high) of the value `name`, in its own units; (0, 0) if no number was seen.

    It lies within what was seen, and around zero if that does. Raises InternalError where the
    value was not observed, or not with what the method needs.
    """
    seen = statistics.values.get(name)
    if seen is None:
        raise InternalError(f"the range of value {name!r} was never observed")
    if method in FROM_HISTOGRAMS and seen.histogram is None and seen.low <= seen.high:
        raise InternalError(f"value {name!r} was observed without a histogram: {method} needs it")
    return METHODS[method](seen, grid)


def methods(name: str) -> tuple[Method, ...]:
    """The methods that a user means by one of CHOICES, the first to be tried first."""
    return tuple(METHODS) if name == AUTO else (Method(name),)
