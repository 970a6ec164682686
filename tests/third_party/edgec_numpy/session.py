"""Runs an ONNX file with numpy. Products of INT8 values are sums of integers, exactly."""

import onnx
from onnx import numpy_helper

from .ops import OPS, Value


def open_artifact(artifact, settings):
    return NumpySession(artifact)


class NumpySession:
    def __init__(self, artifact):
        if isinstance(artifact, bytes):
            graph = onnx.load_from_string(artifact).graph
        else:
            graph = onnx.load(artifact).graph
        self._weights = {one.name: Value(numpy_helper.to_array(one)) for one in graph.initializer}
        self._outputs = [value.name for value in graph.output]
        self._nodes = [
            (node, {one.name: _attribute(one) for one in node.attribute}) for node in graph.node
        ]
        self.ran = {}

    def run(self, feeds):
        values = {**self._weights, **{name: Value(array) for name, array in feeds.items()}}
        for node, attributes in self._nodes:
            if node.op_type not in OPS:
                raise NotImplementedError(f"there is no {node.op_type} here ({node.name})")
            inputs = [values[name] if name else None for name in node.input]
            made = OPS[node.op_type](attributes, len(node.output), *inputs)
            for name, value in zip(
                node.output, made if isinstance(made, list) else [made], strict=False
            ):
                values[name] = value if isinstance(value, Value) else Value(value)
            self.ran[node.name] = values[node.output[0]].integers
        return {name: values[name].array for name in self._outputs}

    def close(self):
        self._weights = {}


def _attribute(one):
    value = onnx.helper.get_attribute_value(one)
    if isinstance(value, bytes):
        return value.decode()
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value
