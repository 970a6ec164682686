"""edgec's command line, and what its bundle says that it chose."""

from __future__ import annotations

import json
import math
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def command(model: Path, calibration: Path, artifact: Path, options: Sequence[str]) -> list[str]:
    """The build, as a user types it."""
    line = [sys.executable, "-m", "edgec", "build", str(model), "--data", str(calibration)]
    return [*line, "-o", str(artifact), "--force", *options]


def size(bundle: Path) -> int:
    """Bytes of the engines, without the runtime and the golden sample that a bundle carries."""
    with zipfile.ZipFile(bundle) as files:
        return sum(one.file_size for one in files.infolist() if "engines/" in one.filename)


def choice(bundle: Path) -> str:
    """Each part's scheme, and the backends: "vision int8_static, fusion float32; onnxruntime"."""
    manifest = _manifest(bundle)
    parts = ", ".join(f"{part['name']} {part['scheme']}" for part in manifest["parts"])
    backends = dict.fromkeys(engine["backend"] for engine in manifest["engines"])
    return f"{parts}; {', '.join(backends)}"


def parts(bundle: Path) -> dict[str, float]:
    """Each built part's SQNR in dB, of its worst output, on the build's verification samples."""
    manifest = _manifest(bundle)
    names = {part["name"] for part in manifest["parts"]}
    found: dict[str, float] = {}
    for check in manifest["checks"]:
        if (name := check["part"]) in names:
            equal = math.inf if check["max_abs"] == 0 else -math.inf  # JSON has no infinity
            sqnr = equal if check["sqnr_db"] is None else check["sqnr_db"]
            found[name] = min(sqnr, found.get(name, math.inf))
    return found


def methods(bundle: Path) -> dict[str, str]:
    """The calibration method of each part, as the build used it."""
    found: dict[str, str] = _manifest(bundle)["calibration"]["methods"]
    return found


def _manifest(bundle: Path) -> dict[str, Any]:
    with zipfile.ZipFile(bundle) as files:
        found: dict[str, Any] = json.loads(files.read("manifest.json"))
    return found
