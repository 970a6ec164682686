"""Every shipped op on every backend that is present: one suite, with written tolerances.

The reference against numpy (`expected.py`), a native kernel against the reference (the tolerance in
its kernel.toml), on seeded inputs of odd shapes. Adding an op adds a row to `expected.OPS`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import expected
import models
import numpy as np
import onnx_ir as ir
import pytest

from edgec.errors import InputError, ToolchainError
from edgec.graphs import save
from edgec.kernels import Kernel, find
from edgec.kernels.native import level, library
from edgec.kernels.reference import attach, write_out
from edgec.prove import distance
from edgec.runtime.openers import opener
from edgec.target import load_target

SEED = 20
KERNELS = find()
CASES = [
    pytest.param(kernel, case, id=f"{kernel.name}: {case.label}")
    for key, kernel in KERNELS.items()
    for case in expected.OPS[key].cases(np.random.default_rng(SEED))
]
NATIVE = [one for one in CASES if "onnxruntime" in one.values[0].sources]


def reference(kernel: Kernel, case: expected.Case, path: Path) -> Path:
    """A file of one node, written out as its reference."""
    model = ir.from_proto(models.one_node(kernel, case.feeds, case.attributes))
    attach(model, {kernel.key: kernel})
    save(model, path)
    return path


def native(kernel: Kernel, case: expected.Case, path: Path) -> Path:
    """The same with the node itself."""
    model = ir.from_proto(models.one_node(kernel, case.feeds, case.attributes))
    attach(model, {kernel.key: kernel})
    write_out(model, {kernel.key})
    save(model, path)
    return path


def apart(kernel: Kernel, wanted: list[np.ndarray], made: dict[str, np.ndarray]) -> float:
    return distance([dict(zip(kernel.outputs, wanted, strict=True))], [made])


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All native kernels in one library, as a build links them."""
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler: apt install g++")
    own = [one for one in KERNELS.values() if "onnxruntime" in one.sources]
    return library(own, load_target("host"), tmp_path_factory.mktemp("kernels"), "kernels.so")


def test_every_op_has_its_numbers() -> None:
    assert set(KERNELS) == set(expected.OPS)
    assert len(CASES) > 20


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(("kernel", "case"), CASES)
def test_the_reference_is_what_numpy_says(
    kernel: Kernel, case: expected.Case, backend: str, tmp_path: Path
) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
        if any(array.size == 0 for array in case.feeds.values()):
            pytest.skip("OpenVINO takes no empty tensors")
    path = reference(kernel, case, tmp_path / "reference.onnx")
    settings = {"precision": "float32"} if backend == "openvino" else {}
    if backend == "openvino":
        from edgec.backends.openvino.ir import convert

        convert(path, path.with_suffix(".xml"), False)
        path = path.with_suffix(".xml")
    session = opener(backend)(path, settings)
    made = {name: np.asarray(array) for name, array in session.run(case.feeds).items()}
    wanted = expected.OPS[kernel.key].compute(**case.feeds, **case.attributes)
    assert apart(kernel, wanted, made) <= expected.OPS[kernel.key].tolerance


@pytest.mark.parametrize(("kernel", "case"), NATIVE)
def test_a_native_kernel_is_what_the_reference_says(
    kernel: Kernel, case: expected.Case, libraries: Path, tmp_path: Path
) -> None:
    shutil.copyfile(libraries, tmp_path / libraries.name)
    plain = opener("onnxruntime")(reference(kernel, case, tmp_path / "reference.onnx"), {})
    settings = {"kernels": [libraries.name], "threads": 2}
    session = opener("onnxruntime")(native(kernel, case, tmp_path / "native.onnx"), settings)
    wanted = [np.asarray(array) for array in plain.run(case.feeds).values()]
    made = {name: np.asarray(array) for name, array in session.run(case.feeds).items()}
    assert apart(kernel, wanted, made) <= kernel.tolerance


@pytest.mark.parametrize("opset", models.OPSETS)
def test_a_reference_follows_the_models_opset(opset: int, tmp_path: Path) -> None:
    path = models.net(tmp_path / "net.onnx", "edgec.kernels", "Squareplus", opset, b=2.0)
    model = ir.load(path)
    attach(model, KERNELS)
    assert write_out(model) == 1
    assert model.opset_imports[""] == max(opset, 17)
    save(model, tmp_path / "plain.onnx")
    x = np.random.default_rng(1).normal(0, 1, (2, 3, 16, 16)).astype(np.float32)
    (made,) = opener("onnxruntime")(tmp_path / "plain.onnx", {}).run({"x": x}).values()
    assert made.shape == (2, 8, 16, 16)


def test_a_cpu_that_lacks_what_kernels_need_is_refused(libraries: Path, tmp_path: Path) -> None:
    kernel = KERNELS["edgec.kernels::Squareplus"]
    case = next(expected.OPS[kernel.key].cases(np.random.default_rng(SEED)))
    shutil.copyfile(libraries, tmp_path / libraries.name)
    path = native(kernel, case, tmp_path / "native.onnx")
    for need in level(load_target("host"))[1], ("sse99", "neon99"):
        settings = {"kernels": [libraries.name], "kernels_need": list(need)}
        if "sse99" not in need:
            opener("onnxruntime")(path, settings)
            continue
        with pytest.raises(ToolchainError, match="need a CPU with sse99, neon99"):
            opener("onnxruntime")(path, settings)


def test_what_a_kernel_throws_is_an_error_of_the_run(libraries: Path, tmp_path: Path) -> None:
    kernel = KERNELS["edgec.kernels::GroupNormSilu"]
    case = next(expected.OPS[kernel.key].cases(np.random.default_rng(SEED)))
    feeds = {"x": np.ones((1, 6, 4), np.float32), "scale": np.ones(6, np.float32)}
    wrong = expected.Case("", {**feeds, "bias": np.ones(6, np.float32)}, {"num_groups": 4})
    shutil.copyfile(libraries, tmp_path / libraries.name)
    path = native(kernel, wrong, tmp_path / "native.onnx")
    session = opener("onnxruntime")(path, {"kernels": [libraries.name]})
    with pytest.raises(InputError, match="channels are no multiple of num_groups"):
        session.run(wrong.feeds)
    assert case.attributes["num_groups"] == 1
