"""Accelerators beside a stack (a DLA): what they could take, and what a policy puts there.

No part goes there by itself: what it gains is not known without a measurement on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgec.able import pieces
from edgec.errors import UnsupportedError
from edgec.route import symbolic, wanted_runtime
from edgec.types import Graph, Part, Policy, Runtime, Target


def with_offloads(target: Target, parts: Sequence[Part], policy: Policy) -> Target:
    """The target with the accelerators that a policy names among its runtimes.

    Raises UnsupportedError where more parts are to go there than the accelerator takes.
    """
    found = []
    for one in target.offloads:
        wished = [part.name for part in parts if wanted_runtime(part, policy) == one.name]
        most = one.limits.loadables * _cores(one, target)
        if most and len(wished) > most:
            raise UnsupportedError(
                f"policy {policy.source}: {len(wished)} parts are to run on {one.name}, which "
                f"takes {most} ({one.limits.confidence}: {one.limits.source})",
                hint="leave some of them on another runtime",
            )
        if wished:
            found.append(one)
    return replace(target, runtimes=(*target.runtimes, *found))


def offers(part: Part, graph: Graph, target: Target) -> tuple[str, ...]:
    """For each accelerator: whether it could take a part, and if not, why."""
    return tuple(f"{one.name}: {_offer(part, graph, one)}" for one in target.offloads)


def _offer(part: Part, graph: Graph, runtime: Runtime) -> str:
    fine, runs, why = pieces(part, graph, runtime)
    count = len(part.nodes)
    if fine == count:
        loose = symbolic(part, graph) if runtime.static_shapes else ""
        if loose:
            return f"it takes fixed shapes only, and {loose}"
        return f'could take {part.name} whole, as one loadable: runtime = "{runtime.name}"'
    told = f"cannot take {part.name} whole: {why}"
    if not fine:
        return told
    most = runtime.limits.loadables
    room = f", of {most} that it has room for" if most else ""
    return f"{told}; {fine} of {count} nodes could run there, in {runs} loadables{room}"


def _cores(runtime: Runtime, target: Target) -> int:
    unit = target.hardware.get(runtime.device)
    found = 1 if unit is None else unit.facts.get("count", 1)
    return found if isinstance(found, int) else 1
