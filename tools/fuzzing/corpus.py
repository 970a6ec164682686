"""What mutants are made of: the fixtures, the networks and the node cases that onnx ships."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx

FIXTURES = Path(__file__).resolve().parents[2] / "tests" / "fixtures"
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
MOST_BYTES = 200_000
# Bases by kind and how often a kind is drawn. The light networks are large, and take long.
SHARES = {"fixture": 0.45, "node": 0.47, "light": 0.05, "hostile": 0.03}


def corpus() -> dict[str, dict[str, bytes]]:
    """kind -> name -> the bytes of a model; the same on every machine with the same onnx."""
    found = {
        "fixture": _files(FIXTURES),
        "hostile": _files(FIXTURES / "hostile"),
        "light": _files(LIGHT),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases(None)
    nodes = {}
    for case in sorted(cases, key=lambda one: one.name):
        data = case.model.SerializeToString(deterministic=True)
        if len(data) <= MOST_BYTES:
            nodes[case.name] = data
    return {**found, "node": nodes}


def _files(folder: Path) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in sorted(folder.glob("*.onnx"))}
