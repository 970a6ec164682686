"""A graph that watches its own values: the outputs that `edgec.observe` reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgec.graphs import add_initialiser, opset
from edgec.observe import HIGHS, LOWS, MEAN, NANS, SEEN, SIZE, Watch

DOMAIN, OP, EXTREMES = "edgec", "Histogram", "Extremes"
AXES_AS_INPUT = 18  # the opset from which the axes of a reduction are an input


def instrument(model: ir.Model, watch: Watch, whole: Watch, *, native: bool) -> None:
    """Make what `run` reads the outputs of `model`, in place of its own.

    `watch`: what this graph gives, of `whole`, all that its pass watches. A value that is watched
    somewhere is read here too: else the optimiser would fuse over it, and a fused product rounds
    otherwise.
    """
    values = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)
    model.graph.outputs.clear()
    for slot, name in enumerate(watch.values):
        if native:
            node = ir.node(OP, [values[name]], {"slot": slot}, domain=DOMAIN)
            _add_output(model, node, name + SEEN)
        elif not values[name].is_graph_input():
            model.graph.outputs.append(values[name])
    if native:
        model.graph.opset_imports[DOMAIN] = 1
        _sizes(model, [values[name] for name in watch.means])
    else:
        _sizes(model, [values[name] for name in whole.names])
    for name in watch.means:
        axes = [axis for axis in range(rank(values[name])) if axis != 1]
        _reduction(model, "ReduceMean", values[name], name + MEAN, axes)
    for name in watch.extents:
        if native:
            node = ir.node(EXTREMES, [values[name]], domain=DOMAIN, num_outputs=2)
            _add_outputs(model, node, [name + LOWS, name + HIGHS])
        else:
            _extremes(model, values[name], name)


def measure(model: ir.Model, watch: Watch) -> None:
    """Make the sizes of watched values, in elements, the outputs of `model`."""
    values = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)
    model.graph.outputs.clear()
    _sizes(model, [values[name] for name in watch.values])


def rank(value: ir.Value) -> int:
    """The rank of a value, if need be from the weight that reads it; 0 where it is not known."""
    if value.shape is not None:
        return len(value.shape)
    for use in value.uses():
        if use.idx == 0 and use.node.op_type == "Conv":
            shape = use.node.inputs[1].shape  # type: ignore[union-attr]
            return 0 if shape is None else len(shape)
        if use.idx == 0 and use.node.op_type == "Gemm":
            return 2
    return 0


def _sizes(model: ir.Model, values: Sequence[ir.Value]) -> None:
    for value in values:
        _add_output(model, ir.node("Size", [value]), f"{value.name}{SIZE}", ir.DataType.INT64)


def _extremes(model: ir.Model, value: ir.Value, name: str) -> None:
    """What the native op gives; ONNX leaves open what a NaN does to an extreme."""
    axes = list(range(rank(value) - 1))
    _reduction(model, "ReduceMin", value, name + LOWS, axes)
    _reduction(model, "ReduceMax", value, name + HIGHS, axes)
    odd = ir.node("IsNaN", [value])
    number = ir.node("Cast", odd.outputs, {"to": ir.DataType.FLOAT})
    odd.outputs[0].name, number.outputs[0].name = f"{name}{NANS}/is", f"{name}{NANS}/as"
    odd.name, number.name = f"{name}{NANS}/is", f"{name}{NANS}/as"
    _insert(model, odd)
    _insert(model, number)
    _reduction(model, "ReduceMax", number.outputs[0], name + NANS, axes)


def _reduction(
    model: ir.Model, op_type: str, value: ir.Value, name: str, axes: Sequence[int]
) -> None:
    if not axes:  # which would stand for all of them
        return _add_output(model, ir.node("Identity", [value]), name)
    attributes: dict[str, int | list[int]] = {"keepdims": 0}
    inputs: list[ir.Value | None] = [value]
    if opset(model) >= AXES_AS_INPUT:
        inputs.append(add_initialiser(model, f"{name}/axes", np.array(axes, np.int64)))
    else:
        attributes["axes"] = list(axes)
    return _add_output(model, ir.node(op_type, inputs, attributes), name)


def _add_output(
    model: ir.Model, node: ir.Node, name: str, dtype: ir.DataType = ir.DataType.FLOAT
) -> None:
    """Add a node and make what it gives an output."""
    _add_outputs(model, node, [name], dtype)


def _add_outputs(
    model: ir.Model, node: ir.Node, names: Sequence[str], dtype: ir.DataType = ir.DataType.FLOAT
) -> None:
    node.name = names[0]
    for value, name in zip(node.outputs, names, strict=True):
        value.name, value.dtype = name, dtype
    _insert(model, node)
    model.graph.outputs.extend(node.outputs)


def _insert(model: ir.Model, node: ir.Node) -> None:
    """Add a node right behind what it watches, while that is still in the caches."""
    producer = node.inputs[0].producer()  # type: ignore[union-attr]
    if producer is None:
        model.graph.insert_before(model.graph[0], node)
    else:
        model.graph.insert_after(producer, node)
