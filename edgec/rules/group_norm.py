"""GroupNormalization(x, s, b) -> Reshape(InstanceNormalization(Reshape(x, [0, g, -1])), x) * s + b.

A group is one row of the inner tensor, so its mean and variance are those of the group; with as
many groups as channels nothing is reshaped. Backends normalise instances fast and know the shape
behind it, where ONNX infers none past GroupNormalization, which stopped INT8 there. Opset 18 has s
and b per group, opset 21 per channel. Source: Wu and He 2018, arXiv:1803.08494, equation 1.
"""

from __future__ import annotations

import onnx_ir as ir

from edgec.graphs import attribute, infer_shapes, opset
from edgec.rules.steps import Steps, number

NAME = "group-to-instance-norm"
PER_CHANNEL = 21  # the first opset with a scale per channel
EPSILON = 1e-5


def apply(model: ir.Model) -> int:
    """Replace such nodes; returns how many. One whose input has no known rank stays."""
    count = 0
    while nodes := [node for node in model.graph if _is_one(node)]:
        replaced = sum(_replace(model, node) for node in nodes)
        if not replaced:
            break
        count += replaced
        if replaced < len(nodes):
            infer_shapes(model)  # the rank of one behind another is known from here on
    return count


def _is_one(node: ir.Node) -> bool:
    return node.op_type == "GroupNormalization" and node.domain in ("", "ai.onnx")


def _replace(model: ir.Model, node: ir.Node) -> bool:
    x, scale, bias = node.inputs[:3]
    groups = attribute(node, "num_groups", 0)
    if x is None or scale is None or bias is None or x.shape is None or groups < 1:
        return False
    per_channel = opset(model) >= PER_CHANNEL and node.version != 18
    steps = Steps(model, node, NAME)
    dtype = x.dtype or ir.DataType.FLOAT
    inner = ir.DataType(attribute(node, "stash_type", ir.DataType.FLOAT))
    value = x if dtype == inner else steps.add("Cast", [x], {"to": inner})
    whole = x.shape[1] == groups and len(x.shape) > 2
    if not whole:
        value = steps.add("Reshape", [value, steps.constant("rows", [0, groups, -1])])
    if per_channel:
        fills = {"ones": 1, "zeros": 0}
        factors = [steps.filled(n, groups, fill, inner.numpy()) for n, fill in fills.items()]
    else:
        cast = [scale, bias]
        factors = [v if dtype == inner else steps.add("Cast", [v], {"to": inner}) for v in cast]
    options = {"epsilon": number(node, "epsilon", EPSILON)}
    if per_channel and whole and dtype == inner:
        steps.add("InstanceNormalization", [value, scale, bias], options)
    else:
        value = steps.add("InstanceNormalization", [value, *factors], options)
        if not whole:
            value = steps.add("Reshape", [value, _sizes(steps, x)])
            value.dtype, value.shape = inner, x.shape  # what `one-pass-affine` asks for
        if dtype != inner:
            value = steps.add("Cast", [value], {"to": dtype})
        if per_channel:
            rank = len(x.shape)
            value = steps.add("Mul", [value, steps.per_channel("scale", scale, rank)])
            steps.add("Add", [value, steps.per_channel("bias", bias, rank)])
    steps.put(node, [steps.nodes[-1].outputs[0]])
    return True


def _sizes(steps: Steps, x: ir.Value) -> ir.Value:
    """The sizes of x for Reshape: constant where all but two are known, else taken from x."""
    assert x.shape is not None
    sizes = [size if isinstance(size, int) else None for size in x.shape]
    sizes[0] = 0 if sizes[0] is None else sizes[0]  # 0: as it is in the input
    unknown = [axis for axis, size in enumerate(sizes) if size is None]
    if 0 in x.shape or len(unknown) > 1:
        return steps.add("Shape", [x])
    return steps.constant("sizes", [-1 if size is None else size for size in sizes])
