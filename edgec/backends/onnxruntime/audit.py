"""What a graph really computes with: its weighted ops, counted by the numbers that they multiply.

ONNX Runtime may quantize what was left float (its pass WeightBiasQuantization does), and may leave
in float what was to be INT8, both in silence. So the graph is counted twice: as it was emitted, and
as the session optimised it.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from edgec.graphs import RECURRENT, WEIGHTED, is_constant
from edgec.runtime.onnxruntime_session import LEVELS
from edgec.types import Counts, Decision, Engine, Scheme

INT8_OPS = frozenset(
    {
        "QLinearConv",
        "QLinearMatMul",
        "QGemm",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
        "ConvInteger",
        "QLinearConvTranspose",
        "DynamicQuantizeLSTM",
        "QAttention",
    }
)
FLOAT_OPS = WEIGHTED | {
    "FusedConv",
    "FusedGemm",
    "FusedMatMul",
    "NhwcFusedConv",
    "MatMulNBits",
    "Attention",
}


TOKEN = re.compile(r"_token_\d+$")  # what ONNX Runtime adds to the name of a node that it fused


@dataclass(frozen=True)
class Found:
    """Names of weighted nodes by what they compute with."""

    int8: frozenset[str]
    float: frozenset[str]

    @property
    def counts(self) -> Counts:
        """How many there are of each."""
        return Counts(len(self.int8), len(self.float))


def audit(path: Path, settings: Mapping[str, object], threads: int) -> Found:
    """Open a model as the device will, and count the graph that ONNX Runtime made of it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    level = LEVELS[str(settings.get("graph_optimization_level", "all"))]
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    config = settings.get("config")
    for key, value in config.items() if isinstance(config, Mapping) else ():
        options.add_session_config_entry(str(key), str(value))
    with tempfile.TemporaryDirectory(prefix="edgec-audit-") as folder:
        optimised = Path(folder) / "optimised.onnx"
        options.optimized_model_filepath = str(optimised)
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", "optimised.data"
        )
        onnxruntime.InferenceSession(
            path,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=set(map(str, _list(settings.get("disabled_optimizers")))),
        )
        return count(ir.load(optimised), fused=True)


def count(model: ir.Model, *, fused: bool) -> Found:
    """The weighted nodes of a graph.

    `fused`: what still stands between Q/DQ after optimisation computes in float; before it, Q/DQ
    around a node ask for INT8.
    """
    int8: set[str] = set()
    floats: set[str] = set()
    for index, node in enumerate(model.graph):
        name = TOKEN.sub("", node.name or f"#{index}").removesuffix("/integer")
        if node.op_type in INT8_OPS:
            int8.add(name)
        elif node.op_type in FLOAT_OPS and len(node.inputs) > 1:
            known = _dequantized_constant(node.inputs[1])
            if known and node.op_type not in RECURRENT and _dequantized(node.inputs[0]):
                (int8 if _fusible(node) and not fused else floats).add(name)
            elif known or _from_constants(node.inputs[1]):
                floats.add(name)
    return Found(frozenset(int8), frozenset(floats))


def planned(engine: Engine, decisions: Mapping[str, Decision], emitted: Found) -> Found:
    """What the decisions ask for; nodes that are kept as they came count as they were emitted."""
    int8: set[str] = set()
    floats: set[str] = set()
    for node in engine.source.graph:
        name = str(node.name)
        scheme = decisions[name].scheme
        if scheme is Scheme.KEPT:
            int8.update({name} & emitted.int8)
            floats.update({name} & emitted.float)
        elif node.op_type in WEIGHTED and len(node.inputs) > 1 and _from_constants(node.inputs[1]):
            static = scheme in (Scheme.INT8_STATIC, Scheme.INT8_DYNAMIC)
            (int8 if static else floats).add(name)
    return Found(frozenset(int8), frozenset(floats))


def _fusible(node: ir.Node) -> bool:
    """A MatMul needs nothing behind it; a Conv or Gemm is INT8 only if its output is quantized."""
    if node.op_type == "MatMul":
        return True
    return any(use.node.op_type == "QuantizeLinear" for use in node.outputs[0].uses())


def _from_constants(value: ir.Value | None) -> bool:
    """Whether a value follows from constants alone, through whatever computes it at run time."""
    stack, seen = [value], set()
    while stack:
        one = stack.pop()
        if one is None or one in seen or is_constant(one):
            continue
        seen.add(one)
        producer = one.producer()
        if producer is None or not producer.inputs:
            return False
        stack.extend(producer.inputs)
    return value is not None


def _dequantized(value: ir.Value | None) -> bool:
    producer = None if value is None else value.producer()
    return producer is not None and producer.op_type == "DequantizeLinear"


def _dequantized_constant(value: ir.Value | None) -> bool:
    producer = None if value is None else value.producer()
    return (
        producer is not None
        and producer.op_type == "DequantizeLinear"
        and is_constant(producer.inputs[0])
    )


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else []
