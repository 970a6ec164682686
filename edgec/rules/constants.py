"""f(constants) -> its value: shape arithmetic and Constant nodes become initialisers.

Q/DQ nodes and constants beyond 1 MB are left alone, so that a model does not grow.
"""

from __future__ import annotations

import logging

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer

NAME = "fold-constants"


def apply(model: ir.Model) -> int:
    """Fold constants; returns by how many nodes the graph shrank."""
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    before = model.graph.num_nodes()
    common.RemoveInitializersFromInputsPass()(model)
    optimizer.optimize(model, num_iterations=2, onnx_shape_inference=True, inline=False)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.LiftSubgraphInitializersToMainGraphPass()(model)
    return before - model.graph.num_nodes()
