"""Questions that several stages ask of a graph, and the way to take a piece out of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from edgec import single_file
from edgec.external import embed
from edgec.kernels.marks import references
from edgec.kernels.reference import write_out
from edgec.stand_ins import stand_ins

FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE})
RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
WEIGHTED = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"}) | RECURRENT
QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
HIDDEN = "edgec.hidden"  # the domain of a node that is not to be seen
LONG = 1 << 16  # more numbers than any shape has
MOST_NUMBERS = 1 << 21  # of long vectors, in all
EXTERNAL_FROM = 1 << 30  # bytes of weights from which a model is saved with external data


def reads(node: ir.Node) -> Iterator[ir.Value]:
    """The values that a node reads, those captured by its subgraphs included."""
    for value in node.inputs:
        if value is not None:
            yield value
    for graph in subgraphs(node):
        inside = set(graph.inputs) | set(graph.initializers.values())
        for inner in graph:
            for value in reads(inner):
                if value not in inside:
                    yield value
            inside.update(inner.outputs)
        for value in graph.outputs:
            if value not in inside:
                yield value


def subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs that a control-flow node holds."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def inner(node: ir.Node) -> Iterator[ir.Node]:
    """A node, and all that stand in its subgraphs."""
    yield node
    for graph in subgraphs(node):
        for one in graph:
            yield from inner(one)


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The array of a constant value, or None where the value is computed, or is texts."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None or tensor.dtype == ir.DataType.STRING else tensor.numpy()


def is_constant(value: ir.Value | None) -> bool:
    """Whether a value is an initialiser or a Constant node; its data is not read."""
    return value is not None and ir.convenience.get_const_tensor(value) is not None


def weight(node: ir.Node) -> ir.Value | None:
    """The constant weight of Conv, ConvTranspose, MatMul, Gemm or a recurrent op, if it has one.

    It is of real numbers: products of integers are no layers.
    """
    if node.domain not in ("", "ai.onnx") or node.op_type not in WEIGHTED or len(node.inputs) < 2:
        return None
    tensor = None if node.inputs[1] is None else ir.convenience.get_const_tensor(node.inputs[1])
    return node.inputs[1] if tensor is not None and tensor.dtype.is_floating_point() else None


def elements(value: ir.Value) -> int:
    """How many elements a constant has; 0 where it is not one."""
    tensor = ir.convenience.get_const_tensor(value)
    return 0 if tensor is None else int(tensor.size)


def item_bytes(dtype: ir.DataType) -> float:
    """What an element takes; a string counts as one byte, since onnx_ir knows no size of it."""
    return 1.0 if dtype == ir.DataType.STRING else float(dtype.itemsize)


def stored_bytes(tensor: ir.TensorProtocol) -> int:
    """What a tensor takes; see `item_bytes`."""
    return int(tensor.size if tensor.dtype == ir.DataType.STRING else tensor.nbytes)


def weight_bytes(nodes: Iterable[ir.Node], *, half: bool = False) -> int:
    """Bytes of the distinct constants that nodes read, in subgraphs too; see `half`.

    `half`: float32 is stored in 16 bits.
    """
    seen = {
        value
        for outer in nodes
        for node in inner(outer)
        for value in node.inputs
        if value is not None and is_constant(value)
    }
    tensors = (ir.convenience.get_const_tensor(value) for value in seen)
    return sum(
        stored_bytes(tensor) // (2 if half and tensor.dtype == ir.DataType.FLOAT else 1)
        for tensor in tensors
        if tensor is not None
    )


def macs(node: ir.Node) -> int:
    """Multiply-accumulates of a weighted node for one sample; symbolic dimensions count as one."""
    value = weight(node)
    if value is None:
        return 0
    count = elements(value)
    shape = node.outputs[0].shape
    if shape is None:
        return count
    sizes = [dim if isinstance(dim, int) else 1 for dim in shape]
    if node.op_type in ("Conv", "ConvTranspose"):
        return count * math.prod(sizes[2:])
    return count * math.prod(sizes[:-1])


def initialiser(name: str, tensor: ir.TensorProtocol) -> ir.Value:
    """A constant value, typed as its tensor is."""
    value = ir.Value(name=name, const_value=tensor, shape=ir.Shape(tensor.shape.numpy()))
    value.dtype = tensor.dtype
    return value


def add_initialiser(model: ir.Model, name: str, array: np.ndarray) -> ir.Value:
    """Add a constant under `name`, or a free name that begins like it."""
    while name in model.graph.initializers:
        name += "_"
    value = initialiser(name, ir.tensor(np.asarray(array, order="C"), name=name))
    model.graph.register_initializer(value)
    return value


def replace(model: ir.Model, node: ir.Node, steps: Sequence[ir.Node], old: ir.Value) -> None:
    """Put `steps` in the place of `node`; the last output takes over the name of `old`."""
    new, name = steps[-1].outputs[0], old.name
    for step in steps[:-1]:
        step.outputs[0].name = f"{step.name}/out"
    new.type, new.shape = old.type, old.shape
    model.graph.insert_before(node, steps)
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    model.graph.remove(node, safe=True)
    new.name = name


def infer_shapes(model: ir.Model, *, arithmetic: bool = True) -> None:
    """Types and shapes of all values, in place, through the `arithmetic` of shapes as well.

    That is left out where values of one dimension are long: onnx takes them for shapes, and keeps
    150 bytes for each of their numbers, known or not.
    """
    arithmetic = arithmetic and sum(map(length, every_value(model))) <= MOST_NUMBERS
    with stand_ins(model):
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=arithmetic)(model)
    _type_sequences(model)


@contextmanager
def hidden(model: ir.Model, nodes: Iterable[ir.Node]) -> Iterator[None]:
    """Meanwhile `nodes` are operators of which nobody knows anything."""
    domains, nested = {node: node.domain for node in nodes}, HIDDEN in model.opset_imports
    for node in domains:
        node.domain = HIDDEN
        node.op_type += HIDDEN
    if domains:
        model.opset_imports[HIDDEN] = 1
    try:
        yield
    finally:
        for node, domain in domains.items():
            node.domain = domain
            node.op_type = node.op_type.removesuffix(HIDDEN)
        if not nested:
            model.opset_imports.pop(HIDDEN, None)


def every_value(model: ir.Model) -> Iterator[ir.Value]:
    """Those of the graph and of the model's functions, with their subgraphs."""
    for top in (model.graph, *(function.graph for function in model.functions.values())):
        for graph in (top, *top.subgraphs()):
            yield from graph.inputs
            yield from graph.initializers.values()
            for node in graph:
                yield from node.outputs


def length(value: ir.Value) -> int:
    """How many numbers a vector has that is longer than any shape; else 0."""
    dim = value.shape[0] if value.shape is not None and len(value.shape) == 1 else 0
    return dim if isinstance(dim, int) and dim > LONG else 0


def _type_sequences(model: ir.Model) -> None:
    """A sequence that an If gives is one; the pass takes the type of its elements for its own."""
    for node in ir.traversal.RecursiveGraphIterator(model.graph, reverse=True):
        branch = node.attributes.get("then_branch") if node.op_type == "If" else None
        for value, inner in zip(
            node.outputs, branch.as_graph().outputs if branch else (), strict=False
        ):
            if not isinstance(inner.type, (ir.TensorType, type(None))):
                value.type = inner.type


def is_long(node: ir.Node) -> bool:
    """Whether a Range between constants has more numbers than shapes have."""
    ends = [array for value in node.inputs if (array := constant(value)) is not None]
    if len(ends) != 3 or any(array.size != 1 for array in ends):
        return False
    start, end, step = (float(array.reshape(())) for array in ends)
    return not abs(end - start) <= LONG * abs(step)


def attribute(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute of a node."""
    found = node.attributes.get(name)
    return default if found is None else found.as_int()


def opset(model: ir.Model) -> int:
    """The version of the standard operator set."""
    return model.opset_imports.get("", 0)


def behind_pair(model: ir.Model, name: str) -> str:
    """The value before the Q/DQ pair that gave its output `name`, or `name` itself."""
    values = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)
    node = values[name].producer()
    if node is None or node.op_type != "DequantizeLinear" or node.name != f"{name}/dequantize":
        return name
    quantize = None if node.inputs[0] is None else node.inputs[0].producer()
    if quantize is None or quantize.op_type != "QuantizeLinear" or quantize.inputs[0] is None:
        return name
    return str(quantize.inputs[0].name)


def extract(model: ir.Model, inputs: Sequence[str], outputs: Sequence[str]) -> ir.Model:
    """The piece of `model` between named values, as a model of its own; weights are shared.

    Nodes on the way that depend on constants or shapes alone come along. Inputs that turn out to
    be unused are dropped.
    """
    values = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)
    graph = ir.convenience.extract(
        model.graph, [values[name] for name in inputs], [values[name] for name in outputs]
    )
    used = {value for node in graph for value in reads(node)} | set(graph.outputs)
    for index in reversed(range(len(graph.inputs))):
        if graph.inputs[index] not in used:
            graph.inputs.pop(index)
    graph.opset_imports.update(model.opset_imports)
    return ir.Model(graph, ir_version=model.ir_version, functions=list(model.functions.values()))


def save(model: ir.Model, path: Path, *, external: bool = False) -> list[Path]:
    """Write a model; returns its files. Weights above 1 GiB in all go into one data file.

    `external`: smaller ones too, which takes no memory for a copy of them. Custom ops are written
    out as their references, so that the file runs anywhere.
    """
    if references(model):
        model = model.clone()
        write_out(model)
    tensors = (value.const_value for value in model.graph.initializers.values())
    total = sum(stored_bytes(tensor) for tensor in tensors if tensor is not None)
    if total < EXTERNAL_FROM and not external:
        single_file.write(model, path)
        return [path]
    embed(model)
    data = path.with_name(path.name + ".data")
    ir.save(model, path, external_data=data.name)
    return [path, data]
