"""Whole builds for devices that are not here, and what they leave beside the bundle."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import graphs
import numpy as np
import pytest
import small

import edgec
from edgec.backends.tensorrt.calibration_cache import parse
from edgec.report import report_path
from edgec.runtime.built import spares_of
from edgec.types import Limits, Scheme

NAME = "clip_dynamo"
LOOSE = Limits(part_sqnr_db=None, cosine=None)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("device")
    job = edgec.Job(
        model=graphs.path(NAME),
        target="jetson-orin",
        stack="jp6.2",
        data=graphs.write_samples(NAME, place / "data", 4),
        output=place / "towers.edgec",
        limits=LOOSE,
    )
    edgec.build(job)
    return job.output  # type: ignore[return-value]


def test_a_report_says_where_each_node_runs(bundle: Path) -> None:
    report = json.loads(report_path(bundle).read_text())
    (engine,) = report["engines"]
    assert engine["backend"] == "tensorrt"
    told = [name for row in report["decisions"] for name in row["nodes"]]
    assert len(told) == len(set(told)) > 100
    for row in report["decisions"]:
        assert row["backend"] == "tensorrt"
        assert row["device"] == "gpu"
        assert row["scheme"] in ("int8_static", "float16", "float32")
        assert row["reason"]
        assert row["evidence"]
    assert {row["name"]: row["scheme"] for row in report["parts"]} == {
        "vision": "int8_static",
        "text": "int8_static",
        "fusion": "float16",
    }
    notes = " ".join(report["notes"])
    assert "tensorrt 10.3.0 builds it on the device: python3 BUNDLE finish" in notes
    assert "checked by ONNX Runtime in its place" in notes
    assert "not verified on hardware" in notes
    parts = {row["part"] for row in report["checks"]["parts"]}
    assert parts == {"vision", "text", "fusion"}
    assert report["checks"]["speeds"] == []


def test_the_bundle_has_all_that_finish_needs(bundle: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        page = json.loads(archive.read("manifest.json"))
        cache = archive.read("engines/main.calibration").decode()
        assert archive.read("golden/float.npz")
    plan = page["engines"][0]["build"]
    assert plan["requires"]["version"] == "10.3.0"
    assert parse(cache)[0] == 100300
    with zipfile.ZipFile(spares_of(bundle)) as spares:
        for name, entry in page["spares"].items():
            data = spares.read(entry["sha256"])
            assert hashlib.sha256(data).hexdigest() == entry["sha256"], name
            assert len(data) == entry["bytes"]
    wanted = {step["model"] for step in plan["steps"]} - set(page["files"])
    assert wanted == set(page["spares"])


def test_it_runs_here_where_that_is_asked_for(bundle: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-I", str(bundle), *words]
        return subprocess.run(line, capture_output=True, text=True, timeout=300)

    refused = run("finish")
    assert refused.returncode == 4
    assert "this bundle is for jetson-orin with jp6.2" in refused.stderr
    done = run("finish", "--onnxruntime")
    assert done.returncode == 0, done.stderr
    assert run("verify").returncode == 0


def test_what_overflows_in_fp16_stays_in_float32(tmp_path: Path) -> None:
    """A part whose values pass 65504 is seen by the stand-in, and steps down."""
    text = """g (float[n,64] x) => (float[n,32] y) {
      [up] a = MatMul (x, w)
      [large] b = Mul (a, big)
      [act] c = Tanh (a)
      [down] d = MatMul (c, v)
      [small] e = Div (b, big)
      [out] f = MatMul (e, v)
      [last] y = Add (d, f)
    }"""
    weights = {"w": small.normal(0, 64, 48), "v": small.normal(1, 48, 32)}
    model = small.model(text, big=np.array(1e6, np.float32), **weights)
    path = small.save(model, tmp_path / "large.onnx")
    data = tmp_path / "data"
    data.mkdir()
    for index in range(4):
        np.savez(data / f"{index}.npz", x=small.normal(index, 1, 64))
    job = edgec.Job(
        model=path,
        target="jetson-orin",
        stack="jp6.2",
        data=data,
        output=tmp_path / "large.edgec",
        shapes={},
    )
    report = edgec.build(job)
    (part,) = report.plan.parts
    assert report.plan.schemes[part.name] in (Scheme.FLOAT32, Scheme.INT8_DYNAMIC)
    assert [step.before for step in report.plan.revisions][:1] == [Scheme.INT8_STATIC]
