"""FP16 by casts in the graph: the types stand in the model, so that no TensorRT can choose others.

The conversion is onnxruntime's own (`onnxruntime.transformers.float16`). Q/DQ stay in FP32, so that
scales keep all their bits; TensorRT-RTX 1.7.1 multiplies in INT8 behind such a pair all the same
(10 of 10 products of a small CNN, 54 of 54 of ResNet-50, 12 of 12 of a ViT).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from edgec.backends.tensorrt.prepare import DEQUANTIZE, QUANTIZE
from edgec.errors import EmitError, UnsupportedError
from edgec.graphs import add_initialiser, constant, is_constant

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
    proto = ir.to_proto(model)
    weights = {tensor.name for tensor in proto.graph.initializer}
    known = [value for value in proto.graph.value_info if value.name not in weights]
    del proto.graph.value_info[:]  # else the conversion takes constants that stay for converted
    proto.graph.value_info.extend(known)
    try:
        converted = convert_float_to_float16(
            proto,
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
    _shorten(made)
    return made


def rounded(model: ir.Model, keep: Collection[str]) -> ir.Model:
    """A copy in FP32 that rounds to FP16 what `half` computes in FP16; sums overflow to infinity.

    ONNX Runtime's CPU kernels run a model in FP16 as if it were in FP32 between most nodes, and so
    show neither. Values keep their names and types. Bodies of If and Loop are left alone, and what
    DequantizeLinear makes: INT8 kernels take the integers.
    """
    model = model.clone()
    if any(value.dtype is None for node in model.graph for value in node.outputs):
        common.ShapeInferencePass()(model)
    plain = set(keep)
    for node in list(model.graph):
        if not _rounds(node, plain):
            continue
        for index, value in enumerate(node.inputs):
            array = constant(value) if value is not None and _is_float(value) else None
            if array is not None:
                small = _constant(array)
                name = f"{node.name}/constant_{index}/rounded"
                node.replace_input_with(index, add_initialiser(model, name, small))
        for value in node.outputs:
            if value.name and _is_float(value):
                _round(model, value, node, list(value.uses()))
    for value in model.graph.inputs:
        if _is_float(value) and not is_constant(value):
            uses = [one for one in value.uses() if _rounds(one.node, plain)]
            _round(model, value, None, uses)
    common.RemoveUnusedNodesPass()(model)
    return model


def _constant(array: np.ndarray) -> np.ndarray:
    """What `half` makes of a constant: the mask's -3.4e38 stays finite, infinity stays infinite."""
    most = np.finfo(np.float16).max
    finite = np.where(np.isfinite(array), np.clip(array, -most, most), array)
    return finite.astype(np.float16).astype(np.float32)


def _rounds(node: ir.Node, keep: Collection[str]) -> bool:
    return node.op_type not in (QUANTIZE, DEQUANTIZE) and str(node.name) not in keep


def _round(model: ir.Model, value: ir.Value, producer: ir.Node | None, uses: Sequence[Any]) -> None:
    """Insert a cast to FP16 and back; `uses` of the value then are of the rounded one."""
    name = str(value.name)
    down = ir.node("Cast", [value], {"to": int(ir.DataType.FLOAT16)}, name=f"{name}/to_fp16")
    up = ir.node("Cast", down.outputs, {"to": int(ir.DataType.FLOAT)}, name=f"{name}/to_fp32")
    down.outputs[0].name = f"{name}/fp16"
    output = up.outputs[0]
    output.type, output.shape = value.type, value.shape
    for use in uses:
        use.node.replace_input_with(use.idx, output)
    if producer is None:
        output.name = f"{name}/fp16_rounded"
        model.graph.insert_before(model.graph[0], [down, up])
        return
    model.graph.insert_after(producer, [down, up])
    for index, one in enumerate(model.graph.outputs):
        if one is value:
            model.graph.outputs[index] = output
    value.name, output.name = f"{name}/fp32", name


def _is_float(value: ir.Value) -> bool:
    return value.dtype is ir.DataType.FLOAT


def _shorten(model: ir.Model) -> None:
    """Between two nodes in FP32 the conversion goes through FP16; remove that."""
    for node in list(model.graph):
        source = node.inputs[0] if _casts(node, ir.DataType.FLOAT) else None
        before = None if source is None else source.producer()
        if before is None or not _casts(before, ir.DataType.FLOAT16):
            continue
        origin, old = before.inputs[0], node.outputs[0]
        if origin is None or origin.dtype is not ir.DataType.FLOAT:
            continue
        if old.is_graph_output():
            if origin.is_graph_input() or origin.is_graph_output():
                continue
            name = old.name
            ir.convenience.replace_all_uses_with(old, origin, replace_graph_outputs=True)
            model.graph.remove(node, safe=True)
            origin.name = name
        else:
            ir.convenience.replace_all_uses_with(old, origin)
            model.graph.remove(node, safe=True)
    common.RemoveUnusedNodesPass()(model)
    model.graph.sort()


def _casts(node: ir.Node, dtype: ir.DataType) -> bool:
    to = node.attributes.get("to")
    return node.op_type == "Cast" and to is not None and to.as_int() == dtype
