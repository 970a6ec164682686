"""An op written out in simpler ones, for runtimes that lack it or have it wrong.

Normalisations are written here, because the bodies in the ONNX standard take the variance as
E[x^2] - E[x]^2, which cancels, and compute at run time which axes are meant; every other op with a
body there is inlined by `onnx.inliner`.
Source: ONNX operators LayerNormalization 17, RMSNormalization 23, GroupNormalization 18 and 21.
"""

from __future__ import annotations

import functools
import math

import onnx
import onnx.inliner
import onnx_ir as ir

from edgec.body import alone, splice
from edgec.graphs import attribute
from edgec.rules import multi_head_attention, rotary_embedding

STANDARD = ("", "ai.onnx")
# ONNX Runtime's own, by the rules that undo them.
FUSED = {
    "MultiHeadAttention": multi_head_attention.apply,
    "RotaryEmbedding": rotary_embedding.apply,
}
MICROSOFT = "com.microsoft"
KEPT = frozenset({"DynamicQuantizeLinear"})  # its body is no way to quantize where it is missing
EPSILON = 1e-5


def ops(node: ir.Node) -> frozenset[str]:
    """The ops that a node is written out in; empty where it cannot be."""
    body = written(node)
    return frozenset() if body is None else frozenset(one.op_type for one in body.graph.node)


def expand(node: ir.Node) -> None:
    """Replace a node by its body, in place. The values that it made keep their names."""
    body = written(node)
    if body is None:
        raise ValueError(f"{node.op_type} has no body")
    inner = ir.from_proto(body).graph
    outer = [value for value in node.inputs if value is not None]
    splice(node, dict(zip(inner.inputs, outer, strict=True)), inner)


def written(node: ir.Node) -> onnx.ModelProto | None:
    """A model of a node's body, whose inputs are those that the node has; None without a body."""
    if node.domain == MICROSOFT and node.op_type in FUSED:
        return _unfused(node)
    if node.domain not in STANDARD or node.op_type in KEPT or node.graph is None:
        return None
    x = node.inputs[0] if node.inputs else None
    if x is None or x.dtype != ir.DataType.FLOAT:
        return None
    version = node.graph.opset_imports.get("", 1)
    if any(not value.name for value in node.outputs):
        return None
    if node.op_type == "LayerNormalization":
        return _layer_norm(node, version)
    if node.op_type == "GroupNormalization":
        return _group_norm(node, version)
    if node.op_type == "RMSNormalization":
        return _rms_norm(node, version)
    proto = ir.to_proto(node)
    for index, _ in enumerate(proto.input):
        if proto.input[index]:
            proto.input[index] = f"x{index}"
    for index, _ in enumerate(proto.output):
        proto.output[index] = f"y{index}"
    proto.name = ""
    types = tuple(None if v is None or v.dtype is None else int(v.dtype) for v in node.inputs)
    return _inlined(proto.SerializeToString(deterministic=True), types, version)


def _unfused(node: ir.Node) -> onnx.ModelProto | None:
    """What a rule makes of a node that stands alone."""
    if node.graph is None:
        return None
    model = alone(node, node.graph.opset_imports)
    if not FUSED[node.op_type](model):
        return None
    graph = model.graph
    for value in list(graph.initializers.values()):  # a body has none
        constant = ir.node("Constant", [], {"value": value.const_value})
        constant.outputs[0].name = f"{value.name}/made"
        graph.insert_before(graph[0], constant)
        ir.convenience.replace_all_uses_with(value, constant.outputs[0])
    graph.initializers.clear()
    return ir.to_proto(model)


@functools.lru_cache(maxsize=256)
def _inlined(text: bytes, types: tuple[int | None, ...], version: int) -> onnx.ModelProto | None:
    """The body that the ONNX standard gives a node."""
    proto = onnx.NodeProto.FromString(text)
    try:
        schema = onnx.defs.get_schema(proto.op_type, version, "")
    except onnx.defs.SchemaError:
        return None
    # missing in onnx's type stubs
    defined = schema.has_function or schema.has_context_dependent_function  # type: ignore[attr-defined]
    unknown = any(name and not dtype for name, dtype in zip(proto.input, types, strict=True))
    if not defined or unknown:
        return None
    stated = {attribute.name for attribute in proto.attribute}
    for name, known in schema.attributes.items():
        if known.default_value.name and name not in stated:  # a body does not know the defaults
            proto.attribute.append(known.default_value)
    inputs = [
        onnx.helper.make_tensor_value_info(name, dtype or 1, None)
        for name, dtype in zip(proto.input, types, strict=True)
        if name
    ]
    outputs = [onnx.helper.make_tensor_value_info(name, 0, None) for name in proto.output]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([proto], "body", inputs, outputs),
        opset_imports=[onnx.helper.make_opsetid("", version)],
    )
    try:
        found = onnx.inliner.inline_selected_functions(
            model, [("", proto.op_type)], inline_schema_functions=True
        )
    except RuntimeError:  # a body that depends on the type of an input that is left out
        return None
    return None if any(one.op_type == proto.op_type for one in found.graph.node) else found


def _layer_norm(node: ir.Node, version: int) -> onnx.ModelProto | None:
    """y = (x - mean) / sqrt(mean((x - mean)^2) + epsilon) * scale + bias."""
    axes = _last_axes(node)
    if axes is None or len(node.outputs) > 1:
        return None
    stated = "" if version >= 18 else f" <axes = [{axes}]>"
    given = ", axes" if version >= 18 else ""
    biased = len(node.inputs) > 2 and node.inputs[2] is not None
    return _model(
        node,
        version,
        f"""
        axes = Constant <value_ints = [{axes}]> ()
        epsilon = Constant <value = float {{{_epsilon(node)}}}> ()
        mean = ReduceMean{stated} (x0{given})
        away = Sub (x0, mean)
        squares = Mul (away, away)
        variance = ReduceMean{stated} (squares{given})
        shifted = Add (variance, epsilon)
        deviation = Sqrt (shifted)
        normal = Div (away, deviation)
        {"scaled" if biased else "y0"} = Mul (normal, x1)
        {"y0 = Add (scaled, x2)" if biased else ""}
        """,
    )


def _rms_norm(node: ir.Node, version: int) -> onnx.ModelProto | None:
    """y = x / sqrt(mean(x^2) + epsilon) * scale."""
    axes, scale = _last_axes(node), node.inputs[1]
    if axes is None or scale is None or scale.dtype != ir.DataType.FLOAT:
        return None
    return _model(
        node,
        version,
        f"""
        axes = Constant <value_ints = [{axes}]> ()
        epsilon = Constant <value = float {{{_epsilon(node)}}}> ()
        squares = Mul (x0, x0)
        mean = ReduceMean (squares, axes)
        shifted = Add (mean, epsilon)
        root = Sqrt (shifted)
        normal = Div (x0, root)
        y0 = Mul (normal, x1)
        """,
    )


def _last_axes(node: ir.Node) -> str | None:
    """The axes that a node normalises over, counted from the last; None where they are unknown."""
    axis, x = int(attribute(node, "axis", -1)), node.inputs[0]
    if x is None or (axis >= 0 and x.shape is None):
        return None
    count = -axis if axis < 0 else len(x.shape or ()) - axis
    return ", ".join(str(one) for one in range(-count, 0))


def _group_norm(node: ir.Node, version: int) -> onnx.ModelProto | None:
    """InstanceNormalization over [N, groups, -1], then a scale and a bias for each channel.

    Up to opset 20 scale and bias are given for each group.
    """
    groups, scale = int(attribute(node, "num_groups", 0)), node.inputs[1]
    size = scale.shape[0] if scale is not None and scale.shape is not None else None
    if groups < 1 or not isinstance(size, int):
        return None
    ones, zeros = ", ".join(["1"] * groups), ", ".join(["0"] * groups)
    rows = size if version >= 21 else groups
    return _model(
        node,
        version,
        f"""
        shape = Shape (x0)
        grouped = Constant <value_ints = [0, {groups}, -1]> ()
        rowed = Constant <value_ints = [0, {rows}, -1]> ()
        column = Constant <value_ints = [{rows}, 1]> ()
        ones = Constant <value = float[{groups}] {{{ones}}}> ()
        zeros = Constant <value = float[{groups}] {{{zeros}}}> ()
        groups = Reshape (x0, grouped)
        normal = InstanceNormalization <epsilon = {_epsilon(node)}> (groups, ones, zeros)
        rows = Reshape (normal, rowed)
        scale = Reshape (x1, column)
        bias = Reshape (x2, column)
        scaled = Mul (rows, scale)
        biased = Add (scaled, bias)
        y0 = Reshape (biased, shape)
        """,
    )


def _model(node: ir.Node, version: int, body: str) -> onnx.ModelProto:
    lines = [line.strip() for line in body.splitlines() if line.strip()]
    if not any(" axes)" in line or ", axes" in line for line in lines):
        lines = [line for line in lines if not line.startswith("axes =")]
    given = ", ".join(f"float x{i}" for i, v in enumerate(node.inputs) if v is not None)
    text = "\n".join(lines)
    return onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": {version}]> body ({given}) => (float y0) {{ {text} }}'
    )


def _epsilon(node: ir.Node) -> str:
    found = node.attributes.get("epsilon")
    value = EPSILON if found is None else found.as_float()
    return repr(value) if math.isfinite(value) else repr(EPSILON)
