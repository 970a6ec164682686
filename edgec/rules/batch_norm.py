"""BatchNormalization(Conv(x, W, b)) -> Conv(x, W g/s, (b - m) g/s + beta), s = sqrt(var + eps).

The same for ConvTranspose and Gemm. The rewrites are onnxscript's; ranges then fall after the
activation, where they belong. The folded node keeps its name, by which users know it.
"""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import rewriter
from onnxscript.rewriter.rules import common

NAME = "fold-batch-norm"


def apply(model: ir.Model) -> int:
    """Fold normalisations into the weights before them; returns how many nodes went."""
    before = model.graph.num_nodes()
    names = {
        node.outputs[0].name: producer.name
        for node in model.graph
        if node.op_type == "BatchNormalization"
        and (producer := node.inputs[0].producer()) is not None  # type: ignore[union-attr]
    }
    rewriter.rewrite(
        model,
        [
            common.fuse_batchnorm_into_conv_rule,
            common.fuse_batchnorm_into_conv_transpose_rule,
            common.fuse_batchnorm_into_gemm_rule,
        ],
    )
    for node in model.graph:
        if node.op_type != "BatchNormalization":
            node.name = names.get(node.outputs[0].name, node.name)
    return before - model.graph.num_nodes()
