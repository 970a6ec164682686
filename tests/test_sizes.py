"""Sizes that ONNX's own inference cannot be trusted with: too small, and too many."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import small

from edgec.canonicalise import canonicalise
from edgec.errors import InputError
from edgec.graphs import infer_shapes
from edgec.types import Range


def cropped() -> ir.Model:
    """A network that cuts four rows from each side of a picture, and takes the first of the rest.

    At less than eight rows, what is left is negative.
    """
    return small.model(
        """g (float[1,1,h,8] x) => (float[1,1,k,8] y) {
             [crop] c = Pad (x, pads) [first] y = Slice (c, zero, one, rows) }""",
        pads=np.int64([0, 0, -4, 0, 0, 0, -4, 0]),
        zero=np.int64([0]),
        one=np.int64([1]),
        rows=np.int64([2]),
    )


def rows(count: int) -> dict[str, tuple[Range, ...]]:
    return {"x": tuple(Range(n, n) for n in (1, 1, count, 8))}


def test_a_picture_that_is_too_small_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        canonicalise(small.graph(cropped()), rows(2))
    assert "node 'first' (Slice) cuts from sizes [1, 1, -6, 8]" in caught.value.message
    assert "node 'crop' makes" in caught.value.message
    assert "--shape" in caught.value.hint


def test_a_picture_that_is_large_enough_is_not() -> None:
    found = canonicalise(small.graph(cropped()), rows(9)).model
    assert list(found.graph.outputs[0].shape or ()) == [1, 1, 1, 8]


def test_sizes_that_are_not_known_keep_their_names() -> None:
    """ONNX would name each size that it cannot compute; the name would stay."""
    made = small.model(
        """g (float[batch,8] x, float[batch,8] z) => (float[n,4] y) {
             s = Shape (z) r = Reshape (x, s) y = Slice (r, zero, four, one) }""",
        zero=np.int64([0]),
        four=np.int64([4]),
        one=np.int64([1]),
    )
    found = canonicalise(small.graph(made), {}).model
    (slice_,) = (node for node in found.graph if node.op_type == "Slice")
    assert slice_.inputs[0] is not None
    assert str(slice_.inputs[0].shape) == "[batch,8]"


@pytest.mark.parametrize("length", [4, 1 << 40])
def test_a_long_vector_is_not_followed_number_by_number(length: int) -> None:
    """Short ones are: what is added to a vector of sizes is the sizes that Expand makes."""
    made = small.model(
        "g (float[1] x) => (y) { a = Expand (one, many) b = Add (a, a) y = Expand (x, b) }",
        one=np.int64([1]),
        many=np.int64([length]),
    )
    found = canonicalise(small.graph(made), {}).model
    infer_shapes(found)
    shape = found.graph.outputs[0].shape
    assert (shape is not None and shape.is_static()) == (length == 4)
