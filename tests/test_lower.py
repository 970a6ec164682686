"""An opset sinks to what a runtime takes: unchanged, written out, or refused with the reason."""

from __future__ import annotations

import importlib
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx.backend.test.case.node as node_cases
import onnx_ir as ir
import openvino
import pytest
import small

from edgec.body import write_out
from edgec.errors import UnsupportedError
from edgec.lower import lower
from edgec.sink import sink

PREFIX = {"rotaryembedding": "rotary_embedding", "rmsnormalization": "rms_normalization"}
MOST_CASES = 12
X = np.concatenate(
    [small.normal(0, 2, 6, spread=3), np.float32([[0, -0.0, 20, -20, 1e-30, 1]] * 2)]
)


def lowered(made: ir.Model, opset: int) -> ir.Model:
    runtime = replace(small.runtime("generic"), max_opset=opset, tolerates=0)
    return lower(made.clone(), runtime)


def model(text: str, opset: int, **weights: np.ndarray) -> ir.Model:
    made = small.model(f"g (float[n,6] x) => (float[n,6] y) {{ {text} }}", opset, **weights)
    ir.passes.common.NameFixPass()(made)
    ir.passes.common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(made)
    return made


def test_what_is_the_same_in_both_only_changes_its_number() -> None:
    made = model("a = Relu (x) b = Softmax <axis = -1> (a) y = Identity (b)", 25)
    found = lowered(made, 21)
    assert found.opset_imports[""] == 21
    assert small.ops(found) == ["Relu", "Softmax", "Identity"]
    wide = X.astype(np.float64).clip(0)
    wide = np.exp(wide - wide.max(axis=1, keepdims=True))
    np.testing.assert_allclose(
        small.run(found, {"x": X})["y"], wide / wide.sum(axis=1, keepdims=True), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("y = Swish (x)", lambda x: x / (1 + np.exp(-x))),
        ("y = Swish <alpha = 0.5> (x)", lambda x: x / (1 + np.exp(-0.5 * x))),
        (
            "y = RMSNormalization <epsilon = 0.1> (x, s)",
            lambda x: x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 0.1) * np.arange(6),
        ),
    ],
)
def test_what_an_opset_lacks_is_written_out(text: str, reference: object) -> None:
    made = model(text, 24, s=np.arange(6, dtype=np.float32))
    found = lowered(made, 20)
    assert "Swish" not in small.ops(found)
    assert "RMSNormalization" not in small.ops(found)
    with np.errstate(over="ignore"):
        expected = reference(X.astype(np.float64))  # type: ignore[operator]
    np.testing.assert_allclose(small.run(found, {"x": X})["y"], expected, rtol=2e-6, atol=1e-6)
    assert str(found.graph.outputs[0].name) == "y"
    names = [value.name for node in found.graph for value in node.outputs]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("attributes", ["", "<is_causal = 1>"])
@pytest.mark.parametrize("new", [1, 4])
def test_attention_with_a_past_and_no_mask(new: int, attributes: str) -> None:
    made = small.model(
        f"""g (float[1,4,s,8] q, float[1,2,s,8] k, float[1,2,s,8] v, float[1,2,p,8] pk,
              float[1,2,p,8] pv) => (float[1,4,s,8] y, float[1,2,t,8] a, float[1,2,t,8] b) {{
              y, a, b = Attention {attributes} (q, k, v, , pk, pv)
            }}""",
        23,
    )
    shapes = {"q": (1, 4, new, 8), "k": (1, 2, new, 8), "v": (1, 2, new, 8)}
    shapes |= {"pk": (1, 2, 3, 8), "pv": (1, 2, 3, 8)}
    feeds = {name: small.normal(i, *shape) for i, (name, shape) in enumerate(shapes.items())}
    found = lowered(small.canonical(made).model, 20)
    assert "Attention" not in small.ops(found)
    before, after = small.run(made, feeds), small.run(found, feeds)
    for name, array in before.items():
        np.testing.assert_allclose(after[name], array, rtol=0, atol=2e-6)


def test_queries_that_are_keys_and_values_too() -> None:
    """Where a runtime lacks ONNX Runtime's fusion, it is written out; elsewhere it stays."""
    made = small.model(
        """g (float[n,4,8] x) => (float[n,4,8] y) {
             a = MatMul (x, w)
             y = com.microsoft.MultiHeadAttention <num_heads = 2> (a, a, a)
           }""",
        17,
        ', "com.microsoft": 1',
        w=small.normal(1, 8, 8),
    )
    found, feeds = small.canonical(made).model, {"x": small.normal(0, 2, 4, 8)}
    kept = lower(found.clone(), small.runtime("generic"))
    assert "MultiHeadAttention" in small.ops(kept)
    written = lower(found.clone(), small.runtime("jetson-orin", "tensorrt"))
    assert {node.domain for node in written.graph} == {""}
    before, after = small.run(made, feeds)["y"], small.run(written, feeds)["y"]
    np.testing.assert_allclose(after, before, rtol=0, atol=2e-6)


@pytest.mark.parametrize("places", ["int64[n,5] p", "int64[1] p"])
def test_what_openvino_turns_wrongly(places: str, tmp_path: Path) -> None:
    """OpenVINO computes ONNX Runtime's RotaryEmbedding wrongly for a part of a head."""
    made = small.model(
        f"""g (float[n,5,24] x, {places}) => (float[n,5,24] y) {{
              y = com.microsoft.RotaryEmbedding <num_heads = 2, rotary_embedding_dim = 8>
                (x, p, c, s)
            }}""",
        17,
        ', "com.microsoft": 1',
        c=small.normal(1, 16, 4),
        s=small.normal(2, 16, 4),
    )
    feeds = {"x": small.normal(0, 2, 5, 24)}
    feeds["p"] = np.int64([[4, 3, 2, 1, 0], [11, 15, 0, 7, 7]] if "[n" in places else [9])
    found = small.canonical(made).model
    assert "RotaryEmbedding" in small.ops(lower(found.clone(), small.runtime("x86-vnni")))
    written = lower(found, small.runtime("x86-vnni", "openvino"))
    path = small.save(written, tmp_path / "written.onnx")
    core = openvino.Core()
    compiled = core.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    after = compiled(feeds)["y"]
    np.testing.assert_allclose(after, small.run(made, feeds)["y"], rtol=0, atol=2e-6)


def test_a_floored_remainder_of_floats_stays() -> None:
    made = model("y = Mod <fmod = 0> (x, x)", 28)
    assert sink(made, 26) == "Mod 'node' floors floats, which opset 26 does not"
    assert sink(model("y = Mod <fmod = 1> (x, x)", 28), 26) == ""


def test_an_attribute_that_says_what_is_so_anyway_is_dropped() -> None:
    made = model('y = Cast <to = 1, saturate = 1, round_mode = "up"> (x)', 25)
    assert sink(made, 21) == ""
    assert set(made.graph[0].attributes) == {"to", "saturate"}


@pytest.mark.parametrize("noop", ["", ", noop_with_empty_axes = 1"])
def test_axes_that_are_an_input_become_an_attribute(noop: str) -> None:
    made = model(
        f"a = ReduceMean <keepdims = 1{noop}> (x, axes) y = Sub (x, a)", 18, axes=np.array([-1])
    )
    found = lowered(made, 13)
    assert found.opset_imports[""] == 13
    assert small.ops(found) == ["ReduceMean", "Sub"]
    wide = X.astype(np.float64)
    expected = wide - wide.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(small.run(found, {"x": X})["y"], expected, rtol=1e-5, atol=1e-6)


def test_what_cannot_sink_is_named() -> None:
    made = model(
        """r = Relu (x) n = Shape (r) u = Cast <to = 6> (r) [late] b = BitCast <to = 1> (u)
           y = Identity (b)""",
        26,
    )
    with pytest.raises(UnsupportedError, match=r"BitCast 'late' is newer than opset 21") as caught:
        lowered(made, 21)
    assert "export it with opset 21 or older" in caught.value.hint


def test_a_node_in_a_subgraph_sinks_too() -> None:
    made = small.model(
        """g (float[n,6] x, bool c) => (float[n,6] y) {
             y = If (c) <
               then_branch = t () => (float[n,6] a) { a = Swish (x) },
               else_branch = e () => (float[n,6] b) { b = Identity (x) }
             >
           }""",
        24,
    )
    ir.passes.common.NameFixPass()(made)
    found = lowered(made, 21)
    for chosen in (True, False):
        got = small.run(found, {"x": X, "c": np.asarray(chosen)})["y"]
        expected = X / (1 + np.exp(-X.astype(np.float64))) if chosen else X
        np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-7)


def test_what_has_no_body_is_left() -> None:
    made = model("y = Relu (x)", 13)
    made.graph[0].op_type = "Sin"
    assert write_out(made, made.graph[0]) == []
    assert small.ops(made) == ["Sin"]


@pytest.mark.parametrize("module", ["rotaryembedding", "rmsnormalization", "attention", "swiglu"])
def test_onnx_cases_of_newer_operators_sink_to_opset_21(module: str) -> None:
    """What JetPack 5 has (onnxruntime 1.19) runs Attention of opset 23 by its body."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module(f"{node_cases.__name__}.{module}")
    cases = [
        case
        for case in node_cases._NodeTestCases
        if case.name.startswith(f"test_{PREFIX.get(module, module)}")
        and not case.name.endswith("_expanded")
        and all(array.dtype == np.float32 for array in case.data_sets[0][1])
    ][:MOST_CASES]
    assert cases
    for case in cases:
        made = ir.from_proto(case.model)
        ir.passes.common.NameFixPass()(made)
        found = lowered(made, 21)
        assert found.opset_imports[""] == 21
        inputs, outputs = case.data_sets[0]
        names = [value.name for value in case.model.graph.input]
        got = small.run(found, dict(zip(names, inputs, strict=True)))
        for array, expected in zip(got.values(), outputs, strict=True):
            np.testing.assert_allclose(array, expected, rtol=1e-3, atol=1e-6, err_msg=case.name)
