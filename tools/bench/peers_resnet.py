"""ResNet-50 as timm's `resnet50` has it, written out: timm needs torchvision, which needs torch.

Bottlenecks of 3, 4, 6 and 3 with the stride in the 3x3 convolution ("v1.5"), 25,557,032 parameters.
Weights are drawn as timm draws them (He et al. 2015, arXiv:1502.01852: normal, fan out), seeded,
but the last scale of a block is 0.5 instead of 0, which would leave nothing of the blocks. The
normalisation takes mean and variance of one batch, and is folded, as exporters do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

BLOCKS, WIDTHS, EXPANSION, CLASSES = (3, 4, 6, 3), (64, 128, 256, 512), 4, 1000
EPSILON, LAST_SCALE, OPSET, SEED = 1e-5, 0.5, 17, 0


class _Network:
    """A graph under construction. With `norms` None each convolution is normalised by its batch."""

    def __init__(self, norms: dict[str, tuple[np.ndarray, np.ndarray]] | None) -> None:
        self._rng = np.random.default_rng(SEED)
        self._norms = norms
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self.moments: list[str] = []
        self.parameters = 0

    def node(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name + "/" + kind, **attributes))
        return name

    def tensor(self, name: str, array: np.ndarray) -> str:
        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def conv(self, x: str, name: str, shape: tuple[int, ...], stride: int, scale: float) -> str:
        """Conv and its normalisation; shape is [out, in, k, k]."""
        out, _, size, _ = shape
        weight = self._rng.normal(0, np.sqrt(2 / (out * size * size)), shape)
        self.parameters += weight.size + 2 * out
        geometry = {"kernel_shape": [size] * 2, "strides": [stride] * 2, "pads": [size // 2] * 4}
        if self._norms is not None:
            mean, variance = self._norms[name]
            factor = scale / np.sqrt(variance + EPSILON)
            folded = (weight * factor[:, None, None, None]).astype(np.float32)
            feeds = [x, self.tensor(name + ".weight", folded)]
            feeds.append(self.tensor(name + ".bias", (-mean * factor).astype(np.float32)))
            return self.node("Conv", feeds, name, **geometry)
        feeds = [x, self.tensor(name + ".weight", weight.astype(np.float32))]
        raw = self.node("Conv", feeds, name + ".raw", **geometry)
        centre = self.node("ReduceMean", [raw], name + ".mean", axes=[0, 2, 3])
        centred = self.node("Sub", [raw, centre], name + ".centred")
        squares = self.node("Mul", [centred, centred], name + ".squares")
        spread = self.node("ReduceMean", [squares], name + ".variance", axes=[0, 2, 3])
        self.moments += [centre, spread]
        root = self.node("Sqrt", [spread], name + ".root")
        unit = self.node("Div", [centred, root], name + ".unit")
        return self.node("Mul", [unit, self.tensor(name + ".scale", np.array(scale, "f4"))], name)

    def block(self, x: str, name: str, inner: int, before: int, stride: int) -> str:
        after = inner * EXPANSION
        y = self.conv(x, name + ".conv1", (inner, before, 1, 1), 1, 1.0)
        y = self.node("Relu", [y], name + ".act1")
        y = self.conv(y, name + ".conv2", (inner, inner, 3, 3), stride, 1.0)
        y = self.node("Relu", [y], name + ".act2")
        y = self.conv(y, name + ".conv3", (after, inner, 1, 1), 1, LAST_SCALE)
        if stride > 1 or before != after:
            x = self.conv(x, name + ".downsample", (after, before, 1, 1), stride, 1.0)
        return self.node("Relu", [self.node("Add", [y, x], name + ".add")], name + ".act3")

    def whole(self) -> None:
        x = self.conv("image", "conv1", (64, 3, 7, 7), 2, 1.0)
        x = self.node("Relu", [x], "act1")
        pooling = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
        x, before = self.node("MaxPool", [x], "maxpool", **pooling), 64
        for stage, (count, inner) in enumerate(zip(BLOCKS, WIDTHS, strict=True)):
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                x = self.block(x, f"layer{stage + 1}.{index}", inner, before, stride)
                before = inner * EXPANSION
        x = self.node("Flatten", [self.node("GlobalAveragePool", [x], "pool")], "flat")
        bound = 1 / np.sqrt(before)
        weight = self._rng.uniform(-bound, bound, (CLASSES, before)).astype(np.float32)
        bias = self._rng.uniform(-bound, bound, CLASSES).astype(np.float32)
        self.parameters += weight.size + bias.size
        feeds = [x, self.tensor("fc.weight", weight), self.tensor("fc.bias", bias)]
        self.node("Gemm", feeds, "logits", transB=1)

    def model(self, batch: int, side: int, outputs: list[str]) -> onnx.ModelProto:
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, side, side])
        found = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "resnet50", [image], found, self.tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = 8
        return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def resnet50(batch: np.ndarray) -> onnx.ModelProto:
    """The network [1, 3, side, side] -> [1, 1000], settled on pictures [n, 3, side, side]."""
    raw = _Network(None)
    raw.whole()
    count, _, side, _ = batch.shape
    session = ort.InferenceSession(raw.model(count, side, raw.moments).SerializeToString())
    found = [moment.ravel() for moment in session.run(None, {"image": batch})]
    names = [name.removesuffix(".mean") for name in raw.moments[::2]]
    folded = _Network(dict(zip(names, zip(found[::2], found[1::2], strict=True), strict=True)))
    folded.whole()
    assert folded.parameters == 25_557_032
    return folded.model(1, side, ["logits"])
