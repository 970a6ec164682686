"""What makes towers hard to find: control flow, tied weights, states, shapes of other towers."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import small

from edgec.errors import InputError
from edgec.graphs import extract, weight_bytes
from edgec.join import _ordered
from edgec.kinds import kind
from edgec.partition import partition, rename
from edgec.types import Graph, Kind, Scheme

Array = np.ndarray


def towers(body: str, more: str = "", outputs: str = "float[1,6] out", **weights: Array) -> Graph:
    """A picture's and a sentence's tower, and `body`, which makes `out` of `image` and `text`."""
    return small.canonical(
        small.model(
            f"""g (float[1,3,8,8] image_in, int64[1,5] ids {more}) => ({outputs}) {{
                 a = Conv (image_in, wc)
                 b = Relu (a)
                 c = GlobalAveragePool (b)
                 image = Flatten (c)
                 e = Gather (table, ids)
                 t = MatMul (e, wt)
                 r = Tanh (t)
                 text = ReduceMean <axes = [1], keepdims = 0> (r)
                 {body}
               }}""",
            wc=small.normal(0, 6, 3, 3, 3),
            table=small.normal(1, 40, 16),
            wt=small.normal(2, 16, 6) / 4,
            **weights,
        )
    )


def feeds(**more: Array) -> dict[str, Array]:
    ids = np.array([[3, 9, 4, 0, 7]])
    return {"image_in": small.normal(7, 1, 3, 8, 8), "ids": ids, **more}


def recombine(found: Graph, given: dict[str, Array]) -> None:
    """The parts one after the other, against the whole, bit for bit."""
    parts, known = partition(found), dict(given)
    for part in _ordered(parts, {part.name: ("", Scheme.FLOAT32) for part in parts}):
        piece = extract(found.model, part.inputs, part.outputs)
        onnx.checker.check_model(ir.to_proto(piece))
        known.update(small.run(piece, known))
    for name, array in small.run(found.model, given).items():
        assert known[name].tobytes() == array.tobytes(), name


def part_of(found: Graph, op_type: str) -> str:
    """The part of the only node of a type."""
    (node,) = (node for node in found.model.graph if node.op_type == op_type)
    (name,) = (part.name for part in partition(found) if node.name in part.nodes)
    return name


IF = """
  s = ReduceSum <keepdims = 0> (image)
  zero = Constant <value = float {0.0}> ()
  yes = Greater (s, zero)
  out = If (yes) <
    then_branch = yes_graph () => (float[1,6] y) { u = Add (image, text)  y = Mul (u, gain) },
    else_branch = no_graph () => (float[1,6] n) { v = MatMul (text, wi)  n = Sub (v, image) }
  >
"""
LOOP = """
  times = Constant <value = int64 {3}> ()
  on = Constant <value = bool {1}> ()
  out = Loop (times, on, image) <
    body = step (int64 i, bool go, float[1,6] x) => (bool more, float[1,6] z) {
      more = Identity (go)
      w = MatMul (x, wi)
      q = Add (w, text)
      z = Tanh (q)
    }
  >
"""
SCAN = """
  first = Unsqueeze (image, front)
  second = Unsqueeze (text, front)
  many = Concat <axis = 0> (first, second)
  out, all = Scan <
    num_scan_inputs = 1,
    body = step (float[1,6] x, float[1,6] now) => (float[1,6] z, float[1,6] seen) {
      w = MatMul (now, wi)
      q = Add (w, text)
      z = Add (x, q)
      seen = Tanh (z)
    }
  > (image, many)
"""


@pytest.mark.parametrize("body", [IF, LOOP, SCAN], ids=["if", "loop", "scan"])
def test_control_flow_is_one_node_with_what_it_captures(body: str) -> None:
    op = next(op for op in ("If", "Loop", "Scan") if f" {op} " in body)
    weights = {"wi": small.normal(3, 6, 6)}
    if op == "If":
        weights["gain"] = small.normal(4, 1, 6)
    if op == "Scan":
        weights["front"] = np.array([0])
    found = towers(body, **weights)
    assert part_of(found, op) == "fusion"
    parts = {part.name: part for part in partition(found)}
    assert set(parts) == {"vision", "text", "fusion"}
    made = {"image", "text"}
    assert made <= {*parts["vision"].outputs, *parts["text"].outputs}
    assert made <= set(parts["fusion"].inputs)
    recombine(found, feeds())


def test_weights_of_a_body_count() -> None:
    found = towers(LOOP, wi=small.normal(3, 6, 6))
    (loop,) = (node for node in found.model.graph if node.op_type == "Loop")
    assert weight_bytes([loop]) >= 4 * 36
    assert partition(found)[-1].weight_bytes >= 4 * 36
    assert kind([loop]) == (Kind.MLP, "100% of the work is MatMul, without attention")


def test_a_loop_in_a_branch() -> None:
    inner = LOOP.replace("out = Loop", "y = Loop").replace("times", "count")
    body = f"""
      s = ReduceSum <keepdims = 0> (image)
      zero = Constant <value = float {{0.0}}> ()
      yes = Greater (s, zero)
      out = If (yes) <
        then_branch = yes_graph () => (float[1,6] y) {{ {inner} }},
        else_branch = no_graph () => (float[1,6] n) {{ n = Sub (text, image) }}
      >"""
    found = towers(body, wi=small.normal(3, 6, 6))
    assert part_of(found, "If") == "fusion"
    recombine(found, feeds())


def test_a_table_that_is_used_twice_is_one_weight() -> None:
    """Tied embeddings: the table of the tokens is also what the answer is scored with."""
    found = towers(
        """k = Add (image, text)
           h = MatMul (k, wk)
           tt = Transpose <perm = [1, 0]> (table)
           out = MatMul (h, tt)""",
        outputs="float[1,40] out",
        wk=small.normal(5, 6, 16),
    )
    parts = {part.name: part for part in partition(found)}
    assert set(parts) == {"encoder", "decoder"}
    table = 4 * 40 * 16
    nodes = [node for node in found.model.graph if node.name in parts["decoder"].nodes]
    held = [value for node in nodes for value in node.inputs if value and value.const_value]
    tables = {v for v in held if v.const_value is not None and v.const_value.nbytes == table}
    assert parts["decoder"].weight_bytes < (1 + len(tables)) * table
    recombine(found, feeds())


def test_a_sentence_that_is_scored_alone_is_no_decoder() -> None:
    found = towers(
        """out = Add (image, text)
           h = MatMul (text, wk)
           tt = Transpose <perm = [1, 0]> (table)
           words = MatMul (h, tt)""",
        outputs="float[1,6] out, float[1,40] words",
        wk=small.normal(5, 6, 16),
    )
    parts = {part.name: part for part in partition(found)}
    assert set(parts) == {"vision", "text", "fusion"}
    assert "words" in parts["text"].outputs
    recombine(found, feeds())


def test_a_state_of_the_fusion_is_no_tower_and_in_no_tower() -> None:
    """A recurrent state meets both towers at once: it belongs to neither."""
    found = towers(
        """j = Concat <axis = 1> (image, text)
           s = Unsqueeze (j, front)
           h = Unsqueeze (state, front)
           all, last = GRU <hidden_size = 4> (s, wg, rg, , , h)
           next = Squeeze (last, front)
           out = MatMul (next, wo)""",
        more=", float[1,4] state",
        outputs="float[1,6] out, float[1,4] next",
        front=np.array([0]),
        wg=small.normal(3, 1, 12, 12) / 4,
        rg=small.normal(4, 1, 12, 4) / 4,
        wo=small.normal(5, 4, 6),
    )
    parts = {part.name: part for part in partition(found)}
    assert set(parts) == {"vision", "text", "fusion"}
    assert "state" in parts["fusion"].inputs
    assert set(parts["fusion"].outputs) == {"out", "next"}
    assert "state" not in {*parts["vision"].inputs, *parts["text"].inputs}
    recombine(found, feeds(state=small.normal(9, 1, 4)))


def test_keys_of_the_other_tower_that_need_a_shape_of_the_fusion_follow_it() -> None:
    """Cut before them, each part would need the other's: so they go behind the cut."""
    found = towers(
        """k0 = MatMul (image, wk)
           m = Mul (text, k0)
           n = Tanh (m)
           s = Shape (n)
           k1 = MatMul (image, wl)
           k2 = Reshape (k1, s)
           out = Mul (n, k2)""",
        wk=small.normal(3, 6, 6),
        wl=small.normal(4, 6, 6),
    )
    parts = {part.name: part for part in partition(found)}
    assert parts["vision"].outputs == ("image",)
    assert set(parts["vision"].inputs) == {"image_in"}
    recombine(found, feeds())


def test_outputs_in_the_middle_of_towers_are_given_by_them() -> None:
    found = towers(
        "out = Add (image, text)", outputs="float[1,6] out, float[1,6,6,6] b, float[1,5,6] r"
    )
    parts = {part.name: part for part in partition(found)}
    assert set(parts["vision"].outputs) == {"b", "image"}
    assert set(parts["text"].outputs) == {"r", "text"}
    recombine(found, feeds())


def test_names_of_the_users_choice() -> None:
    parts = small.parts("clip_torchscript")
    renamed = rename(parts, {"vision": "camera", "text": "vision"})
    assert [part.name for part in renamed] == ["camera", "vision", "fusion"]
    assert [part.nodes for part in renamed] == [part.nodes for part in parts]
    with pytest.raises(InputError, match=r"names\.audio matches no part") as caught:
        rename(parts, {"audio": "sound"})
    assert "vision, text, fusion" in caught.value.hint
    with pytest.raises(InputError, match="two parts would be called text"):
        rename(parts, {"vision": "text"})
