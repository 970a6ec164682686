"""What is known of sizes before any rewrite, and whether they can be worked with.

ONNX's inference ends the process where a Slice takes from a dimension that is negative, which is
what padding or pooling makes of a picture that is too small; and it keeps memory for every number
of a vector, however long (see `infer_shapes`). So it runs once without Slices and without the
arithmetic of shapes, and what it finds is judged. That is done on a copy: without the arithmetic,
every size that it would find gets a new name, which would stay.
"""

from __future__ import annotations

import onnx_ir as ir

from edgec.errors import InputError
from edgec.graphs import every_value, hidden, infer_shapes
from edgec.operators import named


def check_sizes(model: ir.Model) -> None:
    """Tell `model` the shapes that are numbers alone. Raises InputError for a negative size."""
    trial = model.clone()
    pairs = list(zip(every_value(model), every_value(trial), strict=True))
    slices = [node for node in trial.graph.all_nodes() if node.op_type == "Slice"]
    with hidden(trial, slices):
        infer_shapes(trial, arithmetic=False)
    for node in slices:
        _check(node)
    for value, found in pairs:
        if found.shape is not None and found.shape.is_static():
            value.shape = found.shape


def _check(node: ir.Node) -> None:
    value = node.inputs[0]
    shape = () if value is None or value.shape is None else value.shape
    if any(isinstance(dim, int) and dim < 0 for dim in shape):
        maker = value.producer() if value is not None else None
        raise InputError(
            f"node {named(node)} (Slice) cuts from sizes {list(shape)}, which "
            f"{'the caller gives' if maker is None else f'node {named(maker)} makes'}: the "
            "model's inputs are too small for it",
            hint="give larger ones by --shape, or export the model for larger inputs",
        )
