"""Small models of one op each: in float, and in the INT8 forms of `Scheme`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgec.types import Scheme

FLOAT = "float"
OPSET = 18
SIZE = (1, 8, 12, 12)
Nodes = list[onnx.NodeProto]
Tensors = list[onnx.TensorProto]
SPAN = 3.0  # samples are between -SPAN and SPAN
ABSORBED = ("Relu", "Clip")  # the clamp of a grid stands for them: edgec takes them out itself


@dataclass(frozen=True)
class Case:
    """One op: the shape of its input, its weights by name, its attributes, further constants."""

    op: str
    shape: tuple[int, ...] = SIZE
    weights: tuple[tuple[str, tuple[int, ...]], ...] = ()
    constants: tuple[tuple[str, np.ndarray], ...] = ()
    attributes: tuple[tuple[str, Any], ...] = ()
    opset: int = OPSET
    twice: bool = False  # the second input is a second sample
    outputs: int = 1
    integers: bool = False


def tensor(array: Any, name: str) -> onnx.TensorProto:
    """A constant of a model."""
    return numpy_helper.from_array(np.asarray(array), name)


def _ints(name: str, *values: int) -> tuple[str, np.ndarray]:
    return name, np.array(values, np.int64)


def _weights(**shapes: tuple[int, ...]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple(shapes.items())


PLAIN = (
    *("Relu", "Sigmoid", "Tanh", "Erf", "Exp", "Softplus", "HardSwish", "HardSigmoid", "Elu"),
    *("Abs", "Neg", "Floor", "LeakyRelu", "Softmax", "LogSoftmax", "GlobalAveragePool", "Mish"),
    *("GlobalMaxPool", "Flatten", "Transpose", "Identity"),
)
HIDDEN = (("hidden_size", 16),)
ONE_GROUP = (("num_groups", 1),)
CASES: tuple[Case, ...] = (
    *(Case(op) for op in PLAIN),
    Case("Conv", weights=_weights(w=(16, 8, 3, 3))),
    Case("ConvTranspose", weights=_weights(w=(8, 16, 3, 3))),
    Case("MatMul", (4, 128), _weights(w=(128, 64))),
    Case("Gemm", (4, 128), _weights(w=(128, 64))),
    Case("Gather", (2, 3), _weights(w=(64, 32)), integers=True),
    Case("LSTM", (5, 2, 32), _weights(w=(1, 64, 32), r=(1, 64, 16)), attributes=HIDDEN),
    Case("GRU", (5, 2, 32), _weights(w=(1, 48, 32), r=(1, 48, 16)), attributes=HIDDEN),
    Case("RNN", (5, 2, 32), _weights(w=(1, 16, 32), r=(1, 16, 16)), attributes=HIDDEN),
    Case("Add", twice=True),
    Case("Sub", twice=True),
    Case("Mul", twice=True),
    Case("Concat", twice=True, attributes=(("axis", 1),)),
    Case("Where", twice=True),
    Case("Div", constants=(("c", np.full((1,), 1.7, np.float32)),)),
    Case("Pow", constants=(("c", np.full((1,), 2.0, np.float32)),)),
    Case("Clip", constants=(("l", np.array(-1, np.float32)), ("h", np.array(1, np.float32)))),
    Case("MaxPool", attributes=(("kernel_shape", [2, 2]), ("strides", [2, 2]))),
    Case("AveragePool", attributes=(("kernel_shape", [2, 2]), ("strides", [2, 2]))),
    Case("Reshape", constants=(_ints("s", 1, -1),)),
    Case("Squeeze", (1, 8, 12), constants=(_ints("a", 0),)),
    Case("Unsqueeze", constants=(_ints("a", 0),)),
    Case("Slice", constants=(_ints("s", 1), _ints("e", 4), _ints("a", 1))),
    Case("Split", attributes=(("axis", 1), ("num_outputs", 2)), outputs=2),
    Case("Pad", constants=(_ints("p", 0, 0, 1, 1, 0, 0, 1, 1),)),
    Case("Expand", constants=(_ints("s", 2, 8, 12, 12),)),
    Case("Tile", constants=(_ints("s", 1, 2, 1, 1),)),
    Case("ReduceMean", constants=(_ints("a", -1),)),
    Case("ReduceSum", constants=(_ints("a", -1),)),
    Case("ReduceMax", constants=(_ints("a", -1),)),
    Case("CumSum", constants=(("a", np.array(1, np.int64)),)),
    Case("TopK", (4, 32), constants=(_ints("k", 5),), outputs=2),
    Case("DepthToSpace", attributes=(("blocksize", 2),)),
    Case("Einsum", (4, 8, 16), attributes=(("equation", "bij->bji"),)),
    Case("LayerNormalization", (2, 4, 32), _weights(w=(32,), b=(32,))),
    Case("InstanceNormalization", weights=_weights(w=(8,), b=(8,))),
    Case("GroupNormalization", SIZE, _weights(w=(8,), b=(8,)), attributes=ONE_GROUP, opset=21),
    Case("BatchNormalization", weights=_weights(w=(8,), b=(8,), m=(8,), v=(8,))),
    Case("Gelu", opset=20),
    Case("RMSNormalization", (2, 4, 32), _weights(w=(32,)), opset=23),
)


def case(op: str) -> Case:
    """The case of an op. Raises KeyError where there is none."""
    return {one.op: one for one in CASES}[op]


def questions(forms: Sequence[tuple[str, str]], max_opset: int) -> list[tuple[str, str]]:
    """Every op in float, and the INT8 forms that are asked for, up to an opset."""
    known = {one.op for one in CASES if one.opset <= max_opset}
    asked = [(one.op, FLOAT) for one in CASES if one.op in known]
    static = Scheme.INT8_STATIC
    return asked + [
        (op, form) for op, form in forms if op in known and not (op in ABSORBED and form == static)
    ]


def model(op: str, form: str, kind: str = "uint8") -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """The model of an op in a form, and what it is fed. `kind`: the activations' type in INT8."""
    one, rng = case(op), np.random.default_rng(7)
    names = ["x"]
    nodes: Nodes = []
    weights: Tensors = []
    feeds: dict[str, np.ndarray] = {}
    if one.integers:
        feeds["x"] = rng.integers(0, 32, one.shape)
    else:
        feeds["x"] = rng.uniform(-SPAN, SPAN, one.shape).astype(np.float32)
    if one.twice:
        names.append("x2")
        feeds["x2"] = rng.uniform(-SPAN, SPAN, one.shape).astype(np.float32)
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in feeds.items()
    ]
    static, int8 = form == Scheme.INT8_STATIC, form != FLOAT
    if static and not one.integers:
        names = [_pair(name, SPAN, kind, nodes, weights) for name in names]
    for index, (name, shape) in enumerate(one.weights):
        spread = rng.normal(0, 1, shape).astype(np.float32) / max(shape[-1], 1) ** 0.5
        array = np.abs(spread) + 0.5 if name in "bmv" and len(shape) == 1 else spread
        if int8 and len(shape) > 1 and (index == 0 or op in ("LSTM", "GRU", "RNN")):
            names.append(_int8_weight(name, array, nodes, weights))
        else:
            names.append(name)
            weights.append(tensor(array, name))
    for name, array in one.constants:
        names.append(name)
        weights.append(tensor(np.asarray(array), name))
    if op in ("Gather", "Where", "Einsum"):
        names = {"Gather": names[::-1], "Where": ["c", *names], "Einsum": names}[op]
        if op == "Where":
            weights.append(tensor(rng.random(one.shape) > 0.5, "c"))
    outputs = [f"y{index}" for index in range(one.outputs)]
    if form == Scheme.INT8_DYNAMIC:
        nodes = _dynamic()
    else:
        last = [f"o{i}" if static else name for i, name in enumerate(outputs)]
        nodes.append(helper.make_node(op, names, last, op, **dict(one.attributes)))
        if static:
            most = float(np.abs(reference(op)).max())
            same = 0.9 * SPAN < most <= SPAN  # what moves values keeps its input's grid
            _pair("o0", SPAN if same else most, kind, nodes, weights, "y0")
    graph = helper.make_graph(
        nodes,
        "probe",
        inputs,
        [onnx.ValueInfoProto(name=name) for name in outputs[:1]],
        weights,
    )
    graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    opset = [helper.make_opsetid("", one.opset)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10), feeds


def _pair(name: str, span: float, kind: str, nodes: Nodes, weights: Tensors, into: str = "") -> str:
    """Q/DQ on a value that is within `span` of zero: uint8 around 128, or int8 around 0."""
    into = into or f"{name}_dq"
    zero = np.uint8(128) if kind == "uint8" else np.int8(0)
    parts = [f"{name}_step", f"{name}_zero"]
    weights.append(tensor(np.float32(max(span, 1e-3) / 127), parts[0]))
    weights.append(tensor(zero, parts[1]))
    nodes.append(helper.make_node("QuantizeLinear", [name, *parts], [f"{name}_q"]))
    nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", *parts], [into]))
    return into


def _int8_weight(name: str, array: np.ndarray, nodes: Nodes, weights: Tensors) -> str:
    scale = np.float32(np.abs(array).max() / 127)
    weights.append(tensor(np.rint(array / scale).astype(np.int8), f"{name}_8"))
    weights.append(tensor(scale, f"{name}_s"))
    weights.append(tensor(np.int8(0), f"{name}_z"))
    parts = [f"{name}_8", f"{name}_s", f"{name}_z"]
    nodes.append(helper.make_node("DequantizeLinear", parts, [f"{name}_f"]))
    return f"{name}_f"


def _dynamic() -> Nodes:
    """DynamicQuantizeLinear, MatMulInteger, and the scales of both sides."""
    return [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]),
        helper.make_node("MatMulInteger", ["xq", "w_8", "xz"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["xs", "w_s"], ["s"]),
        helper.make_node("Mul", ["f", "s"], ["y0"]),
    ]


@cache
def reference(op: str) -> np.ndarray:
    """What an op gives in float, by ONNX's reference implementation."""
    from onnx.reference import ReferenceEvaluator

    made, feeds = model(op, FLOAT)
    found: Any = ReferenceEvaluator(made).run(None, feeds)
    return np.asarray(found[0])


def distance(exact: np.ndarray, close: np.ndarray) -> float:
    """SQNR in dB."""
    x, y = exact.astype(np.float64), np.asarray(close).astype(np.float64)
    if x.shape != y.shape or not np.isfinite(y).all():
        return -np.inf
    noise = ((x - y) ** 2).sum()
    return float(np.inf if noise == 0 else 10 * np.log10(max((x**2).sum(), 1e-300) / noise))
