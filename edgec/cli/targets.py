"""`edgec targets`: the capability table."""

from __future__ import annotations

import click

from edgec.cli.common import json_option, stack_option, write_json


@click.command("targets")
@click.argument("name", required=False)
@stack_option
@json_option
def command(name: str | None, stack: str | None, json_file: str | None) -> None:
    """List the targets, or show what NAME can do and how that is known."""
    from edgec.target import host, load_target, names

    say = _quiet if json_file == "-" else click.echo
    if name is None:
        rows = [load_target(known) for known in names()]
        here = host()
        for one in rows:
            mark = "* " if one.name == here else "  "
            say(f"{mark}{one.name:<18} {one.stack.name:<14} {one.summary}")
            say(f"  {'':<18} {'':<14} {one.verified}")
        say("* this machine (--target host)")
        write_json(json_file, {"host": here, "targets": [_row(one.name, stack) for one in rows]})
        return
    target = load_target(name, stack)
    say(f"{target.name}: {target.summary}; {target.verified}")
    grid, row = target.grid, target.stack
    say(f"stack {row.name}: opset <= {row.max_opset}, IR <= {row.max_ir} ({row.confidence})")
    channel = "per channel" if grid.per_channel else "per tensor"
    bits = "7 bits" if grid.reduce_range else "8 bits"
    say(
        f"grid: {grid.activations} activations, {grid.weights} weights {channel}, {bits} "
        f"({grid.confidence}: {grid.source})"
    )
    for kind, ladder in target.ladders.items():
        say(f"{kind}: {' > '.join(ladder.with_data)}")
        say(f"  without data: {' > '.join(ladder.without_data)}")
        say(f"  {ladder.reason} ({ladder.confidence}: {ladder.source})")
    for rule in target.ops.values():
        say(f"op {rule.op_type}: {', '.join(sorted(rule.schemes))} ({rule.note})")
    write_json(json_file, _row(name, stack))


def _row(name: str, stack: str | None) -> dict[str, object]:
    from edgec.target import load_target

    target = load_target(name, stack)
    return {
        "name": target.name,
        "summary": target.summary,
        "arch": target.arch,
        "verified": target.verified,
        "here": target.here,
        "stack": {**vars(target.stack), "settings": dict(target.stack.settings)},
        "grid": vars(target.grid),
        "ladders": {
            str(kind): {
                "with_data": list(map(str, ladder.with_data)),
                "without_data": list(map(str, ladder.without_data)),
                "reason": ladder.reason,
                "source": ladder.source,
                "confidence": ladder.confidence,
            }
            for kind, ladder in target.ladders.items()
        },
        "ops": {op: sorted(map(str, rule.schemes)) for op, rule in target.ops.items()},
    }


def _quiet(_: str) -> None:
    """Nothing: stdout carries JSON."""
