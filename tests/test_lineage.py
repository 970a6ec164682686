"""A value's lineage is what it depends on, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import small

from edgec.lineage import lineages

TEXT = """g (float[n,3] {x}) => (float[n,3] {z}) {{
  [{node}] {y} = {op} <axis = {axis}> ({x})
  {z} = MatMul ({y}, {w}) }}"""


def of(
    *, op: str = "Softmax", axis: int = 1, weight: float = 1.0, opset: int = 17, **names: str
) -> dict[str, str]:
    words = {"x": "x", "y": "y", "z": "z", "w": "w", "node": "node", **names}
    text = TEXT.format(op=op, axis=axis, **words)
    made = small.model(text, opset, **{words["w"]: np.full((3, 3), weight, np.float32)})
    return lineages(small.graph(made))


def test_names_do_not_count() -> None:
    one, other = of(), of(y="q", z="r", w="weight", node="other")
    assert (one["y"], one["z"], one["w"]) == (other["q"], other["r"], other["weight"])


def test_names_of_inputs_do() -> None:
    one, other = of(), of(x="pixels")
    assert one["x"] != other["pixels"]
    assert one["z"] != other["z"]


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"weight": 2.0}, {"x", "y"}),
        ({"axis": 0}, {"x", "w"}),
        ({"op": "LogSoftmax"}, {"x", "w"}),
        ({"opset": 18}, {"x", "w"}),
    ],
)
def test_just_what_depends_on_a_change(change: dict[str, object], kept: set[str]) -> None:
    one, other = of(), of(**change)  # type: ignore[arg-type]
    assert {name for name in one if one[name] == other[name]} == kept


def test_outputs_of_one_node_differ() -> None:
    text = "g (float[4] x) => (float[2] a, float[2] b) { a, b = Split (x, s) }"
    found = lineages(small.graph(small.model(text, s=np.array([2, 2], np.int64))))
    assert found["a"] != found["b"]


def test_the_order_of_inputs_counts() -> None:
    text = (
        "g (float[4] x, float[4] y) => (float[4] a, float[4] b) { a = Sub (x, y) b = Sub (y, x) }"
    )
    found = lineages(small.graph(small.model(text)))
    assert found["a"] != found["b"]


BRANCH = """g (bool c, float[3] x, float[3] y) => (float[3] z) {{
  a = Abs ({caught})
  z = If (c) <then_branch = t () => (float[3] u) {{ u = Add (x, a) }},
              else_branch = e () => (float[3] v) {{ v = Identity (x) }} > }}"""


def test_what_a_body_captures_counts() -> None:
    one = lineages(small.graph(small.model(BRANCH.format(caught="x"))))
    other = lineages(small.graph(small.model(BRANCH.format(caught="y"))))
    assert one["z"] != other["z"]


def body(folder: Path, number: float) -> dict[str, str]:
    """A branch with a weight that lies in a file of its own."""
    made = small.model(BRANCH.format(caught="x"))
    data = folder / "weights"
    data.write_bytes(np.full(3, number, np.float32).tobytes())
    tensor = ir.ExternalTensor(
        *("weights", 0, 12, ir.DataType.FLOAT), shape=ir.Shape([3]), name="k", base_dir=str(folder)
    )
    then = next(n for n in made.graph if n.op_type == "If").attributes["then_branch"].as_graph()
    value = ir.Value(name="k", const_value=tensor, shape=ir.Shape([3]))
    then.register_initializer(value)
    then[0].replace_input_with(1, value)
    return lineages(small.graph(made))


def test_weights_in_a_body_count_by_content(tmp_path: Path) -> None:
    one, again, other = (body(tmp_path, number) for number in (1.0, 1.0, 2.0))
    assert one == again
    assert one["z"] != other["z"]


@pytest.mark.parametrize("name", ["clip_torchscript", "external", "if_capture", "lstm"])
def test_every_value_has_one(name: str) -> None:
    found = small.fixture(name)
    known = lineages(found)
    for node in found.model.graph:
        assert all(len(known[str(value.name)]) == 64 for value in node.outputs)
    assert known == lineages(found)
