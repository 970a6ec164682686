"""What `edgec inspect` tells: parts with their sizes, what crosses, what a target lacks.

Nothing is built. The table speaks first, then the installed backend is asked (`edgec.ask`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import onnx_ir as ir

from edgec.able import unable, written_out
from edgec.ask import answers, asked_of, not_asked
from edgec.assign import assign
from edgec.canonicalise import canonicalise
from edgec.errors import UnsupportedError
from edgec.graphs import item_bytes, weight
from edgec.macs import REPEATED, Amount, dims, macs, number, product
from edgec.offload import with_offloads
from edgec.partition import partition, rename
from edgec.policy import check_policy
from edgec.types import Decision, Graph, Part, Policy, Range, Runtime, Scheme, Target

OUTSIDE = ""  # the end of a crossing that is the caller
DEFAULTS = Policy()
FLOATS = (Scheme.FLOAT32, Scheme.BFLOAT16, Scheme.FLOAT16)


class Level(StrEnum):
    """How far a target is from running a node in INT8."""

    CANNOT = "cannot run"
    LIMITS = "with limits"
    FLOAT = "float only"


@dataclass(frozen=True)
class Crossing:
    """A value on its way from one part to another; OUTSIDE is the caller's side.

    `size`: its bytes; None where its shape is not known.
    """

    name: str
    source: str
    sink: str
    dtype: str
    shape: tuple[int | str, ...] | None
    size: Amount | None


@dataclass(frozen=True)
class PartView:
    """A part, what it computes with one run, and of which operators it is made.

    `unknown`: the nodes whose multiply-accumulates cannot be known.
    """

    part: Part
    work: Amount
    unknown: tuple[str, ...]
    ops: Mapping[str, int]


@dataclass(frozen=True)
class Shortfall:
    """Nodes that a target cannot run, or not in INT8, for one reason; `work`: what they compute."""

    level: Level
    part: str
    op_type: str
    runtime: str
    nodes: tuple[str, ...]
    work: Amount
    reason: str
    evidence: str


@dataclass(frozen=True)
class Inspection:
    """All of it. `fixed`: the open dimensions that were taken as 1, by input, so that shapes are
    known; `notes`: what was not asked, and why.
    """

    graph: Graph
    parts: tuple[PartView, ...]
    crossings: tuple[Crossing, ...]
    fixed: tuple[str, ...] = ()
    target: Target | None = None
    shortfalls: tuple[Shortfall, ...] = ()
    notes: tuple[str, ...] = ()


def inspect(
    loaded: Graph,
    shapes: Mapping[str, tuple[Range, ...]],
    target: Target | None = None,
    *,
    policy: Policy = DEFAULTS,
    ask: bool = True,
) -> Inspection:
    """Look at a model as `load` gives it. `ask`: also the backend that is installed.

    Raises InputError where the policy names what the model does not have.
    """
    graph, fixed = _followed(loaded, shapes)
    parts = rename(partition(graph), policy.names)
    check_policy(policy, parts, [str(v.name) for node in graph.model.graph for v in node.outputs])
    nodes = {str(node.name): node for node in graph.model.graph}
    stated = _stated(graph.model)
    views = tuple(_view(part, [nodes[name] for name in part.nodes], stated) for part in parts)
    crossings = _crossings(graph, parts, stated)
    found = Inspection(graph, views, crossings, fixed)
    if target is None:
        return found
    target = with_offloads(target, parts, policy)
    shortfalls, notes = _shortfalls(graph, parts, target, policy, ask=ask)
    return Inspection(graph, views, crossings, fixed, target, shortfalls, notes)


def _followed(
    loaded: Graph, shapes: Mapping[str, tuple[Range, ...]]
) -> tuple[Graph, tuple[str, ...]]:
    """The canonical graph; with a batch of 1 where inference cannot follow an open one."""
    graph = canonicalise(loaded, shapes)
    stated = _stated(graph.model)
    if not _work(list(graph.model.graph), stated)[1]:
        return graph, ()
    weights = set(graph.model.graph.initializers)
    inputs = [v for v in graph.model.graph.inputs if v.name not in weights]
    batches = [
        str(v.name)
        for v in inputs
        if v.shape and not isinstance(v.shape[0], int) and str(v.name) not in shapes
    ]
    if not batches:
        return graph, ()
    fixed = canonicalise(_with_batch(loaded, batches), shapes)
    return fixed, tuple(batches)


def _with_batch(loaded: Graph, names: Sequence[str]) -> Graph:
    """A copy of a graph whose named inputs have 1 as their first dimension, by its name too."""
    model = loaded.model.clone()
    inputs = [value for value in model.graph.inputs if value.name in names]
    ones = {str(value.shape[0]) for value in inputs if value.shape}
    for value in model.graph.inputs:
        if value.shape is not None:
            value.shape = ir.Shape(
                [
                    1 if (axis == 0 and value in inputs) or str(dim) in ones else dim
                    for axis, dim in enumerate(value.shape)
                ]
            )
    for output in model.graph.outputs:  # they follow from the inputs
        output.shape = None
    return replace(loaded, model=model)


def _stated(model: ir.Model) -> frozenset[str]:
    """The open dimensions of the inputs: what a caller chooses, and can be asked for."""
    dims = [dim for value in model.graph.inputs for dim in value.shape or ()]
    return frozenset(str(dim) for dim in dims if not isinstance(dim, int))


def _follows(symbol: str, stated: frozenset[str]) -> bool:
    """Whether a dimension is one of the inputs', or an expression of such, and not invented."""
    return symbol in stated or set(re.findall(r"[A-Za-z_][\w.]*", symbol)) <= stated


def _work(nodes: Sequence[ir.Node], stated: frozenset[str]) -> tuple[Amount, tuple[str, ...]]:
    """The sum over nodes, and those of which the work does not follow from the inputs' sizes."""
    found, unknown = Amount(), []
    for node in nodes:
        one = macs(node)
        loops = (symbol for symbol in (one or Amount()).symbols if not symbol.startswith(REPEATED))
        if one is None or not all(_follows(symbol, stated) for symbol in loops):
            unknown.append(str(node.name))
        else:
            found += one
    return found, tuple(unknown)


def _view(part: Part, nodes: Sequence[ir.Node], stated: frozenset[str]) -> PartView:
    work, unknown = _work(nodes, stated)
    ops = Counter(_operator(node) for node in nodes)
    return PartView(part, work, unknown, dict(ops.most_common()))


def _operator(node: ir.Node) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def _crossings(graph: Graph, parts: Sequence[Part], stated: frozenset[str]) -> tuple[Crossing, ...]:
    values = ir.convenience.create_value_mapping(graph.model.graph, include_subgraphs=False)
    maker = {name: part.name for part in parts for name in part.outputs}
    found = [
        _crossing(values[name], maker.get(name, OUTSIDE), part.name, stated)
        for part in parts
        for name in part.inputs
    ]
    for output in graph.model.graph.outputs:
        name = str(output.name)
        if name in maker:
            found.append(_crossing(output, maker[name], OUTSIDE, stated))
    return tuple(found)


def _crossing(value: ir.Value, source: str, sink: str, stated: frozenset[str]) -> Crossing:
    sizes = dims(value)
    shape = None
    if value.shape is not None:
        named = [dim if isinstance(dim, int) else str(dim.value) for dim in value.shape]
        shape = tuple(
            dim if isinstance(dim, int) or _follows(dim, stated) else "?" for dim in named
        )
    size = None
    if value.dtype is not None and sizes is not None:
        size = product(sizes) * number(max(int(item_bytes(value.dtype)), 1))
        if not all(_follows(symbol, stated) for symbol in size.symbols):
            size = None
    dtype = "unknown" if value.dtype is None else value.dtype.name.lower()
    return Crossing(str(value.name), source, sink, dtype, shape, size)


def _shortfalls(
    graph: Graph, parts: Sequence[Part], target: Target, policy: Policy, *, ask: bool
) -> tuple[tuple[Shortfall, ...], tuple[str, ...]]:
    """What the target cannot run, as its plan with data and this policy would have it."""
    nodes = {str(node.name): node for node in graph.model.graph}
    stated = _stated(graph.model)
    try:
        plan = assign(graph, parts, policy, target, data=True)
        homes, decisions, schemes = plan.runtimes, plan.decisions, plan.schemes
        notes = []
    except UnsupportedError as error:
        homes = {part.name: target.runtimes[0].name for part in parts}
        decisions, schemes = {}, {}
        notes = [f"there is no plan for it as it stands: {error.message}"]
    found: dict[tuple[Level, str, str, str, str, str], list[str]] = {}
    for part in parts:
        runtime = target.runtime(homes[part.name])
        refused = _refused(graph, part, nodes, runtime, ask)
        for name in part.nodes:
            node = nodes[name]
            verdict = refused.get(name) or _in_float(
                node, decisions.get(name), schemes.get(part.name)
            )
            if verdict is not None:
                level, reason, evidence = verdict
                key = (level, part.name, _operator(node), runtime.name, reason, evidence)
                found.setdefault(key, []).append(name)
        if ask and (why := not_asked(runtime) or asked_of(runtime)) not in notes:
            notes.append(why)
    order = list(Level)
    made = [
        Shortfall(
            level=level,
            part=part_name,
            op_type=op_type,
            runtime=where,
            nodes=tuple(names),
            work=_work([nodes[name] for name in names], stated)[0],
            reason=reason,
            evidence=evidence,
        )
        for (level, part_name, op_type, where, reason, evidence), names in found.items()
    ]
    made.sort(key=lambda one: (order.index(one.level), -one.work.per_unit))
    return tuple(made), tuple(notes)


Verdict = tuple[Level, str, str]


def _refused(
    graph: Graph, part: Part, nodes: Mapping[str, ir.Node], runtime: Runtime, ask: bool
) -> dict[str, Verdict]:
    """Nodes that the runtime does not take at all, or only with limits."""
    found: dict[str, Verdict] = {}
    own = [nodes[name] for name in part.nodes]
    for node in own:
        row = f"{runtime.name}, the table"
        if why := unable(node, runtime):
            found[str(node.name)] = (Level.CANNOT, why, row)
        elif why := written_out(node, runtime):
            found[str(node.name)] = (Level.LIMITS, f"written out in simpler ops: {why}", row)
    if runtime.static_shapes:
        table = f"{runtime.name} ({runtime.confidence}: {runtime.source})"
        for node in own:
            open_dims = _open(node)
            if open_dims:
                reason = f"fixed shapes only, and {', '.join(open_dims)} is open: give --shape"
                found.setdefault(str(node.name), (Level.LIMITS, reason, table))
    if ask:
        for answer in answers(graph.model, own, runtime):
            if answer.reason:
                for name in answer.nodes:
                    found[name] = (Level.CANNOT, answer.reason, answer.evidence)
    return found


def _open(node: ir.Node) -> list[str]:
    """The open dimensions of what a node makes."""
    shapes = [value.shape for value in node.outputs if value.name]
    names = [str(dim) for shape in shapes for dim in shape or () if not isinstance(dim, int)]
    return list(
        dict.fromkeys(names if all(shape is not None for shape in shapes) else ["its rank"])
    )


def _in_float(node: ir.Node, decision: Decision | None, scheme: Scheme | None) -> Verdict | None:
    """Nodes with work that stay in float where their part is INT8, with the plan's reason."""
    if decision is None or scheme in FLOATS or decision.scheme not in FLOATS:
        return None
    if weight(node) is None and not macs(node):
        return None
    return Level.FLOAT, decision.reason, decision.evidence
