"""Min(Max(x, a), b) -> Clip(x, a, b), and Max, Min, Relu and Clip in a row -> one Clip.

An INT8 grid can stand for a Clip behind a convolution, so that the range falls after the
activation; it cannot for Max and Min. The rewrites are onnxscript's.
"""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import rewriter
from onnxscript.rewriter.rules.common import _fuse_relus_clips, _min_max_to_clip

NAME = "one-clamp"


def apply(model: ir.Model) -> int:
    """Rewrite such chains; returns how many nodes went or changed."""
    before = [(node.op_type, node.name) for node in model.graph]
    rewriter.rewrite(model, [*_min_max_to_clip.rules, *_fuse_relus_clips.rules])
    after = {(node.op_type, node.name) for node in model.graph}
    return sum(one not in after for one in before)
