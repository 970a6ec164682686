"""Edits of the model around the graph, of graphs in graphs, and of functions; and damage."""

from __future__ import annotations

from random import Random

import onnx
from edits import INTEGERS, NAMES, a_node, bodies, edit, graphs, values_of
from onnx import ModelProto, NodeProto, TensorProto

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
        name = rng.choice([*NAMES, *values_of(model)])
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
        name = rng.choice([*NAMES, *values_of(model)])
        graph.output.append(onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return True


@edit
def rename_value(model: ModelProto, rng: Random) -> bool:
    """Everywhere, so that the graph stays as it was."""
    names = values_of(model)
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
    holder = rng.choice([model, model.graph, a_node(model, rng) or model])
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
    node = a_node(model, rng)
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
    node = a_node(model, rng)
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
    node = a_node(model, rng)
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
    node = a_node(model, rng)
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
