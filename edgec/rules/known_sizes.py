"""f(Shape(x)) -> its value, where that needs only sizes of x that are fixed, whatever the others.
Reshape(y, f(Shape(x))) -> Reshape(y, [.., -1, ..]), where one size alone is not known.

Exporters compute paddings and shapes from sizes at run time (TorchScript's "same" padding, the
reshapes of tf2onnx), and a free batch keeps all of it alive. So each element of a vector of sizes
is followed for itself, known or not, through the operators below, in their own types: a value is
the one that the runtime would get. What is folded lets more shapes be inferred, and so on. Reshape
neither makes nor loses elements, so that one size follows from the others, if none of them is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from edgec.graphs import add_initialiser, attribute, constant, infer_shapes, initialiser

NAME = "fold-known-sizes"
MOST_ELEMENTS = 64  # of a vector of sizes
MOST_ROUNDS = 64  # one for each padding behind another
Known = np.ma.MaskedArray  # an array whose unknown elements are masked


def apply(model: ir.Model) -> int:
    """Replace values that are known and computed from sizes; returns how many nodes changed."""
    before, settled = model.graph.num_nodes(), 0
    for _ in range(MOST_ROUNDS):
        changed, reshapes = _fold(model)
        settled += reshapes
        if not (changed or reshapes):
            break
        common.RemoveUnusedNodesPass()(model)
        if not any(node.op_type == "Shape" for node in model.graph):
            break
        infer_shapes(model)
    return before - model.graph.num_nodes() + settled


def _fold(model: ir.Model) -> tuple[bool, int]:
    """One pass; whether any value was replaced, and how many Reshapes got their sizes."""
    found: dict[ir.Value, Known] = {}
    for node in model.graph:
        if len(node.outputs) != 1 or node.domain not in ("", "ai.onnx"):
            continue
        known = _follow(node, found)
        if known is not None and known.size <= MOST_ELEMENTS:
            found[node.outputs[0]] = known
    changed = False
    for value, known in found.items():
        maker = value.producer()
        whole = not np.ma.getmaskarray(known).any()
        if maker is None or not whole or value.is_graph_output():
            continue
        new = initialiser(str(value.name), ir.tensor(np.array(known.data, order="C")))
        ir.convenience.replace_all_uses_with(value, new)
        model.graph.remove(maker, safe=True)
        model.graph.register_initializer(new)
        changed = True
    return changed, sum(_settle(model, node, found) for node in model.graph)


def _settle(model: ir.Model, node: ir.Node, found: dict[ir.Value, Known]) -> bool:
    """Give a Reshape constant sizes, if all but one are known."""
    if node.op_type != "Reshape" or node.domain not in ("", "ai.onnx"):
        return False
    known = found.get(node.inputs[1]) if node.inputs[1] is not None else None
    if known is None or known.ndim != 1:
        return False
    free = np.ma.getmaskarray(known)
    if free.sum() != 1 or not (known.data[~free] > 0).all():
        return False
    sizes = np.where(free, -1, known.data).astype(np.int64)
    node.replace_input_with(1, add_initialiser(model, f"{node.name}/sizes", sizes))
    return True


def _follow(node: ir.Node, found: dict[ir.Value, Known]) -> Known | None:
    """What is known of a node's output; None where nothing is, or it is no matter of sizes."""
    if node.op_type == "Shape":
        return _shape(node)
    step = STEPS.get(node.op_type)
    begins = node.op_type == "ConstantOfShape"
    if step is None or not (begins or any(value in found for value in node.inputs if value)):
        return None
    inputs: list[Known | None] = []
    for value in node.inputs:
        array = None if value is None or value in found else constant(value)
        if value is not None and value not in found and (array is None or array.size > 64):
            return None
        known = None if value is None else found.get(value)
        inputs.append(np.ma.array(array) if array is not None else known)
    try:
        made = step(node, inputs)
    except (ValueError, IndexError, TypeError, ArithmeticError, AttributeError):
        return None  # not the form that this follows; nothing was changed
    wanted = node.outputs[0].dtype
    return made if made is None or wanted is None or made.dtype == wanted.numpy() else None


def _shape(node: ir.Node) -> Known | None:
    value = node.inputs[0]
    if value is None or value.shape is None:
        return None
    sizes = [size if isinstance(size, int) else None for size in value.shape]
    end = attribute(node, "end", len(sizes))
    sizes = sizes[attribute(node, "start", 0) : end]
    data = np.array([0 if size is None else size for size in sizes], np.int64)
    return np.ma.array(data, mask=[size is None for size in sizes])


def _mask(*arrays: Known | None) -> np.ndarray:
    masks = [np.ma.getmaskarray(one) for one in arrays if one is not None]
    return np.asarray(np.logical_or.reduce(np.broadcast_arrays(*masks)))


def _pointwise(function: Callable[..., np.ndarray]) -> Callable[..., Known]:
    def step(node: ir.Node, inputs: Sequence[Known]) -> Known:
        with np.errstate(all="ignore"):
            data = function(*(one.data for one in inputs))
        return np.ma.array(data, mask=_mask(*inputs))

    return step


def _divided(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Integers are divided towards zero. Unknown divisors are 0, and masked."""
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    safe = np.where(b == 0, 1, b)
    return np.asarray((np.abs(a) // np.abs(safe)) * np.sign(a) * np.sign(safe)).astype(a.dtype)


def _moved(
    function: Callable[[ir.Node, np.ndarray, list[Known]], np.ndarray],
) -> Callable[..., Known]:
    """An op that moves elements of its first input: what is known moves with them."""

    def step(node: ir.Node, inputs: list[Known]) -> Known:
        rest = inputs[1:]
        if any(one is not None and np.ma.getmaskarray(one).any() for one in rest):
            raise ValueError("places that are not known")
        mask = np.ma.getmaskarray(inputs[0])
        data = function(node, inputs[0].data, rest)
        return np.ma.array(data, mask=function(node, mask, rest))

    return step


def _gather(node: ir.Node, data: np.ndarray, rest: list[Known]) -> np.ndarray:
    return np.take(data, rest[0].data, axis=attribute(node, "axis", 0))


def _slice(node: ir.Node, data: np.ndarray, rest: list[Known]) -> np.ndarray:
    low, high = rest[0].data, rest[1].data
    axes = rest[2].data if len(rest) > 2 and rest[2] is not None else np.arange(len(low))
    steps = rest[3].data if len(rest) > 3 and rest[3] is not None else np.ones_like(low)
    index = [slice(None)] * data.ndim
    for axis, begin, end, stride in zip(axes, low, high, steps, strict=True):
        if stride < 0 and end < -data.shape[axis]:
            index[axis] = slice(int(begin), None, int(stride))
        else:
            index[axis] = slice(int(begin), int(end), int(stride))
    return data[tuple(index)]


def _unsqueeze(node: ir.Node, data: np.ndarray, rest: list[Known]) -> np.ndarray:
    return np.expand_dims(data, tuple(int(axis) for axis in rest[0].data.reshape(-1)))


def _squeeze(node: ir.Node, data: np.ndarray, rest: list[Known]) -> np.ndarray:
    if not rest or rest[0] is None:
        return np.squeeze(data)
    return np.squeeze(data, tuple(int(axis) for axis in rest[0].data.reshape(-1)))


def _reshape(node: ir.Node, data: np.ndarray, rest: list[Known]) -> np.ndarray:
    sizes = [data.shape[i] if size == 0 else int(size) for i, size in enumerate(rest[0].data)]
    if attribute(node, "allowzero", 0) and 0 in rest[0].data:
        raise ValueError("a size of zero")
    return data.reshape(sizes)


def _transpose(node: ir.Node, data: np.ndarray, rest: list[Known]) -> np.ndarray:
    perm = node.attributes.get("perm")
    return data.transpose(None if perm is None else perm.as_ints())


def _concat(node: ir.Node, inputs: list[Known]) -> Known:
    axis = attribute(node, "axis", 0)
    data = np.concatenate([one.data for one in inputs], axis=axis)
    mask = np.concatenate([np.ma.getmaskarray(one) for one in inputs], axis=axis)
    return np.ma.array(data, mask=mask)


def _filled(node: ir.Node, inputs: list[Known]) -> Known:
    if np.ma.getmaskarray(inputs[0]).any() or np.prod(inputs[0].data) > MOST_ELEMENTS:
        raise ValueError("too many, or not known")
    fill = node.attributes.get("value")
    number = np.zeros(1, np.float32) if fill is None else fill.as_tensor().numpy()
    return np.ma.array(np.broadcast_to(number, inputs[0].data))


def _cast(node: ir.Node, inputs: list[Known]) -> Known:
    kind = ir.DataType(attribute(node, "to", 0)).numpy()
    if kind.kind not in "iuf" or inputs[0].dtype.kind not in "iuf":
        raise ValueError("not a number")
    return np.ma.array(inputs[0].data.astype(kind), mask=np.ma.getmaskarray(inputs[0]))


STEPS: dict[str, Callable[..., Known]] = {
    "Add": _pointwise(np.add),
    "Sub": _pointwise(np.subtract),
    "Mul": _pointwise(np.multiply),
    "Div": _pointwise(_divided),
    "Max": _pointwise(lambda *xs: np.maximum.reduce(np.broadcast_arrays(*xs))),
    "Min": _pointwise(lambda *xs: np.minimum.reduce(np.broadcast_arrays(*xs))),
    "Neg": _pointwise(np.negative),
    "Ceil": _pointwise(np.ceil),
    "Floor": _pointwise(np.floor),
    "Gather": _moved(_gather),
    "Slice": _moved(_slice),
    "Unsqueeze": _moved(_unsqueeze),
    "Squeeze": _moved(_squeeze),
    "Reshape": _moved(_reshape),
    "Transpose": _moved(_transpose),
    "Identity": _moved(lambda node, data, rest: data),
    "Concat": _concat,
    "Cast": _cast,
    "ConstantOfShape": _filled,
}
