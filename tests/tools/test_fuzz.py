"""The fuzzer sees what it looks for, makes the same mutants again; what it found once is mended."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import graphs
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "fuzzing"))

import fuzz
import mutants
import pipeline
from edits import EDITS

from edgec import validate

MOST_MEGABYTES = 1024  # of a process that has imported everything, and of what it forked from
SMALL = ("cnn_opset9", "mlp", "function", "lstm", "float16_io", "if_capture")
VALUE = helper.make_tensor_value_info


@pytest.fixture(scope="module")
def bases() -> dict[str, dict[str, bytes]]:
    good = {name: graphs.path(name).read_bytes() for name in SMALL}
    bad = {path.stem: path.read_bytes() for path in sorted(graphs.HOSTILE.glob("*.onnx"))}
    return {"fixture": good, "node": good, "light": good, "hostile": bad}


@pytest.fixture
def folder(tmp_path: Path) -> fuzz.Folder:
    return fuzz.Folder(tmp_path)


def test_the_same_numbers_make_the_same_mutant(bases: dict[str, dict[str, bytes]]) -> None:
    first = [mutants.make(bases, 3, number) for number in range(40)]
    assert first == [mutants.make(bases, 3, number) for number in range(40)]
    assert first != [mutants.make(bases, 4, number) for number in range(40)]


def test_a_step_less_leaves_the_others_as_they_were(bases: dict[str, dict[str, bytes]]) -> None:
    number = next(n for n in range(200) if len(mutants.make(bases, 3, n).recipe) >= 3)
    whole = mutants.make(bases, 3, number)
    assert mutants.make(bases, 3, number, [-1, *range(9)]) == whole
    fewer = mutants.make(bases, 3, number, [-1, *range(1, 9)])
    assert fewer.recipe == whole.recipe[1:]


def test_every_edit_finds_something_to_change() -> None:
    """On one of the fixtures at least; and what it leaves can be written."""
    idle = set(EDITS)
    for name in ("function", "if_capture", "cnn"):
        data = graphs.path(name).read_bytes()
        for key in EDITS:
            for attempt in range(4):
                model = onnx.load_from_string(data)
                changed = EDITS[key](model, Random(f"{name}/{key}/{attempt}"))
                if changed and model.SerializeToString() != data:
                    idle.discard(key)
    assert idle == set()


def test_mutants_of_small_models(bases: dict[str, dict[str, bytes]], folder: fuzz.Folder) -> None:
    results = [fuzz.run(folder, mutants.make(bases, 11, number), 11) for number in range(60)]
    assert [r for r in results if r["finding"]] == []
    assert sum(r["parses"] for r in results) >= 30
    stages = Counter(r["stage"] for r in results)
    assert stages["load"] >= 3
    assert stages["planned"] >= 3
    assert stages["written"] >= 1
    told = fuzz.figures(results)
    assert told.startswith("60 mutants, ")
    assert told.endswith("findings: none")


# What it must see


def _crash(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _leave(*_: Any) -> None:
    os._exit(3)


def _sleep(*_: Any) -> None:
    time.sleep(100)


def _spin(*_: Any) -> None:
    while True:
        pass


def _fail(*_: Any) -> None:
    raise ValueError("oh")


def _run_out_of_memory(*_: Any) -> None:
    np.ones(pipeline.MEMORY, np.float64)


def _read_outside(*_: Any) -> None:
    with open("/etc/hostname") as stream:
        stream.read()


def _connect(*_: Any) -> None:
    with socket.socket() as one:
        one.settimeout(0.1)
        one.connect(("127.0.0.1", 9))


@pytest.mark.parametrize(
    ("deed", "finding", "word"),
    [
        (_crash, "crash", "SIGSEGV"),
        (_leave, "crash", "exit 3"),
        (_sleep, "hang", "in start"),
        (_spin, "hang", "in start"),
        (_fail, "traceback", "ValueError: oh"),
        (_run_out_of_memory, "traceback", "MemoryError"),
        (_read_outside, "outside", "/etc/hostname"),
        (_connect, "outside", "socket.connect"),
    ],
)
def test_it_sees(
    deed: Callable[..., None],
    finding: str,
    word: str,
    folder: fuzz.Folder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline, "_run", deed)
    monkeypatch.setattr(pipeline, "PATIENCE", 1.5)
    monkeypatch.setattr(pipeline, "SECONDS", 1)
    folder.model.write_bytes(b"")
    result = pipeline.examine(folder.model, 0, False)
    assert result["finding"] == finding
    assert word in result["error"]


def test_it_sees_the_canary_opened_by_whomever(folder: fuzz.Folder) -> None:
    assert not folder.touched()
    (folder.inner / "hard.bin").stat()
    assert not folder.touched()
    os.close(os.open(folder.inner / "hard.bin", os.O_RDONLY))
    assert folder.touched()
    assert not folder.touched()


# What it found once


def _model(
    nodes: list[onnx.NodeProto],
    weights: list[TensorProto] = [],  # noqa: B006
    functions: list[onnx.FunctionProto] = [],  # noqa: B006
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes, "g", [VALUE("x", 1, ["n", 3, 8, 8])], [VALUE("y", 1, None)], weights
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=8)


def clip_between_many() -> onnx.ModelProto:
    """Bounds of Clip that are no scalars, behind an INT8 convolution."""
    weight = onnx.numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")
    bounds = onnx.numpy_helper.from_array(np.array([0, 1], np.float32), "low")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv"),
        helper.make_node("Clip", ["c", "low"], ["y"], "clip"),
    ]
    return _model(nodes, [weight, bounds])


def constant_of_nothing() -> onnx.ModelProto:
    """A Constant without a value."""
    nodes = [
        helper.make_node("Constant", [], ["k"], "constant"),
        helper.make_node("Add", ["x", "k"], ["y"], "add"),
    ]
    return _model(nodes)


def function_out_of_order() -> onnx.ModelProto:
    """A function whose nodes stand before those that they read."""
    inner = [helper.make_node("Neg", ["t"], ["b"]), helper.make_node("Relu", ["a"], ["t"])]
    opsets = [helper.make_opsetid("", 17)]
    function = helper.make_function("own", "F", ["a"], ["b"], inner, opsets)
    return _model([helper.make_node("F", ["x"], ["y"], "call", domain="own")], [], [function])


def tensor_of_no_type() -> onnx.ModelProto:
    """A constant of a data type that there is not; onnx_ir asks it for its size."""
    tensor = TensorProto(name="k", data_type=-1, dims=[2], raw_data=b"\0" * 8)
    nodes = [
        helper.make_node("Constant", [], ["k"], "constant", value=tensor),
        helper.make_node("Add", ["x", "k"], ["y"], "add"),
    ]
    return _model(nodes)


def texts_as_a_weight() -> onnx.ModelProto:
    """A convolution whose weight is texts, though the graph declares it as float."""
    weight = helper.make_tensor("w", TensorProto.STRING, [1], [b"a"])
    made = _model([helper.make_node("Conv", ["x", "w"], ["y"], "conv")], [weight])
    made.graph.value_info.append(VALUE("w", TensorProto.FLOAT, [4, 3, 3, 3]))
    return made


def weight_of_a_gigabyte() -> onnx.ModelProto:
    """Fifty bytes that ask for a weight of 1 GB, as which it was written out several times."""
    sizes = onnx.numpy_helper.from_array(np.array([1 << 28]), "sizes")
    nodes = [
        helper.make_node("ConstantOfShape", ["sizes"], ["w"], "fill"),
        helper.make_node("Conv", ["x", "w"], ["y"], "conv"),
    ]
    return _model(nodes, [sizes])


def expand_to_gigabytes() -> onnx.ModelProto:
    """One number, repeated 2^28 times by Expand, Tile and Range before an addition."""
    sizes = onnx.numpy_helper.from_array(np.array([1 << 28]), "sizes")
    many = onnx.numpy_helper.from_array(np.array(1 << 28, np.int64), "many")
    ones = [onnx.numpy_helper.from_array(np.ones(1, np.float32), "one")]
    ones += [onnx.numpy_helper.from_array(np.array(i, np.int64), f"i{i}") for i in (0, 1)]
    nodes = [
        helper.make_node("Expand", ["one", "sizes"], ["a"], "expand"),
        helper.make_node("Tile", ["one", "sizes"], ["b"], "tile"),
        helper.make_node("Range", ["i0", "many", "i1"], ["r"], "range"),
        helper.make_node("Cast", ["r"], ["f"], "cast", to=1),
        helper.make_node("Sum", ["x", "a", "b", "f"], ["y"], "sum"),
    ]
    return _model(nodes, [sizes, many, *ones])


def channels_without_end() -> onnx.ModelProto:
    """Declared sizes and groups of 2^31 that a rewrite would fill a constant of."""
    weights = {"s": np.ones(4), "b": np.ones(4), "g": np.float32(2), "e": np.float32(1e-5)}
    made = [onnx.numpy_helper.from_array(np.float32(v), k) for k, v in weights.items()]
    nodes = [
        helper.make_node("GroupNormalization", ["x", "s", "b"], ["n"], "n", num_groups=1 << 31),
        helper.make_node("Expand", ["n", "shape"], ["h"], "huge"),
        helper.make_node("Mul", ["h", "h"], ["q"], "square"),
        helper.make_node("ReduceMean", ["q", "last"], ["m"], "mean"),
        helper.make_node("Add", ["m", "e"], ["a"], "add"),
        helper.make_node("Sqrt", ["a"], ["r"], "root"),
        helper.make_node("Div", ["h", "r"], ["u"], "unit"),
        helper.make_node("Mul", ["u", "g"], ["y"], "scale"),
    ]
    sizes = onnx.numpy_helper.from_array(np.array([1, 3, 8, 1 << 31]), "shape")
    last = onnx.numpy_helper.from_array(np.array([-1]), "last")
    found = _model(nodes, [*made, sizes, last])
    found.opset_import[0].version = 23
    return found


def tile_to_terabytes() -> onnx.ModelProto:
    """A Tile of 2^40 and shapes behind it: onnx propagated each of its numbers."""
    sizes = onnx.numpy_helper.from_array(np.array([1 << 40]), "sizes")
    ones = [onnx.numpy_helper.from_array(np.ones(1, np.float32), "one")]
    ones += [onnx.numpy_helper.from_array(np.array([1]), "one_size")]
    nodes = [
        helper.make_node("Tile", ["one", "sizes"], ["a"], "tile"),
        helper.make_node("Tile", ["one_size", "sizes"], ["i"], "tile_sizes"),
        helper.make_node("Cast", ["i"], ["f"], "cast", to=1),
        helper.make_node("Sum", ["x", "a", "f"], ["y"], "sum"),
    ]
    return _model(nodes, [sizes, *ones])


def texts_that_fold() -> onnx.ModelProto:
    """Constants of text, joined and compared: onnx_ir knows no size of them."""
    text = helper.make_tensor("s", onnx.TensorProto.STRING, [2], [b"a", b"b"])
    nodes = [
        helper.make_node("Concat", ["s", "s"], ["t"], "join", axis=0),
        helper.make_node("Equal", ["t", "t"], ["e"], "same"),
        helper.make_node("Cast", ["e"], ["f"], "cast", to=1),
        helper.make_node("ReduceMax", ["f"], ["m"], "most"),
        helper.make_node("Add", ["x", "m"], ["y"], "sum"),
    ]
    return _model(nodes, [text])


def text_given_to_a_function() -> onnx.ModelProto:
    """A text that a function multiplies by, which was quantized as a weight."""
    text = helper.make_tensor("w", onnx.TensorProto.STRING, [64, 64], [b"a"] * 64**2)
    found = _model([helper.make_node("Times", ["x", "w"], ["y"], "call", domain="own")], [text])
    found.opset_import.append(helper.make_opsetid("own", 1))
    inner = [helper.make_node("MatMul", ["a", "b"], ["c"], "inner")]
    opsets = [helper.make_opsetid("", found.opset_import[0].version)]
    found.functions.append(helper.make_function("own", "Times", ["a", "b"], ["c"], inner, opsets))
    return found


def sum_said_to_be_a_text() -> onnx.ModelProto:
    """A number between towers that is declared as a text: the narrowest cut asks for its size."""
    found = onnx.load(graphs.path("trimodal_cross"))
    said = helper.make_tensor_value_info("/ReduceSum_1_output_0", TensorProto.STRING, [])
    found.graph.value_info.append(said)
    return found


def constant_that_a_function_would_fill() -> onnx.ModelProto:
    """A Constant of the graph whose value refers to a function's attribute, and one of no type."""
    found = _model([helper.make_node("Add", ["x", "k"], ["y"], "add")], [])
    constant = helper.make_node("Constant", [], ["k"], "constant")
    value = constant.attribute.add(name="value", type=onnx.AttributeProto.TENSOR)
    value.ref_attr_name = "alpha"
    found.graph.node.insert(0, constant)
    return found


def constant_of_no_type() -> onnx.ModelProto:
    """A Constant whose tensor says no type; onnx_ir knows no size of it."""
    constant = helper.make_node("Constant", [], ["k"], "constant")
    value = constant.attribute.add(name="value", type=onnx.AttributeProto.TENSOR)
    value.t.dims.append(1)
    found = _model([helper.make_node("Add", ["x", "k"], ["y"], "add")], [])
    found.graph.node.insert(0, constant)
    return found


def slices_from_terabytes() -> onnx.ModelProto:
    """Where a Slice begins is a vector of 2^40: onnx kept a dimension for each of its numbers."""
    sizes = onnx.numpy_helper.from_array(np.array([1 << 40]), "sizes")
    one = onnx.numpy_helper.from_array(np.array([1]), "one")
    nodes = [
        helper.make_node("Expand", ["one", "sizes"], ["start"], "expand"),
        helper.make_node("Slice", ["x", "start", "one"], ["y"], "slice"),
    ]
    return _model(nodes, [sizes, one])


def weight_filled_with_text() -> onnx.ModelProto:
    """A weight as a ConstantOfShape of text, behind a declaration that says float."""
    sizes = onnx.numpy_helper.from_array(np.array([3]), "sizes")
    filling = helper.make_tensor("a", TensorProto.STRING, [1], [b"a"])
    names = ["scale", "shift", "mean", "variance"]
    nodes = [
        helper.make_node("ConstantOfShape", ["sizes"], [name], f"fill_{name}", value=filling)
        for name in names
    ]
    nodes += [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv"),
        helper.make_node("BatchNormalization", ["c", *names], ["y"], "norm"),
    ]
    weight = onnx.numpy_helper.from_array(np.ones([3, 3, 1, 1], np.float32), "w")
    made = _model(nodes, [sizes, weight])
    made.graph.value_info.extend(VALUE(name, TensorProto.FLOAT, [3]) for name in names)
    return made


def name_without_end() -> onnx.ModelProto:
    """A node that no runtime knows, of a name as long as names may be; the refusal repeated it."""
    name = "x" * validate.LONGEST_NAME
    made = _model([helper.make_node("TensorScatter", ["x", "x"], ["y"], name)])
    made.opset_import[0].version = 24
    return made


def slice_of_less_than_nothing() -> onnx.ModelProto:
    """A Slice of what is declared to be -1 long; onnx ends the process."""
    ends = [onnx.numpy_helper.from_array(np.array([n]), f"i{n}") for n in (0, 9)]
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], "flat"),
        helper.make_node("Slice", ["flat", "i0", "i9"], ["y"], "slice"),
    ]
    made = _model(nodes, ends)
    made.graph.value_info.append(VALUE("flat", TensorProto.FLOAT, [-1, 192]))
    return made


def metadata_in_latin_1() -> onnx.ModelProto:
    """A node's metadata that is not UTF-8, which no model could be written with."""
    made = _model([helper.make_node("Relu", ["x"], ["y"], "relu")])
    made.graph.node[0].metadata_props.add(key="nameispace", value="a")
    data = made.SerializeToString().replace(b"nameispace", b"nam\xe5ispace"[:10])
    return onnx.ModelProto.FromString(data)


def flag_of_many_bits() -> onnx.ModelProto:
    """A Gemm whose transB is neither 0 nor 1; it was taken for the number of an axis."""
    weight = onnx.numpy_helper.from_array(np.ones([192, 192], np.float32), "w")
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], "flat"),
        helper.make_node("Gemm", ["flat", "w"], ["y"], "gemm", transB=64),
    ]
    return _model(nodes, [weight])


def branch_with_data_beside_it() -> onnx.ModelProto:
    """A Constant in a branch whose data lie beside the model; it was read from where edgec ran."""

    def branch(name: str) -> onnx.GraphProto:
        held = TensorProto(name="k", data_type=TensorProto.FLOAT, dims=[8])
        held.data_location = TensorProto.EXTERNAL
        held.external_data.add(key="location", value="w.bin")
        nodes = [
            helper.make_node("Constant", [], [f"{name}_k"], f"{name}_constant", value=held),
            helper.make_node("Add", ["x", f"{name}_k"], [name], f"{name}_add"),
        ]
        return helper.make_graph(nodes, name, [], [VALUE(name, TensorProto.FLOAT, None)])

    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], "most", keepdims=0),
        helper.make_node("Cast", ["most"], ["any"], "cast", to=TensorProto.BOOL),
        helper.make_node(
            "If", ["any"], ["y"], "if", then_branch=branch("t"), else_branch=branch("e")
        ),
    ]
    made = _model(nodes)
    made.opset_import[0].version = 16  # lifted by a converter that knows protobuf alone
    return made


def text_among_sizes() -> onnx.ModelProto:
    """Sizes of which one is a text, and the others follow; what they fold to was no tensor."""
    text = helper.make_tensor("s", TensorProto.STRING, [1], [b"a"])
    numbers = [onnx.numpy_helper.from_array(np.array([n]), f"i{n}") for n in (1, 2)]
    nodes = [
        helper.make_node("Constant", [], ["s"], "text", value=text),
        helper.make_node("Shape", ["x"], ["all"], "shape"),
        helper.make_node("Slice", ["all", "i1", "i2"], ["three"], "slice"),
        helper.make_node("Concat", ["three", "s", "i1"], ["t"], "join", axis=0),
        helper.make_node("Reshape", ["x", "t"], ["y"], "reshape"),
    ]
    return _model(nodes, numbers)


def function_of_no_opset() -> onnx.ModelProto:
    """A function whose operators are of an opset far below zero."""
    made = function_out_of_order()
    made.functions[0].opset_import[0].version = -(1 << 62)
    return made


FOUND = [
    text_among_sizes,
    function_of_no_opset,
    branch_with_data_beside_it,
    flag_of_many_bits,
    slice_of_less_than_nothing,
    metadata_in_latin_1,
    slices_from_terabytes,
    weight_filled_with_text,
    name_without_end,
    constant_that_a_function_would_fill,
    constant_of_no_type,
    sum_said_to_be_a_text,
    tile_to_terabytes,
    texts_that_fold,
    weight_of_a_gigabyte,
    expand_to_gigabytes,
    channels_without_end,
]
FOUND += [clip_between_many, constant_of_nothing, function_out_of_order, tensor_of_no_type]
FOUND += [texts_as_a_weight, text_given_to_a_function]


@pytest.mark.parametrize("recipe", FOUND, ids=lambda one: one.__name__)
@pytest.mark.parametrize("number", [3, 1, 2])  # with data and without, on three targets
def test_what_was_found_once(
    recipe: Callable[[], onnx.ModelProto], number: int, folder: fuzz.Folder
) -> None:
    folder.model.write_bytes(recipe().SerializeToString())
    result = pipeline.examine(folder.model, number, number == 1)
    assert result["finding"] == "", result
    assert result["megabytes"] < MOST_MEGABYTES
    assert not folder.touched()
