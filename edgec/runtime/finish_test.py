"""The self-test of `finish`, in a process of its own: golden sample, and how long a call takes."""

import statistics
import time
from typing import Any, Dict, List, Mapping

import numpy as np

from edgec.runtime.built import Choice
from edgec.runtime.bundle import Bundle
from edgec.runtime.model import Model
from edgec.runtime.selftest import compare

WARMUP, CALLS = 3, 20
CLOSE_DB = 3.0  # how much further from float than the build's own result an output may be


def test(request: Mapping[str, Any]) -> Dict[str, Any]:
    """Open the engines as chosen and run the golden sample.

    An output passes if it is the golden one within the tolerance. Other kernels round elsewhere,
    and a step may compute in other numbers: so it also passes if it is as close to the original's
    float output as the golden one is, within 3 dB.
    """
    choices = {name: Choice(*row) for name, row in request["choices"].items()}
    with Model(Bundle(request["bundle"]), request["threads"], choices=choices) as model:
        golden = model.bundle.manifest["golden"]
        feeds = model.golden_inputs()
        expected = model.bundle.arrays(golden["outputs"])
        exact = model.bundle.arrays(golden["float"]) if "float" in golden else {}
        made = model.run(feeds)
        checks = compare(made, expected, golden["tolerance"]["relative"]).outputs
        problems: List[str] = []
        outputs = []
        for check in checks:
            row = dict(check._asdict(), against="golden")
            if not check.passed and check.name in exact and check.name in made:
                ours, theirs = (
                    sqnr(exact[check.name], one[check.name]) for one in (made, expected)
                )
                if ours >= theirs - CLOSE_DB:
                    row.update(against="float", problem="", sqnr_db=ours, build_sqnr_db=theirs)
            if row["problem"]:
                problems.append("{}: {}".format(check.name, row["problem"]))
            outputs.append({k: _finite(v) for k, v in row.items()})
        passed = bool(checks) and not problems
        return {
            "passed": passed,
            "problems": problems or ([] if checks else ["there are no golden outputs"]),
            "outputs": outputs,
            "timings": _time(model, feeds) if passed else {},
        }


def sqnr(exact: Any, close: Any) -> float:
    """Signal to noise in dB; infinite where they are equal, -inf where they cannot be compared."""
    if exact.shape != close.shape:
        return -float("inf")
    a, b = np.float64(exact).ravel(), np.float64(close).ravel()
    noise = float(np.sum((a - b) ** 2))
    if not np.isfinite(noise):
        return -float("inf")
    return (
        float("inf")
        if noise == 0
        else float(10 * np.log10(max(float(np.sum(a * a)), 1e-300) / noise))
    )


def _time(model: Model, feeds: Mapping[str, Any]) -> Dict[str, Any]:
    for _ in range(WARMUP):
        model.run(feeds)
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        model.run(feeds)
        times.append(1e3 * (time.perf_counter() - start))
    return {
        "calls": CALLS,
        "p50_ms": statistics.median(times),
        "min_ms": min(times),
        "max_ms": max(times),
    }


def _finite(value: Any) -> Any:
    """JSON has no infinity: null stands for it."""
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return float(value) if isinstance(value, np.floating) else value
