"""Chains of dense INT8 layers on matrices, which OpenVINO's CPU plugin fuses and computes wrongly.

Since 2025.2 its code generator (snippets) makes one kernel of rank-2 products that follow on each
other through elementwise ops: openvinotoolkit/openvino#30007. In 2026.4.1, on AVX512-VNNI, few rows
and INT8 on both sides, what comes out is noise. Which sizes it fuses is its own affair, and shapes
may be fixed on the device alone; so every such chain counts.
"""

from __future__ import annotations

import onnx_ir as ir

from edgec.graphs import is_constant

PRODUCTS = frozenset({"MatMul", "Gemm"})
# What may stand between two products of a chain: one tensor goes in, one of its size comes out.
_BETWEEN = (
    "QuantizeLinear DequantizeLinear Identity Cast Dropout Flatten Reshape Squeeze Unsqueeze "
    "Add Sub Mul Div Pow Max Min Clip PRelu Relu LeakyRelu Elu Selu Celu ThresholdedRelu Sigmoid "
    "HardSigmoid HardSwish Mish Gelu Softplus Softsign Tanh Erf Exp Log Sqrt Abs Neg Reciprocal "
    "Sign Floor Ceil Round Sin Cos Softmax"
)
BETWEEN = frozenset(_BETWEEN.split())


def has_dense_chain(model: ir.Model) -> bool:
    """Whether an INT8 product of a matrix leads to another through elementwise ops alone."""
    return any(_is_int8(node) and _reaches(node.outputs[0]) for node in model.graph)


def _reaches(made: ir.Value) -> bool:
    stack, seen = [made], set()
    while stack:
        value = stack.pop()
        if value in seen or (value.shape is not None and len(value.shape) > 2):
            continue
        seen.add(value)
        for use in value.uses():
            if use.idx == 0 and _is_int8(use.node):
                return True
            if use.node.op_type in BETWEEN:
                stack += use.node.outputs
    return False


def _is_int8(node: ir.Node) -> bool:
    """A product of DequantizeLinear's outputs, the second of a constant."""
    if node.op_type not in PRODUCTS:
        return False
    makers = [value.producer() for value in node.inputs[:2] if value is not None]
    if not all(one is not None and one.op_type == "DequantizeLinear" for one in makers):
        return False
    given, weight = (one.inputs[0] for one in makers if one is not None)
    return is_constant(weight) and not is_constant(given)
