"""The runtimes of a target that a build may use: wanted, installed, tuned as the user likes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgec.backends import missing
from edgec.errors import ToolchainError, UnsupportedError
from edgec.types import Target


def available(target: Target, wanted: str | None) -> tuple[Target, tuple[str, ...]]:
    """The target with the runtimes that are wanted and installed here, and what was left out."""
    found = [one for one in target.runtimes if wanted in (None, one.name, one.backend)]
    if not found:
        names = ", ".join(one.name for one in target.runtimes)
        raise UnsupportedError(
            f"target {target.name} with stack {target.stack} runs on {names}, not on {wanted}",
            hint="leave --backend out, or choose a stack or target whose table names that backend",
        )
    lacking = {one.name: missing(one.backend) for one in found if missing(one.backend)}
    left = tuple(one for one in found if one.name not in lacking)
    if not left:
        name, remedy = next(iter(lacking.items()))
        raise ToolchainError(f"{name} is not installed here", hint=remedy)
    notes = tuple(f"{name} was not tried: {remedy} brings it" for name, remedy in lacking.items())
    return replace(target, runtimes=left), notes


def tuned(target: Target, wishes: Mapping[str, str]) -> Target:
    """The target with the wishes in the settings of every runtime that knows such a setting."""
    found = []
    for one in target.runtimes:
        known = {key: value for key, value in wishes.items() if key in one.settings}
        found.append(replace(one, settings={**one.settings, **known}))
    return replace(target, runtimes=tuple(found))
