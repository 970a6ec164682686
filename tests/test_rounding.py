"""Where moments are known, weights are rounded by them, and nothing else changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import graphs
import numpy as np
import onnx_ir as ir
import pytest
import small
from engines import everywhere, recovered, seen

from edgec import moments, samples
from edgec.isolate import call
from edgec.moments import Stored, second_moments
from edgec.quantize import quantize, rounding
from edgec.quantize.rounding import Moments, Rounding
from edgec.quantize.weights import quantize_weight
from edgec.types import Graph, Scheme

Array = np.ndarray
Feeds = Mapping[str, Array]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No subprocess is started."""
    monkeypatch.setattr(moments, "call", lambda function, *arguments: function(*arguments))


def observed(found: Graph, feeds: Sequence[Feeds], folder: Path) -> dict[str, Array]:
    paths = []
    for index, one in enumerate(feeds):
        paths.append(folder / f"{index}.npz")
        np.savez(paths[-1], **one)  # type: ignore[arg-type]
    names = [str(node.name) for node in found.model.graph]
    return dict(second_moments(found, names, paths, samples.inputs(found), 1))


def quantized(
    found: Graph,
    feeds: Sequence[Feeds],
    known: Moments,
    scheme: Scheme | None = None,
    target: str = "x86-avx2",
    backend: str = "onnxruntime",
) -> ir.Model:
    runtime = small.runtime(target, backend)
    policy = None if scheme is None else everywhere(scheme)
    plan = small.plan(found, target, policy, backend=backend)
    statistics = seen(found, plan, runtime, feeds)
    recovery = recovered(plan, gptq=True)
    return quantize(found.model, plan.decisions, statistics, recovery, runtime, known)


def error(found: Graph, made: ir.Model, feeds: Sequence[Feeds], name: str) -> float:
    """SQNR in dB of an output over all samples."""
    before = np.concatenate([small.run(found.model, one)[name].ravel() for one in feeds])
    return small.sqnr(before, np.concatenate([small.run(made, one)[name].ravel() for one in feeds]))


@pytest.mark.parametrize(
    ("name", "scheme", "least"),
    [  # in static INT8 the activations' errors hide most of what is won
        ("cnn", Scheme.INT8_WEIGHT_ONLY, 1.5),
        ("clip_torchscript", Scheme.INT8_WEIGHT_ONLY, 1.5),
        ("cnn_tf", Scheme.INT8_STATIC, 0.5),
    ],
)
def test_a_fixture_comes_closer_on_samples_that_were_not_seen(
    name: str, scheme: Scheme, least: float, tmp_path: Path
) -> None:
    found = small.fixture(name)
    feeds, fresh = (
        [graphs.load_feeds(name, seed, batch=count, images=count, texts=count)]
        for seed, count in ((0, 24), (1, 24))
    )
    known = observed(found, feeds, tmp_path)
    output = str(found.model.graph.outputs[0].name)
    plain = error(found, quantized(found, feeds, {}, scheme, "x86-vnni"), fresh, output)
    better = error(found, quantized(found, feeds, known, scheme, "x86-vnni"), fresh, output)
    assert better > plain + least


MIXER = """g (float[1,12,48] x) => (float[1,12,48] y) {
  [up] a = MatMul (x, wu)
  [side] b = MatMul (x, wb)
  [turn] t = Transpose <perm = [0,2,1]> (b)
  [mix] m = MatMul (a, t)
  [soft] p = Softmax (m)
  [gate] r = MatMul (p, x)
  [down] y = MatMul (r, wd)
}"""


def mixer(spread: Array | None = None) -> tuple[Graph, list[Feeds]]:
    """Products whose inputs are correlated, as hidden states are."""
    mix = small.normal(9, 8, 48) * (1 if spread is None else spread)
    feeds: list[Feeds] = [
        {"x": (small.normal(seed, 1, 12, 8) @ mix + 0.05 * small.normal(seed + 50, 1, 12, 48))}
        for seed in range(16)
    ]
    weights = {name: small.normal(seed, 48, 48) / 7 for seed, name in enumerate(("wu", "wb", "wd"))}
    return small.canonical(small.model(MIXER, **weights)), feeds


@pytest.mark.parametrize("scheme", [Scheme.INT8_WEIGHT_ONLY, Scheme.INT8_DYNAMIC])
def test_products_come_closer(scheme: Scheme, tmp_path: Path) -> None:
    found, feeds = mixer()
    known = observed(found, feeds[:10], tmp_path)
    plain = error(found, quantized(found, feeds[:10], {}, scheme), feeds[10:], "y")
    better = error(found, quantized(found, feeds[:10], known, scheme), feeds[10:], "y")
    assert better > plain + (3 if scheme is Scheme.INT8_WEIGHT_ONLY else 0.3)


@pytest.mark.parametrize("scheme", [Scheme.INT8_STATIC, Scheme.INT8_DYNAMIC])
def test_a_smoothed_weight_is_rounded_by_the_smoothed_moments(
    scheme: Scheme, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spread = np.geomspace(1, 40, 48).astype(np.float32)
    found, feeds = mixer(spread)
    known = observed(found, feeds, tmp_path)
    used: list[tuple[Array, Array]] = []  # by the rounding of `up`, the first
    plain = rounding.gptq.laid_out

    def spy(array: Array, axis: int, scale: Array, most: int, moment: Array) -> Array:
        used.append((array, moment))
        return plain(array, axis, scale, most, moment)

    monkeypatch.setattr(rounding.gptq, "laid_out", spy)
    backend = "openvino" if scheme is Scheme.INT8_STATIC else "onnxruntime"
    made = quantized(found, feeds, known, scheme, "x86-vnni", backend)
    assert "x/smooth" in [node.name for node in made.graph]
    factors = 1 / made.graph.initializers["x/smoothing"].const_value.numpy().astype(np.float64)
    array, moment = used[0]
    weight = found.model.graph.initializers["wu"].const_value.numpy()
    np.testing.assert_allclose(array, weight * factors[:, None], rtol=1e-5)
    x = np.concatenate([one["x"].reshape(-1, 48) for one in feeds]) / factors
    expected = x.T @ x / len(x)
    expected += moments.SHRINKAGE * 48 / len(x) * np.trace(expected) / 48 * np.eye(48)
    np.testing.assert_allclose(moment[0], expected, rtol=1e-4, atol=1e-4)


def test_what_a_bias_takes_up_is_not_rounded_for(tmp_path: Path) -> None:
    """Inputs with large means: beside the corrected bias only what varies around them counts."""
    weight = small.normal(0, 8, 8, 3, 3)
    text = "g (float[1,8,6,6] x) => (float[1,8,4,4] y) { [conv] y = Conv (x, w) }"
    found = small.canonical(small.model(text, w=weight))
    mix = small.normal(1, 8, 3)
    feeds: list[Feeds] = [
        {"x": 5 + np.einsum("cd,ndhw->nchw", mix, small.normal(seed, 1, 3, 6, 6))}
        for seed in range(12)
    ]
    known = observed(found, feeds, tmp_path)
    grid, node = small.runtime("x86-avx2").grid, small.node(found.model, "conv")
    varying = moments.shrunk(known["conv"], centred=True)[0]
    left = []
    for corrected in (True, False):
        rounding = Rounding(found.model, known, frozenset(known), grid)
        made = rounding(node, weight, 0, corrected=corrected)
        error = made.error(weight).reshape(8, -1)
        left.append(np.einsum("nk,kl,nl->", error, varying, error))
    assert left[0] < 0.9 * left[1]


def test_the_mean_of_padded_patches_corrects_exactly(tmp_path: Path) -> None:
    """Under a border the taps of a kernel see zeros, which a mean per channel does not know."""
    weight = small.normal(0, 8, 8, 3, 3)
    text = "g (float[1,8,4,4] x) => (float[1,8,4,4] y) { [conv] y = Conv <pads=[1,1,1,1]> (x, w) }"
    found = small.canonical(small.model(text, w=weight))
    feeds: list[Feeds] = [{"x": 3 + small.normal(seed, 1, 8, 4, 4)} for seed in range(6)]
    known = observed(found, feeds, tmp_path)
    made = quantized(found, feeds, known, Scheme.INT8_WEIGHT_ONLY)
    errors = [
        small.run(made, one)["y"].astype(np.float64) - small.run(found.model, one)["y"]
        for one in feeds
    ]
    off = np.mean(errors, axis=0)
    assert np.abs(off.mean(axis=(0, 2, 3))).max() < 1e-4 * np.abs(off).max()


TWINS = """g (float[1,8,6,6] x, float[1,8,6,6] z) => (float[1,8,6,6] y, float[1,8,6,6] v) {
  [one] y = Conv <pads = [1,1,1,1]> (x, w)
  [two] v = Conv <pads = [1,1,1,1]> (z, w)
}"""


def twins() -> tuple[Graph, list[Feeds]]:
    found = small.canonical(small.model(TWINS, w=small.normal(0, 8, 8, 3, 3)))
    mixes = small.normal(1, 2, 8, 3)
    feeds: list[Feeds] = [
        {
            name: np.einsum("cd,ndhw->nchw", mix, small.normal(7 * seed + place, 1, 3, 6, 6))
            for place, (name, mix) in enumerate(zip("xz", mixes, strict=True))
        }
        for seed in range(8)
    ]
    return found, feeds


@pytest.mark.parametrize("scheme", [Scheme.INT8_STATIC, Scheme.INT8_WEIGHT_ONLY])
def test_a_shared_weight_stays_one_and_suits_both(scheme: Scheme, tmp_path: Path) -> None:
    found, feeds = twins()
    known = observed(found, feeds, tmp_path)
    made = quantized(found, feeds, known, scheme)
    assert [name for name in made.graph.initializers if "w/int8" in name] == ["w/int8"]
    plain = quantized(found, feeds, {}, scheme)
    for output in ("y", "v"):
        assert error(found, made, feeds, output) > error(found, plain, feeds, output) + 1


def test_readers_that_round_differently_each_get_their_own(tmp_path: Path) -> None:
    found, feeds = twins()
    known = {"one": observed(found, feeds, tmp_path)["one"]}  # of the other, nothing is known
    made = quantized(found, feeds, known, Scheme.INT8_WEIGHT_ONLY)
    stored = [name for name in made.graph.initializers if "w/int8" in name]
    assert len(stored) == 2
    plain = quantized(found, feeds, {}, Scheme.INT8_WEIGHT_ONLY)
    assert error(found, made, feeds, "v") == error(found, plain, feeds, "v")
    assert error(found, made, feeds, "y") > error(found, plain, feeds, "y") + 1


def test_without_moments_all_is_as_it_was(tmp_path: Path) -> None:
    found, feeds = twins()
    grid = small.runtime("x86-avx2").grid
    node, weight = small.node(found.model, "one"), small.normal(0, 8, 8, 3, 3)
    plain = quantize_weight(weight, 0, grid)
    known = observed(found, feeds, tmp_path)
    for moment, nodes in (({}, frozenset[str]()), (known, frozenset[str]())):
        made = Rounding(found.model, moment, nodes, grid)(node, weight, 0)
        np.testing.assert_array_equal(made.data, plain.data)
        np.testing.assert_array_equal(made.scale, plain.scale)
    found_scale = Rounding(found.model, known, frozenset(known), grid)(node, weight, 0)
    np.testing.assert_array_equal(found_scale.scale, plain.scale)
    assert (found_scale.data != plain.data).any()
    assert np.abs(found_scale.data.astype(int)).max() <= 63


def test_a_part_that_is_not_to_be_rounded_by_moments_is_not(tmp_path: Path) -> None:
    found, feeds = twins()
    known = observed(found, feeds, tmp_path)
    runtime = small.runtime("x86-avx2")
    plan = small.plan(found, "x86-avx2", everywhere(Scheme.INT8_WEIGHT_ONLY))
    statistics = seen(found, plan, runtime, feeds)
    plain = quantized(found, feeds, {}, Scheme.INT8_WEIGHT_ONLY)
    for gptq in (False, True):
        recovery = recovered(plan, gptq=gptq)
        made = quantize(found.model, plan.decisions, statistics, recovery, runtime, known)
        same = ir.to_proto(made).SerializeToString() == ir.to_proto(plain).SerializeToString()
        assert same is not gptq


def stored(known: Mapping[str, Array], folder: Path) -> Stored:
    made = Stored(folder)
    made.add(known.items())
    return made


def test_the_same_rounding_is_done_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, feeds = twins()
    known = stored(observed(found, feeds, tmp_path), tmp_path / "stored")
    done: list[int] = []
    plain = rounding.gptq.laid_out
    monkeypatch.setattr(rounding.gptq, "laid_out", lambda *a: done.append(a[3]) or plain(*a))
    grid, nodes = small.runtime("x86-avx2").grid, frozenset(known)
    node, weight = small.node(found.model, "one"), small.normal(0, 8, 8, 3, 3)
    first = Rounding(found.model, known, nodes, grid)(node, weight, 0)
    for _ in range(2):
        again = Rounding(found.model, known, nodes, grid)(node, weight, 0)
        np.testing.assert_array_equal(again.data, first.data)
        assert again.data.dtype == np.int8
    assert done == [63]
    Rounding(found.model, known, nodes, replace(grid, reduce_range=False))(node, weight, 0)
    Rounding(found.model, known, nodes, grid)(node, 2 * weight, 0)
    Rounding(found.model, known, nodes, grid)(node, weight, 0, least=np.full(8, 1.0))
    assert done == [63, 127, 63, 63]
    # by other moments, and by those of one reader alone
    known.add({"one": 2 * known["one"]}.items())
    Rounding(found.model, known, nodes, grid)(node, weight, 0)
    Rounding(found.model, known, frozenset({"one"}), grid)(node, weight, 0)
    assert done == [63, 127, 63, 63, 63, 63]
    assert len(list(known.rounded.glob("*.npy"))) == len(done)
    assert not list(known.rounded.glob("*partial*"))


def test_moments_in_memory_leave_no_files(tmp_path: Path) -> None:
    found, feeds = twins()
    known = observed(found, feeds, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    disk = stored(known, tmp_path / "stored")
    grid, nodes = small.runtime("x86-avx2").grid, frozenset(known)
    node, weight = small.node(found.model, "one"), small.normal(0, 8, 8, 3, 3)
    made = [Rounding(found.model, one, nodes, grid)(node, weight, 0) for one in (known, disk)]
    np.testing.assert_array_equal(made[0].data, made[1].data)
    files = [path for path in sorted(tmp_path.rglob("*")) if "stored" not in path.parts]
    assert files == before


def as_bytes(name: str, known: Moments, scheme: Scheme, backend: str) -> bytes:
    found, feeds = small.fixture(name), [graphs.load_feeds(name, s) for s in range(3)]
    made = quantized(found, feeds, known, scheme, "x86-vnni", backend)
    return bytes(ir.to_proto(made).SerializeToString())


@pytest.mark.parametrize(
    ("name", "scheme", "backend"),
    [
        ("siamese", Scheme.INT8_STATIC, "onnxruntime"),
        ("clip_torchscript", Scheme.INT8_DYNAMIC, "onnxruntime"),
        ("vit", Scheme.INT8_STATIC, "openvino"),
    ],
)
def test_a_second_process_gets_the_same_bytes(
    name: str, scheme: Scheme, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one process rounds, the next one finds beside the moments; without, it does the same."""
    found, feeds = small.fixture(name), [graphs.load_feeds(name, s) for s in range(3)]
    known = observed(found, feeds, tmp_path)
    disk = stored(known, tmp_path / "stored")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    there = call(as_bytes, name, disk, scheme, backend)
    kept = {path.name for path in disk.rounded.iterdir()}
    assert kept
    with monkeypatch.context() as context:
        context.setattr(rounding.gptq, "laid_out", None)  # nothing is left to round
        assert as_bytes(name, disk, scheme, backend) == there
    assert {path.name for path in disk.rounded.iterdir()} == kept
    assert as_bytes(name, known, scheme, backend) == there
    assert as_bytes(name, {}, scheme, backend) != there


def test_shared_weights_of_a_fixture_stay_shared(tmp_path: Path) -> None:
    found, feeds = small.fixture("siamese"), [graphs.load_feeds("siamese", s) for s in range(3)]
    disk = stored(observed(found, feeds, tmp_path), tmp_path / "stored")
    for scheme in (Scheme.INT8_STATIC, Scheme.INT8_WEIGHT_ONLY):
        made, plain = (quantized(found, feeds, known, scheme, "x86-vnni") for known in (disk, {}))
        weights = [name for name in made.graph.initializers if "/int8" in name]
        assert weights
        assert sorted(weights) == sorted(n for n in plain.graph.initializers if "/int8" in n)
        readers = [made.graph.initializers[name].uses() for name in weights]
        shared = [sum(len(list(use.node.outputs[0].uses())) for use in uses) for uses in readers]
        assert max(shared) == 2
