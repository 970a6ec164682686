"""The figures that calibration is held to: each follows from the runs of a model, with its aim.

    CPU time of one more sample = (t(128 samples) - t(32 samples)) / 96

so that set-up drops out. Ratios pair the runs of one round; a figure is the median over the rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from calibration_cases import FEW, MANY, MOST, SOME
from calibration_cost import Results
from peers_measure import quartiles

Rounds = dict[int, float]  # by round


@dataclass(frozen=True)
class Found:
    """A figure in words; `met`: whether it reaches its aim, None where there is no figure."""

    text: str
    met: bool | None = None


@dataclass(frozen=True)
class Figure:
    """A line of the overview."""

    label: str
    aim: str
    find: Callable[[Results], Found]


def problem(results: Results, case: str, samples: int) -> str:
    """Why a case has no result; empty where it has one."""
    mine = [one for one in results.runs if (one.case, one.samples) == (case, samples)]
    if not mine:
        return "not measured"
    return next((one.built.problem for one in mine if one.built.problem), "")


def cpu(results: Results, case: str, samples: int) -> Rounds:
    """CPU seconds of all processes of a case."""
    return {
        one.turn: one.built.cpu_seconds
        for one in results.runs
        if (one.case, one.samples) == (case, samples) and not one.built.problem
    }


def marginal(results: Results, case: str) -> Rounds:
    """CPU seconds of one more sample."""
    few, many = cpu(results, case, FEW), cpu(results, case, SOME)
    return {turn: (many[turn] - few[turn]) / (SOME - FEW) for turn in many if turn in few}


def peak(results: Results, case: str, samples: int) -> float | None:
    """MB of a case's largest process, the median over the rounds; None where it has no result."""
    found = [
        one.built.largest_mb
        for one in results.runs
        if (one.case, one.samples) == (case, samples) and not one.built.problem
    ]
    return statistics.median(found) if found else None


def ratio(top: Rounds, bottom: Rounds) -> tuple[float, float, float] | None:
    """Quartiles of the rounds' ratios, of the rounds that have both."""
    values = [top[turn] / bottom[turn] for turn in sorted(top) if bottom.get(turn, 0.0) > 0]
    return quartiles(values) if values else None


def _ratio(top: Rounds, bottom: Rounds, most: float | None, least: float | None) -> Found:
    found = ratio(top, bottom)
    if found is None:
        return Found("not measured")
    low, middle, high = (f"{one:.2f}" for one in found)
    met = (most is None or found[1] <= most) and (least is None or found[1] >= least)
    return Found(f"{middle}x ({low} to {high})" if low != high else f"{middle}x", met)


def _sample(label: str, case: str, base: str) -> Figure:
    def find(results: Results) -> Found:
        return _ratio(marginal(results, case), marginal(results, base), 1.3, None)

    return Figure(label, "at most 1.3x", find)


def _less(label: str, peer: str) -> Figure:
    def find(results: Results) -> Found:
        why = problem(results, peer, FEW)
        if why:
            return Found(why)
        return _ratio(cpu(results, peer, FEW), cpu(results, "edgec", FEW), None, 3.0)

    return Figure(label, "at least 3x", find)


def _nncf(results: Results) -> Found:
    why = problem(results, "nncf", SOME)
    if why:
        return Found(why)
    return _ratio(cpu(results, "edgec", SOME), cpu(results, "nncf", SOME), 1.0, None)


def _above(samples: int) -> Figure:
    def find(results: Results) -> Found:
        own, plain = (peak(results, case, samples) for case in ("edgec", "plain"))
        if own is None or plain is None:
            return Found("not measured")
        return Found(f"{own - plain:.0f} MB ({own:.0f} over {plain:.0f})", own - plain <= 100.0)

    label = f"peak memory above inference alone, {samples:,} samples"
    return Figure(label, "at most 100 MB", find)


def _steady(results: Results) -> Found:
    few, *more = (peak(results, "edgec", samples) for samples in (FEW, MANY, MOST))
    if few is None or None in more:
        return Found("not measured")
    ratios = [one / few for one in more if one is not None]
    worst = max(ratios, key=lambda one: abs(one - 1.0))
    return Found(f"{100 * (worst - 1):+.1f} %", abs(worst - 1.0) <= 0.05)


def _search(results: Results) -> Found:
    if not results.searches:
        return Found("not measured")
    texts = [
        f"{name} {one['mean']:.2f} ({one['most']:.2f})" for name, one in results.searches.items()
    ]
    most = max(one["most"] for one in results.searches.values())
    return Found(", ".join(texts), most <= 10.0)


FIGURES = (
    _sample("CPU time of one more sample over inference alone, 1 thread", "edgec-1", "plain-1"),
    _sample("the same, 2 threads", "edgec", "plain"),
    _sample("the same, over inference whose idle threads sleep", "edgec", "plain-still"),
    _less("CPU time of onnxruntime Entropy over edgec, 32 samples", "ort-entropy"),
    _less("the same, Entropy with 2,048 bins and 128 levels", "ort-entropy-2048"),
    _less("the same, Percentile", "ort-percentile"),
    Figure("CPU time of edgec over nncf.quantize, 128 samples", "at most 1x", _nncf),
    *(_above(samples) for samples in (FEW, MANY, MOST)),
    Figure("peak memory of 512 and 2,048 samples over that of 32", "within 5 %", _steady),
    Figure("threshold search, CPU ms a value, mean (most)", "at most 10", _search),
)
