"""What the user wants, read from a TOML file of a few lines.

[parts.vision]            # a part, by name or glob
scheme = "int8_static"
method = "percentile"     # minmax, moving_average, percentile, mse, entropy
runtime = "openvino"      # one of the target's
[ops.Softmax]             # an op type
scheme = "float32"
[nodes."*/layer.0/*"]     # nodes, by name or glob
scheme = "float32"
[limits]
part_sqnr_db = 12.0       # false switches a limit off
cosine = 0.97
[engines]
joining = "together"      # or "per-part"
hint = "latency"          # or "throughput", for backends that know the difference
"""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgec.errors import InputError
from edgec.types import Hint, Joining, Limits, Method, Override, Part, Policy, Scheme

CHOICES = (
    Scheme.FLOAT32,
    Scheme.BFLOAT16,
    Scheme.FLOAT16,
    Scheme.INT8_STATIC,
    Scheme.INT8_DYNAMIC,
    Scheme.INT8_WEIGHT_ONLY,
)


def load_policy(path: Path | None) -> Policy:
    """Read a policy file; without one, the defaults. Raises InputError naming file and key."""
    if path is None:
        return Policy()
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: {error}", hint="correct the policy file") from error
    unknown = sorted(set(table) - {"parts", "ops", "nodes", "limits", "engines"})
    if unknown:
        raise _wrong(path, unknown[0], "the tables are parts, ops, nodes, limits and engines")
    return Policy(
        parts=_overrides(path, table, "parts"),
        ops=_overrides(path, table, "ops"),
        nodes=_overrides(path, table, "nodes"),
        limits=_limits(path, table.get("limits", {})),
        joining=Joining(_engine(path, table, "joining", list(Joining))),
        hint=Hint(_engine(path, table, "hint", list(Hint))),
        source=path.name,
    )


def check_policy(policy: Policy, parts: Sequence[Part]) -> None:
    """Raises InputError for parts or nodes of the policy that the model does not have."""
    known = {"parts": [p.name for p in parts], "nodes": [n for p in parts for n in p.nodes]}
    for table, overrides in (("parts", policy.parts), ("nodes", policy.nodes)):
        for override in overrides:
            if not fnmatch.filter(known[table], override.pattern) and (
                override.pattern not in known[table]
            ):
                names = ", ".join(known["parts"])
                raise InputError(
                    f"{policy.source}: {table}.{override.pattern} matches nothing in this model",
                    hint=f"its parts are {names}; edgec plan --json - lists the nodes",
                )


def _overrides(path: Path, table: Mapping[str, Any], name: str) -> tuple[Override, ...]:
    rows = table.get(name, {})
    if not isinstance(rows, dict):
        raise _wrong(path, name, f'write [{name}."…"] and below it scheme = "…"')
    return tuple(_override(path, f"{name}.{key}", key, row) for key, row in rows.items())


def _override(path: Path, where: str, pattern: str, row: Any) -> Override:
    keys = ("scheme", "method", "runtime")
    if not isinstance(row, dict) or not row or not set(row) <= set(keys):
        raise _wrong(path, where, "the keys are scheme, method, runtime")
    schemes, methods = list(map(str, CHOICES)), list(map(str, Method))
    scheme, method, runtime = (row.get(key) for key in keys)
    if scheme is not None and scheme not in schemes:
        raise _wrong(path, f"{where}.scheme", f"choose one of {', '.join(schemes)}")
    if method is not None and method not in methods:
        raise _wrong(path, f"{where}.method", f"choose one of {', '.join(methods)}")
    if method is not None and not where.startswith("parts."):
        raise _wrong(path, f"{where}.method", "a method is chosen per part")
    if runtime is not None and not (isinstance(runtime, str) and where.startswith("parts.")):
        raise _wrong(path, f"{where}.runtime", "a runtime is chosen per part, by its name")
    return Override(
        pattern=pattern,
        scheme=None if scheme is None else Scheme(scheme),
        method=None if method is None else Method(method),
        runtime=runtime,
    )


def _limits(path: Path, row: Any) -> Limits:
    default = {"part_sqnr_db": Limits().part_sqnr_db, "cosine": Limits().cosine}
    if not isinstance(row, dict) or not set(row) <= set(default):
        raise _wrong(path, "limits", "the keys are part_sqnr_db and cosine")
    values: dict[str, float | None] = dict(default)
    for key, value in row.items():
        if value is False:
            values[key] = None
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            values[key] = float(value)
        else:
            raise _wrong(path, f"limits.{key}", "give a number, or false to switch it off")
    return Limits(**values)


def _engine(path: Path, table: Mapping[str, Any], key: str, choices: Sequence[str]) -> str:
    """A key of the table `engines`; the first choice is the default."""
    row = table.get("engines", {})
    if not isinstance(row, dict) or not set(row) <= {"joining", "hint"}:
        raise _wrong(path, "engines", "the keys are joining and hint")
    value = row.get(key, choices[0])
    if value not in choices:
        raise _wrong(path, f"engines.{key}", f"choose one of {', '.join(choices)}")
    return str(value)


def _wrong(path: Path, where: str, hint: str) -> InputError:
    return InputError(f"{path}: {where} is not a setting of a policy", hint=hint)
