"""Builds of models with custom ops: what is chosen and refused, and what the bundle carries."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx
import onnx_ir as ir
import pytest

import edgec.runtime
from edgec.audit import audit
from edgec.build import Job, build, calibrate, prepare
from edgec.data import folder
from edgec.errors import InputError
from edgec.inspection import inspect
from edgec.kernels import find
from edgec.load import load
from edgec.runtime.bundle import Bundle

GROUP_NORM = "edgec.kernels::GroupNormSilu"
needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")


def made(model: Path, output: Path, **wishes: Any) -> Any:
    """A build that decides by comparison alone."""
    job = Job(model=model, output=output, backend="onnxruntime", measure=False, threads=2, **wishes)
    return build(job)


def op_types(bundle: Path) -> list[str]:
    with Bundle(bundle) as opened:
        proto = onnx.load_from_string(opened.read("engines/main.onnx"))
    return [node.op_type for node in proto.graph.node]


def toy(place: Path, domain: str = "my.ops") -> Path:
    """A copy of the shipped toy in a domain of its own."""
    shutil.copytree(folder("kernels") / "squareplus", place)
    for name in ("kernel.toml", "reference.txt"):
        text = (place / name).read_text(encoding="utf-8").replace("edgec.kernels", domain)
        (place / name).write_text(text, encoding="utf-8")
    return place


@needs_compiler
def test_a_pattern_becomes_a_native_kernel_and_stays_int8_friendly(tmp_path: Path) -> None:
    model = models.diffusion_block(tmp_path / "block.onnx")
    data = models.samples(tmp_path / "samples", (1, 3, 24, 24))
    native = made(model, tmp_path / "native.edgec", data=data)
    plain = made(model, tmp_path / "plain.edgec", data=data, native=False)
    (choice,) = native.kernels
    assert (choice.op, choice.native) == (GROUP_NORM, True)
    assert "agrees with its reference within 0.0001 at 2 nodes" in choice.reason
    assert op_types(native.bundle).count("GroupNormSilu") == 2
    assert "GroupNormSilu" not in op_types(plain.bundle)
    # as many products in INT8 as around the reference, with Q/DQ on both sides of the op
    assert [a.optimised for a in native.artifacts] == [a.optimised for a in plain.artifacts]
    assert native.artifacts[0].optimised.int8 >= 2
    outputs = [report.checks.outputs[0].sqnr_db for report in (native, plain)]
    assert abs(outputs[0] - outputs[1]) < 1.0


@needs_compiler
def test_the_bundle_carries_the_library_and_asks_before_it_runs(tmp_path: Path) -> None:
    model = models.diffusion_block(tmp_path / "block.onnx")
    report = made(model, tmp_path / "a.edgec")
    again = made(model, tmp_path / "b.edgec")
    assert report.bundle.read_bytes() == again.bundle.read_bytes()
    with zipfile.ZipFile(report.bundle) as archive:
        page = json.loads(archive.read("manifest.json"))
    assert page["engines"][0]["data_files"] == ["engines/kernels.so"]
    assert page["kernels"][0]["native"] is True
    with pytest.raises(InputError, match="native kernels") as caught:
        edgec.runtime.load(report.bundle)
    assert "--native-code" in caught.value.hint
    with edgec.runtime.load(report.bundle, native_code=True) as opened:
        assert opened.self_test().passed
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    for line, code in (("run --golden", 0), ("verify", 0)):  # a bundle that runs itself may
        command = [sys.executable, str(report.bundle), *line.split()]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == code, done.stderr


@needs_compiler
def test_a_kernel_that_differs_from_its_reference_is_refused(tmp_path: Path) -> None:
    place = toy(tmp_path / "ops" / "toy")
    source = (place / "onnxruntime.cc").read_text(encoding="utf-8")
    (place / "onnxruntime.cc").write_text(source.replace("0.5f", "0.5001f"), encoding="utf-8")
    model = models.net(tmp_path / "net.onnx", "my.ops", "Squareplus", b=1.0)
    report = made(model, tmp_path / "net.edgec", kernels=tmp_path / "ops")
    (choice,) = report.kernels
    assert choice.native is False
    assert "at custom it differs from its reference by 0.0002" in choice.reason
    assert "where 1e-06 is allowed" in choice.reason
    assert "Squareplus" not in op_types(report.bundle)
    with edgec.runtime.load(report.bundle) as opened:  # nothing native is left to ask for
        assert opened.self_test().passed


@needs_compiler
@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("y.data[i] =", "y.data[i] = *(volatile float *)16 +", "the backend's process"),
        ("y.data[i] =", "y.data[i] += nonsense +", "c++ cannot compile onnxruntime.cc"),
        pytest.param(
            "auto y =",
            'throw std::runtime_error("not today"); auto y =',
            "not today",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_kernel_that_fails_leaves_its_reference_and_the_reason(
    before: str, after: str, words: str, tmp_path: Path
) -> None:
    place = toy(tmp_path / "toy")
    source = (place / "onnxruntime.cc").read_text(encoding="utf-8")
    (place / "onnxruntime.cc").write_text(source.replace(before, after), encoding="utf-8")
    model = models.net(tmp_path / "net.onnx", "my.ops", "Squareplus")
    report = made(model, tmp_path / "net.edgec", kernels=place)
    assert report.kernels[0].native is False
    assert words in report.kernels[0].reason
    assert "Squareplus" not in op_types(report.bundle)


def test_without_a_compiler_the_reference_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    model = models.net(tmp_path / "net.onnx", "edgec.kernels", "Squareplus", opset=13, b=3.0)
    report = made(model, tmp_path / "net.edgec")
    assert "there is no C++ compiler (no-such-compiler)" in report.kernels[0].reason
    assert report.checks.outputs[0].cosine > 0.99


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("raspberry-pi-5", "a kernel for aarch64 cannot be compiled and checked on"),
        ("intel-core-ultra", "an extension of OpenVINO is bound to one release"),
    ],
)
def test_a_plan_says_why_the_reference_runs(target: str, words: str, tmp_path: Path) -> None:
    model = models.net(tmp_path / "net.onnx", "edgec.kernels", "Squareplus")
    prepared = prepare(Job(model=model, target=target))
    assert any(words in one.reason for one in prepared.kernels)
    assert not any(one.native for one in prepared.kernels)
    assert not any(node.domain == "edgec.kernels" for node in prepared.graph.model.graph)


@pytest.mark.slow
@needs_compiler
def test_openvino_gets_the_reference_where_onnxruntime_has_the_kernel(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    model = models.net(tmp_path / "net.onnx", "edgec.kernels", "Squareplus")
    policy = tmp_path / "policy.toml"
    policy.write_text('[parts."*"]\nruntime = "openvino"\n', encoding="utf-8")
    job = Job(model=model, output=tmp_path / "net.edgec", policy=policy, measure=False, threads=2)
    report = build(job)
    assert {one.runtime: one.native for one in report.kernels} == {
        "onnxruntime": True,
        "openvino": False,
    }
    assert [a.backend for a in report.artifacts] == ["openvino"]
    assert report.checks.outputs[0].cosine > 0.99


def test_calibration_inspection_and_audit_know_the_op(tmp_path: Path) -> None:
    place = toy(tmp_path / "toy")
    model = models.net(tmp_path / "net.onnx", "my.ops", "Squareplus")
    data = models.samples(tmp_path / "samples", (1, 3, 16, 16))
    inspected = inspect(load(model, find(place)), {})
    assert {"Sqrt", "Conv"} <= {op for part in inspected.parts for op in part.ops}
    output = tmp_path / "statistics"
    job = Job(model=model, kernels=place, data=data, statistics=output, backend="onnxruntime")
    found = calibrate(job)
    assert {"a", "b"} & set(found.statistics.values)
    assert output.is_file()
    seen = audit(Job(model=model, kernels=place, data=data))
    assert seen.run > 0


@pytest.mark.slow
@needs_compiler
def test_measured_choices_carry_their_figures_beside_the_bundle(tmp_path: Path) -> None:
    """What this machine measures decides; whichever it is, the figure is reported, not shipped."""
    model = models.diffusion_block(tmp_path / "block.onnx")
    output = tmp_path / "block.edgec"
    report = build(Job(model=model, output=output, backend="onnxruntime", threads=2))
    (choice,) = report.kernels
    assert "of the reference's speed (" in choice.measured
    with Bundle(output) as opened:
        text = json.dumps(opened.manifest)
        assert "of the reference's speed" not in text
        assert opened.manifest["kernels"][0]["native"] is choice.native
    beside = json.loads(output.with_name("block.report.json").read_text(encoding="utf-8"))
    assert beside["kernels"][0]["measured"] == choice.measured


def test_help_says_that_a_kernel_is_code() -> None:
    for verb in ("build", "plan", "calibrate", "inspect", "verify"):
        command = import_module(f"edgec.cli.{verb}").command
        (option,) = [one for one in command.params if one.name == "kernels"]
        assert (
            "compiles and runs their native kernels, which are their author's code" in option.help
        )


@needs_compiler
def test_an_op_in_a_function_and_on_an_input_is_found(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 13, "edgec.kernels" : 1, "f" : 1]>
    g (float[n, 7] x) => (float[n, 7] y)
    {
        a = edgec.kernels.Squareplus <b = 2.0> (x)
        y = f.Twice (a)
    }
    <domain: "f", opset_import: ["" : 13, "edgec.kernels" : 1]>
    Twice (v) => (w)
    {
        u = edgec.kernels.Squareplus (v)
        w = Add (u, u)
    }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "net.onnx")
    report = made(tmp_path / "net.onnx", tmp_path / "net.edgec")
    assert "at 2 nodes" in report.kernels[0].reason
    assert op_types(report.bundle).count("Squareplus") == 2
    assert report.checks.outputs[0].cosine > 0.999999


def test_an_op_in_a_subgraph_is_written_out(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "edgec.kernels" : 1]>
    g (float[n, 7] x, bool c) => (float[n, 7] y)
    {
        y = If (c) <
            then_branch = t () => (float[n, 7] p) { p = edgec.kernels.Squareplus (x) },
            else_branch = e () => (float[n, 7] q) { q = Neg (x) }
        >
    }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "net.onnx")
    report = made(tmp_path / "net.onnx", tmp_path / "net.edgec")
    assert not report.kernels[0].native
    assert report.checks.outputs[0].cosine > 0.999999


def test_the_fused_graph_keeps_the_values_around_it(tmp_path: Path) -> None:
    """So statistics of what is quantized serve both forms."""
    model = models.diffusion_block(tmp_path / "block.onnx")
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler")
    fused, plain = (
        prepare(Job(model=model, native=native, backend="onnxruntime")).graph.model
        for native in (True, False)
    )

    def values(one: ir.Model) -> dict[str, Any]:
        return {str(v.name): v.shape for node in one.graph for v in node.outputs}

    assert set(values(fused)) < set(values(plain))
    assert all(values(plain)[name] == shape for name, shape in values(fused).items())
    assert np.count_nonzero([node.op_type == "GroupNormSilu" for node in fused.graph]) == 2
