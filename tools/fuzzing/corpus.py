"""What mutants are made of: the fixtures, the networks and the node cases that onnx ships."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import onnx

FIXTURES = Path(__file__).resolve().parents[2] / "tests" / "fixtures"
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
MOST_BYTES = 200_000
# Bases by kind and how often a kind is drawn. The light networks are large, and take long.
SHARES = {"fixture": 0.45, "node": 0.47, "light": 0.05, "hostile": 0.03}


def corpus(cache: Path) -> dict[str, dict[str, bytes]]:
    """kind -> name -> the bytes of a model; the same on every machine with the same onnx.

    The node cases, which take long to make, are kept in the folder `cache`.
    """
    found = {
        "fixture": _files(FIXTURES),
        "hostile": _files(FIXTURES / "hostile"),
        "light": _files(LIGHT),
    }
    kept = cache / f"nodes-{onnx.__version__}.zip"
    if not kept.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(".partial")
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in _nodes().items():
                archive.writestr(name, data)
        partial.replace(kept)
    with zipfile.ZipFile(kept) as archive:
        nodes = {name: archive.read(name) for name in archive.namelist()}
    return {**found, "node": nodes}


def _nodes() -> dict[str, bytes]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        cases = sorted(collect_testcases(None), key=lambda one: one.name)
    every = {one.name: one.model.SerializeToString(deterministic=True) for one in cases}
    return {name: data for name, data in every.items() if len(data) <= MOST_BYTES}


def _files(folder: Path) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in sorted(folder.glob("*.onnx"))}
