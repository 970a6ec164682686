"""Parts that are too large for an engine are cut again, where the fewest bytes cross.

Each piece takes as many nodes, in topological order, as its engine may hold; of the places in the
second half of these the narrowest is the end. So no piece but the last is less than half full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

import onnx_ir as ir

from edgec.graphs import inner, is_constant, macs, weight_bytes
from edgec.groups import Groups, real_reads
from edgec.narrow import bytes_of
from edgec.types import Graph, Part, Runtime, Target

Needs = Mapping[ir.Node, Sequence[ir.Value]]


def room(runtime: Runtime, target: Target) -> int:
    """Bytes of weights that an engine may hold: as its row says, else half of the memory; or 0."""
    memory = target.hardware.get("memory")
    gigabytes = 0 if memory is None else memory.facts.get("gb", 0)
    half = gigabytes * 1e9 / 2 if isinstance(gigabytes, (int, float)) else 0
    return runtime.limits.engine_bytes or int(half)


def fit(graph: Graph, parts: Sequence[Part], most: int) -> tuple[Part, ...]:
    """The parts, those with more than `most` bytes of weights in pieces; 0 means no limit.

    A piece of one node may have more: a node is never cut.
    """
    if not most or all(part.weight_bytes <= most for part in parts):
        return tuple(parts)
    model = graph.model
    needs = real_reads(model, Groups(model).data)
    by_name = {str(node.name): node for node in model.graph}
    found: list[tuple[Part, Sequence[ir.Node]]] = []
    for part in parts:
        nodes = [by_name[name] for name in part.nodes]
        pieces = [nodes] if part.weight_bytes <= most else _pieces(nodes, needs, most)
        found += [
            (_piece(part, piece, needs, f"{number} of {len(pieces)}"), piece)
            if len(pieces) > 1
            else (part, piece)
            for number, piece in enumerate(pieces, 1)
        ]
    results = {str(value.name) for value in model.graph.outputs}
    read = {name: {part.name for part, _ in found if name in part.inputs} for name in _all(found)}
    return tuple(
        replace(
            part,
            outputs=tuple(
                name
                for node in nodes
                for name in (str(value.name) for value in node.outputs)
                if name in results or read.get(name, set()) - {part.name}
            ),
        )
        for part, nodes in found
    )


def _all(found: Sequence[tuple[Part, Sequence[ir.Node]]]) -> set[str]:
    return {name for part, _ in found for name in part.inputs}


def _piece(part: Part, nodes: Sequence[ir.Node], needs: Needs, number: str) -> Part:
    inside = set(nodes)
    inputs = dict.fromkeys(
        str(value.name) for node in nodes for value in needs[node] if value.producer() not in inside
    )
    return replace(
        part,
        name=f"{part.name}_part{number.partition(' ')[0]}",
        inputs=tuple(inputs),
        nodes=tuple(str(node.name) for node in nodes),
        macs=sum(macs(node) for node in nodes),
        weight_bytes=weight_bytes(nodes),
        reason=f"piece {number}, for the memory of an engine: {part.reason}",
    )


def _pieces(nodes: Sequence[ir.Node], needs: Needs, most: int) -> list[Sequence[ir.Node]]:
    crossing = _crossing(nodes, needs)
    pieces, start = [], 0
    while start < len(nodes):
        sizes = _sizes(nodes[start:], most)
        if start + len(sizes) == len(nodes) and sizes[-1] <= most:
            pieces.append(nodes[start:])
            break
        fits = [end for end, size in enumerate(sizes, start + 1) if size <= most]
        full = [end for end in fits if 2 * sizes[end - start - 1] >= most]
        end = min(full or fits[-1:] or [start + 1], key=lambda end: (crossing[end], -end))
        pieces.append(nodes[start:end])
        start = end
    return pieces


def _sizes(nodes: Sequence[ir.Node], most: int) -> list[int]:
    """Bytes of weights of the first node, the first two, and so on, until there are too many."""
    seen: set[ir.Value] = set()
    sizes: list[int] = []
    for node in nodes:
        new = {v for one in inner(node) for v in one.inputs if v is not None and is_constant(v)}
        tensors = [ir.convenience.get_const_tensor(value) for value in new - seen]
        seen |= new
        own = sum(int(tensor.nbytes) for tensor in tensors if tensor is not None)
        sizes.append(own + (sizes[-1] if sizes else 0))
        if sizes[-1] > most:
            break
    return sizes


def _crossing(nodes: Sequence[ir.Node], needs: Needs) -> list[int]:
    """About how many bytes cross before each node, and after the last."""
    made = {value: index for index, node in enumerate(nodes) for value in node.outputs}
    last = {
        value: index for index, node in enumerate(nodes) for value in needs[node] if value in made
    }
    change = [0] * (len(nodes) + 1)
    for value, end in last.items():
        change[made[value] + 1] += bytes_of(value)
        change[end + 1] -= bytes_of(value)
    return list(accumulate(change))
