"""Each CPU row asks for the numbers that the kernels of that CPU multiply without loss.

AVX2 without VNNI multiplies unsigned by signed bytes with VPMADDUBSW, which adds two products in 16
bits and saturates. VPDPBUSD (VNNI), the kernels for SSE4.1 (PMADDWD) and SDOT add in 32 bits.
Sources: onnxruntime, core/mlas/lib (QgemmU8X8KernelAvx2, platform.cpp); Intel SDM, VPMADDUBSW.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import graphs
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import small
from engines import emit, engine
from test_onnxruntime import TRAP, fed

from edgec.quantize.weights import FULL, REDUCED, quantize_weight
from edgec.results import Artifact
from edgec.target import load_target, stacks
from edgec.types import Runtime

# where an op of the optimised graph has its INT8 weight
WEIGHTS = {
    "QLinearConv": 3,
    "QLinearMatMul": 3,
    "QGemm": 3,
    "MatMulInteger": 1,
    "MatMulIntegerToFloat": 1,
    "DynamicQuantizeMatMul": 1,
}
ROWS = {
    "x86-vnni": ("uint8", "int8", False),
    "x86-avx2": ("uint8", "int8", True),
    "aarch64-dotprod": ("int8", "int8", False),
    "generic": ("uint8", "int8", True),  # it may have AVX2 and no more
}


def runtimes(name: str) -> list[Runtime]:
    found = [one for stack in stacks(name) for one in load_target(name, stack).runtimes]
    return [one for one in found if one.backend == "onnxruntime"]


@pytest.mark.parametrize("name", ROWS)
def test_the_grid_of_a_row_is_that_of_its_kernels(name: str) -> None:
    found = runtimes(name)
    assert len(found) > 1
    for one in found:
        grid = one.grid
        assert (grid.activations, grid.weights, grid.reduce_range) == ROWS[name]
        assert grid.per_channel
        config = one.settings.get("config", {})
        signed = grid.activations == "int8"
        assert config == ({"session.qdqisint8allowed": "1"} if signed else {})


def maddubs(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """[M, K] uint8 times [K, N] int8 as AVX2 does it: pairs of products saturate at 16 bits."""
    products = left.astype(np.int32)[:, :, None] * right.astype(np.int32)[None]
    pairs = products[:, 0::2] + products[:, 1::2]
    return np.clip(pairs, -(2**15), 2**15 - 1).sum(axis=1)


def exact(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return left.astype(np.int32) @ right.astype(np.int32)


def test_seven_bits_are_what_fits() -> None:
    extremes = np.array([[255, 255], [255, 0], [0, 255]], np.uint8)
    for most, lossless in ((REDUCED, True), (FULL, False)):
        weights = np.array([[most, -most, most], [most, -most, -most]], np.int8)
        agree = maddubs(extremes, weights) == exact(extremes, weights)
        assert agree.all() == lossless
    assert 2 * 255 * REDUCED < 2**15 < 2 * 255 * (REDUCED + 2)


@pytest.mark.parametrize("row", ["x86-avx2", "x86-vnni"])
def test_a_layer_of_random_weights(row: str) -> None:
    grid = small.runtime(row).grid
    weight = quantize_weight(small.normal(1, 64, 32), 1, grid).data
    bright = np.random.default_rng(2).integers(128, 256, (16, 64)).astype(np.uint8)
    off = np.abs(maddubs(bright, weight) - exact(bright, weight)).max()
    assert (off == 0) == grid.reduce_range


def optimised(artifact: Artifact, folder: Path, **config: str) -> ir.Model:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    for key, value in {**artifact.settings.get("config", {}), **config}.items():  # type: ignore[dict-item]
        options.add_session_config_entry(key, value)
    onnxruntime.InferenceSession(
        artifact.path, options, providers=["CPUExecutionProvider"], disabled_optimizers={TRAP}
    )
    return ir.load(folder / "optimised.onnx")


def built(row: str, name: str, folder: Path) -> Artifact:
    folder.mkdir(exist_ok=True)
    made, plan = engine(small.fixture(name), row, fed(name))
    return emit(made, plan, folder)


@pytest.mark.parametrize("name", ["cnn", "vit", "clip_dynamo"])
@pytest.mark.parametrize("row", ["x86-avx2", "x86-vnni"])
def test_every_weight_that_is_multiplied_fits_or_would_not(
    row: str, name: str, tmp_path: Path
) -> None:
    """Against the worst input: 255 where a weight is positive, 0 where it is not."""
    seen, lost = 0, 0
    for node in optimised(built(row, name, tmp_path), tmp_path).graph:
        place = WEIGHTS.get(node.op_type)
        value = None if place is None else node.inputs[place]
        if value is None or value.const_value is None:
            continue
        array = value.const_value.numpy()
        matrix = array.reshape(array.shape[0], -1).T if array.ndim > 2 else array
        matrix = matrix[: len(matrix) & ~1, :4]
        worst = np.where(matrix.T > 0, 255, 0).astype(np.uint8)
        seen += 1
        lost += not np.array_equal(maddubs(worst, matrix), exact(worst, matrix))
    assert seen >= 10
    assert (lost == 0) == (row == "x86-avx2")


def test_arm_keeps_signed_activations_because_it_is_told_to(tmp_path: Path) -> None:
    artifact = built("aarch64-dotprod", "cnn", tmp_path)

    def kinds(**config: str) -> set[str]:
        found = optimised(artifact, tmp_path, **config).graph
        points = [node.inputs[2] for node in found if node.op_type == "QLinearConv"]
        return {str(point.const_value.dtype) for point in points}  # type: ignore[union-attr]

    assert kinds() == {"INT8"}
    assert kinds(**{"session.qdqisint8allowed": "0"}) == {"UINT8"}


# the kernels themselves, on emulated CPUs

QEMU = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
RUN = """
import sys
import numpy as np
from edgec.runtime.onnxruntime_session import open_artifact
from pathlib import Path
session = open_artifact(Path(sys.argv[1]), {"disabled_optimizers": [sys.argv[4]], "threads": 1})
np.savez(sys.argv[3], **session.run(dict(np.load(sys.argv[2]))))
"""


def emulated(cpu: str, artifact: Artifact, feeds: Path) -> dict[str, np.ndarray]:
    assert QEMU is not None
    out = feeds.with_name(f"{cpu}.npz")
    where = [str(artifact.path), str(feeds), str(out), TRAP]
    subprocess.run(
        [QEMU, "-cpu", cpu, sys.executable, "-c", RUN, *where],
        check=True,
        capture_output=True,
        # numpy's OpenBLAS takes a CPU of this kind for one with AVX
        env={**os.environ, "OPENBLAS_CORETYPE": "Nehalem"},
    )
    return dict(np.load(out))


@pytest.mark.skipif(
    QEMU is None or platform.machine() != "x86_64", reason="needs qemu-user on x86-64"
)
@pytest.mark.parametrize("name", ["cnn", "vit", "siamese"])
@pytest.mark.parametrize(("row", "lossless"), [("x86-avx2", True), ("x86-vnni", False)])
def test_on_emulated_cpus(row: str, lossless: bool, name: str, tmp_path: Path) -> None:
    """Haswell has AVX2, Denverton SSE4.2 alone, whose kernels add in 32 bits."""
    artifact = built(row, name, tmp_path)
    feeds = tmp_path / "feeds.npz"
    np.savez(feeds, **graphs.load_feeds(name, 0))  # type: ignore[arg-type]
    reference = emulated("Denverton", artifact, feeds)
    got = emulated("Haswell", artifact, feeds)
    agreement = min(small.sqnr(reference[key], got[key]) for key in reference)
    assert (agreement > 100) == lossless
    assert lossless or agreement < 40


def test_the_row_alone_decides() -> None:
    def most(row: str) -> int:
        made, _ = engine(small.fixture("cnn"), row, fed("cnn"))
        names = [name for name in made.model.graph.initializers if name.endswith("/int8")]
        tensors = [made.model.graph.initializers[name].const_value for name in names]
        return max(int(np.abs(tensor.numpy()).max()) for tensor in tensors if tensor is not None)

    assert (most("x86-avx2"), most("x86-vnni")) == (REDUCED, FULL)
