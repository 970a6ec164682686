"""GroupNormalization in all its forms, against its equation in float64."""

from __future__ import annotations

from collections import Counter

import equal
import numpy as np
import onnx_ir as ir
import pytest
import small

from edgec.rules import CANONICAL, channel_affine, group_norm

# The mean of a group costs a float32 rounding that its standard deviation divides.
TOLERANCE = 2e-6
SIZES = {3: (10,), 4: (5, 6), 5: (3, 4, 2)}


def reference(
    x: np.ndarray, scale: np.ndarray, bias: np.ndarray, groups: int, epsilon: float
) -> np.ndarray:
    """Wu and He 2018, equation 1, in float64; scale and bias per channel."""
    wide = x.astype(np.float64)
    rows = wide.reshape(len(x), groups, -1)
    centred = rows - rows.mean(axis=2, keepdims=True)
    unit = centred / np.sqrt((centred**2).mean(axis=2, keepdims=True) + epsilon)
    spread = [1, -1] + [1] * (x.ndim - 2)
    return unit.reshape(x.shape) * scale.reshape(spread) + bias.reshape(spread)


def model(shape: str, groups: int, opset: int, **weights: np.ndarray) -> ir.Model:
    return small.model(
        f"""g (float[{shape}] x) => (float[{shape}] y) {{
              y = GroupNormalization <num_groups = {groups}, epsilon = 0.001> (x, s, b)
            }}""",
        opset=opset,
        **weights,
    )


def factors(opset: int, groups: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """The weights as the opset has them, and as they are per channel."""
    size = 8 if opset >= 21 else groups
    scale, bias = 1 + small.normal(1, size), small.normal(2, size)
    return {"s": scale, "b": bias}, np.repeat(scale, 8 // size), np.repeat(bias, 8 // size)


@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "dynamic"])
@pytest.mark.parametrize("rank", SIZES)
@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("opset", [18, 21])
def test_the_equation(opset: int, groups: int, rank: int, dynamic: bool) -> None:
    sizes = SIZES[rank]
    shape = ",".join(["n", "8", *"abc"[: len(sizes)]] if dynamic else map(str, (2, 8, *sizes)))
    weights, scale, bias = factors(opset, groups)
    x = small.normal(3, 2, 8, *sizes) * 4 + 1
    found = equal.prove(
        model(shape, groups, opset, **weights),
        group_norm,
        {"x": x},
        {"y": reference(x, scale, bias, groups, 1e-3)},
        tolerance=TOLERANCE,
    )
    assert found["InstanceNormalization"] == 1
    assert not found["GroupNormalization"]
    assert found["Shape"] == (dynamic and rank > 3 and groups < 8)  # else the sizes are a constant


@pytest.mark.parametrize("kind", ["constant", "huge", "tiny", "one pixel"])
def test_the_edges(kind: str) -> None:
    x = {
        "constant": np.full((2, 8, 4, 4), 3, np.float32),
        "huge": small.normal(4, 2, 8, 4, 4) * 1e15,
        "tiny": small.normal(5, 2, 8, 4, 4) * 1e-15,
        "one pixel": small.normal(6, 2, 8, 1, 1),
    }[kind]
    weights, scale, bias = factors(21, 4)
    shape = ",".join(map(str, x.shape))
    made = model(shape, 4, 21, **weights)
    expected = {"y": reference(x, scale, bias, 4, 1e-3)}
    equal.prove(made, group_norm, {"x": x}, expected, tolerance=TOLERANCE)


@pytest.mark.parametrize("opset", [18, 21])
def test_weights_that_are_computed(opset: int) -> None:
    size = 8 if opset == 21 else 2
    made = small.model(
        f"""g (float[n,8,h,w] x, float[{size}] s, float[{size}] b) => (float[n,8,h,w] y) {{
              y = GroupNormalization <num_groups = 2> (x, s, b)
            }}""",
        opset=opset,
    )
    weights, scale, bias = factors(opset, 2)
    x = small.normal(7, 3, 8, 2, 5)
    expected = {"y": reference(x, scale, bias, 2, 1e-5)}
    equal.prove(made, group_norm, {"x": x, **weights}, expected, tolerance=TOLERANCE)


def test_float16_is_normalised_in_float32() -> None:
    made = small.model(
        """g (float16[2,8,4,4] x) => (float16[2,8,4,4] y) {
             y = GroupNormalization <num_groups = 2, epsilon = 0.001> (x, s, b)
           }""",
        opset=21,
        s=np.float16(1 + small.normal(1, 8)),
        b=np.float16(small.normal(2, 8)),
    )
    x = np.float16(small.normal(3, 2, 8, 4, 4) * 100)
    scale, bias = (made.graph.initializers[name].const_value.numpy() for name in "sb")
    expected = {"y": reference(x, np.float64(scale), np.float64(bias), 2, 1e-3)}
    equal.prove(made, group_norm, {"x": x}, expected, tolerance=2**-10)


def test_an_input_without_a_rank_stays() -> None:
    made = small.model(
        """g (float[n,8,h] x, int64[k] t) => (float[] y) {
             r = Reshape (x, t)
             y = GroupNormalization <num_groups = 2> (r, s, b)
           }""",
        opset=21,
        s=np.ones(8, np.float32),
        b=np.zeros(8, np.float32),
    )
    ir.passes.common.NameFixPass()(made)
    assert group_norm.apply(made) == 0


def test_shapes_are_known_behind_it() -> None:
    """What made INT8 stop here: onnx infers nothing past GroupNormalization."""
    weights, _, _ = factors(21, 4)
    made = small.model(
        """g (float[n,8,h,w] x) => (float[n,8,p,q] y) {
             c = GroupNormalization <num_groups = 4> (x, s, b)
             r = Relu (c)
             y = Conv (r, k)
           }""",
        opset=21,
        k=small.normal(9, 8, 8, 3, 3),
        **weights,
    )
    found = small.canonical(made)
    assert ("group-to-instance-norm", 1) in [(one.rule, one.count) for one in found.rewrites]
    values = [value for node in found.model.graph for value in node.outputs]
    assert all(value.shape is not None and value.dtype is not None for value in values)


def test_it_comes_before_what_moves_its_neighbours() -> None:
    names = [rule.name for rule in CANONICAL]
    assert names.index("fold-constants") < names.index(group_norm.NAME) < names.index("fold-affine")
    assert Counter(names)[group_norm.NAME] == 1


@pytest.mark.parametrize("rank", SIZES)
@pytest.mark.parametrize("swapped", [False, True])
def test_scale_and_shift_become_one_pass(rank: int, swapped: bool) -> None:
    sizes = SIZES[rank]
    shape = ",".join(["n", "8", *"abc"[: len(sizes)]])
    made = model(shape, 4, 21, **factors(21, 4)[0])
    equal.named(made)
    assert group_norm.apply(made) == 1
    if swapped:
        for node in made.graph:
            if node.op_type in ("Mul", "Add"):
                first, second = node.inputs
                node.replace_input_with(0, second)
                node.replace_input_with(1, first)
    _, scale, bias = factors(21, 4)
    x = small.normal(3, 2, 8, *sizes) * 4 + 1
    expected = {"y": reference(x, scale, bias, 4, 1e-3)}
    found = equal.prove(made, channel_affine, {"x": x}, expected, tolerance=TOLERANCE)
    assert found["BatchNormalization"] == 1
    assert not found["Mul"] + found["Add"]


def test_a_scale_that_others_read_stays() -> None:
    made = small.model(
        """g (float[2,8,5] x) => (float[2,8,5] y, float[2,8,5] m) {
             r = Reshape (x, rows) i = InstanceNormalization (r, o, z) c = Reshape (i, back)
             m = Mul (c, s) y = Add (m, b)
           }""",
        rows=np.array([0, 2, -1]),
        back=np.array([0, 8, 5]),
        o=np.ones(2, np.float32),
        z=np.zeros(2, np.float32),
        s=small.normal(1, 8, 1),
        b=small.normal(2, 8, 1),
    )
    assert channel_affine.apply(equal.named(made)) == 0


def test_one_behind_another() -> None:
    """ONNX infers no shape past the first, so that the rank of the second is known late."""
    made = small.model(
        """g (float[n,8,5,6] x) => (float[n,8,5,6] y) {
              a = GroupNormalization <num_groups = 2> (x, s, b)
              r = Relu (a)
              y = GroupNormalization <num_groups = 4> (r, s, b)
            }""",
        opset=21,
        s=1 + small.normal(1, 8),
        b=small.normal(2, 8),
    )
    feeds = {"x": small.normal(3, 2, 8, 5, 6)}
    ops = equal.prove(made, group_norm, feeds, count=2)
    assert (ops["InstanceNormalization"], ops["GroupNormalization"]) == (2, 0)
