"""Models with custom ops, for the tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgec.kernels import Kernel

OPSETS = (13, 17, 18, 21, 23)


def one_node(
    kernel: Kernel, feeds: Mapping[str, np.ndarray], attributes: Mapping[str, int | float]
) -> onnx.ModelProto:
    """A model of one node, whose inputs are of fixed sizes."""
    node = helper.make_node(
        kernel.name, list(kernel.inputs), list(kernel.outputs), domain=kernel.domain, **attributes
    )
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in feeds.items()
    ]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in kernel.outputs]
    return model([node], inputs, outputs, {}, kernel.domain)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Mapping[str, np.ndarray],
    domain: str,
    opset: int = 17,
) -> onnx.ModelProto:
    """A model that imports the domain of custom ops."""
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), tensors)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(domain, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def net(path: Path, domain: str, op: str, opset: int = 17, **attributes: float) -> Path:
    """Conv, the custom op, Conv: x [batch, 3, 16, 16] -> y [batch, 8, 16, 16]."""
    random = np.random.default_rng(3)
    weights = {
        "w": random.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32),
        "w2": random.normal(0, 0.2, (8, 8, 3, 3)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "first", pads=[1, 1, 1, 1]),
        helper.make_node(op, ["a"], ["b"], "custom", domain=domain, **attributes),
        helper.make_node("Conv", ["b", "w2"], ["y"], "last", pads=[1, 1, 1, 1]),
    ]
    value = helper.make_tensor_value_info
    inputs = [value("x", TensorProto.FLOAT, ["batch", 3, 16, 16])]
    outputs = [value("y", TensorProto.FLOAT, ["batch", 8, 16, 16])]
    onnx.save(model(nodes, inputs, outputs, weights, domain, opset), path)
    return path


def diffusion_block(path: Path) -> Path:
    """Conv, GroupNorm and SiLU as exporters write them, Conv, twice."""
    random = np.random.default_rng(4)
    weights: dict[str, np.ndarray] = {
        "rows": np.array([0, 4, -1], np.int64),
        "sizes": np.array([0, 16, 24, 24], np.int64),
        "ones": np.ones(4, np.float32),
        "zeros": np.zeros(4, np.float32),
    }
    nodes, value = [], "x"
    for index, channels in enumerate((3, 16)):
        name = f"block_{index}"
        shape = (16, channels, 3, 3)
        weights[f"{name}/w"] = random.normal(0, 0.2, shape).astype(np.float32)
        for what in ("scale", "bias"):
            weights[f"{name}/{what}"] = random.normal(1, 0.3, (16, 1, 1)).astype(np.float32)

        def add(op: str, inputs: list[str], name: str = name, **attributes: object) -> str:
            made = f"{name}/{op}_{len(nodes)}"
            nodes.append(helper.make_node(op, inputs, [made], made, **attributes))
            return made

        x = add("Conv", [value, f"{name}/w"], pads=[1, 1, 1, 1])
        x = add("Reshape", [x, "rows"])
        x = add("InstanceNormalization", [x, "ones", "zeros"], epsilon=1e-5)
        x = add("Reshape", [x, "sizes"])
        x = add("Add", [add("Mul", [x, f"{name}/scale"]), f"{name}/bias"])
        value = add("Mul", [x, add("Sigmoid", [x])])
    weights["last/w"] = random.normal(0, 0.2, (8, 16, 3, 3)).astype(np.float32)
    nodes.append(helper.make_node("Conv", [value, "last/w"], ["y"], "last", pads=[1, 1, 1, 1]))
    info = helper.make_tensor_value_info
    inputs = [info("x", TensorProto.FLOAT, ["batch", 3, 24, 24])]
    outputs = [info("y", TensorProto.FLOAT, ["batch", 8, 24, 24])]
    onnx.save(model(nodes, inputs, outputs, weights, "edgec.kernels"), path)
    return path


def samples(folder: Path, shape: tuple[int, ...], count: int = 9) -> Path:
    """Arrays for the input x."""
    folder.mkdir()
    random = np.random.default_rng(5)
    for index in range(count):
        np.savez(folder / f"{index}.npz", x=random.normal(0, 1, shape).astype(np.float32))
    return folder
