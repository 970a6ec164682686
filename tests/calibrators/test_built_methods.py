"""The method that a plan names for a part is the one that the scales of the part come from."""

from __future__ import annotations

import numpy as np
import pytest
import small
from engines import recovered
from observed import seen

from edgec.calibrators import limits
from edgec.placement import place
from edgec.quantize import quantize
from edgec.quantize.static import affine
from edgec.types import Method, Statistics

RUNTIME = small.runtime("x86-vnni")


@pytest.fixture(scope="module")
def statistics() -> Statistics:
    """A long tail for every value, so that no method but one keeps it whole."""
    found = small.fixture("cnn")
    rng = np.random.default_rng(0)
    value = seen(rng.standard_t(3, 60_000), rng.standard_t(3, 60_000))
    names = place(found.model, small.plan(found, "x86-vnni").decisions, RUNTIME).values
    return Statistics(dict.fromkeys(names, value))


@pytest.mark.parametrize("method", list(Method))
def test_scales_follow_from_the_method(method: Method, statistics: Statistics) -> None:
    found = small.fixture("cnn")
    plan = small.plan(found, "x86-vnni")
    recovery = recovered(plan, method=method)
    made = quantize(found.model, plan.decisions, statistics, recovery, RUNTIME)
    initialisers = made.graph.initializers
    (name, *_) = statistics.values
    whole = affine(*limits(statistics, name, Method.MINMAX, RUNTIME.grid), RUNTIME.grid).scale
    own = affine(*limits(statistics, name, method, RUNTIME.grid), RUNTIME.grid).scale
    assert bool(own < 0.9 * whole) == (method is not Method.MINMAX)
    for value in statistics.values:
        scale = initialisers[f"{value}/scale"].const_value
        assert scale is not None
        assert scale.numpy() == own
