"""Stage 2: rewrites that serve every target, after which each value's name is its canonical id."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

import onnx_ir as ir

from edgec.errors import EdgecError, InputError
from edgec.names import keep, snapshot
from edgec.rules import CANONICAL, Rule
from edgec.types import Graph, Range, Rewrite


def canonicalise(graph: Graph, shapes: Mapping[str, tuple[Range, ...]]) -> Graph:
    """Fix the dimensions that `shapes` fixes, then apply every canonical rule, in order.

    The model of `graph` is not changed. A rule that fails on this model is switched off for it, and
    says so. Raises InputError where `shapes` does not fit the inputs.
    """
    model = graph.model.clone()
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    _fix_shapes(model, shapes)
    rewrites = []
    for rule in CANONICAL:
        model, rewrite = _apply(rule, model)
        rewrites.append(rewrite)
    used = tuple(rewrite for rewrite in rewrites if rewrite.count or rewrite.failure)
    return replace(graph, model=model, shapes=dict(shapes), rewrites=used)


def _apply(rule: Rule, model: ir.Model) -> tuple[ir.Model, Rewrite]:
    """The rule's result, or the model as it was where the rule fails."""
    attempt, before = model.clone(), snapshot(model)
    try:
        count = rule.apply(attempt)
        keep(attempt, before)
        return attempt, Rewrite(rule.name, count)
    except EdgecError:
        raise
    except Exception as error:  # the passes of several libraries, each with errors of its own
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        return model, Rewrite(rule.name, 0, f"{type(cause).__name__} {cause}"[:300])


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
