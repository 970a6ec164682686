"""What calibration saw is what numpy sees of the float graph, whatever the order and threads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import graphs
import numpy as np
import pytest
import small

from edgec import histogram
from edgec import samples as data
from edgec.calibrate import calibrate
from edgec.calibrators import limits
from edgec.errors import InputError
from edgec.placement import place
from edgec.samples import Samples, read
from edgec.types import Graph, Method, Placement, Statistics

RELATIVE = 1e-5  # one rounding of float32 in a sum


def placement(found: Graph, target: str = "x86-vnni") -> Placement:
    return place(found.model, small.plan(found, target).decisions, small.runtime(target))


def folder_of(name: str, folder: Path, count: int = 5) -> Samples:
    found = small.fixture(name)
    graphs.write_samples(name, folder, count)
    return data.open_samples(folder, data.inputs(found), 100)


def observe(
    found: Graph, samples: Samples, histograms: frozenset[str] = frozenset(), threads: int = 1
) -> Statistics:
    return calibrate(found, placement(found), histograms, samples, data.inputs(found), threads)


def arrays(found: Graph, samples: Samples, names: list[str]) -> dict[str, list[np.ndarray]]:
    """Intermediate values of the float graph, as outputs of their own."""
    inputs = {v.name for v in found.model.graph.inputs}
    model = small.exposed(found.model, [name for name in names if name not in inputs])
    seen: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for path in samples.calibration:
        feeds = read(path, data.inputs(found))
        known = {**feeds, **small.run(model, feeds, level="ORT_ENABLE_BASIC")}
        for name in names:
            seen[name].append(known[name])
    return seen


@pytest.mark.parametrize("name", ["clip_torchscript", "siamese", "no_value_info", "cnn_tf"])
def test_ranges_means_and_extremes_equal_numpy(name: str, tmp_path: Path) -> None:
    found, samples = small.fixture(name), folder_of(name, tmp_path)
    need = placement(found)
    statistics = observe(found, samples)
    assert statistics.samples == len(samples.calibration)
    assert statistics.fingerprint == samples.fingerprint
    assert need.values
    assert need.means
    assert set(statistics.values) == need.values | need.means | need.extents
    seen = arrays(found, samples, sorted(statistics.values))
    for value, one in statistics.values.items():
        assert one.samples == len(samples.calibration)
        assert one.histogram is None
        scale = max(float(np.abs(a).max()) for a in seen[value])
        if value in need.values:
            assert one.low == pytest.approx(
                min(float(a.min()) for a in seen[value]), abs=RELATIVE * scale
            )
            assert one.high == pytest.approx(
                max(float(a.max()) for a in seen[value]), abs=RELATIVE * scale
            )
        assert (one.channel_mean is not None) == (value in need.means)
        if one.channel_mean is not None:
            axes = [tuple(i for i in range(a.ndim) if i != 1) for a in seen[value]]
            means = [
                a.mean(axis=x, dtype=np.float64) for a, x in zip(seen[value], axes, strict=True)
            ]
            np.testing.assert_allclose(
                one.channel_mean, np.mean(means, axis=0), atol=RELATIVE * scale
            )
        flat = np.concatenate([a.reshape(-1, a.shape[-1]) for a in seen[value]])
        for found_extreme, extreme in (
            (one.channel_low, flat.min(axis=0)),
            (one.channel_high, flat.max(axis=0)),
        ):
            assert (found_extreme is not None) == (value in need.extents)
            if found_extreme is not None:
                np.testing.assert_allclose(found_extreme, extreme, atol=RELATIVE * scale)


def _same(one: Statistics, other: Statistics) -> None:
    assert one.values.keys() == other.values.keys()
    for name, value in one.values.items():
        twin = other.values[name]
        assert value.low == pytest.approx(twin.low, rel=RELATIVE, abs=1e-6)
        assert value.high == pytest.approx(twin.high, rel=RELATIVE, abs=1e-6)
        for first, second in (
            (value.channel_mean, twin.channel_mean),
            (value.channel_low, twin.channel_low),
            (value.channel_high, twin.channel_high),
        ):
            assert (first is None) == (second is None)
            if first is not None:
                np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-6)


def test_the_order_of_the_files_does_not_matter(tmp_path: Path) -> None:
    found, samples = small.fixture("clip_torchscript"), folder_of("clip_torchscript", tmp_path)
    turned = replace(samples, calibration=tuple(reversed(samples.calibration)))
    _same(observe(found, samples), observe(found, turned))


def test_the_number_of_threads_does_not_matter(tmp_path: Path) -> None:
    found, samples = small.fixture("clip_torchscript"), folder_of("clip_torchscript", tmp_path)
    _same(observe(found, samples, threads=1), observe(found, samples, threads=2))


def test_verification_files_are_not_looked_at(tmp_path: Path) -> None:
    found, samples = small.fixture("cnn"), folder_of("cnn", tmp_path)
    before = observe(found, samples)
    for path in samples.verification:
        path.unlink()
    _same(before, observe(found, samples))


def test_without_data_or_need_nothing_is_run(tmp_path: Path) -> None:
    found = small.fixture("cnn")
    synthetic = data.synthetic(found, tmp_path)
    assert observe(found, synthetic) == Statistics()
    samples = folder_of("cnn", tmp_path / "s")
    nothing = Placement(frozenset(), {}, frozenset(), frozenset(), frozenset())
    empty = calibrate(found, nothing, frozenset(), samples, data.inputs(found), 1)
    assert empty == Statistics({}, 0, samples.fingerprint)


def test_the_model_is_not_changed(tmp_path: Path) -> None:
    found, samples = small.fixture("cnn"), folder_of("cnn", tmp_path)
    before = small.ops(found.model), len(found.model.graph.outputs)
    observe(found, samples, placement(found).values)
    assert (small.ops(found.model), len(found.model.graph.outputs)) == before


# histograms and averages


@pytest.mark.parametrize("name", ["clip_torchscript", "cnn_tf"])
def test_histograms_and_averages_equal_numpy(name: str, tmp_path: Path) -> None:
    found, samples = small.fixture(name), folder_of(name, tmp_path)
    values = placement(found).values
    statistics = observe(found, samples, values)
    seen = arrays(found, samples, sorted(values))
    grid = small.runtime("x86-vnni").grid
    for value in values:
        one = statistics.values[value]
        flat = np.concatenate([a.ravel() for a in seen[value]]).astype(np.float64)
        scale = float(np.abs(flat).max())
        assert one.histogram is not None
        assert one.histogram.counts.sum() == flat.size
        expected = histogram.count(flat)
        assert one.histogram.exponent == expected.exponent
        assert abs(one.histogram.first - expected.first) <= 1
        for average, each in (
            (one.mean_low, [float(a.min()) for a in seen[value]]),
            (one.mean_high, [float(a.max()) for a in seen[value]]),
        ):
            assert average == pytest.approx(np.mean(each), abs=RELATIVE * scale)
        for method in Method:
            low, high = limits(statistics, value, method, grid)
            assert one.low <= low < high <= one.high


# activations that are not finite


@pytest.mark.parametrize("number", [1e30, -1e30])
def test_infinite_activations_name_value_and_file(number: float, tmp_path: Path) -> None:
    made = small.model(
        """g (float[1,16,6,6] x) => (float[1,16,6,6] y) {
             c = Conv <pads = [1,1,1,1]> (x, w)
             m = Mul (c, c)
             y = Conv <pads = [1,1,1,1]> (m, w)
           }""",
        w=small.normal(0, 16, 16, 3, 3),
    )
    found = small.canonical(made)
    for index in range(3):
        array = np.full((1, 16, 6, 6), number if index == 2 else 1, np.float32)
        np.savez(tmp_path / f"s{index}.npz", x=array)
    samples = data.open_samples(tmp_path, data.inputs(found), 100)
    with pytest.raises(InputError) as caught:
        observe(found, samples)
    assert caught.value.message.startswith(f"{tmp_path / 's2.npz'}: ")
    assert "NaN or infinity at value 'm'" in caught.value.message
    assert "leave the sample out" in caught.value.hint
    assert caught.value.exit_code == 3


def test_a_file_that_is_damaged_after_the_check(tmp_path: Path) -> None:
    found, samples = small.fixture("cnn"), folder_of("cnn", tmp_path)
    samples.calibration[1].write_bytes(b"PK")
    with pytest.raises(InputError, match=samples.calibration[1].name):
        observe(found, samples)
