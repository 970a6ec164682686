"""Code that is compiled where it runs, if a C compiler is there; numpy does the same without it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from edgec.errors import ToolchainError

SOURCES = Path(__file__).parent
FLAGS = ("-O3", "-march=native", "-std=gnu11", "-shared", "-fPIC")
LIBRARIES = ("-lm", "-lpthread")
TIME_LIMIT = 60.0  # seconds


def histogram_library(folder: Path, *, wanted: bool = True) -> Path:
    """Compile the custom op of `histogram.c` into `folder`; raises ToolchainError with the reason.

    It is compiled anew each time, in less than a second, for the CPU that runs it: nothing is
    loaded from a folder that others may write to. CC names another compiler.
    """
    if not wanted:
        raise ToolchainError("no native code is wanted", hint="leave --no-native out")
    try:
        compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
    except ValueError as error:
        raise ToolchainError(f"CC is no command: {error}", hint="close its quotes") from error
    if shutil.which(compiler[0]) is None:
        raise ToolchainError(
            f"there is no C compiler ({compiler[0]})",
            hint="histograms are counted by numpy, more slowly; apt install gcc",
        )
    library = folder / "histogram.so"
    command = [*compiler, *FLAGS, "-o", str(library), str(SOURCES / "histogram.c"), *LIBRARIES]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolchainError(f"{compiler[0]} does not run: {error}", hint="see CC") from error
    if done.returncode or not library.is_file():
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise ToolchainError(
            f"{compiler[0]} cannot compile histogram.c: {lines[0][:200]}",
            hint="histograms are counted by numpy, more slowly",
        )
    return library
