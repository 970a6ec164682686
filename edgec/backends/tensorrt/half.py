"""FP16 by casts in the graph: the types stand in the model, so that no TensorRT can choose others.

The conversion is onnxruntime's own (`onnxruntime.transformers.float16`). Q/DQ stay in FP32, so that
scales keep all their bits; TensorRT-RTX 1.7.1 multiplies in INT8 behind such a pair all the same
(10 of 10 products of a small CNN, 54 of 54 of ResNet-50, 12 of 12 of a ViT).
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from edgec.backends.tensorrt.prepare import DEQUANTIZE, QUANTIZE
from edgec.errors import EmitError, UnsupportedError

MOST_BYTES = 2**31 - 2**26  # of weights: the conversion works on one protobuf


def half(model: ir.Model, keep: Collection[str]) -> ir.Model:
    """A copy whose float ops compute in FP16; inputs, outputs and the nodes named `keep` stay FP32.

    Raises UnsupportedError for a model that is too large to be converted, EmitError where the
    conversion fails.
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    tensors = (value.const_value for value in model.graph.initializers.values())
    if sum(int(tensor.nbytes) for tensor in tensors if tensor is not None) > MOST_BYTES:
        raise UnsupportedError(
            "the engine is too large to be converted to FP16",
            hint="quantize more, or build its parts one by one: joining = per-part in a policy",
        )
    try:
        converted = convert_float_to_float16(
            ir.to_proto(model),
            keep_io_types=True,
            op_block_list=[*DEFAULT_OP_BLOCK_LIST, QUANTIZE, DEQUANTIZE],
            node_block_list=sorted(keep),
        )
    except (ValueError, RuntimeError, KeyError, AssertionError) as error:
        raise EmitError(
            f"the engine cannot be converted to FP16: {str(error)[:300]}",
            hint="keep the part in float32 by a policy",
        ) from error
    made: ir.Model = ir.from_proto(converted)
    return made
