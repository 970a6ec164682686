"""The integer ops of an engine, each on its own, with the inputs that it really gets.

What follows a difference of one bit in float is different too, so ops can only be compared one by
one: all of them stand side by side in one flat model, each with inputs of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper

Arrays = dict[str, np.ndarray]
INTEGER = re.compile("Integer|^QLinear|^QGemm|Quantize")


def flat(
    engine: Path, feeds: Mapping[str, np.ndarray], into: Path, *, fused: bool
) -> tuple[Path, Arrays, Arrays]:
    """The flat model, its inputs, and what this machine computes.

    `fused`: with the ops that onnxruntime makes of others; layouts of this CPU alone stay out.
    """
    optimised = into / "optimised.onnx"
    levels = onnxruntime.GraphOptimizationLevel
    session(engine, levels.ORT_ENABLE_EXTENDED if fused else levels.ORT_ENABLE_BASIC, optimised)
    model = onnx.load(optimised)
    nodes = [node for node in model.graph.node if INTEGER.search(node.op_type)]
    values = _values(model, {name for node in nodes for name in node.input if name}, feeds, into)
    inputs: Arrays = {}
    outputs = []
    for index, node in enumerate(nodes):
        for place, name in enumerate(node.input):
            if name in values:
                inputs[f"in_{index}_{place}"] = values[name]
                node.input[place] = f"in_{index}_{place}"
        for place, name in enumerate(node.output):
            if name:
                node.output[place] = f"out_{index}_{place}_{node.op_type}"
                outputs.append(helper.make_empty_tensor_value_info(node.output[place]))
    del model.graph.node[:], model.graph.input[:], model.graph.output[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    model.graph.output.extend(outputs)
    model.graph.input.extend(
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in inputs.items()
    )
    path = into / "flat.onnx"
    onnx.save(model, path)
    made = session(path, levels.ORT_DISABLE_ALL).run(None, inputs)
    return path, inputs, dict(zip((one.name for one in outputs), made, strict=True))


def _values(
    model: onnx.ModelProto, wanted: set[str], feeds: Mapping[str, np.ndarray], into: Path
) -> Arrays:
    """What the named values are on these feeds, but for constants."""
    made = {name for node in model.graph.node for name in node.output}
    inner = sorted(wanted & made)
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    del shown.graph.output[:]
    shown.graph.output.extend(map(helper.make_empty_tensor_value_info, inner))
    onnx.save(shown, into / "shown.onnx")
    run = session(into / "shown.onnx", onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL).run
    return {
        **{name: array for name, array in feeds.items() if name in wanted},
        **dict(zip(inner, run(None, dict(feeds)), strict=True)),
    }


def session(
    path: Path, level: onnxruntime.GraphOptimizationLevel, optimised: Path | None = None
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 3
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
        options.add_session_config_entry("session.qdqisint8allowed", "1")
    return onnxruntime.InferenceSession(
        path, options, ["CPUExecutionProvider"], disabled_optimizers=["WeightBiasQuantization"]
    )
