"""Code that is compiled where edgec runs, if a compiler is there; something else does the same."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from edgec.errors import ToolchainError

SOURCES = Path(__file__).parent
FLAGS = ("-O3", "-march=native", "-std=gnu11", "-shared", "-fPIC")
LIBRARIES = ("-lm", "-lpthread")
TIME_LIMIT = 180.0  # seconds
WITHOUT = "histograms are counted by numpy, more slowly"
REFERENCE = "the reference of a custom op runs instead"


def histogram_library(folder: Path, *, wanted: bool = True) -> Path:
    """Compile the custom op of `histogram.c` into `folder`; raises ToolchainError with the reason.

    It is compiled anew each time, in less than a second, for the CPU that runs it: nothing is
    loaded from a folder that others may write to. CC names another compiler.
    """
    if not wanted:
        raise ToolchainError("no native code is wanted", hint="leave --no-native out")
    source, library = SOURCES / "histogram.c", folder / "histogram.so"
    return compiled(compiler("CC", "cc", WITHOUT), FLAGS, source, library, WITHOUT, LIBRARIES)


def compiler(variable: str, default: str, otherwise: str) -> list[str]:
    """The command of a compiler: what an environment variable names, or the default.

    Raises ToolchainError where there is none; `otherwise`: what happens then.
    """
    try:
        command = shlex.split(os.environ.get(variable, "")) or [default]
    except ValueError as error:
        raise ToolchainError(
            f"{variable} is no command: {error}", hint="close its quotes"
        ) from error
    if shutil.which(command[0]) is None:
        kind = {"CC": "C", "CXX": "C++", "NVCC": "CUDA"}[variable]
        package = {"CC": "gcc", "CXX": "g++", "NVCC": "cuda-nvcc-13-0"}[variable]
        raise ToolchainError(
            f"there is no {kind} compiler ({command[0]})",
            hint=f"{otherwise}; apt install {package}",
        )
    return command


def compiled(
    command: Sequence[str],
    flags: Sequence[str],
    source: Path,
    result: Path,
    otherwise: str,
    libraries: Sequence[str] = (),
) -> Path:
    """Compile one file; raises ToolchainError with the compiler's first line."""
    line = [*command, *flags, "-o", str(result), str(source), *libraries]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired as error:
        why = f"{command[0]} timed out on {source.name}, after {TIME_LIMIT:.0f} seconds"
        raise ToolchainError(why, hint=otherwise) from error
    except OSError as error:
        raise ToolchainError(f"{command[0]} does not run: {error}", hint=otherwise) from error
    if done.returncode or not result.is_file():
        lines = done.stderr.strip().splitlines() or ["no message"]
        first = next((one for one in lines if "error" in one), lines[0])
        for folder in (SOURCES, source.parent):
            first = first.replace(f"{folder}/", "")
        raise ToolchainError(
            f"{command[0]} cannot compile {source.name}: {first[:200]}", hint=otherwise
        )
    return result
