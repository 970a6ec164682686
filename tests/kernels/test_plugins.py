"""Plugins of TensorRT: numerics on the CPU, kernels for Orin and Thor, the genuine bindings.

Whether TensorRT runs them is not verified on hardware.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import shutil
import subprocess
import zipfile
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bindings
import expected
import models
import numpy as np
import onnx
import pytest

import edgec.runtime
from edgec.build import Job, build, prepare
from edgec.errors import EmitError, InputError, ToolchainError
from edgec.kernels import Kernel, find
from edgec.kernels.plugins import GRAPHSURGEON, cubin, namespace
from edgec.prove import distance
from edgec.runtime import built
from edgec.runtime.bundle import Bundle
from edgec.runtime.tensorrt_plugins import _launch, register
from edgec.target import load_target

ROOT, HERE = Path(__file__).parents[2], Path(__file__).parent
CLASSIC, QUICK = ["10.3.0", "10.7.0"], ["10.16.1.11", "11.4.0.106"]
TARGETS = {"sm_87": ("jetson-orin", "jp6.2"), "sm_110": ("jetson-thor", "jp7.2")}
KERNELS = [one for one in find().values() if "tensorrt" in one.sources]
THREADS = 32  # of a block on the host
C_TYPES = {"float": "float", "int64": "long long", "int32": "int", "bool": "bool"}
needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no CUDA compiler (nvcc)")
needs_graphsurgeon = pytest.mark.skipif(
    find_spec(GRAPHSURGEON) is None, reason="no onnx-graphsurgeon: pip install 'edgec[tensorrt]'"
)


def cases(kernel: Kernel) -> list[expected.Case]:
    """Small ones: each thread of a block is one of the host."""
    found = expected.OPS[kernel.key].cases(np.random.default_rng(9))
    return [
        one
        for one in found
        if all(0 < array.size <= 4000 for array in one.feeds.values())
        and all(array.ndim > 2 for name, array in one.feeds.items() if name == "x")
    ]


CASES = [
    pytest.param(one, case, id=f"{one.name}: {case.label}")
    for one in KERNELS
    for case in cases(one)
]


@functools.cache
def hosted(source: Path, name: str, inputs: str, outputs: str, numbers: int) -> ctypes.CDLL:
    """The CUDA source compiled for the CPU, with a function that runs a grid of it."""
    arguments = []
    for index, kind in enumerate(inputs.split()):
        arguments.append(f"(const {C_TYPES[kind]} *)pointers[{index}]")
    arguments += [f"numbers[{index}]" for index in range(numbers)]
    for index, kind in enumerate(outputs.split(), len(inputs.split())):
        arguments.append(f"({C_TYPES[kind]} *)pointers[{index}]")
    folder = Path(os.environ["EDGEC_TEST_CUDA"])
    code = folder / f"{name}.cpp"
    code.write_text(
        f'#include "{HERE / "cuda_on_host.hpp"}"\n#include "{source}"\n'
        'extern "C" void run(unsigned blocks, unsigned threads, void **pointers, int *numbers)\n'
        f"{{ run_grid(blocks, threads, [&] {{ {name}({', '.join(arguments)}); }}); }}\n"
    )
    library = folder / f"{name}.so"
    line = ["c++", "-std=c++17", "-O1", "-shared", "-fPIC", "-pthread", "-o", library, code]
    subprocess.run(line, check=True, capture_output=True)
    return ctypes.CDLL(str(library))


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    os.environ["EDGEC_TEST_CUDA"] = str(tmp_path_factory.mktemp("cuda"))
    yield
    os.environ.pop("EDGEC_TEST_CUDA")


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
@pytest.mark.parametrize(("kernel", "case"), CASES)
def test_the_cuda_source_computes_what_numpy_says(kernel: Kernel, case: expected.Case) -> None:
    launch = _launch(kernel.sources["tensorrt"]["plugin"])
    shapes = {name: list(array.shape) for name, array in case.feeds.items()}
    planned = launch(shapes, case.attributes)
    made = [np.full(shape, np.nan, np.float32) for shape in planned["outputs"]]
    library = hosted(
        kernel.sources["tensorrt"]["cuda"],
        kernel.name,
        " ".join(kernel.inputs.values()),
        " ".join(kernel.outputs.values()),
        len(planned["numbers"]),
    )
    given = [np.ascontiguousarray(case.feeds[name]) for name in kernel.inputs]
    pointers = (ctypes.c_void_p * (len(given) + len(made)))(*(a.ctypes.data for a in given + made))
    numbers = (ctypes.c_int * len(planned["numbers"]))(*planned["numbers"])
    block = planned["block"][0]
    grid = planned["grid"][0]
    if kernel.name != "GroupNormSilu":  # a thread a number: any block size covers them
        grid = -(-grid * block // THREADS)
    library.run(grid, THREADS, pointers, numbers)
    wanted = expected.OPS[kernel.key].compute(**case.feeds, **case.attributes)
    names = list(kernel.outputs)
    apart = distance([dict(zip(names, wanted, strict=True))], [dict(zip(names, made, strict=True))])
    assert apart <= kernel.tolerance


@needs_nvcc
@pytest.mark.parametrize("isa", TARGETS)
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda one: one.name)
def test_kernels_are_compiled_for_orin_and_thor(kernel: Kernel, isa: str, tmp_path: Path) -> None:
    name, stack = TARGETS[isa]
    made, launch = cubin(kernel, load_target(name, stack), tmp_path)
    data = made.read_bytes()
    assert made.suffixes[-2:] == [f".{isa}", ".cubin"]
    assert data[:4] == b"\x7fELF"
    assert kernel.name.encode() in data
    assert int.from_bytes(data[18:20], "little") == 190  # EM_CUDA
    assert "def launch(" in launch.read_text(encoding="utf-8")


def test_a_kernel_that_nvcc_refuses_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NVCC", "no-such-nvcc")
    with pytest.raises(ToolchainError, match="there is no CUDA compiler"):
        cubin(KERNELS[0], load_target("jetson-orin", "jp6.2"), tmp_path)


def conforming(version: str) -> dict[str, Any]:
    """What the genuine bindings of a version make of all plugins."""
    bindings.need(version)
    declared = []
    for kernel in KERNELS:
        case = cases(kernel)[0]
        blob = Path(os.environ["EDGEC_TEST_CUDA"]) / f"{kernel.name}.cubin"
        blob.write_bytes(b"\x7fELF cubin")
        declared.append(
            {
                "op": kernel.name,
                "namespace": namespace(kernel.domain),
                "inputs": dict(kernel.inputs),
                "outputs": dict(kernel.outputs),
                "attributes": dict(kernel.attributes),
                "cubin": str(blob),
                "launch": str(kernel.sources["tensorrt"]["plugin"]),
                "values": dict(case.attributes),
                "shapes": {name: list(array.shape) for name, array in case.feeds.items()},
            }
        )
    return bindings.run(version, HERE / "plugins_conforming.py", json.dumps(declared))


@pytest.mark.parametrize("version", CLASSIC + QUICK)
def test_plugins_register_with_the_genuine_bindings(version: str) -> None:
    found = conforming(version)
    assert found["version"] == version
    assert found["quick"] is (version in QUICK)
    how = "a quick plugin" if version in QUICK else "IPluginV3"
    assert found["told"] == [f"edgec_kernels::{one.name} as {how}" for one in KERNELS]
    assert found["creators"] == [[one.name, "1", "edgec_kernels"] for one in KERNELS]
    for kernel in KERNELS:
        assert [name for name, _ in found["fields"][kernel.name]] == list(kernel.attributes)
        case, row = cases(kernel)[0], found["ops"][kernel.name]
        wanted = expected.OPS[kernel.key].compute(**case.feeds, **case.attributes)
        assert row["outputs"] == [list(array.shape) for array in wanted]
        assert row["types"] == ["FLOAT"]
        plain = _launch(kernel.sources["tensorrt"]["plugin"])(
            {name: list(array.shape) for name, array in case.feeds.items()},
            {
                key: float(np.float32(v)) if isinstance(v, float) else v
                for key, v in case.attributes.items()
            },
        )
        # the same on symbolic sizes, which the bindings compute, as on whole numbers
        assert row["grid"] == plain["grid"]
        assert row["numbers"] == plain["numbers"]
        if version in CLASSIC:
            values = {key: pytest.approx(value) for key, value in case.attributes.items()}
            assert row["values"] == values
        else:
            assert (row["name"], row["block"]) == (kernel.name, plain["block"])


@needs_nvcc
@needs_graphsurgeon
@pytest.mark.parametrize(
    ("isa", "ahead"), [("sm_87", False), pytest.param("sm_110", True, marks=pytest.mark.slow)]
)
def test_a_device_bundle_carries_plugin_kernel_and_reference(
    isa: str, ahead: bool, tmp_path: Path
) -> None:
    target, stack = TARGETS[isa]
    model = models.net(tmp_path / "net.onnx", "edgec.kernels", "Squareplus", b=2.0)
    data = models.samples(tmp_path / "samples", (1, 3, 16, 16))
    output = tmp_path / "net.edgec"
    report = build(
        Job(model=model, target=target, stack=stack, data=data, output=output, threads=2)
    )
    native = next(one for one in report.kernels if one.backend == "tensorrt")
    assert native.native
    assert f"compiled for {isa}, not verified on hardware" in native.reason
    with zipfile.ZipFile(output) as archive:
        page = json.loads(archive.read("manifest.json"))
        steps = page["engines"][0]["build"]["steps"]
        plugged, plain = (
            onnx.load_from_string(archive.read(steps[index]["model"])) for index in (0, 1)
        )
        (declared,) = page["engines"][0]["build"]["plugins"]
        assert archive.read(declared["cubin"])[:4] == b"\x7fELF"
        assert b"def launch(" in archive.read(declared["launch"])
    assert [step.get("plugins", False) for step in steps[:2]] == [True, False]
    (node,) = [one for one in plugged.graph.node if one.op_type == "Squareplus"]
    given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    assert given["plugin_namespace"] == b"edgec_kernels"
    assert ("aot" in given) is ahead
    assert node.domain == ""
    assert [one.domain for one in plugged.opset_import] == [""]
    assert "Squareplus" not in {one.op_type for one in plain.graph.node}
    quantized = [one.op_type for one in plugged.graph.node].count("QuantizeLinear")
    assert quantized == [one.op_type for one in plain.graph.node].count("QuantizeLinear") > 0
    with Bundle(output) as opened:
        engine = opened.manifest["engines"][0]
        (given_to_builder,) = built.plugins(opened, engine, steps[0])
        assert Path(given_to_builder["cubin"]).read_bytes()[:4] == b"\x7fELF"
        assert "launch" in _launch(Path(given_to_builder["launch"])).__code__.co_name
        assert built.plugins(opened, engine, steps[1]) == []
    with pytest.raises(InputError, match=r"native kernels \(engines/.*cubin"):
        edgec.runtime.load(output)


def test_a_plugin_that_cannot_be_registered_is_a_reason_to_go_on(tmp_path: Path) -> None:
    """`finish` takes the next step of its plan after such an error, which is the reference."""
    launch, blob = tmp_path / "launch.py", tmp_path / "cubin"
    launch.write_text("def lunch(): pass")
    blob.write_bytes(b"")
    one = {"op": "Broken", "namespace": "n", "launch": str(launch), "cubin": str(blob)}
    new = SimpleNamespace(__name__="trt_of_a_test", __version__="10.3.0", IPluginV3=object)
    with pytest.raises(EmitError, match="n::Broken cannot be registered: KeyError"):
        register(new, [one])
    old = SimpleNamespace(__name__="trt_of_a_test", __version__="8.6.1")
    with pytest.raises(ToolchainError, match=r"8\.6\.1 takes no plugins in Python"):
        register(old, [one])
    assert register(old, []) == []


@needs_nvcc
def test_patterns_are_left_to_tensorrt(tmp_path: Path) -> None:
    model = models.diffusion_block(tmp_path / "block.onnx")
    prepared = prepare(Job(model=model, target="jetson-orin", stack="jp6.2"))
    assert not prepared.kernels
    assert "GroupNormSilu" not in {node.op_type for node in prepared.graph.model.graph}


@pytest.mark.parametrize(
    ("target", "stack", "words"),
    [
        ("jetson-orin", "jp5", "takes no plugins in Python; 10.3 and later do"),
        ("rtx-40", None, "builds its engines here, where no plugin runs"),
    ],
)
def test_where_there_can_be_no_plugin_the_reason_is_told(
    target: str, stack: str | None, words: str, tmp_path: Path
) -> None:
    model = models.net(tmp_path / "net.onnx", "edgec.kernels", "Squareplus")
    prepared = prepare(Job(model=model, target=target, stack=stack))
    assert any(words in one.reason for one in prepared.kernels if not one.native)
