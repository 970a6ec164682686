"""Parts are the right ones, they are convex, and together they are the whole graph, bit for bit."""

from __future__ import annotations

from collections.abc import Iterable

import graphs
import numpy as np
import onnx_ir as ir
import pytest
import small

from edgec.graphs import extract, reads
from edgec.join import _ordered
from edgec.partition import partition
from edgec.types import Graph, Part, Scheme

# name, kind, modality of each part
EXPECTED: dict[str, set[tuple[str, str, str]]] = {
    "clip_dynamo": {
        ("vision", "cnn", "vision"),
        ("text", "transformer", "text"),
        ("fusion", "fusion", "mixed"),
    },
    "clip_torchscript": {
        ("vision", "cnn", "vision"),
        ("text", "transformer", "text"),
        ("fusion", "fusion", "mixed"),
    },
    "trimodal_dynamo": {
        ("vision", "cnn", "vision"),
        ("text", "transformer", "text"),
        ("audio", "cnn", "audio"),
        ("fusion", "fusion", "mixed"),
    },
    "trimodal_cross": {
        ("vision", "cnn", "vision"),
        ("text", "transformer", "text"),
        ("audio", "cnn", "audio"),
        ("fusion", "transformer", "mixed"),
    },
    "siamese": {
        ("vision_1", "cnn", "vision"),
        ("vision_2", "cnn", "vision"),
        ("fusion", "fusion", "mixed"),
    },
    "no_value_info": {
        ("vision", "cnn", "vision"),
        ("tower", "mlp", "unknown"),
        ("fusion", "fusion", "mixed"),
    },
    "external": {
        ("vision", "cnn", "vision"),
        ("tower", "mlp", "unknown"),
        ("fusion", "fusion", "mixed"),
    },
    "cnn": {("vision", "cnn", "vision")},
    "cnn_dynamic_pad": {("vision", "cnn", "vision")},
    "cnn_opset9": {("vision", "cnn", "vision")},
    "cnn_tf": {("vision", "cnn", "vision")},
    "conv3d": {("model", "cnn", "unknown")},
    "convtranspose": {("vision", "cnn", "vision")},
    "float16_io": {("vision", "cnn", "vision")},
    "function": {("vision", "cnn", "vision")},
    "groupnorm": {("vision", "cnn", "vision")},
    "if_capture": {("vision", "cnn", "vision")},
    "lstm": {("model", "recurrent", "unknown")},
    "mlp": {("model", "mlp", "unknown")},
    "vit": {("vision", "transformer", "vision")},
    "convnext_like": {("vision", "mlp", "vision")},
    "ptq_qdq": {("vision", "cnn", "vision")},
    "qat_qdq": {("vision", "cnn", "vision")},
    "weight_only": {("text", "transformer", "text")},
    "weight_cast": {("text", "transformer", "text")},
}


def test_every_fixture_has_its_expectation() -> None:
    assert set(EXPECTED) == set(graphs.names())


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_parts(name: str) -> None:
    found = small.parts(name)
    assert {(part.name, str(part.kind), str(part.modality)) for part in found} == EXPECTED[name]
    assert all(part.reason for part in found)


def _part(name: str, part: str) -> Part:
    return next(one for one in small.parts(name) if one.name == part)


def test_inputs_of_the_towers() -> None:
    for name in ("clip_dynamo", "clip_torchscript"):
        assert _part(name, "text").inputs == ("ids", "mask")
        assert _part(name, "vision").inputs[0] == "image"
        fusion = _part(name, "fusion")
        towers = {v for p in ("vision", "text") for v in _part(name, p).outputs}
        assert set(fusion.inputs) <= towers
        assert fusion.outputs == ("score",)


def test_an_input_that_lends_only_its_size_does_not_merge_towers() -> None:
    # torch's exporters share the batch size between towers: the picture's tower reads Shape(ids)
    assert _part("clip_dynamo", "vision").inputs == ("image", "ids")
    assert _part("trimodal_cross", "text").inputs == ("ids", "image", "mask")
    assert _part("trimodal_dynamo", "text").inputs == ("ids", "mask", "mel")


def test_reasons_say_what_was_counted() -> None:
    assert _part("cnn", "vision").reason == "100% of the work is convolution"
    assert "of the work is MatMul, between attention" in _part("vit", "vision").reason
    assert "of the work is recurrent" in _part("lstm", "model").reason
    assert "of the work is MatMul, without attention" in _part("mlp", "model").reason
    assert _part("clip_dynamo", "fusion").reason == "joins towers, with 0.0% of the weights"


def test_work_and_weights_are_counted() -> None:
    made = small.model(
        """g (float[1,3,8,8] x) => (float[1,5] y) {
             c = Conv <pads = [1,1,1,1]> (x, w)
             f = ReduceMean <axes = [2,3], keepdims = 0> (c)
             y = Gemm (f, v)
           }""",
        w=small.normal(0, 4, 3, 3, 3),
        v=small.normal(1, 4, 5),
    )
    (part,) = partition(small.canonical(made))
    assert part.macs == 4 * 3 * 9 * 64 + 4 * 5
    assert part.weight_bytes == 4 * (4 * 3 * 9 + 4 * 5)


def test_without_inputs_that_matter_there_is_one_part() -> None:
    made = small.model("g (float[n] x) => (int64[1] y) { y = Shape (x) }")
    (part,) = partition(small.canonical(made))
    assert part.outputs == ("y",)
    assert len(part.nodes) == 1


# A picture's tower whose tokens join the text's embeddings before one large transformer.
LLAVA = """g (float[1,3,16,16] image, int64[1,6] ids, int64[1,22] mask) => (float[1,22,32] out) {
  c = Conv <strides = [4,4]> (image, wc)
  r = Relu (c)
  f = Reshape (r, flat)
  t = Transpose <perm = [0,2,1]> (f)
  picture = MatMul (t, wp)
  e = Gather (table, ids)
  tokens = Concat <axis = 1> (picture, e)
  q = MatMul (tokens, wq)
  k = MatMul (tokens, wk)
  v = MatMul (tokens, wv)
  kt = Transpose <perm = [0,2,1]> (k)
  s = MatMul (q, kt)
  m = Cast <to = 1> (mask)
  n = Sub (m, one)
  b = Mul (n, big)
  a = Add (s, b)
  p = Softmax (a)
  o = MatMul (p, v)
  h = MatMul (o, w1)
  g = Relu (h)
  out = MatMul (g, w2)
}"""


def llava() -> Graph:
    shapes = {"wq": (32, 32), "wk": (32, 32), "wv": (32, 32), "w1": (32, 128), "w2": (128, 32)}
    weights = {name: small.normal(i, *shape) / 6 for i, (name, shape) in enumerate(shapes.items())}
    return small.canonical(
        small.model(
            LLAVA,
            wc=small.normal(11, 8, 3, 4, 4),
            wp=small.normal(12, 8, 32),
            table=small.normal(13, 50, 32),
            flat=np.array([1, 8, 16]),
            one=np.float32(1),
            big=np.float32(1e4),
            **weights,
        )
    )


def test_a_picture_among_the_tokens_stays_a_tower() -> None:
    found = {part.name: part for part in partition(llava())}
    assert set(found) == {"vision", "text", "fusion"}
    assert str(found["vision"].kind) == "cnn"
    assert found["vision"].outputs == ("picture",)
    assert found["vision"].inputs == ("image",)
    assert found["text"].inputs == ("ids", "mask")
    assert str(found["fusion"].kind) == "transformer"
    assert found["fusion"].reason.startswith("joins towers, and is itself large")
    assert found["fusion"].outputs == ("out",)


def test_keys_that_are_scaled_by_a_constant_are_no_weights() -> None:
    made = small.model(
        """g (float[1,4,16] x) => (float[1,4,16] y) {
             q = MatMul (x, w)
             t = Transpose <perm = [0,2,1]> (q)
             k = Mul (s, t)
             a = MatMul (q, k)
             p = Softmax (a)
             y = MatMul (p, q)
           }""",
        w=small.normal(0, 16, 16),
        s=np.float32(0.25),
    )
    (part,) = partition(small.canonical(made))
    assert str(part.kind) == "transformer"


def test_a_mask_belongs_to_its_tokens_and_not_to_a_tower_of_its_own() -> None:
    made = small.model(
        """g (int64[1,6] ids, int64[1,6] mask) => (float[1,6,16] y) {
             e = Gather (table, ids)
             h = MatMul (e, w)
             f = Cast <to = 1> (mask)
             u = Unsqueeze (f, last)
             y = Mul (h, u)
           }""",
        table=small.normal(0, 40, 16),
        w=small.normal(1, 16, 16),
        last=np.array([2]),
    )
    (part,) = partition(small.canonical(made))
    assert part.inputs == ("ids", "mask")
    assert part.name == "text"


def _before(found: Graph, nodes: Iterable[str]) -> set[str]:
    """The nodes that the named ones depend on, over any way."""
    by_name = {node.name: node for node in found.model.graph}
    stack, seen = list(nodes), set()
    while stack:
        for value in reads(by_name[stack.pop()]):
            producer = value.producer()
            if producer is not None and producer.name not in seen:
                seen.add(str(producer.name))
                stack.append(str(producer.name))
    return seen


@pytest.mark.parametrize("name", [*graphs.names(), "llava"])
def test_every_part_is_convex(name: str) -> None:
    found = llava() if name == "llava" else small.fixture(name)
    parts = partition(found)
    for part in parts:
        inside = set(part.nodes)
        others = {node for other in parts if other is not part for node in other.nodes}
        later = {node for node in others if _before(found, [node]) & inside}
        assert not later & _before(found, part.nodes), part.name


@pytest.mark.parametrize("name", graphs.names())
def test_every_node_is_decided_and_in_one_part_at_most(name: str) -> None:
    found = small.fixture(name)
    made = small.plan(found, "x86-vnni")
    nodes = [str(node.name) for node in found.model.graph]
    members = [node for part in made.parts for node in part.nodes]
    assert len(members) == len(set(members))
    assert list(made.decisions) == nodes
    part_of = {node: part.name for part in made.parts for node in part.nodes}
    for node, decision in made.decisions.items():
        assert decision.part == part_of.get(node, "shared")
        assert decision.reason
        assert decision.evidence


@pytest.mark.parametrize("name", graphs.names())
def test_graph_outputs_come_from_parts(name: str) -> None:
    outputs = {value.name for value in small.fixture(name).model.graph.outputs}
    assert outputs <= {value for part in small.parts(name) for value in part.outputs}


# CNN; transformer; two and three inputs with fusion; shared weights; recurrent; branches
WHOLE = [
    "cnn",
    "vit",
    "clip_torchscript",
    "clip_dynamo",
    "trimodal_dynamo",
    "trimodal_cross",
    "siamese",
    "no_value_info",
    "external",
    "lstm",
    "if_capture",
    "cnn_dynamic_pad",
    "weight_only",
    "llava",
]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", WHOLE)
def test_the_parts_together_equal_the_whole_bit_for_bit(name: str, seed: int) -> None:
    found = llava() if name == "llava" else small.fixture(name)
    if name == "llava":
        mask = np.ones((1, 22), np.int64)
        mask[0, -3:] = 0
        feeds = {
            "image": small.normal(seed, 1, 3, 16, 16),
            "ids": np.arange(6)[None] + seed,
            "mask": mask,
        }
    else:
        feeds = graphs.load_feeds(name, seed, **({"batch": 3} if seed else {}))
    whole = small.run(found.model, feeds)
    parts = partition(found)
    known = dict(feeds)
    for part in _ordered(parts, {part.name: ("", Scheme.FLOAT32) for part in parts}):
        piece = extract(found.model, part.inputs, part.outputs)
        assert {str(v.name) for v in piece.graph.inputs} <= set(part.inputs)
        made = small.run(piece, known)
        assert set(made) == set(part.outputs)
        known.update(made)
    for key, array in whole.items():
        assert known[key].dtype == array.dtype
        assert known[key].tobytes() == array.tobytes(), key


def test_a_part_keeps_the_names_of_the_whole() -> None:
    found = small.fixture("clip_torchscript")
    names = {str(v.name) for node in found.model.graph for v in node.outputs}
    for part in small.parts("clip_torchscript"):
        piece = extract(found.model, part.inputs, part.outputs)
        assert {str(v.name) for node in piece.graph for v in node.outputs} <= names
        assert set(part.nodes) <= {str(node.name) for node in piece.graph}


def test_taking_a_part_out_leaves_the_whole_alone() -> None:
    found = small.fixture("siamese")
    before = ir.to_proto(found.model).SerializeToString()
    for part in small.parts("siamese"):
        extract(found.model, part.inputs, part.outputs)
    assert ir.to_proto(found.model).SerializeToString() == before


def test_weights_are_shared_not_copied() -> None:
    found = small.fixture("siamese")
    left, right = (
        extract(found.model, part.inputs, part.outputs) for part in small.parts("siamese")[:2]
    )
    ours = {id(v.const_value) for v in found.model.graph.initializers.values()}
    for piece in (left, right):
        assert {id(v.const_value) for v in piece.graph.initializers.values()} <= ours
    assert set(left.graph.initializers) & set(right.graph.initializers)


def test_an_input_that_nothing_reads_is_dropped() -> None:
    made = small.model("g (float[2] x, float[2] z) => (float[2] y) { a = Relu (x) y = Add (a, z) }")
    piece = extract(small.canonical(made).model, ["x", "z"], ["a"])
    assert [v.name for v in piece.graph.inputs] == ["x"]
