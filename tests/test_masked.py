"""A mask leaves no mark on the range of attention scores, and still hides what it hides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import graphs
import numpy as np
import onnx_ir as ir
import pytest
import small
from engines import recovered, seen

from edgec.masked import DEPTH, masked_scores, unmasked
from edgec.placement import place
from edgec.quantize import quantize
from edgec.types import Graph, OpRule, Plan, Runtime, Scheme

Feeds = Mapping[str, np.ndarray]


@pytest.mark.parametrize(
    ("name", "count"),
    [("clip_torchscript", 2), ("clip_dynamo", 2), ("trimodal_dynamo", 1), ("trimodal_cross", 1)],
)
def test_the_scores_of_fixtures(name: str, count: int) -> None:
    """Each is a masked value that a Softmax reads, and a product of two computed values."""
    found = small.fixture(name).model
    made = masked_scores(found)
    assert len(made) == count
    values = ir.convenience.create_value_mapping(found.graph, include_subgraphs=False)
    feeds = graphs.load_feeds(name)
    arrays = small.run(small.exposed(found, [*made, *made.values()]), feeds)
    for masked, scores in made.items():
        assert [use.node.op_type for use in values[masked].uses()] == ["Softmax"]
        kept = arrays[masked] > -1e3
        assert kept.any()
        assert not kept.all()
        plain = np.broadcast_to(arrays[scores], kept.shape)
        np.testing.assert_allclose(arrays[masked][kept], plain[kept], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["vit", "cnn", "mlp", "lstm", "convnext_like"])
def test_fixtures_without_a_mask(name: str) -> None:
    assert masked_scores(small.fixture(name).model) == {}


HEAD = "g (float[1,6,8] x, bool[1,1,6] keep) => (float[1,6,8] y) { "
SCORES = "a = MatMul (x, w) t = Transpose <perm = [0,2,1]> (x) s = MatMul (a, t) "
HIDE = "c = Cast <to = 1> (keep) f = Sub (one, c) m = Mul (f, low) "
TAIL = "y = MatMul (p, x) }"


def made(text: str, low: float = -1e4, **weights: np.ndarray) -> ir.Model:
    known = {
        "w": small.normal(0, 8, 8) / 2,
        "one": np.float32(1),
        "low": np.float32(low),
        "shape": np.array([1, 6, 6]),
        "bias": small.normal(1, 1, 6, 6),
        "u": small.normal(2, 6, 6),
        **weights,
    }
    used = {
        name: value for name, value in known.items() if f"{name})" in text or f"{name}," in text
    }
    return small.model(HEAD + text + TAIL, **used)


ADD = SCORES + HIDE + "z = Add (s, m) p = Softmax (z) "


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (ADD, {"z": "s"}),
        (SCORES + HIDE + "z = Add (m, s) p = Softmax (z) ", {"z": "s"}),
        (SCORES + "z = Where (keep, s, low) p = Softmax (z) ", {"z": "s"}),
        (SCORES + "n = Not (keep) z = Where (n, low, s) p = Softmax (z) ", {"z": "s"}),
        (
            SCORES + HIDE + "z = Add (s, m) r = Reshape (z, shape) i = Identity (r) "
            "p = Softmax (i) ",
            {"z": "s"},
        ),
        (SCORES + "p = Softmax (s) ", {}),
        (SCORES + HIDE + "z = Add (s, m) p = Sigmoid (z) ", {}),
        (SCORES + HIDE + "z = Add (s, m) r = Relu (z) p = Softmax (r) ", {}),
        (SCORES + HIDE + "z = Mul (s, m) p = Softmax (z) ", {}),
        (HIDE + "t = Transpose <perm = [0,2,1]> (x) s = MatMul (x, t) z = Add (s, m) "
         "p = Softmax (z) ", {}),  # nothing here has a weight
        # a mask that a weighted op has a part in may be anything
        (SCORES + "n = MatMul (s, u) z = Add (s, n) p = Softmax (z) ", {}),
        (SCORES + "z = Add (s, s) p = Softmax (z) ", {}),
    ],
)  # fmt: skip
def test_forms(text: str, found: dict[str, str]) -> None:
    assert masked_scores(made(text)) == found


def test_two_readers_behind_a_reshape() -> None:
    """What something else reads, too, may need its range."""
    text = "z = Add (s, m) r = Reshape (z, shape) o = Relu (r) q = Softmax (r) p = Add (o, q) "
    assert masked_scores(made(SCORES + HIDE + text)) == {"z": "s"}
    text = "z = Add (s, m) i = Identity (z) o = Relu (z) q = Softmax (i) p = Add (o, q) "
    assert masked_scores(made(SCORES + HIDE + text)) == {}


@pytest.mark.parametrize(
    ("masked", "scores", "expected"),
    [
        ((-1e4, 5.0), (-3.0, 6.0), (-3.0 - DEPTH, 6.0)),
        ((-3.4e38, 5.0), (-30.0, 2.0), (-30.0 - DEPTH, 5.0)),
        ((-8.0, 7.0), (-3.0, 6.0), (-8.0, 7.0)),  # a relative position bias
        ((-3.0, 6.0), (-3.0, 6.0), (-3.0, 6.0)),  # a mask that hid nothing
    ],
)
def test_ranges(
    masked: tuple[float, float], scores: tuple[float, float], expected: tuple[float, float]
) -> None:
    assert unmasked(masked, scores) == expected


# Static INT8 of an Add in front of a Softmax, decided by hand


def feeds(seed: int, spread: float = 1.0) -> Feeds:
    keep = np.arange(6).reshape(1, 1, 6) < 2 + seed % 4
    return {"x": small.normal(seed, 1, 6, 8) * spread, "keep": keep}


def planned(found: Graph, names: Sequence[str], backend: str) -> tuple[Plan, Runtime]:
    """Weighted and named nodes in static INT8, as in a part whose row lists Add."""
    runtime = small.runtime("x86-vnni", backend)
    rule = OpRule("Add", frozenset({Scheme.INT8_STATIC}), False, False, 0, "test")
    where = replace(rule, op_type="Where", follows=False)
    runtime = replace(runtime, ops={**runtime.ops, "Add": rule, "Where": where})
    plan = small.plan(found, "x86-vnni", backend=backend)
    decisions = {
        name: replace(one, scheme=Scheme.INT8_STATIC if name in names else Scheme.FLOAT32)
        for name, one in plan.decisions.items()
    }
    return replace(plan, decisions=decisions), runtime


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("low", [-1e4, -3.4e38])
@pytest.mark.parametrize("spread", [0.3, 1.0, 2.0])
def test_attention_behind_a_mask(spread: float, low: float, backend: str) -> None:
    text = ADD.replace("a =", "[a] a =").replace("z =", "[z] z =")
    found = small.canonical(made(text, low))
    plan, runtime = planned(found, ["a", "z"], backend)
    samples = [feeds(seed, spread) for seed in range(12)]
    known = seen(found, plan, runtime, samples)
    assert place(found.model, plan.decisions, runtime).masked == {"z": "s"}
    exact = [small.run(small.exposed(found.model, ["p"]), one)["p"] for one in samples]
    close, leak = {}, 0.0
    for aware in (True, False):
        recovery = recovered(plan, mask_aware=aware)
        model = quantize(found.model, plan.decisions, known, recovery, runtime)
        built = [small.run(small.exposed(model, ["p"]), one)["p"] for one in samples]
        close[aware] = small.sqnr(np.stack(exact), np.stack(built))
        if aware:
            leak = max(
                float(p[..., ~one["keep"][0, 0]].max(initial=0))
                for p, one in zip(built, samples, strict=True)
            )
    assert leak < 1e-4
    assert close[True] > 20
    assert close[True] > close[False] + 15


def test_a_bias_in_front_of_a_softmax_keeps_its_range() -> None:
    text = SCORES + "z = Add (s, bias) p = Softmax (z) "
    text = text.replace("a =", "[a] a =").replace("z =", "[z] z =")
    found = small.canonical(made(text, bias=8 * np.abs(small.normal(1, 1, 6, 6))))
    plan, runtime = planned(found, ["a", "z"], "onnxruntime")
    samples = [feeds(seed) for seed in range(6)]
    known = seen(found, plan, runtime, samples)
    scale = {}
    for aware in (True, False):
        recovery = recovered(plan, mask_aware=aware)
        model = quantize(found.model, plan.decisions, known, recovery, runtime)
        scale[aware] = model.graph.initializers["z/scale"].const_value.numpy()  # type: ignore[union-attr]
    assert scale[True] == scale[False]


def test_a_row_of_low_scores_keeps_hidden_what_is_hidden() -> None:
    """Queries whose largest score lies far below the largest of all: -4 and 4."""
    w = small.normal(0, 8, 8) / 20
    w[0, 1] = 4
    found = small.canonical(made(ADD.replace("a =", "[a] a =").replace("z =", "[z] z ="), w=w))
    plan, runtime = planned(found, ["a", "z"], "onnxruntime")
    samples = [dict(feeds(seed)) for seed in range(6)]
    for one in samples:
        one["x"][..., 0] = [1, -1, 0.5, -0.5, 1, -1]
        one["x"][..., 1] = 1
    known = seen(found, plan, runtime, samples)
    model = quantize(found.model, plan.decisions, known, recovered(plan), runtime)
    wanted = small.exposed(model, ["p"])
    for one in samples:
        exact = small.run(small.exposed(found.model, ["p", "s"]), one)
        assert np.ptp(exact["s"].max(axis=-1)) > 4
        built = small.run(wanted, one)["p"]
        assert built[..., ~one["keep"][0, 0]].max(initial=0) < 1e-4
        assert small.sqnr(exact["p"], built) > 20
