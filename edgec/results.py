"""What the stages behind a plan hand on: engines, what they became, measurements, the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgec.types import (
    Effort,
    Extent,
    Gain,
    KernelChoice,
    Plan,
    Rewrite,
    Runtime,
    Scheme,
    Target,
)

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgec.runtime.bench import Ratio, Timing
    from edgec.runtime.goals import Verdict
    from edgec.runtime.tensorrt_layers import Layer


@dataclass(frozen=True)
class Engine:
    """Parts joined for one runtime: the float `source`, and the `model` to emit.

    `precision`: what the float ops of the engine compute with; `half`: whether float weights are
    stored in 16 bits. `off`: lowering rewrites that failed here. `extents`: of the dimensions that
    vary, by name. `plugged`: the model with nodes that the device has plugins for, which `model`
    writes out.
    """

    name: str
    target: Target
    runtime: Runtime
    precision: Scheme
    half: bool
    parts: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    source: ir.Model
    model: ir.Model
    off: tuple[Rewrite, ...] = ()
    extents: Mapping[str, Extent] = field(default_factory=dict)
    plugged: ir.Model | None = None


@dataclass(frozen=True)
class Counts:
    """Weighted ops (Conv, MatMul, Gemm with a constant weight) by what they compute with."""

    int8: int
    float: int


STAND_IN: Mapping[str, object] = {"graph_optimization_level": "disable_all"}  # of ONNX Runtime


@dataclass(frozen=True)
class StandIn:
    """What computes in an artifact's place where it cannot run; `label` tells it."""

    backend: str
    path: Path
    settings: Mapping[str, object]
    label: str = ""


@dataclass(frozen=True)
class Artifact:
    """A file that a backend built, how to open it, and what it really computes with.

    `data_files` lie beside it and are opened with it; `side_files` are for people. `misplaced`:
    weighted nodes that the backend runs in other numbers than planned; `notes`: what the backend
    forced on the build. `stand_in`: what is verified where the artifact itself cannot run here.
    `build`: how the device builds it, as the manifest has it; empty: nothing is left to build.
    `spares`: models of fallbacks, which go into a file of their own. `layers`: what the backend
    says that it is made of, where it does; `log`: what it wrote while building. `half`: float
    weights are stored in 16 bits, but for those of parts in float32.
    """

    engine: str
    backend: str
    device: str
    path: Path
    data_files: tuple[Path, ...]
    parts: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings: Mapping[str, object]
    planned: Counts
    emitted: Counts
    optimised: Counts
    misplaced: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    side_files: tuple[Path, ...] = ()
    stand_in: StandIn | None = None
    build: Mapping[str, Any] = field(default_factory=dict)
    spares: Mapping[str, Path] = field(default_factory=dict)
    layers: tuple[Layer, ...] = ()
    log: Path | None = None
    half: bool = False

    @property
    def opened(self) -> StandIn:
        """What is opened on this machine: the artifact, or what stands in for it."""
        return self.stand_in or StandIn(self.backend, self.path, self.settings)


@dataclass(frozen=True)
class Comparison:
    """A value of the built model against the original, over all verification samples.

    `agreement` is of the top-1 class, of the ranking, or the share of picked rows that pair up (the
    rest is then of the pairs); `agreement_kind` says which, or "none".
    """

    part: str
    value: str
    max_abs: float
    cosine: float
    sqnr_db: float
    agreement: float
    agreement_kind: str
    samples: int


@dataclass(frozen=True)
class Speed:
    """A part (isolated) or the whole model, against its float form, on this machine.

    `gain`: how many times as fast as float, the median of the rounds' ratios, with quartiles.
    """

    part: str
    float_form: Timing
    built: Timing
    gain: Ratio


@dataclass(frozen=True)
class Checks:
    """All that verification found."""

    parts: tuple[Comparison, ...]
    outputs: tuple[Comparison, ...]
    speeds: tuple[Speed, ...]
    data: str


@dataclass(frozen=True)
class Contender:
    """A plan that was tried as a whole: its runtime per part, its speed, its worst part's SQNR.

    `speed` is None where it was not timed; `failure`: why it could not be settled, or empty.
    """

    name: str
    runtimes: Mapping[str, str]
    speed: Speed | None
    sqnr_db: float
    failure: str


@dataclass(frozen=True)
class Report:
    """A build, told: the plan with its revisions, the checks, and where the bundle is.

    `sizes`: bytes of weights per built part; `gains`: what kept INT8 close to float; `effort`: of
    calibration; `contenders`: the plans that were tried; `goals`: what became of each goal.
    """

    bundle: Path
    target: str
    stack: str
    source_bytes: int
    bundle_bytes: int
    plan: Plan
    sizes: Mapping[str, int]
    gains: tuple[Gain, ...]
    effort: Effort
    artifacts: tuple[Artifact, ...]
    checks: Checks
    contenders: tuple[Contender, ...]
    chosen: str
    notes: tuple[str, ...]
    goals: tuple[Verdict, ...] = ()
    kernels: tuple[KernelChoice, ...] = ()
