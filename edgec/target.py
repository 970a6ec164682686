"""A row of the capability table as data: what a device with a software stack can do.

A stack is a list of runtimes (a backend on a unit of the device), the preferred first; each runtime
has a grid, ladders and an op table of its own. The files and how they are merged: `edgec.table`;
what a row consists of: `edgec.target_rows`.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgec.data import folder
from edgec.errors import InputError
from edgec.table import FILE, likened, names, place, read, wrong
from edgec.target_rows import KNOWN, need, runtime, software, unit
from edgec.types import Hardware, Runtime, Target

__all__ = ["HOST", "cpu_flags", "fitting", "host", "load_target", "names", "stacks"]

HOST = "host"
BOARD = Path("/proc/device-tree/model")


def load_target(name: str, stack: str | None = None) -> Target:
    """The row called `name`, the row in the folder `name`, or for "host" the row of this machine.

    Raises InputError for an unknown name or stack, and for a table that is not sound.
    """
    path = _row(name)
    return _target(path, read(path), stack, ours=name == HOST)


def stacks(name: str) -> list[str]:
    """The software stacks of a target, the default first. InputError: unknown name."""
    table = read(_row(name))
    default = _default(table)
    return [default, *(stack for stack in table["stacks"] if stack != default)]


def _row(name: str) -> Path:
    """The folder of a row. Raises InputError where there is none."""
    name = host() if name == HOST else name
    path = place(name)
    if not (path / FILE).is_file() or not name:
        raise InputError(
            f"unknown target {name!r}",
            hint=f"choose one of {', '.join([HOST, *names()])}, or give a folder with a {FILE}",
        )
    return path


def host() -> str:
    """The row of the highest rank whose architecture, board and CPU flags this machine has."""
    return fitting()[0]


def fitting() -> list[str]:
    """Every row that this machine fits, the one of the highest rank first: what is built for one of
    them runs here."""
    rows = {name: read(folder("targets") / name) for name in names()}
    found = [name for name in rows if _fits(rows[name])]
    return sorted(found, key=lambda name: int(rows[name].get("rank", 0)), reverse=True)


def cpu_flags() -> frozenset[str]:
    """The CPU's feature flags, as the kernel names them; empty where it does not say."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    flags: set[str] = set()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            flags.update(value.split())
    return frozenset(flags)


def board() -> str:
    """The board's name in the device tree, or an empty text where there is none (on a PC)."""
    try:
        return BOARD.read_bytes().decode("utf-8", "replace").strip("\0\n ")
    except OSError:
        return ""


def _fits(table: Mapping[str, Any]) -> bool:
    if table.get("by_name") or table["arch"] not in ("any", platform.machine()):
        return False
    flags, needs, boards = cpu_flags(), table.get("requires", []), table.get("boards", [])
    if boards and not any(text in board() for text in boards):
        return False
    return not needs or any(set(group) <= flags for group in needs)


def _default(table: Mapping[str, Any]) -> str:
    return str(table.get("default_stack") or next(iter(table["stacks"])))


def _target(path: Path, table: Mapping[str, Any], wanted: str | None, *, ours: bool) -> Target:
    """The row of a table. `ours`: this machine was found to be it."""
    file = path / FILE
    name = path.resolve().name
    need(file, "the row", table, ("summary", "arch", "verified", "stacks", "runtimes"))
    hardware = {key: unit(file, key, row) for key, row in table.get("hardware", {}).items()}
    for stack, row in table["stacks"].items():
        need(file, f"stacks.{stack}", row, ("runtimes", *KNOWN))
    built: dict[str, Runtime] = {}
    for key in table["runtimes"]:
        row = likened(file, key, table["runtimes"])
        built[key] = runtime(file, key, row, hardware)
    for stack, row in table["stacks"].items():
        for key in (*row["runtimes"], *row.get("offloads", ())):
            if key not in built:
                raise wrong(
                    file,
                    f"stacks.{stack}",
                    f"there is no runtime {key!r}",
                    f"it has {', '.join(sorted(built))}",
                )
    default = _default(table)
    chosen = wanted or default
    if chosen not in table["stacks"]:
        raise InputError(
            f"target {name} has no stack {chosen!r}",
            hint=f"it has {', '.join(table['stacks'])}; {default} is the default",
        )
    row = table["stacks"][chosen]
    return Target(
        name=name,
        summary=str(table["summary"]),
        arch=str(table["arch"]),
        requires=tuple(frozenset(map(str, group)) for group in table.get("requires", [])),
        stack=chosen,
        runtimes=tuple(built[key] for key in row["runtimes"]),
        here=ours or (_fits(table) and (path.parent != folder("targets") or name == host())),
        verified=str(table["verified"]),
        software=software(chosen, row),
        hardware=hardware,
        offloads=tuple(
            built[key] for key in row.get("offloads", ()) if _present(built[key], hardware)
        ),
        goals=table.get("goals", {}),
    )


def _present(runtime: Runtime, hardware: Mapping[str, Hardware]) -> bool:
    unit = hardware.get(runtime.device)
    return unit is not None and unit.facts.get("count", 1) != 0
