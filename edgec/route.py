"""Which runtime (backend and device) each part is built for.

The table's figures give the first answer: one runtime for all parts, because a cut costs, except
where another promises much more for a part. A build that can measure tries each runtime alone, and
then the mix of what was fastest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import onnx_ir as ir

from edgec.able import unable_part
from edgec.errors import UnsupportedError
from edgec.policy import match
from edgec.results import Speed
from edgec.target_rows import COMPUTES
from edgec.types import Graph, Pace, Part, Policy, Runtime, Target

MUCH = 1.5  # times faster, by the table, that are worth a cut
GAIN = 1.1  # times faster, measured, that are worth a cut
Routes = Mapping[str, str]  # the name of the runtime, by part


def allowed(part: Part, graph: Graph, policy: Policy, target: Target) -> tuple[Runtime, ...]:
    """The runtimes that may run a part. Raises UnsupportedError where none is left."""
    wanted = wanted_runtime(part, policy)
    found = [one for one in target.runtimes if wanted in (None, one.name)]
    if not found:
        raise UnsupportedError(
            f"policy {policy.source}: part {part.name} is to run on {wanted}, which "
            f"{target.name} with stack {target.stack} does not have",
            hint=f"it has {', '.join(one.name for one in (*target.runtimes, *target.offloads))}",
        )
    loose = symbolic(part, graph) if any(one.static_shapes for one in found) else ""
    fits = [one for one in found if not (one.static_shapes and loose)]
    if not fits:
        names = ", ".join(one.name for one in found)
        raise UnsupportedError(
            f"part {part.name}: {names} takes fixed shapes only, and {loose}",
            hint="fix the shapes of the model's inputs, e.g. --shape image=1x3x224x224",
        )
    reasons = {one.name: unsuitable(part, graph, policy, target, one) for one in fits}
    if all(reasons.values()):
        told = "; ".join(f"not on {name}: {why}" for name, why in reasons.items())
        raise UnsupportedError(f"part {part.name}: {told}", hint=_way_out(part, policy, fits))
    return tuple(one for one in fits if not reasons[one.name])


def unsuitable(part: Part, graph: Graph, policy: Policy, target: Target, runtime: Runtime) -> str:
    """Why a part is not for a runtime, by the table and the policy; an empty text where it is.

    What the policy asks of a part, and one unit refuses, does not move to a unit that computes it
    slowly, unless the policy names that runtime too.
    """
    wish = match(policy.parts, part.name)
    if wish is not None and wish.scheme is not None:
        scheme = wish.scheme
        if scheme in runtime.refused and scheme not in runtime.instead:
            return f"{scheme} is not possible: {runtime.refused[scheme]}"
        pace = runtime.dtypes.get(COMPUTES.get(scheme, ""))
        moved = any(scheme in one.refused for one in target.runtimes)
        slow = pace is not None and pace.speed is Pace.SLOW
        if pace is not None and slow and moved and wanted_runtime(part, policy) is None:
            note = f": {pace.note}" if pace.note else ""
            known = f"{pace.confidence}: {pace.source}"
            return f"{scheme} is slower than float32 there{note} ({known})"
    return unable_part(part, graph, runtime)


def _way_out(part: Part, policy: Policy, runtimes: Sequence[Runtime]) -> str:
    """What a policy may say instead of what no runtime can do."""
    wish = match(policy.parts, part.name)
    if wish is None or wish.scheme is None:
        return "another target or stack may have these ops: edgec targets"
    best = ", or ".join(
        f"{step} on {one.name}"
        for one in runtimes
        if (step := one.ladders[part.kind].with_data[0]) is not wish.scheme
    )
    slow = [
        one.name
        for one in runtimes
        if (pace := one.dtypes.get(COMPUTES.get(wish.scheme, ""))) and pace.speed is Pace.SLOW
    ]
    forced = f'; runtime = "{slow[0]}" in the policy has {wish.scheme} all the same' if slow else ""
    return f"the best that is left is {best}{forced}"


def likely(
    parts: Sequence[Part], graph: Graph, policy: Policy, target: Target, *, data: bool
) -> Routes:
    """By the table alone."""
    open_to = {part.name: allowed(part, graph, policy, target) for part in parts}

    def speed(part: Part, runtime: Runtime) -> float:
        row = runtime.ladders[part.kind]
        first = (row.with_data if data else row.without_data)[0]
        return row.speed.get(first, 1.0)

    def total(runtime: Runtime) -> float:
        return sum((part.macs or 1) / speed(part, runtime) for part in parts)

    common = min(target.runtimes, key=total)
    routes = {}
    for part in parts:
        choice = open_to[part.name]
        best = max(choice, key=lambda one: speed(part, one))
        stays = common in choice and speed(part, best) < MUCH * speed(part, common)
        routes[part.name] = (common if stays or (common in choice and not part.macs) else best).name
    return routes


def alone(
    runtime: str, parts: Sequence[Part], graph: Graph, policy: Policy, target: Target
) -> Routes:
    """All parts on one runtime, but for those that may not run there."""
    routes = {}
    for part in parts:
        names = [one.name for one in allowed(part, graph, policy, target)]
        routes[part.name] = runtime if runtime in names else names[0]
    return routes


def mixed(parts: Sequence[Part], home: Routes, found: Mapping[str, Sequence[Speed]]) -> Routes:
    """Each part where it was measured fastest, by clearly more than at `home`.

    `found`: what was measured of parts on a runtime, by its name.
    """
    gains: dict[str, dict[str, float]] = {}
    for runtime, speeds in found.items():
        for one in speeds:
            gains.setdefault(one.part, {})[runtime] = one.gain.median
    routes = {}
    for part in parts:
        seen, common = gains.get(part.name, {}), home[part.name]
        best = max(seen, key=lambda name: seen[name], default=common)
        clear = seen.get(best, 1.0) > GAIN * seen.get(common, 0.0)
        routes[part.name] = best if clear and part.macs else common
    return routes


def wanted_runtime(part: Part, policy: Policy) -> str | None:
    """The runtime that a policy names for a part."""
    exact = [one for one in policy.parts if one.pattern == part.name]
    globs = [one for one in policy.parts if fnmatchcase(part.name, one.pattern)]
    return next((one.runtime for one in exact + globs if one.runtime), None)


def symbolic(part: Part, graph: Graph) -> str:
    """What is not fixed of the first of a part's inputs of which anything is not, or empty."""
    values = ir.convenience.create_value_mapping(graph.model.graph, include_subgraphs=False)
    for name in part.inputs:
        bounds, shape = graph.shapes.get(name, ()), values[name].shape
        if shape is None and not bounds:
            return f"the shape of {name} is unknown"
        for axis, dim in enumerate(shape if shape is not None else bounds):
            fixed = axis < len(bounds) and bounds[axis].low == bounds[axis].high
            if not isinstance(dim, int) and not fixed:
                return f"{name}[{axis}] is symbolic"
    return ""
