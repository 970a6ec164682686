"""What an engine asks for, and what OpenVINO really computes with: two counts of weighted ops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from edgec.backends.onnxruntime.audit import Found
from edgec.errors import EmitError
from edgec.graphs import RECURRENT, WEIGHTED, constant, is_constant
from edgec.types import Decision, Scheme

LAYERS = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul"})
INT8 = frozenset({"i8", "u8"})


def emitted(model: ir.Model, decisions: Mapping[str, Decision]) -> Found:
    """The weighted nodes of the ONNX form by what they ask for.

    INT8 weights and an INT8 input make an INT8 product. INT8 weights alone make one where the
    decision is dynamic: OpenVINO then quantizes the input by itself.
    """
    int8: set[str] = set()
    floats: set[str] = set()
    for node in model.graph:
        if node.op_type not in WEIGHTED or len(node.inputs) < 2:
            continue
        name, compressed = str(node.name), _dequantized(node.inputs[1], constants=True)
        found = decisions.get(name)
        dynamic = found is not None and found.scheme is Scheme.INT8_DYNAMIC
        static = _dequantized(node.inputs[0]) and node.op_type not in RECURRENT
        if compressed and (static or dynamic):
            int8.add(name)
        elif compressed or constant(node.inputs[1]) is not None:
            floats.add(name)
    return Found(frozenset(int8), frozenset(floats))


def audit(
    path: Path,
    settings: Mapping[str, object],
    names: Mapping[str, str],
    dynamic: Sequence[str],
    threads: int,
) -> Found:
    """Compile an IR as the device will, and sort its weighted nodes by their precision.

    `names`: layer -> node; OpenVINO calls what makes an output of the graph as that output.
    Of a product with compressed weights (those in `dynamic`) OpenVINO tells the weights' precision
    alone; it counts as INT8 where the activations' quantization is switched on.
    Raises EmitError naming the ops that the device has no kernel for.
    """
    import openvino

    from edgec.runtime.openvino_session import configure

    device, properties, _ = configure({**settings, "threads": threads, "device": "cpu"})
    core = openvino.Core()
    model = core.read_model(str(path))
    known = set(core.query_model(model, device))
    unknown = sorted(
        {op.get_type_name() for op in model.get_ops() if op.get_friendly_name() not in known}
    )
    if unknown:
        raise EmitError(
            f"OpenVINO's {device} has no kernel for {', '.join(unknown)}",
            hint="keep the part on another backend by a policy",
        )
    compiled = core.compile_model(model, device, properties)
    measured = set(dynamic) if settings.get("dynamic_quantization_group") else set()
    int8: set[str] = set()
    floats: set[str] = set()
    for op in compiled.get_runtime_model().get_ops():
        info = op.get_rt_info()
        if _text(info, "layerType") not in LAYERS:
            continue
        layers = _text(info, "originalLayersNames").split(",")
        heads = [layer.rpartition("/")[0] for layer in layers]  # node/WithoutBiases
        own = {names[layer] for layer in (*layers, *heads) if layer in names}
        small = _text(info, "runtimePrecision") in INT8
        kernel = not _text(info, "primitiveType").endswith("_f32")
        for name in own:
            (int8 if small and (kernel or name in measured) else floats).add(name)
    return Found(frozenset(int8), frozenset(floats - int8))


def _dequantized(value: ir.Value | None, *, constants: bool = False) -> bool:
    producer = None if value is None else value.producer()
    if producer is None or producer.op_type != "DequantizeLinear":
        return False
    return is_constant(producer.inputs[0]) == constants


def _text(info: Any, key: str) -> str:
    """A fact of the runtime graph; empty where OpenVINO does not tell it."""
    return str(info[key].astype(str)) if key in info else ""
