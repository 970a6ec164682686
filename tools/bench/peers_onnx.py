"""Cutting a network out of a larger file, and fixing its input shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx.utils import Extractor


def fixed(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> onnx.ModelProto:
    """Give the inputs these shapes, in place, and infer the others from them."""
    for value in model.graph.input:
        if value.name in shapes:
            _reshape(value, shapes[value.name])
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    session = ort.InferenceSession(model.SerializeToString())  # knows what inference cannot
    zeros = {
        one.name: np.zeros(one.shape, np.float32 if "float" in one.type else np.int64)
        for one in session.get_inputs()
    }
    for value, array in zip(model.graph.output, session.run(None, zeros), strict=True):
        _reshape(value, array.shape)
    return model


def _reshape(value: onnx.ValueInfoProto, sizes: Sequence[int]) -> None:
    shape = onnx.TensorShapeProto()
    for size in sizes:
        shape.dim.add().dim_value = size
    value.type.tensor_type.shape.CopyFrom(shape)


def cut(
    model: onnx.ModelProto, inputs: Sequence[str], output: str, shape: Sequence[int | str]
) -> onnx.ModelProto:
    """The part of a model between these inputs and one float output of the given shape."""
    known = {value.name for value in (*model.graph.value_info, *model.graph.output)}
    if output not in known:
        model.graph.value_info.append(
            onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, shape)
        )
    return Extractor(model).extract_model(list(inputs), [output])


def rename_output(model: onnx.ModelProto, name: str) -> None:
    """Call the model's only output `name`."""
    (value,) = model.graph.output
    for node in model.graph.node:
        node.output[:] = [name if one == value.name else one for one in node.output]
        node.input[:] = [name if one == value.name else one for one in node.input]
    value.name = name


def save(model: onnx.ModelProto, path: Path) -> None:
    """Check and write a model as one file."""
    onnx.checker.check_model(model, full_check=True)
    partial = path.with_name(path.name + ".partial")
    onnx.save(model, partial)
    partial.replace(path)
