"""The goals of a build, from its command line, policy and target, and what became of each.

A figure is judged where this build knows it of the target itself; else the reason is told. Fidelity
is end to end. The drop of accuracy is bounded by disagreement: where at most one in a hundred
answers differ from the float model's, accuracy cannot fall by more than 1 %, whatever is right.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgec.errors import GoalMissed
from edgec.report import report_path
from edgec.results import Comparison, Report, Speed
from edgec.runtime import goals
from edgec.runtime.bench import unsteady
from edgec.runtime.goals import BUILT, VERIFIED, Goal, Verdict, parse

TARGET = {"memory_mb": "memory<={:g}MB", "latency_ms": "p95<={:g}ms", "bundle_mb": "size<={:g}MB"}
BOUND = "accuracy_drop"


@dataclass(frozen=True)
class Figure:
    """A metric in its own unit, or why there is none. `note` goes with a verdict."""

    value: float | None
    note: str = ""


def of_target(limits: Mapping[str, object]) -> list[Goal]:
    """The limits of a target's table as goals."""
    return [
        parse(TARGET[key].format(value), BUILT) for key, value in limits.items() if key in TARGET
    ]


def judge(
    wanted: Iterable[Goal], report: Report, *, with_data: bool, unmeasured: str
) -> list[Verdict]:
    """A verdict for each goal. `unmeasured`: why no speed was taken of the target, or empty."""
    found = []
    for goal in wanted:
        figure = _figure(goal, report, with_data, unmeasured)
        verdict = goals.judge(goal, figure.value, figure.note)
        if goal.metric == BOUND and verdict.state == "missed" and verdict.value is not None:
            reason = f"labels alone can tell: it is {verdict.value:.3g} % at most, the share of "
            reason += "answers that changed; edgec verify --metric tells with labels"
            verdict = verdict._replace(state="not judged", value=None, reason=reason)
        elif figure.note and verdict.state != "not judged":
            verdict = verdict._replace(reason=figure.note)
        found.append(verdict)
    return found


def first_missed(report: Report) -> GoalMissed | None:
    """The error of the first goal that was missed. The bundle is there all the same."""
    return _missed(report.goals, report.bundle)


def missed_of(bundle: Path) -> GoalMissed | None:
    """The same of a report that lies beside its bundle."""
    page = json.loads(report_path(bundle).read_text(encoding="utf-8"))
    return _missed([Verdict(**one) for one in page.get("goals", ())], bundle)


def _missed(verdicts: Iterable[Verdict], bundle: Path) -> GoalMissed | None:
    for verdict in verdicts:
        if verdict.state == "missed":
            error = goals.missed(verdict)
            error.hint = f"{bundle} is kept, to be looked at. {error.hint}"
            return error
    return None


def line(verdict: Verdict) -> str:
    """A verdict as a line for people."""
    told = "" if verdict.value is None else f", {verdict.value:.4g}{verdict.unit}"
    told = ", equal" if verdict.value == math.inf else told
    return f"goal {verdict.goal}: {verdict.state}{told}" + (
        f" ({verdict.reason})" if verdict.reason else ""
    )


def _figure(goal: Goal, report: Report, with_data: bool, unmeasured: str) -> Figure:
    if goal.metric == "size":
        return Figure(report.bundle_bytes / 1e6)
    if goal.metric in VERIFIED:
        return _fidelity(goal.metric, report, with_data)
    if goal.metric == "power":
        return Figure(None, "a build measures no power: edgec bench does, on the device")
    return _speed(goal.metric, report, unmeasured)


def _fidelity(metric: str, report: Report, with_data: bool) -> Figure:
    if not with_data:
        return Figure(None, "built without --data: synthetic inputs show breakage, not accuracy")
    stand_ins = {one.stand_in.label for one in report.artifacts if one.stand_in is not None}
    note = f"computed here by {', '.join(sorted(stand_ins))}" if stand_ins else ""
    kinds: Mapping[str, Callable[[Comparison], bool]] = {
        "sqnr": lambda one: not math.isnan(one.sqnr_db),
        "agreement": lambda one: one.agreement_kind != "none",
        BOUND: lambda one: one.agreement_kind == "top-1",
    }
    asked = [one for one in report.checks.outputs if kinds[metric](one)]
    if not asked:
        reason = "no output of this model is a choice of one class"
        return Figure(None, reason if metric != "sqnr" else "there is nothing to compare")
    if metric == "sqnr":
        return Figure(min(one.sqnr_db for one in asked), note)
    least = min(one.agreement for one in asked)
    return Figure(least if metric == "agreement" else 1 - least, note)


def _speed(metric: str, report: Report, unmeasured: str) -> Figure:
    found: list[Speed] = [
        one.speed for one in report.contenders if one.name == report.chosen and one.speed
    ]
    if unmeasured or not found:
        return Figure(None, unmeasured or "the bundle was not timed")
    speed = found[0]
    if unsteady(speed.built) or unsteady(speed.float_form):
        low, high = min(speed.built.medians), max(speed.built.medians)
        return Figure(
            None,
            f"this machine was busy: rounds took {low:.3g} to {high:.3g} ms; edgec bench tells",
        )
    if metric in goals.RELATIVE:
        gain = speed.gain.median
        return Figure(gain if metric == "speedup" else 1 / gain, "against FP32 ONNX Runtime")
    return Figure(goals.of_case(speed.built._asdict(), metric))
