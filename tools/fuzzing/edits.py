"""What can be wrong with an ONNX file: small edits of the protobuf, each with a name.

An edit takes a model and a source of randomness, changes the model in place, and says whether it
found anything to change. The edits are in `edit_*.py`; their order is part of a seed's meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

Edit = Callable[[ModelProto, Random], bool]
EDITS: dict[str, Edit] = {}

INTEGERS = (0, 1, -1, 2, -2, 7, 1 << 20, 1 << 31, -(1 << 31), 1 << 62, -(1 << 62), (1 << 63) - 1)
FLOATS = (0.0, -1.0, 1e30, float("nan"), float("inf"), -float("inf"))
NAMES = ("", " ", "../../x", "/etc/passwd", "<script>alert(1)</script>", "a\0b", "é" * 9)
NAMES += ("x" * 5000,)


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


def a_node(model: ModelProto, rng: Random) -> NodeProto | None:
    found = bodies(model)
    return rng.choice(rng.choice(found).node) if found else None


def values_of(model: ModelProto) -> list[str]:
    names = [tensor.name for tensor in model.graph.initializer]
    names += [value.name for value in model.graph.input]
    return names + [name for body in bodies(model) for node in body.node for name in node.output]


def tensors_of(model: ModelProto) -> Iterator[TensorProto]:
    for graph in graphs(model):
        yield from graph.initializer
    for body in bodies(model):
        for node in body.node:
            for attribute in node.attribute:
                if attribute.type == AttributeProto.TENSOR:
                    yield attribute.t


def a_tensor(model: ModelProto, rng: Random) -> TensorProto | None:
    found = list(tensors_of(model))
    return rng.choice(found) if found else None


def a_declaration(model: ModelProto, rng: Random) -> ValueInfoProto | None:
    found = [v for g in graphs(model) for v in (*g.input, *g.output, *g.value_info)]
    return rng.choice(found) if found else None


def an_attribute(model: ModelProto, rng: Random) -> AttributeProto | None:
    found = [a for body in bodies(model) for node in body.node for a in node.attribute]
    return rng.choice(found) if found else None
