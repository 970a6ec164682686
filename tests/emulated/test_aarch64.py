"""Bundles on emulated ARM cores: the integers of x86 bit for bit, and the same answers.

Cortex-A57 is Jetson Nano's, A72 Raspberry Pi 4's, A76 Raspberry Pi 5's and nearest to Orin's A78AE.
How long anything took there means nothing.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import graphs
import integers
import numpy as np
import pytest

from edgec.build import Job, build
from edgec.demo.data import write_calibration
from edgec.demo.model import compose
from edgec.runtime import npz
from edgec.runtime.model import load
from edgec.target import cpu_flags
from edgec.types import Limits

HERE = Path(__file__).resolve().parent
EMULATE = HERE.parents[1] / "tools/emulate"
LOOSE = Limits(part_sqnr_db=None, cosine=None)
FAST, OTHERS = "cortex-a76", ["cortex-a57", "cortex-a72"]
SLOW = pytest.mark.slow
CORES = [FAST, *(pytest.param(core, marks=SLOW) for core in OTHERS)]
COSINE = 0.9999
ONE_ROUNDING = 1.2e-7 * 2  # of float32, in a product and in a sum

pytestmark = pytest.mark.xdist_group("emulated")


def emulated(core: str, *words: str | Path) -> str:
    line = [str(EMULATE), core, *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="session", params=["clip", pytest.param("demonstration", marks=SLOW)])
def source(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A model of two towers and its samples."""
    folder = tmp_path_factory.mktemp("source")
    if request.param == "demonstration":
        return compose(folder / "emoji.onnx"), write_calibration(folder / "samples")
    samples = graphs.write_samples("clip_torchscript", folder / "samples", 6)
    return graphs.path("clip_torchscript"), samples


def built(source: tuple[Path, Path], folder: Path, stack: str | None = None) -> Path:
    """Two towers in INT8, for ARM cores with dot product."""
    model, data = source
    job = Job(
        model,
        target="aarch64-dotprod",
        stack=stack,
        data=data,
        output=folder / "model.edgec",
        measure=False,
        threads=1,
        limits=LOOSE,
    )
    return build(job).bundle


@pytest.fixture(scope="session")
def bundle(source: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(source, tmp_path_factory.mktemp("arm"))


@pytest.fixture(scope="session")
def unfolded(bundle: Path) -> Path:
    shutil.unpack_archive(bundle, bundle.parent / "unfolded", "zip")
    return bundle.parent / "unfolded"


@pytest.mark.parametrize("core", CORES)
def test_integer_ops_are_those_of_x86_bit_for_bit(
    core: str, bundle: Path, unfolded: Path, tmp_path: Path
) -> None:
    if not cpu_flags() & {"avx512_vnni", "avx_vnni", "asimddp"}:
        pytest.skip("without VNNI, x86 itself saturates")
    with load(bundle) as model:
        feeds = model.golden_inputs()
    (engine,) = (unfolded / "engines").glob("*.onnx")
    kinds = set()
    for fused in (False, True):
        path, inputs, here = integers.flat(engine, feeds, tmp_path, fused=fused)
        np.savez(tmp_path / "in.npz", **inputs)
        emulated(core, HERE / "device.py", path, tmp_path / "in.npz", tmp_path / "out.npz")
        there = npz.read(tmp_path / "out.npz", "out.npz")
        assert there.keys() == here.keys()
        for name, array in here.items():
            kinds.add(name.rsplit("_", 1)[1])
            if array.dtype.kind in "iu":
                np.testing.assert_array_equal(there[name], array, name)
            else:  # a sum in integers, scaled in float
                limit = ONE_ROUNDING * np.abs(array).max()
                np.testing.assert_allclose(there[name], array, 0, limit, err_msg=name)
    assert {"QLinearConv", "MatMulInteger", "DynamicQuantizeLinear", "QuantizeLinear"} <= kinds


@pytest.mark.parametrize("core", CORES)
def test_a_bundle_runs_itself_and_answers_as_on_x86(
    core: str, bundle: Path, tmp_path: Path
) -> None:
    answers_agree(core, bundle, tmp_path)


@SLOW
def test_a_bundle_of_openvino_answers_as_on_x86(source: tuple[Path, Path], tmp_path: Path) -> None:
    answers_agree(FAST, built(source, tmp_path, "openvino"), tmp_path)


def answers_agree(core: str, bundle: Path, tmp_path: Path) -> None:
    told = emulated(core, bundle, "run", "--golden", "--outputs", tmp_path / "out.npz")
    assert "float32" in told
    there = npz.read(tmp_path / "out.npz", "out.npz")
    with load(bundle) as model:
        here = model.run(model.golden_inputs())
    for name, array in here.items():
        a, b = array.ravel().astype(np.float64), there[name].ravel().astype(np.float64)
        assert a @ b / np.sqrt((a @ a) * (b @ b)) >= COSINE, name
