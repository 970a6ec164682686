"""A model into an older opset: unchanged where it is the same there, else written out.

Most operators are the same in an older opset, or differ in types that a model does not use; what an
older opset lacks is written out in the operators that the specification defines it by.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import defs

from edgec.body import write_out
from edgec.graphs import attribute, constant, opset

STANDARD = ("", "ai.onnx")
MOD_FLOORS_FLOATS = 28  # before, they have fmod = 1 alone
FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}


def sink(model: ir.Model, most: int) -> str:
    """Bring a model to opset `most` if every node can come along; else say which cannot, and why.

    Nodes that were written out by then stay so.
    """
    stack = list(ir.traversal.RecursiveGraphIterator(model.graph))
    while stack:
        node = stack.pop()
        if node.domain not in STANDARD or not defs.has(node.op_type, opset(model), ""):
            continue
        if defs.get_schema(node.op_type, opset(model), "").since_version <= most:
            continue
        why = _misfit(node, most)
        if why:
            body = write_out(model, node)
            if not body:
                return f"{node.op_type} {node.name!r} {why}"
            stack += body
    model.graph.opset_imports[""] = most
    for graph in model.graph.subgraphs():
        if "" in graph.opset_imports:
            graph.opset_imports[""] = most
    for function in model.functions.values():
        function.opset_imports[""] = min(function.opset_imports.get("", most), most)
    return ""


def _misfit(node: ir.Node, most: int) -> str:
    """Why a node is no node of an older opset; an empty text where it is. Defaults are dropped."""
    if not defs.has(node.op_type, most, ""):
        return f"is newer than opset {most}"
    old = defs.get_schema(node.op_type, most, "")
    _restate(node, old)
    if len(node.inputs) > old.max_input or len(node.outputs) > old.max_output:
        return f"has more inputs or outputs than in opset {most}"
    newest = defs.get_schema(node.op_type, defs.onnx_opset_version(), "")
    for name in [name for name in node.attributes if name not in old.attributes]:
        default = newest.attributes[name].default_value if name in newest.attributes else None
        if (
            default is None
            or ir.serde.deserialize_attribute(default).value != node.attributes[name].value
        ):
            return f"has the attribute {name}, which opset {most} does not know"
        node.attributes.pop(name)
    if most < MOD_FLOORS_FLOATS and _floors_floats(node):
        return f"floors floats, which opset {most} does not"
    allowed = {one.type_param_str: set(one.allowed_type_strs) for one in old.type_constraints}
    for value, formal in zip(node.inputs, old.inputs, strict=False):
        types = allowed.get(formal.type_str, {formal.type_str})
        if value is not None and value.dtype is not None and _text(value) not in types:
            return f"reads {_text(value)}, which opset {most} does not allow"
    return ""


def _floors_floats(node: ir.Node) -> bool:
    first = node.inputs[0] if node.op_type == "Mod" and not attribute(node, "fmod", 0) else None
    return first is not None and first.dtype in FLOATS


def _restate(node: ir.Node, old: defs.OpSchema) -> None:
    """Constant inputs become attributes where an older opset has these: the axes of reductions."""
    newest = defs.get_schema(node.op_type, defs.onnx_opset_version(), "")
    while len(node.inputs) > old.max_input:
        index = len(node.inputs) - 1
        name, array = newest.inputs[index].name, constant(node.inputs[index])
        if node.inputs[index] is not None:
            if name not in old.attributes or array is None or array.dtype != np.int64:
                return
            if array.size:  # else all axes, which is what leaving them out means
                node.attributes[name] = ir.AttrInt64s(name, array.reshape(-1).tolist())
                node.attributes.pop("noop_with_empty_axes", None)
        node.resize_inputs(index)


def _text(value: ir.Value) -> str:
    """A type as schemas write it."""
    proto = onnx.TypeProto()
    if value.type is not None:
        ir.serde.serialize_type_into(proto, value.type)
    kind = onnx.helper.printable_type(proto).partition(",")[0].lower()
    return f"tensor({kind})"
