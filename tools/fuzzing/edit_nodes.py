"""Edits of edges, nodes and attributes."""

from __future__ import annotations

import functools
from random import Random

import onnx
from edits import FLOATS, INTEGERS, NAMES, a_node, an_attribute, bodies, edit, values_of
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto

# Edges


@edit
def swap_inputs(model: ModelProto, rng: Random) -> bool:
    node = a_node(model, rng)
    if node is None or len(node.input) < 2:
        return False
    one, other = rng.sample(range(len(node.input)), 2)
    node.input[one], node.input[other] = node.input[other], node.input[one]
    return True


@edit
def rewire_input(model: ModelProto, rng: Random) -> bool:
    node = a_node(model, rng)
    if node is None or not node.input:
        return False
    node.input[rng.randrange(len(node.input))] = rng.choice([*values_of(model), "", "nothing"])
    return True


@edit
def change_number_of_inputs(model: ModelProto, rng: Random) -> bool:
    node = a_node(model, rng)
    if node is None:
        return False
    if node.input and rng.random() < 0.5:
        del node.input[rng.randrange(len(node.input))]
    else:
        node.input.extend(rng.choices(values_of(model) or [""], k=rng.choice((1, 2, 40))))
    return True


@edit
def change_number_of_outputs(model: ModelProto, rng: Random) -> bool:
    node = a_node(model, rng)
    if node is None:
        return False
    if node.output and rng.random() < 0.5:
        del node.output[rng.randrange(len(node.output))]
    else:
        node.output.append(rng.choice(["", "another", *values_of(model)]))
    return True


@edit
def rewire_output(model: ModelProto, rng: Random) -> bool:
    node = a_node(model, rng)
    if node is None or not node.output:
        return False
    node.output[rng.randrange(len(node.output))] = rng.choice([*values_of(model), "", "elsewhere"])
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
    node = a_node(model, rng)
    if node is None:
        return False
    node.op_type = rng.choice([*_operators(), "", "Nonsense"])
    return True


@functools.cache
def _operators() -> list[str]:
    return sorted({schema.name for schema in onnx.defs.get_all_schemas()})


@edit
def change_domain(model: ModelProto, rng: Random) -> bool:
    node = a_node(model, rng)
    if node is None:
        return False
    node.domain = rng.choice(["ai.onnx", "com.microsoft", "ai.onnx.ml", "acme", " ", "x" * 999])
    return True


@edit
def rename_node(model: ModelProto, rng: Random) -> bool:
    node, other = a_node(model, rng), a_node(model, rng)
    if node is None or other is None:
        return False
    node.name = rng.choice([*NAMES, other.name])
    return True


# Attributes


@edit
def change_attribute(model: ModelProto, rng: Random) -> bool:
    found = an_attribute(model, rng)
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
    found = an_attribute(model, rng)
    if found is None:
        return False
    found.type = rng.choice(range(15))  # type: ignore[assignment]
    return True


@edit
def replace_attribute(model: ModelProto, rng: Random) -> bool:
    found = an_attribute(model, rng)
    if found is None:
        return False
    tensor = onnx.helper.make_tensor("t", TensorProto.FLOAT, [2], [0.0, 1.0])
    values = ["text", 1, 1.5, [1, 2], [0.5], ["a"], tensor, model.graph]
    found.CopyFrom(onnx.helper.make_attribute(found.name or "a", rng.choice(values)))
    return True


@edit
def drop_attribute(model: ModelProto, rng: Random) -> bool:
    node = a_node(model, rng)
    if node is None or not node.attribute:
        return False
    del node.attribute[rng.randrange(len(node.attribute))]
    return True


@edit
def rename_attribute(model: ModelProto, rng: Random) -> bool:
    found, other = an_attribute(model, rng), an_attribute(model, rng)
    if found is None or other is None:
        return False
    found.name = rng.choice([*NAMES, other.name])
    return True


@edit
def refer_attribute(model: ModelProto, rng: Random) -> bool:
    found = an_attribute(model, rng)
    if found is None:
        return False
    found.ref_attr_name = rng.choice(["alpha", found.name, ""])
    return True


@edit
def add_attribute(model: ModelProto, rng: Random) -> bool:
    node = a_node(model, rng)
    if node is None:
        return False
    names = ["axis", "axes", "perm", "to", "group", "value", "shape", "alpha", "pads", "num_groups"]
    value = rng.choice([*INTEGERS[:8], [], [0, 0], [1 << 62], "x", 1.0])
    kind = AttributeProto.INTS if value == [] else None
    node.attribute.append(onnx.helper.make_attribute(rng.choice(names), value, attr_type=kind))
    return True
