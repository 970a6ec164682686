"""What can be wrong with an ONNX file: small edits of the protobuf, each with a name.

An edit takes a model and a source of randomness, changes the model in place, and says whether it
found anything to change. What is not protobuf at all comes from `damage`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from random import Random

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

Edit = Callable[[ModelProto, Random], bool]
EDITS: dict[str, Edit] = {}

INTEGERS = (0, 1, -1, 2, -2, 7, 1 << 20, 1 << 31, -(1 << 31), 1 << 62, -(1 << 62), (1 << 63) - 1)
FLOATS = (0.0, -1.0, 1e30, float("nan"), float("inf"), -float("inf"))
NAMES = (
    "",
    " ",
    "../../x",
    "/etc/passwd",
    "<script>alert(1)</script>",
    "a\0b",
    "é" * 9,
    "x" * 5000,
)
# The folder of a mutant holds w.bin, links that leave it, a hard link and a pipe.
LOCATIONS = (
    ("w.bin", "./w.bin", "sub/../w.bin", "model.onnx", "nowhere.bin", "w.bin\0", "", ".", "..")
    + ("../canary.bin", "../../etc/passwd", "sub/../../canary.bin", "link.bin", "linked/canary.bin")
    + ("/etc/passwd", "/proc/self/environ", "/dev/zero", "//etc/passwd", "file:///etc/passwd")
    + ("hard.bin", "pipe.bin", "..\\canary.bin", "%2e%2e/canary.bin", "~/canary.bin", "x" * 5000)
)
PLACES = ("0", "8", "-8", "65536", "65537", "99999999999999999999", str(1 << 63), "x", "", "1e3")


def edit(function: Edit) -> Edit:
    """Add an edit under its own name."""
    EDITS[function.__name__] = function
    return function


def graphs(model: ModelProto) -> list[GraphProto]:
    """The main graph and all graphs inside of nodes, those of functions included."""
    found = [model.graph]
    stack = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while stack:
        for attribute in stack.pop().attribute:
            for graph in (attribute.g, *attribute.graphs):
                if graph.ByteSize():
                    found.append(graph)
                    stack.extend(graph.node)
    return found


def bodies(model: ModelProto) -> list[GraphProto | onnx.FunctionProto]:
    """Whatever holds nodes."""
    return [*(g for g in graphs(model) if g.node), *(f for f in model.functions if f.node)]


def _node(model: ModelProto, rng: Random) -> NodeProto | None:
    found = bodies(model)
    return rng.choice(rng.choice(found).node) if found else None


def _values(model: ModelProto) -> list[str]:
    names = [tensor.name for tensor in model.graph.initializer]
    names += [value.name for value in model.graph.input]
    return names + [name for body in bodies(model) for node in body.node for name in node.output]


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    for graph in graphs(model):
        yield from graph.initializer
    for body in bodies(model):
        for node in body.node:
            for attribute in node.attribute:
                if attribute.type == AttributeProto.TENSOR:
                    yield attribute.t


def _tensor(model: ModelProto, rng: Random) -> TensorProto | None:
    found = list(_tensors(model))
    return rng.choice(found) if found else None


def _declared(model: ModelProto, rng: Random) -> ValueInfoProto | None:
    found = [v for g in graphs(model) for v in (*g.input, *g.output, *g.value_info)]
    return rng.choice(found) if found else None


def _attribute(model: ModelProto, rng: Random) -> AttributeProto | None:
    found = [a for body in bodies(model) for node in body.node for a in node.attribute]
    return rng.choice(found) if found else None


# Edges


@edit
def swap_inputs(model: ModelProto, rng: Random) -> bool:
    node = _node(model, rng)
    if node is None or len(node.input) < 2:
        return False
    one, other = rng.sample(range(len(node.input)), 2)
    node.input[one], node.input[other] = node.input[other], node.input[one]
    return True


@edit
def rewire_input(model: ModelProto, rng: Random) -> bool:
    node = _node(model, rng)
    if node is None or not node.input:
        return False
    node.input[rng.randrange(len(node.input))] = rng.choice([*_values(model), "", "nothing"])
    return True


@edit
def change_number_of_inputs(model: ModelProto, rng: Random) -> bool:
    node = _node(model, rng)
    if node is None:
        return False
    if node.input and rng.random() < 0.5:
        del node.input[rng.randrange(len(node.input))]
    else:
        node.input.extend(rng.choices(_values(model) or [""], k=rng.choice((1, 2, 40))))
    return True


@edit
def change_number_of_outputs(model: ModelProto, rng: Random) -> bool:
    node = _node(model, rng)
    if node is None:
        return False
    if node.output and rng.random() < 0.5:
        del node.output[rng.randrange(len(node.output))]
    else:
        node.output.append(rng.choice(["", "another", *_values(model)]))
    return True


@edit
def rewire_output(model: ModelProto, rng: Random) -> bool:
    node = _node(model, rng)
    if node is None or not node.output:
        return False
    node.output[rng.randrange(len(node.output))] = rng.choice([*_values(model), "", "elsewhere"])
    return True


# Nodes


@edit
def delete_node(model: ModelProto, rng: Random) -> bool:
    found = bodies(model)
    if not found:
        return False
    body = rng.choice(found)
    del body.node[rng.randrange(len(body.node))]
    return True


@edit
def repeat_node(model: ModelProto, rng: Random) -> bool:
    found = bodies(model)
    if not found:
        return False
    body = rng.choice(found)
    node = NodeProto()
    node.CopyFrom(rng.choice(body.node))
    if rng.random() < 0.7:
        node.output[:] = [f"{name}_again" for name in node.output]
    body.node.insert(rng.randrange(len(body.node) + 1), node)
    return True


@edit
def move_node(model: ModelProto, rng: Random) -> bool:
    found = [body for body in bodies(model) if len(body.node) > 1]
    if not found:
        return False
    body = rng.choice(found)
    node = body.node.pop(rng.randrange(len(body.node)))
    body.node.insert(rng.randrange(len(body.node) + 1), node)
    return True


@edit
def change_operator(model: ModelProto, rng: Random) -> bool:
    node = _node(model, rng)
    if node is None:
        return False
    node.op_type = rng.choice([*_operators(), "", "Nonsense"])
    return True


@functools.cache
def _operators() -> list[str]:
    return sorted({schema.name for schema in onnx.defs.get_all_schemas()})


@edit
def change_domain(model: ModelProto, rng: Random) -> bool:
    node = _node(model, rng)
    if node is None:
        return False
    node.domain = rng.choice(["ai.onnx", "com.microsoft", "ai.onnx.ml", "acme", " ", "x" * 999])
    return True


@edit
def rename_node(model: ModelProto, rng: Random) -> bool:
    node, other = _node(model, rng), _node(model, rng)
    if node is None or other is None:
        return False
    node.name = rng.choice([*NAMES, other.name])
    return True


# Attributes


@edit
def change_attribute(model: ModelProto, rng: Random) -> bool:
    found = _attribute(model, rng)
    if found is None:
        return False
    if found.type == AttributeProto.INT:
        found.i = rng.choice(INTEGERS)
    elif found.type == AttributeProto.FLOAT:
        found.f = rng.choice(FLOATS)
    elif found.type == AttributeProto.STRING:
        found.s = rng.choice([b"", b"\xff\xfe", b"SAME_UPPER", b"linear", b"i,j->k" * 99])
    elif found.type == AttributeProto.INTS:
        found.ints[:] = rng.choices(INTEGERS, k=rng.choice((0, 1, len(found.ints), 9)))
    elif found.type == AttributeProto.FLOATS:
        found.floats[:] = rng.choices(FLOATS, k=rng.choice((0, 1, len(found.floats))))
    else:
        return False
    return True


@edit
def confuse_attribute(model: ModelProto, rng: Random) -> bool:
    found = _attribute(model, rng)
    if found is None:
        return False
    found.type = rng.choice(range(15))  # type: ignore[assignment]
    return True


@edit
def replace_attribute(model: ModelProto, rng: Random) -> bool:
    found = _attribute(model, rng)
    if found is None:
        return False
    tensor = onnx.helper.make_tensor("t", TensorProto.FLOAT, [2], [0.0, 1.0])
    values = ["text", 1, 1.5, [1, 2], [0.5], ["a"], tensor, model.graph]
    found.CopyFrom(onnx.helper.make_attribute(found.name or "a", rng.choice(values)))
    return True


@edit
def drop_attribute(model: ModelProto, rng: Random) -> bool:
    node = _node(model, rng)
    if node is None or not node.attribute:
        return False
    del node.attribute[rng.randrange(len(node.attribute))]
    return True


@edit
def rename_attribute(model: ModelProto, rng: Random) -> bool:
    found, other = _attribute(model, rng), _attribute(model, rng)
    if found is None or other is None:
        return False
    found.name = rng.choice([*NAMES, other.name])
    return True


@edit
def refer_attribute(model: ModelProto, rng: Random) -> bool:
    found = _attribute(model, rng)
    if found is None:
        return False
    found.ref_attr_name = rng.choice(["alpha", found.name, ""])
    return True


@edit
def add_attribute(model: ModelProto, rng: Random) -> bool:
    node = _node(model, rng)
    if node is None:
        return False
    names = ["axis", "axes", "perm", "to", "group", "value", "shape", "alpha", "pads", "num_groups"]
    value = rng.choice([*INTEGERS[:8], [], [0, 0], [1 << 62], "x", 1.0])
    kind = AttributeProto.INTS if value == [] else None
    node.attribute.append(onnx.helper.make_attribute(rng.choice(names), value, attr_type=kind))
    return True


# Shapes and types


@edit
def change_dimension(model: ModelProto, rng: Random) -> bool:
    found = _declared(model, rng)
    if found is None or not found.type.tensor_type.shape.dim:
        return False
    dim = rng.choice(found.type.tensor_type.shape.dim)
    if rng.random() < 0.6:
        dim.dim_value = rng.choice(INTEGERS)
    else:
        dim.dim_param = rng.choice([*NAMES, "batch", "2*n+1", "-1"])
    return True


@edit
def change_rank(model: ModelProto, rng: Random) -> bool:
    found = _declared(model, rng)
    if found is None or found.type.WhichOneof("value") != "tensor_type":
        return False
    kind = found.type.tensor_type
    what = rng.randrange(4)
    if what == 0:
        kind.ClearField("shape")
    elif what == 1:
        kind.shape.ClearField("dim")
    elif what == 2:
        for size in rng.choices(INTEGERS, k=rng.choice((1, 2, 70))):
            kind.shape.dim.add(dim_value=size)
    else:
        kind.shape.dim.add()
    return True


@edit
def change_type(model: ModelProto, rng: Random) -> bool:
    found = _declared(model, rng)
    if found is None:
        return False
    what = rng.randrange(5)
    if what == 0:
        found.ClearField("type")
    elif what == 1:
        tensor = onnx.helper.make_tensor_type_proto(TensorProto.FLOAT, [1])
        found.type.CopyFrom(onnx.helper.make_sequence_type_proto(tensor))
    elif what == 2:
        found.type.map_type.key_type = TensorProto.STRING
    else:
        found.type.tensor_type.elem_type = rng.choice([*range(27), 99, -1])
    return True


@edit
def drop_declarations(model: ModelProto, rng: Random) -> bool:
    graph = rng.choice(graphs(model))
    graph.ClearField("value_info")
    return True


@edit
def declare_wrongly(model: ModelProto, rng: Random) -> bool:
    name = rng.choice(_values(model) or ["x"])
    shape = rng.choice([[], [1], [2, 3], [1 << 62] * 2, ["n", 4], None])
    kind = rng.choice([TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING, TensorProto.BOOL])
    model.graph.value_info.append(onnx.helper.make_tensor_value_info(name, kind, shape))
    return True


# Weights


@edit
def change_tensor_dims(model: ModelProto, rng: Random) -> bool:
    found = _tensor(model, rng)
    if found is None:
        return False
    if found.dims and rng.random() < 0.7:
        found.dims[rng.randrange(len(found.dims))] = rng.choice(INTEGERS)
    else:
        found.dims[:] = rng.choice([[], [1], list(reversed(found.dims)), [0], [1 << 40, 1 << 40]])
    return True


@edit
def change_tensor_type(model: ModelProto, rng: Random) -> bool:
    found = _tensor(model, rng)
    if found is None:
        return False
    found.data_type = rng.choice([*range(28), 99, -1])
    return True


@edit
def change_tensor_data(model: ModelProto, rng: Random) -> bool:
    found = _tensor(model, rng)
    if found is None:
        return False
    what = rng.randrange(5)
    if what == 0:
        found.raw_data = found.raw_data[: rng.randrange(len(found.raw_data) + 1)]
    elif what == 1:
        found.raw_data = found.raw_data + b"\0" * rng.choice((1, 4, 64))
    elif what == 2:
        found.float_data.extend([0.5] * rng.choice((1, 4)))
    elif what == 3:
        found.raw_data = b"\xff" * len(found.raw_data)
    else:
        found.string_data.extend([b"\xff", b"text"])
    return True


@edit
def make_string_tensor(model: ModelProto, rng: Random) -> bool:
    found = _tensor(model, rng)
    if found is None:
        return False
    name = found.name
    texts = [b"a", "é".encode(), b"\xff"][: rng.choice((1, 2, 3))]
    found.CopyFrom(TensorProto(name=name, data_type=TensorProto.STRING, dims=[len(texts)]))
    found.string_data.extend(texts)
    return True


@edit
def make_external(model: ModelProto, rng: Random) -> bool:
    found = _tensor(model, rng)
    if found is None:
        return False
    for field in ("raw_data", "float_data", "int64_data", "int32_data", "external_data"):
        if rng.random() < 0.9:
            found.ClearField(field)
    found.data_location = TensorProto.EXTERNAL
    if rng.random() < 0.95:
        found.external_data.add(key="location", value=rng.choice(LOCATIONS))
    for key in ("offset", "length", "checksum"):
        if rng.random() < 0.6:
            found.external_data.add(key=key, value=rng.choice(PLACES))
    if rng.random() < 0.1:
        found.external_data.add(key="location", value="../canary.bin")
    return True


@edit
def make_external_well(model: ModelProto, rng: Random) -> bool:
    """As an exporter does it: the right length at some offset of a file that is there."""
    found = _tensor(model, rng)
    if found is None or not found.raw_data:
        return False
    length = len(found.raw_data)
    found.ClearField("raw_data")
    found.data_location = TensorProto.EXTERNAL
    found.ClearField("external_data")
    found.external_data.add(key="location", value=rng.choice(LOCATIONS[:3] + LOCATIONS))
    found.external_data.add(key="offset", value="0")
    found.external_data.add(key="length", value=str(length))
    return True


@edit
def rename_tensor(model: ModelProto, rng: Random) -> bool:
    found, other = _tensor(model, rng), _tensor(model, rng)
    if found is None or other is None:
        return False
    found.name = rng.choice([*NAMES, other.name])
    return True


@edit
def repeat_tensor(model: ModelProto, rng: Random) -> bool:
    graph = rng.choice(graphs(model))
    if not model.graph.initializer:
        return False
    graph.initializer.add().CopyFrom(rng.choice(model.graph.initializer))
    return True


@edit
def drop_tensor(model: ModelProto, rng: Random) -> bool:
    if not model.graph.initializer:
        return False
    del model.graph.initializer[rng.randrange(len(model.graph.initializer))]
    return True


@edit
def add_sparse_tensor(model: ModelProto, rng: Random) -> bool:
    found = _tensor(model, rng)
    if found is None:
        return False
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(found)
    sparse.indices.CopyFrom(onnx.helper.make_tensor("i", TensorProto.INT64, [1], [1 << 40]))
    sparse.dims[:] = rng.choice([[4], [1 << 62], []])
    return True


# The model around the graph


@edit
def change_opset(model: ModelProto, rng: Random) -> bool:
    what = rng.randrange(4)
    if what == 0 or not model.opset_import:
        version = rng.choice(INTEGERS)
        model.opset_import.add(domain=rng.choice(["", "ai.onnx", "acme", "x"]), version=version)
    elif what == 1:
        del model.opset_import[rng.randrange(len(model.opset_import))]
    else:
        found = rng.choice(model.opset_import)
        found.version = rng.choice([*range(7, 28), *INTEGERS])
    return True


@edit
def change_ir_version(model: ModelProto, rng: Random) -> bool:
    model.ir_version = rng.choice([*range(1, 16), *INTEGERS])
    return True


@edit
def change_inputs(model: ModelProto, rng: Random) -> bool:
    graph = rng.choice(graphs(model))
    if graph.input and rng.random() < 0.4:
        del graph.input[rng.randrange(len(graph.input))]
    elif graph.input and rng.random() < 0.5:
        graph.input.add().CopyFrom(rng.choice(graph.input))
    else:
        name = rng.choice([*NAMES, *_values(model)])
        graph.input.append(onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]))
    return True


@edit
def change_outputs(model: ModelProto, rng: Random) -> bool:
    graph = rng.choice(graphs(model))
    if graph.output and rng.random() < 0.4:
        del graph.output[rng.randrange(len(graph.output))]
    elif graph.output and rng.random() < 0.3:
        graph.output.add().CopyFrom(rng.choice(graph.output))
    else:
        name = rng.choice([*NAMES, *_values(model)])
        graph.output.append(onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return True


@edit
def rename_value(model: ModelProto, rng: Random) -> bool:
    """Everywhere, so that the graph stays as it was."""
    names = _values(model)
    if not names:
        return False
    old, new = rng.choice(names), rng.choice([*NAMES[1:], rng.choice(names)])
    for body in bodies(model):
        for node in body.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]
    for graph in graphs(model):
        for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            if value.name == old:
                value.name = new
    return True


@edit
def add_metadata(model: ModelProto, rng: Random) -> bool:
    holder = rng.choice([model, model.graph, _node(model, rng) or model])
    holder.metadata_props.add(key=rng.choice(NAMES), value=rng.choice(NAMES))
    return True


# Graphs in graphs, and functions


@edit
def wrap_in_if(model: ModelProto, rng: Random) -> bool:
    found = bodies(model)
    if not found:
        return False
    body = rng.choice(found)
    index = rng.randrange(len(body.node))
    inner = NodeProto()
    inner.CopyFrom(body.node[index])
    if not inner.output:
        return False
    result = onnx.helper.make_tensor_value_info(inner.output[0], TensorProto.FLOAT, None)
    for level in range(rng.choice((1, 2, 3, 12, 20))):
        condition = f"condition_{level}"
        true = onnx.helper.make_tensor("true", TensorProto.BOOL, [], [True])
        constant = onnx.helper.make_node("Constant", [], [condition], value=true)
        inside = [inner] if level == 0 else [constant, inner]
        branch = onnx.helper.make_graph(inside, f"branch_{level}", [], [result])
        inner = onnx.helper.make_node(
            "If", [f"condition_{level + 1}"], list(inner.output[:1]), f"if_{level}"
        )
        value = onnx.helper.make_tensor("value", TensorProto.FLOAT, [], [0.0])
        other = onnx.helper.make_node("Constant", [], [inner.output[0]], value=value)
        branches = [branch, onnx.helper.make_graph([other], "other", [], [result])]
        keys = ["then_branch", "else_branch"][: rng.choice((1, 2, 2, 2, 2, 2))]
        for key, graph in zip(keys, branches, strict=False):
            inner.attribute.append(onnx.helper.make_attribute(key, graph))
    true = onnx.helper.make_tensor("true", TensorProto.BOOL, [], [True])
    body.node[index].CopyFrom(inner)
    body.node.insert(index, onnx.helper.make_node("Constant", [], [inner.input[0]], value=true))
    return True


@edit
def wrap_in_loop(model: ModelProto, rng: Random) -> bool:
    node = _node(model, rng)
    if node is None or not node.output:
        return False
    inner = NodeProto()
    inner.CopyFrom(node)
    kinds = onnx.helper.make_tensor_value_info
    go, at = kinds("go", TensorProto.BOOL, []), kinds("at", TensorProto.INT64, [])
    ends = [go, kinds(node.output[0], TensorProto.FLOAT, None)]
    graph = onnx.helper.make_graph([inner], "body", [at, go][: rng.choice((1, 2, 2))], ends)
    names = rng.choice([["", ""], ["", *node.input[:1]], []])
    node.CopyFrom(onnx.helper.make_node("Loop", names, [node.output[0]], "loop", body=graph))
    return True


@edit
def add_function(model: ModelProto, rng: Random) -> bool:
    """A function, perhaps one that calls itself, or another that calls it, or no one's."""
    node = _node(model, rng)
    if node is None:
        return False
    opsets = [onnx.helper.make_opsetid("own", 1), onnx.helper.make_opsetid("", 17)]
    calls = rng.choice(["Own", "Other", "Relu"])
    domain = "" if calls == "Relu" else "own"
    inner = onnx.helper.make_node(calls, ["a"], ["b"], domain=domain)
    model.functions.append(onnx.helper.make_function("own", "Own", ["a"], ["b"], [inner], opsets))
    if calls == "Other":
        back = onnx.helper.make_node("Own", ["a"], ["b"], domain="own")
        other = onnx.helper.make_function("own", "Other", ["a"], ["b"], [back], opsets)
        model.functions.append(other)
    if rng.random() < 0.9:
        model.opset_import.add(domain="own", version=1)
    if rng.random() < 0.8:
        node.CopyFrom(
            onnx.helper.make_node("Own", node.input[:1], node.output[:1], node.name, domain="own")
        )
    return True


@edit
def shadow_operator(model: ModelProto, rng: Random) -> bool:
    """A function with the name of a standard operator, which may call itself."""
    node = _node(model, rng)
    if node is None:
        return False
    inputs, outputs = list(node.input), list(node.output)
    inner = NodeProto()
    inner.CopyFrom(node)
    opsets = list(model.opset_import)[:1]
    model.functions.append(
        onnx.helper.make_function(node.domain, node.op_type, inputs, outputs, [inner], opsets)
    )
    return True


@edit
def change_function(model: ModelProto, rng: Random) -> bool:
    if not model.functions:
        return False
    found = rng.choice(model.functions)
    what = rng.randrange(5)
    if what == 0:
        model.functions.add().CopyFrom(found)
    elif what == 1:
        found.name = rng.choice(NAMES)
    elif what == 2:
        found.opset_import.add(domain="", version=rng.choice(INTEGERS))
    elif what == 3 and found.output:
        found.output[0] = "nothing"
    else:
        found.attribute.append(rng.choice(["axis", "alpha", ""]))
    return True


@edit
def feed_absurd_size(model: ModelProto, rng: Random) -> bool:
    """A constant that asks for more memory than there is, in the place of an input."""
    node = _node(model, rng)
    if node is None or not node.input:
        return False
    sizes = rng.choice([[1 << 40], [1 << 20, 1 << 20], [1 << 62, 4], [-1], [1 << 28]])
    shape = onnx.helper.make_tensor("sizes", TensorProto.INT64, [len(sizes)], sizes)
    model.graph.initializer.append(shape)
    one = onnx.helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    model.graph.initializer.append(one)
    op = rng.choice(["ConstantOfShape", "Expand", "Tile"])
    inputs = ["sizes"] if op == "ConstantOfShape" else ["one", "sizes"]
    model.graph.node.insert(0, onnx.helper.make_node(op, inputs, ["absurd"]))
    node.input[rng.randrange(len(node.input))] = "absurd"
    return True


def damage(data: bytes, rng: Random) -> bytes:
    """A file that was cut short, overwritten or mixed up."""
    if not data:
        return data
    what = rng.randrange(4)
    if what == 0:
        return data[: rng.randrange(len(data))]
    changed = bytearray(data)
    if what == 1:
        for _ in range(rng.choice((1, 2, 8))):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    elif what == 2:
        start = rng.randrange(len(changed))
        del changed[start : start + rng.choice((1, 3, 100))]
    else:
        start, end = rng.randrange(len(changed)), rng.randrange(len(changed))
        changed[start:start] = changed[end : end + rng.choice((1, 9, 200))]
    return bytes(changed)
