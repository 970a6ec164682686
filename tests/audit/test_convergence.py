"""The extremes are numpy's, and the curve is the formula's, whatever the order of the files."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import graphs
import numpy as np
import pytest
import small
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.audit.convergence import STILL, converge
from edgec.audit.extremes import Extremes, extremes, observed
from edgec.audit.plot import svg
from edgec.build import Job, prepare
from edgec.samples import inputs, read


def spans(low: np.ndarray, high: np.ndarray) -> Extremes:
    return Extremes(tuple(f"v{i}" for i in range(low.shape[1])), low, high, {})


@pytest.mark.parametrize("name", ["clip_torchscript", "no_value_info"])
def test_extremes_equal_numpy(name: str, tmp_path: Path) -> None:
    graphs.write_samples(name, tmp_path, 3)
    prepared = prepare(Job(model=graphs.path(name), target="x86-vnni", data=tmp_path))
    values, files = observed(prepared), sorted(tmp_path.glob("*.npz"))
    assert len(values) > 5
    found = extremes(prepared.graph, values, files, prepared.inputs, 1)
    assert found.low.shape == found.high.shape == (3, len(values))
    inputs = {one.name for one in prepared.inputs}
    model = small.exposed(prepared.graph.model, [n for n in values if n not in inputs])
    for row, path in enumerate(files):
        feeds = read(path, prepared.inputs)
        seen = {**feeds, **small.run(model, feeds, level="ORT_ENABLE_BASIC")}
        for column, value in enumerate(values):
            scale = float(np.abs(seen[value]).max())
            assert abs(found.low[row, column] - seen[value].min()) <= 1e-5 * scale
            assert abs(found.high[row, column] - seen[value].max()) <= 1e-5 * scale


def test_equal_samples_need_one(tmp_path: Path) -> None:
    curve = converge(spans(np.full((8, 3), -1.0), np.full((8, 3), 2.0)))
    assert curve.enough == 1
    assert not curve.worst.any()


def test_ranges_that_grow_with_every_sample_are_never_enough() -> None:
    high = np.cumsum(np.ones((64, 4)), axis=0)
    curve = converge(spans(np.zeros_like(high), high))
    # the mean of the largest of n of 1 … N is n (N + 1) / (n + 1)
    n = np.arange(1, 65)
    np.testing.assert_allclose(curve.median, 1 - n * 65 / (n + 1) / 64, atol=0.15)
    slow = np.exp2(high)
    assert converge(spans(np.zeros_like(slow), slow)).enough == 0


def test_the_worst_tenth_decides() -> None:
    low, high = np.zeros((32, 10)), np.ones((32, 10))
    high[:, :2] = np.exp2(np.arange(32))[:, None]
    curve = converge(spans(low, high))
    assert curve.enough == 0
    assert curve.median.max() == 0
    high[:, :2] = 1
    assert converge(spans(low, high)).enough == 1


@given(st.integers(0, 2**32 - 1), st.integers(8, 40))
@settings(max_examples=25, deadline=None)
def test_the_curve_falls_to_zero_and_enough_is_where_it_stays_low(seed: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    middle = generator.normal(0, 1, (count, 6))
    half = generator.exponential(1, (count, 6))
    curve = converge(spans(middle - half, middle + half))
    for line in (curve.median, curve.worst):
        assert (np.diff(line) <= 1e-12).all()
        assert line[-1] == 0
        assert line.max() < 1
    if curve.enough:
        assert curve.enough <= count // 2
        assert (curve.worst[curve.enough - 1 :] < STILL).all()
        assert curve.enough == 1 or curve.worst[curve.enough - 2] >= STILL
    else:
        assert curve.worst[count // 2 - 1] >= STILL


def test_a_value_is_judged_by_its_own_samples() -> None:
    low, high = np.zeros((16, 3)), np.ones((16, 3))
    low[:, 0] = high[:, 0] = np.nan  # never finite
    low[3, 1], high[3, 1] = np.inf, -np.inf  # empty once
    curve = converge(spans(low, high))
    assert (curve.samples, curve.values) == (16, 2)
    assert 1 <= curve.enough <= 2
    low[4:, 1], high[4:, 1] = np.nan, np.nan  # known from three samples, which come late
    curve = converge(spans(low, high))
    assert (curve.samples, curve.values, curve.enough) == (16, 2, 0)
    assert curve.worst[0] > 0.5
    assert curve.worst[-1] == 0


def test_what_is_finite_and_what_is_empty(tmp_path: Path) -> None:
    """A mean in float32 of what `m` holds would be infinite."""
    text = """g (float[n, 4] x, bool[n] c) => (float[k, 4] e, float[n, 4] r) {
      m = Mul (x, big)  r = Sqrt (x)  e = Compress <axis = 0> (m, c) }"""
    found = small.graph(small.model(text, big=np.float32(3e37)))
    for number in range(3):
        x = np.full((1, 4), 2.0 + number, np.float32)
        x[0, 2] *= -1 if number == 1 else 1
        np.savez(tmp_path / f"{number}.npz", x=x, c=np.array([number == 2]))
    files = sorted(tmp_path.glob("*.npz"))
    got = extremes(found, ("m", "r", "e"), files, inputs(found), 1)
    assert got.seen.tolist() == [[True, True, False], [True, False, False], [True, True, True]]
    assert got.bad.tolist() == [[False] * 3, [False, True, False], [False] * 3]
    assert got.high[:, 0].tolist() == pytest.approx([6e37, 9e37, 12e37])


@pytest.mark.parametrize(("count", "values"), [(0, 3), (1, 3), (8, 0)])
def test_nothing_to_draw(count: int, values: int) -> None:
    curve = converge(spans(np.zeros((count, values)), np.ones((count, values))))
    assert curve.points == ()
    assert curve.enough == 0


def test_the_plot_is_an_svg_with_a_point_for_every_number() -> None:
    generator = np.random.default_rng(0)
    curve = converge(spans(-generator.uniform(1, 2, (20, 5)), generator.uniform(1, 2, (20, 5))))
    page = ElementTree.fromstring(svg(curve, "ranges of <mine> & yours"))
    assert page.tag == "{http://www.w3.org/2000/svg}svg"
    lines = [one for one in page if one.tag.endswith("polyline")]
    for line, name in zip(lines, ("worst", "median"), strict=True):
        points = [tuple(map(float, p.split(","))) for p in line.attrib["points"].split()]
        assert len(points) == 20
        heights = [y for _, y in points]
        assert heights == sorted(heights)  # down the page, as the gap falls
        assert max(heights) < float(page.attrib["height"])
        assert getattr(curve, name)[-1] == 0
    texts = [one.text for one in page if one.tag.endswith("text")]
    assert "ranges of <mine> & yours" in texts
    assert {"1", "2", "4", "8", "20"} <= set(texts)
