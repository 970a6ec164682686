"""What a probe found, written as a row: `target.toml`, and `evidence.json` beside it.

A new row extends the one that it was compared with. Where a row is there already, its own tables
are kept and what was found goes on top; comments are lost, so it takes --force.
"""

from __future__ import annotations

import json
import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgec.errors import InputError
from edgec.probe_ops import ABSORBED, FLOAT
from edgec.table import FILE, merge, schema
from edgec.target import load_target
from edgec.types import OpRule, Runtime, Support

if TYPE_CHECKING:
    from edgec.probe import Asked, Probe

EVIDENCE = "evidence.json"
MEASURED = "measured"


def write_row(found: Probe, folder: Path, evidence: Mapping[str, Any], *, force: bool) -> None:
    """Write both files, each complete or not at all. Raises InputError where a row is there."""
    path = folder / FILE
    check(folder, force=force)
    own: dict[str, Any] = {}
    if path.exists():
        load_target(str(folder))  # it has to be sound before it is changed
        own = tomllib.loads(path.read_text(encoding="utf-8"))
    row = merge(own, _row(found, own))
    folder.mkdir(parents=True, exist_ok=True)
    _replace(path, "\n".join(toml(row)) + "\n")
    _replace(folder / EVIDENCE, json.dumps(evidence, indent=1) + "\n")
    load_target(str(folder))


def check(folder: Path, *, force: bool) -> None:
    """Raises InputError where a row may not be written, before anybody is asked."""
    path = folder / FILE
    if path.exists() and not force:
        raise InputError(f"{path} exists", hint="give --force to put what was found on top of it")


def toml(table: Mapping[str, Any], place: tuple[str, ...] = ()) -> Iterator[str]:
    """A table as TOML: plain keys first, then the tables below it."""
    plain = {key: value for key, value in table.items() if not _deep(value, key, place)}
    if place and (plain or not table):
        yield f"\n[{'.'.join(map(_key, place))}]"
    for key, value in plain.items():
        yield f"{_key(key)} = {_value(value)}"
    for key, value in table.items():
        if key not in plain:
            yield from toml(value, (*place, key))


def _deep(value: Any, key: str, place: tuple[str, ...]) -> bool:
    """Whether a value gets a header of its own; rows of ops and dtypes stand in one line each."""
    return isinstance(value, Mapping) and place[-1:] not in (("ops",), ("dtypes",))


def _row(found: Probe, own: Mapping[str, Any]) -> dict[str, Any]:
    machine, target = found.machine, found.target
    versions = ", ".join(f"{name} {text}" for name, text in machine.packages.items())
    told = f"probed on {machine.cpu or machine.arch} with {versions or 'no toolchain'}"
    row: dict[str, Any] = {
        "verified": f"ops and grid {told}; speeds are those of {_base(found, own)}",
        "hardware": {
            "memory": {"gb": machine.memory_gb, "source": "the kernel", "confidence": MEASURED},
            "cpu": {
                "features": list(machine.flags),
                "source": "the kernel's CPU flags",
                "confidence": MEASURED,
            },
        },
        "stacks": {
            target.stack: {
                "runtimes": [one.name for one in target.runtimes],
                "python": machine.python,
                "packages": machine.packages,
                "source": told,
                "confidence": MEASURED,
            }
        },
        "default_stack": target.stack,
        "runtimes": {one.runtime.name: _runtime(one, told) for one in found.asked if not one.why},
    }
    known = schema()["properties"]["arch"]["enum"]
    if not own:
        row = {
            "extends": target.name,
            "summary": machine.board or machine.cpu or f"a machine with {machine.arch}",
            "arch": machine.arch if machine.arch in known else "any",
            "requires": [list(machine.flags)] if machine.flags else [],
            "boards": [machine.board] if machine.board else [],
            **row,
        }
    return row


def _base(found: Probe, own: Mapping[str, Any]) -> str:
    return str(own.get("extends", found.target.name))


def _runtime(one: Asked, told: str) -> dict[str, Any]:
    row: dict[str, Any] = {"ops": _ops(one, told)}
    if set(one.runtime.ops) <= set(row["ops"]):
        row |= {"ops_source": told, "ops_confidence": MEASURED}
        for op in row["ops"].values():
            del op["source"], op["confidence"]
    grid = one.runtime.grid
    if one.saturates is not None:
        row["grid"] = {
            **vars(grid),
            "reduce_range": one.saturates,
            "source": f"products of {grid.activations} and {grid.weights}: {told}",
            "confidence": MEASURED,
        }
    return row


def _ops(one: Asked, told: str) -> dict[str, Any]:
    """Rows of the ops that were asked: what was confirmed, and what the table had wrong."""
    denied, rows = one.denied(), {}
    for op in dict.fromkeys(answer.op for answer in one.answers):
        rule = one.runtime.ops.get(op)
        answers = {answer.form: answer for answer in one.answers if answer.op == op}
        refused = {answer.form: answer for answer in denied.get(op, ())}
        lacks = FLOAT in refused
        schemes = [
            str(s)
            for s in sorted(rule.schemes if rule else ())
            if str(s) not in refused and not lacks
        ]
        row: dict[str, Any] = {
            "schemes": schemes,
            "support": _support(rule, answers, one.runtime, op),
        }
        notes = [f"{form}: {answer.evidence}" for form, answer in refused.items()]
        notes = notes or [rule.note if rule else "runs in float"]
        if op in ABSORBED and schemes:
            notes.append("INT8 by the table: it was asked in float alone")
        row |= {"note": "; ".join(notes)[:900], "source": told, "confidence": MEASURED}
        rows[op] = row
    return rows


def _support(rule: OpRule | None, answers: Mapping[str, Any], runtime: Runtime, op: str) -> str:
    if not answers[FLOAT].fine:
        return str(Support.NO)
    limited = rule is not None and rule.support is Support.LIMITS
    return str(Support.LIMITS if limited else Support.YES)


def _key(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else json.dumps(text)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, (int, float)):
        return repr(value)
    # JSON's escapes are TOML's, but for DEL and for pairs of surrogates
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
