"""The process of a case. A program: `calibration_work.py VERB SOURCE DATA OUTPUT SETTINGS`.

    infer       plain ONNX Runtime over all samples; what calibration is compared with
    preprocess  what onnxruntime's documentation asks for before calibration; DATA is not read
    ranges      onnxruntime's calibrator over all samples, up to the ranges, without Q/DQ
    search      edgec's threshold search of every value in a file of statistics, by method

OUTPUT is JSON, but of `preprocess`. Imports are late: a verb's memory holds what it needs alone.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

REPEATS = 5


def infer(model: Path, samples: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Run the model on all samples; settings: threads, and whether idle threads spin."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings["threads"]
    if not settings.get("spin", True):
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(model), options, ["CPUExecutionProvider"])
    for path in sorted(samples.glob("*.npz")):
        with np.load(path) as arrays:
            session.run(None, dict(arrays))
    return {}


def preprocess(model: Path, into: Path) -> None:
    """Shapes are fixed, so that ONNX's own inference finds them all."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    quant_pre_process(str(model), str(into), skip_symbolic_shape=True)


def ranges(model: Path, samples: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The first half of `quantize_static`, with its choice of tensors.

    Settings: `method`, the name of a CalibrationMethod; `options` of its calibrator; `ops`, if not
    all that onnxruntime quantizes.
    """
    import peers_ort
    from onnxruntime.quantization import CalibrationMethod, create_calibrator
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    with tempfile.TemporaryDirectory() as folder:
        calibrator = create_calibrator(
            model,
            settings.get("ops") or sorted({*QDQRegistry, *QLinearOpsRegistry}),
            str(Path(folder) / "augmented.onnx"),
            CalibrationMethod[settings["method"]],
            extra_options=settings.get("options", {}),
        )
        calibrator.collect_data(peers_ort.Samples(samples))
        found = calibrator.compute_data()
    return {
        "values": len(found.data),
        "ranges": {
            name: [float(np.max(x)) for x in one.range_value] for name, one in found.data.items()
        },
    }


def search(file: Path) -> dict[str, Any]:
    """CPU milliseconds of each method for every value that has a histogram."""
    from edgec import calibrators
    from edgec.target import load_target

    grid = load_target("host").runtimes[0].grid

    def limits(seen: Any, name: str, method: Any) -> None:
        calibrators.limits(seen, name, method, grid)

    return times(_statistics(file), {str(method): method for method in calibrators.METHODS}, limits)


def _statistics(file: Path) -> Any:
    from edgec.statistics_file import by_name

    return by_name(file)


def times(seen: Any, methods: dict[str, Any], limits: Any) -> dict[str, Any]:
    """By method: how many values, and the mean and the largest time of one, in CPU milliseconds."""
    names = [name for name, value in seen.values.items() if value.histogram is not None]
    found = {}
    for label, method in methods.items():
        limits(seen, names[0], method)  # imports, tables
        spent = [_milliseconds(limits, seen, name, method) for name in names]
        found[label] = {"values": len(names), "mean": statistics.mean(spent), "most": max(spent)}
    return found


def _milliseconds(function: Any, *arguments: Any) -> float:
    taken = []
    for _ in range(REPEATS):
        begin = time.process_time()
        function(*arguments)
        taken.append((time.process_time() - begin) * 1e3)
    return statistics.median(taken)


def main(verb: str, source: Path, data: Path, output: Path, settings: dict[str, Any]) -> None:
    if verb == "preprocess":
        preprocess(source, output)
        return
    if verb == "search":
        found = search(source)
    else:
        found = {"infer": infer, "ranges": ranges}[verb](source, data, settings)
    output.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], *(Path(text) for text in sys.argv[2:5]), json.loads(sys.argv[5]))
