"""Stage 7: rewrite the decided nodes of an engine into their INT8 forms, in the target's grid.

Each scheme is one module. Values keep their canonical ids: what a consumer outside reads still has
the name that it had, and is float.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
from onnx_ir.passes import common

from edgec.placement import place
from edgec.quantize import dynamic, static, weight_only
from edgec.types import Decision, Method, Scheme, Statistics, Target


def quantize(
    model: ir.Model,
    decisions: Mapping[str, Decision],
    statistics: Statistics,
    methods: Mapping[str, Method],
    target: Target,
) -> ir.Model:
    """A quantized copy of `model`; weights that stay float are shared with it."""
    placement = place(model, decisions, target)
    model = model.clone()
    by_scheme: dict[Scheme, list[ir.Node]] = {}
    for node in model.graph:
        found = decisions.get(str(node.name))
        if found is not None:
            by_scheme.setdefault(found.scheme, []).append(node)
    weight_only.apply(model, by_scheme.get(Scheme.INT8_WEIGHT_ONLY, []), statistics, target.grid)
    dynamic.apply(model, by_scheme.get(Scheme.INT8_DYNAMIC, []), statistics, target.grid)
    static.apply(
        model,
        by_scheme.get(Scheme.INT8_STATIC, []),
        placement,
        decisions,
        statistics,
        methods,
        target,
    )
    common.RemoveUnusedNodesPass()(model)
    model.graph.sort()
    return model
