"""f(constants) -> its value: shape arithmetic and Constant nodes become initialisers.

Q/DQ nodes, weights that are stored as INT8 and cast to float, and results beyond 1 MB are left
alone, so that a model does not grow; what only moves a weight is folded at any size. A result is
judged by its inferred shape before it is computed: Expand, Tile or Range of a few bytes may ask for
terabytes.
"""

from __future__ import annotations

import logging
import math

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer

from edgec.graphs import is_constant, is_long, item_bytes

NAME = "fold-constants"
ROUNDS = 2  # what the first round folds lets shapes be known, which lets more be folded
MOVES = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity"})
GROW = frozenset(
    {"Expand", "Tile", "Range", "ConstantOfShape", "OneHot", "Pad", "Resize", "Upsample", "EyeLike"}
)  # what may be larger than all that goes in
MOST_BYTES = 1 << 20  # of a result
SMALL = frozenset({ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT4, ir.DataType.UINT4})


def apply(model: ir.Model) -> int:
    """Fold constants; returns by how many nodes the graph shrank."""
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    before = model.graph.num_nodes()
    common.RemoveInitializersFromInputsPass()(model)
    for _ in range(ROUNDS):
        optimizer.fold_constants(model, onnx_shape_inference=True, should_fold=_should_fold)
        common.RemoveUnusedNodesPass()(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.LiftSubgraphInitializersToMainGraphPass()(model)
    return before - model.graph.num_nodes()


def _should_fold(node: ir.Node) -> bool | None:
    """True for what only moves a weight, of any size, False for the Cast of a small weight.

    False also for texts, of which onnxscript makes tensors that cannot be written, and where the
    result may be too large; None leaves it to the optimizer's own rules.
    """
    if any(value is not None and value.dtype == ir.DataType.STRING for value in node.inputs):
        return False
    if node.op_type in MOVES and all(v is None or is_constant(v) for v in node.inputs):
        return True
    value = node.inputs[0] if node.op_type == "Cast" else None
    widens = value is not None and value.dtype in SMALL and is_constant(value)
    if widens and node.outputs[0].dtype not in SMALL:
        return False
    return False if any(_is_large(node, value) for value in node.outputs) else None


def _is_large(node: ir.Node, value: ir.Value) -> bool:
    """Whether a result takes too much memory, or its size is unknown and may be anything."""
    sizes = None if value.shape is None else [d for d in value.shape if isinstance(d, int)]
    if value.shape is None or value.dtype is None or len(sizes or ()) < len(value.shape):
        return is_long(node) if node.op_type == "Range" else node.op_type in GROW
    size = item_bytes(value.dtype)
    return math.prod(sizes or ()) * size > MOST_BYTES
