"""What TensorRT wants of an engine's ONNX that ONNX Runtime does not.

- A bias is float: DequantizeLinear of INT32 is refused ("input has type Int32 but must have type
  FP8, FP4, Int4, Int8, or UInt8", TensorRT-RTX 1.7.1), and the bias is added in float anyway.
- The implicit INT8 path of TensorRT up to 10 takes the float model beside a calibration cache.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from edgec.graphs import add_initialiser, attribute, constant, is_constant

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


def float_biases(model: ir.Model) -> ir.Model:
    """A copy of a quantized model in which every INT32 constant is dequantized for good."""
    model = model.clone()
    for node in list(model.graph):
        if node.op_type == DEQUANTIZE and _dtype(node.inputs[0]) is ir.DataType.INT32:
            _fold(model, node)
    return _tidy(model)


def unquantized(model: ir.Model) -> ir.Model:
    """A quantized model without its Q/DQ: what the float model beside a calibration cache is.

    Weights keep their rounded values, and all that keeps INT8 close to float (smoothing, corrected
    biases) stays in place; so the engine that TensorRT makes of it is that of the Q/DQ form.
    """
    model = model.clone()
    for node in list(model.graph):
        if node.op_type != DEQUANTIZE:
            continue
        given, old = node.inputs[0], node.outputs[0]
        if is_constant(given):
            _fold(model, node)
            continue
        quantize = None if given is None else given.producer()
        if quantize is None or quantize.op_type != QUANTIZE or quantize.inputs[0] is None:
            continue
        source, name = quantize.inputs[0], str(old.name)
        public = old.is_graph_output() or source.name == f"{name}/float"
        ir.convenience.replace_all_uses_with(old, source, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)
        if not list(quantize.outputs[0].uses()):
            model.graph.remove(quantize, safe=True)
        if public:
            source.name = name
    return _tidy(model)


def ranges(model: ir.Model) -> dict[str, float]:
    """The scale of every computed value that has one, by the name that it has in `unquantized`."""
    found: dict[str, float] = {}
    for node in model.graph:
        if node.op_type != QUANTIZE or node.inputs[0] is None:
            continue
        scale = constant(node.inputs[1])
        if scale is not None and not is_constant(node.inputs[0]):
            found[str(node.inputs[0].name).removesuffix("/float")] = float(scale)
    return dict(sorted(found.items()))


def refusal(model: ir.Model) -> str:
    """Why TensorRT refuses the Q/DQ of a model that came quantized; empty where it does not."""
    for node in model.graph:
        if node.op_type not in (QUANTIZE, DEQUANTIZE) or len(node.inputs) < 3:
            continue
        zero = constant(node.inputs[2])
        if zero is not None and (zero.dtype == np.uint8 or np.any(zero)):
            name = node.inputs[0].name if node.inputs[0] is not None else node.name
            kind = "UINT8" if zero.dtype == np.uint8 else "a zero point that is not 0"
            return f"{name} is quantized with {kind}, and TensorRT takes symmetric INT8 alone"
    return ""


def _fold(model: ir.Model, node: ir.Node) -> None:
    """Put the number in the place of a dequantized constant."""
    data, scale, zero = (constant(value) for value in (*node.inputs, None)[:3])
    if data is None or scale is None:
        return
    shift = np.zeros((), data.dtype) if zero is None else zero
    if scale.ndim:
        form = [1] * data.ndim
        form[attribute(node, "axis", 1)] = -1
        scale, shift = scale.reshape(form), shift.reshape(form)
    array = (data.astype(np.float64) - shift.astype(np.float64)) * scale.astype(np.float64)
    old = node.outputs[0]
    value = add_initialiser(model, f"{old.name}/folded", array.astype(scale.dtype))
    ir.convenience.replace_all_uses_with(old, value, replace_graph_outputs=True)
    model.graph.remove(node, safe=True)


def _dtype(value: ir.Value | None) -> ir.DataType | None:
    return None if value is None else value.dtype


def _tidy(model: ir.Model) -> ir.Model:
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedOpsetsPass()(model)
    model.graph.sort()
    return model
