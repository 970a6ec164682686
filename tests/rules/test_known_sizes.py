"""Shape arithmetic beside a free batch: each size as the runtime would compute it."""

from __future__ import annotations

import equal
import graphs
import numpy as np
import pytest
import small

from edgec.canonicalise import canonicalise
from edgec.load import load
from edgec.rules import known_sizes
from edgec.types import Range

HEAD = "g (float[n,6,10,7] x) => (float[a,b,c,d] y)"


def prove(
    body: str, count: int, shape: tuple[int, ...] = (3, 6, 10, 7), **weights: object
) -> list[str]:
    arrays = {name: np.asarray(array) for name, array in weights.items()}
    made = small.model(f"{HEAD} {{ {body} }}", **arrays)
    found = equal.prove(made, known_sizes, {"x": small.normal(0, *shape)}, tolerance=0, count=count)
    return sorted(found.elements())


@pytest.mark.parametrize("batch", [1, 4])
def test_same_padding_of_torchscript(batch: int) -> None:
    """Ceil((h + 1) / 2) in float32, and the padding that follows, beside a free batch."""
    body = """
        s = Shape (x) h = Gather <axis = 0> (s, two) f = Cast <to = 1> (h)
        half = Div (f, twof) up = Ceil (half) i = Cast <to = 7> (up)
        less = Sub (i, one) wide = Mul (less, two) more = Add (wide, three) need = Sub (more, h)
        pad = Max (need, zero) low = Div (pad, two) high = Sub (pad, low)
        low1 = Unsqueeze (low, axis) high1 = Unsqueeze (high, axis)
        pads = Concat <axis = 0> (none2, low1, none3, high1, none1)
        y = Pad (x, pads)
    """
    ops = prove(
        body,
        16,
        (batch, 6, 10, 7),
        two=2,
        twof=np.float32(2),
        one=1,
        three=3,
        zero=0,
        axis=[0],
        none1=[0],
        none2=[0, 0],
        none3=[0, 0, 0],
    )
    assert ops == ["Pad"]


def test_slices_and_fills() -> None:
    body = """
        s = Shape (x) tail = Slice (s, one, far) turned = Slice (tail, last, lowest, none, back)
        zeros = ConstantOfShape <value = int64[1] {1}> (size)
        all = Concat <axis = 0> (zeros, turned) some = Reshape (all, flat)
        x1 = ReduceMean <axes = [0,1,2,3]> (x) y = Expand (x1, some)
    """
    ops = prove(
        body,
        6,
        one=[1],
        far=[2**63 - 1],
        last=[-1],
        lowest=[-(2**63)],
        none=[0],
        back=[-1],
        size=[1],
        flat=[-1],
    )
    assert ops == ["Expand", "ReduceMean"]


def test_a_scalar_stays_a_scalar() -> None:
    body = """
        s = Shape (x) width = Gather <axis = 0> (s, three) r = Range (zero, width, one)
        f = Cast <to = 1> (r) y = Mul (x, f)
    """
    assert prove(body, 2, three=3, zero=0, one=1) == ["Cast", "Mul", "Range"]


def test_the_one_size_that_needs_the_batch() -> None:
    body = """
        s = Shape (x) n = Gather <axis = 0> (s, zero) m = Mul (n, two) u = Unsqueeze (m, axis)
        t = Concat <axis = 0> (u, rest) y = Reshape (x, t)
    """
    assert prove(body, 6, zero=0, two=2, axis=[0], rest=[3, 10, 7]) == ["Reshape"]


def test_what_needs_the_batch_stays() -> None:
    """Two sizes that are not known."""
    body = """
        s = Shape (x) n = Gather <axis = 0> (s, first) one = Div (n, n)
        t = Concat <axis = 0> (n, one, rest) y = Reshape (x, t)
    """
    ops = prove(body, 0, first=[0], rest=[60, 7])
    assert ops == ["Concat", "Div", "Gather", "Reshape", "Shape"]


def test_a_size_that_is_copied_stays() -> None:
    """A size of 0 is that of the input, and says nothing of the others."""
    body = """
        s = Shape (x) n = Gather <axis = 0> (s, first) t = Concat <axis = 0> (n, rest)
        y = Reshape (x, t)
    """
    ops = prove(body, 0, first=[0], rest=[0, 10, 7])
    assert ops == ["Concat", "Gather", "Reshape", "Shape"]


@pytest.mark.parametrize(("top", "bottom"), [(7, 2), (-7, 2), (7, -2), (-7, -2), (6, 3), (1, 3)])
def test_integers_are_divided_towards_zero(top: int, bottom: int) -> None:
    found = known_sizes._divided(np.array([top]), np.array([bottom]))
    assert found[0] == int(top / bottom)


def test_a_padding_behind_a_padding() -> None:
    """Each one lets the sizes be inferred that the next one needs."""
    made = load(graphs.path("cnn_dynamic_pad"))
    name = made.model.graph.inputs[0].name
    bounds = (Range(1, 8), Range(3, 3), Range(32, 32), Range(32, 32))
    found = canonicalise(made, {str(name): bounds})
    ops = small.ops(found.model)
    assert ops.count("Pad") == 2
    assert "Shape" not in ops
    feeds = graphs.load_feeds("cnn_dynamic_pad")
    before, after = small.run(made.model, feeds), small.run(found.model, feeds)
    for key, array in before.items():
        equal.close(after[key], array, 1e-6)
