"""Numbers in INT8: the arithmetic against naive loops, and where Q/DQ stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import graphs
import numpy as np
import onnx_ir as ir
import pytest
import small
from engines import everywhere, recovered, seen
from hypothesis import given
from hypothesis import strategies as st

from edgec.graphs import weight
from edgec.quantize import quantize
from edgec.quantize.static import BIAS_LIMIT, affine
from edgec.quantize.weights import channel_axis, correction, quantize_weight, under_taps
from edgec.types import Graph, Grid, Method, Plan, Scheme, Statistics

U8, S8 = small.runtime("x86-vnni").grid, small.runtime("aarch64-dotprod").grid
U7 = small.runtime("x86-avx2").grid
SYMMETRIC = {
    "uint8": replace(U8, symmetric_activations=True),
    "int8": replace(S8, symmetric_activations=True),
}


# affine


@given(
    low=st.floats(-1e6, 1e6),
    span=st.floats(0, 1e6),
    grid=st.sampled_from([U8, S8, *SYMMETRIC.values()]),
)
def test_a_grid_covers_its_range_and_holds_zero_exactly(
    low: float, span: float, grid: Grid
) -> None:
    found = affine(low, low + span, grid)
    kind = np.iinfo(grid.activations)
    scale, zero = float(found.scale), int(found.zero_point)
    assert found.scale.dtype == np.float32
    assert found.zero_point.dtype == np.dtype(grid.activations)
    assert scale > 0
    assert kind.min <= zero <= kind.max
    first, last = (kind.min - zero) * scale, (kind.max - zero) * scale
    slack = 0.51 * scale + 1e-6 * max(abs(low), abs(low + span))
    assert first <= min(low, 0) + slack
    assert last >= max(low + span, 0) - slack


@pytest.mark.parametrize(
    ("low", "high", "grid", "scale", "zero"),
    [
        (0, 6, U8, 6 / 255, 0),
        (0, 6, S8, 6 / 255, -128),
        (-6, 0, U8, 6 / 255, 255),
        (-1, 2, U8, 3 / 255, 85),
        (-1, 2, S8, 3 / 255, -43),
        (2, 3, U8, 3 / 255, 0),
        (-3, -2, U8, 3 / 255, 255),
        (-1, 2, SYMMETRIC["uint8"], 2 / 127, 128),
        (-1, 2, SYMMETRIC["int8"], 2 / 127, 0),
        (-5, 2, SYMMETRIC["int8"], 5 / 127, 0),
        (0, 0, U8, 1, 0),
        (0, 1e-45, U8, 1, 0),
    ],
)
def test_known_grids(low: float, high: float, grid: Grid, scale: float, zero: int) -> None:
    found = affine(low, high, grid)
    assert float(found.scale) == pytest.approx(scale, rel=1e-6)
    assert int(found.zero_point) == zero


# weights


@pytest.mark.parametrize("grid", [U8, U7, replace(U8, per_channel=False)])
@pytest.mark.parametrize("axis", [0, 1])
def test_rounding_equals_a_naive_loop(grid: Grid, axis: int) -> None:
    weight = small.normal(0, 5, 4, 3, 2)
    weight[1] = 0  # a channel without weights
    found = quantize_weight(weight, axis, grid)
    most = 63 if grid.reduce_range else 127
    expected = np.zeros(weight.shape, np.int8)
    for index in np.ndindex(*weight.shape):
        channel = weight.take(index[axis], axis) if grid.per_channel else weight
        extent = max(abs(float(x)) for x in channel.ravel())
        scale = np.float32(extent / most) if extent else np.float32(1)
        expected[index] = max(-most, min(most, round(float(weight[index] / scale))))
    np.testing.assert_array_equal(found.data, expected)
    assert found.scale.shape == ((weight.shape[axis],) if grid.per_channel else ())
    assert found.scale.dtype == np.float32
    assert found.axis == axis
    assert int(np.abs(found.data.astype(int)).max()) == most


def test_the_error_is_what_was_added() -> None:
    weight = small.normal(0, 6, 4)
    found = quantize_weight(weight, 1, U8)
    np.testing.assert_allclose(found.error(weight), found.data * found.scale - weight, atol=1e-7)
    assert np.abs(found.error(weight)).max() <= 0.5 * found.scale.max() * (1 + 1e-5)


@given(st.integers(0, 1000))
def test_seven_bits_stay_within_63(seed: int) -> None:
    found = quantize_weight(small.normal(seed, 4, 8) * 10.0 ** (seed % 9 - 4), 0, U7)
    assert np.abs(found.data.astype(int)).max() <= 63


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_weight_that_is_not_finite(number: float) -> None:
    weight = small.normal(0, 4, 4)
    weight[0, 0] = number
    with np.errstate(invalid="raise"), pytest.raises((FloatingPointError, ValueError)):
        quantize_weight(weight, 0, U8)


@pytest.mark.parametrize(
    ("op", "shape", "attributes", "axis"),
    [
        ("Conv", "float[8,4,3,3]", "", 0),
        ("ConvTranspose", "float[4,8,3,3]", "", 1),
        ("MatMul", "float[4,8]", "", 1),
        ("Gemm", "float[4,8]", "", 1),
        ("Gemm", "float[8,4]", "<transB = 1>", 0),
        ("Gemm", "float[4,8]", "<transB = 0>", 1),
    ],
)
def test_the_axis_of_output_channels(op: str, shape: str, attributes: str, axis: int) -> None:
    made = small.model(
        f"g (float[n] x, {shape} w) => (float[m] y) {{ y = {op} {attributes} (x, w) }}"
    )
    assert channel_axis(made.graph[0]) == axis


# whole graphs


def quantized(
    found: Graph,
    feeds: list[Mapping[str, np.ndarray]],
    target: str = "x86-vnni",
    scheme: Scheme | None = None,
    statistics: Statistics | None = None,
    backend: str = "onnxruntime",
) -> tuple[Graph, Plan, ir.Model]:
    runtime = small.runtime(target, backend)
    policy = None if scheme is None else everywhere(scheme)
    plan = small.plan(found, target, policy, backend=backend)
    statistics = seen(found, plan, runtime, feeds) if statistics is None else statistics
    return found, plan, quantize(found.model, plan.decisions, statistics, recovered(plan), runtime)


BLOCK = """g (float[1,16,12,12] x) => (float[1,16,12,12] y) {
  [one] c = Conv <pads = [1,1,1,1]> (x, w1, b1)
  [clip] r = Clip (c, low, high)
  [two] d = Conv <pads = [1,1,1,1], group = 4> (r, w2, b2)
  [act] e = Relu (d)
  [sum] a = Add (r, e)
  [three] y = Conv <pads = [1,1,1,1]> (a, w1, b2)
}"""


def block(**changed: np.ndarray) -> Graph:
    weights = {
        "w1": small.normal(0, 16, 16, 3, 3) / 12,
        "b1": small.normal(1, 16),
        "w2": small.normal(2, 16, 4, 3, 3) / 6,
        "b2": small.normal(3, 16),
        "low": np.float32(0),
        "high": np.float32(6),
    }
    return small.canonical(small.model(BLOCK, **{**weights, **changed}))


FEEDS = [{"x": small.normal(seed, 1, 16, 12, 12) + 0.3} for seed in range(8)]


def producer(model: ir.Model, name: str) -> ir.Node:
    return next(n for n in model.graph if any(v.name == name for v in n.outputs))


@pytest.mark.parametrize("target", ["x86-vnni", "x86-avx2", "aarch64-dotprod"])
def test_a_static_block_computes_nearly_the_same(target: str) -> None:
    found, _, made = quantized(block(), FEEDS, target)
    for feeds in FEEDS[:2]:
        before = small.run(found.model, feeds)["y"]
        after = small.run(made, feeds)["y"]
        # avx2's seven bits cost six decibel
        assert small.sqnr(before, after) > (20 if target == "x86-avx2" else 26)


def test_qdq_stand_behind_the_fused_activation() -> None:
    _, _, made = quantized(block(), FEEDS)
    assert "Clip" not in small.ops(made)
    assert "Relu" not in small.ops(made)
    for name in ("one", "two"):
        uses = list(small.node(made, name).outputs[0].uses())
        assert [use.node.op_type for use in uses] == ["QuantizeLinear"]


@pytest.mark.parametrize("name", ["cnn", "siamese", "clip_torchscript", "convtranspose", "cnn_tf"])
def test_never_between_a_convolution_and_its_activation(name: str) -> None:
    found = small.fixture(name)
    _, _, made = quantized(found, [graphs.load_feeds(name, s) for s in range(2)])
    pairs = 0
    for node in made.graph:
        for use in node.outputs[0].uses() if node.op_type == "Conv" else ():
            if use.node.op_type == "QuantizeLinear":
                pairs += 1
                (back,) = [one.node for one in use.node.outputs[0].uses()]
                readers = {one.node.op_type for one in back.outputs[0].uses()}
                assert not readers & {"Relu", "Clip"}, node.name
    assert pairs


def test_the_range_of_an_absorbed_clip_is_that_of_its_output() -> None:
    found, _, made = quantized(block(), FEEDS)
    scale = made.graph.initializers["r/scale"].const_value.numpy()
    zero = made.graph.initializers["r/zero_point"].const_value.numpy()
    runs = [small.run(small.exposed(found.model, ["r"]), feeds)["r"] for feeds in FEEDS]
    highest = max(float(a.max()) for a in runs)
    assert highest <= 6
    assert float(scale) == pytest.approx(highest / 255, rel=1e-5)
    assert int(zero) == 0


def test_a_residual_addition_has_both_inputs_quantized() -> None:
    _, _, made = quantized(block(), FEEDS)
    add = small.node(made, "sum")
    assert [v.producer().op_type for v in add.inputs] == ["DequantizeLinear"] * 2  # type: ignore[union-attr]
    assert [use.node.op_type for use in add.outputs[0].uses()] == ["QuantizeLinear"]


def test_an_int8_value_reaches_every_consumer_through_one_pair() -> None:
    _, _, made = quantized(block(), FEEDS)
    (pair,) = [n for n in made.graph if n.op_type == "QuantizeLinear" and n.name == "r/quantize"]
    readers = list(producer(made, "r").outputs[0].uses())
    assert {use.node.name for use in readers} == {"two", "sum"}
    assert pair.outputs[0].uses()[0].node.op_type == "DequantizeLinear"


def test_biases_are_int32_at_the_scale_of_their_products() -> None:
    _, _, made = quantized(block(), FEEDS)
    for name, source in (("one", "x"), ("two", "r"), ("three", "a")):
        node = small.node(made, name)
        kernel, bias = node.inputs[1].producer(), node.inputs[2].producer()  # type: ignore[union-attr]
        assert kernel is not None
        assert bias is not None
        step = made.graph.initializers[f"{source}/scale"].const_value.numpy()
        w_scale = kernel.inputs[1].const_value.numpy()  # type: ignore[union-attr]
        b_scale = bias.inputs[1].const_value.numpy()  # type: ignore[union-attr]
        assert bias.inputs[0].const_value.dtype == ir.DataType.INT32  # type: ignore[union-attr]
        assert kernel.inputs[0].const_value.dtype == ir.DataType.INT8  # type: ignore[union-attr]
        np.testing.assert_allclose(b_scale, w_scale.astype(np.float64) * step, rtol=1e-6)
        assert kernel.attributes["axis"].as_int() == 0


@pytest.mark.parametrize("size", [1e-3, 1e-9, 1e-20, 1e-37])
def test_a_bias_never_overflows(size: float) -> None:
    weights = small.normal(0, 16, 16, 3, 3).astype(np.float64)
    weights[3] = 0
    found = block(w1=(weights * size).astype(np.float32), b1=small.normal(1, 16) * 1e4)
    _, _, made = quantized(found, FEEDS)
    node = small.node(made, "one")
    bias = node.inputs[2].producer()  # type: ignore[union-attr]
    integers = bias.inputs[0].const_value.numpy().astype(np.int64)  # type: ignore[union-attr]
    scale = bias.inputs[1].const_value.numpy().astype(np.float64)  # type: ignore[union-attr]
    assert np.abs(integers).max() <= BIAS_LIMIT * (1 + 1e-6)  # a scale has 24 bits
    np.testing.assert_allclose(integers * scale, small.normal(1, 16) * 1e4, rtol=1e-3, atol=1e-2)
    after = small.run(made, FEEDS[0])["y"]
    assert np.isfinite(after).all()
    assert small.sqnr(small.run(found.model, FEEDS[0])["y"], after) > 15


def test_values_keep_their_names_and_parts_meet_in_float() -> None:
    name = "trimodal_cross"
    found = small.fixture(name)
    feeds = [graphs.load_feeds(name, s) for s in range(2)]
    _, plan, made = quantized(found, feeds)
    values = ir.convenience.create_value_mapping(made.graph, include_subgraphs=False)
    before = {str(v.name) for v in found.model.graph.outputs}
    assert {str(v.name) for v in made.graph.outputs} == before
    boundary = sorted({v for part in plan.parts for v in part.outputs})
    assert set(boundary) <= set(values)
    exact = small.run(small.exposed(found.model, boundary), feeds[0])
    close = small.run(small.exposed(made, boundary), feeds[0])
    for value in boundary:
        assert close[value].dtype == exact[value].dtype
        assert close[value].shape == exact[value].shape
        assert small.sqnr(exact[value], close[value]) > 8, value


def test_every_canonical_value_that_is_left_means_what_it_meant() -> None:
    found, _, made = quantized(block(), FEEDS)
    names = [str(v.name) for n in found.model.graph for v in n.outputs]
    values = ir.convenience.create_value_mapping(made.graph, include_subgraphs=False)
    left = [name for name in names if name in values]
    assert {"r", "e", "a", "y"} <= set(left)
    exact = small.run(small.exposed(found.model, left), FEEDS[0])
    close = small.run(small.exposed(made, left), FEEDS[0])
    for name in left:
        assert small.sqnr(exact[name], close[name]) > 20, name


def test_the_float_model_is_not_changed() -> None:
    found = block()
    before = ir.to_proto(found.model).SerializeToString()
    quantized(found, FEEDS)
    assert ir.to_proto(found.model).SerializeToString() == before


def test_shared_weights_are_stored_once() -> None:
    name = "siamese"
    found = small.fixture(name)
    _, _, made = quantized(found, [graphs.load_feeds(name, 0)])
    weights = {
        found.name
        for node in small.fixture(name).model.graph
        if (found := weight(node)) is not None and node.op_type in ("Conv", "Gemm")
    }
    stored = [v for v in made.graph.initializers if v.endswith("/int8")]
    assert len(weights) < small.ops(small.fixture(name).model).count("Conv") + 3
    assert 0 < len(stored) <= len(weights)
    one = made.graph.initializers["left.project.weight/int8"]
    readers = [use.node.outputs[0].uses() for use in one.uses()]
    assert sum(len(list(uses)) for uses in readers) == 2


# bias correction


def conv_model(group: int, bias: bool) -> Graph:
    more = ", b" if bias else ""
    weights = {"w": small.normal(5, 16, 16 // group, 3, 3)}
    if bias:
        weights["b"] = small.normal(6, 16)
    return small.canonical(
        small.model(
            f"g (float[1,16,9,9] x) => (float[1,16,7,7] y) "
            f"{{ [conv] y = Conv <group = {group}> (x, w{more}) }}",
            **weights,
        )
    )


@pytest.mark.parametrize("group", [1, 4, 16])
def test_the_correction_is_the_mean_shift_of_a_convolution(group: int) -> None:
    found = conv_model(group, bias=False)
    node = small.node(found.model, "conv")
    weight = node.inputs[1].const_value.numpy()  # type: ignore[union-attr]
    coarse = quantize_weight(weight, 0, U7)
    x = np.abs(np.random.default_rng(0).normal(1, 1, (1, 16, 9, 9))).astype(np.float32)
    x += np.arange(16, dtype=np.float32).reshape(1, 16, 1, 1) / 4
    x = np.broadcast_to(x.mean(axis=(2, 3), keepdims=True), x.shape) + 0.01 * small.normal(
        1, *x.shape
    )
    rounded = found.model.clone()
    rounded.graph.initializers["w"].const_value = ir.tensor(
        (coarse.data * coarse.scale.reshape(-1, 1, 1, 1)).astype(np.float32), name="w"
    )
    exact, off = small.run(found.model, {"x": x})["y"], small.run(rounded, {"x": x})["y"]
    shift = (off.astype(np.float64) - exact).mean(axis=(0, 2, 3))
    mean = under_taps(node, x.mean(axis=(0, 2, 3)), weight[0].size)
    analytic = correction(node, coarse.error(weight), mean)
    assert np.abs(shift).max() > 1e-3
    np.testing.assert_allclose(analytic, shift, atol=0.02 * np.abs(shift).max())


@pytest.mark.parametrize("turned", [0, 1])
def test_the_correction_is_the_mean_shift_of_a_product(turned: int) -> None:
    weight = small.normal(5, 24, 40) if turned else small.normal(5, 40, 24)
    found = small.canonical(
        small.model(
            "g (float[n,40] x) => (float[n,24] y) "
            f"{{ [gemm] y = Gemm <transB = {turned}> (x, w) }}",
            w=weight,
        )
    )
    node = small.node(found.model, "gemm")
    coarse = quantize_weight(weight, channel_axis(node), U7)
    x = np.random.default_rng(0).normal(1, 1, (500, 40))
    error = coarse.error(weight).astype(np.float64)
    shift = (x @ (error.T if turned else error)).mean(axis=0)
    np.testing.assert_allclose(correction(node, error, x.mean(axis=0)[None]), shift, atol=1e-9)


@pytest.mark.parametrize("group", [1, 4, 16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("scheme", [Scheme.INT8_STATIC, Scheme.INT8_WEIGHT_ONLY])
def test_correction_removes_the_mean_error(group: int, bias: bool, scheme: Scheme) -> None:
    found = conv_model(group, bias)
    feeds = [{"x": small.normal(seed, 1, 16, 9, 9) + 2} for seed in range(12)]
    row = small.runtime("x86-avx2")  # seven bits: a larger error
    plan = small.plan(found, "x86-avx2", everywhere(scheme))
    assert plan.decisions["conv"].scheme is scheme
    statistics = seen(found, plan, row, feeds)
    without = Statistics({k: replace(v, channel_mean=None) for k, v in statistics.values.items()})
    mean_error = {}
    for label, known in (("with", statistics), ("without", without)):
        _, _, made = quantized(found, feeds, "x86-avx2", scheme, known)
        errors = [
            small.run(made, one)["y"].astype(np.float64) - small.run(found.model, one)["y"]
            for one in feeds
        ]
        mean_error[label] = np.abs(np.mean(errors, axis=0).mean(axis=(0, 2, 3))).max()
    assert mean_error["with"] < 0.35 * mean_error["without"]


def test_a_computed_bias_is_not_lost() -> None:
    made = small.model(
        "g (float[1,16,9,9] x, float[16] b) => (float[1,16,7,7] y) { [conv] y = Conv (x, w, b) }",
        w=small.normal(5, 16, 16, 3, 3),
    )
    found = small.canonical(made)
    feeds = [{"x": small.normal(0, 1, 16, 9, 9), "b": 50 * small.normal(1, 16)}]
    for scheme in (Scheme.INT8_STATIC, Scheme.INT8_WEIGHT_ONLY):
        _, _, result = quantized(found, feeds, scheme=scheme)
        assert (
            small.sqnr(small.run(found.model, feeds[0])["y"], small.run(result, feeds[0])["y"]) > 30
        )


def test_a_scaled_product_is_corrected_rightly_or_not_at_all() -> None:
    made = small.model(
        "g (float[n,40] x) => (float[n,24] y) "
        "{ [gemm] y = Gemm <alpha = 0.1, beta = 3.0> (x, w, b) }",
        w=small.normal(5, 40, 24),
        b=small.normal(6, 24),
    )
    found = small.canonical(made)
    feeds = [{"x": small.normal(s, 50, 40) + 3} for s in range(4)]
    _, plan, result = quantized(found, feeds, scheme=Scheme.INT8_WEIGHT_ONLY)
    assert plan.decisions["gemm"].scheme is Scheme.INT8_WEIGHT_ONLY
    assert small.sqnr(small.run(found.model, feeds[0])["y"], small.run(result, feeds[0])["y"]) > 35


# dynamic

ATTENTION = """g (float[1,10,32] x) => (float[1,10,32] y) {
  [q] a = MatMul (x, wq)
  [k] b = MatMul (x, wk)
  [v] c = MatMul (x, wv)
  [turn] bt = Transpose <perm = [0,2,1]> (b)
  [scores] s = MatMul (a, bt)
  [soft] p = Softmax (s)
  [mix] o = MatMul (p, c)
  [out] y = MatMul (o, wo)
}"""


def attention() -> Graph:
    return small.canonical(
        small.model(
            ATTENTION,
            **{
                name: small.normal(i, 32, 32) / 5 for i, name in enumerate(("wq", "wk", "wv", "wo"))
            },
        )
    )


def test_queries_keys_and_values_share_one_quantization() -> None:
    feeds = [{"x": small.normal(s, 1, 10, 32)} for s in range(3)]
    found, _, made = quantized(attention(), feeds)
    assert small.ops(made).count("DynamicQuantizeLinear") == 2
    assert small.ops(made).count("MatMulInteger") == 4
    inputs = [n.inputs[0] for n in made.graph if n.op_type == "MatMulInteger"]
    assert len({id(v) for v in inputs[:3]}) == 1
    before, after = small.run(found.model, feeds[0])["y"], small.run(made, feeds[0])["y"]
    assert small.sqnr(before, after) > 25


def test_dynamic_without_statistics_needs_no_data() -> None:
    found = attention()
    empty = Statistics()
    feeds = {"x": small.normal(0, 1, 10, 32)}
    _, _, made = quantized(found, [], statistics=empty)
    assert small.ops(made).count("MatMulInteger") == 4
    assert small.sqnr(small.run(found.model, feeds)["y"], small.run(made, feeds)["y"]) > 25


def test_dynamic_gemm_with_bias_and_a_turned_weight() -> None:
    made = small.model(
        "g (float[n,40] x) => (float[n,24] y) { [gemm] y = Gemm <transB = 1> (x, w, b) }",
        w=small.normal(5, 24, 40),
        b=small.normal(6, 24) * 10,
    )
    found = small.canonical(made)
    feeds = [{"x": small.normal(s, 7, 40)} for s in range(3)]
    _, _, result = quantized(found, feeds, scheme=Scheme.INT8_DYNAMIC)
    assert small.ops(result).count("MatMulInteger") == 1
    assert small.sqnr(small.run(found.model, feeds[0])["y"], small.run(result, feeds[0])["y"]) > 30


def test_smoothing_saves_the_small_channels() -> None:
    spread = np.ones(32, np.float32)
    spread[3] = 60
    feeds = [{"x": small.normal(s, 1, 10, 32) * spread} for s in range(4)]
    found = attention()
    plain = Statistics()
    outputs = {}
    for label, statistics in (("smooth", None), ("plain", plain)):
        _, _, made = quantized(found, feeds, statistics=statistics)
        exposed = small.exposed(made, ["a"])
        exact = small.run(small.exposed(found.model, ["a"]), feeds[0])["a"]
        outputs[label] = small.sqnr(exact, small.run(exposed, feeds[0])["a"])
    assert outputs["smooth"] > outputs["plain"] + 3


@pytest.mark.parametrize("by_value", [False, True])
def test_a_method_clips_what_is_smoothed_too(by_value: bool) -> None:
    """The mean of the samples' extremes: an outlier of one sample widens the grid less."""
    feeds = [{"x": small.normal(s, 1, 10, 32)} for s in range(4)]
    feeds[0]["x"][0, 0, 3] = 40
    found, runtime = attention(), small.runtime("x86-vnni")
    plan = small.plan(found, "x86-vnni", everywhere(Scheme.INT8_STATIC))
    statistics = seen(found, plan, runtime, feeds)
    steps = {}
    for method in (Method.MINMAX, Method.MOVING_AVERAGE):
        chosen = {"values": {"x": method}} if by_value else {"method": method}
        recovery = recovered(plan, smoothing=0.8, **chosen)
        made = quantize(found.model, plan.decisions, statistics, recovery, runtime)
        first = next(node for node in made.graph if node.op_type == "QuantizeLinear")
        steps[method] = float(first.inputs[1].const_value.numpy())  # type: ignore[union-attr]
        assert first.inputs[0] is not found.model.graph.inputs[0]  # but what it is divided to
    assert steps[Method.MOVING_AVERAGE] < 0.9 * steps[Method.MINMAX]


# weight-only


def test_an_embedding_keeps_a_scale_per_row() -> None:
    table = small.normal(0, 2100, 32) * np.geomspace(1e-3, 1e3, 2100)[:, None].astype(np.float32)
    found = small.canonical(
        small.model(
            "g (int64[1,6] ids) => (float[1,6,32] e) { [look] e = Gather (table, ids) }",
            table=table,
        )
    )
    _, plan, made = quantized(found, [], scheme=Scheme.INT8_WEIGHT_ONLY, statistics=Statistics())
    assert plan.decisions["look"].scheme is Scheme.INT8_WEIGHT_ONLY
    sizes = {v.name: (v.dtype, list(v.shape or ())) for v in made.graph.initializers.values()}
    assert (ir.DataType.INT8, [2100, 32]) in sizes.values()
    assert (ir.DataType.FLOAT, [2100, 1]) in sizes.values()
    ids = np.array([[0, 5, 1000, 1500, 2000, 2099]])
    after = small.run(made, {"ids": ids})["e"]
    for index, row in enumerate(ids[0]):
        assert small.sqnr(table[row], after[0, index]) > 38


def test_weights_alone_shrink_and_need_no_data() -> None:
    name = "cnn"
    found = small.fixture(name)
    _, _, made = quantized(found, [], "generic", Scheme.INT8_WEIGHT_ONLY, statistics=Statistics())
    assert "QuantizeLinear" not in small.ops(made)
    feeds = graphs.load_feeds(name)
    before, after = small.run(found.model, feeds)["logits"], small.run(made, feeds)["logits"]
    assert small.sqnr(before, after) > 20


def test_recurrent_weights() -> None:
    name = "lstm"
    found = small.fixture(name)
    _, _, made = quantized(found, [], "generic", statistics=Statistics())
    lstm = next(n for n in made.graph if n.op_type == "LSTM")
    for index in (1, 2):
        assert lstm.inputs[index].producer().op_type == "DequantizeLinear"  # type: ignore[union-attr]
    feeds = graphs.load_feeds(name)
    before, after = small.run(found.model, feeds), small.run(made, feeds)
    for key in before:
        assert small.sqnr(before[key], after[key]) > 30
