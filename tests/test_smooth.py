"""Smoothing is exact in float, and spares small channels in INT8, dynamic or static."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
import small
from engines import everywhere, recovered, seen

from edgec.placement import place
from edgec.quantize import quantize, smooth
from edgec.quantize.weights import quantize_weight
from edgec.types import Decision, Graph, Plan, Scheme, Statistics

GRID = small.runtime("x86-vnni").grid


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
    s = smooth.factors(x.min(axis=0), x.max(axis=0), [weight], 0.8).astype(np.float64)
    np.testing.assert_allclose((x / s) @ (weight * s[:, None]), x @ weight, rtol=1e-9, atol=1e-9)


def test_lowers_the_error_of_int8(outliers: tuple[np.ndarray, np.ndarray]) -> None:
    x, weight = outliers
    s = smooth.factors(x.min(axis=0), x.max(axis=0), [weight], 0.8).astype(np.float64)
    exact = x @ weight
    plain = np.square(product(x, weight) - exact).sum()
    smoothed = np.square(product(x / s, weight * s[:, None]) - exact).sum()
    assert smoothed < plain / 4


@pytest.mark.parametrize("strength", [0.5, 0.7, 0.9])
def test_the_strength_says_how_much_moves(
    strength: float, outliers: tuple[np.ndarray, np.ndarray]
) -> None:
    """Equation 4 of the paper, up to the common factor, which costs nothing."""
    x, weight = outliers
    s = smooth.factors(x.min(axis=0), x.max(axis=0), [weight], strength).astype(np.float64)
    expected = np.abs(x).max(axis=0) ** strength / np.abs(weight).max(axis=1) ** (1 - strength)
    np.testing.assert_allclose(s / s[0], expected / expected[0], rtol=1e-5)
    assert np.log(s).mean() == pytest.approx(0, abs=1e-6)


def test_one_vector_serves_all_readers(outliers: tuple[np.ndarray, np.ndarray]) -> None:
    x, weight = outliers
    low, high = x.min(axis=0), x.max(axis=0)
    both = smooth.factors(low, high, [weight, 10 * weight], 0.8)
    np.testing.assert_allclose(both, smooth.factors(low, high, [10 * weight], 0.8), rtol=1e-5)


def test_the_larger_extreme_of_a_channel_counts() -> None:
    weight = np.ones((3, 2))
    low, high = np.array([-8.0, -1.0, 0.0]), np.array([2.0, 8.0, 8.0])
    np.testing.assert_allclose(smooth.factors(low, high, [weight], 0.8), np.ones(3), rtol=1e-6)


def test_dead_channels_stay_as_they_are() -> None:
    peak = np.array([0.0, 1.0, 4.0, 1.0])
    weight = np.array([[1.0], [0.0], [1.0], [1.0]])
    s = smooth.factors(-peak / 2, peak, [weight], 0.8)
    assert np.isfinite(s).all()
    assert (s > 0).all()
    assert s[2] > s[3]


# Static INT8 of products, which OpenVINO's table smooths

CHAIN = """g (float[1,10,32] x) => (float[1,10,32] y, float[1,10,32] z) {
  [q] a = MatMul (x, wq)
  [k] b = MatMul (x, wk)
  [soft] p = Softmax (a)
  [mix] m = Mul (p, b)
  [out] y = MatMul (m, wo)
  [last] z = MatMul (b, wk)
}"""
LOUD = np.ones(32, np.float32)
LOUD[[3, 17]] = 60, 25


def chain() -> Graph:
    names = ("wq", "wk", "wo")
    weights = {name: small.normal(i, 32, 32) / 5 for i, name in enumerate(names)}
    return small.canonical(small.model(CHAIN, **weights))


FEEDS = [{"x": small.normal(seed, 1, 10, 32) * LOUD} for seed in range(4)]


def planned(
    found: Graph, feeds: list[dict[str, np.ndarray]], scheme: Scheme = Scheme.INT8_STATIC
) -> tuple[Plan, Statistics]:
    plan = small.plan(found, "x86-vnni", everywhere(scheme), backend="openvino")
    return plan, seen(found, plan, small.runtime("x86-vnni", "openvino"), feeds)


def made(
    found: Graph,
    plan: Plan,
    statistics: Statistics,
    decisions: Mapping[str, Decision] | None = None,
) -> ir.Model:
    runtime = small.runtime("x86-vnni", "openvino")
    return quantize(found.model, decisions or plan.decisions, statistics, recovered(plan), runtime)


def test_the_table_says_which_products_are_smoothed() -> None:
    plan, _ = planned(chain(), FEEDS)
    by_name = plan.decisions
    assert {n for n, d in by_name.items() if d.scheme is Scheme.INT8_STATIC} == {
        "q",
        "k",
        "out",
        "last",
    }
    assert {n for n, d in by_name.items() if d.smooth} == {"q", "k", "out", "last"}
    cnn = small.plan(small.fixture("cnn"), "x86-vnni", backend="openvino")
    assert any(d.scheme is Scheme.INT8_STATIC for d in cnn.decisions.values())
    assert not any(d.smooth for d in cnn.decisions.values())
    floats = small.plan(chain(), "x86-vnni", everywhere(Scheme.FLOAT32), backend="openvino")
    assert not any(d.smooth for d in floats.decisions.values())


def test_only_what_float_ops_make_is_smoothed() -> None:
    found, runtime = chain(), small.runtime("x86-vnni", "openvino")
    plan, _ = planned(found, FEEDS)
    placement = place(found.model, plan.decisions, runtime)
    # b comes from an INT8 product, on that product's grid
    assert placement.extents == {"x", "m"}
    assert placement.values == {"x", "m", "b"}
    other = {**plan.decisions, "k": replace(plan.decisions["k"], smooth=False)}
    # one reader that is not smoothed would read the divided values
    assert place(found.model, other, runtime).extents == {"m"}


def test_compressed_weights_need_no_extremes() -> None:
    wide = CHAIN.replace("32]", "64]")
    names = ("wq", "wk", "wo")
    found = small.canonical(small.model(wide, **{n: small.normal(0, 64, 64) for n in names}))
    feeds = [{"x": small.normal(seed, 1, 10, 64)} for seed in range(2)]
    plan, _ = planned(found, feeds, Scheme.INT8_DYNAMIC)
    assert all(plan.decisions[name].smooth for name in ("q", "k", "out"))
    runtimes = [small.runtime("x86-vnni", name) for name in ("openvino", "onnxruntime")]
    assert place(found.model, plan.decisions, runtimes[0]).extents == frozenset()
    plain = small.plan(found, "x86-vnni", everywhere(Scheme.INT8_DYNAMIC))
    assert place(found.model, plain.decisions, runtimes[1]).extents == {"x", "b", "m"}


def test_a_smoothed_input_is_divided_once_for_all_its_readers() -> None:
    found = chain()
    plan, statistics = planned(found, FEEDS)
    model = made(found, plan, statistics)
    assert [n.name for n in model.graph if n.name and n.name.endswith("/smooth")] == [
        "x/smooth",
        "m/smooth",
    ]
    factors = 1 / model.graph.initializers["x/smoothing"].const_value.numpy()
    known = statistics.values["x"]
    weights = [found.model.graph.initializers[n].const_value.numpy() for n in ("wq", "wk")]
    np.testing.assert_allclose(
        factors, smooth.factors(known.channel_low, known.channel_high, weights, 0.8), rtol=1e-6
    )
    for name, weight in (("q", weights[0]), ("k", weights[1])):
        node = small.node(model, name)
        assert [v.producer().op_type for v in node.inputs] == ["DequantizeLinear"] * 2  # type: ignore[union-attr]
        small8, scale, _ = node.inputs[1].producer().inputs  # type: ignore[union-attr]
        real = small8.const_value.numpy() * scale.const_value.numpy()
        np.testing.assert_allclose(
            real, weight * factors.reshape(-1, 1), atol=0.51 * scale.const_value.numpy().max()
        )


def test_static_smoothing_saves_the_small_channels() -> None:
    found = chain()
    plan, statistics = planned(found, FEEDS)
    rough = {name: replace(one, smooth=False) for name, one in plan.decisions.items()}
    exact = small.run(small.exposed(found.model, ["a"]), FEEDS[0])["a"]
    found_sqnr = {}
    for label, decisions in (("smooth", plan.decisions), ("plain", rough)):
        model = made(found, plan, statistics, decisions)
        found_sqnr[label] = small.sqnr(exact, small.run(small.exposed(model, ["a"]), FEEDS[0])["a"])
    assert found_sqnr["smooth"] > found_sqnr["plain"] + 3


@pytest.mark.parametrize("turned", [0, 1])
def test_the_bias_of_a_smoothed_gemm_is_corrected_by_its_mean(turned: int) -> None:
    weight = small.normal(5, 24, 40) if turned else small.normal(5, 40, 24)
    text = "g (float[n,40] x) => (float[n,24] y) "
    text += f"{{ [gemm] y = Gemm <transB = {turned}> (x, w, b) }}"
    found = small.canonical(small.model(text, w=weight, b=small.normal(6, 24)))
    spread = np.geomspace(1, 40, 40).astype(np.float32)
    feeds = [{"x": (small.normal(seed, 64, 40) + 3) * spread} for seed in range(6)]
    plan, statistics = planned(found, feeds)
    assert plan.decisions["gemm"].smooth
    known = statistics.values["x"]
    assert known.channel_low is not None
    assert known.channel_mean is not None
    without = replace(statistics, values={"x": replace(known, channel_mean=None)})
    shift = {}
    for label, one in (("with", statistics), ("without", without)):
        model = made(found, plan, one)
        assert "x/smooth" in [node.name for node in model.graph]
        errors = [
            small.run(model, f)["y"].astype(np.float64) - small.run(found.model, f)["y"]
            for f in feeds
        ]
        shift[label] = np.abs(np.mean(errors, axis=(0, 1))).max()
    assert shift["with"] < 0.35 * shift["without"]
