"""BatchNormalization(Conv(x, W, b)) -> Conv(x, W g/s, (b - m) g/s + beta), s = sqrt(var + eps).

The same for ConvTranspose and Gemm. The rewrites are onnxscript's; ranges then fall after the
activation, where they belong.
"""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import rewriter
from onnxscript.rewriter.rules import common

NAME = "fold-batch-norm"


def apply(model: ir.Model) -> int:
    """Fold normalisations into the weights before them; returns how many nodes went."""
    before = model.graph.num_nodes()
    rewriter.rewrite(
        model,
        [
            common.fuse_batchnorm_into_conv_rule,
            common.fuse_batchnorm_into_conv_transpose_rule,
            common.fuse_batchnorm_into_gemm_rule,
        ],
    )
    return before - model.graph.num_nodes()
