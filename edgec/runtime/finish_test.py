"""The self-test of `finish`, in a process of its own: golden sample, and how long a call takes."""

import statistics
import time
from typing import Any, Dict, Mapping

import numpy as np

from edgec.runtime.built import Choice
from edgec.runtime.bundle import Bundle
from edgec.runtime.model import Model

WARMUP, CALLS = 3, 20


def test(request: Mapping[str, Any]) -> Dict[str, Any]:
    """Open the engines as chosen, and run the golden sample as `Model.self_test` does."""
    choices = {name: Choice(*row) for name, row in request["choices"].items()}
    bundle, threads = Bundle(request["bundle"]), request["threads"]
    with Model(bundle, threads, choices=choices, native_code=True) as model:  # finish has asked
        found = model.self_test()
        problems = ["{}: {}".format(one.name, one.problem) for one in found.outputs if one.problem]
        return {
            "passed": found.passed,
            "problems": problems or ([] if found.passed else ["there are no golden outputs"]),
            "outputs": [
                {key: _finite(value) for key, value in one._asdict().items()}
                for one in found.outputs
            ],
            "timings": _time(model, model.golden_inputs()) if found.passed else {},
        }


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
