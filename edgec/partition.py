"""Stage 3: find the subnetworks. Nothing is cut; every node gets the name of its part.

The towers of a multimodal graph are not marked, but they follow from reachability:

1. For each node, the graph inputs that it depends on *by data*; what passes through Shape or Size
   is a dependence on shape and does not count.
2. Inputs are merged into groups where they meet, unless both have parameters of their own and at
   least one has already computed with them: a mask joins the tokens, an image does not.
3. Nodes that depend on one group are that group's tower, nodes that depend on several are the
   fusion. Labels only grow along edges that carry data, so every part is convex in these.
4. Nodes that depend on constants or shapes alone have no part: each piece that is taken out of the
   graph brings its own copy (see `graphs.extract`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

import onnx_ir as ir

from edgec.graphs import RECURRENT, WEIGHTED, is_constant, macs, reads, weight_bytes
from edgec.types import Graph, Kind, Modality, Part

# What stands between a weight that is stored quantized and its use.
WIDENING = frozenset({"DequantizeLinear", "Cast", "Mul", "Sub", "Transpose", "Reshape"})
SHAPE_OPS = frozenset({"Shape", "Size"})
FUSION = frozenset({-1})
LARGE_FUSION = 0.1  # of all weights, from which a fusion is treated as a network of its own kind


def partition(graph: Graph) -> tuple[Part, ...]:
    """The parts of a canonical graph, towers first, in topological order."""
    model = graph.model
    groups = _Groups(model)
    members: dict[frozenset[int], list[ir.Node]] = defaultdict(list)
    for node in model.graph:
        label = groups.label(groups.data[node])
        if label:
            members[label if len(label) == 1 else FUSION].append(node)
    loose = [node for node in _makers_of_outputs(model) if not groups.data[node]]
    if loose and members:
        next(iter(members.values())).extend(loose)
    if FUSION in members:
        members[FUSION] = members.pop(FUSION)
    if not members:
        members[frozenset()] = list(model.graph)
    modalities = {
        label: Modality.MIXED
        if label == FUSION
        else _modality([groups.inputs[i] for i in groups.members(label)], nodes)
        for label, nodes in members.items()
    }
    names = _names(modalities)
    inputs = {label: _inputs(nodes, groups.data) for label, nodes in members.items()}
    results = {str(value.name) for value in model.graph.outputs}
    total = weight_bytes(model.graph)
    return tuple(
        _part(
            names[label],
            modalities[label],
            nodes,
            inputs[label],
            results.union(*(found for other, found in inputs.items() if other != label)),
            total,
        )
        for label, nodes in members.items()
    )


def _makers_of_outputs(model: ir.Model) -> list[ir.Node]:
    """The nodes that give the graph's outputs, each once."""
    makers = (value.producer() for value in model.graph.outputs)
    return list(dict.fromkeys(node for node in makers if node is not None))


def _inputs(nodes: Sequence[ir.Node], data: Mapping[ir.Node, int]) -> list[str]:
    """The values that a set of nodes reads from outside.

    Constants do not count; nodes without data of their own come along, so their inputs do.
    """
    inside = set(nodes)
    found: dict[str, None] = {}
    stack = [value for node in nodes for value in reads(node)]
    seen: set[ir.Value] = set()
    while stack:
        value = stack.pop(0)
        producer = value.producer()
        if value in seen or is_constant(value) or producer in inside:
            continue
        seen.add(value)
        if producer is not None and not data[producer]:
            stack.extend(reads(producer))
        else:
            found[str(value.name)] = None
    return list(found)


class _Groups:
    """Graph inputs by index, merged by union-find; a bit mask of inputs per node."""

    def __init__(self, model: ir.Model) -> None:
        weights = set(model.graph.initializers)
        self.inputs = [v for v in model.graph.inputs if v.name not in weights]
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
            if len(group) == 1 and _weighted(node):
                self.computed |= group
                self.parameters |= group
            elif len(group) == 1 and node.op_type == "Gather" and _fixed(node.inputs[0]):
                self.parameters |= group

    def find(self, index: int) -> int:
        while self.parent[index] != index:
            index = self.parent[index]
        return index

    def members(self, label: frozenset[int]) -> list[int]:
        return [i for i in range(len(self.inputs)) if self.find(i) in label]

    def label(self, mask: int) -> frozenset[int]:
        return frozenset(self.find(i) for i in range(len(self.inputs)) if mask >> i & 1)

    def _meet(self, mask: int) -> None:
        pairs = combinations(sorted(self.label(mask)), 2)
        for one, other in sorted(pairs, key=lambda pair: not self._akin(*pair)):
            a, b = self.find(one), self.find(other)
            if a != b and not self._apart(a, b):
                self._merge(a, b)

    def _akin(self, a: int, b: int) -> bool:
        """Inputs of one dtype find each other first: a mask its tokens, not the picture."""
        return self.inputs[a].dtype == self.inputs[b].dtype

    def _apart(self, a: int, b: int) -> bool:
        own = a in self.parameters and b in self.parameters
        return own and (a in self.computed or b in self.computed)

    def _merge(self, a: int, b: int) -> None:
        low, high = min(a, b), max(a, b)
        self.parent[high] = low
        for known in (self.parameters, self.computed):
            if high in known:
                known.add(low)


def _part(
    name: str,
    modality: Modality,
    nodes: list[ir.Node],
    inputs: Sequence[str],
    wanted: set[str],
    total: int,
) -> Part:
    size = weight_bytes(nodes)
    kind, reason = _kind(nodes)
    if modality is Modality.MIXED and size < LARGE_FUSION * max(total, 1):
        kind = Kind.FUSION
        reason = f"joins towers, with {size / max(total, 1):.1%} of the weights"
    elif modality is Modality.MIXED:
        reason = f"joins towers, and is itself large: {reason}"
    made = [str(value.name) for node in nodes for value in node.outputs]
    return Part(
        name=name,
        kind=kind,
        modality=modality,
        inputs=tuple(inputs),
        outputs=tuple(value for value in made if value in wanted),
        nodes=tuple(str(node.name) for node in nodes),
        macs=sum(macs(node) for node in nodes),
        weight_bytes=size,
        reason=reason,
    )


def _kind(nodes: Sequence[ir.Node]) -> tuple[Kind, str]:
    """What most of the multiply-accumulates are: convolution, attention, recurrence or dense."""
    work: Counter[str] = Counter()
    for node in nodes:
        if _weighted(node):
            name = "Conv" if node.op_type.startswith("Conv") else node.op_type
            work["Recurrent" if name in RECURRENT else name] += max(1, macs(node))
    if not work:
        return Kind.GLUE, "has no weights"
    total = work.total()
    attention = any(node.op_type in ("Softmax", "Attention") for node in nodes) and any(
        node.op_type in ("MatMul", "Attention") and not _weighted(node) for node in nodes
    )
    if work["Conv"] * 2 >= total:
        return Kind.CNN, f"{work['Conv'] / total:.0%} of the work is convolution"
    if work["Recurrent"] * 2 >= total:
        return Kind.RECURRENT, f"{work['Recurrent'] / total:.0%} of the work is recurrent"
    dense = (work["MatMul"] + work["Gemm"]) / total
    if attention:
        return Kind.TRANSFORMER, f"{dense:.0%} of the work is MatMul, between attention"
    return Kind.MLP, f"{dense:.0%} of the work is MatMul, without attention"


def _weighted(node: ir.Node) -> bool:
    """Whether a node multiplies by a weight, be it stored in float or quantized."""
    standard = node.op_type in WEIGHTED and node.domain in ("", "ai.onnx") and len(node.inputs) > 1
    return standard and _fixed(node.inputs[1])


def _fixed(value: ir.Value | None) -> bool:
    """Whether a value is a constant, or made float from one."""
    if value is None or is_constant(value):
        return value is not None
    producer = value.producer()
    if producer is None or producer.op_type not in WIDENING:
        return False
    return all(_fixed(one) for one in producer.inputs if one is not None)


def _modality(inputs: Sequence[ir.Value], nodes: Sequence[ir.Node]) -> Modality:
    """A guess from the types, ranks and names of the inputs, and from how they are first used."""
    text = " ".join(str(value.name).lower() for value in inputs)
    if any(word in text for word in ("mel", "audio", "wave", "speech", "spectrogram", "fbank")):
        return Modality.AUDIO
    integers = {v for v in inputs if v.dtype in (ir.DataType.INT64, ir.DataType.INT32)}
    looked_up = any(
        node.op_type == "Gather" and _fixed(node.inputs[0]) and node.inputs[1] is not None
        for node in nodes
    )
    if integers and looked_up:
        return Modality.TEXT
    ranks = {len(value.shape) for value in inputs if value.shape is not None}
    if 4 in ranks and any(node.op_type == "Conv" for node in nodes):
        return Modality.VISION
    return Modality.UNKNOWN


def _names(modalities: Mapping[frozenset[int], Modality]) -> dict[frozenset[int], str]:
    """vision, text, audio, fusion; numbered where there are several of one, `model` if alone."""
    alone = "model" if len(modalities) == 1 else "tower"
    plain = {Modality.MIXED: "fusion", Modality.UNKNOWN: alone}
    base = {label: plain.get(modality, str(modality)) for label, modality in modalities.items()}
    counts = Counter(base.values())
    seen: Counter[str] = Counter()
    names = {}
    for label, name in base.items():
        seen[name] += 1
        names[label] = name if counts[name] == 1 else f"{name}_{seen[name]}"
    return names
