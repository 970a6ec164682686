"""A modality that says nothing: an input that is equal in all samples, or blank in some.

Zeros are right for the first state of a recurrent layer, and one number throughout is right for
token types, so that both are notes at most. What a recipe feeds as a constant is not told of.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx_ir as ir

from edgec.audit.context import Context
from edgec.audit.finding import Finding, note, warning
from edgec.audit.survey import is_mask
from edgec.graphs import RECURRENT

NAME = "constant"
LEAST = 4  # elements: fewer may well be flags
STATE = 5  # the inputs of a recurrent op from here on are states


def check(context: Context) -> Iterator[Finding]:
    """One finding for each input."""
    samples = context.survey.samples
    states = _states(context)
    for need in context.prepared.inputs:
        if need.name in context.constants or is_mask(need) or not samples:
            continue
        sights = [sample.sights[need.name] for sample in samples]
        flat = {(one.low, one.high) for one in sights}
        level = flat.pop() if len(flat) == 1 else (0.0, 1.0)
        if level[0] == level[1] and (need.dtype.kind in "iub" or need.name in states):
            if len(samples) > 1:
                yield note(
                    NAME,
                    f"{need.name} is {level[0]:g} everywhere",
                    hint="right for token types of single texts and for first states; else feed "
                    "what the model meets in use",
                )
            continue
        if len(samples) > 1 and len({one.digest for one in sights}) == 1:
            yield warning(
                NAME,
                f"{need.name} is equal in all {len(samples)} samples",
                hint="its part would be calibrated on one input: write a different one into each",
            )
            continue
        blank = tuple(
            sample.name
            for sample, one in zip(samples, sights, strict=True)
            if one.low == one.high and need.dtype.kind == "f" and math.prod(one.shape) >= LEAST
        )
        if blank and need.name not in states:
            yield warning(
                NAME,
                f"{need.name} holds one number alone in {len(blank)} of {len(samples)} samples",
                blank,
                hint="leave these samples out, or repair what writes them",
            )


def _states(context: Context) -> set[str]:
    """The inputs that are, perhaps after a change of shape, the first state of a recurrent op."""
    found = set()
    for value in context.prepared.graph.model.graph.inputs:
        reached = [value]
        while reached:
            one = reached.pop()
            for use in one.uses():
                if use.node.op_type in RECURRENT and use.idx >= STATE:
                    found.add(str(value.name))
                elif _moves(use.node):
                    reached += use.node.outputs
    return found


def _moves(node: ir.Node) -> bool:
    return node.op_type in ("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice")
