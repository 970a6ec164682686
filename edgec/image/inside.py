"""`edgec build` within a build image: the same command line, files mounted, no network."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgec.errors import GoalMissed, InputError
from edgec.image.program import Program

PLACE = "/work"


def build(program: Program, image: str, options: Sequence[tuple[str, Any]], output: Path) -> str:
    """Run the build; the bundle and its report come to be at `output`. What the build printed.

    `options`: flags with their values, in order; an empty flag is the model. Paths are mounted
    read-only, a file with its folder, because external data lies beside a model. A goal that is
    missed is no failure here: it stands in the report.
    """
    mounts: dict[Path, str] = {}
    line = ["edgec", "build"]
    for flag, value in options:
        if isinstance(value, Path):
            value = _inside(value, mounts)
        if value is True:
            line.append(flag)
        else:
            line += [flag, str(value)] if flag else [str(value)]
    folder = output.absolute().parent
    if folder in mounts or not os.access(folder, os.W_OK):
        raise InputError(
            f"{folder}: the output cannot go there from inside the image",
            hint="give -o in a folder of its own that you may write to",
        )
    mounts[folder] = f"{PLACE}/out"
    line += ["-o", f"{PLACE}/out/{output.name}"]
    owner = f"{os.getuid()}:{os.getgid()}"
    passing = [0, GoalMissed.exit_code]
    return program.run(image, line, mounts, owner, writable=[folder], passing=passing)


def _inside(path: Path, mounts: dict[Path, str]) -> str:
    """The path's place in the container."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder", hint="check the path")
    full = path.resolve()
    folder = full if full.is_dir() else full.parent
    place = mounts.setdefault(folder, f"{PLACE}/{len(mounts)}")
    return place if full.is_dir() else f"{place}/{full.name}"


def options_of(parameters: Mapping[str, str], values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Flags with the values that were given. `parameters`: the flag of each value."""
    found: list[tuple[str, Any]] = []
    for name, flag in parameters.items():
        value = values.get(name)
        for one in value if isinstance(value, tuple) else (value,):
            if one is not None and one is not False:
                found.append((flag, one))
    return found
