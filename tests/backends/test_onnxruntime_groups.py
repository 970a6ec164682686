"""Groups between INT8 nodes, normalised from their sums, and what is added behind them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import engines
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import small

from edgec.backends.onnxruntime import FREE, group_sums
from edgec.backends.onnxruntime.audit import count
from edgec.results import Counts
from edgec.types import Scheme

C, SIDE, STEP, ZERO = 8, 6, 0.05, 7
OUT, CENTRE = 0.04, 90  # step and zero point of a quantized result
GAMMA = np.array([1.5, -0.7, 0, 2, 0.3, 1, -1.2, 0.9], np.float32)
BETA = small.normal(2, C)


def integers(
    groups: int, tail: str, batch: str = "n", dtype: str = "float", **more: np.ndarray
) -> ir.Model:
    """DequantizeLinear, groups normalised, scaled and shifted per channel (a), and a tail to y."""
    grouped = (
        "r = Reshape (d, rows) i = InstanceNormalization (r, one, none) w = Reshape (i, whole)"
    )
    text = f"""t (uint8[{batch},{C},{SIDE},{SIDE}] q) => ({dtype}[{batch},{C},{SIDE},{SIDE}] y) {{
        d = DequantizeLinear (q, s, z) {grouped} m = Mul (w, g) a = Add (m, b) {tail}
    }}"""
    weights = {
        "s": np.float32(STEP),
        "z": np.uint8(ZERO),
        "rows": np.array([0, groups, -1]),
        "whole": np.array([-1, C, SIDE, SIDE]),
        "one": np.ones(groups, np.float32),
        "none": np.zeros(groups, np.float32),
        "g": GAMMA.reshape(C, 1, 1),
        "b": BETA.reshape(C, 1, 1),
    }
    model = small.model(text, 17, **{**weights, **more})
    ir.passes.common.NameFixPass()(model)
    ir.passes.common.ShapeInferencePass()(model)
    return model


def quantized(relu: bool, groups: int = 2, batch: str = "1", **more: np.ndarray) -> ir.Model:
    """As `integers`, with 8 bits as the result."""
    begins, zero = ("e = Relu (a)", 0) if relu else ("", CENTRE)
    tail = f"{begins} y = QuantizeLinear ({'e' if relu else 'a'}, t, o)"
    grid = {"t": np.float32(OUT), "o": np.uint8(zero)}
    return integers(groups, tail, batch, "uint8", **{**grid, **more})


def reference(
    q: np.ndarray, groups: int, gamma: np.ndarray = GAMMA, step: float = STEP
) -> np.ndarray:
    """Wu and He 2018, equation 1, in float64."""
    rows = ((q.astype(np.float64) - ZERO) * step).reshape(len(q), groups, -1)
    centred = rows - rows.mean(axis=2, keepdims=True)
    unit = centred / np.sqrt((centred**2).mean(axis=2, keepdims=True) + 1e-5)
    return unit.reshape(q.shape) * gamma.reshape(C, 1, 1) + BETA.reshape(C, 1, 1)


def bytes_like(batch: int) -> np.ndarray:
    """Values of 8 bits, far from zero in some groups."""
    spread = small.normal(5, batch, C, SIDE, SIDE) * 12
    offset = np.linspace(40, 215, C).reshape(C, 1, 1)
    return np.clip(np.rint(spread + offset), 0, 255).astype(np.uint8)


def applied(model: ir.Model, kept: tuple[str, ...] = ()) -> Counter[str]:
    assert group_sums.apply(model, kept)[0] == 1
    assert group_sums.apply(model, kept) == (0, 0)
    return Counter(node.op_type for node in model.graph)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("groups", [1, 2, 8])
def test_the_equation(groups: int, batch: int) -> None:
    model, q = integers(groups, "y = Relu (a)"), bytes_like(batch)
    ops = applied(model)
    assert (ops["InstanceNormalization"], ops["Mul"], ops["Add"]) == (0, 4, 2)
    assert (ops["FusedMatMul"], ops["ReduceSum"]) == (1, 1)
    found = small.run(model, {"q": q})["y"]
    np.testing.assert_allclose(found, np.maximum(reference(q, groups), 0), rtol=0, atol=2e-4)


@pytest.mark.parametrize("level", [0, 255])
def test_a_group_without_spread(level: int) -> None:
    """Its variance is 0, and what float32 loses must not make it negative."""
    model, q = integers(2, "y = Identity (a)"), np.full((1, C, SIDE, SIDE), level, np.uint8)
    applied(model)
    found = small.run(model, {"q": q})["y"]
    np.testing.assert_allclose(found, np.broadcast_to(BETA.reshape(C, 1, 1), q.shape), atol=2e-2)


def rounded(exact: np.ndarray, relu: bool) -> np.ndarray:
    return np.clip(np.rint(exact / OUT) + (0 if relu else CENTRE), 0, 255)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 8])
def test_one_sample_stays_in_8_bits(groups: int, relu: bool) -> None:
    model, q = quantized(relu, groups), bytes_like(1)
    ops = applied(model)
    assert (ops["QLinearConv"], ops["QuantizeLinear"], ops["InstanceNormalization"]) == (1, 0, 0)
    found = small.run(model, {"q": q})["y"].astype(int)
    wrong = np.abs(found - rounded(reference(q, groups), relu))
    assert wrong.max() <= 1
    assert (wrong > 0).mean() < 0.02
    assert count(model, fused=True).counts == Counts(0, 0)  # it is no layer of the model


@pytest.mark.parametrize(
    ("gamma", "step"),
    [
        (np.full(C, 1e-9, np.float32), STEP),  # nothing beside the shift
        (np.full(C, 1e-3, np.float32), STEP),
        (GAMMA * 1.2, STEP),
        (GAMMA, 1e-6),  # epsilon is far above all that varies
        (GAMMA, 1e4),
    ],
)
def test_steps_and_biases_of_any_size(gamma: np.ndarray, step: float) -> None:
    more = {"g": gamma.reshape(C, 1, 1), "s": np.float32(step)}
    model, q = quantized(relu=False, groups=2, **more), bytes_like(1)
    applied(model)
    found = small.run(model, {"q": q})["y"].astype(int)
    assert np.abs(found - rounded(reference(q, 2, gamma, step), False)).max() <= 1


@pytest.mark.parametrize("step", [0.05, 0.5, 5.0])
@pytest.mark.parametrize("level", [0, 255])
def test_one_sample_without_spread(level: int, step: float) -> None:
    """A blank picture gives the shift within two steps, however coarse those of the input are."""
    model = quantized(relu=False, s=np.float32(step))
    q = np.full((1, C, SIDE, SIDE), level, np.uint8)
    applied(model)
    found = small.run(model, {"q": q})["y"].astype(int)
    wanted = rounded(np.broadcast_to(BETA.reshape(C, 1, 1), q.shape), False)
    assert np.abs(found - wanted).max() <= 2


@pytest.mark.parametrize("lit", [1, 4])
def test_a_few_values_beside_a_blank(lit: int) -> None:
    """What stands out by ten steps is normalised as in float."""
    model, q = quantized(relu=False), np.full((1, C, SIDE, SIDE), 100, np.uint8)
    q[:, :, 0, :lit] = 110
    applied(model)
    found = small.run(model, {"q": q})["y"].astype(int)
    assert np.abs(found - rounded(reference(q, 2), False)).max() <= 1


@pytest.mark.parametrize(
    "model",
    [
        quantized(relu=True, batch="n"),
        quantized(relu=True, batch="2"),
        quantized(relu=False, g=(GAMMA * 2).reshape(C, 1, 1)),  # its range holds two deviations
        quantized(relu=True, o=np.uint8(3)),  # the Relu cuts off what 8 bits would hold
        quantized(relu=False, t=np.full(C, OUT, np.float32), o=np.zeros(C, np.uint8)),
        quantized(relu=True, s=np.full(C, STEP, np.float32), z=np.full(C, ZERO, np.uint8)),
    ],
    ids=["free", "two", "narrow", "relu", "steps", "input steps"],
)
def test_what_the_convolution_cannot_say_stays_float(model: ir.Model) -> None:
    ops = applied(model)
    assert (ops["QLinearConv"], ops["QuantizeLinear"]) == (0, 1)


def test_values_that_are_asked_for_stay() -> None:
    assert group_sums.apply(integers(2, "y = Identity (a)"), {"r"}) == (0, 0)
    model, q = integers(2, "y = Identity (a)"), bytes_like(1)
    assert applied(model, ("w",))["Mul"] == 5  # the scale and the shift stay behind it
    found = small.run(small.exposed(model, ["w", "a"]), {"q": q})
    np.testing.assert_allclose(found["a"], reference(q, 2), rtol=0, atol=2e-4)
    unit = (reference(q, 2) - BETA.reshape(C, 1, 1))[:, :2] / GAMMA[:2].reshape(2, 1, 1)
    np.testing.assert_allclose(found["w"][:, :2], unit, rtol=0, atol=2e-4)


def test_float_is_left_alone() -> None:
    """The mean of a group of any floats may be far larger than its spread."""
    text = """t (float[n,8,6,6] x) => (float[n,8,6,6] y) {
        r = Reshape (x, rows) i = InstanceNormalization (r, one, none) y = Reshape (i, whole)
    }"""
    weights = {"one": np.ones(2, np.float32), "none": np.zeros(2, np.float32)}
    shapes = {"rows": np.array([0, 2, -1]), "whole": np.array([-1, 8, 6, 6])}
    assert group_sums.apply(small.canonical(small.model(text, **weights, **shapes)).model, ()) == (
        0,
        0,
    )


BLOCK = """g (float[n,3,16,16] x) => (float[n,16,16,16] y) {
    a = Conv <pads = [1,1,1,1]> (x, w0) b = GroupNormalization <num_groups = 4> (a, g, h)
    c = Relu (b)
    d = Conv <pads = [1,1,1,1]> (c, w1) e = GroupNormalization <num_groups = 4> (d, g, h)
    f = Add (e, c) k = Relu (f)
    y = Conv <pads = [1,1,1,1]> (k, w2)
}"""
WEIGHTS = {
    "w0": small.normal(1, 16, 3, 3, 3),
    "w1": small.normal(2, 16, 16, 3, 3),
    "w2": small.normal(3, 16, 16, 3, 3),
    "g": 1 + small.normal(4, 16, spread=0.1),
    "h": small.normal(5, 16),
}


@pytest.mark.parametrize("batch", ["n", "1"])
def test_a_residual_block(batch: str, tmp_path: Path) -> None:
    """What runs between its convolutions, as ONNX Runtime optimises it."""
    text = BLOCK.replace("[n,", f"[{batch},")
    found = small.canonical(small.model(text, 21, **WEIGHTS))
    size = 1 if batch == "1" else 2
    feeds = [{"x": small.normal(seed, size, 3, 16, 16)} for seed in range(4)]
    made, plan = engines.engine(found, "x86-vnni", feeds)
    artifact = engines.emit(made, plan, tmp_path)
    assert (artifact.optimised.int8, artifact.optimised.float) == (3, 0)
    assert not artifact.misplaced
    told = [note for note in artifact.notes if note.endswith(FREE)]
    assert told == ([f"{artifact.engine}: 2 {FREE}"] if batch == "n" else [])
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    disabled = artifact.settings["disabled_optimizers"]
    assert isinstance(disabled, list)
    onnxruntime.InferenceSession(
        artifact.path, options, ["CPUExecutionProvider"], disabled_optimizers=set(disabled)
    )
    ops = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert (ops["QLinearAdd"], ops["FusedMatMul"]) == (1, 2)
    # One for each group, and one for the output or the input.
    assert ops["DequantizeLinear"] == 3
    quantizers = {"n": (3, 3), "1": (5, 1)}  # a normalisation is a convolution, or ends in one
    assert (ops["QLinearConv"], ops["QuantizeLinear"]) == quantizers[batch]
    assert ops["InstanceNormalization"] == 0
    before = small.run(found.model, feeds[0])["y"]
    after = engines.run(artifact, feeds[0])["y"]
    assert small.sqnr(before, np.asarray(after)) > 25


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_whose_sum_is_int8(backend: str) -> None:
    """Float values are quantized to be added where the row says so."""
    found = small.canonical(small.model(BLOCK, 21, **WEIGHTS))
    feeds = [{"x": small.normal(0, 1, 3, 16, 16)}]
    _, plan = engines.engine(found, "x86-vnni", feeds, name=backend)
    (added,) = (node.name for node in found.model.graph if node.outputs[0].name == "f")
    wanted = {"onnxruntime": Scheme.INT8_STATIC, "openvino": Scheme.FLOAT32}
    assert plan.decisions[str(added)].scheme is wanted[backend]
