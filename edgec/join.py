"""Stage 8: parts become engines. Parts of one backend and device share one unless told otherwise.

Two ONNX Runtime sessions in one process can run at half the speed of one, so a cut needs a reason:
another backend, another device, or the policy's `joining = "per-part"`.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edgec.errors import UnsupportedError
from edgec.graphs import extract
from edgec.types import Engine, Graph, Joining, Part, Plan, Target

WHOLE = "main"


def join(graph: Graph, plan: Plan, target: Target) -> tuple[Engine, ...]:
    """The float engines, in an order in which each finds its inputs made."""
    stack = target.stack
    if plan.joining is Joining.TOGETHER or len(plan.parts) == 1:
        model = graph.model.clone()
        weights = set(model.graph.initializers)
        return (
            Engine(
                name=WHOLE,
                backend=stack.backend,
                device=stack.device,
                parts=tuple(part.name for part in plan.parts),
                inputs=tuple(str(v.name) for v in model.graph.inputs if v.name not in weights),
                outputs=tuple(str(v.name) for v in model.graph.outputs),
                source=model,
                model=model,
            ),
        )
    return tuple(_engine(graph.model, part, target) for part in _ordered(plan.parts))


def _engine(model: ir.Model, part: Part, target: Target) -> Engine:
    piece = extract(model, part.inputs, part.outputs)
    weights = set(piece.graph.initializers)
    return Engine(
        name=part.name,
        backend=target.stack.backend,
        device=target.stack.device,
        parts=(part.name,),
        inputs=tuple(str(v.name) for v in piece.graph.inputs if v.name not in weights),
        outputs=part.outputs,
        source=piece,
        model=piece,
    )


def _ordered(parts: Sequence[Part]) -> list[Part]:
    """Parts so that each comes after those that make its inputs."""
    maker = {value: part.name for part in parts for value in part.outputs}
    done: set[str] = {""}  # what no part makes is there from the start
    ordered: list[Part] = []
    waiting = list(parts)
    while waiting:
        ready = next((p for p in waiting if all(maker.get(v, "") in done for v in p.inputs)), None)
        if ready is None:
            names = ", ".join(part.name for part in waiting)
            raise UnsupportedError(
                f"the parts {names} need each other's shapes: they cannot be engines of their own",
                hint='leave joining = "together", the default',
            )
        waiting.remove(ready)
        done.add(ready.name)
        ordered.append(ready)
    return ordered
