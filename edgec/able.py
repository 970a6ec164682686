"""What a runtime can run at all, by its table: ops that it lacks, limits of nodes, known bugs.

An op that a runtime lacks, or has wrong, is written out in simpler ones where ONNX defines it so
(see `edgec.expand`); `edgec.lower` does that. Whatever else stands against a node is a
reason to run its part elsewhere.
"""

from __future__ import annotations

from functools import cache

import onnx
import onnx_ir as ir

from edgec import expand
from edgec.graphs import constant, is_constant, opset
from edgec.kernels.marks import op
from edgec.types import Bounds, Bug, Graph, OpLimits, OpRule, Part, Runtime, Support
from edgec.validate import printable

EXPAND, HALF, AVOID = "expand", "half", "avoid"


def unable(node: ir.Node, runtime: Runtime) -> str:
    """Why a runtime cannot run a node, or an empty text where it can."""
    if op(node):
        return ""  # native, or written out as its reference
    missing = _missing(node, runtime)
    if missing and not _expands(node, runtime):
        return missing
    if node.domain in expand.STANDARD and not missing:
        rule = runtime.ops.get(node.op_type)
        if rule is not None and (broken := _breaks(node, rule.limits)):
            return f"{broken}, and {runtime.name} takes {rule.note} ({_told(rule)})"
    bug = known_bug(node, runtime)
    if bug is not None and (
        bug.detour == AVOID or (bug.detour == EXPAND and not _expands(node, runtime))
    ):
        return f"{bug.name}: {bug.effect} ({_told(bug)})"
    return _out_of_bounds(node, runtime.limits, runtime.name)


def written_out(node: ir.Node, runtime: Runtime) -> str:
    """Why a node is written out in simpler ops for a runtime, or an empty text where it is not."""
    bug = known_bug(node, runtime)
    why = _missing(node, runtime)
    if not why and bug is not None and bug.detour == EXPAND:
        why = f"{bug.name}: {bug.effect} ({_told(bug)})"
    return why if why and _expands(node, runtime) else ""


def known_bug(node: ir.Node, runtime: Runtime) -> Bug | None:
    """The first known bug of a runtime that a node meets."""
    full = node.op_type if node.domain in expand.STANDARD else f"{node.domain}.{node.op_type}"
    for bug in runtime.bugs:
        if bug.op_type == full:
            values = (_attribute(node, key) for key in bug.attributes)
            wanted = bug.attributes.values()
            if all(v in listed for v, listed in zip(values, wanted, strict=True)):
                return bug
    return None


def unable_part(part: Part, graph: Graph, runtime: Runtime) -> str:
    """Why a runtime cannot run a part: the first node that it cannot, or an empty text."""
    if not picky(runtime, opset(graph.model)):
        return ""
    nodes = {str(node.name): node for node in graph.model.graph}
    for name in part.nodes:
        if why := unable(nodes[name], runtime):
            return f"{printable(name)[:99]}: {why}"
    return ""


def pieces(part: Part, graph: Graph, runtime: Runtime) -> tuple[int, int, str]:
    """Of a part: how many nodes a runtime can run, in how many runs of them, and what it cannot.

    A run is what one loadable of an accelerator holds: nodes in the graph's order without one
    between them that has to run elsewhere.
    """
    nodes = {str(node.name): node for node in graph.model.graph}
    reasons = [unable(nodes[name], runtime) for name in part.nodes]
    fine = [not reason for reason in reasons]
    runs = sum(a and not b for a, b in zip(fine, [False, *fine[:-1]], strict=True))
    return sum(fine), runs, next((reason for reason in reasons if reason), "")


def _missing(node: ir.Node, runtime: Runtime) -> str:
    """Why a runtime has no such op, or an empty text where it has one."""
    op = node.op_type
    if node.domain not in expand.STANDARD or not onnx.defs.has(op, ""):
        if runtime.limits.only_listed or runtime.limits.standard_ops:
            own = node.domain or "ONNX Runtime"
            return f"{printable(op)[:99]} of {own} has no implementation on {runtime.name}"
        return ""
    if op in runtime.unsupported:
        return f"{runtime.name} has no {op} ({runtime.unsupported[op]})"
    rule = runtime.ops.get(op)
    if rule is not None and rule.support is Support.NO:
        return f"{runtime.name} has no {op}: {rule.note} ({_told(rule)})"
    if rule is None and runtime.limits.only_listed:
        return f"{op} is not among the ops of {runtime.name} ({_told(runtime.limits)})"
    newest = max(runtime.max_opset, runtime.tolerates)
    if not _known_by(op, newest):
        return f"{op} came with a later opset than {newest}, the last of {runtime.name}"
    return ""


def _expands(node: ir.Node, runtime: Runtime) -> bool:
    """Whether a node can be written out in ops all of which a runtime has."""
    inside = expand.ops(node)
    return bool(inside) and not any(
        op in runtime.unsupported
        or not _known_by(op, runtime.max_opset)
        or (op in runtime.ops and runtime.ops[op].support is Support.NO)
        or (op not in runtime.ops and runtime.limits.only_listed)
        for op in inside
    )


@cache
def _known_by(op_type: str, version: int) -> bool:
    """Whether an op of ONNX's own exists in an opset; unknown ones are left to the backend."""
    if not onnx.defs.has(op_type, ""):
        return True
    try:
        return bool(onnx.defs.get_schema(op_type, version, ""))
    except onnx.defs.SchemaError:
        return False


def _breaks(node: ir.Node, limits: OpLimits) -> str:
    """What of an op's limits a node does not keep, or an empty text."""
    for value in (*node.inputs[:1], *node.outputs[:1]):
        rank = None if value is None or value.shape is None else len(value.shape)
        if limits.ranks and rank is not None and rank not in limits.ranks:
            return f"{node.op_type} has {rank} dimensions"
    for key, listed in limits.attributes.items():
        found = _attribute(node, key)
        if found is not None and found not in listed:
            return f"{node.op_type} has {key} = {found}"
    for index, most in limits.constants_below.items():
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None:
            continue
        array = constant(value) if is_constant(value) else None
        if array is None:
            return f"input {index} of {node.op_type} is not constant"
        if array.size and float(array.max()) >= most:
            return f"input {index} of {node.op_type} is {array.max()}"
    return ""


def _out_of_bounds(node: ir.Node, bounds: Bounds, name: str) -> str:
    """What of a runtime's bounds the values of a node do not keep, or an empty text."""
    if not (bounds.ranks or bounds.max_batch or bounds.max_dimension):
        return ""
    for value in (*node.inputs, *node.outputs):
        if value is None or value.shape is None or is_constant(value):
            continue
        sizes = [dim for dim in value.shape if isinstance(dim, int)]
        if bounds.ranks and len(value.shape) not in bounds.ranks:
            wanted = " or ".join(f"{rank}-D" for rank in bounds.ranks)
            return (
                f"{value.name} has {len(value.shape)} dimensions, and {name} takes {wanted} values"
            )
        if bounds.max_batch and value.shape and isinstance(batch := value.shape[0], int):
            if batch > bounds.max_batch:
                return (
                    f"{value.name} has a batch of {batch}, above the {bounds.max_batch} of {name}"
                )
            sizes = sizes[1:]
        if bounds.max_dimension and sizes and max(sizes) > bounds.max_dimension:
            return f"{value.name} has a dimension of {max(sizes)}, above {bounds.max_dimension}"
    return ""


def _attribute(node: ir.Node, key: str) -> str | float | None:
    """The value of an attribute, else its default; None where there is neither."""
    found = node.attributes.get(key)
    if found is not None:
        return found.value if isinstance(found.value, (str, int, float)) else None
    version = 1 if node.graph is None else node.graph.opset_imports.get("", 1)
    try:
        schema = onnx.defs.get_schema(node.op_type, version, "")
        default = schema.attributes[key].default_value
    except (onnx.defs.SchemaError, KeyError):
        return None
    value = onnx.helper.get_attribute_value(default) if default.name else None
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, (str, int, float)) else None


def picky(runtime: Runtime, version: int) -> bool:
    """Whether anything in the table can stand against a node of a model of that opset."""
    return bool(
        runtime.unsupported
        or runtime.bugs
        or runtime.limits != Bounds()
        or version > runtime.max_opset
        or any(rule.support is not Support.YES for rule in runtime.ops.values())
    )


def _told(row: OpRule | Bounds | Bug) -> str:
    return f"{row.confidence}: {row.source}"
