"""Whether the operators of a graph are such as ONNX has them at the model's opset.

By the schemas of the installed onnx: how many inputs and outputs, which attributes of what type,
and the types of weights and graph inputs. Types in between are the runtime's to infer.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import onnx
import onnx_ir as ir

from edgec.errors import InputError, UnsupportedError
from edgec.validate import AGAIN, brief, domain, printable

OLDEST_OPSET = 1  # what is older than 17 is lifted, or refused where the converter cannot
KNOWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"})
# ONNX Runtime knows these in ONNX's own domain before, or without, ONNX having them.
BORROWED = frozenset({"LayerNormalization", "SimplifiedLayerNormalization"})
STANDARD = ("", "ai.onnx")
LARGEST_DIM = 2**40  # elements along one dimension; no device holds them
CONSTANTS: tuple[str, ...] = ("value", "value_float", "value_floats", "value_int", "value_ints")
CONSTANTS += ("value_string", "value_strings", "sparse_value")
# What the specification calls a type, where onnx_ir calls it otherwise.
TYPE_NAMES = {ir.DataType.FLOAT: "float", ir.DataType.BOOL: "bool"}


def check_model(path: Path, model: ir.Model) -> None:
    """Whether opset, operators, attributes and shapes are such as ONNX has them.

    Raises InputError, or UnsupportedError for an opset or an operator that is not known.
    """
    _check_opset(path, model)
    functions = {(domain(f.domain), f.name) for f in model.functions.values()}
    version = model.opset_imports.get("", OLDEST_OPSET)
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        _check_operator(path, node, version, functions)
        refers = next((one.name for one in node.attributes.values() if one.is_ref()), None)
        if refers is not None:
            raise InputError(
                f"{path}: node {named(node)} takes {brief(refers)} from an attribute of a function "
                "and stands in none",
                hint=AGAIN,
            )
    for function in model.functions.values():
        own = function.opset_imports.get("", version)
        for node in ir.traversal.RecursiveGraphIterator(function.graph):
            _check_operator(path, node, own, functions)
    for value in (*model.graph.inputs, *model.graph.outputs):
        for axis, dim in enumerate(value.shape or ()):
            if isinstance(dim, int) and dim > LARGEST_DIM:
                raise InputError(
                    f"{path}: dimension {axis} of {brief(value.name)} is {dim}, more than any "
                    "device can hold",
                    hint="export again, with a symbolic dimension where the size varies",
                )


def _check_opset(path: Path, model: ir.Model) -> None:
    imports = [model.opset_imports, *(f.opset_imports for f in model.functions.values())]
    stated = [one.get("", OLDEST_OPSET) for one in imports]
    if min(stated) < OLDEST_OPSET:
        raise InputError(
            f"{path}: opset {min(stated)} is older than {OLDEST_OPSET}",
            hint=f"export with opset {OLDEST_OPSET} or newer",
        )
    newest, opset = onnx.defs.onnx_opset_version(), max(stated)
    if opset > newest:
        raise UnsupportedError(
            f"{path}: opset {opset} is newer than {newest}, the newest that onnx "
            f"{onnx.__version__} knows",
            hint=f"pip install --upgrade onnx, or export with opset {newest} or older",
        )


def _check_operator(path: Path, node: ir.Node, opset: int, functions: set[tuple[str, str]]) -> None:
    key = (domain(node.domain), node.op_type)
    if key in functions:
        return
    if node.domain not in KNOWN_DOMAINS:
        begin = f"my-ops/{_folder(node)} {_shown(node.domain)} {_shown(node.op_type)}"
        raise UnsupportedError(
            f"{path}: node {named(node)} is {printable(f'{node.domain}::{node.op_type}')[:99]}, "
            "an operator that neither ONNX nor the model defines, and for which there is no kernel",
            hint=f"write a kernel folder, which tools/new-kernel {begin} begins, and give "
            "--kernels my-ops; or export it as standard ONNX operators, or add it to the model as "
            "an ONNX function",
        )
    if node.domain not in STANDARD:
        return
    if not onnx.defs.has(node.op_type, opset, ""):
        if node.op_type in BORROWED:
            return
        raise UnsupportedError(
            f"{path}: node {named(node)} is {printable(node.op_type)[:99]}, "
            f"an operator that ONNX does not have at opset {opset}",
            hint="export it as standard ONNX operators, or raise the model's opset",
        )
    schema = onnx.defs.get_schema(node.op_type, opset, "")
    for count, least, most, what in (
        (len(node.inputs), schema.min_input, schema.max_input, "inputs"),
        (len(node.outputs), schema.min_output, schema.max_output, "outputs"),
    ):
        if not least <= count <= most:
            wanted = str(least) if least == most else f"{least} to {most}"
            wanted = f"at least {least}" if most > sys.maxsize // 2**33 else wanted
            raise InputError(
                f"{path}: node {named(node)} ({node.op_type}) has {count} {what}; "
                f"opset {opset} wants {wanted}",
                hint=AGAIN,
            )
    for position, formal in enumerate(schema.inputs):
        single = formal.option == onnx.defs.OpSchema.FormalParameterOption.Single
        if single and (position >= len(node.inputs) or node.inputs[position] is None):
            raise InputError(
                f"{path}: node {named(node)} ({node.op_type}) lacks its input {formal.name}",
                hint=AGAIN,
            )
    for position in range(len(node.inputs) if schema.inputs else 0):
        _check_type(path, node, position, schema)
    _check_attributes(path, node, schema)
    if node.op_type == "Constant":
        _check_constant(path, node)
    if node.op_type == "ConstantOfShape":
        _check_filling(path, node, schema)
    if node.op_type == "Split":
        _check_split(path, node)


def _check_filling(path: Path, node: ir.Node, schema: onnx.defs.OpSchema) -> None:
    """What fills a ConstantOfShape is one number; the schema leaves its type open."""
    given = node.attributes.get("value")
    if given is None or given.is_ref():
        return
    try:
        number, kind = given.value.size, _kind(ir.DataType(given.value.dtype))
    except ValueError:  # of no type that there is: `check_weights` says so
        return
    if number != 1 or kind not in schema.outputs[0].types:
        raise InputError(
            f"{path}: node {named(node)} (ConstantOfShape) cannot be filled with {number} of "
            f"{kind}",
            hint="its value is a tensor of one number: export the model again",
        )


def _check_split(path: Path, node: ir.Node) -> None:
    """ONNX's shape inference ends the process where the numbers differ."""
    pieces = node.attributes.get("num_outputs")
    if pieces is not None and pieces.as_int() != len(node.outputs):
        raise InputError(
            f"{path}: node {named(node)} (Split) has {len(node.outputs)} outputs, and num_outputs "
            f"is {pieces.as_int()}",
            hint=AGAIN,
        )


def _check_type(path: Path, node: ir.Node, position: int, schema: onnx.defs.OpSchema) -> None:
    """A constant or an input of the graph has a type that the operator takes."""
    value, formal = node.inputs[position], schema.inputs[min(position, len(schema.inputs) - 1)]
    dtype = None if value is None else _known_type(value)
    if value is None or dtype is None or dtype == ir.DataType.UNDEFINED:
        return
    kind = _kind(dtype)
    if kind not in formal.types:
        raise InputError(
            f"{path}: node {named(node)} ({node.op_type}) cannot take {brief(value.name)} as its "
            f"{formal.name}: it is a {kind}",
            hint="its type was changed, or another exporter's fault: export the model again",
        )


def _kind(dtype: ir.DataType) -> str:
    """What the specification calls a tensor of a type."""
    return f"tensor({TYPE_NAMES.get(dtype, dtype.name.lower())})"


def _known_type(value: ir.Value) -> ir.DataType | None:
    """Of a constant or an input of the graph, if it is a tensor."""
    try:
        if value.const_value is not None:
            return value.const_value.dtype
        maker = value.producer()
        given = maker.attributes if maker is not None and maker.op_type == "Constant" else {}
        own = given.get("value")
        if own is not None and own.type is ir.AttributeType.TENSOR and not own.is_ref():
            return ir.DataType(own.value.dtype)
    except ValueError:  # of no type that there is: `check_weights` says so
        return None
    if any(name in given for name in ("value_string", "value_strings")):
        return ir.DataType.STRING
    return value.dtype if value.is_graph_input() and isinstance(value.type, ir.TensorType) else None


def _check_constant(path: Path, node: ir.Node) -> None:
    given = [name for name in CONSTANTS if name in node.attributes]
    if len(given) != 1 or len(node.attributes) != 1:
        raise InputError(
            f"{path}: node {named(node)} (Constant) needs exactly one value; it has "
            f"{brief(', '.join(node.attributes)) if node.attributes else 'none'}",
            hint=AGAIN,
        )
    if given == ["sparse_value"]:
        raise UnsupportedError(
            f"{path}: node {named(node)} (Constant) holds a sparse tensor, which edgec does not "
            "read",
            hint="export it as a dense tensor",
        )


def _check_attributes(path: Path, node: ir.Node, schema: onnx.defs.OpSchema) -> None:
    """Types as the schema has them; an attribute that it does not know is left to the runtime."""
    for name, formal in schema.attributes.items():
        given = node.attributes.get(name)
        if given is None:
            if formal.required:
                raise InputError(
                    f"{path}: node {named(node)} ({node.op_type}) lacks the attribute {name}",
                    hint=AGAIN,
                )
            continue
        wanted = str(formal.type).rpartition(".")[2]
        if given.type.name != wanted or (given.value is None and not given.is_ref()):
            raise InputError(
                f"{path}: node {named(node)} ({node.op_type}): its attribute {name} is of type "
                f"{given.type.name}, not {wanted}",
                hint=AGAIN,
            )


def named(node: ir.Node) -> str:
    """How a node is called in a message."""
    if node.name:
        return brief(node.name)
    made = next((str(value.name) for value in node.outputs if value.name), "")
    return f"of {brief(made)}"


def _folder(node: ir.Node) -> str:
    """What the folder of a kernel for a node may be called: MyOp -> my_op."""
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", node.op_type)
    return re.sub(r"[^a-z0-9_]+", "_", parts.lower())[:60] or "op"


def _shown(text: str) -> str:
    """A name as an argument of a command line; a made-up one where it could not be one."""
    return text if re.fullmatch(r"[A-Za-z][A-Za-z0-9_.]{0,98}", text) else "NAME"
