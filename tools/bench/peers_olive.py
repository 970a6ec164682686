"""Olive's `auto-opt`, in an environment of its own, which OLIVE_HOME names (see `peers`).

A program: `peers_olive.py MODEL CALIBRATION ARTIFACT SETTINGS`. Its command line cannot be given
samples of tensors: `auto-opt` does without, and `optimize` wants a data set of the Hugging Face
hub.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

OPTIONS = ("--device", "cpu", "--provider", "CPUExecutionProvider", "--precision", "int8")


def build(model: Path, artifact: Path) -> None:
    """Write the model that `auto-opt` makes of `model`."""
    home = os.environ.get("OLIVE_HOME")
    if not home or not (Path(home) / "bin" / "olive").is_file():
        raise SystemExit("Olive is not installed: OLIVE_HOME names no environment that has it")
    with tempfile.TemporaryDirectory(dir=artifact.parent) as folder:
        command = [str(Path(home) / "bin" / "olive"), "auto-opt", "-m", str(model), *OPTIONS]
        command += ["-o", str(Path(folder) / "out"), "--disable_telemetry"]
        subprocess.run(command, check=True, cwd=folder)
        found = sorted((Path(folder) / "out").rglob("*.onnx"))
        if len(found) != 1:
            raise SystemExit(f"Olive wrote {len(found)} ONNX files")
        found[0].replace(artifact)


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[3]))
