"""I(x) s' + b' -> x (s / r)' + (b - m s / r)'; ' is per channel, x comes out of INT8.

    S = sum(x), D = x . x over the n values of a group; m = S / n, r = sqrt(D / n - m^2 + eps)

I is InstanceNormalization, of x or of its reshape into groups. onnxruntime computes it on one
thread and in registers of 128 bits; S, D, a product and a sum on all threads, and but for S in
registers of the full width. Milliseconds of 1.32 on one thread of AVX512-VNNI, 256x56x56: I 0.47;
S 0.15, D 0.17, Mul 0.28, Add 0.29. BatchNormalization, 0.33 in place of Mul and Add, runs on one
thread alone: with it, a ResNet-50 takes 1.05 times as long on two threads and 0.93 times on one.
Steps of q r / s, to quantize per channel behind one Add, need no scale, but are quantized by one
thread. Where the batch is 1 and the result is quantized, product, sum, Relu and QuantizeLinear are
one QLinearConv of one weight a channel, whose steps and biases are computed: 8 bits in and out.

A pass of onnxruntime moves DequantizeLinear down through Reshape, and would make one of it for each
that reads x: engines with such groups do without (see `pools`). They also come without types and
shapes of values: with those that onnxruntime infers itself a ResNet-50 takes 0.93 of the time.

D / n - m^2 loses digits where a mean is far larger than the spread around it. So x has to come out
of 8 bits: m is then at most 255 steps, and what is lost a fraction of one.
Source: Chan, Golub and LeVeque 1983, "Algorithms for Computing the Sample Variance", section 1.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from edgec.graphs import constant, opset
from edgec.rules.channel_affine import per_channel
from edgec.rules.steps import Steps, number

NAME = "group-sums"
DOMAIN = "com.microsoft"
COARSEST, HALF = 3.0, 0.5  # steps of the result and of x: see `_convolved`
WEIGHT = 64  # times 255, twice: fits into 16 bits
OPSET = 13  # from here on, ReduceSum takes axes as an input
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


@dataclass(frozen=True)
class Normalised:
    """`out` = I(x) s' + b', both [N, C, ...] with the sizes [C, ...]; s and b: [C], float64.

    `maker`: what dequantizes x; `quantizer`: what makes 8 bits of `out`, if that is all that reads
    it; `batch`: N, 0 where it is not known.
    """

    maker: ir.Node
    out: ir.Value
    sizes: tuple[int, ...]
    groups: int
    scale: np.ndarray
    bias: np.ndarray
    epsilon: float
    quantizer: ir.Node | None
    batch: int


def apply(model: ir.Model, kept: Collection[str]) -> tuple[int, int]:
    """Replace such normalisations. `kept`: names of values that must stay.

    Returns how many, and how many of them are float only because the batch is free.
    """
    if opset(model) < OPSET:
        return 0, 0
    nodes = [node for node in model.graph if node.op_type == "InstanceNormalization"]
    found = [one for node in nodes if (one := _match(node, kept)) is not None]
    for one in found:
        _replace(model, one)
    if found:
        model.opset_imports.setdefault(DOMAIN, 1)
        common.RemoveUnusedNodesPass()(model)
    return len(found), sum(one.quantizer is not None and one.batch == 0 for one in found)


def forget_shapes(model: ir.Model) -> None:
    """Leave types and shapes of what nodes make to onnxruntime, but for the outputs."""
    for node in model.graph.all_nodes():
        for value in node.outputs:
            if not value.is_graph_output():
                value.type = value.shape = None


def _match(node: ir.Node, kept: Collection[str]) -> Normalised | None:
    rows, out = node.inputs[0], node.outputs[0]
    gamma, beta = constant(node.inputs[1]), constant(node.inputs[2])
    epsilon = number(node, "epsilon", 1e-5)
    if rows is None or gamma is None or beta is None or not epsilon > 0:
        return None
    x = _ungrouped(rows, kept)
    if x is not rows:
        after = _reader(out, kept)
        if after is None or after.op_type != "Reshape":
            return None
        out = after.outputs[0]
    maker, sizes = x.producer(), _sizes(x)
    if maker is None or maker.op_type != DEQUANTIZE or x.dtype != ir.DataType.FLOAT:
        return None
    inner = _sizes(rows)
    if len(sizes) < 2 or sizes != _sizes(out) or not inner or np.prod(sizes) != np.prod(inner):
        return None
    if inner[0] != gamma.size or sizes[0] % gamma.size:
        return None
    scale, bias = (
        np.repeat(array.astype(np.float64), sizes[0] // gamma.size) for array in (gamma, beta)
    )
    while (after := _reader(out, kept)) is not None:
        step = _affine(after, out, sizes)
        if step is None:
            break
        scale, bias, out = scale * step[0], bias * step[0] + step[1], after.outputs[0]
    quantizer = _quantizer(maker, out, scale, kept)
    batch = None if out.shape is None else out.shape[0]
    known = batch if isinstance(batch, int) else 0
    return Normalised(maker, out, sizes, gamma.size, scale, bias, epsilon, quantizer, known)


def _quantizer(
    maker: ir.Node, out: ir.Value, scale: np.ndarray, kept: Collection[str]
) -> ir.Node | None:
    """What quantizes `out` to the type that `maker` dequantizes, past a Relu.

    None as well where its steps are so fine beside s that `_convolved` would raise r above half a
    step of x.
    """
    after = _reader(out, kept)
    clips = after is not None and after.op_type == "Relu"
    if after is not None and clips:
        after = _reader(after.outputs[0], kept)
    if after is None or after.op_type != QUANTIZE:
        return None
    before, behind = _grid(maker), _grid(after)
    if before is None or behind is None or before[1].dtype != behind[1].dtype:
        return None
    zero, finest = behind[1], np.abs(scale).max() / (WEIGHT * COARSEST * HALF)
    if behind[0] < finest:
        return None
    return None if clips and zero > np.iinfo(zero.dtype).min else after


def _grid(node: ir.Node) -> tuple[float, np.ndarray] | None:
    """Step and zero point, of 8 bits, of a node that has one of each."""
    arrays = [constant(one) for one in node.inputs[1:]]
    if len(arrays) != 2 or any(array is None or array.size != 1 for array in arrays):
        return None
    step, zero = (np.asarray(array).reshape(()) for array in arrays)
    return (float(step), zero) if zero.dtype in (np.uint8, np.int8) else None


def _ungrouped(rows: ir.Value, kept: Collection[str]) -> ir.Value:
    """What a Reshape makes rows of, through Q/DQ pairs that are those of its input; else `rows`."""
    value, pairs = rows, list[ir.Node]()
    while (maker := value.producer()) is not None and value.name not in kept:
        before = maker.inputs[0] if maker.inputs else None
        if before is None or maker.op_type not in (QUANTIZE, DEQUANTIZE, "Reshape"):
            return rows
        if maker.op_type == "Reshape":
            own = before.producer()
            same = own is not None and all(_one_grid(own, one) for one in pairs)
            return before if same else rows
        pairs.append(maker)
        value = before
    return rows


def _one_grid(one: ir.Node, other: ir.Node) -> bool:
    pairs = zip(one.inputs[1:], other.inputs[1:], strict=False)
    arrays = [(constant(a), constant(b)) for a, b in pairs]
    return len(one.inputs) == len(other.inputs) and all(
        a is not None and b is not None and a.dtype == b.dtype and np.array_equal(a, b)
        for a, b in arrays
    )


def _sizes(value: ir.Value) -> tuple[int, ...]:
    """All sizes but the first; none, where one is not known or 0."""
    sizes = [] if value.shape is None else list(value.shape)[1:]
    known = tuple(size for size in sizes if isinstance(size, int) and size > 0)
    return known if len(known) == len(sizes) else ()


def _reader(value: ir.Value, kept: Collection[str]) -> ir.Node | None:
    """The one node that reads a value that nothing else asks for."""
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output() or value.name in kept:
        return None
    return uses[0].node


def _affine(
    node: ir.Node, value: ir.Value, sizes: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Scale and shift [C], or numbers, of a node that does no more than that to a value."""
    arrays = [constant(one) for one in node.inputs if one is not value]
    if node.op_type == "BatchNormalization" and len(arrays) == 4 and len(node.outputs) == 1:
        if any(array is None for array in arrays):
            return None
        gamma, beta, mean, variance = (np.asarray(array, np.float64) for array in arrays)
        scale = gamma / np.sqrt(variance + number(node, "epsilon", 1e-5))
        return scale, beta - mean * scale
    if node.op_type not in ("Mul", "Add") or len(arrays) != 1:
        return None
    other = next(one for one in node.inputs if one is not value)
    array = per_channel(other, sizes[0], len(sizes) + 1)
    if array is None:
        return None
    wide = array.astype(np.float64)
    return (wide, np.zeros(1)) if node.op_type == "Mul" else (np.ones(1), wide)


def _replace(model: ir.Model, one: Normalised) -> None:
    quantizer = one.quantizer if one.batch == 1 else None
    last = quantizer or one.out.producer()
    assert last is not None
    steps = Steps(model, last, NAME)
    groups, channels = one.groups, one.sizes[0]
    count, area = int(np.prod(one.sizes)) // groups, int(np.prod(one.sizes[1:]))

    def vector(name: str, array: np.ndarray) -> ir.Value:
        each = array.reshape(1, groups, channels // groups, 1)
        return steps.constant(name, each.astype(np.float32))

    x = _shaped(steps, one.maker.outputs[0], "groups", [0, groups, 1, count])
    total = steps.add("ReduceSum", [x, steps.constant("last", [3])], {"keepdims": 1})
    squares = steps.add("FusedMatMul", [x, x], {"transB": 1}, domain=DOMAIN)
    # No factor on the squares: it would become alpha, with which FusedMatMul is 15 times slower.
    mean = steps.add("Mul", [total, steps.scalar("1/n", 1 / count, ir.DataType.FLOAT)])
    spread = steps.add("Sub", [squares, steps.add("Mul", [total, mean])])
    least = steps.scalar("n*eps", count * one.epsilon, ir.DataType.FLOAT)
    root = steps.add("Sqrt", [steps.add("Add", [steps.add("Relu", [spread]), least])])
    if quantizer is not None:
        steps.put(last, [_convolved(steps, one, quantizer, mean, root, vector)])
        return
    scale = steps.add("Div", [vector("s", one.scale * np.sqrt(count)), root])
    bias = steps.add("Sub", [vector("b", one.bias), steps.add("Mul", [mean, scale])])
    scaled = steps.add("Mul", [_shaped(steps, x, "channels", [0, groups, -1, area]), scale])
    added = steps.add("Add", [scaled, bias])
    steps.put(last, [_shaped(steps, added, "whole", [-1, *one.sizes])])


def _convolved(
    steps: Steps,
    one: Normalised,
    quantizer: ir.Node,
    mean: ir.Value,
    root: ir.Value,
    vector: Callable[[str, np.ndarray], ir.Value],
) -> ir.Value:
    """(x w / p + h) p q in 8 bits: q = s sqrt(n) / (w root), h = (b / q - m w) / p, rounded.

    p: the step of x. w is 64 or -64, so that no processor saturates on the way, and less where h
    would be larger than 2^30: there s is nothing beside b. `mean`: m; `root`: r sqrt(n), raised
    where p q would be more than COARSEST steps of the result, and b lost in rounding h: there r is
    below HALF of p, which is about what rounding to p does to x.
    """
    grid, finer = _grid(one.maker), _grid(quantizer)
    assert grid is not None
    assert finer is not None
    count, most = np.prod(one.sizes) / one.groups, np.abs(one.bias) * WEIGHT / 2**29
    tall = np.hypot(255, np.sqrt(one.epsilon) / grid[0])  # the largest r, in steps of x
    unit = np.maximum(np.abs(one.scale), most * tall)
    unit[unit == 0] = 1
    weights = np.rint(WEIGHT * one.scale / unit)
    step = unit * np.sqrt(count) / WEIGHT
    least = vector("least", grid[0] * step / (COARSEST * finer[0]))
    root = steps.add("Max", [root, least])
    steps_of_w = steps.add("Div", [vector("steps", step), root])
    raised = steps.add("Mul", [vector("b/p", one.bias / step / grid[0]), root])
    lowered = steps.add("Mul", [vector("w/p", weights / grid[0]), mean])
    rounded = steps.add("Round", [steps.add("Sub", [raised, lowered])])
    bias = steps.add("Cast", [rounded], {"to": ir.DataType.INT32})
    kernel = weights.reshape(-1, 1, *[1] * (len(one.sizes) - 1)).astype(np.int8)
    inputs = [
        *one.maker.inputs[:3],
        steps.constant("weights", kernel),
        _shaped(steps, steps_of_w, "vector", [-1]),
        steps.constant("zero", np.zeros((), np.int8)),
        *quantizer.inputs[1:3],
        _shaped(steps, bias, "vector", [-1]),
    ]
    return steps.add("QLinearConv", inputs, {"group": one.sizes[0]})


def _shaped(steps: Steps, value: ir.Value, name: str, sizes: list[int]) -> ir.Value:
    return steps.add("Reshape", [value, steps.constant(name, sizes)])
