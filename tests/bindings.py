"""TensorRT's genuine Python bindings, over a stub of its libraries: tools/tensorrt-bindings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = Path(os.environ.get("EDGEC_TENSORRT_BINDINGS", ROOT / ".cache" / "tensorrt"))


def need(version: str) -> Path:
    """The folder of a version; without it, the test is skipped."""
    place = FOLDER / version
    if not (place / "ready").is_file():
        pytest.skip(f"no bindings of TensorRT {version}: tools/tensorrt-bindings installs them")
    return place


def run(version: str, script: Path, word: str) -> dict[str, Any]:
    """What a script prints as JSON in its last line, in a process that has these bindings."""
    place = need(version)
    path = os.pathsep.join(map(str, [ROOT, place]))
    done = subprocess.run(
        [sys.executable, str(script), word],
        env={**os.environ, "PYTHONPATH": path, "LD_LIBRARY_PATH": str(place)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
