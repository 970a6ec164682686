"""What the user wants, read from a TOML file of a few lines.

[parts.vision]            # a part, by name or glob
scheme = "int8_static"
runtime = "openvino"      # one of the target's
method = "percentile"     # minmax, moving_average, percentile, mse, entropy, or auto: what suits
bias_correction = false   # what keeps INT8 close to float is tried, and kept where it helps
smoothing = 0.8           # SmoothQuant's strength; false: none, auto: the best of some
rounding = "nearest"      # or gptq
mask_aware_ranges = false
[ops.Softmax]             # an op type
scheme = "float32"
[nodes."*/layer.0/*"]     # nodes, by name or glob
scheme = "float32"
[values."/layer.0/*"]     # values, by name or glob
method = "entropy"
[names]                   # what a part is called here and everywhere, by the name it is found under
vision = "camera"
[limits]
part_sqnr_db = 12.0       # false switches a limit off
cosine = 0.97
[engines]
joining = "together"      # or "per-part"
hint = "latency"          # or "throughput", for backends that know the difference
[goals]                   # what the bundle is to reach: a comparison, a number and its unit
size = "<30MB"
"""

from __future__ import annotations

import fnmatch
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from edgec.calibrators import AUTO, methods
from edgec.calibrators import CHOICES as METHODS
from edgec.errors import InputError
from edgec.runtime.goals import BUILT, Goal, parse
from edgec.types import Hint, Joining, Limits, Method, Override, Part, Policy, RecoveryPlan, Scheme

CHOICES = (
    Scheme.FLOAT32,
    Scheme.BFLOAT16,
    Scheme.FLOAT16,
    Scheme.INT8_STATIC,
    Scheme.INT8_DYNAMIC,
    Scheme.INT8_WEIGHT_ONLY,
)
RECOVERIES = ("bias_correction", "smoothing", "rounding", "mask_aware_ranges")
FIELDS = ("methods", "bias", "strengths", "gptq", "mask_aware")  # of a RecoveryPlan
ROUNDINGS = ("gptq", "nearest")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")  # of a part: it becomes the name of a file too
TAKEN = ("shared", "main")  # nodes of no part; an engine that holds all parts
NAME_HINT = f"a name is letters, digits and _, 40 at most, and not {' or '.join(TAKEN)}"
# What the tables may state.
KEYS = {
    "parts": ("scheme", "runtime", "method", *RECOVERIES),
    "ops": ("scheme",),
    "nodes": ("scheme",),
    "values": ("method",),
}


def load_policy(path: Path | None) -> Policy:
    """Read a policy file; without one, the defaults. Raises InputError naming file and key."""
    if path is None:
        return Policy()
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: {error}", hint="correct the policy file") from error
    unknown = sorted(set(table) - {*KEYS, "names", "limits", "engines", "goals"})
    if unknown:
        raise _wrong(
            path, unknown[0], f"the tables are {', '.join(KEYS)}, names, limits, engines and goals"
        )
    return Policy(
        parts=_overrides(path, table, "parts"),
        ops=_overrides(path, table, "ops"),
        nodes=_overrides(path, table, "nodes"),
        values=_overrides(path, table, "values"),
        names=_names(path, table.get("names", {})),
        limits=_limits(path, table.get("limits", {})),
        joining=Joining(_engine(path, table, "joining", list(Joining))),
        hint=Hint(_engine(path, table, "hint", list(Hint))),
        goals=_goals(path, table.get("goals", {})),
        source=path.name,
    )


def check_policy(policy: Policy, parts: Sequence[Part], values: Sequence[str]) -> None:
    """Raises InputError for parts, nodes or values of the policy that the model does not have."""
    known = {
        "parts": [p.name for p in parts],
        "nodes": [n for p in parts for n in p.nodes],
        "values": values,
    }
    for table, names in known.items():
        for override in getattr(policy, table):
            if override.pattern not in names and not fnmatch.filter(names, override.pattern):
                raise InputError(
                    f"{policy.source}: {table}.{override.pattern} matches nothing in this model",
                    hint=f"its parts are {', '.join(known['parts'])}; edgec plan --json - lists "
                    "the nodes",
                )


def match(overrides: Sequence[Override], name: str) -> Override | None:
    """The first exact match, else the first glob that fits."""
    exact = (override for override in overrides if override.pattern == name)
    globs = (override for override in overrides if fnmatch.fnmatchcase(name, override.pattern))
    return next(exact, None) or next(globs, None)


def recovery_plan(part: Part, policy: Policy, nodes: Mapping[str, ir.Node]) -> RecoveryPlan:
    """What the policy states of a part and of values in it, and the defaults for the rest."""
    wish = match(policy.parts, part.name) or Override(part.name)
    stated = {key: getattr(wish, key) for key in FIELDS}
    names = {
        str(value.name)
        for name in part.nodes
        for value in (*nodes[name].inputs, *nodes[name].outputs)
        if value is not None
    }
    wishes = ((name, match(policy.values, name)) for name in sorted(names))
    values = {n: one.methods[0] for n, one in wishes if one is not None and one.methods}
    plan = RecoveryPlan(values=values)
    return replace(plan, **{key: value for key, value in stated.items() if value is not None})


def _names(path: Path, row: Any) -> dict[str, str]:
    if not isinstance(row, dict):
        raise _wrong(path, "names", 'write [names] and below it vision = "camera"')
    for key, name in row.items():
        if not isinstance(name, str) or not NAME.fullmatch(name) or name in TAKEN:
            raise _wrong(path, f"names.{key}", NAME_HINT)
    if len(set(row.values())) < len(row):
        raise _wrong(path, "names", "two parts cannot have one name")
    return dict(row)


def _goals(path: Path, row: Any) -> tuple[Goal, ...]:
    if not isinstance(row, dict):
        raise _wrong(path, "goals", 'write [goals] and below it size = "<30MB"')
    for key, text in row.items():
        if not isinstance(text, str):
            raise _wrong(path, f"goals.{key}", 'write a comparison, a number and a unit: "<30MB"')
    try:
        return tuple(parse(f"{key}{text}", BUILT) for key, text in row.items())
    except InputError as error:
        raise InputError(f"{path}: goals: {error.message}", hint=error.hint) from error


def _overrides(path: Path, table: Mapping[str, Any], name: str) -> tuple[Override, ...]:
    rows = table.get(name, {})
    if not isinstance(rows, dict):
        raise _wrong(path, name, f'write [{name}."…"] and below it scheme = "…"')
    return tuple(_override(path, f"{name}.{key}", key, row) for key, row in rows.items())


def _override(path: Path, where: str, pattern: str, row: Any) -> Override:
    keys = KEYS[where.partition(".")[0]]
    _check_keys(path, where, row or None, keys)  # a table that states nothing is a slip
    readers = {**_READERS, **(_OF_VALUES if where.startswith("values.") else {})}
    found: dict[str, Any] = {}
    for key, value in row.items():
        allowed, read = readers[key]
        try:
            found |= read(value)
        except (ValueError, TypeError) as error:
            raise _wrong(path, f"{where}.{key}", allowed) from error
    return Override(pattern, **found)


def _chosen(value: Any, choices: Sequence[str]) -> str:
    if value not in choices:
        raise ValueError(value)
    return str(value)


def _strengths(value: Any) -> dict[str, tuple[float, ...]]:
    """`false`, "auto" or a number between 0 and 1."""
    if value is False:
        return {"strengths": ()}
    if value == AUTO:
        return {}
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
        raise ValueError(value)
    return {"strengths": (float(value),)}


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(value)
    return value


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


# By key: what it may be, and the fields of an Override that it gives.
_READERS: Mapping[str, tuple[str, Callable[[Any], dict[str, Any]]]] = {
    "scheme": (
        f"choose one of {', '.join(CHOICES)}",
        lambda value: {"scheme": Scheme(_chosen(value, CHOICES))},
    ),
    "runtime": ("a runtime, by its name", lambda value: {"runtime": _word(value)}),
    "method": (
        f"choose one of {', '.join(METHODS)}",
        lambda value: {"methods": methods(_chosen(value, METHODS))},
    ),
    "bias_correction": ("true or false", lambda value: {"bias": _switch(value)}),
    "mask_aware_ranges": ("true or false", lambda value: {"mask_aware": _switch(value)}),
    "smoothing": ("false, auto, or a number between 0 and 1", _strengths),
    "rounding": (
        f"choose one of {', '.join(ROUNDINGS)}",
        lambda value: {"gptq": _chosen(value, ROUNDINGS) == "gptq"},
    ),
}


# Of a single value nothing is tried: what it does to the outputs is lost among all others.
_OF_VALUES = {
    "method": (
        f"choose one of {', '.join(Method)}",
        lambda value: {"methods": methods(_chosen(value, list(Method)))},
    )
}


def _limits(path: Path, row: Any) -> Limits:
    default = {"part_sqnr_db": Limits().part_sqnr_db, "cosine": Limits().cosine}
    _check_keys(path, "limits", row, tuple(default))
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
    _check_keys(path, "engines", row, ("joining", "hint"))
    value = row.get(key, choices[0])
    if value not in choices:
        raise _wrong(path, f"engines.{key}", f"choose one of {', '.join(choices)}")
    return str(value)


def _check_keys(path: Path, where: str, row: Any, keys: Sequence[str]) -> None:
    """Raises InputError that names the first key which is none of a table's."""
    hint = f"the keys are {', '.join(keys)}"
    if not isinstance(row, dict):
        raise _wrong(path, where, hint)
    for key in row:
        if key not in keys:
            raise _wrong(path, f"{where}.{key}", hint)


def _wrong(path: Path, where: str, hint: str) -> InputError:
    return InputError(f"{path}: {where} is not a setting of a policy", hint=hint)
