"""Small bundles for tests: a two-tower model as one engine and as two, and hostile copies."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgec import pack
from edgec.runtime.built import spares_of

Files = dict[str, bytes]
IMAGE = {
    "name": "image",
    "dtype": "float32",
    "shape": ["n", 3, 12, 12],
    "range": [[1, 4], None, None, None],
}
TOKENS = {"name": "tokens", "dtype": "int64", "shape": ["n", "t"], "range": [[1, 4], [1, 16]]}
SCORE = {"name": "score", "dtype": "float32", "shape": ["n", 5]}
VECTOR = {"name": "image_vector", "dtype": "float32", "shape": ["n", 8]}


def _value(name: str, kind: int, shape: list[Any]) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def two_tower_models() -> dict[str, onnx.ModelProto]:
    """`one`: the whole model; `vision` and `fusion`: the same nodes cut at image_vector."""
    rng = np.random.default_rng(7)
    weights = {
        "w_conv": rng.standard_normal((8, 3, 3, 3)),
        "table": rng.standard_normal((32, 8)),
        "w_head": rng.standard_normal((16, 5)),
    }
    tensors = {k: numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()}
    node = helper.make_node
    vision = [
        node("Conv", ["image", "w_conv"], ["c"], kernel_shape=[3, 3]),
        node("Relu", ["c"], ["r"]),
        node("GlobalAveragePool", ["r"], ["g"]),
        node("Flatten", ["g"], ["image_vector"]),
    ]
    fusion = [
        node("Gather", ["table", "tokens"], ["e"]),
        node("ReduceMean", ["e"], ["text_vector"], axes=[1], keepdims=0),
        node("Concat", ["image_vector", "text_vector"], ["both"], axis=1),
        node("MatMul", ["both", "w_head"], ["m"]),
        node("Tanh", ["m"], ["score"]),
    ]
    image = _value("image", TensorProto.FLOAT, ["n", 3, 12, 12])
    tokens = _value("tokens", TensorProto.INT64, ["n", "t"])
    vector = _value("image_vector", TensorProto.FLOAT, ["n", 8])
    score = _value("score", TensorProto.FLOAT, ["n", 5])

    def model(nodes: list[Any], ins: list[Any], outs: list[Any], names: list[str]) -> Any:
        graph = helper.make_graph(nodes, "g", ins, outs, [tensors[name] for name in names])
        opsets = [helper.make_opsetid("", 17)]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        onnx.checker.check_model(made)
        return made

    return {
        "one": model(vision + fusion, [image, tokens], [score, vector], list(weights)),
        "vision": model(vision, [image], [vector], ["w_conv"]),
        "fusion": model(fusion, [vector, tokens], [score], ["table", "w_head"]),
    }


def engine(name: str, inputs: list[str], outputs: list[str], **settings: Any) -> dict[str, Any]:
    counts = {"int8": 0, "float": 1}
    return {
        "name": name,
        "backend": "onnxruntime",
        "device": "cpu",
        "artifact": f"engines/{name}.onnx",
        "data_files": [],
        "inputs": inputs,
        "outputs": outputs,
        "parts": [name],
        "settings": settings,
        "planned": counts,
        "emitted": counts,
        "optimised": counts,
    }


def manifest(engines: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "schema": 1,
        "tool": {"name": "edgec", "version": "0.1.0"},
        "toolchain": {"onnxruntime": "1.31.1"},
        "source": {"name": "m.onnx", "sha256": hashlib.sha256(b"m").hexdigest(), "bytes": 1},
        "target": {"name": "host", "stack": "s", "arch": "x86_64", "summary": "", "verified": ""},
        "inputs": [IMAGE, TOKENS],
        "outputs": [SCORE, VECTOR],
        "engines": engines,
        "parts": [
            {
                "name": "vision",
                "kind": "cnn",
                "modality": "vision",
                "scheme": "float32",
                "inputs": ["image"],
                "outputs": ["image_vector"],
                "nodes": 4,
                "macs": 1,
                "source_bytes": 1,
                "built_bytes": 1,
                "reason": "a test",
            }
        ],
        "decisions": [
            {
                "part": "vision",
                "op_type": "Conv",
                "scheme": "float32",
                "backend": "onnxruntime",
                "device": "cpu",
                "reason": "a test",
                "evidence": "none",
                "nodes": ["conv"],
            }
        ],
        "revisions": [
            {
                "part": "vision",
                "before": "int8_static",
                "after": "float32",
                "reason": "a test",
                "nodes": [],
            }
        ],
        "rewrites": [{"rule": "fold", "count": 2}],
        "calibration": {
            "samples": 1,
            "fingerprint": "f",
            "methods": {"vision": "minmax"},
            "recovery": [
                {
                    "part": "vision",
                    "stage": "bias correction",
                    "before_db": None,
                    "after_db": 20.5,
                    "kept": True,
                }
            ],
        },
        "golden": {
            "inputs": "golden/inputs.npz",
            "outputs": "golden/outputs.npz",
            "tolerance": {"relative": 0.02},
        },
        "checks": [
            {
                "part": "vision",
                "value": "image_vector",
                "max_abs": 0.0,
                "cosine": 1.0,
                "sqnr_db": None,
                "agreement": 1.0,
                "agreement_kind": "none",
                "samples": 1,
            }
        ],
        "check_data": "random",
        "limits": {"part_sqnr_db": 12.0, "cosine": None},
        "notes": ["a note"],
    }


def feeds(seed: int = 0, n: int = 2, t: int = 6) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    image = rng.standard_normal((n, 3, 12, 12)).astype(np.float32)
    return {"image": image, "tokens": rng.integers(0, 32, (n, t))}


def expected(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What onnxruntime makes of the whole model without optimisations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        two_tower_models()["one"].SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return dict(zip(["score", "image_vector"], session.run(None, dict(inputs)), strict=True))


def parts(count: int, **settings: Any) -> tuple[dict[str, Any], Files]:
    """Manifest and files of the model with one engine or two."""
    models = {name: model.SerializeToString() for name, model in two_tower_models().items()}
    if count == 1:
        engines = [engine("one", ["image", "tokens"], ["score", "image_vector"], **settings)]
    else:
        engines = [
            engine("vision", ["image"], ["image_vector"], **settings),
            engine("fusion", ["image_vector", "tokens"], ["score"], **settings),
        ]
    files = {one["artifact"]: models[one["name"]] for one in engines}
    files["golden/inputs.npz"] = pack.npz_bytes(feeds())
    files["golden/outputs.npz"] = pack.npz_bytes(expected(feeds()))
    return manifest(engines), files


def write(path: Path, count: int = 2, folder: bool = False, **settings: Any) -> Path:
    described, files = parts(count, **settings)
    return pack.write_bundle(described, files, path, force=False, folder=folder)


def members(path: Path) -> Files:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rezip(path: Path, files: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def edit(path: Path, change: Callable[[dict[str, Any], Files], None]) -> Path:
    """Rewrite a bundle as an attacker would: hashes and sizes of all files are made right again
    before `change` sees the manifest and the files."""
    files = members(path)
    described = json.loads(files.pop("manifest.json"))
    change(described, files)
    files["manifest.json"] = json.dumps(described).encode()
    return rezip(path, files)


def list_files(described: dict[str, Any], files: Files) -> None:
    """Make the manifest's list true."""
    described["files"] = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        for name, data in files.items()
    }


def build_plan(**changes: Any) -> dict[str, Any]:
    """A build plan for engine `vision`: TensorRT in INT8 and FP16, then ONNX Runtime."""

    def step(by: str, precision: str, form: str, model: str) -> dict[str, Any]:
        found: dict[str, Any] = {"by": by, "precision": precision, "form": form, "model": model}
        found.update(typed=False, half=True)
        return {**found, **({"cache": "engines/vision.calibration"} if form == "implicit" else {})}

    image = {"min": [1, 3, 12, 12], "opt": [2, 3, 12, 12], "max": [4, 3, 12, 12]}
    return {
        "module": "tensorrt",
        "requires": {"arch": "any", "capabilities": ["8.7"], "version": "10.3.0"},
        "ready": False,
        "steps": [
            step("tensorrt", "int8", "explicit", "engines/vision.onnx"),
            step("tensorrt", "int8", "implicit", "engines/vision.onnx"),
            step("tensorrt", "float16", "plain", "spares/vision.float16.onnx"),
            step("onnxruntime", "int8", "explicit", "engines/vision.onnx"),
        ],
        "profiles": [{"image": image}],
        "workspace": [1 << 28, 1 << 26],
        "memory": 10**6,
        "dla": None,
        "flags": [],
        **changes,
    }


def write_for_device(path: Path, folder: bool = False, **changes: Any) -> Path:
    """A bundle whose vision engine is built on the device, with its file of spares."""
    described, files = parts(2)
    vision = described["engines"][0]
    vision.update(backend="tensorrt", device="gpu", build=build_plan(**changes))
    described["target"].update(name="jetson-orin", stack="jp6.2", arch="aarch64")
    files["golden/float.npz"] = files["golden/outputs.npz"]
    described["golden"]["float"] = "golden/float.npz"
    files["engines/vision.calibration"] = b"TRT-100300-EntropyCalibration2\nimage: 3c010204\n"
    spare = path.parent / "vision.float16.onnx"
    spare.write_bytes(two_tower_models()["vision"].SerializeToString())
    digest = hashlib.sha256(spare.read_bytes()).hexdigest()
    entry = {"sha256": digest, "bytes": spare.stat().st_size}
    described["spares"] = {"spares/vision.float16.onnx": entry}
    pack.write_spares([spare], spares_of(path))
    spare.unlink()
    return pack.write_bundle(described, files, path, force=False, folder=folder)
