"""What inspect tells: sizes, crossings, what a target lacks, and nodes that stand alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import graphs
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import small

from edgec.ask import answers, not_asked
from edgec.errors import InputError, UnsupportedError
from edgec.inspection import OUTSIDE, Inspection, Level, inspect
from edgec.load import load
from edgec.macs import Amount, number
from edgec.minimal import distinct, file_name, minimal, save_minimal, signature
from edgec.policy import load_policy
from edgec.target import load_target
from edgec.types import Override, Policy, Range, Target

UNKNOWN = """g (float[n, 4] x) => (float[n, 4] y, float[n, 4] z) {
    [fine] h = MatMul (x, w)
    [strange] y = com.microsoft.Frobnicate <level = 3> (h, w)
    [alike] z = com.microsoft.Frobnicate <level = 3> (x, w)
}"""
MORE = ', "com.microsoft" : 1'


def unknown() -> ir.Model:
    return small.model(UNKNOWN, 17, MORE, w=np.ones((4, 4), np.float32))


def fixture(name: str, target: Target | None = None, **shapes: tuple[Range, ...]) -> Inspection:
    return inspect(load(graphs.path(name)), shapes, target)


def test_a_policy_names_parts_and_changes_what_falls_short(tmp_path: Path) -> None:
    loaded, target = load(graphs.path("clip_dynamo")), load_target("x86-vnni")
    wishes = tmp_path / "policy.toml"
    wishes.write_text('[parts.words]\nscheme = "float32"\n[names]\ntext = "words"\n')

    def shortfalls(policy: Policy) -> dict[str, int]:
        found = inspect(loaded, {}, target, policy=policy, ask=False)
        assert {one.part for one in found.shortfalls} <= {view.part.name for view in found.parts}
        return Counter(one.part for one in found.shortfalls if one.level is Level.FLOAT)

    before, after = shortfalls(Policy()), shortfalls(load_policy(wishes))
    assert before["text"]
    assert not after["words"]  # all of it is to be float, so no node of it falls short
    assert after["vision"] == before["vision"]
    with pytest.raises(InputError, match=r"parts\.tower matches nothing in this model"):
        inspect(loaded, {}, target, policy=Policy(parts=(Override("tower"),)))


def test_the_parts_of_a_two_tower_model() -> None:
    found = fixture("clip_dynamo")
    views = {view.part.name: view for view in found.parts}
    assert list(views) == ["vision", "text", "fusion"]
    assert views["vision"].ops["Conv"] == 10
    assert sum(views["vision"].ops.values()) == len(views["vision"].part.nodes)
    assert views["fusion"].work == Amount({("batch", "batch"): 24})
    assert views["text"].work.symbols == {"batch", "sequence"}
    assert all(not view.unknown for view in found.parts)
    assert found.fixed == ()


def test_bytes_that_cross() -> None:
    found = fixture("clip_dynamo")
    assert {(c.source, c.sink) for c in found.crossings} >= {
        (OUTSIDE, "vision"),
        (OUTSIDE, "text"),
        ("vision", "fusion"),
        ("text", "fusion"),
        ("fusion", OUTSIDE),
    }
    (image,) = [c for c in found.crossings if c.name == "image"]
    assert (image.dtype, image.shape) == ("float", ("batch", 3, 32, 32))
    assert image.size == Amount({("batch",): 4 * 3 * 32 * 32})
    ids = next(c for c in found.crossings if c.name == "ids" and c.sink == "text")
    assert ids.size == Amount({("batch", "sequence"): 8})
    (score,) = [c for c in found.crossings if c.name == "score"]
    assert score.size == Amount({("batch", "batch"): 4})


def test_a_shape_makes_figures_of_formulas() -> None:
    fixed = (Range(2, 2), Range(12, 12))
    found = fixture(
        "clip_dynamo", image=tuple(Range(n, n) for n in (2, 3, 32, 32)), ids=fixed, mask=fixed
    )
    free = {view.part.name: view.work for view in fixture("clip_dynamo").parts}
    for view in found.parts:
        assert view.work == number(free[view.part.name].at({"batch": 2, "sequence": 12}))


def test_what_inference_cannot_follow_is_said() -> None:
    """The TorchScript exporter computes shapes in the graph; a batch of 1 is all that helps."""
    found = fixture("trimodal_cross")
    assert "image" in found.fixed
    views = {view.part.name: view for view in found.parts}
    assert views["vision"].work.symbols == frozenset()
    assert views["vision"].work
    assert len(views["text"].unknown) == views["text"].ops["MatMul"]
    lost = next(c for c in found.crossings if c.shape is not None and "?" in c.shape)
    assert lost.size is None


def test_without_a_target_nothing_is_asked() -> None:
    found = inspect(small.graph(unknown()), {})
    assert (found.target, found.shortfalls, found.notes) == (None, (), ())


def test_a_node_that_the_backend_refuses() -> None:
    target = load_target("generic")
    found = inspect(small.graph(unknown()), {}, target)
    (one,) = [one for one in found.shortfalls if one.level is Level.CANNOT]
    assert one.nodes == ("strange", "alike")
    assert one.op_type == "com.microsoft::Frobnicate"
    assert "Frobnicate" in one.reason
    assert one.evidence.startswith("onnxruntime ")
    assert "was asked" in one.evidence
    trusted = inspect(small.graph(unknown()), {}, target, ask=False)
    assert not [one for one in trusted.shortfalls if one.level is Level.CANNOT]
    assert trusted.notes == ()


def test_openvino_is_asked_too() -> None:
    pytest.importorskip("openvino")
    found = inspect(small.graph(unknown()), {}, load_target("generic", "openvino"))
    (one,) = [one for one in found.shortfalls if one.level is Level.CANNOT]
    assert set(one.nodes) == {"strange", "alike"}
    assert "Frobnicate" in one.op_type
    assert one.reason
    assert one.evidence.startswith("openvino ")


def test_an_opset_that_cannot_sink() -> None:
    """A runtime whose newest opset lacks the operator, which nothing simpler can stand for."""
    text = """g (float[1, 1, 3, 3] x, float[1, 8, 2, 2] o) => (float[1, 1, 2, 2] y)
        { [late] y = DeformConv (x, w, o) }"""
    runtime = replace(load_target("generic").runtimes[0], max_opset=18, tolerates=18)
    graph = small.canonical(small.model(text, 19, w=np.ones((1, 1, 2, 2), np.float32)))
    (reply,) = answers(graph.model, [small.node(graph.model, "late")], runtime)
    assert "opset" in reply.reason
    assert reply.evidence == "the opset that onnxruntime takes"


def test_a_runtime_of_fixed_shapes() -> None:
    target = load_target("intel-core-ultra")
    npu = replace(target, runtimes=(target.runtime("openvino-npu"),))
    open_shapes = fixture("cnn", npu)
    limits = [one for one in open_shapes.shortfalls if one.level is Level.LIMITS]
    assert limits
    assert all(one.reason == "fixed shapes only, and batch is open: give --shape" for one in limits)
    assert all("OpenVINO documentation" in one.evidence for one in limits)
    assert any("for want of a npu" in note or "brings it" in note for note in open_shapes.notes)
    closed = fixture("cnn", npu, image=tuple(Range(n, n) for n in (1, 3, 32, 32)))
    assert not [one for one in closed.shortfalls if one.level is Level.LIMITS]


def test_what_the_table_says_a_runtime_lacks() -> None:
    target = load_target("generic")
    row = replace(target.runtimes[0], unsupported={"Sigmoid": "documented: a manual"})
    text = "g (float[n, 4] x) => (float[n, 4] y) { [curve] y = Sigmoid (x) }"
    one = replace(target, runtimes=(row,))
    found = inspect(small.graph(small.model(text)), {}, one, ask=False)
    (told,) = found.shortfalls
    assert told.nodes == ("curve",)
    assert "a manual" in told.reason
    assert told.evidence == "onnxruntime, the table"


def test_float_where_the_part_is_int8() -> None:
    found = fixture("clip_dynamo", load_target("x86-vnni"))
    (one,) = [one for one in found.shortfalls if one.op_type == "MatMul"]
    assert one.level is Level.FLOAT
    assert one.reason == "both of its inputs are activations"
    assert "ops.MatMul" in one.evidence
    assert one.work.symbols == {"batch", "sequence"}


@pytest.mark.parametrize("name", graphs.names())
def test_every_fixture_can_be_inspected(name: str) -> None:
    found = inspect(load(graphs.path(name)), {}, load_target("x86-vnni"), ask=False)
    assert found.parts
    assert {c.sink for c in found.crossings if c.source == OUTSIDE}


def test_who_is_not_asked_is_told() -> None:
    runtime = load_target("generic").runtimes[0]
    assert not_asked(runtime) == ""
    assert "cannot be asked here" in not_asked(replace(runtime, backend="tensorrt"))
    assert "for want of a gpu" in not_asked(replace(runtime, device="gpu"))
    assert answers(unknown(), [], replace(runtime, device="gpu")) == []


# Nodes that stand alone


@pytest.mark.parametrize(
    "name", ["cnn", "clip_torchscript", "if_capture", "lstm", "ptq_qdq", "external"]
)
def test_every_node_makes_a_model_of_its_own(name: str, tmp_path: Path) -> None:
    model = small.fixture(name).model
    for index, same in enumerate(distinct(model.graph).values()):
        (path,) = save_minimal(model, same[0], tmp_path / file_name(index, same[0]))
        alone = onnx.load(path)
        assert [node.op_type for node in alone.graph.node] == [same[0].op_type]
        for value, kept in zip(
            (v for v in dict.fromkeys(same[0].inputs) if v is not None and v.const_value is None),
            alone.graph.input,
            strict=False,
        ):
            assert value.name == kept.name
            assert value.dtype == kept.type.tensor_type.elem_type
    assert not list(tmp_path.glob(".*"))


def test_a_saved_node_is_refused_for_the_same_reason(tmp_path: Path) -> None:
    model = small.canonical(unknown()).model
    node = small.node(model, "strange")
    (path,) = save_minimal(model, node, tmp_path / file_name(0, node))
    assert path.name == "000-Frobnicate.onnx"
    with pytest.raises(Exception, match="Frobnicate"):
        small.run(path, {})
    kept = onnx.load(path)
    assert [entry.domain for entry in kept.opset_import] == ["", "com.microsoft"]
    assert kept.graph.initializer[0].dims == [4, 4]


def test_nodes_are_told_apart_by_what_a_backend_sees() -> None:
    made = small.model(
        """g (float[n, 4] x) => (float[n, 4] y) {
            a = Softmax <axis = -1> (x) b = Softmax <axis = -1> (a) c = Softmax <axis = 0> (b)
            d = Cast <to = 11> (c) e = Softmax <axis = -1> (d) y = Cast <to = 1> (e)
        }"""
    )
    nodes = list(small.canonical(made).model.graph)
    softmax = [node for node in nodes if node.op_type == "Softmax"]
    assert len({signature(node) for node in softmax}) == 3
    assert [len(same) for same in distinct(softmax).values()] == [2, 1, 1]


def test_no_name_leads_a_file_astray() -> None:
    node = ir.Node("", "../../etc/passwd", [])
    assert file_name(7, node) == "007-etcpasswd.onnx"
    assert file_name(7, ir.Node("", "é", [])) == "007-node.onnx"


def test_a_node_whose_input_has_no_type() -> None:
    model = unknown()
    node = small.node(model, "strange")
    assert node.inputs[0] is not None
    node.inputs[0].type = None
    with pytest.raises(UnsupportedError, match="the type of its input 'h' is not known"):
        minimal(model, node)
