"""What a part is made of, and what it looks at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import onnx_ir as ir

from edgec.graphs import RECURRENT, WEIGHTED, inner, is_constant, macs
from edgec.narrow import ASSUMED
from edgec.types import Kind, Modality

# What stands between a weight that is stored quantized and its use.
WIDENING = frozenset({"DequantizeLinear", "Cast", "Mul", "Sub", "Transpose", "Reshape"})
SOUNDS = ("mel", "audio", "wave", "speech", "spectrogram", "fbank")
PICTURES = ("image", "pixel", "picture", "photo", "frame")


def kind(nodes: Sequence[ir.Node]) -> tuple[Kind, str]:
    """What most of the multiply-accumulates are: convolution, attention, recurrence or dense."""
    work: Counter[str] = Counter()
    every = [one for node in nodes for one in inner(node)]
    for node in every:
        if _product(node):
            name = "Conv" if node.op_type.startswith("Conv") else node.op_type
            work["Recurrent" if name in RECURRENT else name] += _work(node)
    if not work:
        return Kind.GLUE, "has no weights"
    total = work.total()
    attention = any(node.op_type in ("Softmax", "Attention") for node in every) and any(
        node.op_type in ("MatMul", "Attention") and not _product(node) for node in every
    )
    if work["Conv"] * 2 >= total:
        return Kind.CNN, f"{work['Conv'] / total:.0%} of the work is convolution"
    if work["Recurrent"] * 2 >= total:
        return Kind.RECURRENT, f"{work['Recurrent'] / total:.0%} of the work is recurrent"
    dense = (work["MatMul"] + work["Gemm"]) / total
    if attention:
        return Kind.TRANSFORMER, f"{dense:.0%} of the work is MatMul, between attention"
    return Kind.MLP, f"{dense:.0%} of the work is MatMul, without attention"


def weighted(node: ir.Node) -> bool:
    """Whether a node, or one in its subgraphs, multiplies by a weight, float or quantized."""
    return any(_product(one) for one in inner(node))


def looks_up(node: ir.Node) -> bool:
    """Whether a node takes rows of a constant table."""
    return node.op_type == "Gather" and fixed(node.inputs[0]) and node.inputs[1] is not None


def fixed(value: ir.Value | None) -> bool:
    """Whether a value is a constant, or made float from one."""
    if value is None or is_constant(value):
        return value is not None
    producer = value.producer()
    if producer is None or producer.op_type not in WIDENING:
        return False
    return all(fixed(one) for one in producer.inputs if one is not None)


def modality(inputs: Sequence[ir.Value], nodes: Sequence[ir.Node]) -> Modality:
    """A guess from the types, ranks and names of the inputs, and from how they are first used."""
    text = " ".join(str(value.name).lower() for value in inputs)
    if any(word in text for word in SOUNDS):
        return Modality.AUDIO
    integers = {v for v in inputs if v.dtype in (ir.DataType.INT64, ir.DataType.INT32)}
    if integers and any(looks_up(node) for node in nodes):
        return Modality.TEXT
    if any(one.op_type == "Conv" for node in nodes for one in inner(node)):
        ranks = {len(value.shape) for value in inputs if value.shape is not None}
        if 4 in ranks or (3 in ranks and any(word in text for word in PICTURES)):
            return Modality.VISION
    return Modality.UNKNOWN


def _work(node: ir.Node) -> int:
    """As `macs`, but a dimension of unknown size, other than the batch, is no small one."""
    shape = node.outputs[0].shape
    if shape is None:
        return max(1, macs(node)) * ASSUMED
    unknown = sum(not isinstance(dim, int) for dim in shape[1:])
    found: int = max(1, macs(node)) * ASSUMED**unknown
    return found


def _product(node: ir.Node) -> bool:
    standard = node.op_type in WEIGHTED and node.domain in ("", "ai.onnx") and len(node.inputs) > 1
    return standard and fixed(node.inputs[1])
