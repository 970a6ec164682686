"""Stage 9: what only this target needs: ops that it has, the newest opset and IR that it takes."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx import helper
from onnx_ir.passes import common
from onnxscript import version_converter

from edgec.able import picky, written_out
from edgec.errors import UnsupportedError
from edgec.expand import expand
from edgec.graphs import opset
from edgec.kernels.reference import write_out
from edgec.sink import sink
from edgec.types import Runtime

OLDEST_IR = 8  # the first with what onnx_ir writes; an older one gains no reader


def lower(model: ir.Model, runtime: Runtime) -> ir.Model:
    """Write out custom ops without a kernel here and ops that the runtime lacks, in place.

    The opset is capped, and the IR version the lowest that will do.

    Raises UnsupportedError where the opset cannot sink.
    """
    write_out(model, runtime.natives)
    _write_out(model, runtime)
    if opset(model) > runtime.max_opset:
        before = opset(model)
        stuck = sink(model, runtime.max_opset)
        if stuck and before > runtime.tolerates:
            version_converter.convert_version(model, runtime.max_opset, fallback=True)
        if opset(model) > max(runtime.max_opset, runtime.tolerates):
            raise UnsupportedError(
                f"the model's opset {before} is newer than {runtime.name} accepts "
                f"({runtime.max_opset}), and could not be lowered: {stuck}",
                hint=f"export it with opset {runtime.max_opset} or older",
            )
        if opset(model) <= runtime.max_opset:
            _forget_newer(model, runtime)
        _write_out(model, runtime)
    needed = helper.find_min_ir_version_for(
        [helper.make_opsetid(domain, found) for domain, found in model.opset_imports.items()], True
    )
    model.ir_version = min(max(needed, OLDEST_IR), runtime.max_ir)
    return model


def _write_out(model: ir.Model, runtime: Runtime) -> None:
    """Ops that the runtime lacks, or has wrong, become simpler ones."""
    if picky(runtime, opset(model)):
        for node in list(model.graph):
            if written_out(node, runtime):
                expand(node)
        # the converter of opsets reads constants from initialisers alone
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)


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
