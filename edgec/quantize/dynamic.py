"""INT8 weights and activations whose range is measured at run time, row of stages by row:

    x8, s, z = DynamicQuantizeLinear(x);  y = Cast(MatMulInteger(x8, W8, z)) * (s * scale) [+ b]

This is the form that ONNX Runtime fuses into one kernel. Products that share an input share its
quantization.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgec.graphs import add_initialiser, constant
from edgec.quantize.weight_only import replace
from edgec.quantize.weights import channel_axis, quantize_weight
from edgec.types import Grid


def apply(model: ir.Model, nodes: Sequence[ir.Node], grid: Grid) -> None:
    """Replace MatMul and Gemm nodes with constant weights [K, N]."""
    inputs: dict[ir.Value, ir.Node] = {}
    for node in nodes:
        x, value = node.inputs[0], node.inputs[1]
        weight = constant(value)
        if x is None or value is None or weight is None:
            continue
        if x not in inputs:
            inputs[x] = _measured(x, node)
        _product(model, node, inputs[x], value, weight, grid)


def _measured(x: ir.Value, before: ir.Node) -> ir.Node:
    name = f"{x.name}/dynamic"
    node = ir.node("DynamicQuantizeLinear", [x], num_outputs=3, name=name)
    for output, suffix in zip(node.outputs, ("int8", "scale", "zero"), strict=True):
        output.name = f"{name}/{suffix}"
    before.prepend(node)
    return node


def _product(
    model: ir.Model,
    node: ir.Node,
    measured: ir.Node,
    value: ir.Value,
    weight: np.ndarray,
    grid: Grid,
) -> None:
    axis = channel_axis(node)
    quantized = quantize_weight(weight, axis, grid)
    data = quantized.data if axis == 1 else np.ascontiguousarray(quantized.data.T)
    names, turned = model.graph.initializers, "" if axis == 1 else "_transposed"
    prefix = f"{value.name}/dynamic{turned}"
    small = names.get(f"{prefix}_int8") or add_initialiser(model, f"{prefix}_int8", data)
    scale = names.get(f"{prefix}_scale") or add_initialiser(
        model, f"{prefix}_scale", quantized.scale
    )
    zero = names.get(f"{prefix}_zero") or add_initialiser(
        model, f"{prefix}_zero", np.zeros(quantized.scale.shape, np.int8)
    )
    x8, x_scale, x_zero = measured.outputs
    product = ir.node("MatMulInteger", [x8, small, x_zero, zero], name=f"{node.name}/integer")
    cast = ir.node(
        "Cast", [product.outputs[0]], {"to": ir.DataType.FLOAT}, name=f"{node.name}/cast"
    )
    scales = ir.node("Mul", [x_scale, scale], name=f"{node.name}/scales")
    steps = [product, cast, scales]
    steps.append(ir.node("Mul", [cast.outputs[0], scales.outputs[0]], name=f"{node.name}/scaled"))
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        steps.append(ir.node("Add", [steps[-1].outputs[0], bias], name=f"{node.name}/bias"))
    replace(model, node, steps, node.outputs[0])
