"""Sizes that ONNX's own inference cannot be trusted with: too small, and too many."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import small

from edgec.canonicalise import canonicalise
from edgec.errors import InputError
from edgec.graphs import HIDDEN, hidden, infer_shapes
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
    assert caught.value.message == (
        "node 'first' (Slice) reads what is [1, 1, -6, 8] in size, as node 'crop' makes: "
        "the model's inputs are too small for it"
    )
    assert "--shape" in caught.value.hint


def test_a_picture_that_is_large_enough_is_not() -> None:
    found = canonicalise(small.graph(cropped()), rows(9)).model
    assert list(found.graph.outputs[0].shape or ()) == [1, 1, 1, 8]


ENDS = {
    "a slice behind another": (
        """g (float[1,1,20,8] x) => (y) {
             [six] a = Slice (x, zero, six, rows) [crop] c = Pad (a, pads)
             [bad] y = Slice (c, zero, one, rows) }""",
        "'bad' (Slice) reads what is [1, 1, -2, 8] in size, as node 'crop' makes",
    ),
    "sizes that are computed": (
        """g (float[1,1,2,8] z, float[n,16] x) => (y) {
             s = Shape (z) r = Reshape (x, s) [crop] c = Pad (r, pads)
             [bad] y = Slice (c, zero, one, rows) }""",
        "'bad' (Slice) reads what is [1, 1, -6, 8] in size, as node 'crop' makes",
    ),
    "an axis in 32 bits": (
        f"""g (float[2,3,8] x) => (y, m, d) {{
             a = Relu (x) [bad] y, m, d = LayerNormalization <axis = {2**31}> (a, scale) }}""",
        "'bad' (LayerNormalization) ends onnx's inference of shapes",
    ),
    "batch dimensions before a shape": (
        "g (float[2,3] x, int64[2,1] i) => (y) { [bad] y = GatherND <batch_dims = -65> (x, i) }",
        "'bad' (GatherND) ends onnx's inference of shapes",
    ),
    "an unknown type": (
        """g (float[2,3] x) => (float[2,3] y) {
             u = com.microsoft.Unknown (x) [bad] y = EyeLike <dtype = 1> (u) }""",
        "'bad' (EyeLike) ends onnx's inference of shapes",
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_what_ends_the_inference_is_named(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    text, message = ENDS[name]
    made = small.model(
        text,
        17,
        ', "com.microsoft": 1',
        pads=np.int64([0, 0, -4, 0, 0, 0, -4, 0]),
        zero=np.int64([0]),
        one=np.int64([1]),
        six=np.int64([6]),
        rows=np.int64([2]),
        scale=np.ones(8, np.float32),
    )
    with pytest.raises(InputError) as caught:
        canonicalise(small.graph(made), {})
    assert message in caught.value.message
    assert capfd.readouterr().err == ""


def test_in_a_function_the_call_is_named() -> None:
    made = small.model(
        """g (float[1,1,2,8] x) => (y) { [call] y = own.Crop (x) }
           <opset_import: ["": 17], domain: "own"> Crop (x) => (y) {
             pads = Constant <value = int64[8] {0, 0, -4, 0, 0, 0, -4, 0}> ()
             zero = Constant <value = int64[1] {0}> () one = Constant <value = int64[1] {1}> ()
             rows = Constant <value = int64[1] {2}> ()
             c = Pad (x, pads) y = Slice (c, zero, one, rows) }""",
        17,
        ', "own": 1',
    )
    with pytest.raises(InputError, match="node 'call'"):
        canonicalise(small.graph(made), {})


def test_hiding_within_hiding() -> None:
    made = small.model("g (float[2,3] x) => (y) { [one] a = Relu (x) [two] y = Relu (a) }")
    one, two = made.graph
    with hidden(made, [one]):
        with hidden(made, [two]):
            pass
        with hidden(made, []):
            pass
        assert HIDDEN in made.opset_imports
        infer_shapes(made)
    assert HIDDEN not in made.opset_imports
    assert [node.op_type for node in made.graph] == ["Relu", "Relu"]


def test_a_large_vocabulary_is_no_long_vector() -> None:
    """Its bias is a vector of 250,000; sizes are followed all the same."""
    made = small.model(
        """g (float[batch,8] x, float[batch,8] z) => (y) {
             s = Shape (z) r = Reshape (x, s) m = MatMul (r, w) y = Add (m, b) }""",
        w=np.zeros((8, 250_000), np.float32),
        b=np.zeros(250_000, np.float32),
    )
    found = canonicalise(small.graph(made), {}).model
    infer_shapes(found)
    assert str(found.graph.outputs[0].shape) == "[batch,250000]"


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
