"""Made-up verdicts about plans, for tests of what follows from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import graphs

from edgec.build import Job, prepare
from edgec.results import Artifact, Checks, Comparison, Counts, Speed
from edgec.runtime.bench import Ratio, Timing
from edgec.settle import Settled, improve, settle
from edgec.trial import Prepared, Trial
from edgec.types import Plan, Scheme, Statistics
from edgec.verify import EndToEnd

S, D, W, F, K = (
    Scheme.INT8_STATIC,
    Scheme.INT8_DYNAMIC,
    Scheme.INT8_WEIGHT_ONLY,
    Scheme.FLOAT32,
    Scheme.KEPT,
)


def silent(_: str) -> None:
    """Say nothing."""


def speed(part: str, gain: float) -> Speed:
    def timing(milliseconds: float) -> Timing:
        return Timing(**dict.fromkeys(Timing._fields, milliseconds))  # type: ignore[arg-type]

    return Speed(part, timing(10.0), timing(10.0 / gain), Ratio(gain, gain - 0.01, gain + 0.01))


def compared(part: str, sqnr: float = 40.0, cosine: float = 1.0) -> Comparison:
    return Comparison(part, "v", 0.1, cosine, sqnr, 1.0, "none", 4)


def trial(
    *parts: Comparison,
    outputs: tuple[Comparison, ...] = (),
    speeds: tuple[Speed, ...] = (),
    artifacts: tuple[Artifact, ...] = (),
) -> Trial:
    checks = Checks(parts, outputs, speeds, "4 files")
    return Trial({}, artifacts, Statistics(), {}, (), checks, EndToEnd((), {}, {}))


def artifact(
    planned: Counts, optimised: Counts, misplaced: tuple[str, ...] = (), part: str = "model"
) -> Artifact:
    none: tuple[str, ...] = ()
    return Artifact(
        *("main", "b", "cpu", Path("m"), (), (part,), none, none, {}, planned, planned, optimised),
        misplaced=misplaced,
    )


def prepared(name: str = "mlp", **job: Any) -> Prepared:
    """A fixture for OpenVINO on x86, where the table has three INT8 schemes."""
    wanted = {"target": "x86-vnni", "stack": "openvino", "data": Path("unused"), **job}
    return prepare(Job(graphs.path(name), **wanted))


class Script:
    """Trials with made-up verdicts: what becomes of a plan follows from its schemes alone."""

    def __init__(self, verdict: Callable[[Plan], Trial]) -> None:
        self.verdict, self.plans = verdict, []  # type: Callable[[Plan], Trial], list[Plan]

    def run(self, plan: Plan) -> Trial:
        self.plans.append(plan)
        return self.verdict(plan)

    @property
    def schemes(self) -> list[Scheme]:
        """What was tried for the only part."""
        return [next(iter(plan.schemes.values())) for plan in self.plans]


def by_scheme(figures: Mapping[Scheme, tuple[float, float]]) -> Script:
    """Per scheme of the one part: times of float's speed, and SQNR in dB."""

    def verdict(plan: Plan) -> Trial:
        ((part, scheme),) = plan.schemes.items()
        gain, sqnr = figures[scheme]
        return trial(compared(part, sqnr), speeds=(speed(part, gain),))

    return Script(verdict)


def settled(made: Prepared, script: Script) -> Settled:
    return settle("it", made.plan, made, script, data=True, say=silent)  # type: ignore[arg-type]


def improved(made: Prepared, script: Script) -> Settled:
    first = settled(made, script)
    return improve(first, made, script, data=True, say=silent)  # type: ignore[arg-type]
