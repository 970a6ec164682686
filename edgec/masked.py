"""Attention scores behind a mask: what hides a position says nothing of the range of the others.

    s = x + m  or  Where(c, x, -big), read by Softmax;   range(s) := [min x - DEPTH, max x]

A range that includes the mask's -1e4 leaves a handful of levels to the scores. With the range of
the scores themselves, what is hidden saturates at its lower end. That end lies DEPTH below the
least score, and so below the largest of every row: a hidden position keeps at most exp(-DEPTH) of
the weight of that one. What lowers no score by more than DEPTH hides nothing: a bias, say.
"""

from __future__ import annotations

import onnx_ir as ir

from edgec.graphs import reads, weight

DEPTH = 12.0  # exp(-12) = 6e-6
THROUGH = frozenset({"Reshape", "Identity", "Cast"})  # what may stand before the Softmax


def masked_scores(model: ir.Model) -> dict[str, str]:
    """By the name of a masked value, the name of the scores that it was made of."""
    weighted = _behind_weights(model)
    found = {}
    for node in model.graph:
        if node.op_type not in ("Add", "Where") or not _reaches_softmax(node.outputs[0]):
            continue
        operands = [v for v in (node.inputs[1:] if node.op_type == "Where" else node.inputs) if v]
        scores = [value for value in operands if value in weighted]
        if len(operands) == 2 and len(scores) == 1:
            found[str(node.outputs[0].name)] = str(scores[0].name)
    return found


def unmasked(masked: tuple[float, float], scores: tuple[float, float]) -> tuple[float, float]:
    """The range (low, high) of masked scores, from what was seen of them and of the scores."""
    low = scores[0] - DEPTH
    return masked if masked[0] >= low else (low, max(scores[1], masked[1]))


def _behind_weights(model: ir.Model) -> set[ir.Value]:
    """The values that some weighted op has a part in."""
    found: set[ir.Value] = set()
    for node in model.graph:
        if weight(node) is not None or any(value in found for value in reads(node)):
            found.update(node.outputs)
    return found


def _reaches_softmax(value: ir.Value) -> bool:
    while True:
        users = [use.node for use in value.uses()]
        if any(node.op_type == "Softmax" for node in users):
            return True
        if len(users) != 1 or users[0].op_type not in THROUGH:
            return False
        value = users[0].outputs[0]
