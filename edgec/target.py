"""The capability table: what a device with a software stack can do, read from `targets/`.

A stack is a list of runtimes (a backend on a device), the preferred first; each runtime has a grid,
ladders and an op table of its own. A row may extend another, and a runtime may be like another;
tables are merged key by key. Unknown keys are refused, so that a mistyped one cannot be ignored in
silence.
"""

from __future__ import annotations

import platform
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgec.data import folder
from edgec.errors import InputError
from edgec.types import Grid, Kind, Ladder, OpRule, Runtime, Scheme, Target

FILE = "target.toml"
HOST = "host"

_TOP = {"summary", "arch", "requires", "rank", "default_stack", "verified", "stacks", "runtimes"}
_STACK = {"runtimes"}
_PLAIN = {"backend", "device", "max_opset", "max_ir", "source", "confidence"}
_RUNTIME = _PLAIN | {"like", "precision", "static_shapes", "compressed_dynamic", "settings"}
_RUNTIME |= {"wrong_dense_chains", "unpack_weights", "grid", "ladders", "ops"}
_GRID = {
    "activations",
    "symmetric_activations",
    "weights",
    "per_channel",
    "reduce_range",
    "source",
    "confidence",
}
_LADDER = {"with_data", "without_data", "int8_ops", "speed", "smooth"}
_LADDER |= {"reason", "source", "confidence"}
_OP = {"schemes", "follows", "float_output", "dynamic_inputs", "note"}


def names() -> list[str]:
    """The targets that come with edgec."""
    return sorted(path.parent.name for path in folder("targets").glob(f"*/{FILE}"))


def load_target(name: str, stack: str | None = None) -> Target:
    """The row called `name`, the row in the folder `name`, or for "host" the row of this machine.

    Raises InputError for an unknown name or stack, and for a table that is not sound.
    """
    if name == HOST:
        name = host()
    path = Path(name)
    if not (path / FILE).is_file():
        path = folder("targets") / name
    if not (path / FILE).is_file() or ("/" in name and not Path(name).is_dir()):
        raise InputError(
            f"unknown target {name!r}",
            hint=f"choose one of {', '.join([HOST, *names()])}, or give a folder with a {FILE}",
        )
    table = _read(path)
    try:
        return _target(path, table, stack)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path / FILE}: not a sound table: {type(error).__name__} {error}",
            hint="compare it with the rows that come with edgec",
        ) from error


def host() -> str:
    """The row of the highest rank whose architecture and CPU flags this machine has."""
    rows = {name: _read(folder("targets") / name) for name in names()}
    return max((name for name in rows if _fits(rows[name])), key=lambda name: rows[name]["rank"])


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


def _fits(table: Mapping[str, Any]) -> bool:
    if table["arch"] not in ("any", platform.machine()):
        return False
    flags = cpu_flags()
    needs = table["requires"]
    return not needs or any(set(group) <= flags for group in needs)


def _read(path: Path, depth: int = 0) -> dict[str, Any]:
    try:
        table = tomllib.loads((path / FILE).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path / FILE}: {error}", hint="correct the file") from error
    base = table.pop("extends", None)
    if base is None or depth > 4:
        return table
    return _merge(_read(folder("targets") / str(base), depth + 1), table)


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and key != "grid" else value
    return merged


def _strict(where: str, table: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(table) - known)
    if unknown:
        raise ValueError(f"{where} has the unknown key {unknown[0]!r}")


def _target(path: Path, table: Mapping[str, Any], wanted: str | None) -> Target:
    name = path.name
    _strict("the table", table, _TOP)
    stacks = table["stacks"]
    for key, row in stacks.items():
        _strict(f"stacks.{key}", row, _STACK)
    runtimes = {key: _runtime(key, _like(key, table["runtimes"])) for key in table["runtimes"]}
    chosen = wanted or str(table.get("default_stack") or next(iter(stacks)))
    if chosen not in stacks:
        raise InputError(
            f"target {name} has no stack {chosen!r}", hint=f"it has {', '.join(sorted(stacks))}"
        )
    return Target(
        name=name,
        summary=str(table["summary"]),
        arch=str(table["arch"]),
        requires=tuple(frozenset(map(str, group)) for group in table["requires"]),
        stack=chosen,
        runtimes=tuple(runtimes[key] for key in stacks[chosen]["runtimes"]),
        here=_fits(table) and (path.parent != folder("targets") or name == host()),
        verified=str(table["verified"]),
    )


def stacks(name: str) -> list[str]:
    """The software stacks of a target, the default first."""
    path = Path(name) if (Path(name) / FILE).is_file() else folder("targets") / name
    table = _read(path)
    default = str(table.get("default_stack") or next(iter(table["stacks"])))
    return [default, *(stack for stack in table["stacks"] if stack != default)]


def _like(name: str, rows: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    """A runtime's row, merged over the row that it is like."""
    row = dict(rows[name])
    _strict(f"runtimes.{name}", row, _RUNTIME)
    base = row.pop("like", None)
    return row if base is None or depth > 4 else _merge(_like(str(base), rows, depth + 1), row)


def _runtime(name: str, row: Mapping[str, Any]) -> Runtime:
    grid = row["grid"]
    _strict(f"runtimes.{name}.grid", grid, _GRID)
    return Runtime(
        name=name,
        **{key: row[key] for key in sorted(_PLAIN)},
        precision=Scheme(row.get("precision", "float32")),
        static_shapes=bool(row.get("static_shapes", False)),
        compressed_dynamic=bool(row.get("compressed_dynamic", False)),
        wrong_dense_chains=bool(row.get("wrong_dense_chains", False)),
        unpack_weights=bool(row.get("unpack_weights", False)),
        settings=row.get("settings", {}),
        grid=Grid(**grid),
        ops={op: _op(op, rule) for op, rule in row["ops"].items()},
        ladders={Kind(kind): _ladder(kind, one) for kind, one in row["ladders"].items()},
    )


def _ladder(kind: str, row: Mapping[str, Any]) -> Ladder:
    _strict(f"ladders.{kind}", row, _LADDER)
    return Ladder(
        with_data=tuple(map(Scheme, row["with_data"])),
        without_data=tuple(map(Scheme, row["without_data"])),
        int8_ops=frozenset(map(str, row["int8_ops"])),
        speed={Scheme(scheme): float(times) for scheme, times in row.get("speed", {}).items()},
        smooth=bool(row.get("smooth", False)),
        reason=str(row["reason"]),
        source=str(row["source"]),
        confidence=str(row["confidence"]),
    )


def _op(op_type: str, row: Mapping[str, Any]) -> OpRule:
    _strict(f"ops.{op_type}", row, _OP)
    return OpRule(
        op_type=op_type,
        schemes=frozenset(map(Scheme, row["schemes"])),
        follows=bool(row.get("follows", False)),
        float_output=bool(row.get("float_output", False)),
        dynamic_inputs=int(row.get("dynamic_inputs", 0)),
        note=str(row["note"]),
    )
