"""A target as JSON values, as text for people, and the difference of two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgec.types import Bounds, Hardware, OpRule, Runtime, Support, Target

SOURCES = ("source", "confidence")
NOTHING = "-"


def as_json(target: Target) -> dict[str, Any]:
    """All of a target with one stack; each row with its source and confidence."""
    return {
        "name": target.name,
        "summary": target.summary,
        "arch": target.arch,
        "verified": target.verified,
        "here": target.here,
        "hardware": {name: _unit(unit) for name, unit in target.hardware.items()},
        "goals": dict(target.goals),
        "stack": target.stack,
        "software": {key: value for key, value in vars(target.software).items() if value},
        "runtimes": [_runtime(runtime) for runtime in target.runtimes],
        "offloads": [_runtime(runtime) for runtime in target.offloads],
    }


def difference(left: Target, right: Target) -> list[tuple[str, str, str]]:
    """What differs: a place, and what stands there in each ("-": nothing).

    Runtimes are compared by backend and unit, whatever their names; sources are left out, a
    difference in confidence is not.
    """
    return list(_differ(_comparable(left), _comparable(right)))


def lines(target: Target, stacks: list[str]) -> Iterator[str]:
    """A page for people."""
    yield f"{target.name}: {target.summary}; {target.verified}"
    for unit in target.hardware.values():
        yield from _unit_lines(unit)
    software = target.software
    yield f"stack {target.stack}; there are {', '.join(stacks)}"
    packages = ", ".join(f"{name} {version}" for name, version in software.packages.items())
    facts = [f"Python {software.python}" if software.python else "", packages, software.image]
    told = "; ".join(fact for fact in facts if fact)
    yield f"  {told + ' ' if told else ''}({software.confidence}: {software.source})"
    if software.note:
        yield f"  note: {software.note}"
    for key, value in target.goals.items():
        if key not in SOURCES:
            yield f"goal {key}: {value} ({target.goals['confidence']}: {target.goals['source']})"
    for runtime in target.runtimes:
        yield ""
        yield from _runtime_lines(runtime)
    for runtime in target.offloads:
        yield ""
        yield "by policy alone:"
        yield from _runtime_lines(runtime)


def _unit_lines(unit: Hardware) -> Iterator[str]:
    facts = ", ".join(
        f"{key} {' '.join(map(str, value)) if isinstance(value, list) else value}"
        for key, value in unit.facts.items()
    )
    yield f"{unit.name}: {facts} ({unit.confidence}: {unit.source})"
    for one in unit.dtypes.values():
        note = f", {one.note}" if one.note else ""
        yield f"  {one.name}: {one.speed}{note} ({one.confidence}: {one.source})"


def _runtime_lines(runtime: Runtime) -> Iterator[str]:
    yield f"{runtime.name}: {runtime.backend} on the {runtime.device}"
    yield (
        f"opset <= {runtime.max_opset}, IR <= {runtime.max_ir} "
        f"({runtime.confidence}: {runtime.source})"
    )
    tool = runtime.toolchain
    if tool.name:
        yield (
            f"toolchain: {tool.name} {tool.version}, engines built on the {tool.built_on}, "
            f"INT8 {' or '.join(tool.quantization)}, strong types {tool.strongly_typed} "
            f"({tool.confidence}: {tool.source})"
        )
    if runtime.static_shapes:
        yield "fixed shapes only"
    if runtime.limits != Bounds():
        stated = _stated(vars(runtime.limits)).items()
        bounds = ", ".join(f"{key} {value}" for key, value in stated if key not in SOURCES)
        yield f"limits: {bounds} ({runtime.limits.confidence}: {runtime.limits.source})"
    yield _grid(runtime)
    for scheme, why in runtime.refused.items():
        yield f"no {scheme}: {why}"
    for scheme, other in runtime.instead.items():
        yield (
            f"{scheme} becomes {other.with_data} with data, {other.without_data} without: "
            f"{other.reason} ({other.confidence}: {other.source})"
        )
    for kind, ladder in runtime.ladders.items():
        yield f"{kind}: {' > '.join(ladder.with_data)}"
        yield f"  without data: {' > '.join(ladder.without_data)}"
        yield f"  {ladder.reason} ({ladder.confidence}: {ladder.source})"
    for rule in runtime.ops.values():
        yield _op_line(rule)
    if runtime.unsupported:
        told = next(iter(runtime.unsupported.values()))
        yield f"no ops {', '.join(runtime.unsupported)} ({told})"
    for bug in runtime.bugs:
        yield f"known bug {bug.name}: {bug.effect}: {bug.detour} ({bug.confidence}: {bug.source})"


def _grid(runtime: Runtime) -> str:
    grid = runtime.grid
    channel = "per channel" if grid.per_channel else "per tensor"
    bits = "7 bits" if grid.reduce_range else "8 bits"
    symmetric = "symmetric " if grid.symmetric_activations else ""
    return (
        f"grid: {symmetric}{grid.activations} activations, {grid.weights} weights {channel}, "
        f"{bits} ({grid.confidence}: {grid.source})"
    )


def _op_line(rule: OpRule) -> str:
    forms = ", ".join(sorted(rule.schemes)) or "float"
    if rule.support is Support.NO:
        forms = "not supported"
    elif rule.support is Support.LIMITS:
        forms += ", with limits"
    dtypes = f", in {' or '.join(rule.dtypes)} alone" if rule.dtypes else ""
    place = ", follows its input's grid" if rule.follows else ""
    place += ", gives float from INT8" if rule.float_output else ""
    place += ", in the kernel of a convolution" if rule.fused else ""
    place += ", also of float" if rule.from_float else ""
    known = f"{rule.confidence}: {rule.source}"
    return f"op {rule.op_type}: {forms}{dtypes}{place} ({rule.note}; {known})"


def _unit(unit: Hardware) -> dict[str, Any]:
    return {
        **unit.facts,
        "dtypes": {
            name: {
                "speed": str(one.speed),
                **({"note": one.note} if one.note else {}),
                "source": one.source,
                "confidence": one.confidence,
            }
            for name, one in unit.dtypes.items()
        },
        "source": unit.source,
        "confidence": unit.confidence,
    }


def _runtime(runtime: Runtime) -> dict[str, Any]:
    return {
        "name": runtime.name,
        "backend": runtime.backend,
        "device": runtime.device,
        "max_opset": runtime.max_opset,
        "max_ir": runtime.max_ir,
        "precision": str(runtime.precision),
        "static_shapes": runtime.static_shapes,
        "settings": dict(runtime.settings),
        "source": runtime.source,
        "confidence": runtime.confidence,
        "toolchain": _stated(vars(runtime.toolchain)) if runtime.toolchain.name else {},
        "limits": {} if runtime.limits == Bounds() else _stated(vars(runtime.limits)),
        "grid": vars(runtime.grid),
        "refused": {str(scheme): why for scheme, why in runtime.refused.items()},
        "instead": {
            str(key): {k: str(v) for k, v in vars(one).items()}
            for key, one in runtime.instead.items()
        },
        "ladders": {
            str(kind): {
                "with_data": list(map(str, ladder.with_data)),
                "without_data": list(map(str, ladder.without_data)),
                "int8_ops": sorted(ladder.int8_ops),
                "speed": {str(scheme): times for scheme, times in ladder.speed.items()},
                "smooth": ladder.smooth,
                "reason": ladder.reason,
                "source": ladder.source,
                "confidence": ladder.confidence,
            }
            for kind, ladder in runtime.ladders.items()
        },
        "ops": {op: _op(rule) for op, rule in runtime.ops.items()},
        "unsupported": dict(runtime.unsupported),
        "bugs": {
            bug.name: {key: _plain(value) for key, value in vars(bug).items() if key != "name"}
            for bug in runtime.bugs
        },
    }


def _op(rule: OpRule) -> dict[str, Any]:
    return {
        "support": str(rule.support),
        "schemes": sorted(map(str, rule.schemes)),
        "dtypes": list(rule.dtypes),
        "limits": {key: _plain(value) for key, value in _stated(vars(rule.limits)).items()},
        "follows": rule.follows,
        "float_output": rule.float_output,
        "fused": rule.fused,
        "from_float": rule.from_float,
        "dynamic_inputs": rule.dynamic_inputs,
        "note": rule.note,
        "source": rule.source,
        "confidence": rule.confidence,
    }


def _stated(row: Mapping[str, Any]) -> dict[str, Any]:
    """Of a row what says anything."""
    return {key: _plain(value) for key, value in row.items() if value not in (0, "", (), {}, False)}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _comparable(target: Target) -> dict[str, Any]:
    page = as_json(target)
    for key in ("name", "summary", "stack"):
        del page[key]
    del page["software"]["name"]
    for key in ("runtimes", "offloads"):
        page[key] = {
            f"{one['backend']} on the {one['device']}": {
                **one,
                "refused": sorted(one["refused"]),
                "unsupported": sorted(one["unsupported"]),
            }
            for one in page[key]
        }
    return page


def _differ(left: Any, right: Any, place: str = "") -> Iterator[tuple[str, str, str]]:
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        for key in [*left, *(key for key in right if key not in left)]:
            if key != "source":
                at = f"{place}.{key}" if place else str(key)
                yield from _differ(left.get(key, NOTHING), right.get(key, NOTHING), at)
    elif left != right:
        yield place, _brief(left), _brief(right)


def _brief(value: Any) -> str:
    if isinstance(value, Mapping):
        told = [
            value[key] for key in ("name", "speed", "support", "reason", "effect") if key in value
        ]
        return str(told[0]) if told else ", ".join(map(str, value)) or NOTHING
    if isinstance(value, list):
        return ", ".join(map(str, value)) or NOTHING
    return str(value)
