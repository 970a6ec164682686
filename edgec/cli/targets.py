"""`edgec targets`: the capability table."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from edgec.cli.common import json_option, stack_option, write_json

if TYPE_CHECKING:
    from edgec.types import Runtime, Target


@click.command("targets")
@click.argument("name", required=False)
@stack_option
@json_option
def command(name: str | None, stack: str | None, json_file: str | None) -> None:
    """List the targets, or show what NAME can do and how that is known."""
    from edgec.target import host, load_target, names, stacks

    say = _quiet if json_file == "-" else click.echo
    if name is None:
        rows = [load_target(known) for known in names()]
        here = host()
        for one in rows:
            mark = "* " if one.name == here else "  "
            say(f"{mark}{one.name:<18} {one.stack:<22} {one.summary}")
            say(f"  {'':<18} {'':<22} {one.verified}")
        say("* this machine (--target host)")
        write_json(json_file, {"host": here, "targets": [_row(one) for one in rows]})
        return
    target = load_target(name, stack)
    say(f"{target.name}: {target.summary}; {target.verified}")
    say(f"stack {target.stack}; there are {', '.join(stacks(target.name))}")
    for runtime in target.runtimes:
        _show(runtime, say)
    write_json(json_file, _row(target))


def _show(runtime: Runtime, say: Callable[[str], None]) -> None:
    say(f"\n{runtime.name}: {runtime.backend} on the {runtime.device}")
    say(
        f"opset <= {runtime.max_opset}, IR <= {runtime.max_ir} "
        f"({runtime.confidence}: {runtime.source})"
    )
    if runtime.static_shapes:
        say("fixed shapes only")
    grid = runtime.grid
    channel = "per channel" if grid.per_channel else "per tensor"
    bits = "7 bits" if grid.reduce_range else "8 bits"
    say(
        f"grid: {grid.activations} activations, {grid.weights} weights {channel}, {bits} "
        f"({grid.confidence}: {grid.source})"
    )
    for kind, ladder in runtime.ladders.items():
        say(f"{kind}: {' > '.join(ladder.with_data)}")
        say(f"  without data: {' > '.join(ladder.without_data)}")
        say(f"  {ladder.reason} ({ladder.confidence}: {ladder.source})")
    for rule in runtime.ops.values():
        say(f"op {rule.op_type}: {', '.join(sorted(rule.schemes))} ({rule.note})")


def _row(target: Target) -> dict[str, object]:
    return {
        "name": target.name,
        "summary": target.summary,
        "arch": target.arch,
        "verified": target.verified,
        "here": target.here,
        "stack": target.stack,
        "runtimes": [_runtime_row(runtime) for runtime in target.runtimes],
    }


def _runtime_row(runtime: Runtime) -> dict[str, object]:
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
        "grid": vars(runtime.grid),
        "ladders": {
            str(kind): {
                "with_data": list(map(str, ladder.with_data)),
                "without_data": list(map(str, ladder.without_data)),
                "speed": {str(scheme): times for scheme, times in ladder.speed.items()},
                "reason": ladder.reason,
                "source": ladder.source,
                "confidence": ladder.confidence,
            }
            for kind, ladder in runtime.ladders.items()
        },
        "ops": {op: sorted(map(str, rule.schemes)) for op, rule in runtime.ops.items()},
    }


def _quiet(_: str) -> None:
    """Nothing: stdout carries JSON."""
