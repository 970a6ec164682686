"""The narrowest cut between nodes that stay and nodes that go: where the fewest bytes cross.

A minimum cut over values, found as a maximum flow along shortest augmenting paths (Ford and
Fulkerson 1956; Edmonds and Karp 1972). A value costs its bytes where it is made on the one side and
read on the other, however often it is read there; of cuts of as many bytes the one with the fewest
values is taken. Nothing that goes is read by what stays, so both sides are convex.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

import onnx_ir as ir

from edgec.graphs import item_bytes

ASSUMED = 32  # elements along a dimension whose size is not known
UNKNOWN = 1 << 16  # elements of a value whose rank is not known
VALUES = 1 << 16  # more than any cut has: bytes come first, then the number of values
NEVER = 1 << 100
SOURCE, SINK = 0, 1
Needs = Mapping[ir.Node, Sequence[ir.Value]]  # what a node reads, through shape arithmetic too


def bytes_of(value: ir.Value) -> int:
    """About how many bytes a value takes for one sample."""
    width = 4 if value.dtype is None else max(1, math.ceil(item_bytes(value.dtype)))
    if value.shape is None:
        return UNKNOWN * width
    sizes = [
        dim if isinstance(dim, int) else 1 if axis == 0 else ASSUMED
        for axis, dim in enumerate(value.shape)
    ]
    return max(1, math.prod(sizes)) * width


def narrowest(
    free: Sequence[ir.Node], go: Collection[ir.Node], needs: Needs, *, most: bool
) -> set[ir.Node]:
    """Those of the `free` nodes that go as well, so that the fewest bytes cross; all others stay.

    `most`: of cuts that are equal, the one with which the most nodes go, else the fewest. Empty
    where no cut is possible.
    """
    network, ids = _Network(), {node: i for i, node in enumerate(free, 2)}
    crossings: dict[ir.Value, int] = {}

    def crossing(value: ir.Value) -> int:
        """The far end of a value's edge, which is cut where the value crosses."""
        if value not in crossings:
            near, far = (len(ids) + 2 + 2 * len(crossings) + end for end in (0, 1))
            crossings[value] = far
            producer = value.producer()
            network.add(SOURCE if producer is None else ids.get(producer, SOURCE), near, NEVER)
            network.add(near, far, bytes_of(value) * VALUES + 1)
        return crossings[value]

    made = {value for node in free for value in node.outputs}
    for node, values in needs.items():
        for value in values:
            producer = value.producer()
            if node in ids:
                if producer in go:
                    network.add(ids[node], SINK, NEVER)
                    continue
                network.add(crossing(value), ids[node], NEVER)
                if producer in ids:
                    network.add(ids[node], ids[producer], NEVER)
            elif node in go and value in made:
                network.add(crossing(value), SINK, NEVER)
            elif value in made and producer is not None:
                network.add(SOURCE, ids[producer], NEVER)
    for node in go:
        for value in needs.get(node, ()):
            if value in crossings and value not in made:  # it crosses in any case
                network.add(crossings[value], SINK, NEVER)
    if not network.saturate():
        return set()
    if most:
        staying = network.reached_from(SOURCE)
        return {node for node, index in ids.items() if index not in staying}
    leading = network.reached_from(SINK, backwards=True)
    return {node for node, index in ids.items() if index in leading}


class _Network:
    """Capacities that are left, by the two ends of an edge."""

    def __init__(self) -> None:
        self.left: dict[int, dict[int, int]] = {SOURCE: {}, SINK: {}}

    def add(self, start: int, end: int, capacity: int) -> None:
        if start == end:
            return
        forth, back = self.left.setdefault(start, {}), self.left.setdefault(end, {})
        forth[end] = max(forth.get(end, 0), capacity)
        back.setdefault(start, 0)

    def saturate(self) -> bool:
        """Send as much as there is from source to sink; whether that is finite."""
        while path := self._path():
            steps = list(pairwise(path))
            amount = min(self.left[start][end] for start, end in steps)
            if amount >= NEVER // 2:
                return False
            for start, end in steps:
                self.left[start][end] -= amount
                self.left[end][start] += amount
        return True

    def _path(self) -> list[int]:
        before = {SOURCE: SOURCE}
        queue = deque([SOURCE])
        while queue:
            start = queue.popleft()
            if start == SINK:
                path = [SINK]
                while path[-1] != SOURCE:
                    path.append(before[path[-1]])
                return path[::-1]
            for end, capacity in self.left[start].items():
                if capacity > 0 and end not in before:
                    before[end] = start
                    queue.append(end)
        return []

    def reached_from(self, start: int, *, backwards: bool = False) -> set[int]:
        """All that can be reached over edges with capacity left, or that can reach `start`."""
        found, stack = {start}, [start]
        while stack:
            one = stack.pop()
            for other, capacity in self.left[one].items():
                usable = self.left[other].get(one, 0) if backwards else capacity
                if usable > 0 and other not in found:
                    found.add(other)
                    stack.append(other)
        return found
