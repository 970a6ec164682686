"""What a user should wonder about is said, by the names of values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from observed import NEVER, seen

from edgec.doubts import doubts
from edgec.types import Statistics, ValueStatistics

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
        nan=replace(SOUND, nans=2),
        inf=replace(SOUND, infinities=1),
    )
    assert found == (
        "no sample gave a number for 'never': nothing is known of the range",
        "the same number in all samples: 'same'",
        "NaN, which is left out of the range: 'nan'",
        "infinite numbers, which are left out of the range: 'inf'",
    )


def test_a_value_may_raise_two() -> None:
    assert len(of(a=replace(NEVER, nans=4))) == 2


def test_many_are_counted() -> None:
    (found,) = of(**{f"v{index}": NEVER for index in range(5)})
    assert "'v0', 'v1', 'v2' and 2 more" in found
    (found,) = of(**{f"v{index}": NEVER for index in range(3)})
    assert "more" not in found
