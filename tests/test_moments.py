"""Second moments from inside the graph are what numpy makes of unfolded inputs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import graphs
import numpy as np
import onnx_ir as ir
import pytest
import small

from edgec import moments, samples
from edgec.graphs import weight
from edgec.isolate import call
from edgec.moments import Stored, second_moments, unfolding
from edgec.types import Graph

Array = np.ndarray


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """All tests but one spare themselves the subprocess, which takes longer than the work in it."""
    monkeypatch.setattr(moments, "call", lambda function, *arguments: function(*arguments))


def gathered(
    found: Graph, files: list[Mapping[str, Array]], folder: Path, **more: int
) -> dict[str, Array]:
    """The moments of all nodes."""
    paths = []
    for index, feeds in enumerate(files):
        paths.append(folder / f"{index}.npz")
        np.savez(paths[-1], **feeds)  # type: ignore[arg-type]
    names = [str(node.name) for node in found.model.graph]
    return dict(second_moments(found, names, paths, samples.inputs(found), 1, **more))


def patches(
    x: Array,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    pads: tuple[int, ...],
    dilations: tuple[int, ...],
    groups: int,
) -> Array:
    """Every patch of x [B, C, ...], one by one: [groups, C / groups * taps, patches]."""
    rank = len(kernel)
    around = [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)]
    padded = np.pad(x.astype(np.float64), around)
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    corners = [
        range(0, size - e + 1, s)
        for size, e, s in zip(padded.shape[2:], extent, strides, strict=True)
    ]
    made = []
    for image, *corner in itertools.product(range(len(x)), *corners):
        window = tuple(
            slice(c, c + e, d) for c, e, d in zip(corner, extent, dilations, strict=True)
        )
        made.append(padded[(image, slice(None), *window)].reshape(groups, -1))
    return np.stack(made, axis=-1)


def sums(vectors: Array) -> Array:
    """S of vectors [G, K, n]."""
    ones = np.ones((len(vectors), 1, vectors.shape[-1]))
    vectors = np.concatenate([vectors, ones], axis=1)
    return np.asarray(vectors @ vectors.swapaxes(1, 2))


def second(made: Array) -> Array:
    """E[x x^T] of S."""
    return np.asarray(made[:, :-1, :-1] / made[:, -1:, -1:])


CONVOLUTIONS = {
    "plain": ((6, 4, 1, 1), (7, 9), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "one by one, strided": ((6, 4, 1, 1), (7, 9), (2, 3), (0, 0, 0, 0), (1, 1), 1),
    "one by one, padded": ((6, 4, 1, 1), (7, 9), (1, 1), (1, 0, 0, 2), (1, 1), 1),
    "three by three": ((6, 4, 3, 3), (7, 9), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    "uneven": ((6, 4, 3, 2), (9, 8), (2, 1), (0, 1, 2, 0), (1, 2), 1),
    "groups": ((6, 2, 3, 3), (7, 6), (2, 2), (1, 1, 1, 1), (1, 1), 2),
    "depthwise": ((4, 1, 3, 3), (7, 6), (1, 1), (1, 1, 1, 1), (1, 1), 4),
    "depthwise, twice the channels": ((8, 1, 2, 2), (5, 6), (1, 1), (0, 0, 0, 0), (2, 1), 4),
    "in one dimension": ((6, 4, 3), (11,), (2,), (1, 1), (2,), 1),
    "in three": ((6, 2, 2, 1, 2), (3, 4, 3), (1, 2, 1), (0, 0, 1, 0, 0, 0), (1, 1, 1), 2),
}


def convolution(shape: tuple[int, ...], channels: int, size: tuple[int, ...], more: str) -> Graph:
    dims = ",".join(str(n) for n in (1, channels, *size))
    out = ",".join("abcde"[: len(size) + 2])
    text = f"g (float[{dims}] x) => (float[{out}] y) {{ [conv] y = Conv <{more}> (x, w) }}"
    return small.canonical(small.model(text, w=small.normal(0, *shape)))


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions(case: str, tmp_path: Path) -> None:
    shape, size, strides, pads, dilations, groups = CONVOLUTIONS[case]
    channels = shape[1] * groups
    more = f"strides = {list(strides)}, pads = {list(pads)}, dilations = {list(dilations)}"
    found = convolution(shape, channels, size, f"{more}, group = {groups}")
    files = [{"x": small.normal(seed, 1, channels, *size) + 1} for seed in range(3)]
    expected = [patches(one["x"], shape[2:], strides, pads, dilations, groups) for one in files]
    made = gathered(found, files, tmp_path)["conv"]
    assert made.dtype == np.float64
    size_of = int(np.prod(shape[1:]))
    assert made.shape == (groups, size_of + 1, size_of + 1)
    np.testing.assert_allclose(made, sums(np.concatenate(expected, axis=-1)), rtol=1e-5, atol=1e-5)


def test_the_moments_are_those_of_the_outputs(tmp_path: Path) -> None:
    shape, size, strides, pads, _, groups = CONVOLUTIONS["groups"]
    more = f"strides = {list(strides)}, pads = {list(pads)}, group = {groups}"
    found = convolution(shape, 4, size, more)
    files = [{"x": small.normal(seed, 1, 4, *size)} for seed in range(3)]
    made = second(gathered(found, files, tmp_path)["conv"])
    outputs = [small.run(found.model, one)["y"].astype(np.float64) for one in files]
    power = np.mean([(y**2).mean(axis=(0, 2, 3)) for y in outputs], axis=0)
    rows = small.normal(0, *shape).reshape(groups, shape[0] // groups, -1).astype(np.float64)
    np.testing.assert_allclose(
        np.einsum("gnk,gkl,gnl->gn", rows, made, rows).ravel(), power, rtol=1e-5
    )


@pytest.mark.parametrize("auto", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2])
def test_padding_that_the_runtime_works_out(auto: str, stride: int, tmp_path: Path) -> None:
    found = convolution(
        (6, 4, 3, 4), 4, (7, 8), f'auto_pad = "{auto}", strides = [{stride}, {stride}]'
    )
    pads = [0, 0, 0, 0]
    if auto != "VALID":
        for axis, (length, kernel) in enumerate(zip((7, 8), (3, 4), strict=True)):
            total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
            small_half, large_half = total // 2, total - total // 2
            halves = (small_half, large_half)[:: 1 if auto == "SAME_UPPER" else -1]
            pads[axis], pads[axis + 2] = halves
    files = [{"x": small.normal(seed, 1, 4, 7, 8)} for seed in range(2)]
    expected = [
        patches(one["x"], (3, 4), (stride, stride), tuple(pads), (1, 1), 1) for one in files
    ]
    np.testing.assert_allclose(
        gathered(found, files, tmp_path)["conv"],
        sums(np.concatenate(expected, axis=-1)),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("op", "x", "w"),
    [
        ("MatMul", (9, 5), (5, 3)),
        ("MatMul", (2, 3, 4, 5), (5, 3)),
        ("MatMul", (5,), (5, 3)),
        ("Gemm", (9, 5), (5, 3)),
        ("Gemm <transB = 1>", (9, 5), (3, 5)),
        ("Gemm <transA = 1>", (5, 9), (5, 3)),
    ],
)
def test_products(op: str, x: tuple[int, ...], w: tuple[int, ...], tmp_path: Path) -> None:
    dims, out = ",".join(map(str, x)), ",".join("abcd"[: len(x)])
    text = f"g (float[{dims}] x) => (float[{out}] y) {{ [product] y = {op} (x, w) }}"
    found = small.canonical(small.model(text, w=small.normal(0, *w)))
    files = [{"x": small.normal(seed, *x) + 1} for seed in range(3)]
    rows = [one["x"].T if "transA" in op else one["x"].reshape(-1, 5) for one in files]
    vectors = np.concatenate(rows).T.astype(np.float64)[None]
    np.testing.assert_allclose(
        gathered(found, files, tmp_path)["product"], sums(vectors), rtol=1e-5
    )


def test_samples_of_different_lengths_count_by_their_positions(tmp_path: Path) -> None:
    text = "g (float[n,5] x) => (float[n,3] y) { [product] y = MatMul (x, w) }"
    found = small.canonical(small.model(text, w=small.normal(0, 5, 3)))
    files = [{"x": small.normal(seed, 4 * seed + 1, 5)} for seed in range(3)]
    vectors = np.concatenate([one["x"] for one in files]).T.astype(np.float64)[None]
    np.testing.assert_allclose(
        gathered(found, files, tmp_path)["product"], sums(vectors), rtol=1e-5, atol=1e-6
    )


BRANCHES = """g (float[1,4,6,6] x) => (float[1,4,6,6] a, float[1,4,6,6] b, float[1,4,4,4] c) {
  [first] a = Conv <pads = [1,1,1,1]> (x, w1)
  [second] b = Conv <pads = [1,1,1,1]> (x, w2)
  [third] c = Conv (a, w1)
  [relu] d = Relu (c)
  [computed] e = MatMul (d, d)
}"""


def branches() -> Graph:
    return small.canonical(
        small.model(BRANCHES, w1=small.normal(1, 4, 4, 3, 3), w2=small.normal(2, 4, 4, 3, 3))
    )


def test_nodes_that_read_the_same_share_it_and_others_are_left_out(tmp_path: Path) -> None:
    made = gathered(branches(), [{"x": small.normal(0, 1, 4, 6, 6)}], tmp_path)
    assert set(made) == {"first", "second", "third"}
    assert made["first"] is made["second"]
    assert made["third"] is not made["first"]
    only = list(
        second_moments(branches(), ["third"], [tmp_path / "0.npz"], samples.inputs(branches()), 1)
    )
    assert [name for name, _ in only] == ["third"]


def test_groups_do_not_change_the_moments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [{"x": small.normal(seed, 1, 4, 6, 6)} for seed in range(2)]
    passes = []
    gather = moments._gather
    monkeypatch.setattr(moments, "_gather", lambda *a: passes.append(len(a[3])) or gather(*a))
    together = gathered(branches(), files, tmp_path)
    assert passes == [2]
    alone = gathered(branches(), files, tmp_path, most=1)
    assert passes == [2, 1, 1]
    assert together.keys() == alone.keys()
    for name, moment in together.items():
        np.testing.assert_allclose(alone[name], moment, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["clip_torchscript", "cnn_tf", "float16_io", "cnn_opset9", "conv3d"]
)
def test_fixtures(name: str, tmp_path: Path) -> None:
    """For every covered node: w^T H w is the mean square of what it computes."""
    found = small.fixture(name)
    feeds = [graphs.load_feeds(name, seed, batch=1, images=1, texts=1) for seed in range(2)]
    made = gathered(found, feeds, tmp_path)
    nodes = [node for node in found.model.graph if unfolding(node) is not None]
    assert {str(node.name) for node in nodes} == set(made)
    assert made
    for node in nodes:
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            continue  # a bias adds to the outputs
        name = str(node.outputs[0].name)
        outputs = [small.run(small.exposed(found.model, [name]), one)[name] for one in feeds]
        array = weight(node).const_value.numpy().astype(np.float64)  # type: ignore[union-attr]
        rows = array.T[None] if node.op_type == "MatMul" else array
        moment = second(made[str(node.name)])
        rows = rows.reshape(len(moment), -1, moment.shape[1])
        power = np.einsum("gnk,gkl,gnl->", rows, moment, rows)
        channels = rows.shape[0] * rows.shape[1]
        seen = np.concatenate([y.astype(np.float64).ravel() for y in outputs])
        assert power / channels == pytest.approx((seen**2).mean(), rel=1e-3)


def test_overflow_is_left_to_the_rounding(tmp_path: Path) -> None:
    files = [{"x": np.full((1, 4, 6, 6), 1e30, np.float32)}]
    made = gathered(branches(), files, tmp_path)
    assert not np.isfinite(made["first"]).all()


def test_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [{"x": small.normal(0, 1, 4, 6, 6)}]
    here = gathered(branches(), files, tmp_path)
    monkeypatch.setattr(moments, "call", call)
    there = gathered(branches(), files, tmp_path)
    assert there.keys() == here.keys()
    assert there["first"] is there["second"]
    for name, moment in here.items():
        np.testing.assert_allclose(there[name], moment, rtol=1e-6, atol=1e-6)


def test_without_samples_nothing_is_known(tmp_path: Path) -> None:
    assert gathered(branches(), [], tmp_path) == {}


def test_stored_moments_are_written_once_and_read_back(tmp_path: Path) -> None:
    made = gathered(branches(), [{"x": small.normal(0, 1, 4, 6, 6)}], tmp_path)
    folder = tmp_path / "stored"
    stored = Stored(folder)
    stored.add(made.items())
    assert len(list(folder.glob("*.npy"))) == 2
    assert list(stored) == list(made)
    assert len(stored) == 3
    for name, moment in made.items():
        np.testing.assert_array_equal(stored[name], moment)
    assert "computed" not in stored


def test_the_model_is_not_changed(tmp_path: Path) -> None:
    found = branches()
    before = ir.to_proto(found.model).SerializeToString()
    gathered(found, [{"x": small.normal(0, 1, 4, 6, 6)}], tmp_path)
    assert ir.to_proto(found.model).SerializeToString() == before
