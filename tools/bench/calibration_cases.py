"""What is measured: the cases of the cost table, and the policies of the accuracy table."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers_types import Folder, Model

HERE = Path(__file__).parent
THREADS = 2
FEW, SOME, MANY, MOST = 32, 128, 512, 2048  # samples


@dataclass(frozen=True)
class Cost:
    """A calibration, on `samples` in every round and on `once` in the first alone."""

    name: str
    label: str
    tool: str  # plain, edgec, ort or nncf
    samples: tuple[int, ...]
    once: tuple[int, ...]
    settings: Mapping[str, Any]


def _ort(name: str, label: str, method: str) -> Cost:
    settings = {"method": method}
    return Cost(f"ort-{name}", f"onnxruntime {label}", "ort", (FEW,), (), settings)


_ENDS = (FEW, SOME)  # what the marginal cost follows from
COSTS = (
    Cost("plain", "inference alone", "plain", _ENDS, (MANY, MOST), {"threads": THREADS}),
    Cost("edgec", "edgec", "edgec", _ENDS, (MANY, MOST), {"threads": THREADS}),
    Cost("plain-1", "inference alone, 1 thread", "plain", _ENDS, (), {"threads": 1}),
    Cost("edgec-1", "edgec, 1 thread", "edgec", _ENDS, (), {"threads": 1}),
    Cost(
        "plain-still",
        "inference alone, idle threads sleep",
        "plain",
        _ENDS,
        (),
        {"threads": THREADS, "spin": False},
    ),
    _ort("minmax", "MinMax", "MinMax"),
    _ort("entropy", "Entropy", "Entropy"),
    Cost(
        "ort-entropy-2048",
        "onnxruntime Entropy, 2048/128",
        "ort",
        (),  # seconds a value
        (FEW,),
        {"method": "Entropy", "options": {"num_bins": 2048, "num_quantized_bins": 128}},
    ),
    _ort("percentile", "Percentile", "Percentile"),
    Cost("nncf", "nncf.quantize, OpenVINO", "nncf", (SOME,), (), {"form": "openvino"}),
)


def command(
    cost: Cost, model: Model, folder: Folder, prepared: Path, samples: Path, output: Path
) -> list[str]:
    """The case as a command line; `prepared`: the model as onnxruntime's quantizer wants it."""
    settings, transformer = dict(cost.settings), model.kind == "transformer"
    count = len(list(samples.glob("*.npz")))
    if cost.tool == "edgec":
        line = [sys.executable, "-m", "edgec", "calibrate", str(folder.model)]
        line += ["--data", str(samples), "--target", "host", "-o", str(output), "--all"]
        line += ["--samples", str(count), "--threads", str(settings["threads"])]
        return [*line, "--json", str(told(output))]
    if cost.tool == "nncf":
        program, source = ["peers_nncf.py"], folder.model
        settings |= {"advice": "transformer"} if transformer else {}
    elif cost.tool == "ort":
        program, source = ["calibration_work.py", "ranges"], prepared
        settings |= {"ops": ["MatMul"]} if transformer else {}
    else:
        program, source = ["calibration_work.py", "infer"], folder.model
    places = [str(path) for path in (source, samples, output)]
    program[0] = str(HERE / program[0])
    return [sys.executable, *program, *places, json.dumps(settings, sort_keys=True)]


def told(output: Path) -> Path:
    """Where a case says what it did, in JSON."""
    return output.with_suffix(".json")


SUFFIXES = {"plain": ".json", "ort": ".json", "edgec": ".statistics", "nncf": ".xml"}


@dataclass(frozen=True)
class Method:
    """A build of the accuracy table: the calibration method of every part, and further lines of
    its policy, for a stage that wins accuracy back, say.
    """

    name: str
    label: str
    method: str
    lines: tuple[str, ...] = ()
    options: tuple[str, ...] = ("--backend", "onnxruntime", "--no-measure")

    @property
    def policy(self) -> str:
        """The policy file: nothing is reverted, so that the row is what it says."""
        parts = ['[parts."*"]', 'scheme = "int8_static"', f'method = "{self.method}"', *self.lines]
        return "\n".join([*parts, "[limits]", "part_sqnr_db = false", "cosine = false", ""])


BARE = ("bias_correction = false", "smoothing = false", 'rounding = "nearest"')
METHODS = (
    Method("minmax", "minmax", "minmax"),
    Method("moving_average", "moving average", "moving_average"),
    Method("percentile", "percentile", "percentile"),
    Method("mse", "mse", "mse"),
    Method("entropy", "entropy", "entropy"),
    Method("auto", "auto", "auto"),
    Method("bare", "minmax, no recovery", "minmax", BARE),
    Method("bias", "minmax, bias correction alone", "minmax", BARE[1:]),
)
TASKS = ("towers", "minilm", "ocr-rec", "ocr-det")
