"""How much faster INT8 makes a GroupNorm ResNet-50, and how much of it is INT8 (see `groupnorm`).

One case is one process, rounds are interleaved, ratios are of the same round: median and quartiles.
The base is the InstanceNormalization form in FP32, as the TorchScript exporter writes it, on the
same backend and with the same batch: free, as exported, or fixed to 1.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import peers_edgec
import peers_measure

BASE = "torchscript17"  # the InstanceNormalization form
FORMS = ("dynamo21", BASE)
BATCHES = ("free", "1")
AIMS = {"onnxruntime": 1.8, "openvino": 2.0}
SAMPLES, SIDE = 16, 224
EXPORT = Path(__file__).with_name("groupnorm_export.py")


def export(python: Path, work: Path) -> None:
    for form in FORMS:
        path = work / f"{form}.onnx"
        if not path.is_file():
            partial = path.with_suffix(".partial.onnx")
            subprocess.run([python, EXPORT, form, partial], check=True, stdout=subprocess.DEVNULL)
            partial.rename(path)


def fix(path: Path) -> Path:
    """The model with a batch of 1."""
    fixed = path.with_suffix(".1.onnx")
    if not fixed.is_file():
        model = onnx.load(path)
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 1
        del model.graph.value_info[:]
        onnx.save(model, fixed)
    return fixed


def samples(folder: Path) -> None:
    """Smooth noise and grain: weights are random, so pictures would say no more."""
    folder.mkdir(exist_ok=True)
    for seed in range(SAMPLES):
        generator = np.random.default_rng(seed)
        coarse = generator.normal(0, 1, (1, 3, 14, 14)).repeat(16, 2).repeat(16, 3)
        grain = generator.normal(0, 0.3, (1, 3, SIDE, SIDE))
        np.savez(folder / f"{seed:03}.npz", image=(coarse + grain).astype(np.float32))


def build(form: str, backend: str, batch: str, path: Path) -> None:
    """A bundle of one form for one backend; limits on accuracy are off: weights are random."""
    work, options = path.parent, ["--backend", backend, "--max-error", "none", "--no-measure"]
    if batch != "free":
        options += ["--shape", f"image={batch}x3x{SIDE}x{SIDE}"]
    command = peers_edgec.command(work / f"{form}.onnx", work / "samples", path, options)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def counts(bundle: Path) -> str:
    """Convolutions and products in INT8, counted in the backend's own graph, and the SQNR."""
    report = json.loads(bundle.with_suffix(".report.json").read_text(encoding="utf-8"))
    found = [engine["optimised"] for engine in report["engines"]]
    small = sum(one["int8"] for one in found)
    sqnr = min(one["sqnr_db"] for one in report["checks"]["outputs"])
    return f"{small} of {small + sum(one['float'] for one in found)} | {sqnr:.1f}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/bench/groupnorm", description=__doc__)
    parser.add_argument("--exporter", type=Path, required=True, help="a Python that has timm")
    parser.add_argument("--work", type=Path, required=True, help="where everything is kept")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="measure the bundles that are there")
    arguments = parser.parse_args()
    work: Path = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    export(arguments.exporter.absolute(), work)
    samples(work / "samples")
    common: dict[str, Any] = {"settings": {}, "threads": arguments.threads, "outputs": ["logits"]}
    cases: dict[str, dict[str, Any]] = {}
    bundles: dict[str, Path] = {}
    for backend, batch in itertools.product(AIMS, BATCHES):
        source = work / f"{BASE}.onnx"
        path = source if batch == "free" else fix(source)
        settings = {"INFERENCE_PRECISION_HINT": "f32"} if backend == "openvino" else {}
        base = {"path": str(path), "runtime": backend, "settings": settings}
        cases[f"FP32 on {backend}, batch {batch}"] = {**common, **base}
        for form in FORMS:
            bundle = work / f"{form}.{backend}.{batch}.edgec"
            if not (arguments.keep and bundle.is_file()):
                build(form, backend, batch, bundle)
            name = f"INT8 on {backend}, batch {batch}, from {form}"
            bundles[name] = bundle
            cases[name] = {**common, "path": str(bundle), "runtime": "edgec"}
    found, problems = peers_measure.measure(
        cases, next(iter(cases)), work / "samples" / "000.npz", arguments.rounds
    )
    print("| case | ms | times FP32 on the same backend | INT8 of all Conv, Gemm | SQNR dB |")
    print("|---" * 5 + "|")
    missed = bool(problems)
    for name, one in found.items():
        backend, batch = name.split(" on ")[1].split(", ")[:2]
        own = found[f"FP32 on {backend}, {batch}"]
        ratio = peers_measure.speed(one.medians, own.medians, one.run_mb)
        cells = counts(bundles[name]) if name in bundles else "- | -"
        told = f"{ratio.ratio:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"
        print(f"| {name} | {one.p50_ms:.1f} | {told} | {cells} |")
        missed |= name in bundles and ratio.ratio < AIMS[backend]
    for name, why in problems.items():
        print(f"| {name} | {why} | - | - | - |")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
