"""Nodes of custom ops in a graph: attached to their reference, typed, or written out as it.

A graph carries the references of its ops as model-local functions. A node says what computes it in
its metadata: its op, and the digest of the reference, so that statistics depend on it. What a
backend is given holds no such function: a node is native there, or it is written out.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType

import onnx
import onnx.inliner
import onnx_ir as ir

from edgec.body import splice
from edgec.convert import convert
from edgec.errors import InputError
from edgec.kernels import OPSET, Kernel, Kernels
from edgec.kernels.marks import FUSES, MARK, PLAIN, STAYS, mark, op, references

TYPES = {name: ir.DataType[name.upper()] for name in ("float", "int64", "int32", "bool")}


NOTHING: Mapping[str, bool] = MappingProxyType({})


def attach(model: ir.Model, kernels: Kernels, stay: Mapping[str, bool] = NOTHING) -> None:
    """Mark the nodes of known custom ops and give the model their references.

    `stay`: ops whose nodes are not written out at once, since some runtime has a kernel for them,
    and whether rewrites of edgec may make nodes of them.
    """
    from edgec.rules import opset  # which themselves write out

    def kernel_of(node: ir.Node) -> Kernel | None:
        own = (node.domain, node.op_type, "") in model.functions
        return None if own else kernels.get(f"{node.domain}::{node.op_type}")

    forget(model)
    used = set()
    if any(kernel_of(node) for node in every_node(model)):
        opset.apply(model)  # now, since the converter forgets what is marked
    for node in every_node(model):
        kernel = kernel_of(node)
        if kernel is None:
            continue
        mark(node, kernel.key, kernel.digest)
        node.name = node.name or f"{node.op_type}/{node.outputs[0].name}"
        _complete(node, kernel)
        used.add(kernel.key)
    for key in sorted(used):
        provide(model, kernels[key], stays=key in stay)
    made = sorted(key for key in stay if stay[key] and key in kernels and kernels[key].fuses)
    if made:
        model.metadata_props[FUSES] = " ".join(made)


def forget(model: ir.Model) -> None:
    """Remove marks that a model brings along: they are this program's word alone."""
    marked: list[ir.Model | ir.Function | ir.Node] = [model, *model.functions.values()]
    marked += every_node(model)
    for one in marked:
        for key in (MARK, STAYS, FUSES, PLAIN):
            one.metadata_props.pop(key, None)


def every_node(model: ir.Model) -> Iterator[ir.Node]:
    """Those of the graph and of the model's functions, with their subgraphs."""
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from ir.traversal.RecursiveGraphIterator(function)


def provide(model: ir.Model, kernel: Kernel, *, stays: bool) -> None:
    """Give a model the reference of an op. `stays`: see `attach`."""
    function: ir.Function = ir.serde.deserialize_function(kernel.function)
    function.metadata_props[MARK] = _facts(kernel)
    if stays:
        function.metadata_props[STAYS] = kernel.digest
    model.functions[function.identifier()] = function
    model.opset_imports.setdefault(kernel.domain, 1)


def _complete(node: ir.Node, kernel: Kernel) -> None:
    """Check a node against the declaration, and state the attributes that it leaves out."""
    problem = ""
    if len(node.inputs) != len(kernel.inputs) or None in node.inputs:
        problem = f"{len(node.inputs)} inputs, not {len(kernel.inputs)}"
    elif len(node.outputs) > len(kernel.outputs):
        problem = f"{len(node.outputs)} outputs, not {len(kernel.outputs)}"
    for proto in kernel.function.attribute_proto:
        if proto.name not in node.attributes:
            node.attributes.add(ir.serde.deserialize_attribute(proto))
    for name, attribute in node.attributes.items():
        if name not in kernel.attributes:
            problem = f"an attribute {name}, which is not declared"
        elif attribute.type.name != kernel.attributes[name].upper():
            problem = f"an attribute {name} that is no {kernel.attributes[name]}"
    missing = [name for name in kernel.attributes if name not in node.attributes]
    if missing:
        problem = f"no attribute {missing[0]}"
    if problem:
        raise InputError(
            f"node {node.name or node.outputs[0].name!r} ({kernel.key}) has {problem[:200]}",
            hint=f"{kernel.folder / 'kernel.toml'} says what such a node has",
        )


def write_out(model: ir.Model, but: Collection[str] = ()) -> int:
    """Replace nodes of custom ops by their references, in place; returns how many there were.

    `but`: ops, domain::name, whose nodes stay, without a reference.
    """
    known = {f"{one.domain}::{one.name}": one for one in references(model)}
    going = [node for node in model.graph.all_nodes() if op(node) and op(node) not in but]
    for node in going:
        graph = ir.from_proto(_body(known[op(node)], node, model)).graph
        outer = [value for value in node.inputs if value is not None]
        splice(node, dict(zip(graph.inputs, outer, strict=True)), graph)
    for one in known.values():
        del model.functions[one.identifier()]
        if one.domain not in {node.domain for node in model.graph.all_nodes()}:
            model.opset_imports.pop(one.domain, None)
    return len(going)


def write_out_passing(model: ir.Model) -> int:
    """The same for ops that no runtime of the target has a kernel for; the others keep theirs."""
    staying = [one for one in references(model) if STAYS in one.metadata_props]
    count = write_out(model, {f"{one.domain}::{one.name}" for one in staying})
    for function in staying:
        model.functions[function.identifier()] = function
        model.opset_imports.setdefault(function.domain, 1)
    return count


def type_outputs(model: ir.Model) -> bool:
    """Types and shapes of what custom ops make, by their declarations; whether any was new."""
    facts = {
        f"{one.domain}::{one.name}": json.loads(one.metadata_props[MARK])
        for one in references(model)
    }
    changed = False
    for node in model.graph.all_nodes():
        if op(node) not in facts:
            continue
        known = facts[op(node)]
        inputs = dict(zip(known["inputs"], node.inputs, strict=True))
        for value, (name, kind) in zip(node.outputs, known["outputs"].items(), strict=False):
            if value.dtype is None:
                value.dtype, changed = TYPES[kind], True
            shape = _shape(known["shapes"].get(name), inputs)
            if value.shape is None and shape is not None:
                value.shape, changed = shape, True
    return changed


def _shape(
    declared: str | list[str | int] | None, inputs: Mapping[str, ir.Value | None]
) -> ir.Shape | None:
    def of(name: str) -> ir.Shape | None:
        value = inputs[name]
        return None if value is None else value.shape

    if declared is None:
        return None
    if isinstance(declared, str):
        found = of(declared)
        return None if found is None else ir.Shape(found)
    sizes: list[int | str | None] = []
    for one in declared:
        if isinstance(one, int) or one == "?":
            sizes.append(one if isinstance(one, int) else None)
            continue
        name, _, axis = one.partition(".")
        found = of(name)
        if found is None or not axis.isdigit() or int(axis) >= len(found):
            return None
        dim = found[int(axis)]
        sizes.append(dim if isinstance(dim, int) else dim.value)
    return ir.Shape(sizes)


def _facts(kernel: Kernel) -> str:
    facts = {
        "inputs": list(kernel.inputs),
        "outputs": dict(kernel.outputs),
        "shapes": dict(kernel.shapes),
    }
    return json.dumps(facts)


def _body(function: ir.Function, node: ir.Node, model: ir.Model) -> onnx.ModelProto:
    """A model of a node's reference: its attributes in their places, at the model's opset."""
    alone = ir.Node(
        node.domain,
        node.op_type,
        [ir.Value(name=f"x{index}") for index, _ in enumerate(node.inputs)],
        attributes=list(node.attributes.values()),
        num_outputs=len(node.outputs),
    )
    for index, value in enumerate(alone.outputs):
        value.name = f"y{index}"
    return _bound(
        ir.to_proto(function).SerializeToString(deterministic=True),
        ir.to_proto(alone).SerializeToString(deterministic=True),
        model.opset_imports.get("", OPSET),
    )


@functools.lru_cache(maxsize=256)
def _bound(function: bytes, node: bytes, version: int) -> onnx.ModelProto:
    reference, one = onnx.FunctionProto.FromString(function), onnx.NodeProto.FromString(node)
    typed = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [one],
        "body",
        [typed(name, onnx.TensorProto.UNDEFINED, None) for name in one.input],
        [typed(name, onnx.TensorProto.UNDEFINED, None) for name in one.output],
    )
    imports = [onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid(one.domain, 1)]
    model = onnx.helper.make_model(graph, functions=[reference], opset_imports=imports)
    model = onnx.inliner.inline_local_functions(model)
    if version > OPSET:
        found = ir.from_proto(model)
        convert(found, version)
        model = ir.to_proto(found)
    return model
