"""A float MaxPool whose output is quantized: ONNX Runtime would quantize before it.

Its pass moves QuantizeLinear up through MaxPool. Behind a normalisation that stays float, nothing
brings the input into the layout of its fast INT8 kernel, and the plain one takes several times as
long as float and its quantization (onnxruntime 1.32, 64x112x112, in a profile: 22.6 ms beside 3.2).
So the pass is left out for engines that have such a pool; the plan says itself where INT8 begins.
"""

from __future__ import annotations

import onnx_ir as ir

PROPAGATION = "QDQPropagationTransformer"


def pools_float(model: ir.Model) -> bool:
    """Whether a MaxPool reads float that no DequantizeLinear made, and only INT8 reads it."""
    for node in model.graph:
        if node.op_type != "MaxPool" or node.inputs[0] is None:
            continue
        maker = node.inputs[0].producer()
        uses = list(node.outputs[0].uses())
        quantized = bool(uses) and all(use.node.op_type == "QuantizeLinear" for use in uses)
        if quantized and (maker is None or maker.op_type != "DequantizeLinear"):
            return True
    return False
