"""Graph inputs that belong together, and what each node depends on.

A node depends on an input *by data*; what passes through Shape or Size is a dependence on shape and
does not count. Inputs are merged where they meet, unless both have parameters of their own and at
least one has already computed with them: a mask joins the tokens, an image does not. A state that
comes in and goes out again (the keys and values of attention, a recurrent state) joins what it is
met by alone, and is nobody's where towers have met already.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

import onnx_ir as ir

from edgec.graphs import RECURRENT, is_constant, reads
from edgec.kinds import looks_up, weighted

SHAPE_OPS = frozenset({"Shape", "Size"})
LAYOUT = frozenset({"Identity", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Cast"})
GROWING = frozenset({"Concat", "ScatterND", "ScatterElements", "TensorScatter"})
Label = frozenset[int]


class Groups:
    """Graph inputs by index, merged by union-find; a bit mask of inputs per node."""

    def __init__(self, model: ir.Model) -> None:
        weights = set(model.graph.initializers)
        self.inputs = [v for v in model.graph.inputs if v.name not in weights]
        self.caches = _kept_by(GROWING, model, self.inputs)
        self.states = self.caches | _kept_by(RECURRENT, model, self.inputs)
        self.parent = list(range(len(self.inputs)))
        self.data: dict[ir.Node, int] = {}
        self.parameters: set[int] = set()
        self.computed: set[int] = set()
        of_value = {value: 1 << i for i, value in enumerate(self.inputs)}
        for node in model.graph:
            mask = 0
            for value in reads(node):
                mask |= of_value.get(value, 0)
            if node.op_type in SHAPE_OPS:
                mask = 0
            self.data[node] = mask
            of_value.update((value, mask) for value in node.outputs)
            self._meet(mask)
            group = self.label(mask)
            if len(group) == 1 and weighted(node):
                self.computed |= group
                self.parameters |= group
            elif len(group) == 1 and looks_up(node):
                self.parameters |= group

    def find(self, index: int) -> int:
        """The first input of the group that an input belongs to."""
        while self.parent[index] != index:
            index = self.parent[index]
        return index

    def members(self, label: Label) -> list[int]:
        """The inputs of some groups, by index."""
        return [i for i in range(len(self.inputs)) if self.find(i) in label]

    def values(self, label: Label) -> list[ir.Value]:
        """The inputs of some groups."""
        return [self.inputs[i] for i in self.members(label)]

    def label(self, mask: int) -> Label:
        """The groups of the inputs in a bit mask."""
        return frozenset(self.find(i) for i in range(len(self.inputs)) if mask >> i & 1)

    def _meet(self, mask: int) -> None:
        roots = sorted(self.label(mask))
        pairs = [pair for pair in combinations(roots, 2) if not any(map(self._state, pair))]
        for one, other in sorted(pairs, key=lambda pair: not self._akin(*pair)):
            a, b = self.find(one), self.find(other)
            if a != b and not self._apart(a, b):
                self._merge(a, b)
        states = [root for root in roots if self._state(root)]
        others = {self.find(root) for root in roots} - set(states)
        if states and len(others) < 2:
            for state in states:
                self._merge(min(others, default=states[0]), state)

    def _state(self, root: int) -> bool:
        """Whether a group is states alone, that nothing with parameters has read yet."""
        return root not in self.parameters and all(
            self.inputs[i] in self.states for i in self.members(frozenset({root}))
        )

    def _akin(self, a: int, b: int) -> bool:
        """Inputs of one dtype find each other first: a mask its tokens, not the picture."""
        return self.inputs[a].dtype == self.inputs[b].dtype

    def _apart(self, a: int, b: int) -> bool:
        own = a in self.parameters and b in self.parameters
        return own and (a in self.computed or b in self.computed)

    def _merge(self, a: int, b: int) -> None:
        low, high = min(a, b), max(a, b)
        if low == high:
            return
        self.parent[high] = low
        for known in (self.parameters, self.computed):
            if high in known:
                known.add(low)


def real_reads(model: ir.Model, data: Mapping[ir.Node, int]) -> dict[ir.Node, list[ir.Value]]:
    """What each node reads: no constants, but what the sizes that it needs are taken from."""
    behind: dict[ir.Value, dict[ir.Value, None]] = {}

    def sources(value: ir.Value) -> dict[ir.Value, None]:
        return behind.get(value, {} if is_constant(value) else {value: None})

    found: dict[ir.Node, list[ir.Value]] = {}
    for node in model.graph:
        seen: dict[ir.Value, None] = {}
        for value in reads(node):
            seen.update(sources(value))
        found[node] = list(seen)
        if not data[node]:
            behind.update((value, seen) for value in node.outputs)
    return found


def readers(needs: Mapping[ir.Node, Sequence[ir.Value]]) -> dict[ir.Node, list[ir.Node]]:
    """The nodes that read what a node makes."""
    found: dict[ir.Node, list[ir.Node]] = defaultdict(list)
    for node, values in needs.items():
        for producer in dict.fromkeys(value.producer() for value in values):
            if producer is not None:
                found[producer].append(node)
    return found


def _kept_by(
    ops: frozenset[str], model: ir.Model, inputs: Sequence[ir.Value]
) -> frozenset[ir.Value]:
    """Inputs that such an op reads and that go out again, with something added or replaced.

    Layout ops may stand before and after it, at most three each.
    """
    given = set(model.graph.outputs)

    def kept(value: ir.Value, steps: int) -> bool:
        return any(
            (node.op_type in ops and any(leads(out, 3) for out in node.outputs))
            or (steps > 0 and node.op_type in LAYOUT and kept(node.outputs[0], steps - 1))
            for node in (use.node for use in value.uses())
        )

    def leads(value: ir.Value, steps: int) -> bool:
        return value in given or any(
            steps > 0 and use.node.op_type in LAYOUT and leads(use.node.outputs[0], steps - 1)
            for use in value.uses()
        )

    return frozenset(value for value in inputs if kept(value, 3))
