"""Stage 7: rewrite the decided nodes of an engine into their INT8 forms, in the target's grid.

Each scheme is one module. Values keep their canonical ids: what a consumer outside reads still has
the name that it had, and is float.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
from onnx_ir.passes import common

from edgec.moments import Moments
from edgec.placement import place
from edgec.quantize import dynamic, static, weight_only
from edgec.quantize.rounding import NONE, Rounding
from edgec.types import Decision, Recovery, Runtime, Scheme, Statistics


def quantize(
    model: ir.Model,
    decisions: Mapping[str, Decision],
    statistics: Statistics,
    recovery: Mapping[str, Recovery],
    runtime: Runtime,
    moments: Moments = NONE,
) -> ir.Model:
    """A quantized copy of `model`, for one runtime; weights that stay float are shared with it.

    `recovery`: by part. `moments`: of nodes' inputs, see `edgec.moments`; where they are missing,
    weights are rounded to nearest.
    """
    placement = place(model, decisions, runtime)
    model = model.clone()
    rounding = Rounding(model, moments, _wanted(moments, decisions, recovery), runtime.grid)
    by_scheme: dict[Scheme, list[ir.Node]] = {}
    for node in model.graph:
        found = decisions.get(str(node.name))
        if found is not None:
            by_scheme.setdefault(found.scheme, []).append(node)
    dynamic_nodes = by_scheme.get(Scheme.INT8_DYNAMIC, [])
    weights = by_scheme.get(Scheme.INT8_WEIGHT_ONLY, [])
    if runtime.compressed_dynamic:
        weights, dynamic_nodes = weights + dynamic_nodes, []
    weight_only.apply(model, weights, decisions, statistics, recovery, runtime.grid, rounding)
    dynamic.apply(model, dynamic_nodes, decisions, statistics, recovery, rounding)
    nodes = by_scheme.get(Scheme.INT8_STATIC, [])
    grid = runtime.grid
    static.apply(model, nodes, placement, decisions, statistics, recovery, grid, rounding)
    common.RemoveUnusedNodesPass()(model)
    model.graph.sort()
    return model


def _wanted(
    moments: Moments, decisions: Mapping[str, Decision], recovery: Mapping[str, Recovery]
) -> frozenset[str]:
    """The nodes whose weights are rounded by moments."""
    parts = {part for part, one in recovery.items() if one.gptq}
    return frozenset(n for n in moments if n in decisions and decisions[n].part in parts)
