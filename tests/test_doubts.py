"""What a user should wonder about is said, by the names of values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from observed import ASYMMETRIC, NEVER, SYMMETRIC, seen

from edgec.doubts import doubts
from edgec.quantize.static import affine
from edgec.types import Grid, Statistics, ValueStatistics

SOUND = seen(np.array([-1.0, 2.0]))


def of(**values: ValueStatistics) -> tuple[str, ...]:
    return doubts(Statistics(values))


def test_sound_values_raise_none() -> None:
    assert of(a=SOUND, b=seen(np.array([0.0, 1e-30]))) == ()
    assert of(only_means=ValueStatistics(channel_mean=np.ones(2))) == ()


def test_each_kind_names_its_values() -> None:
    found = of(
        a=SOUND,
        never=NEVER,
        same=seen(np.array([3.0]), np.array([3.0])),
        zero=seen(np.zeros(3)),
        tiny=seen(np.array([-1e-39, 1e-39])),
        nan=replace(SOUND, nans=2),
        inf=replace(SOUND, infinities=1),
    )
    assert found == (
        "no sample gave a number for 'never': nothing is known of the range",
        "zero or too near to it for a scale, which is 1 instead: 'tiny', 'zero'",
        "the same number in all samples: 'same'",
        "NaN, which is left out of the range: 'nan'",
        "infinite numbers, which are left out of the range: 'inf'",
    )


@pytest.mark.parametrize("grid", [ASYMMETRIC, SYMMETRIC])
@pytest.mark.parametrize("exponent", range(-45, -30))
def test_a_scale_that_is_made_up_is_told(exponent: int, grid: Grid) -> None:
    value = seen(np.array([-(10.0**exponent), 0.0]))
    if affine(value.low, value.high, grid).scale == 1:
        assert "for a scale" in of(x=value)[0]
    else:
        assert of(x=value) == ()


def test_a_value_may_raise_two() -> None:
    assert len(of(a=replace(NEVER, nans=4))) == 2


def test_many_are_counted() -> None:
    (found,) = of(**{f"v{index}": NEVER for index in range(5)})
    assert "'v0', 'v1', 'v2' and 2 more" in found
    (found,) = of(**{f"v{index}": NEVER for index in range(3)})
    assert "more" not in found
