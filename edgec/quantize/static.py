"""Static INT8 as Q/DQ around the decided nodes, in the target's grid, from measured ranges.

Biases become INT32 at the scale of the products that they are added to; where such a bias would
not fit, the weight's scale of that channel grows until it does. A smoothed input is divided by its
factors before it is quantized, and the rows of the weights are multiplied by them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from edgec.calibrators import limits
from edgec.errors import InternalError
from edgec.graphs import WEIGHTED, add_initialiser, constant, is_constant, weight
from edgec.masked import unmasked
from edgec.quantize import smooth
from edgec.quantize.rounding import Rounding
from edgec.quantize.weights import (
    bias_of,
    channel_axis,
    correction,
    dequantized,
    divided,
    matrix,
    set_bias,
)
from edgec.types import Decision, Grid, Placement, Recovery, Statistics

BIAS_LIMIT = 2.0**30
LEAST_SCALE = float(np.finfo(np.float32).tiny)  # at or below it the scale is 1 instead
BIASED = frozenset({"Conv", "Gemm"})


@dataclass(frozen=True)
class Affine:
    """real = scale * (integer - zero_point); both are arrays without dimensions.

    `factors` [K]: what the channels of the last axis are divided by on the way in.
    """

    scale: np.ndarray
    zero_point: np.ndarray
    factors: np.ndarray | None = None


def apply(
    model: ir.Model,
    nodes: Sequence[ir.Node],
    placement: Placement,
    decisions: Mapping[str, Decision],
    statistics: Statistics,
    recovery: Mapping[str, Recovery],
    grid: Grid,
    rounding: Rounding,
) -> None:
    """Quantize `nodes` and the values between them, as `placement` says."""
    if not nodes:
        return
    grids = _grids(model, nodes, placement, decisions, statistics, recovery, grid)
    static = [node for node in nodes if str(node.name) not in placement.absorbed]
    for node in nodes:
        if str(node.name) in placement.absorbed and not grid.symmetric_activations:
            _absorb(model, node)
    for node in static:
        if node.op_type in WEIGHTED:
            corrects = recovery[decisions[str(node.name)].part].bias
            known = statistics if corrects else None
            _weights(model, node, grids, known, rounding)
        else:
            _constants(model, node, grid)
    inside = set(static)
    values = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)
    for name, own in grids.items():
        _pair(model, values[name], own, inside)


def _grids(
    model: ir.Model,
    nodes: Sequence[ir.Node],
    placement: Placement,
    decisions: Mapping[str, Decision],
    statistics: Statistics,
    recovery: Mapping[str, Recovery],
    grid: Grid,
) -> dict[str, Affine]:
    """The grid of every value that gets a Q/DQ pair."""
    part_of: dict[str, str] = {}
    for node in nodes:
        for value in (*node.outputs, *node.inputs):
            if value is not None:
                part_of.setdefault(str(value.name), decisions[str(node.name)].part)
    readers: dict[str, list[ir.Node]] = {}
    for node in nodes:
        x = node.inputs[0]
        if x is not None and x.name in placement.extents:
            readers.setdefault(str(x.name), []).append(node)
    grids = {}
    for name in sorted(placement.values):
        seen, own = statistics.values.get(name), recovery[part_of[name]]
        method = own.values.get(name, own.method)
        bounds = limits(statistics, name, method, grid)
        if (
            name in readers
            and own.smoothing
            and seen is not None
            and seen.channel_low is not None
            and seen.channel_high is not None
        ):
            weights = [matrix(node) for node in readers[name]]
            factors = smooth.factors(seen.channel_low, seen.channel_high, weights, own.smoothing)
            low = (np.maximum(seen.channel_low, bounds[0]) / factors).min()
            high = (np.minimum(seen.channel_high, bounds[1]) / factors).max()
            grids[name] = replace(affine(float(low), float(high), grid), factors=factors)
        else:
            if own.mask_aware and name in placement.masked:
                bounds = unmasked(bounds, limits(statistics, placement.masked[name], method, grid))
            grids[name] = affine(*bounds, grid)
    for name, source in placement.follows.items():
        while source in placement.follows:
            source = placement.follows[source]
        grids[name] = grids[source]
    return grids


def affine(low: float, high: float, grid: Grid) -> Affine:
    """Scale and zero point for a range, which is widened to hold zero.

    Source: ONNX QuantizeLinear; asymmetric: 255 steps from low to high; symmetric: amax / 127.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    kind = np.dtype(grid.activations)
    least = np.iinfo(kind).min
    if grid.symmetric_activations:
        scale, zero = max(-low, high) / 127, 128 + least
    else:
        scale = (high - low) / 255
        zero = least + (round(-low / scale) if scale > 0 else 0)
    if not scale > LEAST_SCALE:
        scale = 1.0
    return Affine(np.array(scale, np.float32), np.array(zero, kind))


def _absorb(model: ir.Model, node: ir.Node) -> None:
    """Remove an activation whose clamp the grid of its output implies."""
    value, old = node.inputs[0], node.outputs[0]
    if value is None:
        raise InternalError(f"{node.name} has no input")
    name = old.name
    ir.convenience.replace_all_uses_with(old, value, replace_graph_outputs=True)
    model.graph.remove(node, safe=True)
    value.name = name


def _weights(
    model: ir.Model,
    node: ir.Node,
    grids: Mapping[str, Affine],
    statistics: Statistics | None,
    rounding: Rounding,
) -> None:
    """`statistics`: what biases are corrected by, or None."""
    x, value = node.inputs[0], weight(node)
    array = constant(value)
    if x is None or value is None or array is None:
        raise InternalError(f"{node.name} was decided static but has no constant weight")
    axis, own = channel_axis(node), grids[str(x.name)]
    step = float(own.scale)
    by = None if own.factors is None else own.factors[None]
    if by is not None:
        array = divided(node, array, by)
    if node.op_type not in BIASED:
        quantized = rounding(node, array, axis, factors=by)
        node.replace_input_with(1, dequantized(model, value, quantized))
        return
    outputs = array.shape[axis]
    bias, size = bias_of(node, outputs), array.size // outputs
    mean = None if statistics is None else rounding.mean(node, size, statistics)
    least = np.abs(bias) / (step * BIAS_LIMIT)
    corrected = mean is not None
    quantized = rounding(node, array, axis, least=least, factors=by, corrected=corrected)
    if mean is not None:
        mean = mean if by is None else mean / by
        bias = bias - correction(node, quantized.error(array), mean)
    scale = (quantized.scale.astype(np.float64) * step).astype(np.float32)
    scale = np.maximum(scale, np.finfo(np.float32).tiny)
    integers = np.clip(np.rint(bias / scale), -(2**31), 2**31 - 1).astype(np.int32)
    name = f"{node.name}/bias"
    inputs = [
        add_initialiser(model, f"{name}_int32", integers),
        add_initialiser(model, f"{name}_scale", scale),
        add_initialiser(model, f"{name}_zero", np.zeros(scale.shape, np.int32)),
    ]
    dequantize = ir.node(
        "DequantizeLinear", inputs, {"axis": 0} if scale.ndim else {}, name=f"{name}_dequantized"
    )
    dequantize.outputs[0].name = f"{name}_dequantized"
    dequantize.outputs[0].dtype = ir.DataType.FLOAT
    node.prepend(dequantize)
    node.replace_input_with(1, dequantized(model, value, quantized))
    set_bias(node, dequantize.outputs[0])


def _constants(model: ir.Model, node: ir.Node, grid: Grid) -> None:
    """The constant float operands of Add, Mul and Concat, each in a grid of its own range."""
    for index, value in enumerate(node.inputs):
        if not is_constant(value) or value is None or value.dtype != ir.DataType.FLOAT:
            continue
        array = constant(value)
        if array is None or not array.size:
            continue
        own = affine(float(array.min()), float(array.max()), grid)
        kind = np.iinfo(own.zero_point.dtype)
        data = np.rint(array / own.scale) + own.zero_point.astype(np.int32)
        name = f"{node.name}/constant_{index}"
        inputs = [
            add_initialiser(
                model, name, np.clip(data, kind.min, kind.max).astype(own.zero_point.dtype)
            ),
            add_initialiser(model, f"{name}_scale", own.scale),
            add_initialiser(model, f"{name}_zero", own.zero_point),
        ]
        dequantize = ir.node("DequantizeLinear", inputs, name=f"{name}_dequantized")
        dequantize.outputs[0].name = f"{name}_dequantized"
        dequantize.outputs[0].dtype = ir.DataType.FLOAT
        node.prepend(dequantize)
        node.replace_input_with(index, dequantize.outputs[0])


def _pair(model: ir.Model, value: ir.Value, grid: Affine, inside: set[ir.Node]) -> None:
    """Insert Q/DQ behind a value.

    All consumers read the pair where an INT8 node made the value, which then hands its name on;
    elsewhere the INT8 nodes alone do.
    """
    name = str(value.name)
    producer = value.producer()
    made_here = producer in inside
    uses = [use for use in value.uses() if made_here or use.node in inside]
    scale = add_initialiser(model, f"{name}/scale", grid.scale)
    zero = add_initialiser(model, f"{name}/zero_point", grid.zero_point)
    steps = [] if grid.factors is None else [smooth.division(model, value, grid.factors)]
    source = steps[0].outputs[0] if steps else value
    quantize = ir.node("QuantizeLinear", [source, scale, zero], name=f"{name}/quantize")
    small = quantize.outputs[0]
    small.name = f"{name}/quantized"
    dequantize = ir.node("DequantizeLinear", [small, scale, zero], name=f"{name}/dequantize")
    output = dequantize.outputs[0]
    output.type, output.shape = value.type, value.shape
    steps += [quantize, dequantize]
    if producer is None:
        model.graph.insert_before(model.graph[0], steps)
    else:
        model.graph.insert_after(producer, steps)
    for use in uses:
        use.node.replace_input_with(use.idx, output)
    if made_here:
        for index, result in enumerate(model.graph.outputs):
            if result is value:
                model.graph.outputs[index] = output
        value.name = f"{name}/float"
        output.name = name
    else:
        output.name = f"{name}/dequantized"
