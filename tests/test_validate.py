"""Bad graphs: each gets an error that names the node and what to do; nothing outside is opened."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import small
from onnx import AttributeProto, ModelProto, TensorProto, helper

from edgec.errors import EdgecError, InputError, UnsupportedError
from edgec.load import load

VALUE = helper.make_tensor_value_info
PLAIN = """g (float[n, 8] x) => (float[n, 4] y) {
    [first] h = Relu (x)
    [second] y = Gemm <transB = 1> (h, w, b)
}"""
IF = """g (bool c, float[2] x) => (float[2] y) {
    [branch] y = If (c) <then_branch = t () => (float[2] a) { [inner] a = Relu (x) },
                         else_branch = e () => (float[2] b) { [other] b = Neg (x) }>
}"""


def plain() -> ModelProto:
    weights = {"w": np.ones((4, 8), np.float32), "b": np.ones(4, np.float32)}
    return onnx.load_from_string(_bytes(PLAIN, **weights))


def _bytes(text: str, **weights: np.ndarray) -> bytes:
    import onnx_ir as ir

    return ir.to_proto(small.model(text, **weights)).SerializeToString()


def error(proto: ModelProto, folder: Path) -> EdgecError:
    """What load says to a model, which it must refuse."""
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(EdgecError) as caught:
        load(path)
    assert caught.value.message.startswith(f"{path}: ")
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 1000
    assert caught.value.hint
    return caught.value


def _cycle(proto: ModelProto) -> None:
    proto.graph.node[0].input[0] = "y"


def _cycle_through_a_branch(proto: ModelProto) -> None:
    proto.CopyFrom(onnx.load_from_string(_bytes(IF)))
    proto.graph.node.insert(0, helper.make_node("Neg", ["y"], ["z"], "around"))
    proto.graph.node[1].attribute[0].g.node[0].input[0] = "z"


def _cycle_inside_a_branch(proto: ModelProto) -> None:
    proto.CopyFrom(onnx.load_from_string(_bytes(IF)))
    proto.graph.node[0].attribute[0].g.node[0].input[0] = "a"


def _two_inputs(proto: ModelProto) -> None:
    proto.graph.input.append(VALUE("x", 1, [2]))


def _two_weights(proto: ModelProto) -> None:
    proto.graph.initializer.append(proto.graph.initializer[0])


def _made_twice(proto: ModelProto) -> None:
    proto.graph.node.append(helper.make_node("Relu", ["x"], ["h"], "third"))


def _weight_is_made(proto: ModelProto) -> None:
    proto.graph.node.append(helper.make_node("Relu", ["x"], ["w"], "third"))


def _missing_input(proto: ModelProto) -> None:
    proto.graph.node[1].input[0] = "nothing"


def _missing_inside(proto: ModelProto) -> None:
    proto.CopyFrom(onnx.load_from_string(_bytes(IF)))
    proto.graph.node[0].attribute[1].g.node[0].input[0] = "nothing"


def _outer_output(proto: ModelProto) -> None:
    proto.CopyFrom(onnx.load_from_string(_bytes(IF)))
    proto.graph.node[0].attribute[1].g.output[0].name = "x"


def _missing_output(proto: ModelProto) -> None:
    proto.graph.output[0].name = "nowhere"


def _blank_input(proto: ModelProto) -> None:
    proto.graph.node[1].input[1] = ""


def _few_inputs(proto: ModelProto) -> None:
    del proto.graph.node[1].input[1:]


def _many_inputs(proto: ModelProto) -> None:
    proto.graph.node[0].input.extend(["w", "b"])


def _no_outputs(proto: ModelProto) -> None:
    del proto.graph.node[1].output[:]


def _confused(proto: ModelProto) -> None:
    proto.graph.node[1].attribute[0].CopyFrom(helper.make_attribute("transB", "yes"))


def _confused_type(proto: ModelProto) -> None:
    proto.graph.node[1].attribute[0].type = AttributeProto.TENSOR


def _lacks_attribute(proto: ModelProto) -> None:
    proto.graph.node[0].CopyFrom(helper.make_node("Cast", ["x"], ["h"], "first"))


def _constant_of_nothing(proto: ModelProto) -> None:
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["k"], "constant"))


def _text_weight(proto: ModelProto) -> None:
    proto.graph.initializer[0].CopyFrom(helper.make_tensor("w", TensorProto.STRING, [1], [b"a"]))


def _text_among_sizes(proto: ModelProto) -> None:
    text = helper.make_tensor("t", TensorProto.STRING, [1], [b"a"])
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["s"], "text", value=text))
    proto.graph.node.insert(1, helper.make_node("Sum", ["x", "s"], ["z"], "late"))


def _wrong_texts(proto: ModelProto) -> None:
    tensor = TensorProto(name="k", data_type=TensorProto.STRING, dims=[3])
    tensor.string_data.extend([b"a"])
    proto.graph.initializer.append(tensor)


def _absurd_input(proto: ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1 << 62


def _absurd_weight(proto: ModelProto) -> None:
    proto.graph.initializer[0].dims[0] = 1 << 62


def _negative_weight(proto: ModelProto) -> None:
    proto.graph.initializer[0].dims[0] = -4


def _short_weight(proto: ModelProto) -> None:
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-4]


def _long_weight(proto: ModelProto) -> None:
    proto.graph.initializer[0].raw_data += b"\0" * 4


def _unknown_type(proto: ModelProto) -> None:
    proto.graph.initializer[0].data_type = 99


def _sparse(proto: ModelProto) -> None:
    proto.graph.sparse_initializer.add().values.CopyFrom(proto.graph.initializer[0])


def _no_opset(proto: ModelProto) -> None:
    proto.opset_import[0].version = 0


def _negative_opset(proto: ModelProto) -> None:
    proto.opset_import[0].version = -(1 << 62)


def _absurd_opset(proto: ModelProto) -> None:
    proto.opset_import[0].version = 1 << 62


def _nul(proto: ModelProto) -> None:
    proto.graph.node[0].output[0] = proto.graph.node[1].input[0] = "h\0"


def _function(proto: ModelProto, *calls: str) -> None:
    """Functions that call each other in a ring."""
    opsets = [helper.make_opsetid("own", 1)]
    for name, called in zip(calls, (*calls[1:], calls[0]), strict=True):
        inner = helper.make_node(called, ["a"], ["b"], domain="own")
        proto.functions.append(helper.make_function("own", name, ["a"], ["b"], [inner], opsets))
    proto.opset_import.append(opsets[0])
    proto.graph.node[0].CopyFrom(helper.make_node(calls[0], ["x"], ["h"], "first", domain="own"))


def _calls_itself(proto: ModelProto) -> None:
    _function(proto, "Again")


def _call_each_other(proto: ModelProto) -> None:
    _function(proto, "One", "Two", "Three")


def _two_functions(proto: ModelProto) -> None:
    opsets = [helper.make_opsetid("", 17)]
    inner = helper.make_node("Relu", ["a"], ["b"])
    for _ in range(2):
        proto.functions.append(helper.make_function("own", "F", ["a"], ["b"], [inner], opsets))


Spoil = Callable[[ModelProto], None]
BAD: dict[Spoil, tuple[type[EdgecError], str, str]] = {
    _cycle: (InputError, "a cycle: 'second' -> 'first' -> 'second'", "cannot depend on itself"),
    _cycle_through_a_branch: (InputError, "'around'", "cannot depend on itself"),
    _cycle_inside_a_branch: (InputError, "the graph contains a cycle: 'inner'", "a Loop if it"),
    _two_inputs: (InputError, "has two inputs 'x'", "check_model"),
    _two_weights: (InputError, "has two weights 'w'", "check_model"),
    _made_twice: (InputError, "node 'third' makes 'h', which is already made", "check_model"),
    _weight_is_made: (InputError, "node 'third' makes 'w', which is already a weight", "check"),
    _missing_input: (InputError, "node 'second' reads 'nothing', which nothing", "check_model"),
    _missing_inside: (InputError, "node 'other' reads 'nothing', which nothing", "check_model"),
    _outer_output: (InputError, "has the output 'x', a value of the graph around it", "Identity"),
    _missing_output: (InputError, "the output 'nowhere', which is never produced", "check_model"),
    _blank_input: (InputError, "node 'second' (Gemm) lacks its input B", "check_model"),
    _few_inputs: (InputError, "node 'second' (Gemm) has 1 inputs; opset 17 wants 2 to 3", "check"),
    _many_inputs: (InputError, "node 'first' (Relu) has 3 inputs; opset 17 wants 1", "check"),
    _no_outputs: (InputError, "node 'second' has no outputs", "check_model"),
    _confused: (InputError, "its attribute transB is of type STRING, not INT", "check_model"),
    _confused_type: (InputError, "its attribute transB is of type TENSOR, not INT", "check_model"),
    _lacks_attribute: (InputError, "node 'first' (Cast) lacks the attribute to", "check_model"),
    _constant_of_nothing: (InputError, "'constant' (Constant) needs exactly one value", "check"),
    _text_weight: (InputError, "(Gemm) cannot take 'w' as its B: it is a tensor(string)", "export"),
    _text_among_sizes: (InputError, "'late' (Sum) cannot take 's' as its data_0", "export"),
    _wrong_texts: (InputError, "weight 'k' is damaged: 1 texts for 3 elements", "truncated"),
    _absurd_input: (InputError, "dimension 1 of 'x' is 4611686018427387904", "symbolic dimension"),
    _absurd_weight: (InputError, "weight 'w' is damaged", "truncated or changed"),
    _negative_weight: (InputError, "weight 'w' is damaged", "truncated or changed"),
    _short_weight: (InputError, "weight 'w' is damaged", "truncated or changed"),
    _long_weight: (InputError, "weight 'w' is damaged", "truncated or changed"),
    _unknown_type: (InputError, "99 is not a valid DataType", "truncated"),
    _sparse: (UnsupportedError, "weight 'w' is stored sparsely", "dense tensor"),
    _no_opset: (InputError, "opset 0 is older than 1", "opset 1 or newer"),
    _negative_opset: (InputError, "is older than 1", "opset 1 or newer"),
    _absurd_opset: (UnsupportedError, "is newer than", "pip install --upgrade onnx"),
    _nul: (InputError, "a name of 2 characters that no runtime takes", "rename it"),
    _calls_itself: (InputError, "function 'own::Again' calls itself", "as a Loop"),
    _call_each_other: (InputError, "calls itself: 'One' -> 'Two' -> 'Three' -> 'One'", "a Loop"),
    _two_functions: (InputError, "function own::F is defined twice", "check_model"),
}  # fmt: skip


def test_what_is_spoilt_was_good(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for data in (plain().SerializeToString(), _bytes(IF)):
        path.write_bytes(data)
        load(path)


@pytest.mark.parametrize("spoil", BAD, ids=lambda one: one.__name__.strip("_"))
def test_a_bad_graph_is_refused_with_its_place(spoil: Spoil, tmp_path: Path) -> None:
    kind, message, hint = BAD[spoil]
    proto = plain()
    spoil(proto)
    found = error(proto, tmp_path)
    assert type(found) is kind
    assert message in found.message
    assert hint in found.hint


def test_sequences_and_optionals_are_no_tensors(tmp_path: Path) -> None:
    """Their operators stand in the specification by types of their own."""
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, [2])
    sequence = helper.make_sequence_type_proto(tensor)
    x = helper.make_value_info("x", sequence)
    o = helper.make_value_info("o", helper.make_optional_type_proto(tensor))
    nodes = [
        helper.make_node("SequenceLength", ["x"], ["n"]),
        helper.make_node("OptionalHasElement", ["o"], ["has"]),
    ]
    outputs = [VALUE("n", TensorProto.INT64, []), VALUE("has", TensorProto.BOOL, [])]
    made = helper.make_graph(nodes, "g", [x, o], outputs)
    path = tmp_path / "model.onnx"
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(made, opset_imports=opsets, ir_version=8), path)
    assert len(load(path).model.graph) == 2


def _nested(depth: int) -> bytes:
    """If in If in If; built from bytes, since protobuf itself refuses to go that deep."""
    proto = onnx.load_from_string(_bytes(IF))
    node = proto.graph.node[0]
    inner = node.attribute[0].g.node[0].SerializeToString()
    for _ in range(depth):
        branch = onnx.GraphProto(name="b", output=[VALUE("a", 1, [2])])
        other = branch.SerializeToString()
        head = onnx.NodeProto(op_type="If", input=["c"], output=["a"], name="deep")
        data = head.SerializeToString()
        for key in ("then_branch", "else_branch"):
            graph = other + _field(1, inner)
            kind = AttributeProto(name=key, type=AttributeProto.GRAPH)
            data += _field(5, kind.SerializeToString() + _field(6, graph))
            inner = helper.make_node("Neg", ["x"], ["a"]).SerializeToString()
        inner = data
    graph = proto.graph
    del graph.node[:]
    graph.output[0].name = "a"
    head = ModelProto(ir_version=8, opset_import=proto.opset_import).SerializeToString()
    return head + _field(7, graph.SerializeToString() + _field(1, inner))


def _field(number: int, data: bytes) -> bytes:
    """A protobuf field of bytes."""
    size, head = len(data), bytes([number << 3 | 2])
    while size >= 128:
        head += bytes([size & 127 | 128])
        size >>= 7
    return head + bytes([size]) + data


def test_graphs_nested_as_deep_as_protobuf_goes(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(_nested(20))
    load(path)
    path.write_bytes(_nested(500))
    with pytest.raises(InputError) as caught:
        load(path)
    assert "nested too deeply" in caught.value.hint


# Paths


OUTSIDE = [
    "../canary.bin",
    "sub/../../canary.bin",
    "./../canary.bin",
    "sub/../../inner/../canary.bin",
]
OUTSIDE += ["/etc/passwd", "//etc/passwd", "/proc/self/environ", "../../../../../../etc/passwd"]
OUTSIDE += ["link.bin", "linked/canary.bin", "sub/up/canary.bin", "twice.bin", ".."]
ABSENT = [
    "..\\canary.bin",
    "%2e%2e/canary.bin",
    "~/canary.bin",
    "file:///etc/passwd",
    "nowhere.bin",
]
ABSENT += ["pipe.bin", "sub", ".", "W.BIN", "w.bin/", "w.bin/../w.bin", "dangling.bin", "x" * 5000]
UNREADABLE = ["", "w.bin\0", "\0", "../canary.bin\0w.bin", "circle.bin"]


@pytest.fixture(scope="module")
def trap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder full of ways out of it."""
    place = tmp_path_factory.mktemp("trap")
    inner = place / "inner"
    (inner / "sub").mkdir(parents=True)
    (place / "canary.bin").write_bytes(bytes(256))
    (inner / "w.bin").write_bytes(bytes(256))
    (inner / "link.bin").symlink_to(place / "canary.bin")
    (inner / "linked").symlink_to(place)
    (inner / "sub" / "up").symlink_to("../..")
    (inner / "twice.bin").symlink_to("link.bin")
    (inner / "dangling.bin").symlink_to("nowhere.bin")
    (inner / "circle.bin").symlink_to("circle.bin")
    os.mkfifo(inner / "pipe.bin")
    return inner


def external(location: str, **more: str) -> ModelProto:
    proto = plain()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "length": "128", **more}.items():
        tensor.external_data.add(key=key, value=value)
    return proto


@pytest.mark.parametrize("location", OUTSIDE)
def test_a_path_that_leaves_the_folder(location: str, trap: Path) -> None:
    found = error(external(location), trap)
    assert f"weight 'w' points outside the model's folder: {location}" in found.message
    assert "do not use this file" in found.hint


@pytest.mark.parametrize("location", ABSENT)
def test_a_path_to_no_file(location: str, trap: Path) -> None:
    found = error(external(location), trap)
    assert "is missing" in found.message
    assert "beside the model" in found.hint


@pytest.mark.parametrize("location", UNREADABLE)
def test_a_path_that_is_none(location: str, trap: Path) -> None:
    found = error(external(location), trap)
    assert "weight 'w' has a path that" in found.message


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"offset": "-8"}, "has offset '-8'"),
        ({"length": "-1"}, "has length '-1'"),
        ({"length": "64"}, "ends before weight 'w'"),
        ({"offset": "200"}, "ends before weight 'w'"),
        ({"offset": str(1 << 63)}, "ends before weight 'w'"),
        ({"length": "9" * 30}, "ends before weight 'w'"),
        ({"offset": "x"}, "weight 'w' is damaged: its place in a file has offset 'x'"),
        ({"length": "1e3"}, "has length '1e3'"),
    ],
)
def test_a_place_in_a_file_that_is_none(more: dict[str, str], message: str, trap: Path) -> None:
    assert message in error(external("w.bin", **more), trap).message


@pytest.mark.parametrize("dims", [[-4, 8], [1 << 40, 8], [-4, -8]])
def test_a_weight_outside_of_all_measure(dims: list[int], trap: Path) -> None:
    proto = external("w.bin")
    proto.graph.initializer[0].dims[:] = dims
    found = error(proto, trap)
    assert "weight 'w'" in found.message


@pytest.mark.parametrize("kind", [TensorProto.STRING, TensorProto.UNDEFINED])
def test_a_type_that_cannot_lie_in_a_file(kind: int, trap: Path) -> None:
    proto = external("w.bin")
    proto.graph.node[1].input[1] = "b"  # so that its type is not what is wrong
    proto.graph.initializer[0].data_type = kind
    assert "weight 'w' is damaged" in error(proto, trap).message


def test_what_lies_inside_is_read_from_there(trap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the current folder is: also weights of a function, which onnx_ir reads from it."""
    path = trap / "model.onnx"
    proto = external("sub/../w.bin")
    constant = TensorProto(name="k", data_type=1, dims=[8], data_location=TensorProto.EXTERNAL)
    constant.external_data.add(key="location", value="w.bin")
    nodes = [
        helper.make_node("Constant", [], ["k"], value=constant),
        helper.make_node("Add", ["a", "k"], ["b"]),
    ]
    opsets = [helper.make_opsetid("", 17)]
    proto.functions.append(helper.make_function("own", "F", ["a"], ["b"], nodes, opsets))
    proto.opset_import.append(helper.make_opsetid("own", 1))
    proto.graph.node[0].CopyFrom(helper.make_node("F", ["x"], ["h"], "first", domain="own"))
    path.write_bytes(proto.SerializeToString())
    other = trap.parent / "elsewhere"
    other.mkdir()
    (other / "w.bin").write_bytes(b"\xff" * 256)
    monkeypatch.chdir(other)
    found = small.canonical(load(path).model)
    sums = [node for node in found.model.graph if node.op_type == "Add"]
    assert [float(v.const_value.numpy().max()) for n in sums for v in n.inputs[1:]] == [0.0]
