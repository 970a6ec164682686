"""What the harness passes around: a model of the bench, a build, a case, and a case's row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
Scores = dict[str, float]
Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Folder:
    """What a model's folder holds after `make`.

    64 samples calibrate every case; `heldout` has one `.npy` for each input, a row a sample (an
    input with fewer rows starts again); `labels.npz` is the task's own.
    """

    path: Path

    @property
    def model(self) -> Path:
        return self.path / "model.onnx"

    @property
    def calibration(self) -> Path:
        return self.path / "calibration"

    @property
    def heldout(self) -> Path:
        return self.path / "heldout"

    @property
    def labels(self) -> Path:
        return self.path / "labels.npz"

    @property
    def sample(self) -> Path:
        """The one sample whose latency is measured."""
        return self.calibration / "000.npz"


@dataclass(frozen=True)
class Model:
    """A network of the bench. Input shapes are fixed, batch 1: no case has to guess them.

    `make(folder, packages)` writes the folder's content. `score(reference, outputs, labels)` is the
    task: figures by name, from stacked outputs [samples, …] of FP32 and of a case. `reduce` keeps
    of one sample's outputs what the task needs, where they are large.
    """

    name: str
    title: str
    about: str
    make: Callable[[Folder, Path], None]
    score: Callable[[Arrays, Arrays, Arrays], Scores]
    kind: str  # see peers_cases: which cases make sense
    reduce: Callable[[Arrays], Arrays] = dict
    sources: tuple[str, ...] = ()  # the files `peers_<name>.py` that `make` stands on
    remark: str = ""  # what the table cannot say: why a peer wins, say


@dataclass(frozen=True)
class Build:
    """One tool's work on the model file: cached by the hash of all that it depends on."""

    name: str
    tool: str  # a key of peers_cases.TOOLS
    artifact: str  # the file that the case opens
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A file and how it is opened. `build` None: the source model."""

    name: str
    label: str
    family: str  # float, ort, nncf, olive or edgec: its colour in the plot
    runtime: str  # onnxruntime, openvino or edgec
    build: Build | None = None
    settings: Settings = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Built:
    """How a build went. `problem`: empty, or why there is no artifact.

    `peak_mb`: resident memory of all processes together; `largest_mb`: of the largest one, which
    the kernel records, so that no short peak is missed. `cpu_seconds`: user and system time of all.
    """

    seconds: float
    peak_mb: float
    bytes: int
    problem: str = ""
    note: str = ""
    cpu_seconds: float = 0.0
    largest_mb: float = 0.0


@dataclass(frozen=True)
class Fidelity:
    """Outputs against FP32 ONNX Runtime on the held-out samples: the worst of all outputs."""

    cosine: float
    sqnr_db: float
    task: Scores
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Speed:
    """How many times as fast as FP32 ONNX Runtime, round by round, and milliseconds per call."""

    ratio: float
    low: float
    high: float
    p50_ms: float
    run_mb: float
    medians: tuple[float, ...]


@dataclass(frozen=True)
class Row:
    """All that is known of a case on a model. `problem` says why something is missing."""

    number: int
    case: Case
    built: Built
    fidelity: Fidelity | None
    speed: Speed | None
    problem: str = ""
