"""Stage 8: parts become engines. Parts of one runtime share one unless told otherwise.

Two ONNX Runtime sessions in one process can run at half the speed of one, so a cut needs a reason:
another backend or device, another precision of the float ops, more weights than an engine may hold,
or `joining = "per-part"`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

from edgec.errors import UnsupportedError
from edgec.fit import room
from edgec.graphs import extract, reads
from edgec.results import Engine
from edgec.types import Graph, Joining, Part, Plan, Scheme, Target

WHOLE = "main"
PRECISIONS = (Scheme.BFLOAT16, Scheme.FLOAT16)  # what a whole engine computes with
Home = tuple[str, Scheme]  # where a part belongs: a runtime, and a precision


def join(graph: Graph, plan: Plan, target: Target) -> tuple[Engine, ...]:
    """The float engines, in an order in which each finds its inputs made."""
    homes = {part.name: _home(plan, part, target) for part in plan.parts}
    alone = plan.joining is Joining.TOGETHER and len(set(homes.values())) == 1
    if alone and _holds(plan.parts, homes, target):
        name, precision = next(iter(homes.values()))
        model = graph.model.clone()
        weights = set(model.graph.initializers)
        return (
            Engine(
                name=WHOLE,
                target=target,
                runtime=target.runtime(name),
                precision=precision,
                half=_half(plan, plan.parts, precision),
                parts=tuple(part.name for part in plan.parts),
                inputs=tuple(str(v.name) for v in model.graph.inputs if v.name not in weights),
                outputs=tuple(str(v.name) for v in model.graph.outputs),
                source=model,
                model=model,
            ),
        )
    groups: list[list[Part]] = []
    for part in _ordered(plan.parts, homes):
        together = plan.joining is Joining.TOGETHER and groups
        same = together and homes[groups[-1][0].name] == homes[part.name]
        if same and _holds([*groups[-1], part], homes, target):
            groups[-1].append(part)
        else:
            groups.append([part])
    given = [str(value.name) for value in graph.model.graph.outputs]
    return tuple(
        _engine(graph, plan, group, homes[group[0].name], given, target) for group in groups
    )


def _home(plan: Plan, part: Part, target: Target) -> Home:
    """Float parts keep their scheme's precision; what INT8 leaves over has the runtime's."""
    runtime = target.runtime(plan.runtimes[part.name])
    scheme = plan.schemes[part.name]
    if scheme in PRECISIONS:
        return runtime.name, scheme
    plain = scheme in (Scheme.FLOAT32, Scheme.KEPT) and runtime.precision is not Scheme.FLOAT16
    return runtime.name, Scheme.FLOAT32 if plain else runtime.precision


def _holds(parts: Sequence[Part], homes: Mapping[str, Home], target: Target) -> bool:
    """Whether one engine has the memory for parts of one home."""
    most = room(target.runtime(homes[parts[0].name][0]), target)
    return not most or len(parts) == 1 or sum(part.weight_bytes for part in parts) <= most


def _engine(
    graph: Graph,
    plan: Plan,
    group: Sequence[Part],
    home: Home,
    given: Sequence[str],
    target: Target,
) -> Engine:
    """Neighbours in one engine: what they make for others, or for the outside."""
    inside = {value for part in group for value in part.outputs}
    nodes = {name for part in group for name in part.nodes}
    inputs = dict.fromkeys(v for part in group for v in part.inputs if v not in inside)
    outputs = [value for part in group for value in part.outputs]
    if len(group) > 1:
        read = {
            str(value.name)
            for node in graph.model.graph
            if str(node.name) not in nodes
            for value in reads(node)
        }
        outputs = [value for value in outputs if value in read or value in given]
    piece = extract(graph.model, list(inputs), outputs)
    weights = set(piece.graph.initializers)
    return Engine(
        name="-".join(part.name for part in group),
        target=target,
        runtime=target.runtime(home[0]),
        precision=home[1],
        half=_half(plan, group, home[1]),
        parts=tuple(part.name for part in group),
        inputs=tuple(str(v.name) for v in piece.graph.inputs if v.name not in weights),
        outputs=tuple(outputs),
        source=piece,
        model=piece,
    )


def _half(plan: Plan, parts: Sequence[Part], precision: Scheme) -> bool:
    """Whether 16 bits hold all weights: none belongs to a grid of INT8."""
    return precision in PRECISIONS and all(plan.schemes[part.name] in PRECISIONS for part in parts)


def _ordered(parts: Sequence[Part], homes: Mapping[str, Home]) -> list[Part]:
    """Parts so that each comes after those that make its inputs, in the fewest runs of one home.

    Breadth first over the homes of the next run. A run takes all that it can, which never costs a
    later one; so the first order that is complete has the fewest.
    """
    able = _run([], parts, parts)
    if len(able) < len(parts):
        waiting = ", ".join(part.name for part in parts if part not in able)
        raise UnsupportedError(
            f"the parts {waiting} need each other's shapes: they cannot be engines of their own",
            hint='leave joining = "together", the default, and all parts on one runtime',
        )
    groups = {home: [p for p in parts if homes[p.name] == home] for home in homes.values()}
    orders: list[list[Part]] = [[]]
    seen: set[frozenset[str]] = set()
    while not (whole := [order for order in orders if len(order) == len(parts)]):
        found = []
        for order, own in product(orders, groups.values()):
            longer = [*order, *_run(order, own, parts)]
            names = frozenset(part.name for part in longer)
            if names not in seen:
                found.append(longer)
            seen.add(names)
        orders = found
    return whole[0]


def _run(before: Sequence[Part], own: Sequence[Part], parts: Sequence[Part]) -> list[Part]:
    """All parts of `own` that can follow on those `before`, each after the makers of its inputs."""
    maker = {value: part.name for part in parts for value in part.outputs}
    done = {"", *(part.name for part in before)}  # what no part makes is there from the start
    run: list[Part] = []
    waiting = [part for part in own if part.name not in done]
    while ready := [p for p in waiting if all(maker.get(v, "") in done for v in p.inputs)]:
        run.append(ready[0])
        done.add(ready[0].name)
        waiting.remove(ready[0])
    return run
