"""ONNX ops in numpy. An op gets its attributes, its number of outputs, and its inputs.

`Value` carries what a DequantizeLinear has read, so that Conv, MatMul and Gemm multiply integers
(as float64, which holds such sums exactly) and scale the sum once.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


@dataclass
class Value:
    array: np.ndarray
    quantized: tuple = ()  # the integers less their zero point, and the scale
    integers: bool = False  # whether it was computed with integers


def plain(function):
    """An op that sees arrays alone."""

    def run(attributes, outputs, *inputs):
        return function(attributes, *(None if one is None else one.array for one in inputs))

    return run


def elementwise(function):
    return plain(lambda attributes, *x: function(*x))


def _broadcast(scale, axis, rank):
    scale = np.asarray(scale)
    return (
        scale if scale.ndim == 0 else scale.reshape([-1 if i == axis else 1 for i in range(rank)])
    )


def quantize(a, outputs, x, scale, zero=None):
    zero = np.uint8(0) if zero is None else zero.array
    axis = a.get("axis", 1) % max(x.array.ndim, 1)
    step, shift = (_broadcast(v, axis, x.array.ndim) for v in (scale.array, zero))
    info = np.iinfo(np.asarray(zero).dtype)
    rounded = np.rint(x.array / step) + shift.astype(np.float32)
    return np.clip(rounded, info.min, info.max).astype(info.dtype)


def dequantize(a, outputs, x, scale, zero=None):
    rank = x.array.ndim
    axis = a.get("axis", 1) % max(rank, 1)
    step = _broadcast(scale.array, axis, rank)
    shift = 0 if zero is None else _broadcast(zero.array, axis, rank).astype(np.int32)
    integers = x.array.astype(np.int32) - shift
    return Value((integers * step).astype(np.float32), (integers, np.asarray(step)))


def dynamic_quantize(a, outputs, x):
    low, high = min(float(x.array.min()), 0.0), max(float(x.array.max()), 0.0)
    scale = np.float32((high - low) / 255 or 1)
    zero = np.uint8(np.clip(np.rint(-low / scale), 0, 255))
    q = np.clip(np.rint(x.array / scale) + zero, 0, 255).astype(np.uint8)
    return [q, np.asarray(scale), np.asarray(zero)]


def matmul_integer(a, outputs, x, w, xz=None, wz=None):
    left = x.array.astype(np.float64) - (0 if xz is None else xz.array.astype(np.float64))
    right = w.array.astype(np.float64) - (0 if wz is None else wz.array.astype(np.float64))
    return Value((left @ right).astype(np.int32), integers=True)


def product(function, channel):
    """A product: of integers where both sides were dequantized, of floats otherwise.

    `channel`: the axis of the output along which the weight's scales run.
    """

    def run(a, outputs, x, w, bias=None):
        both = x.quantized and w.quantized
        if both:
            (xi, xs), (wi, ws) = x.quantized, w.quantized
            made = function(a, xi.astype(np.float64), wi.astype(np.float64))
            scales = ws.reshape(-1)
            shape = [1] * made.ndim
            shape[channel] = -1
            made = (made * (float(xs) * scales.reshape(shape))).astype(np.float32)
        else:
            made = function(a, x.array, w.array).astype(x.array.dtype)
        if bias is not None:
            beta = a.get("beta", 1.0)
            shape = [1] * made.ndim
            shape[channel] = -1
            b = bias.array
            made = made + beta * (b.reshape(shape) if b.ndim == 1 else b).astype(made.dtype)
        return Value(made.astype(x.array.dtype), integers=bool(both))

    return run


def matmul(a, x, w):
    return np.matmul(x, w)


def gemm(a, x, w):
    x, w = x.T if a.get("transA") else x, w.T if a.get("transB") else w
    return a.get("alpha", 1.0) * (x @ w)


def _pads(a, sizes, kernel, strides, dilations):
    auto = a.get("auto_pad", "NOTSET")
    rank = len(kernel)
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        ends = []
        for size, k, s, d in zip(sizes, kernel, strides, dilations, strict=False):
            all_ = max((math.ceil(size / s) - 1) * s + (k - 1) * d + 1 - size, 0)
            small, large = all_ // 2, all_ - all_ // 2
            ends.append((small, large) if auto == "SAME_UPPER" else (large, small))
        return ends
    pads = a.get("pads", [0] * 2 * rank)
    return list(zip(pads[:rank], pads[rank:], strict=False))


def _windows(a, x, kernel, fill):
    """[n, c, *out, *kernel]"""
    rank = len(kernel)
    strides, dilations = a.get("strides", [1] * rank), a.get("dilations", [1] * rank)
    pads = _pads(a, x.shape[2:], kernel, strides, dilations)
    x = np.pad(x, [(0, 0), (0, 0), *pads], constant_values=fill)
    spans = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=False))
    seen = sliding_window_view(x, spans, axis=tuple(range(2, 2 + rank)))
    steps = tuple(slice(None, None, s) for s in strides)
    inner = tuple(slice(None, None, d) for d in dilations)
    return seen[(slice(None), slice(None), *steps, *inner)]


def conv(a, x, w):
    groups, kernel = a.get("group", 1), w.shape[2:]
    seen = _windows(a, x, kernel, 0)
    rank, n = len(kernel), x.shape[0]
    out = seen.shape[2 : 2 + rank]
    per, filters = w.shape[1], w.shape[0] // groups
    made = []
    for group in range(groups):
        part = seen[:, group * per : (group + 1) * per]
        order = (0, *range(2, 2 + rank), 1, *range(2 + rank, 2 + 2 * rank))
        flat = part.transpose(order).reshape(n, math.prod(out), -1)
        rows = w[group * filters : (group + 1) * filters].reshape(filters, -1)
        made.append((flat @ rows.T).transpose(0, 2, 1).reshape(n, filters, *out))
    return np.concatenate(made, axis=1)


def max_pool(a, x):
    kernel = a["kernel_shape"]
    low = np.iinfo(x.dtype).min if x.dtype.kind in "iu" else -np.inf
    return _windows(a, x, kernel, low).max(axis=tuple(range(-len(kernel), 0)))


def average_pool(a, x):
    kernel = a["kernel_shape"]
    axes = tuple(range(-len(kernel), 0))
    sums = _windows(a, x, kernel, 0).sum(axis=axes)
    whole = np.ones_like(x) if not a.get("count_include_pad") else None
    count = math.prod(kernel) if whole is None else _windows(a, whole, kernel, 0).sum(axis=axes)
    return (sums / count).astype(x.dtype)


def reduce(function):
    def run(a, x, axes=None):
        chosen = a.get("axes") if axes is None else axes.tolist()
        if not chosen and a.get("noop_with_empty_axes"):
            return x
        return function(
            x, axis=tuple(chosen) if chosen else None, keepdims=a.get("keepdims", 1) == 1
        )

    return plain(run)


def softmax(a, x):
    axis = a.get("axis", -1)
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def layer_norm(a, x, scale, bias=None):
    axes = tuple(range(a.get("axis", -1) % x.ndim, x.ndim))
    away = x - x.mean(axis=axes, keepdims=True)
    made = away / np.sqrt((away**2).mean(axis=axes, keepdims=True) + a.get("epsilon", 1e-5)) * scale
    return (made if bias is None else made + bias).astype(x.dtype)


def batch_norm(a, x, scale, bias, mean, variance):
    shape = [1, -1] + [1] * (x.ndim - 2)
    scale, bias, mean, variance = (v.reshape(shape) for v in (scale, bias, mean, variance))
    return ((x - mean) / np.sqrt(variance + a.get("epsilon", 1e-5)) * scale + bias).astype(x.dtype)


def instance_norm(a, x, scale, bias):
    axes, shape = tuple(range(2, x.ndim)), [1, -1] + [1] * (x.ndim - 2)
    away = x - x.mean(axis=axes, keepdims=True)
    normal = away / np.sqrt((away**2).mean(axis=axes, keepdims=True) + a.get("epsilon", 1e-5))
    return (normal * scale.reshape(shape) + bias.reshape(shape)).astype(x.dtype)


def erf(x):
    return np.vectorize(math.erf, otypes=[x.dtype])(x) if x.size else x


def reshape(a, x, shape):
    sizes = [
        x.shape[i] if s == 0 and not a.get("allowzero") else s for i, s in enumerate(shape.tolist())
    ]
    return x.reshape(sizes)


def unsqueeze(a, x, axes=None):
    axes = a["axes"] if axes is None else axes.reshape(-1).tolist()
    return np.expand_dims(x, tuple(axes))


def squeeze(a, x, axes=None):
    axes = a.get("axes") if axes is None else axes.reshape(-1).tolist()
    return np.squeeze(x, tuple(axes) if axes else None)


def slice_(a, x, starts, ends, axes=None, steps=None):
    axes = range(len(starts)) if axes is None else axes.tolist()
    steps = [1] * len(starts) if steps is None else steps.tolist()
    chosen = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts.tolist(), ends.tolist(), axes, steps, strict=False):
        last = None if step < 0 and end < -x.shape[axis] else end
        chosen[axis] = slice(start, last, step)
    return x[tuple(chosen)]


def split(a, outputs, x, sizes=None):
    axis = a.get("axis", 0)
    if sizes is None:
        step = math.ceil(x.array.shape[axis] / outputs)
        cuts = [step * i for i in range(1, outputs)]
    else:
        cuts = np.cumsum(sizes.array)[:-1]
    return [Value(one) for one in np.split(x.array, cuts, axis=axis)]


def pad(a, x, pads, value=None, axes=None):
    axes = list(range(x.ndim)) if axes is None else axes.tolist()
    widths = [(0, 0)] * x.ndim
    for i, axis in enumerate(axes):
        widths[axis] = (int(pads[i]), int(pads[i + len(axes)]))
    if a.get("mode", "constant") != "constant":
        return np.pad(x, widths, mode={"reflect": "reflect", "edge": "edge"}[a["mode"]])
    return np.pad(x, widths, constant_values=0 if value is None else value.item())


TYPES = {1: "f4", 2: "u1", 3: "i1", 6: "i4", 7: "i8", 9: "?", 10: "f2", 11: "f8"}


def constant(a, outputs):
    for key in ("value", "value_ints", "value_int", "value_float", "value_floats"):
        if key in a:
            kind = None if key == "value" else "i8" if "int" in key else "f4"
            return np.asarray(a[key], kind)
    raise NotImplementedError("a constant of another kind")


def gather_nd(a, x, indices):
    if a.get("batch_dims", 0):
        raise NotImplementedError("batch_dims")
    return x[tuple(np.moveaxis(indices, -1, 0))]


def group_norm(a, x, scale, bias):
    groups = a["num_groups"]
    rows = x.reshape(x.shape[0], groups, -1)
    normal = instance_norm(a, rows, np.ones(groups, x.dtype), np.zeros(groups, x.dtype))
    shape = [1, -1] + [1] * (x.ndim - 2)
    return normal.reshape(x.shape) * scale.reshape(shape) + bias.reshape(shape)


OPS = {
    "QuantizeLinear": quantize,
    "DequantizeLinear": dequantize,
    "DynamicQuantizeLinear": dynamic_quantize,
    "MatMulInteger": matmul_integer,
    "Conv": product(conv, 1),
    "MatMul": product(matmul, -1),
    "Gemm": product(gemm, 1),
    "Split": split,
    "Constant": constant,
    "Relu": elementwise(lambda x: np.maximum(x, 0)),
    "LeakyRelu": plain(lambda a, x: np.where(x < 0, np.float32(a.get("alpha", 0.01)) * x, x)),
    "Clip": elementwise(lambda x, low=None, high=None: np.clip(x, low, high)),
    "Sigmoid": elementwise(lambda x: 1 / (1 + np.exp(-x))),
    "HardSwish": elementwise(lambda x: x * np.clip(x / 6 + 0.5, 0, 1).astype(x.dtype)),
    "Tanh": elementwise(np.tanh),
    "Erf": elementwise(erf),
    "Gelu": elementwise(lambda x: 0.5 * x * (1 + erf(x / np.float32(math.sqrt(2))))),
    "Sqrt": elementwise(np.sqrt),
    "Abs": elementwise(np.abs),
    "Neg": elementwise(np.negative),
    "Exp": elementwise(np.exp),
    "Identity": elementwise(lambda x: x),
    "Add": elementwise(np.add),
    "Sub": elementwise(np.subtract),
    "Mul": elementwise(np.multiply),
    "Div": elementwise(lambda x, y: x / y if x.dtype.kind == "f" else x // y),
    "Pow": elementwise(lambda x, y: np.power(x, y).astype(x.dtype)),
    "Max": elementwise(lambda *x: np.maximum.reduce(np.broadcast_arrays(*x))),
    "Min": elementwise(lambda *x: np.minimum.reduce(np.broadcast_arrays(*x))),
    "Equal": elementwise(np.equal),
    "Greater": elementwise(np.greater),
    "Where": elementwise(np.where),
    "Softmax": plain(softmax),
    "LayerNormalization": plain(layer_norm),
    "BatchNormalization": plain(batch_norm),
    "InstanceNormalization": plain(instance_norm),
    "GroupNormalization": plain(group_norm),
    "MaxPool": plain(max_pool),
    "AveragePool": plain(average_pool),
    "GlobalAveragePool": elementwise(
        lambda x: x.mean(axis=tuple(range(2, x.ndim)), keepdims=True).astype(x.dtype)
    ),
    "ReduceMean": reduce(np.mean),
    "ReduceSum": reduce(np.sum),
    "ReduceMax": reduce(np.max),
    "ReduceL2": reduce(lambda x, **how: np.sqrt((x * x).sum(**how))),
    "ArgMax": plain(
        lambda a, x: x.argmax(axis=a.get("axis", 0), keepdims=a.get("keepdims", 1) == 1).astype(
            "i8"
        )
    ),
    "Reshape": plain(reshape),
    "Flatten": plain(lambda a, x: x.reshape(math.prod(x.shape[: a.get("axis", 1)]), -1)),
    "Transpose": plain(lambda a, x: x.transpose(a.get("perm"))),
    "Unsqueeze": plain(unsqueeze),
    "Squeeze": plain(squeeze),
    "Concat": plain(lambda a, *x: np.concatenate(x, axis=a["axis"])),
    "Slice": plain(slice_),
    "Pad": plain(pad),
    "Expand": elementwise(lambda x, shape: x * np.ones(shape.tolist(), x.dtype)),
    "Shape": plain(lambda a, x: np.array(x.shape[a.get("start", 0) : a.get("end")], np.int64)),
    "Gather": plain(lambda a, x, i: np.take(x, i, axis=a.get("axis", 0))),
    "GatherND": plain(gather_nd),
    "Range": elementwise(lambda a, b, c: np.arange(a.item(), b.item(), c.item(), a.dtype)),
    "ConstantOfShape": plain(
        lambda a, shape: np.full(
            shape.tolist(),
            a.get("value", np.zeros(1, "f4")).item(),
            a.get("value", np.zeros(1, "f4")).dtype,
        )
    ),
    "Cast": plain(lambda a, x: x.astype(TYPES[a["to"]])),
    "CastLike": elementwise(lambda x, like: x.astype(like.dtype)),
    "Sum": elementwise(lambda *x: sum(x[1:], x[0])),
}
