"""Forms that the dynamo exporter writes, brought into those that backends know."""

from collections import Counter
from pathlib import Path

import graphs
import numpy as np
import onnx_ir as ir
import pytest

from edgec.graphs import save
from edgec.load import load
from edgec.reference import Reference
from edgec.rules import attention_keys, constants, gelu


def ops(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def outputs(model: ir.Model, path: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run without any optimisation, so that only the rule can make a difference."""
    import onnxruntime

    save(model.clone(), path)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


@pytest.mark.parametrize("name", ["clip_dynamo", "trimodal_dynamo"])
@pytest.mark.parametrize("rule", [gelu, attention_keys])
def test_the_same_bit_by_bit(name: str, rule: object, tmp_path: Path) -> None:
    model = load(graphs.FIXTURES / f"{name}.onnx").model
    constants.apply(model)
    before = outputs(model, tmp_path / "before.onnx", graphs.load_feeds(name))
    assert rule.apply(model) > 0  # type: ignore[attr-defined]
    after = outputs(model, tmp_path / "after.onnx", graphs.load_feeds(name))
    for key, array in before.items():
        np.testing.assert_array_equal(after[key], array)


def test_gelu_ends_with_its_half() -> None:
    model = load(graphs.FIXTURES / "clip_dynamo.onnx").model
    constants.apply(model)
    values = {str(v.name) for node in model.graph for v in node.outputs}
    assert gelu.apply(model) == ops(model)["Erf"]
    assert gelu.apply(model) == 0
    halves = [
        node
        for node in model.graph
        if node.op_type == "Mul" and any(v is not None and gelu._is_half(v) for v in node.inputs)
    ]
    assert {str(node.outputs[0].name) for node in halves} <= values


def test_keys_lose_their_shape_arithmetic() -> None:
    model = load(graphs.FIXTURES / "clip_dynamo.onnx").model
    constants.apply(model)
    before = ops(model)
    count = attention_keys.apply(model)
    after = ops(model)
    assert before["Reshape"] - after["Reshape"] == count
    turned = [n for n in model.graph if n.name and n.name.endswith("/transpose")]
    assert all(node.attributes["perm"].as_ints() == (0, 1, 3, 2) for node in turned)


def test_another_order_of_axes_is_left_alone(tmp_path: Path) -> None:
    """[a, b, c, d] reshaped to [-1, d, c] before the turn is no transpose of the last axes."""
    x = ir.val("x", ir.DataType.FLOAT, ir.Shape([2, 3, 4, 5]))
    first_shape, last_shape = (
        ir.Value(name=name, const_value=ir.tensor(np.array(sizes, np.int64)))
        for name, sizes in (("first", [-1, 5, 4]), ("last", [2, 3, 4, 5]))
    )
    first = ir.node("Reshape", [x, first_shape], name="first_reshape")
    turn = ir.node("Transpose", [first.outputs[0]], {"perm": [0, 2, 1]}, name="turn")
    last = ir.node("Reshape", [turn.outputs[0], last_shape], name="last_reshape")
    last.outputs[0].name = "y"
    last.outputs[0].dtype = ir.DataType.FLOAT
    last.outputs[0].shape = ir.Shape([2, 3, 4, 5])
    graph = ir.Graph(
        [x],
        [last.outputs[0]],
        nodes=[first, turn, last],
        initializers=[first_shape, last_shape],
        opset_imports={"": 18},
    )
    model = ir.Model(graph, ir_version=10)
    assert attention_keys.apply(model) == 0
    save(model, tmp_path / "m.onnx")
    array = np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5)
    expected = array.reshape(-1, 5, 4).transpose(0, 2, 1).reshape(2, 3, 4, 5)
    found = Reference(tmp_path / "m.onnx", 1).run({"x": array})["y"]
    np.testing.assert_array_equal(found, expected)
