"""The cut is the narrowest of all that are possible: compared with every subset."""

from __future__ import annotations

from collections.abc import Collection
from itertools import combinations

import numpy as np
import onnx_ir as ir
import pytest
import small

from edgec.groups import Groups, real_reads
from edgec.narrow import UNKNOWN, VALUES, bytes_of, narrowest


def sketch(seed: int) -> ir.Model:
    """Nine nodes in a row that read earlier ones at random; each value has a width of its own."""
    rng = np.random.default_rng(seed)
    values, nodes = [ir.val("x", ir.DataType.FLOAT, [1, 7])], []
    for index in range(9):
        count = min(len(values), int(rng.integers(1, 3)))
        inputs = [values[i] for i in rng.choice(len(values), count, replace=False)]
        node = ir.node("Sum", inputs, name=f"n{index}")
        out = node.outputs[0]
        out.name, out.dtype = f"v{index}", ir.DataType.FLOAT
        out.shape = ir.Shape([1, int(rng.integers(1, 9))])
        nodes.append(node)
        values.append(out)
    graph = ir.Graph(values[:1], values[-1:], nodes=nodes, opset_imports={"": 17}, name="g")
    return ir.Model(graph, ir_version=8)


def cost(stay: Collection[ir.Node], go: Collection[ir.Node], needs: dict) -> int:
    """Of a cut; -1 where what stays reads what goes."""
    if any(value.producer() in go for node in stay for value in needs[node]):
        return -1
    crossing = {v for node in go for v in needs[node] if v.producer() not in go}
    return sum(bytes_of(value) * VALUES + 1 for value in crossing)


@pytest.mark.parametrize("most", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_no_cut_is_narrower(seed: int, most: bool) -> None:
    model = sketch(seed)
    needs = real_reads(model, Groups(model).data)
    nodes = list(model.graph)
    fixed, free, go = nodes[:2], nodes[2:8], nodes[8:]
    found = narrowest(free, go, needs, most=most)
    costs = {}
    for size in range(len(free) + 1):
        for moved in combinations(free, size):
            rest = [node for node in free if node not in moved]
            costs[frozenset(moved)] = cost([*fixed, *rest], [*go, *moved], needs)
    least = min(value for value in costs.values() if value >= 0)
    assert costs[frozenset(found)] == least
    sizes = [len(moved) for moved, value in costs.items() if value == least]
    assert len(found) == (max if most else min)(sizes)


def test_what_must_go_and_cannot_is_left_alone() -> None:
    """A node reads what goes and is read by what stays: no cut is possible."""
    made = small.model(
        """g (float[1,4] x) => (float[1,4] z) {
             [a] p = Relu (x)
             [b] q = Add (p, x)
             [c] r = Exp (q)
             [d] z = Add (r, p)
           }"""
    )
    needs = real_reads(made, Groups(made).data)
    a, b, c, d = made.graph
    assert narrowest([b], [a], needs, most=False) == set()
    assert narrowest([c], [b], needs, most=False) == set()
    assert narrowest([c, d], [b], needs, most=False) == {c, d}


def test_bytes_of_a_sample() -> None:
    def value(shape: list[int | str] | None, dtype: ir.DataType) -> ir.Value:
        return ir.Value(
            name="v", shape=None if shape is None else ir.Shape(shape), type=ir.TensorType(dtype)
        )

    assert bytes_of(value([1, 3, 5], ir.DataType.FLOAT)) == 60
    assert bytes_of(value(["batch", 3], ir.DataType.INT64)) == 24
    assert bytes_of(value(["batch", "n", 3], ir.DataType.FLOAT16)) == 32 * 3 * 2
    assert bytes_of(value(None, ir.DataType.FLOAT)) == 4 * UNKNOWN
