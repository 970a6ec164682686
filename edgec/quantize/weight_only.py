"""INT8 weights, float arithmetic: a quarter of the size, no data needed.

Products and convolutions read DequantizeLinear(W). An embedding table keeps one scale per row:
Gather(T, i) -> Cast(Gather(T8, i)) * Gather(scale, i).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from edgec.graphs import add_initialiser, attribute, constant, elements, is_constant, replace
from edgec.placement import CORRECTED
from edgec.quantize.rounding import Rounding
from edgec.quantize.weights import (
    bias_of,
    channel_axis,
    correction,
    dequantized,
    quantize_weight,
    set_bias,
)
from edgec.types import Decision, Grid, Recovery, Statistics


def apply(
    model: ir.Model,
    nodes: Sequence[ir.Node],
    decisions: Mapping[str, Decision],
    statistics: Statistics,
    recovery: Mapping[str, Recovery],
    grid: Grid,
    rounding: Rounding,
) -> None:
    """Replace the weights of `nodes`; biases are corrected where the input's mean is known."""
    for node in nodes:
        if node.op_type == "Gather":
            _embedding(model, node, grid)
            continue
        for index in (1, 2) if node.op_type in ("LSTM", "GRU", "RNN") else (1,):
            value = node.inputs[index]
            array = constant(value)
            if value is None or array is None:
                continue
            axis, mean = channel_axis(node), None
            if recovery[decisions[str(node.name)].part].bias and _correctable(node, array, axis):
                mean = rounding.mean(node, array.size // array.shape[axis], statistics)
            quantized = rounding(node, array, axis, corrected=mean is not None)
            node.replace_input_with(index, dequantized(model, value, quantized))
            if mean is not None:
                shift = correction(node, quantized.error(array), mean)
                bias = (bias_of(node, len(shift)) - shift).astype(np.float32)
                set_bias(node, add_initialiser(model, f"{node.name}/corrected_bias", bias))


def _correctable(node: ir.Node, weight: np.ndarray, axis: int) -> bool:
    """Whether the output is W x + b, with b absent or one constant per channel."""
    if node.op_type not in CORRECTED or weight.ndim <= axis:
        return False
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    plain = node.op_type != "Gemm" or all(
        (a := node.attributes.get(key)) is None or a.as_float() == 1.0 for key in ("alpha", "beta")
    )
    fits = bias is None or (is_constant(bias) and elements(bias) == weight.shape[axis])
    return plain and fits and not attribute(node, "transA", 0)


def _embedding(model: ir.Model, node: ir.Node, grid: Grid) -> None:
    table, index = node.inputs[0], node.inputs[1]
    array = constant(table)
    if table is None or array is None:
        return
    rows = quantize_weight(array, 0, grid)
    names = model.graph.initializers
    data, scale = f"{table.name}/rows_int8", f"{table.name}/rows_scale"
    small = names.get(data) or add_initialiser(model, data, rows.data)
    column = np.broadcast_to(rows.scale.reshape(-1, 1), (len(array), 1))
    scales = names.get(scale) or add_initialiser(model, scale, column)
    output = node.outputs[0]
    steps = [
        ir.node("Gather", [small, index], {"axis": 0}, name=f"{node.name}/rows"),
        ir.node("Gather", [scales, index], {"axis": 0}, name=f"{node.name}/scales"),
    ]
    steps.append(
        ir.node("Cast", [steps[0].outputs[0]], {"to": ir.DataType.FLOAT}, name=f"{node.name}/cast")
    )
    steps.append(
        ir.node("Mul", [steps[2].outputs[0], steps[1].outputs[0]], name=f"{node.name}/scaled")
    )
    replace(model, node, steps, output)
