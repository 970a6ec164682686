"""Decisions follow the table, and every node that stays float says why."""

from __future__ import annotations

from collections import Counter

import graphs
import numpy as np
import pytest
import small

from edgec.assign import decide
from edgec.types import Decision, Kind, Override, Plan, Policy, Scheme

F, S, D, W, K = (
    Scheme.FLOAT32,
    Scheme.INT8_STATIC,
    Scheme.INT8_DYNAMIC,
    Scheme.INT8_WEIGHT_ONLY,
    Scheme.KEPT,
)
# target -> kind -> ladder with data; what follows shows the same for a build without data
WITH_DATA: dict[str, dict[str, tuple[Scheme, ...]]] = {
    "x86-vnni": {"cnn": (S, F), "transformer": (D, W, F), "mlp": (D, W, F), "recurrent": (W, F)},
    "x86-avx2": {"cnn": (S, F), "transformer": (D, W, F), "mlp": (D, W, F), "recurrent": (W, F)},
    "aarch64-dotprod": {
        "cnn": (S, F),
        "transformer": (D, W, F),
        "mlp": (D, W, F),
        "recurrent": (W, F),
    },
    "generic": {"cnn": (W, F), "transformer": (W, F), "mlp": (W, F), "recurrent": (W, F)},
}
WITHOUT_DATA = {target: {**kinds, "cnn": (W, F)} for target, kinds in WITH_DATA.items()}
FIXTURE = {"cnn": "cnn", "transformer": "vit", "mlp": "mlp", "recurrent": "lstm"}


def ladder(plan: Plan, part: str) -> tuple[Scheme, ...]:
    return (plan.schemes[part], *plan.ladders[part])


@pytest.mark.parametrize("data", [True, False], ids=["with data", "without data"])
@pytest.mark.parametrize("kind", sorted(FIXTURE))
@pytest.mark.parametrize("target", small.TARGETS)
def test_the_ladder_of_each_kind(target: str, kind: str, data: bool) -> None:
    plan = small.plan(small.fixture(FIXTURE[kind]), target, data=data)
    (part,) = plan.parts
    assert str(part.kind) == kind
    assert ladder(plan, part.name) == (WITH_DATA if data else WITHOUT_DATA)[target][kind]
    counts = Counter(d.scheme for d in plan.decisions.values())
    assert counts[plan.schemes[part.name]] > 0
    runtime = small.runtime(target)
    row = runtime.ladders[Kind(kind)]
    for decision in plan.decisions.values():
        assert (decision.backend, decision.device) == ("onnxruntime", "cpu")
        if decision.scheme is plan.schemes[part.name] and decision.op_type != "Gather":
            assert decision.reason == row.reason
            assert decision.evidence == f"{runtime.name}, ladders.{kind} ({row.confidence})"


@pytest.mark.parametrize("target", small.TARGETS)
def test_fusion_stays_float(target: str) -> None:
    plan = small.plan(small.fixture("trimodal_dynamo"), target)
    assert ladder(plan, "fusion") == (F,)
    decisions = [d for d in plan.decisions.values() if d.part == "fusion"]
    assert {d.scheme for d in decisions} == {F}
    assert {d.reason for d in decisions} == {
        "a fusion head is small and sits at the output: float costs nothing and loses nothing"
    }


def test_without_data_nothing_is_static() -> None:
    for name in graphs.names():
        plan = small.plan(small.fixture(name), "x86-vnni", data=False)
        assert all(d.scheme is not S for d in plan.decisions.values()), name


@pytest.mark.parametrize("name", ["qat_qdq", "ptq_qdq", "weight_only", "weight_cast"])
@pytest.mark.parametrize("target", ["x86-vnni", "generic"])
def test_a_quantized_model_is_kept(name: str, target: str) -> None:
    plan = small.plan(small.fixture(name), target)
    (part,) = plan.parts
    assert ladder(plan, part.name) == (K,)
    decisions = [d for d in plan.decisions.values() if d.part == part.name]
    assert {d.scheme for d in decisions} == {K}
    assert {d.reason for d in decisions} == {"already quantized in the source model: kept as it is"}


def test_a_policy_does_not_touch_what_is_kept() -> None:
    policy = Policy(parts=(Override("vision", F),), ops=(Override("Conv", F),))
    plan = small.plan(small.fixture("ptq_qdq"), "x86-vnni", policy)
    assert {d.scheme for d in plan.decisions.values() if d.part == "vision"} == {K}


# One node each: why it stays float.

IMAGE = "float[1,16,8,8] x"


def one(
    text: str, target: str = "x86-vnni", scheme: Scheme | None = None, **weights: np.ndarray
) -> Decision:
    """The decision for the node `n` of a small graph."""
    policy = Policy()
    if scheme is not None:
        policy = Policy(parts=(Override("*", scheme),))
    found = small.canonical(small.model(text, **weights))
    return small.plan(found, target, policy).decisions["n"]


CONV = f"g ({IMAGE}) => (float[1,16,8,8] y) {{ [n] y = Conv <pads = [1,1,1,1]> (x, w, b) }}"
GEMM = "g (float[2,32] x) => (float[2,64] y) { [n] y = Gemm (x, w, b) }"
MATMUL = "g (float[2,32] x) => (float[2,64] y) { [n] y = MatMul (x, w) }"


@pytest.mark.parametrize(
    ("text", "scheme", "weights", "reason"),
    [
        (
            CONV,
            D,
            {"w": small.normal(0, 16, 16, 3, 3), "b": small.normal(1, 16)},
            "Conv has no int8_dynamic form here",
        ),
        (
            "g (float[2,32] x) => (float[2,8] y) { [n] y = Gemm (x, w) }",
            D,
            {"w": small.normal(0, 32, 8)},
            "a 32x8 weight is too small to gain from INT8",
        ),
        (
            "g (float[2,8] x) => (float[2,64] y) { [n] y = MatMul (x, w) }",
            S,
            {"w": small.normal(0, 8, 64)},
            "a 8x64 weight is too small to gain from INT8",
        ),
        (
            "g (float[3,2,32] x) => (float[3,2,64] y) { [n] y = MatMul (x, w) }",
            D,
            {"w": small.normal(0, 3, 32, 64)},
            "its weight has 3 dimensions, INT8 wants 2",
        ),
        (
            "g (float[2,32] x, float[32,64] v) => (float[2,64] y) { [n] y = MatMul (x, v) }",
            D,
            {},
            "both of its inputs are activations",
        ),
        (
            "g (float[2,32] x) => (float[2,64] y) { [n] y = Gemm <alpha = 0.5> (x, w) }",
            D,
            {"w": small.normal(0, 32, 64)},
            "alpha, beta or transA is not the default",
        ),
        (
            "g (float[32,2] x) => (float[2,64] y) { [n] y = Gemm <transA = 1> (x, w) }",
            D,
            {"w": small.normal(0, 32, 64)},
            "alpha, beta or transA is not the default",
        ),
        (
            "g (float[2,32] x, float[64] v) => (float[2,64] y) { [n] y = Gemm (x, w, v) }",
            S,
            {"w": small.normal(0, 32, 64)},
            "its bias is not one constant per column",
        ),
        (
            "g (float[2,32] x) => (float[2,64] y) { [n] y = Gemm (x, w, b) }",
            S,
            {"w": small.normal(0, 32, 64), "b": small.normal(0, 1)},
            "its bias is not one constant per column",
        ),
        (
            f"g ({IMAGE}, float[16] v) => (float[1,16,6,6] y) {{ [n] y = Conv (x, w, v) }}",
            S,
            {"w": small.normal(0, 16, 16, 3, 3)},
            "its bias is not one constant per channel",
        ),
        (
            "g (float[1,16,4,4,4] x) => (float[1,16,2,2,2] y) { [n] y = Conv (x, w) }",
            S,
            {"w": small.normal(0, 16, 16, 3, 3, 3)},
            "a 3-D convolution has no INT8 kernel",
        ),
        (
            "g (float16[2,32] x) => (float16[2,64] y) { [n] y = MatMul (x, w) }",
            D,
            {"w": small.normal(0, 32, 64).astype(np.float16)},
            "it does not compute in float32",
        ),
        (
            f"g ({IMAGE}) => (float[1,16,8,8] y) {{ [n] y = Softmax (x) }}",
            S,
            {},
            "Softmax has no INT8 form on onnxruntime",
        ),
        (
            f"g ({IMAGE}) => (float[1,16,6,6] z) {{ [n] y = Mul (x, x) z = Conv (y, w) }}",
            S,
            {"w": small.normal(0, 16, 16, 3, 3)},
            "its inputs are float: INT8 would only add conversions",
        ),
        (
            f"g ({IMAGE}) => (float[1,16,17,17] y) "
            "{ [n] y = ConvTranspose <strides = [2,2]> (x, w) }",
            S,
            {"w": small.normal(0, 16, 16, 3, 3)},
            "ConvTranspose has no int8_static form here",
        ),
    ],
)
def test_why_a_node_stays_float(
    text: str, scheme: Scheme, weights: dict[str, np.ndarray], reason: str
) -> None:
    decision = one(text, scheme=scheme, **weights)
    assert decision.scheme is F
    assert decision.reason == reason
    assert decision.evidence


@pytest.mark.parametrize("scheme", [S, D, W])
@pytest.mark.parametrize("text", [GEMM, MATMUL])
def test_a_large_product_takes_every_scheme(text: str, scheme: Scheme) -> None:
    weights = {"w": small.normal(0, 32, 64), "b": small.normal(1, 64)}
    if text is MATMUL:
        del weights["b"]
    decision = one(text, scheme=scheme, **weights)
    assert decision.scheme is scheme
    assert decision.reason == "the policy asks for it"


@pytest.mark.parametrize("scheme", [S, W])
def test_a_convolution(scheme: Scheme) -> None:
    weights = {"w": small.normal(0, 16, 16, 3, 3), "b": small.normal(1, 16)}
    assert one(CONV, scheme=scheme, **weights).scheme is scheme


def test_a_convolution_in_a_dynamic_part_stays_float() -> None:
    plan = small.plan(small.fixture("vit"), "x86-vnni")
    convs = [d for d in plan.decisions.values() if d.op_type == "Conv"]
    assert [d.scheme for d in convs] == [F]
    assert convs[0].reason == "Conv has no int8_dynamic form here"
    assert convs[0].evidence.startswith("onnxruntime, ops.Conv")


def test_products_of_activations_stay_float() -> None:
    plan = small.plan(small.fixture("vit"), "x86-vnni")
    reasons = [d.reason for d in plan.decisions.values() if d.op_type == "MatMul" and d.scheme is F]
    assert reasons
    assert set(reasons) == {"both of its inputs are activations"}


ROWS, WIDTH = 2048, 32
LOOKUP = """g (int64[1,5] ids) => (float[1,5,32] y) {
  [look] e = Gather (t, ids)
  [n] y = MatMul (e, w)
}"""


def _lookup(rows: int) -> Plan:
    made = small.model(
        LOOKUP,
        t=small.normal(0, rows, WIDTH),
        w=small.normal(1, WIDTH, WIDTH),
    )
    return small.plan(small.canonical(made), "x86-vnni")


def test_a_large_embedding_keeps_a_scale_per_row_in_every_int8_part() -> None:
    decision = _lookup(ROWS).decisions["look"]
    assert decision.scheme is W
    assert decision.reason == "an embedding table keeps one scale per row"
    assert decision.evidence == "onnxruntime, ops.Gather"


def test_a_small_embedding_stays_float() -> None:
    decision = _lookup(64).decisions["look"]
    assert decision.scheme is F
    assert decision.reason == "its table has 2048 elements, too few to gain"


def test_a_part_that_is_float_keeps_its_embedding_float() -> None:
    made = _lookup(ROWS)
    plan = Plan(**{**vars(made), "schemes": dict.fromkeys(made.schemes, F)})
    found = small.canonical(
        small.model(
            LOOKUP,
            t=small.normal(0, ROWS, WIDTH),
            w=small.normal(1, WIDTH, WIDTH),
        )
    )
    again = decide(found, plan, Policy(), small.target("x86-vnni"), data=True)
    assert {d.scheme for d in again.decisions.values()} == {F}


BLOCK = """g (float[1,16,8,8] x) => (float[1,16,8,8] y) {
  [conv] c = Conv <pads = [1,1,1,1]> (x, w, b)
  [act] r = Relu (c)
  [again] d = Conv <pads = [1,1,1,1]> (r, w, b)
  [sum] a = Add (r, d)
  [last] y = Relu (a)
}"""
BLOCK_WEIGHTS = {"w": small.normal(0, 16, 16, 3, 3), "b": small.normal(1, 16)}


def test_what_stands_between_int8_nodes_is_int8() -> None:
    plan = small.plan(small.canonical(small.model(BLOCK, **BLOCK_WEIGHTS)), "x86-vnni")
    assert {d.scheme for d in plan.decisions.values()} == {S}


@pytest.mark.parametrize("limits", [(0.0, 6.0), (-1.0, 1.0), (0.5, 6.0), (-6.0, -0.5)])
def test_a_clip_is_absorbed_only_if_its_range_holds_zero(limits: tuple[float, float]) -> None:
    made = small.model(
        BLOCK.replace("r = Relu (c)", "r = Clip (c, low, high)"),
        low=np.float32(limits[0]),
        high=np.float32(limits[1]),
        **BLOCK_WEIGHTS,
    )
    plan = small.plan(small.canonical(made), "x86-vnni")
    expected = S if limits[0] <= 0 <= limits[1] else F
    assert plan.decisions["act"].scheme is expected


def test_an_activation_of_a_value_with_another_use_is_not_absorbed() -> None:
    made = small.model(BLOCK.replace("Add (r, d)", "Add (c, d)"), **BLOCK_WEIGHTS)
    plan = small.plan(small.canonical(made), "x86-vnni")
    assert plan.decisions["act"].scheme is F


def test_a_pinned_node_stays_float_for_the_reason_of_its_revision() -> None:
    found = small.canonical(small.model(BLOCK, **BLOCK_WEIGHTS))
    plan = small.plan(found, "x86-vnni")
    pinned = Plan(**{**vars(plan), "pinned": {"conv": "the backend has no kernel"}})
    again = decide(found, pinned, Policy(), small.target("x86-vnni"), data=True)
    assert again.decisions["conv"].scheme is F
    assert again.decisions["conv"].reason == "the backend has no kernel"
    assert again.decisions["conv"].evidence == "revision"
    assert again.decisions["act"].scheme is F
    assert again.decisions["again"].scheme is S


def test_a_node_of_an_own_domain_stays_float() -> None:
    text = "g (float[1,16,8,8] x) => (float[1,16,8,8] y) { [n] y = com.microsoft.Inverse (x) }"
    found = small.canonical(small.model(text, more=', "com.microsoft" : 1'))
    decision = small.plan(found, "x86-vnni").decisions["n"]
    assert decision.scheme is F
