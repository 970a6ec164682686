"""INT8 weights and activations whose range is measured at run time:

    x8, s, z = DynamicQuantizeLinear(x);  y = Cast(MatMulInteger(x8, W8, z)) * (s * scale) [+ b]

This is the form that ONNX Runtime fuses into one kernel. Products that share an input share its
quantization.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from edgec.errors import InternalError
from edgec.graphs import add_initialiser, replace
from edgec.quantize import smooth
from edgec.quantize.rounding import Rounding
from edgec.quantize.weights import Quantized, matrix
from edgec.types import Decision, Recovery, Statistics


def apply(
    model: ir.Model,
    nodes: Sequence[ir.Node],
    decisions: Mapping[str, Decision],
    statistics: Statistics,
    recovery: Mapping[str, Recovery],
    rounding: Rounding,
) -> None:
    """Replace MatMul and Gemm nodes with constant weights [K, N].

    Where the input's peaks per channel are known, it is smoothed first, once for all that read it.
    """
    readers: dict[ir.Value, list[ir.Node]] = {}
    for node in nodes:
        x = node.inputs[0]
        if x is not None:
            readers.setdefault(x, []).append(node)
    for group in readers.values():
        x = group[0].inputs[0]  # looked up again: the product before may have been replaced
        if x is None:
            raise InternalError(f"{group[0].name} has no input")
        weights = [matrix(node) for node in group]
        seen = statistics.values.get(str(x.name))
        factors, source = None, x
        strength = recovery[decisions[str(group[0].name)].part].smoothing
        if (
            strength
            and seen is not None
            and seen.channel_low is not None
            and seen.channel_high is not None
        ):
            factors = smooth.factors(seen.channel_low, seen.channel_high, weights, strength)
            division = smooth.division(model, x, factors)
            group[0].prepend(division)
            source = division.outputs[0]
        measured = _measured(x, source, group[0])
        for node, weight in zip(group, weights, strict=True):
            if factors is not None:
                weight = weight * factors.reshape(-1, 1)
            by = None if factors is None else factors[None]
            quantized = rounding(node, weight, 1, factors=by)
            _product(model, node, measured, quantized)


def _measured(x: ir.Value, source: ir.Value, before: ir.Node) -> ir.Node:
    name = f"{x.name}/dynamic"
    node = ir.node("DynamicQuantizeLinear", [source], num_outputs=3, name=name)
    for output, suffix in zip(node.outputs, ("int8", "scale", "zero"), strict=True):
        output.name = f"{name}/{suffix}"
    before.prepend(node)
    return node


def _product(model: ir.Model, node: ir.Node, measured: ir.Node, quantized: Quantized) -> None:
    names = model.graph.initializers
    digest = hashlib.sha256(quantized.data.tobytes() + quantized.scale.tobytes()).hexdigest()[:16]
    prefix = f"{node.inputs[1].name}/dynamic_{digest}"  # type: ignore[union-attr]
    small, scale, zero = (
        names.get(f"{prefix}_{what}") or add_initialiser(model, f"{prefix}_{what}", array)
        for what, array in (
            ("int8", np.ascontiguousarray(quantized.data)),
            ("scale", quantized.scale),
            ("zero", np.zeros(quantized.scale.shape, np.int8)),
        )
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
