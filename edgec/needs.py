"""What calibration may be asked for by any plan that a build for a target can come to.

A build tries several runtimes and steps down their ladders. Watching all that they may need in one
pass costs less than a pass for each, and the statistics then serve every later build. Where a
backend disobeys on a node, its neighbours may need values that no ladder does: a trial then watches
these in a pass of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import onnx_ir as ir

from edgec.assign import assign, decide
from edgec.graphs import is_constant
from edgec.placement import place
from edgec.route import alone
from edgec.types import Graph, Part, Placement, Plan, Policy, Target


def needs(graph: Graph, parts: tuple[Part, ...], policy: Policy, target: Target) -> Placement:
    """The union of what the schemes of all runtimes need; where Q/DQ go stays with each plan."""
    found = [
        place(graph.model, plan.decisions, runtime)
        for plan in _plans(graph, parts, policy, target)
        for runtime in target.runtimes
        if runtime.name in plan.runtimes.values()
    ]
    return union(found)


def every_value(graph: Graph) -> Placement:
    """All float values between nodes, inputs included: TensorRT's cache wants a scale for each."""
    inputs = [v for v in graph.model.graph.inputs if v.name not in graph.model.graph.initializers]
    made = [v for node in graph.model.graph for v in node.outputs if not is_constant(v)]
    names = {str(v.name) for v in (*inputs, *made) if v.dtype == ir.DataType.FLOAT}
    nothing = frozenset[str]()
    return Placement(frozenset(names), {}, nothing, nothing, nothing)


def union(places: Iterable[Placement]) -> Placement:
    """All that some of the placements need."""
    places = list(places)
    return Placement(
        values=frozenset().union(*(one.values for one in places)),
        follows={},
        absorbed=frozenset(),
        means=frozenset().union(*(one.means for one in places)),
        extents=frozenset().union(*(one.extents for one in places)),
    )


def _plans(graph: Graph, parts: tuple[Part, ...], policy: Policy, target: Target) -> Iterator[Plan]:
    """Each runtime alone, with every part on each step of its ladder."""
    for runtime in target.runtimes:
        routes = alone(runtime.name, parts, graph, policy, target)
        plan = assign(graph, parts, policy, target, data=True, routes=routes)
        steps = {part.name: (plan.schemes[part.name], *plan.ladders[part.name]) for part in parts}
        for depth in range(max((len(one) for one in steps.values()), default=0)):
            schemes = {name: one[min(depth, len(one) - 1)] for name, one in steps.items()}
            yield decide(graph, replace(plan, schemes=schemes), policy, target, data=True)
