"""Goals and the CI gate: `p95<20ms`, a metric, a comparison, a number and its unit.

The grammar is all there is: nothing is evaluated. A goal must hold; `--fail-if` says what must not.
"""

import math
import re
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence

from edgec.errors import GoalMissed, InputError

# What a unit measures, and what it is in that dimension's own unit: ms, MB, a share, a ratio, dB.
UNITS = {
    "us": ("time", 1e-3),
    "ms": ("time", 1.0),
    "s": ("time", 1e3),
    "KB": ("size", 1e-3),
    "MB": ("size", 1.0),
    "GB": ("size", 1e3),
    "%": ("share", 1e-2),
    "x": ("ratio", 1.0),
    "dB": ("decibel", 1.0),
    "/s": ("rate", 1.0),
    "W": ("power", 1.0),
}
# Of a benchmark, and what each measures.
MEASURED = {
    **dict.fromkeys(("p50", "p90", "p95", "p99", "mean", "min", "max"), "time"),
    "samples_per_second": "rate",
    "memory": "size",
    "size": "size",
    "ratio": "ratio",
    "speedup": "ratio",
    "power": "power",
}
RELATIVE = ("ratio", "speedup")  # to a second case
# Of a build, too.
VERIFIED = {"sqnr": "decibel", "agreement": "share", "accuracy_drop": "share"}
BUILT = {**MEASURED, **VERIFIED}
OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}
_HOLDS: Dict[str, Callable[[float, float], bool]] = {
    "<": lambda value, limit: value < limit,
    "<=": lambda value, limit: value <= limit,
    ">": lambda value, limit: value > limit,
    ">=": lambda value, limit: value >= limit,
}
_GRAMMAR = re.compile(
    r"\s*([a-z][a-z0-9_]{0,30})\s*(<=|>=|<|>)\s*([0-9]{1,12}(?:\.[0-9]{1,12})?)\s*(us|ms|s|KB|MB|GB|%|x|dB|/s|W)\s*"
)
_FIELDS = {"min": "low", "max": "high", "samples_per_second": "per_second", "memory": "peak_mb"}


class Goal(NamedTuple):
    """`metric comparison limit unit`; the limit is in that unit."""

    metric: str
    comparison: str
    limit: float
    unit: str

    def __str__(self) -> str:
        return "{}{}{:g}{}".format(*self)

    def shown(self, value: float) -> float:
        """A value in the metric's own unit, as the goal's."""
        return value / UNITS[self.unit][1]

    def holds(self, value: float) -> bool:
        """Whether a value in the metric's own unit is as wanted."""
        return _HOLDS[self.comparison](self.shown(value), self.limit)


class Verdict(NamedTuple):
    """What became of a goal: met, missed, or not judged for a reason; the value in its unit."""

    goal: str
    state: str
    value: Optional[float]
    limit: float
    unit: str
    reason: str


def parse(text: str, known: Mapping[str, str]) -> Goal:
    """A goal about one of the metrics in `known`. Raises InputError, saying what can be written."""
    found = _GRAMMAR.fullmatch(text)
    if found is None:
        hint = "Write a metric, <, <=, > or >=, a number and a unit ({}), as in {!r}."
        hint = hint.format(", ".join(UNITS), "p95<20ms")
        raise InputError("{!r} is no goal".format(text[:100]), hint=hint)
    metric, comparison, number, unit = found.groups()
    if metric not in known:
        hint = "The metrics are " + ", ".join(known)
        raise InputError("{!r}: there is no metric {!r} here".format(text, metric), hint=hint)
    if UNITS[unit][0] != known[metric]:
        units = " or ".join(name for name, (kind, _) in UNITS.items() if kind == known[metric])
        raise InputError(
            "{!r}: {} is not measured in {}".format(text, metric, unit), hint="Use " + units
        )
    return Goal(metric, comparison, float(number), unit)


def fail_if(text: str) -> Goal:
    """What must hold of a benchmark so that `--fail-if text` passes."""
    goal = parse(text, MEASURED)
    return goal._replace(comparison=OPPOSITE[goal.comparison])


def judge(goal: Goal, value: Optional[float], reason: str = "") -> Verdict:
    """The verdict on a value in the metric's own unit; `reason`: why there is none."""
    if value is None or math.isnan(value):
        text = reason or "there is no such figure"
        return Verdict(str(goal), "not judged", None, goal.limit, goal.unit, text)
    state = "met" if goal.holds(value) else "missed"
    return Verdict(str(goal), state, goal.shown(value), goal.limit, goal.unit, "")


def measured(page: Mapping[str, Any], metric: str) -> Optional[float]:
    """A metric of a benchmark's page, of its first case; None: it was not measured."""
    case = page["cases"][0]
    if metric == "size":
        return float(page["bundle"]["bytes"]) / 1e6
    if metric in RELATIVE:
        ratio = page.get("ratio")
        if ratio is None:
            return None
        return float(ratio["median"] if metric == "ratio" else 1 / ratio["median"])
    if metric == "power":
        return total_power(page["conditions"]["gauges"])
    return of_case(case, metric)


def of_case(case: Mapping[str, Any], metric: str) -> float:
    """A metric of one case, as `bench.Timing` has it."""
    return float(case[_FIELDS.get(metric, metric)])


def total_power(gauges: Mapping[str, Mapping[str, float]]) -> Optional[float]:
    """Watts of the whole board or package, in the mean of the run; None: no rail carries it all."""
    for rail in ("VDD_IN", "POM_5V_IN", "psys", "package-0"):
        for key in sorted(gauges):
            if key.startswith("power_w/") and rail in key.partition("/")[2].split():
                return float(gauges[key]["mean"])
    return None


def enforce(page: Mapping[str, Any], goals: Sequence[Goal]) -> List[Verdict]:
    """Judge the goals on a benchmark's page.

    Raises InputError for what was not measured, and GoalMissed for the first goal that is missed; a
    marked run passes no goal.
    """
    verdicts = []
    for goal in goals:
        verdict = judge(goal, measured(page, goal.metric))
        if verdict.value is None:
            hint = "ratio and speedup need --against MODEL; power needs a device that measures it."
            raise InputError("{} was not measured".format(goal.metric), hint=hint)
        verdicts.append(verdict)
    for verdict in verdicts:
        if verdict.state == "missed" or page["marks"]:
            raise missed(verdict, page["marks"])
    return verdicts


def missed(verdict: Verdict, marks: Sequence[str] = ()) -> GoalMissed:
    """The error of a goal that was missed, or that a disturbed run cannot pass."""
    name, hint = verdict.goal, "Build or choose another bundle, or change the goal."
    if verdict.state != "missed":
        name = "{} on an undisturbed device".format(name)
        hint = "It would pass, but the run is marked ({}). Measure again on an idle, cool device; "
        hint = (hint + "--repeat says how often that is tried.").format("; ".join(marks))
    return GoalMissed(name, verdict.value or 0.0, verdict.limit, hint=hint)
