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
from edgec.quantize.rounding import NONE, Moments, Rounding
from edgec.types import Decision, Method, Runtime, Scheme, Statistics


def quantize(
    model: ir.Model,
    decisions: Mapping[str, Decision],
    statistics: Statistics,
    methods: Mapping[str, Method],
    runtime: Runtime,
    moments: Moments = NONE,
) -> ir.Model:
    """A quantized copy of `model`, for one runtime; weights that stay float are shared with it.

    `moments`: of nodes' inputs, see `edgec.moments`; weights are rounded to nearest without them.
    """
    placement = place(model, decisions, runtime)
    model = model.clone()
    rounding = Rounding(model, moments, runtime.grid)
    by_scheme: dict[Scheme, list[ir.Node]] = {}
    for node in model.graph:
        found = decisions.get(str(node.name))
        if found is not None:
            by_scheme.setdefault(found.scheme, []).append(node)
    dynamic_nodes = by_scheme.get(Scheme.INT8_DYNAMIC, [])
    weights = by_scheme.get(Scheme.INT8_WEIGHT_ONLY, [])
    if runtime.compressed_dynamic:
        weights, dynamic_nodes = weights + dynamic_nodes, []
    weight_only.apply(model, weights, statistics, runtime.grid, rounding)
    dynamic.apply(model, dynamic_nodes, statistics, rounding)
    nodes = by_scheme.get(Scheme.INT8_STATIC, [])
    static.apply(model, nodes, placement, decisions, statistics, methods, runtime.grid, rounding)
    common.RemoveUnusedNodesPass()(model)
    model.graph.sort()
    return model
