"""An addition behind an INT8 product: ONNX Runtime would make one float Gemm of both.

Its pass MatMulAddFusion comes before those that look for Q/DQ, and what it makes has no kernel that
takes INT8 and gives float (onnxruntime 1.32: all 36 products of a MiniLM ran in float). Without the
pass they become MatMulIntegerToFloat and Add. So it is left out for engines that have such a pair.
"""

from __future__ import annotations

import onnx_ir as ir

FUSION = "MatMulAddFusion"


def adds_to_int8(model: ir.Model) -> bool:
    """Whether an Add is all that reads a MatMul of dequantized activations."""
    for node in model.graph:
        if node.op_type != "MatMul" or node.inputs[0] is None:
            continue
        maker = node.inputs[0].producer()
        uses = [use.node.op_type for use in node.outputs[0].uses()]
        if maker is not None and maker.op_type == "DequantizeLinear" and uses == ["Add"]:
            return True
    return False
