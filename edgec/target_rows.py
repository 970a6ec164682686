"""Rows of the capability table as data: hardware, software, runtimes and what they consist of.

A row without source and confidence of its own has those of the table that it stands in. A ladder
loses the steps that the hardware cannot compute, and says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgec.table import wrong
from edgec.types import (
    Bounds,
    Bug,
    Dtype,
    Grid,
    Hardware,
    Kind,
    Ladder,
    OpLimits,
    OpRule,
    Pace,
    Runtime,
    Scheme,
    Stack,
    Substitute,
    Support,
    Toolchain,
)

# The type that a scheme computes with; without one, any hardware computes it.
COMPUTES = {
    Scheme.FLOAT32: "float32",
    Scheme.BFLOAT16: "bfloat16",
    Scheme.FLOAT16: "float16",
    Scheme.FLOAT8: "float8",
    Scheme.INT8_STATIC: "int8",
    Scheme.INT8_DYNAMIC: "int8",
}
KNOWN = ("source", "confidence")
_PLAIN = ("backend", "device", "max_opset", "max_ir")
_SWITCHES = (
    "static_shapes",
    "compressed_dynamic",
    "wrong_dense_chains",
    "unpack_weights",
    "group_sums",
)


def need(file: Path, where: str, row: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    """Raise InputError that names the first keys that a row lacks."""
    missing = [key for key in keys if key not in row]
    if missing:
        raise wrong(file, where, f"{', '.join(missing)} is missing")


def _known(row: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Source and confidence of a row: its own, else those of the table that it stands in."""
    return {key: str(row.get(key, above.get(key, ""))) for key in KNOWN}


def software(name: str, row: Mapping[str, Any]) -> Stack:
    """The software of a stack."""
    return Stack(
        name=name,
        python=str(row.get("python", "")),
        packages=row.get("packages", {}),
        image=str(row.get("image", "")),
        note=str(row.get("note", "")),
        **_known(row, {}),
    )


def unit(file: Path, name: str, row: Mapping[str, Any]) -> Hardware:
    """A unit of the hardware."""
    need(file, f"hardware.{name}", row, KNOWN)
    return Hardware(
        name=name,
        facts={key: value for key, value in row.items() if key not in (*KNOWN, "dtypes")},
        dtypes={
            dtype: Dtype(dtype, Pace(one["speed"]), str(one.get("note", "")), **_known(one, row))
            for dtype, one in row.get("dtypes", {}).items()
        },
        **_known(row, {}),
    )


def runtime(
    file: Path, name: str, row: Mapping[str, Any], hardware: Mapping[str, Hardware]
) -> Runtime:
    """A backend on one of the units."""
    where = f"runtimes.{name}"
    need(file, where, row, (*_PLAIN, *KNOWN, "grid", "ladders", "ops"))
    found = hardware.get(row["device"])
    dtypes = {} if found is None else found.dtypes
    refused = _refused(found)
    ladders = {}
    for kind in Kind:
        need(file, f"{where}.ladders", row["ladders"], (str(kind),))
        one = row["ladders"][kind]
        keys = ("with_data", "without_data", "int8_ops", "reason", *KNOWN)
        need(file, f"{where}.ladders.{kind}", one, keys)
        ladders[kind] = _ladder(file, f"{where}.ladders.{kind}", one, refused)
    precision = Scheme(row.get("precision", "float32"))
    lacks = row.get("unsupported", {})
    told = _known(lacks, row)
    told_ops = {key: row.get(f"ops_{key}", row[key]) for key in KNOWN}
    return Runtime(
        name=name,
        **_plain(row),
        precision=ladders[Kind.GLUE].with_data[-1] if precision in refused else precision,
        settings=row.get("settings", {}),
        grid=Grid(**row["grid"]),
        ops={
            op: _op(file, f"{where}.ops.{op}", op, one, told_ops) for op, one in row["ops"].items()
        },
        ladders=ladders,
        toolchain=_toolchain(row),
        limits=_bounds(row.get("limits", {}), row),
        dtypes=dtypes,
        refused=refused,
        instead={
            Scheme(key): _instead(file, f"{where}.instead.{key}", one, row)
            for key, one in row.get("instead", {}).items()
        },
        tolerates=row.get("tolerates", 0),
        unsupported=dict.fromkeys(lacks.get("ops", ()), f"{told['confidence']}: {told['source']}"),
        bugs=tuple(
            _bug(file, f"{where}.bugs.{key}", key, one, row)
            for key, one in row.get("bugs", {}).items()
        ),
        **_known(row, {}),
    )


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    plain = {key: row[key] for key in _PLAIN}
    return plain | {key: bool(row.get(key, False)) for key in _SWITCHES}


def _refused(found: Hardware | None) -> dict[Scheme, str]:
    """Schemes that the hardware cannot compute, with the reason that its row gives."""
    refused = {}
    for scheme, dtype in COMPUTES.items():
        one = None if found is None else found.dtypes.get(dtype)
        if found is not None and one is not None and one.speed is Pace.NONE:
            isa = f" ({found.facts['isa']})" if "isa" in found.facts else ""
            note = f": {one.note}" if one.note else ""
            refused[scheme] = (
                f"the {found.name}{isa} does not compute in {dtype}{note} "
                f"({one.confidence}: {one.source})"
            )
    return refused


def _ladder(
    file: Path, where: str, row: Mapping[str, Any], refused: Mapping[Scheme, str]
) -> Ladder:
    steps = {}
    for key in ("with_data", "without_data"):
        stated = tuple(map(Scheme, row[key]))
        steps[key] = tuple(step for step in stated if step not in refused)
        if not steps[key]:
            why = "; ".join(refused[step] for step in stated)
            raise wrong(file, f"{where}.{key}", f"nothing is left of it: {why}")
    made = Ladder(
        with_data=steps["with_data"],
        without_data=steps["without_data"],
        int8_ops=frozenset(map(str, row["int8_ops"])),
        speed={Scheme(scheme): float(times) for scheme, times in row.get("speed", {}).items()},
        smooth=bool(row.get("smooth", False)),
        reason=str(row["reason"]),
        **_known(row, {}),
    )
    first = Scheme(row["with_data"][0])
    if first not in refused:
        return made
    best = made.with_data[0]
    return replace(
        made, reason=f"{first} is not possible: {refused[first]}; the best that is left is {best}"
    )


def _op(
    file: Path, where: str, op_type: str, row: Mapping[str, Any], above: Mapping[str, Any]
) -> OpRule:
    need(file, where, row, ("schemes", "note"))
    limits = row.get("limits", {})
    return OpRule(
        op_type=op_type,
        schemes=frozenset(map(Scheme, row["schemes"])),
        follows=bool(row.get("follows", False)),
        float_output=bool(row.get("float_output", False)),
        dynamic_inputs=int(row.get("dynamic_inputs", 0)),
        note=str(row["note"]),
        fused=bool(row.get("fused", False)),
        from_float=bool(row.get("from_float", False)),
        support=Support(row.get("support", "yes")),
        limits=OpLimits(
            ranks=tuple(limits.get("ranks", ())),
            attributes={key: tuple(values) for key, values in limits.get("attributes", {}).items()},
            constants_below={int(k): v for k, v in limits.get("constants_below", {}).items()},
        ),
        dtypes=tuple(row.get("dtypes", ())),
        **_known(row, above),
    )


def _toolchain(row: Mapping[str, Any]) -> Toolchain:
    stated = row.get("toolchain", {})
    plain = ("name", "version", "built_on", "strongly_typed")
    return Toolchain(
        **{key: str(stated[key]) for key in plain if key in stated},
        quantization=tuple(stated.get("quantization", Toolchain.quantization)),
        **_known(stated, row),
    )


def _bounds(stated: Mapping[str, Any], above: Mapping[str, Any]) -> Bounds:
    if not stated:
        return Bounds()
    return Bounds(
        loadables=int(stated.get("loadables", 0)),
        max_batch=int(stated.get("max_batch", 0)),
        max_dimension=int(stated.get("max_dimension", 0)),
        engine_bytes=int(stated.get("engine_bytes", 0)),
        ranks=tuple(stated.get("ranks", ())),
        only_listed=bool(stated.get("only_listed", False)),
        standard_ops=bool(stated.get("standard_ops", False)),
        **_known(stated, above),
    )


def _instead(
    file: Path, where: str, row: Mapping[str, Any], above: Mapping[str, Any]
) -> Substitute:
    need(file, where, row, ("with_data", "without_data", "reason"))
    return Substitute(
        with_data=Scheme(row["with_data"]),
        without_data=Scheme(row["without_data"]),
        reason=str(row["reason"]),
        **_known(row, above),
    )


def _bug(
    file: Path, where: str, name: str, row: Mapping[str, Any], above: Mapping[str, Any]
) -> Bug:
    need(file, where, row, ("op", "effect", "detour"))
    return Bug(
        name=name,
        op_type=str(row["op"]),
        attributes={key: tuple(values) for key, values in row.get("attributes", {}).items()},
        effect=str(row["effect"]),
        detour=str(row["detour"]),
        **_known(row, above),
    )
