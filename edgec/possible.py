"""What becomes of a wish that a runtime cannot fulfil as it stands, by its table alone."""

from __future__ import annotations

import onnx_ir as ir

from edgec.able import HALF, known_bug, picky, written_out
from edgec.kernels.marks import op
from edgec.types import Part, Runtime, Scheme

FLOATS = (Scheme.FLOAT32, Scheme.BFLOAT16, Scheme.FLOAT16)
Verdict = tuple[Scheme, str, str]  # scheme, reason, evidence


def possible(scheme: Scheme, runtime: Runtime, part: Part, *, data: bool) -> tuple[Scheme, str]:
    """A scheme, or what it becomes on a runtime that does not have it, and why."""
    other = runtime.instead.get(scheme)
    if other is None and scheme not in runtime.refused:
        return scheme, ""
    row = runtime.ladders[part.kind]
    first = (row.with_data if data else row.without_data)[0]
    if other is None:
        return first, f"{scheme} is not possible: {runtime.refused[scheme]}"
    found = other.with_data if data else other.without_data
    why = f"{scheme} is not possible: {other.reason} ({other.confidence}: {other.source})"
    return (first if found in runtime.refused else found), why


def custom(node: ir.Node, runtime: Runtime) -> Verdict | None:
    """A custom op computes in float, by a kernel of the runtime's or its reference; else None."""
    if not op(node):
        return None
    native = runtime.natives.get(op(node))
    if native is None:
        return runtime.precision, f"written out as its reference on {runtime.name}", "kernels"
    return Scheme.FLOAT32, f"native kernel of {op(node)}: {native.reason}", "kernels"


def in_float(node: ir.Node, verdict: Verdict, runtime: Runtime, opset: int) -> Verdict:
    """A verdict with what the op table and known bugs say of a node's float form."""
    scheme, reason, evidence = verdict
    if not picky(runtime, opset):
        return verdict
    rule = runtime.ops.get(node.op_type)
    if scheme in FLOATS and rule is not None and rule.dtypes and scheme not in rule.dtypes:
        scheme = Scheme(rule.dtypes[0])
        reason = f"{node.op_type} computes in {' or '.join(rule.dtypes)} alone: {rule.note}"
        evidence = f"{runtime.name}, ops.{node.op_type} ({rule.confidence}: {rule.source})"
    bug = known_bug(node, runtime)
    if bug is not None and bug.detour == HALF and scheme is Scheme.FLOAT32:
        scheme, reason = Scheme.FLOAT16, f"{bug.name}: {bug.effect}"
        evidence = f"{runtime.name}, bugs ({bug.confidence}: {bug.source})"
    if why := written_out(node, runtime):
        reason = f"{reason}; written out in simpler ops: {why}"
    return scheme, reason, evidence
