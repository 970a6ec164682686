"""What the results of a step depend on, and keeping them: hashes, versions, JSON records."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
from collections.abc import Callable, Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from peers_types import Model

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DEMO = ("assets", "checkpoints.py", "data.py", "model.py", "pictures.py", "towers.py")
PACKAGES = {
    "make": ("onnx", "onnxruntime", "pillow", "tokenizers"),
    "ort": ("onnxruntime", "onnx"),
    "nncf": ("nncf", "openvino", "onnx"),
    "olive": (),
    "edgec": ("onnxruntime", "openvino", "onnx", "onnx-ir", "onnxscript"),
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
}


def make_key(model: Model) -> str:
    """What a model and its data depend on."""
    sources = [HERE / f"peers_{name}.py" for name in model.sources]
    shared = [HERE / "real_graphs_ocr.py", *(ROOT / "edgec" / "demo" / name for name in DEMO)]
    return digest(model.name, _files([*sources, *shared]), versions("make"))


def tool_key(tool: str) -> str:
    """What a build or a run with this tool or runtime depends on, besides its input."""
    if tool == "edgec":
        compiler = [path for path in (ROOT / "edgec").iterdir() if path.name != "demo"]
        return digest(_files([*compiler, ROOT / "targets"]), versions(tool))
    if tool == "olive":
        return digest(_files([HERE / "peers_olive.py"]), olive_version())
    own = [path for path in [HERE / f"peers_{tool}.py"] if path.is_file()]
    return digest(_files(own), versions(tool) if tool in PACKAGES else ())


def files_key(artifact: Path) -> str:
    """A model file, and the weights beside it."""
    weights = artifact.with_suffix(".bin")
    return digest(_files([artifact, *([weights] if weights.is_file() else [])]))


@cache
def versions(tool: str) -> tuple[str, ...]:
    """`name version` of the packages that a tool stands on."""
    found = []
    for name in PACKAGES[tool]:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"no {name}")
    return tuple(found)


@cache
def olive_version() -> str:
    """Olive's, in its own environment; empty where there is none."""
    python = Path(os.environ.get("OLIVE_HOME", "")) / "bin" / "python"
    if not os.environ.get("OLIVE_HOME") or not python.is_file():
        return ""
    program = "from importlib.metadata import version; print(version('olive-ai'))"
    done = subprocess.run([str(python), "-c", program], capture_output=True, text=True)
    return done.stdout.strip()


def digest(*things: object) -> str:
    """A hash of values that JSON or `str` can show."""
    text = json.dumps(things, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@cache
def _hash(path: Path, changed: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _files(places: Iterable[Path]) -> list[str]:
    """Hashes of files, and of all source files below folders."""
    found: list[Path] = []
    for place in places:
        found += place.rglob("*") if place.is_dir() else [place]
    kept = sorted(path for path in found if path.is_file() and path.suffix != ".pyc")
    return [f"{path.name} {_hash(path, path.stat().st_mtime_ns)}" for path in kept]


def recall(path: Path, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The record in `path` if it was made under this key, else a new one."""
    if path.is_file():
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if record.get("key") == key:
            return record
    record = {**make(), "key": key}
    store(path, record)
    return record


def store(path: Path, record: Any) -> None:
    """Write JSON; what is not finite becomes a text that `float` reads."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(_plain(record), indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
