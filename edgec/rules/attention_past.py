"""Attention(q, k, v, , pk, pv) -> Attention(q, k, v, m, pk, pv), where m [queries, keys] adds 0.

ONNX's own body of Attention, by which older opsets get it, cannot leave out a mask that a past
follows. Source: ONNX operator Attention 23.
"""

from __future__ import annotations

import onnx_ir as ir

from edgec.rules.steps import Steps, computes_in, given

NAME = "state-empty-mask"
STANDARD = ("", "ai.onnx")
MASK, PAST = 3, 4  # of its inputs


def apply(model: ir.Model) -> int:
    """Give such nodes a mask; returns how many."""
    nodes = [node for node in model.graph if node.op_type == "Attention"]
    return sum(_masked(model, node) for node in nodes if node.domain in STANDARD)


def _masked(model: ir.Model, node: ir.Node) -> bool:
    query, key, past = given(node, 0), given(node, 1), given(node, PAST)
    if query is None or key is None or past is None or given(node, MASK) is not None:
        return False
    ranks = [0 if value.shape is None else len(value.shape) for value in (query, key)]
    if any(rank not in (3, 4) for rank in ranks):
        return False
    steps = Steps(model, node, NAME)
    new, now, before = (
        steps.add("Shape", [value], {"start": axis, "end": axis + 1})
        for value, axis in ((query, ranks[0] - 2), (key, ranks[1] - 2), (past, 2))
    )
    shape = steps.add("Concat", [new, steps.add("Add", [now, before])], {"axis": 0})
    zero = steps.scalar("zero", 0, computes_in(node))
    mask = steps.add("Expand", [zero, shape])
    model.graph.insert_before(node, steps.nodes)
    node.replace_input_with(MASK, mask)
    return True
