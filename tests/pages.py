"""Pages of a benchmark, as `bench --json` writes them, with figures that a test chooses."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

CASE = {
    "label": "bundle",
    "p50": 10.0,
    "p90": 11.0,
    "p95": 12.0,
    "p99": 15.0,
    "mean": 10.5,
    "low": 9.0,
    "high": 16.0,
    "rounds": 7,
    "queries": 70,
    "samples": 70,
    "per_second": 95.0,
    "peak_mb": 300.0,
    "threads": 2,
    "medians": [10.0] * 7,
    "invalid": [],
}
PAGE: dict[str, Any] = {
    "schema": 1,
    "verb": "bench",
    "label": "measured with a plain timer in MLPerf's scenarios, not an MLPerf submission",
    "scenario": "SingleStream",
    "harness": "timer",
    "bundle": {"name": "m.edgec", "sha256": "a" * 64, "digest": "b" * 64, "bytes": 5_000_000},
    "model": {"name": "m.onnx", "sha256": "c" * 64, "signature": "5" * 16},
    "target": {"name": "raspberry-pi-5", "stack": "ort-1.23", "arch": "aarch64"},
    "versions": {"edgec": "0.1.0", "python": "3.11.2", "onnxruntime": "1.23.2"},
    "machine": {"arch": "aarch64", "board": "Raspberry Pi 5 Model B", "cores": 4},
    "settings": {"threads": 2, "samples": 8, "qps": 0.0, "inputs": "golden", "seconds": 0.0},
    "started": "2026-11-01T10:00:00Z",
    "conditions": {"gauges": {}},
    "marks": [],
    "cases": [CASE],
    "attempts": [],
}


def page(p50: float = 10.0, marks: Sequence[str] = (), **more: Any) -> dict[str, Any]:
    """A page whose latencies are in proportion to `p50`; `more` replaces what stands there."""
    made = copy.deepcopy(PAGE)
    times = ("p50", "p90", "p95", "p99", "mean", "low", "high")
    made["cases"][0].update({key: CASE[key] * p50 / 10 for key in times})  # type: ignore[operator]
    return {**made, "marks": list(marks), **more}
