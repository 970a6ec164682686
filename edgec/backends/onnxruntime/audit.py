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

from edgec.graphs import RECURRENT, WEIGHTED, attribute, is_constant
from edgec.results import Counts, Engine
from edgec.runtime.onnxruntime_settings import Options, parse
from edgec.types import Decision, Scheme

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

Names = frozenset[str]
TOKEN = re.compile(r"_token_\d+$")  # what ONNX Runtime adds to the name of a node that it fused
FUSED = re.compile(r"^fused (?=.)|/MatMulAddFusion$")  # what it calls a Gemm with what follows it
NCHWC = "NchwcTransformer"  # the pass that lays out float convolutions for this CPU
BLOCKWISE = 4  # the accuracy level from which MatMulNBits rounds activations too


@dataclass(frozen=True)
class Found:
    """Names of weighted nodes by what they compute with.

    `blockwise`: those of `float` that round their activations to INT8, a scale per block.
    """

    int8: frozenset[str]
    float: frozenset[str]
    blockwise: frozenset[str] = frozenset()

    @property
    def counts(self) -> Counts:
        """How many there are of each."""
        return Counts(len(self.int8), len(self.float))


def audit(
    path: Path, settings: Mapping[str, object], threads: int, known: Names = frozenset()
) -> Found:
    """Open a model as the device will, and count the graph that ONNX Runtime made of it.

    `known`: the names of the model's nodes.
    """
    return read_back(path, parse({**settings, "threads": threads}), path, known)


def read_back(path: Path, checked: Options, source: Path, known: Names) -> Found:
    """Count what ONNX Runtime makes of `path`, by the names that the nodes have in `source`.

    A float convolution that was laid out for this CPU is called after its output, so names are
    taken from the graph without that pass, which moves numbers about and changes none.
    """
    found, renamed = _optimised(path, checked, known)
    if not renamed:
        return found
    named, _ = _optimised(source, checked._replace(disabled=checked.disabled | {NCHWC}), known)
    return named if named.counts == found.counts else found


def _optimised(path: Path, checked: Options, known: Names) -> tuple[Found, bool]:
    """The weighted nodes of the graph that runs, and whether some have names of their own."""
    import onnxruntime

    from edgec.runtime.onnx_file import is_ort
    from edgec.runtime.onnxruntime_session import session_options

    options = session_options(checked, path.parent)
    options.add_session_config_entry("session.load_model_format", "ORT" if is_ort(path) else "ONNX")
    options.add_session_config_entry("session.save_model_format", "ONNX")
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
            disabled_optimizers=set(checked.disabled) or None,
            enable_fallback=0,
        )
        model = ir.load(optimised)
        renamed = any(node.domain == "com.microsoft.nchwc" for node in model.graph)
        return count(model, fused=True, known=known), renamed


def count(model: ir.Model, *, fused: bool, known: Names = frozenset()) -> Found:
    """The weighted nodes of a graph.

    `fused`: what still stands between Q/DQ after optimisation computes in float; before it, Q/DQ
    around a node ask for INT8. `known`: how the nodes were called before it.
    """
    int8: set[str] = set()
    floats: set[str] = set()
    blockwise: set[str] = set()
    for index, node in enumerate(model.graph):
        name = node.name or f"#{index}"
        name = (_original(name, known) if fused else name).removesuffix("/integer")
        if node.op_type == "QLinearConv" and not is_constant(node.inputs[4]):
            continue  # with computed steps: a normalisation (see `group_sums`)
        if node.op_type in INT8_OPS:
            int8.add(name)
        elif node.op_type in FLOAT_OPS and len(node.inputs) > 1:
            packed = _dequantized_constant(node.inputs[1])
            if packed and node.op_type not in RECURRENT and _dequantized(node.inputs[0]):
                (int8 if _fusible(node) and not fused else floats).add(name)
            elif packed or _from_constants(node.inputs[1]):
                floats.add(name)
            if node.op_type == "MatMulNBits" and attribute(node, "accuracy_level", 0) == BLOCKWISE:
                blockwise.add(name)
    return Found(frozenset(int8), frozenset(floats), frozenset(blockwise))


def _original(name: str, known: Names) -> str:
    """The name of a node before it was fused; nodes may have had such names from the beginning."""
    if name in known:
        return name
    shorter = TOKEN.sub("", name)
    return shorter if shorter in known else FUSED.sub("", shorter)


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
