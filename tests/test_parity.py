"""One set of statistics, lowered to each grid: the same scales, bit for bit, and the same numbers.

S8 symmetric, U8 around 128 and TensorRT's calibration cache are three ways to write one quantizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import graphs
import numpy as np
import onnx_ir as ir
import pytest
import small
from engines import everywhere, recovered, seen

from edgec.backends.tensorrt.calibration_cache import dump, parse, scales
from edgec.graphs import save
from edgec.lower import lower
from edgec.needs import every_value, union
from edgec.placement import place
from edgec.quantize import quantize
from edgec.runtime.openers import opener
from edgec.types import Graph, Grid, Method, Placement, Plan, Runtime, Scheme, Statistics

Array = np.ndarray
SOURCE = ("tests", "documented")
S8 = Grid("int8", True, "int8", True, False, *SOURCE)
U8 = Grid("uint8", True, "int8", True, False, *SOURCE)
BACKENDS = ("onnxruntime", "openvino")
NAMES = ("cnn", "vit")  # convolutions, and a transformer
METHODS = (Method.MINMAX, Method.ENTROPY)
# dB between OpenVINO's integer kernels and the same Q/DQ computed in float. A number on the edge of
# two steps falls to either side, and ten layers of random weights make much of it.
CLOSE = {"cnn": 24.0, "vit": 45.0}


@dataclass(frozen=True)
class Lowered:
    """A fixture's statistics on three samples, and what they become on a runtime's grid."""

    found: Graph
    plan: Plan
    runtime: Runtime
    statistics: Statistics
    placement: Placement

    def model(self, grid: Grid, method: Method) -> ir.Model:
        """In static INT8, without smoothing, which changes what is quantized."""
        runtime = replace(self.runtime, grid=grid)
        recovery = recovered(self.plan, method=method, smoothing=0.0)
        return quantize(self.found.model, self.plan.decisions, self.statistics, recovery, runtime)


@pytest.fixture(scope="module", params=[(n, b) for n in NAMES for b in BACKENDS], ids=str)
def lowered(request: pytest.FixtureRequest) -> Lowered:
    name, backend = request.param
    found, runtime = small.fixture(name), small.runtime("x86-vnni", backend)
    plan = small.plan(found, "x86-vnni", everywhere(Scheme.INT8_STATIC), backend=backend)
    feeds = [graphs.load_feeds(name, seed) for seed in range(3)]
    statistics = seen(found, plan, runtime, feeds, histograms=True)
    return Lowered(found, plan, runtime, statistics, place(found.model, plan.decisions, runtime))


def stored(model: ir.Model, what: str) -> dict[str, Array]:
    """The scales or zero points of values, by value."""
    return {
        name.removesuffix(f"/{what}"): value.const_value.numpy()  # type: ignore[union-attr]
        for name, value in model.graph.initializers.items()
        if name.endswith(f"/{what}")
    }


@pytest.mark.parametrize("method", METHODS)
def test_scales_are_equal_bit_for_bit(lowered: Lowered, method: Method) -> None:
    s8, u8 = (lowered.model(grid, method) for grid in (S8, U8))
    assert set(stored(s8, "scale")) == set(stored(u8, "scale"))
    _, cache = parse(dump(scales(lowered.statistics, method), "8.6.2"))
    assert lowered.placement.values <= set(cache)
    own = lowered.placement.values & set(stored(s8, "scale"))
    # a clamp that no INT8 op reads stays in float, as what a symmetric grid cannot imply
    left = lowered.placement.values - own
    assert left == (set() if "gelu" in own else {"hardtanh_4"})
    assert len(own) >= 8
    for name in own:
        bits = {stored(made, "scale")[name].tobytes() for made in (s8, u8)}
        assert bits == {np.float32(cache[name]).tobytes()}, name
        assert stored(s8, "zero_point")[name] == np.int8(0)
        assert stored(u8, "zero_point")[name] == np.uint8(128)
    # weights do not depend on how activations are written
    for name, value in s8.graph.initializers.items():
        if name.endswith("/int8"):
            other = u8.graph.initializers[name].const_value
            np.testing.assert_array_equal(value.const_value.numpy(), other.numpy())  # type: ignore[union-attr]


def name_of(found: Graph) -> str:
    return next(name for name in NAMES if small.fixture(name) is found)


def feeds_of(found: Graph) -> Mapping[str, Array]:
    return graphs.load_feeds(name_of(found), 7)


@pytest.mark.parametrize("method", METHODS)
def test_the_two_ways_to_write_it_compute_the_same(lowered: Lowered, method: Method) -> None:
    """Without optimisations Q/DQ is computed as it stands: not one step of difference."""
    feeds = feeds_of(lowered.found)
    exact = small.run(lowered.found.model, feeds)
    s8, u8 = (small.run(lowered.model(grid, method), feeds) for grid in (S8, U8))
    for name, array in exact.items():
        np.testing.assert_array_equal(s8[name], u8[name])
        assert 15 < small.sqnr(array, s8[name]) < 80  # quantized, and not broken


PAIR = """g (float[1,16,9,9] x) => (float[1,16,9,9] y) {
  [one] h = Conv <pads = [1,1,1,1]> (x, w)
  [act] r = Relu (h)
  [two] y = Conv <pads = [1,1,1,1]> (r, v)
}"""


def on_openvino(made: ir.Model, feeds: Mapping[str, Array], folder: Path) -> dict[str, Array]:
    save(made, folder / "model.onnx")
    settings = {"threads": 1, "precision": "float32", "device": "cpu"}
    session = opener("openvino")(folder / "model.onnx", settings)
    found = session.run({n: np.ascontiguousarray(a) for n, a in feeds.items()})
    session.close()
    return dict(found)


@pytest.mark.parametrize("grid", [S8, U8], ids=["s8", "u8"])
def test_two_layers_on_openvino_are_within_one_step(grid: Grid, tmp_path: Path) -> None:
    weights = {"w": small.normal(1, 16, 16, 3, 3) / 12, "v": small.normal(2, 16, 16, 3, 3) / 12}
    found = small.canonical(small.model(PAIR, **weights))
    runtime = small.runtime("x86-vnni", "openvino")
    plan = small.plan(found, "x86-vnni", everywhere(Scheme.INT8_STATIC), backend="openvino")
    feeds = [{"x": small.normal(seed, 1, 16, 9, 9)} for seed in range(3)]
    statistics = seen(found, plan, runtime, feeds)
    pair = replace(runtime, grid=grid)
    made = quantize(found.model, plan.decisions, statistics, recovered(plan), pair)
    step = float(stored(made, "scale")["y"])
    expected = small.run(made, feeds[0])["y"]
    built = on_openvino(made, feeds[0], tmp_path)["y"]
    assert np.abs(built - expected).max() <= 1.01 * step
    assert (np.abs(built - expected) > 0.01 * step).mean() < 0.02


@pytest.mark.parametrize("grid", [S8, U8], ids=["s8", "u8"])
def test_openvino_computes_what_the_file_says(lowered: Lowered, grid: Grid, tmp_path: Path) -> None:
    """Against the same file in ONNX Runtime as it stands."""
    made = lower(lowered.model(grid, Method.MINMAX), lowered.runtime)
    feeds = feeds_of(lowered.found)
    expected, found = small.run(made, feeds), on_openvino(made, feeds, tmp_path)
    float_form = small.run(lowered.found.model, feeds)
    for name, array in expected.items():
        assert small.sqnr(array, found[name]) > CLOSE[name_of(lowered.found)], name
        # what the kernels do differently costs nothing
        assert small.sqnr(float_form[name], found[name]) > small.sqnr(float_form[name], array) - 1


def test_a_cache_has_a_scale_for_what_q_dq_leaves_out() -> None:
    """TensorRT wants every value: the same scales where there is Q/DQ, and more of them."""
    found, runtime = small.fixture("cnn"), small.runtime("x86-vnni")
    plan = small.plan(found, "x86-vnni")
    need = place(found.model, plan.decisions, runtime)
    everything = union([need, every_value(found)])
    assert need.values < everything.values
    floats = {
        str(v.name)
        for node in found.model.graph
        for v in node.outputs
        if v.dtype == ir.DataType.FLOAT and not v.is_initializer()
    }
    assert floats <= everything.values
