"""What a toolchain that is installed here makes of ops, one at a time.

An op has a form where a session runs, its result is close to ONNX's own reference, and INT8 is
really computed: the optimised graph tells. Runs in a process of its own (see `edgec.isolate`),
because toolchains crash.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgec.probe_ops import FLOAT, case, distance, model, reference, tensor
from edgec.types import Scheme

LEAST_DB = 60.0  # of the reference, in float
LEAST_INT8_DB = 18.0
ALONE = "alone it runs in float"
MOVERS = ("Input", "Output", "Reorder", "FakeQuantize", "Const", "Convert", "Quantize")
KEYS = ("layerType", "runtimePrecision")


@dataclass(frozen=True)
class Answer:
    """Whether a toolchain has an op in a form, and what tells so."""

    op: str
    form: str
    fine: bool
    evidence: str


def ask(backend: str, asked: Sequence[tuple[str, str]], kind: str) -> list[Answer]:
    """The answers of a toolchain, one question after the other. `kind`: of INT8 activations."""
    return [_one(backend, op, form, kind) for op, form in asked]


def _one(backend: str, op: str, form: str, kind: str) -> Answer:
    try:
        made, feeds = model(op, form, kind)
        with tempfile.TemporaryDirectory() as folder:
            result, told = RUNNERS[backend](made, feeds, Path(folder), op, form)
    except Exception as error:  # whatever a toolchain raises is its answer
        text = str(error).strip().splitlines() or [type(error).__name__]
        return Answer(op, form, False, text[0][:200])
    if result is None:
        return Answer(op, form, not told, told or "the parser takes it; not built")
    close = distance(reference(op), result)
    if close < (LEAST_DB if form == FLOAT else LEAST_INT8_DB):
        return Answer(op, form, False, f"{close:.0f} dB of the reference")
    near = "exact" if close == np.inf else f"{close:.0f} dB"
    weighted = bool(case(op).weights)
    return Answer(op, form, not (told and weighted), f"{near}; {told}" if told else near)


def _onnxruntime(
    made: onnx.ModelProto, feeds: dict[str, np.ndarray], folder: Path, op: str, form: str
) -> tuple[np.ndarray | None, str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    session = onnxruntime.InferenceSession(
        made.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    result = np.asarray(session.run(None, feeds)[0])
    if form != Scheme.INT8_STATIC:
        return result, ""
    graph = onnx.load(folder / "optimised.onnx").graph
    makers = {name: node.op_type for node in graph.node for name in node.output}
    inside = [n for n in graph.node if n.op_type == op or n.op_type.startswith("Fused")]
    floats = [n for n in inside if makers.get(n.input[0]) == "DequantizeLinear"]
    return result, ALONE if floats else ""


def _openvino(
    made: onnx.ModelProto, feeds: dict[str, np.ndarray], folder: Path, op: str, form: str
) -> tuple[np.ndarray | None, str]:
    core = _core()
    read = core.read_model(made.SerializeToString())
    asked = core.query_model(read, "CPU")
    lacking = {
        node.get_type_name()
        for node in read.get_ordered_ops()
        if node.get_friendly_name() not in asked
    }
    if lacking:
        return None, f"query_model: the CPU plugin lacks {', '.join(sorted(lacking))}"
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"}
    compiled = core.compile_model(read, "CPU", settings)
    result = np.asarray(compiled(list(feeds.values()))[0])
    if form != Scheme.INT8_STATIC:
        return result, ""
    layers = [
        (info["layerType"], info["runtimePrecision"])
        for node in compiled.get_runtime_model().get_ordered_ops()
        if (info := {k: str(v.astype(str)) for k, v in node.get_rt_info().items() if k in KEYS})
    ]
    work = [kind for layer, kind in layers if layer not in MOVERS]
    return result, "" if not work or set(work) & {"i8", "u8"} else ALONE


@cache
def _core() -> Any:
    import openvino

    return openvino.Core()


def _tensorrt(
    made: onnx.ModelProto, feeds: dict[str, np.ndarray], folder: Path, op: str, form: str
) -> tuple[np.ndarray | None, str]:
    """What the parser says; a build may still fail."""
    name = "tensorrt" if find_spec("tensorrt") else "tensorrt_rtx"
    trt = importlib.import_module(name)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if parser.supports_model_v2(made.SerializeToString()):
        return None, ""
    told = [parser.get_error(index).desc() for index in range(parser.num_errors)]
    return None, (told or ["supports_model_v2 says no"])[0][:200]


RUNNERS = {"onnxruntime": _onnxruntime, "openvino": _openvino, "tensorrt": _tensorrt}


def saturates(backend: str) -> bool:
    """Whether sums of products of large uint8 and int8 numbers overflow 16 bits here.

    Source: onnxruntime.ai, Quantize ONNX models: VPMADDUBSW adds pairs of products in 16 bits.
    """
    depth, width = 256, 64
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "one", "zero"], ["xf"]),
        helper.make_node("DequantizeLinear", ["w", "one", "zero8"], ["wf"]),
        helper.make_node("MatMul", ["xf", "wf"], ["m"], "MatMul"),
        helper.make_node("QuantizeLinear", ["m", "large", "zero"], ["mq"]),
        helper.make_node("DequantizeLinear", ["mq", "large", "zero"], ["y0"]),
    ]
    large = np.float32(255 * 127 * depth / 250)
    weights = {
        "one": np.float32(1),
        "zero": np.uint8(0),
        "zero8": np.int8(0),
        "large": large,
        "w": np.full((depth, width), 127, np.int8),
    }
    graph = helper.make_graph(
        nodes,
        "saturation",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (4, depth))],
        [helper.make_tensor_value_info("y0", TensorProto.FLOAT, (4, width))],
        [tensor(array, name) for name, array in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    feeds = {"x": np.full((4, depth), 255, np.float32)}
    with tempfile.TemporaryDirectory() as folder:
        result, _ = RUNNERS[backend](made, feeds, Path(folder), "MatMul", FLOAT)
    exact = 255.0 * 127 * depth
    return result is not None and bool(np.abs(result - exact).max() > 0.05 * exact)
