"""Values that cross from one INT8 engine to another as INT8, where both sides have one grid.

Where an engine ends with a Q/DQ pair and all that read its value begin with a pair of the same
scale and zero point, the pair's inside crosses: a quarter of the bytes, one conversion less on each
side, and the same numbers bit by bit. The float value stays in the engine that makes it, under its
name, so that parts can still be taken out and compared.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from edgec.graphs import constant
from edgec.results import Engine

SUFFIX = "/int8"  # behind the name of the float value
BACKENDS = frozenset({"onnxruntime"})
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


def narrowed(engines: Sequence[Engine], given: Collection[str]) -> tuple[Engine, ...]:
    """The same engines, with what can cross as INT8 doing so. `given`: what the caller reads."""
    made = [replace(one, model=one.model.clone()) for one in engines]
    for index, maker in enumerate(made):
        for name in maker.outputs:
            readers = [place for place, one in enumerate(made) if name in one.inputs]
            sides = [maker, *(made[place] for place in readers)]
            if name in given or not readers:
                continue
            if any(one.runtime.backend not in BACKENDS for one in sides):
                continue
            pair = _ending(maker.model, name)
            begins = [_beginnings(made[place].model, name) for place in readers]
            if pair is None or not all(_same(one, pair) for nodes in begins for one in nodes):
                continue
            if not all(begins):
                continue
            _give(maker.model, name, pair)
            for place in readers:
                _take(made[place].model, name, pair.inputs[0])
                made[place] = replace(made[place], inputs=_renamed(made[place].inputs, name))
            made[index] = maker = replace(maker, outputs=_renamed(maker.outputs, name))
    return tuple(made)


def widened(model: ir.Model) -> ir.Model:
    """A model with its INT8 inputs float again, quantized as those who give them would."""
    for value in list(model.graph.inputs):
        name = str(value.name)
        pairs = [use.node for use in value.uses() if use.node.op_type == DEQUANTIZE]
        if not name.endswith(SUFFIX) or not pairs:
            continue
        given = ir.Value(name=float_name(name), shape=value.shape)
        given.dtype = pairs[0].outputs[0].dtype or ir.DataType.FLOAT
        quantize = ir.node(QUANTIZE, [given, *pairs[0].inputs[1:]], name=f"{given.name}/quantize")
        new = quantize.outputs[0]
        new.type, new.shape = value.type, value.shape
        ir.convenience.replace_all_uses_with(value, new)
        new.name, value.name = name, None
        model.graph.insert_before(model.graph[0], quantize)
        model.graph.inputs[list(model.graph.inputs).index(value)] = given
    return model


def float_name(name: str) -> str:
    """The value that crosses under a name."""
    return name.removesuffix(SUFFIX)


def _ending(model: ir.Model, name: str) -> ir.Node | None:
    """The DequantizeLinear that gives an output, behind a QuantizeLinear, by one scale."""
    value = next(one for one in model.graph.outputs if one.name == name)
    node = value.producer()
    if node is None or node.op_type != DEQUANTIZE or node.inputs[0] is None:
        return None
    before, scale = node.inputs[0].producer(), constant(node.inputs[1])
    whole = before is not None and before.op_type == QUANTIZE and scale is not None
    return node if whole and scale is not None and scale.size == 1 else None


def _beginnings(model: ir.Model, name: str) -> list[ir.Node]:
    """The nodes that read an input."""
    value = next(one for one in model.graph.inputs if one.name == name)
    return [use.node for use in value.uses()]


def _same(node: ir.Node, pair: ir.Node) -> bool:
    """Whether a node quantizes as a pair does."""
    if node.op_type != QUANTIZE or len(node.inputs) != len(pair.inputs):
        return False
    both = zip(node.inputs[1:], pair.inputs[1:], strict=True)
    arrays = [(constant(one), constant(other)) for one, other in both]
    return all(
        a is not None and b is not None and a.dtype == b.dtype and np.array_equal(a, b)
        for a, b in arrays
    )


def _give(model: ir.Model, name: str, pair: ir.Node) -> None:
    """Give what stands inside of a pair; the pair's own value stays, for those who ask for it."""
    inside, old = pair.inputs[0], pair.outputs[0]
    assert inside is not None
    inside.name, inside.shape = name + SUFFIX, old.shape
    inside.dtype = _dtype(pair)
    model.graph.outputs[list(model.graph.outputs).index(old)] = inside


def _take(model: ir.Model, name: str, inside: ir.Value | None) -> None:
    """Read an input as INT8, in the place of what quantizes it."""
    old = next(one for one in model.graph.inputs if one.name == name)
    new = ir.Value(name=name + SUFFIX, shape=old.shape)
    new.type = None if inside is None else inside.type
    for node in [use.node for use in old.uses()]:
        ir.convenience.replace_all_uses_with(node.outputs[0], new)
        model.graph.remove(node, safe=True)
    model.graph.inputs[list(model.graph.inputs).index(old)] = new


def _dtype(pair: ir.Node) -> ir.DataType:
    """What a pair carries inside: the type of its zero point."""
    zero = pair.inputs[2] if len(pair.inputs) > 2 else None
    return ir.DataType.UINT8 if zero is None or zero.dtype is None else zero.dtype


def _renamed(names: Sequence[str], name: str) -> tuple[str, ...]:
    return tuple(one + SUFFIX if one == name else one for one in names)
