"""v * Sigmoid(v), v = GroupNorm(x) * s + b -> GroupNormSilu(x, s, b), where a runtime has a kernel.

GroupNorm(x) is Reshape(InstanceNormalization(Reshape(x, [0, g, -1]), 1, 0)), as `group_norm` writes
it and exporters do. What stands around it is quantized as before: INT8 begins and ends outside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.graphs import add_initialiser, constant
from edgec.kernels import find
from edgec.kernels.marks import FUSES, PLAIN, fuses, mark
from edgec.kernels.reference import provide
from edgec.lineage import of_plain
from edgec.rules.steps import number

NAME = "fuse-group-norm-silu"
DOMAIN, OP = "edgec.kernels", "GroupNormSilu"
KEY = f"{DOMAIN}::{OP}"
EPSILON = 1e-5


@dataclass(frozen=True)
class _Norm:
    """What is normalised, in how many groups; scale and bias, a number per channel."""

    x: ir.Value
    groups: int
    epsilon: float
    scale: np.ndarray
    bias: np.ndarray


def apply(model: ir.Model) -> int:
    """Fuse such nodes; returns how many."""
    allowed, count = fuses(model, KEY), 0
    model.metadata_props.pop(FUSES, None)
    if not allowed:
        return 0
    kernel = find()[KEY]
    for node in list(model.graph):
        norm = None if node.graph is None else _silu(node)
        if norm is None:
            continue
        scale, bias = (
            add_initialiser(model, f"{node.name}/{what}", array.astype(np.float32))
            for what, array in (("scale", norm.scale), ("bias", norm.bias))
        )
        attributes = {"num_groups": norm.groups, "epsilon": norm.epsilon}
        fused = ir.node(
            OP, [norm.x, scale, bias], attributes, domain=DOMAIN, name=f"{node.name}/{OP}"
        )
        mark(fused, KEY, kernel.digest)
        fused.metadata_props[PLAIN] = of_plain(model, node, norm.x)
        _put(model, node, fused)
        count += 1
    if count:
        provide(model, kernel, stays=True)
    return count


def _put(model: ir.Model, node: ir.Node, fused: ir.Node) -> None:
    """The fused node in the place of the last one; what then nothing reads goes."""
    old, new = node.outputs[0], fused.outputs[0]
    name, new.type, new.shape = old.name, old.type, old.shape
    model.graph.insert_before(node, fused)
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    old.name, new.name = f"{name}/gone", name
    stack = [node]
    while stack:
        gone = stack.pop()
        if gone.graph is None or any(v.uses() or v.is_graph_output() for v in gone.outputs):
            continue
        stack += [m for v in gone.inputs if v is not None and (m := v.producer()) is not None]
        model.graph.remove(gone, safe=True)


def _silu(node: ir.Node) -> _Norm | None:
    """node = Mul(v, Sigmoid(v)), of which v is read nowhere else."""
    if node.op_type != "Mul":
        return None
    for value, gate in (node.inputs, reversed(node.inputs)):
        sigmoid = _maker(gate, "Sigmoid")
        if value is None or sigmoid is None or sigmoid.inputs[0] is not value:
            continue
        if len(list(value.uses())) == 2 and _alone(sigmoid.outputs[0]):
            return None if value.is_graph_output() else _scaled(value)
    return None


def _scaled(value: ir.Value) -> _Norm | None:
    """GroupNorm(x) * s + b with constant s and b, or InstanceNormalization(x, s, b)."""
    whole = _maker(value, "InstanceNormalization")
    if whole is not None:
        x, scale, bias = whole.inputs[0], constant(whole.inputs[1]), constant(whole.inputs[2])
        if x is None or scale is None or bias is None or not _fits(x):
            return None
        return _Norm(x, len(scale), number(whole, "epsilon", EPSILON), scale, bias)
    times, scale, bias = _affine(value)
    back = _maker(times, "Reshape")
    if times is None or back is None or not _alone(times):
        return None
    norm = _maker(back.inputs[0], "InstanceNormalization")
    rows = None if norm is None else _maker(norm.inputs[0], "Reshape")
    if norm is None or rows is None or scale is None or bias is None:
        return None
    x, ones, zeros = rows.inputs[0], constant(norm.inputs[1]), constant(norm.inputs[2])
    form = constant(rows.inputs[1])
    if x is None or ones is None or zeros is None or form is None or not _fits(x):
        return None
    if not (_alone(norm.outputs[0]) and _alone(rows.outputs[0])):
        return None
    groups = len(ones)
    plain = bool(np.all(ones == 1) and np.all(zeros == 0))
    grouped = form.tolist() in ([0, groups, -1], [x.shape[0] if x.shape else 0, groups, -1])
    per_channel = all(array.shape == (x.shape and x.shape[1],) for array in (scale, bias))
    if not plain or not grouped or times.shape != x.shape or not per_channel:
        return None
    return _Norm(x, groups, number(norm, "epsilon", EPSILON), scale, bias)


def _fits(x: ir.Value) -> bool:
    """Whether the kernel takes it: float32, with a known number of channels and pixels."""
    shape = x.shape
    return x.dtype == ir.DataType.FLOAT and shape is not None and len(shape) > 2


def _affine(value: ir.Value) -> tuple[ir.Value | None, np.ndarray | None, np.ndarray | None]:
    """x, s and b, a number per channel each, of x * s + b, be it one node or two."""
    one = _maker(value, "BatchNormalization")
    if one is not None:
        scale, bias, mean, variance = (constant(v) for v in one.inputs[1:5])
        if scale is None or bias is None or mean is None or variance is None:
            return None, None, None
        factor = scale / np.sqrt(variance.astype(np.float64) + number(one, "epsilon", EPSILON))
        return one.inputs[0], factor, bias - mean * factor
    added, bias = _with_constant(_maker(value, "Add"))
    times, scale = _with_constant(_maker(added, "Mul"))
    if added is None or times is None or scale is None or bias is None or not _alone(added):
        return None, None, None
    rank = 0 if times.shape is None else len(times.shape)
    found = [_channels(array, rank) for array in (scale, bias)]
    return times, found[0], found[1]


def _channels(array: np.ndarray, rank: int) -> np.ndarray | None:
    """[channels, 1, ...] or [1, channels, 1, ...] -> [channels]; None of another form."""
    form = array.shape[1:] if len(array.shape) == rank and array.shape[:1] == (1,) else array.shape
    fits = len(form) == rank - 1 and all(size == 1 for size in form[1:])
    return array.reshape(-1) if fits else None


def _with_constant(node: ir.Node | None) -> tuple[ir.Value | None, np.ndarray | None]:
    """The computed and the constant input of a node that has one of each."""
    if node is None:
        return None, None
    for value, other in (node.inputs, reversed(node.inputs)):
        array = constant(other)
        if array is not None and value is not None and constant(value) is None:
            return value, array
    return None, None


def _maker(value: ir.Value | None, op_type: str) -> ir.Node | None:
    node = None if value is None else value.producer()
    standard = node is not None and node.domain in ("", "ai.onnx")
    return node if standard and node is not None and node.op_type == op_type else None


def _alone(value: ir.Value) -> bool:
    """Whether one node alone reads it."""
    return len(list(value.uses())) == 1 and not value.is_graph_output()
