"""Identity(x) -> x, Dropout(x) -> x, equal initialisers -> one, unused nodes -> nothing."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import rewriter
from onnxscript.rewriter.rules import common as rules

NAME = "remove-identity"


def apply(model: ir.Model) -> int:
    """Remove what computes nothing; returns how many nodes went."""
    before = model.graph.num_nodes()
    rewriter.rewrite(model, [rules.dropout_inference_rule, rules.dropout_zero_rule])
    common.IdentityEliminationPass()(model)
    common.DeduplicateInitializersPass(size_limit=1024)(model)
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedOpsetsPass()(model)
    return before - model.graph.num_nodes()
