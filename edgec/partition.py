"""Stage 3: find the subnetworks. Nothing is cut; every node gets the name of its part.

The towers of a multimodal graph are not marked, but they follow from reachability:

1. For each node, the graph inputs that it depends on by data, in groups (see `groups`).
2. Nodes that depend on one group are that group's tower, nodes that depend on several are the
   fusion. Labels only grow along edges that carry data, so every part is convex in these.
3. What picks boxes is a head of its own; what leaks from a tower goes to the fusion, so that the
   fewest bytes cross; a fusion that goes on to write its tokens is a decoder (see `roles`).
4. Nodes that depend on constants or shapes alone have no part: each piece that is taken out of the
   graph brings its own copy (see `graphs.extract`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from edgec import kinds, roles
from edgec.errors import InputError
from edgec.graphs import macs, weight_bytes
from edgec.groups import Groups, Label, readers, real_reads
from edgec.narrow import Needs
from edgec.types import Graph, Kind, Modality, Part

FUSION: Label = frozenset({-1})
HEAD: Label = frozenset({-2})
LARGE_FUSION = 0.1  # of all weights, from which a fusion is treated as a network of its own kind
Members = dict[Label, list[ir.Node]]


@dataclass(frozen=True)
class _Found:
    """The nodes of each part, and which tower the decoder took its tokens from, if there is one.

    `encoder`: the only other tower of a decoder that attends to it.
    """

    members: Members
    decoder: Label = frozenset()
    encoder: Label = frozenset()


def partition(graph: Graph) -> tuple[Part, ...]:
    """The parts of a canonical graph, towers first, in topological order."""
    model = graph.model
    groups = Groups(model)
    needs = real_reads(model, groups.data)
    found = _find(model, groups, {node: needs[node] for node in needs if groups.data[node]})
    members = found.members
    modalities = {label: _modality(found, groups, label, nodes) for label, nodes in members.items()}
    names = _names(found, modalities)
    inputs = {label: _inputs(nodes, needs) for label, nodes in members.items()}
    results = {str(value.name) for value in model.graph.outputs}
    total = weight_bytes(model.graph)
    parts = (
        _part(
            names[label],
            modalities[label],
            nodes,
            inputs[label],
            results.union(*(taken for other, taken in inputs.items() if other != label)),
            total,
        )
        for label, nodes in members.items()
    )
    return tuple(
        replace(part, reason=f"{_role(found, label)}{part.reason}")
        for part, label in zip(parts, members, strict=True)
    )


def rename(parts: Sequence[Part], names: Mapping[str, str]) -> tuple[Part, ...]:
    """The parts under the names that the user prefers, by the names that they have.

    Raises InputError for a part that there is not, and where two would have one name.
    """
    known = [part.name for part in parts]
    for old in names:
        if old not in known:
            raise InputError(
                f"names.{old} matches no part of this model",
                hint=f"its parts are {', '.join(known)}",
            )
    renamed = tuple(replace(part, name=names.get(part.name, part.name)) for part in parts)
    twice = [name for name, count in Counter(part.name for part in renamed).items() if count > 1]
    if twice:
        raise InputError(
            f"two parts would be called {twice[0]}", hint="choose another name in the policy"
        )
    return renamed


def _find(model: ir.Model, groups: Groups, needs: Needs) -> _Found:
    order = [node for node in model.graph if groups.data[node]]
    read_by = readers(needs)
    heads = roles.head(order, needs, read_by)
    towers: Members = defaultdict(list)
    fusion: set[ir.Node] = set()
    for node in order:
        label = groups.label(groups.data[node])
        if node in heads:
            continue
        if len(label) == 1:
            towers[label].append(node)
        else:
            fusion.add(node)
    if fusion:
        for label, nodes in list(towers.items()):
            go = {*fusion, *heads}
            moved = roles.leaks(nodes, go, needs, read_by)
            left = [node for node in nodes if node not in moved]
            if not any(kinds.weighted(node) or kinds.looks_up(node) for node in left):
                moved, left = set(nodes), []
            fusion |= moved
            towers[label] = left
        towers = {label: nodes for label, nodes in towers.items() if nodes}
    decoder, encoder = frozenset[int](), frozenset[int]()
    joined = [node for node in order if node in fusion]
    texts = {
        label: nodes
        for label, nodes in towers.items()
        if kinds.modality(groups.values(label), nodes) is Modality.TEXT
    }
    if (found := roles.decoder(model, groups, texts, joined)) is not None and (
        fusion or len(towers) == 1
    ):
        decoder, own = found, towers.pop(found)
        fusion.update(own)
        if len(towers) == 1 and any(map(kinds.weighted, own)):
            encoder = next(iter(towers))
    ends = {FUSION: fusion, HEAD: heads}
    members = dict(towers)
    for label, chosen in ends.items():
        if chosen:
            members[label] = [node for node in order if node in chosen]
    _place_rest(model, groups, members)
    return _Found(members, decoder, encoder)


def _place_rest(model: ir.Model, groups: Groups, members: Members) -> None:
    """Give outputs that depend on no data a part, and a part to a graph that has none."""
    makers = (value.producer() for value in model.graph.outputs)
    loose = [n for n in dict.fromkeys(makers) if n is not None and not groups.data[n]]
    if loose and members:
        next(iter(members.values())).extend(loose)
    if not members:
        members[frozenset()] = list(model.graph)


def _inputs(nodes: Sequence[ir.Node], needs: Needs) -> list[str]:
    """The values that a set of nodes reads from outside.

    Constants do not count; nodes without data of their own come along, so their inputs do.
    """
    inside = set(nodes)
    return list(
        dict.fromkeys(
            str(value.name)
            for node in nodes
            for value in needs[node]
            if value.producer() not in inside
        )
    )


def _modality(found: _Found, groups: Groups, label: Label, nodes: Sequence[ir.Node]) -> Modality:
    if label == FUSION:
        return Modality.TEXT if found.decoder else Modality.MIXED
    if label == HEAD:
        towers = {groups.label(groups.data[node]) for node in nodes}
        union = frozenset[int]().union(*towers)
        seen = [node for one, own in found.members.items() if one <= union for node in own]
        return kinds.modality(groups.values(union), seen) if len(union) == 1 else Modality.MIXED
    return kinds.modality(groups.values(label), nodes)


def _role(found: _Found, label: Label) -> str:
    if label == HEAD and len(found.members) > 1:
        return "picks boxes: "
    return "writes tokens: " if label == FUSION and found.decoder else ""


def _part(
    name: str,
    modality: Modality,
    nodes: list[ir.Node],
    inputs: Sequence[str],
    wanted: set[str],
    total: int,
) -> Part:
    size = weight_bytes(nodes)
    kind, reason = kinds.kind(nodes)
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


def _names(found: _Found, modalities: Mapping[Label, Modality]) -> dict[Label, str]:
    """vision, text, audio, fusion; numbered where there are several of one, `model` if alone."""
    alone = "model" if len(modalities) == 1 else "tower"
    plain = {Modality.MIXED: alone if len(modalities) == 1 else "fusion", Modality.UNKNOWN: alone}
    base = {label: plain.get(modality, str(modality)) for label, modality in modalities.items()}
    if found.decoder:
        base[FUSION] = "decoder"
    if found.encoder:
        base[found.encoder] = "encoder"
    if HEAD in base and len(base) > 1:
        base[HEAD] = "head"
    counts = Counter(base.values())
    seen: Counter[str] = Counter()
    names = {}
    for label, name in base.items():
        seen[name] += 1
        names[label] = name if counts[name] == 1 else f"{name}_{seen[name]}"
    return names
