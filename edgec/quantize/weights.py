"""Weights as INT8: symmetric, one scale per output channel where the grid wants it.

Rounding to nearest; source: Jacob et al. 2018, "Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference", section 2.1, with the zero point fixed at 0.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.errors import InternalError
from edgec.graphs import add_initialiser, attribute, constant
from edgec.types import Grid

FULL, REDUCED = 127, 63  # the largest magnitude with 8 and with 7 bits


@dataclass(frozen=True)
class Quantized:
    """A weight: int8 `data` of the same shape, float32 `scale` per channel [C] or one []."""

    data: np.ndarray
    scale: np.ndarray
    axis: int

    def error(self, weight: np.ndarray) -> np.ndarray:
        """What quantization added to the weight, in the weight's units and shape."""
        real = self.data * _spread(self.scale, self.data.ndim, self.axis)
        return np.asarray(real - weight)


def channel_axis(node: ir.Node) -> int:
    """The axis of a weight along which the output channels lie."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return 1


def matrix(node: ir.Node) -> np.ndarray:
    """The weight of a MatMul or Gemm as [K, N]."""
    array = constant(node.inputs[1])
    if array is None:
        raise InternalError(f"{node.name} was decided INT8 but has no constant weight")
    return array if channel_axis(node) == 1 else array.T


def quantize_weight(
    weight: np.ndarray, axis: int, grid: Grid, least: np.ndarray | None = None
) -> Quantized:
    """Round a float weight; `least` [C] are scales that must not be undercut."""
    most = REDUCED if grid.reduce_range else FULL
    others = tuple(i for i in range(weight.ndim) if i != axis)
    extent = np.abs(weight).max(axis=others if grid.per_channel else None, initial=0.0)
    scale = np.where(extent > 0, extent / most, 1.0).astype(np.float32)
    scale = np.maximum(scale, np.finfo(np.float32).tiny)
    if least is not None:
        scale = np.maximum(scale, least if grid.per_channel else least.max()).astype(np.float32)
    data = np.rint(weight / _spread(scale, weight.ndim, axis))
    return Quantized(np.clip(data, -most, most).astype(np.int8), scale, axis)


def dequantized(model: ir.Model, value: ir.Value, quantized: Quantized) -> ir.Value:
    """The weight as DequantizeLinear of INT8 initialisers; one for all that share it."""
    content = quantized.scale.tobytes() + quantized.data.tobytes()
    digest = hashlib.sha256(content).hexdigest()[:8]
    name = f"{value.name}/dequantized_{digest}"
    for node in model.graph:
        if node.outputs[0].name == name:
            return node.outputs[0]
    inputs = [
        add_initialiser(model, f"{value.name}/int8", quantized.data),
        add_initialiser(model, f"{value.name}/scale", quantized.scale),
        add_initialiser(model, f"{value.name}/zero", np.zeros(quantized.scale.shape, np.int8)),
    ]
    attributes = {"axis": quantized.axis} if quantized.scale.ndim else {}
    node = ir.node("DequantizeLinear", inputs, attributes, name=name)
    node.outputs[0].name = name
    node.outputs[0].dtype = ir.DataType.FLOAT
    node.outputs[0].shape = value.shape
    model.graph.insert_before(model.graph[0], node)
    return node.outputs[0]


def correction(node: ir.Node, error: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Analytic bias correction: the mean of what a weight's error adds to each output channel.

    error: as the weight; mean: of the vectors that it is multiplied by, [G, K] as in
    `edgec.moments`; result: [channels of the output].
    Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias
    Correction", section 4.2, with E[x] measured on calibration data.
    """
    rows = error.T if channel_axis(node) else error
    per_group = rows.reshape(len(mean), -1, mean.shape[1])
    return np.asarray(per_group @ mean[..., None]).reshape(-1)


def under_taps(node: ir.Node, channels: np.ndarray, size: int) -> np.ndarray:
    """[G, K] of what is known per channel [C] of the input, the same under all taps of a kernel.

    `size`: elements of the weight per output channel, which is K.
    """
    groups = attribute(node, "group", 1) if node.op_type == "Conv" else 1
    taps = size * groups // len(channels)
    return channels.repeat(taps).reshape(groups, size)


def divided(node: ir.Node, weight: np.ndarray, by: np.ndarray) -> np.ndarray:
    """The weight for an input that was divided by `by` [G, K] on its way in."""
    rows = weight.T if channel_axis(node) else weight
    made = (rows.reshape(len(by), -1, by.shape[1]) * by[:, None, :]).reshape(rows.shape)
    return np.asarray(made.T if channel_axis(node) else made)


def bias_of(node: ir.Node, channels: int) -> np.ndarray:
    """The constant bias of a Conv or Gemm as float64 [channels]; zeros where it has none."""
    value = node.inputs[2] if len(node.inputs) > 2 else None
    array = constant(value)
    return np.zeros(channels) if array is None else array.astype(np.float64).reshape(-1)


def set_bias(node: ir.Node, value: ir.Value) -> None:
    """Give a Conv or Gemm a bias."""
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    node.replace_input_with(2, value)


def _spread(scale: np.ndarray, rank: int, axis: int) -> np.ndarray:
    return scale.reshape([-1 if i == axis else 1 for i in range(rank)]) if scale.ndim else scale
