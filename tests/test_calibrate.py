"""What calibration saw is what numpy sees of the float graph, byte for byte the same each time."""

from __future__ import annotations

from pathlib import Path

import calibrations
import numpy as np
import pytest
import small
from calibrations import NATIVE, NUMPY, filed, observed, of_fixture, plain, want, written

from edgec import calibrate, histogram
from edgec.calibrate import Means
from edgec.errors import InputError
from edgec.lineage import lineages
from edgec.rows import Row
from edgec.runtime import npz
from edgec.types import Graph, Histogram, Statistics

RELATIVE = 1e-5  # one rounding of float32 in a sum


def arrays(found: Graph, rows: list[Row], names: list[str]) -> dict[str, list[np.ndarray]]:
    """Intermediate values of the float graph, as outputs of their own."""
    inputs = {v.name for v in found.model.graph.inputs}
    model = small.exposed(found.model, [name for name in names if name not in inputs])
    seen: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for row in rows:
        feeds = npz.read(row.path, "sample")
        known = {**feeds, **small.run(model, feeds, level="ORT_ENABLE_BASIC")}
        for name in names:
            seen[name].append(known[name])
    return seen


def same(one: Histogram | None, other: Histogram) -> bool:
    return (
        one is not None
        and (one.exponent, one.first) == (other.exponent, other.first)
        and np.array_equal(one.counts, other.counts)
    )


@pytest.mark.parametrize("name", ["clip_torchscript", "cnn_tf"])
def test_ranges_means_extremes_and_histograms_equal_numpy(name: str, tmp_path: Path) -> None:
    found, rows = small.fixture(name), of_fixture(name, tmp_path)
    need = calibrations.all_needs(found)
    statistics = observed(found, need, rows, NATIVE)
    assert need.values
    assert need.means
    assert statistics.samples == tuple(row.digest for row in rows)
    assert set(statistics.values) == need.values | need.means | need.extents
    seen = arrays(found, rows, sorted(statistics.values))
    for value, one in statistics.values.items():
        each = seen[value]
        flat = np.concatenate([a.ravel() for a in each])
        near = {"abs": RELATIVE * float(np.abs(flat).max())}
        assert (one.histogram is not None) == (value in need.values)
        if one.histogram is not None:
            lows, highs = [float(a.min()) for a in each], [float(a.max()) for a in each]
            assert one.seen == len(rows)
            assert one.low == pytest.approx(min(lows), **near)
            assert one.high == pytest.approx(max(highs), **near)
            assert one.mean_low == pytest.approx(np.mean(lows), **near)
            assert one.mean_high == pytest.approx(np.mean(highs), **near)
            expected = histogram.count(flat)
            assert one.histogram.exponent == expected.exponent
            assert one.histogram.counts.sum() == flat.size
            assert (one.nans, one.infinities) == (0, 0)
        assert (one.channel_mean is not None) == (value in need.means)
        if one.channel_mean is not None and one.channel_seen is not None:
            axes = tuple(axis for axis in range(each[0].ndim) if axis != 1)
            means = [a.mean(axis=axes, dtype=np.float64) for a in each]
            np.testing.assert_allclose(one.channel_mean, np.mean(means, axis=0), atol=near["abs"])
            assert (one.channel_seen == len(rows)).all()
        rest = np.concatenate([a.reshape(-1, a.shape[-1]) for a in each])
        for mine, extreme in ((one.channel_low, rest.min(0)), (one.channel_high, rest.max(0))):
            assert (mine is not None) == (value in need.extents)
            if mine is not None:
                np.testing.assert_allclose(mine, extreme, atol=near["abs"])


@pytest.mark.parametrize("means", [NATIVE, NUMPY])
def test_an_input_is_seen_exactly(means: Means, tmp_path: Path) -> None:
    """Nothing rounds on the way to a graph input: every figure is numpy's own."""
    rng = np.random.default_rng(3)
    xs = [(rng.normal(0, 10.0**k, (700 * k + 1, 3))).astype(np.float32) for k in range(4)]
    rows = written(tmp_path, [{"x": x} for x in xs])
    one = observed(plain(), want({"x"}, (), {"x"}), rows, means).values["x"]
    flat = np.concatenate(xs)
    assert same(one.histogram, histogram.count(flat))
    assert (one.low, one.high, one.seen) == (flat.min(), flat.max(), 4)
    assert one.mean_low == pytest.approx(np.mean([x.min() for x in xs], dtype=np.float64))
    np.testing.assert_array_equal(one.channel_low, flat.min(axis=0))
    np.testing.assert_array_equal(one.channel_high, flat.max(axis=0))


# the same bytes


@pytest.mark.parametrize("name", ["clip_torchscript", "cnn_tf", "trimodal_cross"])
def test_how_it_counts_does_not_matter(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Native code, numpy, more streams, and a graph for each value, since memory is short."""
    found, rows = small.fixture(name), of_fixture(name, tmp_path / "s", 3)
    need = calibrations.all_needs(found)
    ways = {"native": NATIVE, "streams": Means(threads=3), "numpy": Means(2, native=False)}
    bytes_of = {key: filed(found, need, rows, tmp_path / key, way) for key, way in ways.items()}
    monkeypatch.setattr(calibrate, "AT_ONCE", 1)
    bytes_of["portions"] = filed(found, need, rows, tmp_path / "portions", NUMPY)
    assert set(bytes_of.values()) == {bytes_of["native"]}


def test_the_order_of_samples_moves_averages_alone(tmp_path: Path) -> None:
    found, rows = small.fixture("mlp"), of_fixture("mlp", tmp_path, 4)
    need = want({v.name for v in found.model.graph.inputs})  # type: ignore[misc]
    one, other = observed(found, need, rows), observed(found, need, rows[::-1])
    for name, value in one.values.items():
        twin = other.values[name]
        assert same(value.histogram, twin.histogram or histogram.EMPTY)
        assert (value.low, value.high) == (twin.low, twin.high)
        assert value.mean_low == pytest.approx(twin.mean_low)


def test_the_model_is_not_changed(tmp_path: Path) -> None:
    found, rows = small.fixture("cnn"), of_fixture("cnn", tmp_path, 2)
    before = small.ops(found.model), len(found.model.graph.outputs)
    observed(found, calibrations.all_needs(found), rows)
    assert (small.ops(found.model), len(found.model.graph.outputs)) == before


def test_without_samples_or_need_nothing_runs(tmp_path: Path) -> None:
    found = plain()
    assert observed(found, want({"x"}), []) == Statistics()
    work = calibrate.Calibration(found, written(tmp_path, [{"x": np.ones((1, 3), "f4")}]), NUMPY)
    assert work.observe(want()) == Statistics()
    assert work.efforts == []


# growth


def test_samples_that_come_later(tmp_path: Path) -> None:
    """Adding samples equals calibrating on all at once in that order."""
    found, rows = small.fixture("clip_torchscript"), of_fixture("clip_torchscript", tmp_path / "s")
    need = calibrations.all_needs(found)
    at_once = filed(found, need, rows, tmp_path / "once")
    filed(found, need, rows[:2], tmp_path / "grown")
    assert filed(found, need, rows, tmp_path / "grown") == at_once
    work = calibrate.Calibration(found, rows, NUMPY, tmp_path / "grown")
    work.observe(need)
    assert work.efforts == []  # all is known
    assert (tmp_path / "grown").read_bytes() == at_once


def test_samples_may_go_once_they_are_seen(tmp_path: Path) -> None:
    found, rows = (
        plain(),
        written(tmp_path / "s", [{"x": np.eye(3, dtype="f4") * k} for k in (1, 2, 3)]),
    )
    once = filed(found, want({"x", "y"}), rows, tmp_path / "once")
    filed(found, want({"x", "y"}), rows[:2], tmp_path / "grown")
    for row in rows[:2]:
        row.path.unlink()
    assert filed(found, want({"x"}), rows[2:], tmp_path / "grown") == once


@pytest.mark.parametrize("more", [0, 1])
def test_new_values_need_the_samples_again(more: int, tmp_path: Path) -> None:
    rows = written(tmp_path / "s", [{"x": np.eye(3, dtype="f4") * k} for k in (1, 2, 3)])
    before = filed(plain(), want({"x"}), rows[:2], tmp_path / "file")
    with pytest.raises(InputError, match="1 of its 2 samples are not among the data, and 1 values"):
        filed(plain(), want({"x", "y"}), rows[1 : 2 + more], tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == before  # nor was it extended in vain


def test_a_file_of_another_model_and_no_sample_to_begin_with(tmp_path: Path) -> None:
    rows = written(tmp_path / "s", [{"x": np.eye(3, dtype="f4")}])
    filed(network(), want({"y"}), rows, tmp_path / "file")
    work = calibrate.Calibration(network(2.0), [], NUMPY, tmp_path / "file")
    with pytest.raises(InputError, match="1 of its 1 samples are not among the data, and 1 values"):
        work.observe(want({"z"}))


def test_a_sample_counts_as_often_as_it_is_given(tmp_path: Path) -> None:
    x = {"x": np.eye(3, dtype="f4")}
    rows = written(tmp_path / "s", [x, x])
    statistics = observed(plain(), want({"x"}), rows)
    assert statistics.values["x"].seen == 2
    assert len(statistics.samples) == 2
    filed(plain(), want({"x"}), rows[:1], tmp_path / "file")
    grown = calibrate.Calibration(plain(), rows, NUMPY, tmp_path / "file").observe(want({"x"}))
    assert grown.values["x"].seen == 2


def test_values_that_are_asked_for_later(tmp_path: Path) -> None:
    """Only they are watched, on all samples, and what is known stays as it is."""
    found, rows = small.fixture("clip_torchscript"), of_fixture("clip_torchscript", tmp_path / "s")
    need = calibrations.all_needs(found)
    first = want(sorted(need.values)[:4])
    work = calibrate.Calibration(found, rows, NUMPY, tmp_path / "file")
    before = dict(work.observe(first).values)
    after = work.observe(need)
    assert [one.runs for one in work.efforts] == [4, 4]
    assert set(after.values) == need.values | need.means | need.extents
    for name, one in before.items():
        assert same(one.histogram, after.values[name].histogram or histogram.EMPTY)
        assert (one.low, one.mean_low) == (after.values[name].low, after.values[name].mean_low)
    assert calibrate.Calibration(found, rows, NUMPY, tmp_path / "file").observe(need).samples


def network(scale: float = 1.0, names: str = "xyzv") -> Graph:
    """Two branches: z follows from the second weight, y does not."""
    x, y, z, v = names
    text = f"""g (float[n,3] x) => (float[n,3] out) {{
      {y} = MatMul (x, w1)  {z} = MatMul (x, w2)  {v} = Abs ({z})  out = Add ({y}, {v}) }}"""
    assert x == "x"
    eye = np.eye(3, dtype=np.float32)
    return small.graph(small.model(text, w1=eye, w2=eye * np.float32(scale)))


def test_a_changed_weight_invalidates_what_depends_on_it(tmp_path: Path) -> None:
    rows = written(tmp_path / "s", [{"x": np.eye(3, dtype="f4")}])
    need, file = want({"x", "y", "z", "v"}), tmp_path / "file"
    filed(network(), need, rows, file)
    work = calibrate.Calibration(network(2.0), rows, NUMPY, file)
    assert set(work.statistics.values) == {"x", "y"}
    assert "1 of 4 values depend on what has changed" in work.dropped
    assert work.observe(need).values["z"].high == 2.0
    assert work.statistics.values["y"].high == 1.0


def test_the_statistics_of_another_model_are_kept(tmp_path: Path) -> None:
    rows = written(tmp_path / "s", [{"x": np.eye(3, dtype="f4")}])
    file = tmp_path / "file"
    once = filed(network(), want({"y", "z"}), rows, file)
    other = small.graph(small.model("g (float[n,3] q) => (float[n,3] out) { out = Abs (q) }"))
    with pytest.raises(InputError, match="none of its 2 values is one of this model's"):
        calibrate.Calibration(other, rows, NUMPY, file)
    assert file.read_bytes() == once


def test_renaming_invalidates_nothing(tmp_path: Path) -> None:
    rows = written(tmp_path / "s", [{"x": np.eye(3, dtype="f4")}])
    filed(network(3.0), want({"x", "y", "z", "v"}), rows, tmp_path / "file")
    other = network(3.0, "xbca")
    work = calibrate.Calibration(other, rows, NUMPY, tmp_path / "file")
    assert work.observe(want({"x", "b", "c", "a"})).values["c"].high == 3.0
    assert work.efforts == []
    assert work.dropped == ""


def test_values_of_one_lineage_keep_apart(tmp_path: Path) -> None:
    """Equal computations: a file that knows one of them does not tell that both were asked for."""
    found = network(1.0)
    assert lineages(found)["y"] == lineages(found)["z"]
    rows = written(tmp_path / "s", [{"x": np.eye(3, dtype="f4") * k} for k in (1, 2)])
    once = filed(found, want({"y"}), rows, tmp_path / "once")
    filed(found, want({"y"}), rows[:1], tmp_path / "grown")
    assert filed(found, want({"y"}), rows, tmp_path / "grown") == once


# numbers that are none


@pytest.mark.parametrize("means", [NATIVE, NUMPY])
def test_nan_and_infinity_are_counted_and_left_out(means: Means, tmp_path: Path) -> None:
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    bad = x.copy()
    bad[0] = [np.nan, np.inf, -np.inf]
    nothing = np.full((2, 3), np.nan, np.float32)
    rows = written(tmp_path, [{"x": one} for one in (bad, nothing, x)])
    one = observed(plain(), want({"x"}, {"x"}, {"x"}), rows, means).values["x"]
    finite = np.concatenate([bad[np.isfinite(bad)], x.ravel()])
    assert (one.nans, one.infinities, one.seen) == (7, 2, 2)
    assert (one.low, one.high, one.mean_low) == (0.0, 11.0, 1.5)
    assert same(one.histogram, histogram.count(finite))
    # per channel, a sample with such numbers is left out
    np.testing.assert_array_equal(one.channel_seen, [1, 1, 1])
    np.testing.assert_array_equal(one.channel_mean, x.mean(axis=0))
    np.testing.assert_array_equal(one.channel_high, x.max(axis=0))


def test_bad_numbers_survive_the_file(tmp_path: Path) -> None:
    bad = np.array([[np.nan, 1, np.inf]], np.float32)
    rows = written(tmp_path / "s", [{"x": bad}, {"x": np.ones((1, 3), np.float32)}])
    need = want({"x", "y", "z"}, {"x"}, {"x"})
    once = filed(plain(), need, rows, tmp_path / "native", NATIVE)
    assert once == filed(plain(), need, rows, tmp_path / "numpy", NUMPY)
    filed(plain(), need, rows[:1], tmp_path / "grown")
    assert filed(plain(), need, rows, tmp_path / "grown") == once


@pytest.mark.parametrize("place", [0, 3, 6])
def test_a_channel_with_a_nan_is_left_out_wherever_it_stands(place: int, tmp_path: Path) -> None:
    """With channels that do and do not fill a vector register, and a negative zero."""
    text = "g (float[n,18] x) => (float[n,2] y) { y = MatMul (x, w) }"
    found = small.graph(small.model(text, w=np.ones((18, 2), np.float32)))
    x = small.normal(3, 7, 18)
    x[place, 4], x[place, 17], x[:, 5] = np.nan, np.inf, -0.0
    rows = written(tmp_path / "s", [{"x": x}])
    need = want({"x"}, (), {"x"})
    native = filed(found, need, rows, tmp_path / "native", NATIVE)
    assert native == filed(found, need, rows, tmp_path / "numpy", NUMPY)
    one = observed(found, need, rows, NATIVE).values["x"]
    assert one.channel_low is not None
    assert one.channel_high is not None
    x[:, [4, 17]] = 0
    np.testing.assert_array_equal(one.channel_low, x.min(axis=0))
    np.testing.assert_array_equal(one.channel_high, x.max(axis=0))
    assert not np.signbit(one.channel_low[5])


@pytest.mark.parametrize("means", [NATIVE, NUMPY])
def test_constants_and_zeros(means: Means, tmp_path: Path) -> None:
    rows = written(tmp_path, [{"x": np.full((2, 3), -0.0, np.float32)}] * 2)
    one = observed(plain(), want({"x", "y"}), rows, means).values["x"]
    assert (one.low, one.high, one.seen) == (0.0, 0.0, 2)
    assert np.copysign(1.0, one.low) == 1.0
    assert same(one.histogram, histogram.count(np.full(12, -0.0, np.float32)))


@pytest.mark.parametrize("means", [NATIVE, NUMPY])
def test_a_tensor_without_elements(means: Means, tmp_path: Path) -> None:
    """A sample that gives no number moves no average; a value that never has one was never seen."""
    nothing, x = np.zeros((0, 3), np.float32), np.full((2, 3), 4, np.float32)
    need = want({"x", "y"}, {"x"}, {"x"})
    never = observed(plain(), need, written(tmp_path / "a", [{"x": nothing}]), means)
    assert never.values["y"].seen == 0
    assert never.values["y"].low > never.values["y"].high
    assert same(never.values["y"].histogram, histogram.EMPTY)
    np.testing.assert_array_equal(never.values["x"].channel_seen, [0, 0, 0])
    rows = written(tmp_path / "b", [{"x": nothing}, {"x": x}, {"x": nothing}])
    one = observed(plain(), need, rows, means).values["x"]
    assert (one.seen, one.mean_low) == (1, 4.0)
    np.testing.assert_array_equal(one.channel_mean, [4, 4, 4])
    file = tmp_path / "file"
    filed(plain(), need, rows[:1], file, means)
    work = calibrate.Calibration(plain(), rows[:1], means, file)
    work.observe(need)
    assert work.efforts == []  # that there was nothing is known as well


@pytest.mark.parametrize("means", [NATIVE, NUMPY])
def test_behind_a_branch_that_never_runs(means: Means, tmp_path: Path) -> None:
    """What only an empty selection of the other branch reads is never seen."""
    found = small.graph(
        small.model(
            """g (float[n,3] x) => (float[k,2] z) {
              s = ReduceSum <keepdims = 0> (x)  c = Greater (s, big)
              b = If (c) <
                then_branch = t () => (float[p,3] u) { u = Identity (x) },
                else_branch = e () => (float[q,3] v) { v = Slice (x, zero, zero) } >
              z = MatMul (b, w) }""",
            w=np.ones((3, 2), np.float32),
            big=np.array(1e6, np.float32),
            zero=np.array([0], np.int64),
        )
    )
    rows = written(tmp_path, [{"x": np.ones((2, 3), np.float32)}] * 2)
    statistics = observed(found, want({"b", "z"}, (), {"b"}), rows, means)
    assert statistics.values["b"].seen == statistics.values["z"].seen == 0
    assert statistics.values["z"].histogram is not None


def test_a_vector_has_channels_too(tmp_path: Path) -> None:
    """MatMul of a vector: no axis is left to reduce."""
    text = "g (float[3] x) => (float[2] y) { y = MatMul (x, w) }"
    found = small.graph(small.model(text, opset=18, w=np.ones((3, 2), np.float32)))
    rows = written(tmp_path, [{"x": np.array([1, 2, k], np.float32)} for k in (3, -4)])
    one = observed(found, want({"x"}, (), {"x"}), rows).values["x"]
    np.testing.assert_array_equal(one.channel_low, [1, 2, -4])
    np.testing.assert_array_equal(one.channel_high, [1, 2, 3])


# errors


def test_a_sample_on_which_the_model_does_not_run(tmp_path: Path) -> None:
    text = """g (float[n,3] x, int64[n] i) => (float[n,3] y) {
      e = Gather (t, i)  s = Add (x, e)  y = MatMul (s, w) }"""
    eye = np.eye(3, dtype=np.float32)
    found = small.graph(small.model(text, w=eye, t=eye))
    x = np.ones((1, 3), np.float32)
    rows = written(tmp_path, [{"x": x, "i": np.array([k])} for k in (2, 3)])
    with pytest.raises(InputError, match=r"^s001\.npz: the float model does not run on it") as one:
        observed(found, want({"s"}), rows)
    assert "leave the sample out" in one.value.hint


def test_a_file_that_is_damaged_after_the_check(tmp_path: Path) -> None:
    rows = written(tmp_path, [{"x": np.ones((1, 3), np.float32)}] * 2)
    rows[1].path.write_bytes(b"PK")
    with pytest.raises(InputError, match=rows[1].path.name):
        observed(plain(), want({"x"}), rows)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none: no such folder"):
        calibrate.Calibration(plain(), [], NUMPY, tmp_path / "none" / "file")
