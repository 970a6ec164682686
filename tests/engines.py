"""Engines of small graphs: observed by numpy, quantized, lowered, and emitted by a backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import small

from edgec.assign import assign
from edgec.backends import backend
from edgec.histogram import count
from edgec.join import join
from edgec.lower import lower
from edgec.partition import partition
from edgec.placement import place
from edgec.quantize import quantize
from edgec.results import Artifact, Engine
from edgec.runtime.openers import opener
from edgec.tune import plain
from edgec.types import (
    Graph,
    Override,
    Plan,
    Policy,
    Recovery,
    Runtime,
    Scheme,
    Statistics,
    Target,
    ValueStatistics,
)

Feeds = Mapping[str, np.ndarray]


def everywhere(scheme: Scheme) -> Policy:
    """A policy that asks for one scheme in every part."""
    return Policy(parts=(Override("*", scheme),))


def recovered(plan: Plan, **changes: Any) -> dict[str, Recovery]:
    """What is done to every part where nothing is tried, with `changes`."""
    return {name: replace(plain(one), **changes) for name, one in plan.recovery.items()}


def seen(
    found: Graph,
    plan: Plan,
    runtime: Runtime,
    feeds: Sequence[Feeds],
    *,
    histograms: bool = False,
) -> Statistics:
    """Statistics by numpy, over the float graph."""
    need = place(found.model, plan.decisions, runtime)
    inputs = {v.name for v in found.model.graph.inputs}
    names = sorted(need.values | need.means | need.extents)
    made = [name for name in names if name not in inputs]
    model = small.exposed(found.model, made)
    runs = [{**one, **(small.run(model, one) if made else {})} for one in feeds]
    values = {}
    for name in names:
        arrays = [run[name] for run in runs]
        axes = tuple(i for i in range(arrays[0].ndim) if i != 1)
        means = [a.mean(axis=axes) for a in arrays] if name in need.means else []
        flat = [a.reshape(-1, a.shape[-1]) for a in arrays] if name in need.extents else []
        values[name] = ValueStatistics(
            low=float(min(a.min() for a in arrays)),
            high=float(max(a.max() for a in arrays)),
            seen=len(runs),
            mean_low=float(np.mean([a.min() for a in arrays])),
            mean_high=float(np.mean([a.max() for a in arrays])),
            histogram=count(np.concatenate([a.ravel() for a in arrays])) if histograms else None,
            channel_mean=np.mean(means, axis=0) if means else None,
            channel_low=np.concatenate(flat).min(axis=0) if flat else None,
            channel_high=np.concatenate(flat).max(axis=0) if flat else None,
        )
    return Statistics(values, tuple(map(str, range(len(runs)))))


def engine(
    found: Graph,
    target: str,
    feeds: Sequence[Feeds],
    policy: Policy | None = None,
    name: str = "onnxruntime",
) -> tuple[Engine, Plan]:
    """The one engine of a graph on backend `name`, quantized on `feeds`; none: without data."""
    return engine_for(found, small.target(target, name), feeds, policy)


def engine_for(
    found: Graph, row: Target, feeds: Sequence[Feeds], policy: Policy | None = None
) -> tuple[Engine, Plan]:
    """The same for a target with one runtime."""
    (runtime,) = row.runtimes
    plan = assign(found, partition(found), policy or Policy(), row, data=bool(feeds))
    statistics = seen(found, plan, runtime, feeds) if feeds else Statistics()
    (joined,) = join(found, plan, row)
    model = quantize(joined.source, plan.decisions, statistics, recovered(plan), runtime)
    return replace(joined, model=lower(model, runtime)), plan


def emit(made: Engine, plan: Plan, into: Path) -> Artifact:
    return backend(made.runtime.backend).emit(made, plan.decisions, into, 1)


def run(artifact: Artifact, feeds: Feeds, path: Path | None = None) -> dict[str, np.ndarray]:
    """Run an artifact as a device does, or a part that was cut out of it, on two threads."""
    session = opener(artifact.backend)(path or artifact.path, {**artifact.settings, "threads": 2})
    try:
        return session.run({name: np.ascontiguousarray(array) for name, array in feeds.items()})
    finally:
        session.close()
