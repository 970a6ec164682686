"""Rounding by second moments: the paper's loop, the best there is, and never above the nearest."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.errors import InternalError
from edgec.recover import gptq
from edgec.recover.gptq import DAMPING, laid_out, rounded

Array = np.ndarray
SEEDS = st.integers(0, 2**32 - 1)


def moments(seed: int, inputs: int, rows: int = 0, mixed: float = 1.0) -> Array:
    """Of correlated inputs; singular where there are fewer rows than inputs."""
    rng = np.random.default_rng(seed)
    mix = np.eye(inputs) + mixed * rng.normal(size=(inputs, inputs))
    x = (rng.normal(size=(rows or 3 * inputs, inputs)) + rng.normal(size=inputs)) @ mix
    return np.asarray(x.T @ x / len(x))


def weights(seed: int, *shape: int, most: int = 127) -> tuple[Array, Array]:
    weight = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return weight, (np.abs(weight).max(axis=-1) / most).astype(np.float32)


def nearest(weight: Array, scale: Array, most: int) -> Array:
    return np.clip(np.rint(weight / scale[..., None]), -most, most).astype(np.int8)


def cost(integers: Array, weight: Array, scale: Array, moment: Array) -> Array:
    """e^T H e of each row."""
    error = integers.astype(np.float64) * scale[..., None] - weight
    return np.asarray(np.einsum("...nk,...kl,...nl->...n", error, moment, error))


def eliminated(weight: Array, scale: Array, most: int, moment: Array) -> Array:
    """The paper's steps, literally: round an input, let the rest make up for it by the inverse of
    H, and eliminate the input from the inverse. Strongest inputs first.
    """
    size = len(moment)
    inverse = np.linalg.inv(moment + DAMPING[0] * np.trace(moment) / size * np.eye(size))
    left = weight.astype(np.float64) / scale[:, None]
    found = np.zeros(weight.shape)
    for i in np.argsort(-np.diagonal(moment), kind="stable"):
        found[:, i] = np.clip(np.rint(left[:, i]), -most, most)
        left -= np.outer((left[:, i] - found[:, i]) / inverse[i, i], inverse[i])
        inverse = inverse - np.outer(inverse[:, i], inverse[i]) / inverse[i, i]
        inverse[i, i] = 1.0  # it is gone, and so is its row
    return found.astype(np.int8)


@given(SEEDS, st.integers(1, 24), st.integers(1, 6), st.sampled_from([7, 63, 127]))
def test_it_is_the_loop_of_the_paper(seed: int, inputs: int, outputs: int, most: int) -> None:
    weight, scale = weights(seed, outputs, inputs, most=most)
    moment = moments(seed, inputs)
    expected = eliminated(weight, scale, most, moment)
    plain = nearest(weight, scale, most)
    better = cost(expected, weight, scale, moment) < cost(plain, weight, scale, moment)
    expected = np.where(better[:, None], expected, plain)
    np.testing.assert_array_equal(rounded(weight, scale, most, moment), expected)


def test_blocks_change_nothing() -> None:
    weight, scale = weights(3, 8, 200)
    moment = moments(3, 200, mixed=0.2)
    expected = eliminated(weight, scale, 127, moment)
    found = rounded(weight, scale, 127, moment)
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=30)
@given(SEEDS, st.integers(1, 4))
def test_between_the_best_there_is_and_the_nearest(seed: int, inputs: int) -> None:
    weight, scale = weights(seed, 2, inputs, most=3)
    moment = moments(seed, inputs)
    every = np.array(list(itertools.product(range(-3, 4), repeat=inputs)))
    best = np.array(
        [
            cost(every, row, size[None], moment).min()
            for row, size in zip(weight, scale, strict=True)
        ]
    )
    found = cost(rounded(weight, scale, 3, moment), weight, scale, moment)
    plain = cost(nearest(weight, scale, 3), weight, scale, moment)
    slack = 1e-9 * plain + 1e-12
    assert (best - slack <= found).all()
    assert (found <= plain + slack).all()


@given(SEEDS, st.integers(1, 40), st.integers(0, 60), st.booleans(), st.sampled_from([7, 63, 127]))
def test_never_above_the_nearest(seed: int, inputs: int, rows: int, one: bool, most: int) -> None:
    weight, scale = weights(seed, 5, inputs, most=most)
    if one:  # a scale for all, and small: many are clipped
        scale = scale.min().reshape(())
    moment = moments(seed, inputs, rows)
    found = rounded(weight, scale, most, moment)
    assert found.dtype == np.int8
    assert np.abs(found.astype(int)).max() <= most
    scales = np.broadcast_to(scale, 5)
    plain = cost(nearest(weight, scales, most), weight, scales, moment)
    assert (cost(found, weight, scales, moment) <= plain * (1 + 1e-9) + 1e-12).all()


def test_products_in_float32_do_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, scale = weights(0, 6, 150)
    moment = moments(0, 150, 60, mixed=0.2)
    exact = cost(rounded(weight, scale, 127, moment), weight, scale, moment)
    monkeypatch.setattr(gptq, "PRECISE", 149)
    found = cost(rounded(weight, scale, 127, moment), weight, scale, moment)
    plain = cost(nearest(weight, scale, 127), weight, scale, moment)
    assert (found < 0.5 * plain).all()
    assert found.sum() < 1.05 * exact.sum()


def test_correlated_inputs_gain_and_independent_ones_do_not() -> None:
    weight, scale = weights(1, 16, 48)
    moment = moments(1, 48)
    gain = cost(nearest(weight, scale, 127), weight, scale, moment).sum()
    gain /= cost(rounded(weight, scale, 127, moment), weight, scale, moment).sum()
    assert gain > 2
    alone = np.diag(np.random.default_rng(1).uniform(0.1, 10, 48))
    np.testing.assert_array_equal(rounded(weight, scale, 127, alone), nearest(weight, scale, 127))


def test_an_input_that_was_never_seen_goes_to_the_nearest() -> None:
    weight, scale = weights(2, 8, 20)
    moment = moments(2, 20)
    dead = [0, 7, 19]
    moment[dead], moment[:, dead] = 0, 0
    found, plain = rounded(weight, scale, 127, moment), nearest(weight, scale, 127)
    np.testing.assert_array_equal(found[:, dead], plain[:, dead])
    assert (found != plain).any()


@pytest.mark.parametrize("bad", ["nan", "inf", "zero", "negative", "indefinite"])
def test_useless_moments_mean_nearest(bad: str) -> None:
    weight, scale = weights(4, 6, 12)
    moment = {
        "nan": np.where(np.eye(12) > 0, np.nan, 1.0),
        "inf": np.full((12, 12), np.inf),
        "zero": np.zeros((12, 12)),
        "negative": -np.eye(12),
        "indefinite": np.eye(12) + 50 * (np.eye(12) - np.ones((12, 12))),
    }[bad]
    plain = nearest(weight, scale, 127)
    np.testing.assert_array_equal(rounded(weight, scale, 127, moment), plain)
    # and it spoils no other group
    both = np.stack([moment, moments(4, 12)])
    found = rounded(np.stack([weight] * 2), np.stack([scale] * 2), 127, both)
    np.testing.assert_array_equal(found[0], plain)
    np.testing.assert_array_equal(found[1], rounded(weight, scale, 127, both[1]))
    assert (found[1] != plain).any()


def test_moments_a_little_below_zero_are_damped_until_they_factor() -> None:
    weight, scale = weights(5, 6, 12)
    moment = moments(5, 12)
    values, vectors = np.linalg.eigh(moment)
    values[0] = -0.05 * values.mean()
    found = rounded(weight, scale, 127, vectors * values @ vectors.T)
    assert (found != nearest(weight, scale, 127)).any()
    assert (
        cost(found, weight, scale, moment).sum()
        < cost(nearest(weight, scale, 127), weight, scale, moment).sum()
    )


def test_groups_are_rounded_each_by_its_own_moments() -> None:
    weight, scale = weights(6, 3, 4, 9)
    every = np.stack([moments(seed, 9) for seed in range(3)])
    found = rounded(weight, scale, 127, every)
    for one in range(3):
        np.testing.assert_array_equal(found[one], rounded(weight[one], scale[one], 127, every[one]))


@pytest.mark.parametrize(
    ("groups", "shape"), [(1, (8, 3, 3, 2)), (4, (8, 3, 5)), (8, (8, 1, 3, 3))]
)
def test_the_layout_of_a_convolution(groups: int, shape: tuple[int, ...]) -> None:
    weight = np.random.default_rng(7).normal(size=shape).astype(np.float32)
    flat = weight.reshape(8, -1)
    scale = (np.abs(flat).max(axis=1) / 127).astype(np.float32)
    every = np.stack([moments(seed, flat.shape[1]) for seed in range(groups)])
    found = laid_out(weight, 0, scale, 127, every)
    assert found.shape == shape
    for channel in range(8):
        expected = rounded(
            flat[channel : channel + 1],
            scale[channel : channel + 1],
            127,
            every[channel // (8 // groups)],
        )
        np.testing.assert_array_equal(found[channel].ravel(), expected[0])


@pytest.mark.parametrize("per_channel", [True, False])
def test_the_layouts_of_a_product(per_channel: bool) -> None:
    weight, scale = weights(8, 6, 10)
    scale = scale if per_channel else scale.max()
    moment = moments(8, 10)
    expected = rounded(weight, scale, 127, moment)
    np.testing.assert_array_equal(laid_out(weight, 0, scale, 127, moment[None]), expected)
    turned = laid_out(np.ascontiguousarray(weight.T), 1, scale, 127, moment[None])
    np.testing.assert_array_equal(turned, expected.T)
    assert turned.flags.c_contiguous


def test_moments_of_another_size_are_our_defect() -> None:
    weight, scale = weights(9, 4, 6)
    with pytest.raises(InternalError, match="has moments"):
        rounded(weight, scale, 127, np.eye(5))


def test_nothing_to_round() -> None:
    empty = np.zeros((0, 3), np.float32)
    assert rounded(empty, np.zeros(0, np.float32), 127, np.eye(3)).shape == (0, 3)
