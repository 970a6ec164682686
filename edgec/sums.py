"""Float values that are added for INT8 products to read: where the sum itself is worth INT8.

x + y, both float, with Q/DQ behind it: read 8 bytes and write 4, Relu, read 4 and write 1. With
Q/DQ before it, both are quantized, and the sum reads 2 bytes and writes 1; a value that is added
again, as on the path around a residual block, is INT8 already. Only a runtime whose row says that
its sum does so (`from_float`) is asked.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from edgec.graphs import WEIGHTED, is_constant
from edgec.types import Decision, Runtime, Scheme


def between_products(
    model: ir.Model, decisions: Mapping[str, Decision], runtimes: Mapping[str, Runtime]
) -> frozenset[str]:
    """The names of such sums: of two computed tensors of one shape, that INT8 products read.

    Apart from them, only other sums may. `decisions`: in which these sums are float.
    `runtimes`: by part.
    """
    found = set()
    for node in model.graph:
        decision = decisions.get(str(node.name))
        runtime = None if decision is None else runtimes.get(decision.part)
        rule = None if runtime is None else runtime.ops.get(node.op_type)
        if node.op_type != "Add" or rule is None or not rule.from_float or not _alike(node):
            continue
        readers = _readers(node.outputs[0])
        products = [one for one in readers if one.op_type in WEIGHTED]
        others = [one for one in readers if one not in products and one.op_type != "Add"]
        if products and not others and all(_static(one, decisions) for one in products):
            found.add(str(node.name))
    return frozenset(found)


def _alike(node: ir.Node) -> bool:
    """Whether it adds two computed float tensors, of which each has all of the sizes."""
    first, second = node.inputs
    if first is None or second is None or is_constant(first) or is_constant(second):
        return False
    if first.shape is None or second.shape is None or len(first.shape) != len(second.shape):
        return False
    # A free batch may have two names.
    sizes = zip(list(first.shape)[1:], list(second.shape)[1:], strict=True)
    same = all(isinstance(a, int) and a == b for a, b in sizes)
    return same and first.dtype == second.dtype == ir.DataType.FLOAT


def _readers(value: ir.Value) -> list[ir.Node]:
    """What reads a value, behind a Relu that alone reads it; nothing, where the caller does too."""
    readers = [use.node for use in value.uses()]
    if value.is_graph_output():
        return []
    if [one.op_type for one in readers] == ["Relu"]:
        return _readers(readers[0].outputs[0])
    return readers


def _static(node: ir.Node, decisions: Mapping[str, Decision]) -> bool:
    found = decisions.get(str(node.name))
    return found is not None and found.scheme is Scheme.INT8_STATIC
