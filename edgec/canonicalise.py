"""Stage 2: rewrites that serve every target, after which each value's name is its canonical id.

A rewrite that fails on a model is switched off for it: here where it raises, by `edgec.prove` where
what it makes computes something else.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from edgec.errors import EdgecError, InputError
from edgec.graphs import hidden
from edgec.names import keep, snapshot
from edgec.rules import CANONICAL, Rule
from edgec.sizes import check_sizes
from edgec.types import Graph, Range, Rewrite


def canonicalise(
    graph: Graph,
    shapes: Mapping[str, tuple[Range, ...]],
    off: Sequence[Rewrite] = (),
    rules: Sequence[Rule] | None = None,
) -> Graph:
    """Fix the dimensions that `shapes` fixes, then apply every canonical rule, in order.

    The model of `graph` is not changed. `off`: rules that were found to fail on it, everywhere or
    at named nodes. A rule that raises is switched off, and says so. Raises InputError where
    `shapes` does not fit the inputs, or the inputs' sizes do not fit the model.
    """
    model = graph.model.clone()
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    _fix_shapes(model, shapes)
    check_sizes(model)
    model, used = rewrite(model, CANONICAL if rules is None else rules, off)
    return replace(graph, model=model, shapes=dict(shapes), rewrites=used)


def rewrite(
    model: ir.Model, rules: Sequence[Rule], off: Sequence[Rewrite] = ()
) -> tuple[ir.Model, tuple[Rewrite, ...]]:
    """What rules make of a model, in order, and those that did or failed; it is not changed.

    A rule that raises may leave a graph half changed: all then begin anew, without it. Copies that
    would be kept for that, one a rule, cost more than the rules do.
    """
    known = {one.rule: one for one in off}
    while True:
        attempt, done = model.clone(), []
        for rule in rules:
            stated = known.get(rule.name)
            if stated is not None and not stated.nodes:
                done.append(replace(stated, count=0))
                continue
            try:
                done.append(_apply(rule, attempt, stated))
            except EdgecError:
                raise
            except Exception as error:  # the passes of several libraries, with errors of their own
                known[rule.name] = Rewrite(rule.name, 0, _cause(error))
                break
        else:
            return attempt, tuple(one for one in done if one.count or one.failure)


def in_order() -> tuple[Rule, ...]:
    """The rules that are applied."""
    return CANONICAL


def _apply(rule: Rule, model: ir.Model, off: Rewrite | None) -> Rewrite:
    """Apply a rule in place, but at the nodes at which it is off."""
    before, inner = snapshot(model), _inside(model)
    names = () if off is None else off.nodes
    with hidden(model, [node for node in model.graph if node.name in names]):
        count = rule.apply(model) or len(_inside(model) ^ inner)
    keep(model, before)
    return Rewrite(rule.name, count) if off is None else replace(off, count=count)


def _inside(model: ir.Model) -> set[ir.Node]:
    """The nodes of bodies, which not every rule counts."""
    return {node for graph in model.graph.subgraphs() for node in graph}


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__} {error}"[:300]


def _fix_shapes(model: ir.Model, shapes: Mapping[str, tuple[Range, ...]]) -> None:
    weights = set(model.graph.initializers)
    inputs = {str(v.name): v for v in model.graph.inputs if v.name not in weights}
    for name, ranges in shapes.items():
        if name not in inputs:
            raise InputError(
                f"--shape {name}: the model has no such input",
                hint="its inputs are " + ", ".join(sorted(inputs)),
            )
        shape = inputs[name].shape
        dims: list[object] = list(shape) if shape is not None else [None] * len(ranges)
        if len(dims) != len(ranges):
            raise InputError(
                f"--shape {name}: {len(ranges)} dimensions given, the model has {len(dims)}",
                hint=f"the model's shape is {_text(dims)}",
            )
        for axis, bounds in enumerate(ranges):
            dim = dims[axis]
            if isinstance(dim, int) and not bounds.low <= dim <= bounds.high:
                raise InputError(
                    f"--shape {name}: dimension {axis} is {dim} in the model",
                    hint=f"the model's shape is {_text(dims)}; a fixed dimension cannot change",
                )
            if bounds.low == bounds.high:
                dims[axis] = bounds.low
            elif not isinstance(dim, int) and str(dim) in ("None", ""):
                dims[axis] = f"{name}_{axis}"
        inputs[name].shape = ir.Shape([d if isinstance(d, int) else str(d) for d in dims])


def _text(dims: list[object]) -> str:
    return "x".join(str(dim) for dim in dims)
