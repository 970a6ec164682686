"""A part taken out of an emitted ONNX file, so that exactly what was built is compared."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edgec.crossing import widened
from edgec.graphs import QUANTIZERS, behind_pair, extract


def cut(model: ir.Model, inputs: Sequence[str], outputs: Sequence[str]) -> ir.Model:
    """The piece of an emitted engine between named values.

    Where it computes in INT8, the Q/DQ pair of an input comes along, as the engine has it; in a
    float part that pair is the error of the part before.
    """
    model = widened(model)
    plain = extract(model, inputs, outputs)
    if not any(node.op_type in QUANTIZERS for node in plain.graph):
        return plain
    before = {name: behind_pair(model, name) for name in inputs}
    piece = extract(model, list(before.values()), outputs)
    named = {value: name for name, value in before.items()}
    for node in piece.graph:
        for value in node.outputs:
            if value.name in inputs:
                value.name = f"{value.name}/dequantized"
    for value in piece.graph.inputs:
        value.name = named.get(str(value.name), value.name)
    return piece
