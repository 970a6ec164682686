"""What was planned is what was emitted is what ONNX Runtime runs; where it is not, that is told."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import graphs
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import small
from engines import Feeds, emit, engine, everywhere, run
from suite import Suite
from test_quantize import FEEDS, block

from edgec.backends import backend
from edgec.backends.onnxruntime.audit import audit, count
from edgec.canonicalise import canonicalise
from edgec.errors import EmitError, InputError
from edgec.graphs import save
from edgec.load import load
from edgec.results import Artifact, Counts, Engine
from edgec.runtime.onnxruntime_session import session_options
from edgec.runtime.onnxruntime_settings import parse
from edgec.types import Graph, Override, Plan, Policy, Scheme

TRAP = "WeightBiasQuantization"


def fed(name: str) -> list[Feeds]:
    return [graphs.load_feeds(name, seed) for seed in range(2)]


def having(made: Engine, **settings: object) -> Engine:
    """The engine, for a runtime with further settings."""
    merged = {**made.runtime.settings, **settings}
    return replace(made, runtime=replace(made.runtime, settings=merged))


class TestOnnxRuntime(Suite):
    name = "onnxruntime"
    suffix = ".onnx"


NAMES = ["cnn", "vit", "clip_torchscript", "siamese", "mlp", "lstm"]


@pytest.mark.parametrize("name", NAMES)
def test_planned_is_emitted_is_run(name: str, tmp_path: Path) -> None:
    feeds = fed(name)
    made, plan = engine(small.fixture(name), "x86-vnni", feeds)
    artifact = emit(made, plan, tmp_path)
    assert artifact.planned == artifact.emitted == artifact.optimised
    assert artifact.misplaced == ()
    int8 = {
        n
        for n, d in plan.decisions.items()
        if d.scheme in (Scheme.INT8_STATIC, Scheme.INT8_DYNAMIC)
    }
    weighted = {
        n for n in int8 if plan.decisions[n].op_type in ("Conv", "MatMul", "Gemm", "ConvTranspose")
    }
    assert artifact.planned.int8 == len(weighted)
    if name != "lstm":
        assert artifact.planned.int8 > 0
    assert artifact.path == tmp_path / "main.onnx"
    assert artifact.inputs == tuple(v.name for v in small.fixture(name).model.graph.inputs)
    outputs = small.run(artifact.path, feeds[0], disabled=[TRAP], level="ORT_ENABLE_ALL")
    exact = small.run(small.fixture(name).model, feeds[0])
    for key, array in exact.items():
        assert small.sqnr(array, outputs[key]) > 6, key


@pytest.mark.parametrize("name", ["cnn", "siamese", "clip_dynamo"])
@pytest.mark.parametrize("target", ["x86-avx2", "aarch64-dotprod", "generic"])
def test_a_build_for_another_machine_sees_what_that_machine_runs(
    target: str, name: str, tmp_path: Path
) -> None:
    feeds = fed(name)
    made, plan = engine(small.fixture(name), target, feeds)
    artifact = emit(made, plan, tmp_path)
    assert artifact.planned == artifact.emitted == artifact.optimised
    assert (artifact.planned.int8 == 0) == (target == "generic")


def test_a_kept_model_counts_as_it_came(tmp_path: Path) -> None:
    found = small.fixture("ptq_qdq")
    made, plan = engine(found, "x86-vnni", [])
    artifact = emit(made, plan, tmp_path)
    weighted = [n for n in found.model.graph if n.op_type in ("Conv", "Gemm", "MatMul")]
    assert artifact.planned == artifact.emitted == artifact.optimised
    assert artifact.planned.int8 == len(weighted) > 0


# A convolution that the plan leaves in float, between INT8 ones: the trap.


CHAIN = """g (float[1,16,12,12] x) => (float[1,16,12,12] y) {
  [one] c = Conv <pads = [1,1,1,1]> (x, w, b)
  [clip] r = Relu (c)
  [two] d = Conv <pads = [1,1,1,1]> (r, w, b)
  [three] y = Conv <pads = [1,1,1,1]> (d, w, b)
}"""


def chain() -> Graph:
    # one loud channel spoils weights that are quantized per tensor
    kernel = small.normal(0, 16, 16, 3, 3) / 12
    kernel[5] *= 40
    return small.canonical(small.model(CHAIN, w=kernel, b=small.normal(1, 16)))


def trapped() -> tuple[Engine, Plan]:
    policy = Policy(nodes=(Override("two", Scheme.FLOAT32),))
    return engine(chain(), "x86-vnni", FEEDS, policy)


def test_the_trap_is_real(tmp_path: Path) -> None:
    made, plan = trapped()
    two = small.node(made.model, "two")
    assert two.inputs[0].producer().op_type == "DequantizeLinear"  # type: ignore[union-attr]
    assert [use.node.op_type for use in two.outputs[0].uses()] == ["QuantizeLinear"]
    path = tmp_path / "trap.onnx"
    save(made.model, path)
    with_pass = audit(path, {}, 1)
    without = audit(path, {"disabled_optimizers": [TRAP]}, 1)
    assert plan.decisions["two"].scheme is Scheme.FLOAT32
    assert without.counts == Counts(2, 1)
    assert with_pass.counts == Counts(3, 0)


def test_the_trap_costs_accuracy_and_edgec_avoids_it(tmp_path: Path) -> None:
    made, plan = trapped()
    artifact = emit(made, plan, tmp_path)
    assert artifact.planned == artifact.optimised == Counts(2, 1)
    assert TRAP in artifact.settings["disabled_optimizers"]  # type: ignore[operator]
    exact = small.run(chain().model, FEEDS[0])["y"]
    level = "ORT_ENABLE_ALL"
    spoiled = small.run(artifact.path, FEEDS[0], level=level)["y"]
    ours = small.run(artifact.path, FEEDS[0], level=level, disabled=[TRAP])["y"]
    assert small.sqnr(exact, ours) > small.sqnr(exact, spoiled) + 1


def test_a_plan_that_is_not_obeyed_is_reported(tmp_path: Path) -> None:
    """INT8 planned, but the output is never quantized, so that no INT8 kernel exists."""
    made, plan = engine(block(), "x86-vnni", FEEDS)
    model = made.model.clone()
    pair = small.node(model, "y/quantize")
    back = next(n for n in model.graph if n.inputs[0] is pair.outputs[0])
    ir.convenience.replace_all_uses_with(
        back.outputs[0], pair.inputs[0], replace_graph_outputs=True
    )
    model.graph.remove([back, pair], safe=True)
    artifact = emit(replace(made, model=model), plan, tmp_path)
    assert artifact.planned == Counts(3, 0)
    assert artifact.optimised == Counts(2, 1)
    assert artifact.misplaced == ("three",)


def test_a_model_that_the_backend_refuses(tmp_path: Path) -> None:
    made, plan = engine(small.fixture("mlp"), "x86-vnni", [])
    broken = made.model.clone()
    broken.graph[0].op_type = "Nonsense"
    with pytest.raises(EmitError, match=r"audit: .*Nonsense") as caught:
        emit(replace(made, model=broken), plan, tmp_path)
    assert caught.value.exit_code == 6
    assert "Nonsense" in caught.value.log


def test_an_unknown_backend_lists_the_choices() -> None:
    with pytest.raises(InputError, match="unknown backend 'tvm'") as caught:
        backend("tvm")
    assert "onnxruntime" in caught.value.hint


# names: ONNX Runtime calls what it fuses or lays out for this CPU otherwise


def squeezenet() -> Graph:
    """The structure of SqueezeNet, as the onnx package brings it: 26 float convolutions."""
    folder = Path(onnx.__file__).parent / "backend/test/data/light"
    return canonicalise(load(folder / "light_squeezenet.onnx"), {})


REAL: dict[str, Callable[[], Graph]] = {
    "squeezenet": squeezenet,
    **{name: partial(small.fixture, name) for name in ("cnn", "siamese", "groupnorm", "mlp")},
}


@pytest.mark.parametrize("name", REAL)
def test_float_layers_are_counted_by_their_own_names(name: str, tmp_path: Path) -> None:
    found = REAL[name]()
    made, plan = engine(found, "x86-vnni", [], everywhere(Scheme.FLOAT32))
    weighted = {n.name for n in found.model.graph if n.op_type in ("Conv", "Gemm", "ConvTranspose")}
    path = tmp_path / "float.onnx"
    save(made.model, path)
    assert len(weighted) > 2
    assert audit(path, {}, 1).float == weighted
    assert emit(made, plan, tmp_path).misplaced == ()


def test_the_layout_for_this_cpu_renames(tmp_path: Path) -> None:
    """Otherwise the test above proves nothing."""
    save(small.fixture("cnn").model.clone(), tmp_path / "m.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "o.onnx")
    onnxruntime.InferenceSession(tmp_path / "m.onnx", options, providers=["CPUExecutionProvider"])
    renamed = [n for n in ir.load(tmp_path / "o.onnx").graph if str(n.name).endswith("_nchwc")]
    assert renamed or platform.machine() != "x86_64"  # elsewhere the pass may not exist


def test_names_that_onnxruntime_could_have_given_are_kept(tmp_path: Path) -> None:
    """As in a model that onnxruntime optimised before."""
    names = ("fused 14", "b_token_3", "c/MatMulAddFusion")
    products = [n.name for n in small.fixture("mlp").model.graph if n.op_type == "Gemm"]
    new = dict(zip(products, names, strict=True))
    found = small.fixture("mlp").model.clone()
    for node in found.graph:
        node.name = new.get(node.name, node.name)
    made, plan = engine(small.graph(found), "x86-vnni", fed("mlp"))
    artifact = emit(made, plan, tmp_path)
    assert artifact.planned == artifact.optimised
    assert artifact.misplaced == ()
    seen = audit(artifact.path, artifact.settings, 1, frozenset(n.name for n in made.model.graph))
    assert seen.int8 | seen.float == set(names)


@pytest.mark.parametrize("name", ["cnn", "siamese"])
def test_int8_that_the_optimiser_turns_back_into_float_is_named(name: str, tmp_path: Path) -> None:
    made, plan = engine(small.fixture(name), "x86-vnni", fed(name))
    artifact = emit(having(made, config={"session.disable_quant_qdq": "1"}), plan, tmp_path)
    planned = {
        n
        for n, d in plan.decisions.items()
        if d.scheme is Scheme.INT8_STATIC and d.op_type in ("Conv", "Gemm", "MatMul")
    }
    assert len(planned) > 5
    assert artifact.planned == artifact.emitted
    assert artifact.optimised.int8 == 0
    assert set(artifact.misplaced) == planned


def test_products_whose_activations_are_rounded_are_told(tmp_path: Path) -> None:
    made, plan = engine(small.fixture("vit"), "x86-avx2", [], everywhere(Scheme.INT8_WEIGHT_ONLY))
    products = [n for n, d in plan.decisions.items() if d.scheme is Scheme.INT8_WEIGHT_ONLY]
    assert products
    feeds = graphs.load_feeds("vit", 0)
    exact = small.run(made.model, feeds)["logits"]
    seen: dict[str, tuple[int, float]] = {}
    for level in ("4", "1"):
        config = {"session.qdq_matmulnbits_accuracy_level": level}
        into = tmp_path / level
        into.mkdir()
        artifact = emit(having(made, config=config), plan, into)
        got = run(artifact, feeds)["logits"]
        assert artifact.planned == artifact.optimised
        seen[level] = len(artifact.notes), small.sqnr(exact, got)
    assert [count for count, _ in seen.values()] == [1, 0]
    assert seen["1"][1] > 100  # float all through; "4" is, only where the CPU lacks a kernel
    assert "rounds the activations of" in emit(made, plan, tmp_path).notes[0]


def opened(artifact: Artifact, into: Path) -> tuple[set[str], Counter[str]]:
    """The session entries of an artifact, and the ops of its graph as onnxruntime runs it."""
    checked = parse({**artifact.settings, "threads": 1})
    options = session_options(checked)
    options.optimized_model_filepath = str(into / "optimised.onnx")
    disabled = set(checked.disabled)
    onnxruntime.InferenceSession(
        str(artifact.path), options, ["CPUExecutionProvider"], disabled_optimizers=disabled
    )
    nodes = onnx.load(into / "optimised.onnx").graph.node
    return {key for key, _ in checked.entries}, Counter(node.op_type for node in nodes)


@pytest.mark.parametrize("name", ["vit", "cnn", "lstm", "clip_torchscript", "weight_only"])
def test_without_a_kernel_int8_weights_are_unpacked_once(name: str, tmp_path: Path) -> None:
    """Left to itself, onnxruntime unpacks them in every call, or multiplies by blocks."""
    made, plan = engine(small.fixture(name), "generic", [])
    artifact = emit(made, plan, tmp_path)
    entries, ops = opened(artifact, tmp_path)
    assert "session.disable_quant_qdq" in entries
    assert not {"MatMulNBits", "DequantizeLinear"} & set(ops)
    assert artifact.planned.int8 == artifact.optimised.int8 == 0
    assert artifact.notes == ()
    feeds = graphs.load_feeds(name, 0)
    exact, got = small.run(made.model, feeds), run(artifact, feeds)
    assert min(small.sqnr(exact[key], got[key]) for key in exact) > 100
    itself = replace(made, runtime=replace(made.runtime, unpack_weights=False))
    _, ops = opened(emit(itself, plan, tmp_path), tmp_path)
    assert {"MatMulNBits", "DequantizeLinear"} & set(ops)


def test_only_engines_with_int8_weights_alone_unpack_them(tmp_path: Path) -> None:
    key = "session.disable_quant_qdq"
    static = everywhere(Scheme.INT8_STATIC)
    for name, policy in (("ptq_qdq", None), ("cnn", static)):
        made, plan = engine(small.fixture(name), "generic", fed(name), policy)
        artifact = emit(made, plan, tmp_path)
        entries, ops = opened(artifact, tmp_path)
        assert key not in entries
        assert ops["QLinearConv"]
    for target in ("x86-avx2", "x86-vnni", "aarch64-dotprod"):
        assert not small.runtime(target).unpack_weights
    # a .ort file would keep what was unpacked
    made, plan = engine(small.fixture("cnn"), "generic", [])
    artifact = emit(having(made, format="ort"), plan, tmp_path)
    assert artifact.path.suffix == ".ort"
    assert "config" not in artifact.settings


# counting


def test_counting_a_graph() -> None:
    made = small.model(
        """g (float[2,16] x, float[16,16] v) => (float[2,16] y) {
             [dq] w = DequantizeLinear (w8, s, z)
             [weightonly] a = MatMul (x, w)
             [float] b = MatMul (a, wf)
             [activations] c = MatMul (b, v)
             [q] c8 = QuantizeLinear (c, s, zu)
             [d] cd = DequantizeLinear (c8, s, zu)
             [int8] e = MatMul (cd, w)
             [open] y = Gemm (cd, w)
           }""",
        w8=np.zeros((16, 16), np.int8),
        s=np.float32(0.1),
        z=np.int8(0),
        zu=np.uint8(0),
        wf=small.normal(0, 16, 16),
    )
    found = count(made, fused=False)
    assert found.int8 == {"int8"}
    assert found.float == {"weightonly", "float", "open"}
    assert found.counts == Counts(1, 3)
    # what an optimiser left between Q/DQ has no INT8 kernel
    assert count(made, fused=True).float == {"int8", "weightonly", "float", "open"}


def test_a_dynamic_product_has_the_name_of_its_node() -> None:
    made, plan = engine(small.fixture("vit"), "x86-vnni", [])
    dynamic = {n for n, d in plan.decisions.items() if d.scheme is Scheme.INT8_DYNAMIC}
    assert count(made.model, fused=False).int8 == dynamic


def test_a_graph_that_an_optimisation_breaks_runs_with_fewer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, plan = engine(small.fixture("mlp"), "x86-vnni", [])

    def picky(function: object, path: Path, settings: dict[str, object], *more: object) -> object:
        if "graph_optimization_level" not in settings:
            raise EmitError("audit: a pass failed", hint="h")
        return audit(path, settings, *more)  # type: ignore[arg-type]

    monkeypatch.setattr("edgec.backends.onnxruntime.call", picky)
    artifact = emit(made, plan, tmp_path)
    assert artifact.settings["graph_optimization_level"] == "basic"
    (note,) = artifact.notes
    assert "only basic graph optimisations" in note
    assert "a pass failed" in note
