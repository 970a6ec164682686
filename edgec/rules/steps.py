"""What several rules do: the nodes that take the place of one, each named after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from edgec.graphs import add_initialiser, constant, opset

Attributes = Mapping[str, int | float | str | Sequence[int]]
MOST_CHANNELS = 1 << 20
AXES_ARE_INPUTS = 18  # of the Reduce operators, from this opset on


class Steps:
    """A list of nodes under construction, in the order in which they are added."""

    def __init__(self, model: ir.Model, node: ir.Node, rule: str) -> None:
        self._model, self._prefix = model, f"{node.name}/{rule}"
        self.nodes: list[ir.Node] = []

    def add(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Attributes | None = None,
        outputs: int = 1,
        domain: str = "",
    ) -> ir.Value:
        """A node, whose first output is returned."""
        name = f"{self._prefix}/{len(self.nodes)}_{op_type}"
        node = ir.node(op_type, inputs, attributes, domain=domain, num_outputs=outputs, name=name)
        for index, value in enumerate(node.outputs):
            value.name = f"{name}/out_{index}" if index else f"{name}/out"
        self.nodes.append(node)
        return node.outputs[0]

    def split(self, value: ir.Value, sizes: Sequence[int], axis: int) -> Sequence[ir.Value]:
        """Pieces of these sizes along an axis."""
        self.add("Split", [value, self.constant("sizes", sizes)], {"axis": axis}, len(sizes))
        return self.nodes[-1].outputs

    def mean(self, value: ir.Value, axis: int) -> ir.Value:
        """Over one axis, which stays with size 1."""
        if opset(self._model) < AXES_ARE_INPUTS:
            return self.add("ReduceMean", [value], {"axes": [axis], "keepdims": 1})
        return self.add("ReduceMean", [value, self.constant("axis", [axis])], {"keepdims": 1})

    def constant(self, name: str, array: np.ndarray | Sequence[int]) -> ir.Value:
        """An initialiser; a list is one of int64."""
        data = array if isinstance(array, np.ndarray) else np.asarray(array, np.int64)
        return add_initialiser(self._model, f"{self._prefix}/{name}", data)

    def scalar(self, name: str, number: float, dtype: ir.DataType | None) -> ir.Value:
        """One number of a type; float32 where that is not known."""
        kind = (dtype or ir.DataType.FLOAT).numpy()
        return self.constant(name, np.asarray(number, kind))

    def filled(self, name: str, count: int, number: float, dtype: np.dtype) -> ir.Value:
        """`count` times a number. Raises ValueError where a graph claims more than a layer has."""
        if count > MOST_CHANNELS:
            raise ValueError(f"{count} channels")
        return self.constant(name, np.full(count, number, dtype))

    def per_channel(self, name: str, value: ir.Value, rank: int) -> ir.Value:
        """[channels] -> [channels, 1, ...], so that it meets axis 1 of a tensor of this rank."""
        shape, array = [-1] + [1] * (rank - 2), constant(value)
        if array is not None:
            return self.constant(name, array.reshape(shape))
        return self.add("Reshape", [value, self.constant(f"{name}_shape", shape)])

    def put(self, node: ir.Node, values: Sequence[ir.Value | None]) -> None:
        """In the place of `node`, with a value for each of its outputs that anything reads.

        A value takes over name, type and shape; None: nothing reads that output.
        """
        self._model.graph.insert_before(node, self.nodes)
        for old, new in zip(node.outputs, values, strict=False):
            if new is None:
                continue
            name, new.type, new.shape = old.name, old.type, old.shape
            ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
            old.name = f"{name}/gone"
            new.name = name
        self._model.graph.remove(node, safe=True)


def read(node: ir.Node, index: int) -> bool:
    """Whether anything reads an output of a node."""
    if index >= len(node.outputs):
        return False
    value = node.outputs[index]
    return bool(value.uses()) or value.is_graph_output()


def given(node: ir.Node, index: int) -> ir.Value | None:
    """An input of a node, or None where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def computes_in(node: ir.Node) -> ir.DataType | None:
    """The type of what a fused node makes, which is that of its first input."""
    first = given(node, 0)
    return node.outputs[0].dtype or (None if first is None else first.dtype)


def number(node: ir.Node, name: str, default: float) -> float:
    """A float attribute of a node."""
    found = node.attributes.get(name)
    return default if found is None else found.as_float()
