"""The cases: which tool makes what of a model, and how the result is opened.

A case keeps its number on every model, in tables and plot. All cases of a model calibrate on the
same 64 files, of which edgec keeps a third to verify with.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import peers_edgec
from peers_types import Build, Case, Folder, Settings

HERE = Path(__file__).parent
CNN, MIXED, TEXT, PAIR = "cnn", "cnn with attention", "transformer", "towers"
# OpenVINO's documentation asks for this hint where one request at a time has to be fast.
LATENCY: Settings = {"PERFORMANCE_HINT": "LATENCY"}
F32: Settings = {**LATENCY, "INFERENCE_PRECISION_HINT": "f32"}
SOURCE = None


def _ort(form: str, **settings: object) -> Build:
    name = "-".join(["ort", form, *settings])
    return Build(name, "ort", "model.onnx", {"form": form, **settings})


def _nncf(form: str, advice: str = "") -> Build:
    name = "-".join(filter(None, ("nncf", form, advice)))
    suffix = "onnx" if form == "onnx" else "xml"
    return Build(name, "nncf", f"model.{suffix}", {"form": form, "advice": advice})


def _edgec(name: str, *options: str) -> Build:
    return Build(name, "edgec", "model.edgec", {"options": [*options, "--threads", "2"]})


@dataclass(frozen=True)
class _Line:
    """A case for several kinds of model; `builds` maps the kind to what is opened."""

    name: str
    label: str
    family: str
    runtime: str
    builds: Mapping[str, Build | None]
    settings: Settings = field(default_factory=dict)
    note: str = ""


def _all(build: Build | None) -> dict[str, Build | None]:
    return dict.fromkeys((CNN, MIXED, TEXT, PAIR), build)


_STATIC = {**_all(_ort("static")), TEXT: _ort("static", ops=["MatMul"])}
_ONNX = {**_all(_nncf("onnx", "transformer")), CNN: _nncf("onnx")}
_NNCF = _all(_nncf("openvino"))
_ADVISED = {**_all(_nncf("openvino", "transformer")), CNN: _nncf("openvino", "accuracy")}

_LINES = (
    _Line("fp32", "FP32, ONNX Runtime", "float", "onnxruntime", _all(SOURCE)),
    _Line("openvino-f32", "FP32, OpenVINO in f32", "float", "openvino", _all(SOURCE), F32),
    _Line("openvino", "FP32, OpenVINO's default", "float", "openvino", _all(SOURCE), LATENCY),
    _Line("ort-static", "ORT static, U8S8 per channel", "ort", "onnxruntime", _STATIC),
    _Line("ort-static-openvino", "that file on OpenVINO in f32", "ort", "openvino", _STATIC, F32),
    _Line(
        "ort-default",
        "ORT static, its defaults",
        "ort",
        "onnxruntime",
        _all(_ort("static", default=True)),
        note="S8S8 per tensor",
    ),
    _Line(
        "ort-dynamic",
        "ORT dynamic",
        "ort",
        "onnxruntime",
        {**_all(_ort("dynamic", weights="unsigned")), TEXT: _ort("dynamic")},
    ),
    _Line("ort-hand", "ORT by hand", "ort", "onnxruntime", {PAIR: _ort("split")}),
    _Line("nncf", "NNCF, its defaults", "nncf", "openvino", _NNCF, LATENCY),
    _Line("nncf-advised-f32", "NNCF as advised, f32", "nncf", "openvino", _ADVISED, F32),
    _Line("nncf-advised", "NNCF as advised", "nncf", "openvino", _ADVISED, LATENCY),
    _Line(
        "nncf-weights",
        "NNCF INT8 weights, f32",
        "nncf",
        "openvino",
        dict.fromkeys((TEXT, PAIR), _nncf("weights")),
        F32,
    ),
    _Line("nncf-onnx", "NNCF's ONNX file on ORT", "nncf", "onnxruntime", _ONNX),
    _Line(
        "olive",
        "Olive auto-opt, int8",
        "olive",
        "onnxruntime",
        _all(Build("olive", "olive", "model.onnx")),
    ),
    _Line(
        "edgec-onnxruntime",
        "edgec on ONNX Runtime",
        "edgec",
        "edgec",
        _all(_edgec("edgec-onnxruntime", "--backend", "onnxruntime", "--max-error", "none")),
    ),
    _Line(
        "edgec-openvino",
        "edgec on OpenVINO",
        "edgec",
        "edgec",
        _all(_edgec("edgec-openvino", "--backend", "openvino", "--max-error", "none")),
    ),
    _Line("edgec", "edgec, its own choice", "edgec", "edgec", _all(_edgec("edgec"))),
)
BASE = _LINES[0].name


def names() -> tuple[str, ...]:
    """All cases, in order."""
    return tuple(line.name for line in _LINES)


def tools() -> tuple[str, ...]:
    """The tools that build."""
    found = (build.tool for line in _LINES for build in line.builds.values() if build)
    return tuple(dict.fromkeys(found))


def cases(kind: str, only: Sequence[str] = ()) -> list[tuple[int, Case]]:
    """The cases of a kind of model with their numbers; the base is always among them."""
    found = []
    for number, line in enumerate(_LINES, 1):
        wanted = not only or line.name in only or line.name == BASE
        if wanted and kind in line.builds:
            opened = (line.builds[kind], line.settings, line.note)
            case = Case(line.name, line.label, line.family, line.runtime, *opened)
            found.append((number, case))
    return found


def command(build: Build, folder: Folder, artifact: Path) -> list[str]:
    """The build as a command line."""
    if build.tool == "edgec":
        options = build.settings["options"]
        return peers_edgec.command(folder.model, folder.calibration, artifact, options)
    program = HERE / f"peers_{build.tool}.py"
    places = [str(path) for path in (program, folder.model, folder.calibration, artifact)]
    return [sys.executable, *places, json.dumps(dict(build.settings), sort_keys=True)]
