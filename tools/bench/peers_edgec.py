"""edgec's command line, and what its bundle says that it chose."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path


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
    with zipfile.ZipFile(bundle) as files:
        manifest = json.loads(files.read("manifest.json"))
    parts = ", ".join(f"{part['name']} {part['scheme']}" for part in manifest["parts"])
    backends = dict.fromkeys(engine["backend"] for engine in manifest["engines"])
    return f"{parts}; {', '.join(backends)}"
