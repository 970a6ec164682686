"""Smoothing is exact in float, and spares small channels in INT8."""

import numpy as np
import pytest

from edgec.quantize import smooth
from edgec.quantize.weights import quantize_weight
from edgec.target import load_target

GRID = load_target("x86-vnni").grid


def rounded(x: np.ndarray) -> np.ndarray:
    """x as DynamicQuantizeLinear sees it: 8 bits over its own range, which holds zero."""
    low, high = min(x.min(), 0.0), max(x.max(), 0.0)
    scale = (high - low) / 255
    zero = np.rint(-low / scale)
    return (np.clip(np.rint(x / scale) + zero, 0, 255) - zero) * scale


def product(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    quantized = quantize_weight(weight, 1, GRID)
    return rounded(x) @ (quantized.data * quantized.scale.astype(np.float64))


@pytest.fixture
def outliers() -> tuple[np.ndarray, np.ndarray]:
    """Activations [64, 96] of which two channels are a hundred times the others, as in BERT."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((64, 96))
    x[:, 5] *= 100
    x[:, 60] *= 60
    return x, generator.standard_normal((96, 32)) / 10


def test_exact_in_float(outliers: tuple[np.ndarray, np.ndarray]) -> None:
    x, weight = outliers
    s = smooth.factors(np.abs(x).max(axis=0), [weight]).astype(np.float64)
    np.testing.assert_allclose((x / s) @ (weight * s[:, None]), x @ weight, rtol=1e-9, atol=1e-9)


def test_lowers_the_error_of_int8(outliers: tuple[np.ndarray, np.ndarray]) -> None:
    x, weight = outliers
    s = smooth.factors(np.abs(x).max(axis=0), [weight]).astype(np.float64)
    exact = x @ weight
    plain = np.square(product(x, weight) - exact).sum()
    smoothed = np.square(product(x / s, weight * s[:, None]) - exact).sum()
    assert smoothed < plain / 4


def test_one_vector_serves_all_readers(outliers: tuple[np.ndarray, np.ndarray]) -> None:
    x, weight = outliers
    peak = np.abs(x).max(axis=0)
    both = smooth.factors(peak, [weight, 10 * weight])
    np.testing.assert_allclose(both, smooth.factors(peak, [10 * weight]), rtol=1e-5)


def test_dead_channels_stay_as_they_are() -> None:
    peak = np.array([0.0, 1.0, 4.0, 1.0])
    weight = np.array([[1.0], [0.0], [1.0], [1.0]])
    s = smooth.factors(peak, [weight])
    assert np.isfinite(s).all()
    assert (s > 0).all()
    assert s[2] > s[3]
