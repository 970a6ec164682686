"""What a runtime cannot run, and what is done about it: the op, the limit or the bug is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import small

from edgec.able import pieces, unable, unable_part, written_out
from edgec.assign import assign
from edgec.errors import InputError, UnsupportedError
from edgec.expand import expand, ops
from edgec.lower import lower
from edgec.offload import offers, with_offloads
from edgec.partition import partition
from edgec.policy import check_policy
from edgec.target import load_target
from edgec.types import Graph, Override, Policy, Range, Runtime, Scheme

F, H, S, D, W = (
    Scheme.FLOAT32,
    Scheme.FLOAT16,
    Scheme.INT8_STATIC,
    Scheme.INT8_DYNAMIC,
    Scheme.INT8_WEIGHT_ONLY,
)


def only(text: str, opset: int = 18, **weights: np.ndarray) -> tuple[ir.Model, ir.Node]:
    made = small.model(text, opset, **weights)
    return made, next(node for node in made.graph if node.name == "it")


def runtime(name: str, stack: str | None = None) -> Runtime:
    return load_target(name, stack).runtimes[0]


def policy(scheme: Scheme | None = None, runtime: str | None = None, part: str = "*") -> Policy:
    return Policy(parts=(Override(part, scheme, runtime),), source="mine.toml")


GROUPS = """g (float[n,4,h,8] x) => (float[n,4,h,8] y) {
    [it] y = GroupNormalization <num_groups = %d> (x, s, b)
}"""
LAYER = """g (float[n,t,8] x) => (float[n,t,8] y) {
    [it] y = LayerNormalization <axis = %d, epsilon = 0.001> (x, s, b)
}"""
PLAIN = "g (float[n,4,h,8] x) => (float[n,4,h,8] y) { [it] y = %s (x) }"
EXPANDED = [
    (GROUPS % 1, 21, {"s": small.normal(1, 4), "b": small.normal(2, 4)}),
    (GROUPS % 2, 21, {"s": small.normal(1, 4), "b": small.normal(2, 4)}),
    (GROUPS % 2, 18, {"s": small.normal(1, 2), "b": small.normal(2, 2)}),
    (LAYER % -1, 17, {"s": small.normal(1, 8), "b": small.normal(2, 8)}),
    (LAYER % 2, 18, {"s": small.normal(1, 8), "b": small.normal(2, 8)}),
    (LAYER % 1, 21, {"s": small.normal(1, 8), "b": small.normal(2, 8)}),
    (PLAIN % "HardSwish", 18, {}),
    (PLAIN % "Gelu", 20, {}),
    (PLAIN % "Mish", 18, {}),
]


@pytest.mark.parametrize(("text", "opset", "weights"), EXPANDED)
def test_an_op_written_out_computes_the_same(
    text: str, opset: int, weights: dict[str, np.ndarray]
) -> None:
    made, node = only(text, opset, **weights)
    op = node.op_type
    # normalised values do not change with a mean far from zero, where the standard's own body,
    # E[x^2] - E[x]^2, loses what is left
    shape = (2, 4, 3, 8) if "n,4" in text else (2, 5, 8)
    plain = {"x": small.normal(3, *shape)}
    exact = small.run(made, plain)["y"]
    feeds = {"x": plain["x"] + (30 if "Normalization" in op else 0)}
    assert op not in ops(node)
    expand(node)
    assert op not in small.ops(made)
    assert [v.name for v in made.graph.outputs] == ["y"]
    assert all(one.name for one in made.graph)
    assert small.sqnr(exact, small.run(made, feeds)["y"]) > 95


@pytest.mark.parametrize(
    "text",
    [
        "g (float[n] x) => (uint8[n] y) { [it] y, q, z = DynamicQuantizeLinear (x) }",
        "g (float[n,8] x) => (float[n,8] y) { [it] y = Sin (x) }",
        "g (float16[n,8] x) => (float16[n,8] y) { [it] y = HardSwish (x) }",
        "g (float[n,8] x) => (float[n,8] y) { [it] y, m = LayerNormalization (x, s) }",
    ],
)
def test_an_op_that_stays_as_it_is(text: str) -> None:
    _, node = only(text, s=small.normal(0, 8))
    assert ops(node) == frozenset()
    with pytest.raises(ValueError, match="has no body"):
        expand(node)


def test_a_known_bug_is_gone_around() -> None:
    weights = {"s": small.normal(1, 4), "b": small.normal(2, 4)}
    buggy, fine = runtime("jetson-orin", "jp7.2"), runtime("jetson-orin", "jp6.2")
    made, node = only(GROUPS % 1, 21, **weights)
    assert unable(node, buggy) == ""
    why = written_out(node, buggy)
    assert why.startswith("NVIDIA/TensorRT#4756: GroupNormalization with one group computes wrong")
    assert "documented: github.com/NVIDIA/TensorRT/issues/4756" in why
    assert written_out(only(GROUPS % 2, 21, **weights)[1], buggy) == ""  # two groups are right
    assert written_out(node, replace(fine, max_opset=21)) == ""
    feeds = {"x": small.normal(3, 2, 4, 3, 8)}
    exact = small.run(made, feeds)["y"]
    lowered = lower(made, buggy)
    assert "GroupNormalization" not in small.ops(lowered)
    assert small.sqnr(exact, small.run(lowered, feeds)["y"]) > 100
    plan = small_plan(only(GROUPS % 1, 21, **weights)[0], "jetson-orin", "jp7.2")
    assert "GroupNormalization" not in {one.op_type for one in plan.decisions.values()}


def small_plan(made: ir.Model, name: str, stack: str, wishes: Policy | None = None):  # type: ignore[no-untyped-def]
    found = small.canonical(made)
    return assign(found, partition(found), wishes or Policy(), load_target(name, stack), data=True)


def test_an_op_from_a_later_opset_is_written_out() -> None:
    old = runtime("jetson-nano")
    _, node = only(LAYER % -1, 17, s=small.normal(1, 8), b=small.normal(2, 8))
    assert written_out(node, old) == (
        "LayerNormalization came with a later opset than 13, the last of tensorrt-8.2"
    )
    assert written_out(node, runtime("jetson-orin", "jp5")).startswith(
        "tensorrt-8.5 has no LayerNormalization (documented: onnx-tensorrt 8.5-GA"
    )
    assert written_out(node, runtime("jetson-orin", "jp6.0")) == ""


TOPK = "g (float[n,9000] x) => (float[n,k] y, int64[n,k] i) { [it] y, i = TopK (x, k) }"
SCATTER = """g (float[8] x, float[2] u) => (float[8] y) {
    [it] y = ScatterND <reduction = "add"> (x, i, u)
}"""


@pytest.mark.parametrize(
    ("text", "weights", "words"),
    [
        (TOPK, {"k": np.array([4000])}, "input 1 of TopK is 4000, and tensorrt-10.3 takes K must"),
        (TOPK, {"k": np.array([3839])}, ""),
        (SCATTER, {"i": np.array([[0], [1]])}, "ScatterND has reduction = add"),
        (SCATTER.replace('<reduction = "add">', ""), {"i": np.array([[0], [1]])}, ""),
        (
            "g (float[n,4] x) => (float[n,4] y) { [it] y = com.example.Own (x) }",
            {},
            "Own of com.example has no implementation on tensorrt-10.3",
        ),
        (
            "g (float[n,4] x) => (int64[2,n] y) { [it] y = Unique (x) }",
            {},
            "tensorrt-10.3 has no Unique (documented: onnx-tensorrt 10.1-GA, docs/operators.md)",
        ),
        ("g (float[n,4] x) => (float[n,4] y) { [it] y = Relu (x) }", {}, ""),
    ],
)
def test_why_a_node_cannot_run(text: str, weights: dict[str, np.ndarray], words: str) -> None:
    made = small.model(text, 18, more=', "com.example": 1', **weights)
    node = small.node(made, "it")
    found = unable(node, runtime("jetson-orin", "jp6.2"))
    assert found.startswith(words)
    assert bool(found) == bool(words)


CONV = """g (float[1,4,8,8] x) => (float[1,9000] v) {
    [c] a = Conv <pads = [1, 1, 1, 1]> (x, w)
    [it] b = Flatten (a)
    [m] u = MatMul (b, m)
    [t] v, i = TopK (u, k)
}"""


def mixed() -> Graph:
    weights = {"w": small.normal(0, 8, 4, 3, 3), "m": small.normal(1, 512, 9000)}
    return small.canonical(small.model(CONV, 18, k=np.array([9000]), **weights))


def test_a_part_with_a_missing_op_goes_to_the_next_runtime_and_says_why() -> None:
    found, target = mixed(), load_target("jetson-orin", "jp6.2")
    (part,) = partition(found)
    assert "input 1 of TopK is 9000" in unable_part(part, found, target.runtimes[0])
    plan = assign(found, (part,), Policy(), target, data=True)
    assert plan.runtimes[part.name] == "onnxruntime-1.23"
    alone = replace(target, runtimes=target.runtimes[:1])
    with pytest.raises(
        UnsupportedError, match=r"not on tensorrt-10\.3: t: input 1 of TopK is 9000"
    ):
        assign(found, (part,), Policy(), alone, data=True)


def test_int8_is_refused_on_the_nano_with_the_best_that_is_left() -> None:
    found, target = small.fixture("clip_torchscript"), load_target("jetson-nano")
    parts = small.parts("clip_torchscript")
    with pytest.raises(UnsupportedError) as caught:
        assign(found, parts, policy(S, part="vision"), target, data=True)
    assert "int8_static is not possible: the gpu (sm_53) does not compute in int8: DP4A starts" in (
        caught.value.message
    )
    assert "int8_static is slower than float32 there" in caught.value.message  # on the CPU
    assert "the best that is left is float16 on tensorrt-8.2" in caught.value.hint
    plan = assign(found, parts, Policy(), target, data=True)
    assert set(plan.schemes.values()) == {H}
    assert plan.decisions[parts[0].nodes[0]].reason.endswith("the best that is left is float16")
    # on a board where nothing refuses it, a wish is a wish
    slow = assign(found, parts, policy(S, part="vision"), load_target("raspberry-pi-4"), data=True)
    assert slow.schemes["vision"] is S
    # who names the CPU gets it there
    forced = policy(S, "onnxruntime-1.19", "vision")
    assert assign(found, parts, forced, target, data=True).schemes["vision"] is S


@pytest.mark.parametrize(
    ("stack", "data", "expected"),
    [("jp6.2", True, S), ("jp6.2", False, W), ("jp5", True, S), ("jp5", False, H)],
)
def test_dynamic_int8_becomes_what_tensorrt_has(stack: str, data: bool, expected: Scheme) -> None:
    found, target = small.fixture("clip_torchscript"), load_target("jetson-orin", stack)
    parts = small.parts("clip_torchscript")
    plan = assign(found, parts, policy(D, part="text"), target, data=data)
    assert plan.schemes["text"] is expected
    told = [d.reason for d in plan.decisions.values() if d.part == "text" and d.scheme is expected]
    assert told
    for reason in told:
        assert reason.startswith("int8_dynamic is not possible: TensorRT has no DynamicQuantize")
        assert f": {expected} instead" in reason
    by_op = Policy(ops=(Override("MatMul", D),), source="mine.toml")
    plan = assign(found, parts, by_op, target, data=data)
    assert D not in {d.scheme for d in plan.decisions.values()}


def test_a_product_in_float32_is_halved_where_it_fails() -> None:
    made, _ = only(
        "g (float[n,64] x) => (float[n,64] y) { [it] y = Gemm (x, w) }", w=small.normal(0, 64, 64)
    )
    wishes = policy(F)
    plan = small_plan(made, "nvidia-t4", "tensorrt-rtx", wishes)
    assert plan.decisions["it"].scheme is H
    assert plan.decisions["it"].reason.startswith("fp32-gemm-sm75: an FP32 GEMM fails")
    assert small_plan(made, "rtx-40", "tensorrt-rtx", wishes).decisions["it"].scheme is F


def test_7_bits_without_vnni() -> None:
    for name, reduced in (("x86-avx2", True), ("x86-vnni", False), ("x86-avx-vnni", False)):
        for one in load_target(name).runtimes:
            assert one.grid.activations == "uint8"
            assert one.grid.reduce_range is reduced, (name, one.name)


TOWER = """g (float[%s] x) => (float[%s] y) {
    [c] a = Conv <pads = [1, 1, 1, 1]> (x, w)
    [r] b = Relu (a)
    [it] y = %s
}"""


def tower(shape: str, last: str) -> Graph:
    made = small.model(TOWER % (shape, shape, last), 18, w=small.normal(0, 4, 4, 3, 3))
    return small.canonical(made)


@pytest.mark.parametrize(
    ("shape", "last", "words"),
    [
        (
            "1,4,8,8",
            "MaxPool <kernel_shape = [1, 1]> (b)",
            "could take vision whole, as one loadable",
        ),
        ("n,4,8,8", "Sigmoid (b)", "it takes fixed shapes only, and x[0] is symbolic"),
        ("1,4,8,8", "Erf (b)", "cannot take vision whole: Erf is not among the ops"),
        (
            "5000,4,8,8",
            "Relu (b)",
            "cannot take vision whole: x has a batch of 5000, above the 4096",
        ),
        ("1,4,8,9000", "Relu (b)", "cannot take vision whole: x has a dimension of 9000"),
    ],
)
def test_what_a_dla_says(shape: str, last: str, words: str) -> None:
    found, target = tower(shape, last), load_target("jetson-orin", "jp6.2")
    (part,) = partition(found)
    part = replace(part, name="vision")
    (told,) = offers(part, found, target)
    assert told.startswith(f"tensorrt-10.3-dla: {words}"), told


def test_pieces_of_a_part_that_a_dla_could_take() -> None:
    found = mixed()
    (dla,) = load_target("jetson-orin", "jp6.2").offloads
    (part,) = partition(found)
    fine, runs, why = pieces(part, found, dla)
    assert (fine, runs) == (1, 1)
    assert "Flatten is not among the ops" in why
    (told,) = offers(part, found, load_target("jetson-orin", "jp6.2"))
    assert "1 of 4 nodes could run there, in 1 loadables, of 16 that it has room for" in told


def test_a_policy_puts_a_part_on_the_dla_and_no_more_than_fit() -> None:
    found, target = tower("1,4,8,8", "Relu (b)"), load_target("jetson-orin", "jp6.2")
    parts = partition(found)
    wishes = policy(runtime="tensorrt-10.3-dla")
    check_policy(wishes, parts, [])
    widened = with_offloads(target, parts, wishes)
    assert [one.device for one in widened.runtimes] == ["gpu", "cpu", "dla"]
    plan = assign(found, parts, wishes, widened, data=True)
    assert set(plan.runtimes.values()) == {"tensorrt-10.3-dla"}
    assert F not in {d.scheme for d in plan.decisions.values() if d.part != "shared"}
    assert with_offloads(target, parts, Policy()).runtimes == target.runtimes
    many = [replace(parts[0], name=f"p{index}") for index in range(33)]
    with pytest.raises(
        UnsupportedError, match=r"33 parts are to run on tensorrt-10\.3-dla, which takes 32"
    ):
        with_offloads(target, many, wishes)
    loose = tower("n,4,8,8", "Relu (b)")
    with pytest.raises(UnsupportedError, match="takes fixed shapes only"):
        assign(loose, partition(loose), wishes, widened, data=True)
    fixed = replace(loose, shapes={"x": (Range(1, 1), Range(4, 4), Range(8, 8), Range(8, 8))})
    assert assign(fixed, partition(fixed), wishes, widened, data=True).runtimes


NEW = """extends = ["tensorrt", "onnxruntime"]
summary = "a board that nobody has heard of"
arch = "aarch64"
verified = "not verified on hardware"
[hardware.cpu]
isa = "armv8.2-a"
source = "its datasheet"
confidence = "documented"
[hardware.gpu]
isa = "sm_87"
source = "its datasheet"
confidence = "documented"
[hardware.gpu.dtypes]
int8 = { speed = "none", note = "fused off" }
[stacks.first]
runtimes = ["tensorrt-10.3", "onnxruntime-1.23"]
source = "its datasheet"
confidence = "documented"
"""


def test_a_new_device_takes_one_toml_file(tmp_path: Path) -> None:
    (tmp_path / "my-board").mkdir()
    (tmp_path / "my-board" / "target.toml").write_text(NEW)
    target = load_target(str(tmp_path / "my-board"))
    assert (target.name, target.stack) == ("my-board", "first")
    found, parts = small.fixture("clip_torchscript"), small.parts("clip_torchscript")
    plan = assign(found, parts, Policy(), target, data=True)
    assert set(plan.runtimes.values()) == {"tensorrt-10.3"}
    assert set(plan.schemes.values()) == {H}
    reason = plan.decisions[parts[0].nodes[0]].reason
    assert "the gpu (sm_87) does not compute in int8: fused off (documented: its data" in reason
    # what its hardware cannot do at all leaves nothing
    none = NEW.replace(
        "int8 = {", 'float16 = { speed = "none" }\nfloat32 = { speed = "none" }\nint8 = {'
    )
    (tmp_path / "my-board" / "target.toml").write_text(none)
    with pytest.raises(InputError, match=r"ladders\.cnn\.with_data: nothing is left of it"):
        load_target(str(tmp_path / "my-board"))
