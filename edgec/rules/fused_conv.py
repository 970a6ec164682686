"""FusedConv(X, W, B, Z) -> f(Conv(X, W, B) + Z), where f is its activation.

What ONNX Runtime fused is undone, so that the convolution has a weight that can be quantized and
ranges fall behind its activation. Source: ONNX Runtime's ContribOperators.md.
"""

from __future__ import annotations

import onnx_ir as ir

from edgec.rules.steps import Steps, computes_in, given

NAME = "expand-fused-conv"
MICROSOFT = "com.microsoft"
OWN = ("activation", "activation_params")
PLAIN = ("Relu", "Sigmoid", "Tanh")


def apply(model: ir.Model) -> int:
    """Replace such nodes; returns how many."""
    nodes = [node for node in model.graph if node.op_type == "FusedConv"]
    return sum(_replace(model, node) for node in nodes if node.domain == MICROSOFT)


def _replace(model: ir.Model, node: ir.Node) -> bool:
    found = node.attributes.get("activation")
    activation = "" if found is None else found.as_string()
    listed = node.attributes.get("activation_params")
    params = [] if listed is None else list(listed.as_floats())
    wanted = {"Clip": 2, "LeakyRelu": 1, "HardSigmoid": 2}.get(activation, 0)
    if activation not in ("", *PLAIN) and len(params) != wanted:
        return False
    if activation not in ("", "Clip", "LeakyRelu", "HardSigmoid", *PLAIN):
        return False
    steps = Steps(model, node, NAME)
    bias, added = given(node, 2), given(node, 3)
    value = steps.add("Conv", [node.inputs[0], node.inputs[1], *([bias] if bias else [])])
    conv, dtype = steps.nodes[-1], computes_in(node)
    conv.name = node.name
    for attr in node.attributes.values():
        if attr.name not in OWN:
            conv.attributes.add(attr)
    if added is not None:
        value = steps.add("Add", [value, added])
    if activation == "Clip":
        low, high = (
            steps.scalar(n, p, dtype) for n, p in zip(("low", "high"), params, strict=True)
        )
        value = steps.add("Clip", [value, low, high])
    elif activation:
        names = {"LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta")}.get(activation, ())
        value = steps.add(activation, [value], dict(zip(names, params, strict=True)))
    steps.put(node, [value])
    return True
