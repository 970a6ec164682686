"""Stage 9: what only this target needs: ops that it has, the newest opset and IR that it takes.

Lowering rewrites are rules as the canonical ones are, and `edgec.prove` proves them as it does
these; one that fails is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import onnx
import onnx_ir as ir
from onnx import helper
from onnx_ir.passes import common

from edgec.able import picky, written_out
from edgec.canonicalise import rewrite
from edgec.convert import convert
from edgec.errors import UnsupportedError
from edgec.expand import expand
from edgec.graphs import opset
from edgec.kernels.marks import references
from edgec.kernels.reference import write_out
from edgec.rules import Rule
from edgec.sink import sink
from edgec.types import Rewrite, Runtime

OLDEST_IR = 8  # the first with what onnx_ir writes; an older one gains no reader


def lower(model: ir.Model, runtime: Runtime, off: Sequence[Rewrite] = ()) -> ir.Model:
    """Write out custom ops without a kernel here and ops that the runtime lacks, cap the opset.

    The IR version is the lowest that will do.

    `model` is not changed. `off`: lowerings that were found to fail. Raises UnsupportedError where
    the opset cannot sink.
    """
    found, used = lowered(model, runtime, off)
    if opset(found) > max(runtime.max_opset, runtime.tolerates):
        why = "; ".join(one.failure for one in used if one.failure)
        raise UnsupportedError(
            f"the model's opset {opset(found)} is newer than {runtime.name} accepts "
            f"({runtime.max_opset}), and could not be lowered: {why}",
            hint=f"export it with opset {runtime.max_opset} or older",
        )
    return found


def lowered(
    model: ir.Model,
    runtime: Runtime,
    off: Sequence[Rewrite] = (),
    rules: Sequence[Rule] | None = None,
) -> tuple[ir.Model, tuple[Rewrite, ...]]:
    """The same, and which lowerings did or failed. `rules`: these alone, for a trial."""
    if references(model):
        model = model.clone()
        write_out(model, runtime.natives)
    found, used = rewrite(model, lowerings(runtime) if rules is None else rules, off)
    needed = helper.find_min_ir_version_for(
        [helper.make_opsetid(domain, known) for domain, known in found.opset_imports.items()], True
    )
    found.ir_version = min(max(needed, OLDEST_IR), runtime.max_ir)
    return found, used


def lowerings(runtime: Runtime) -> tuple[Rule, ...]:
    """The rules that bring a model to a runtime, in their order."""
    write_out = partial(_write_out, runtime=runtime)
    return (
        Rule("write-out", "an op that the runtime lacks, or has wrong -> simpler ones", write_out),
        Rule(
            "sink-opset",
            "an op of a newer opset -> the same, or simpler ones, of an older",
            partial(_sink, runtime=runtime),
            whole=True,
        ),
    )


def _sink(model: ir.Model, runtime: Runtime) -> int:
    """Bring a model to the newest opset that the runtime takes; 1 where it was newer."""
    before = opset(model)
    if before <= runtime.max_opset:
        return 0
    stuck = sink(model, runtime.max_opset)
    if stuck and before > runtime.tolerates:
        convert(model, runtime.max_opset)
    if opset(model) > max(runtime.max_opset, runtime.tolerates):
        raise UnsupportedError(
            f"the model's opset {before} is newer than {runtime.name} accepts "
            f"({runtime.max_opset}), and could not be lowered: {stuck}",
            hint=f"export it with opset {runtime.max_opset} or older",
        )
    if opset(model) <= runtime.max_opset:
        _forget_newer(model, runtime)
    _write_out(model, runtime)
    return int(opset(model) != before)


def _write_out(model: ir.Model, runtime: Runtime) -> int:
    """Ops that the runtime lacks, or has wrong, become simpler ones; returns how many."""
    if not picky(runtime, opset(model)):
        return 0
    nodes = [node for node in model.graph if written_out(node, runtime)]
    for node in nodes:
        expand(node)
    # the converter of opsets reads constants from initialisers alone
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    return len(nodes)


def _forget_newer(model: ir.Model, runtime: Runtime) -> None:
    """Remove attributes that the older ops lack; the converter leaves some, at their default.

    Raises UnsupportedError where one says something.
    """
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type):
            continue
        known = onnx.defs.get_schema(node.op_type, runtime.max_opset).attributes
        for name, attribute in list(node.attributes.items()):
            if name in known:
                continue
            if attribute.type is not ir.AttributeType.INT or attribute.as_int() != 0:
                raise UnsupportedError(
                    f"{node.op_type} {node.name} needs {name}, which opset {runtime.max_opset} of "
                    f"{runtime.name} does not have",
                    hint=f"export it with opset {runtime.max_opset} or older",
                )
            del node.attributes[name]
