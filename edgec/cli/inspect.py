"""`edgec inspect`: what a model is made of, and what a target cannot run of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgec.cli.common import (
    FILE,
    OUTPUT,
    Page,
    json_option,
    kernels_option,
    parse_shapes,
    stack_option,
    write_json,
)
from edgec.errors import InputError

if TYPE_CHECKING:
    from edgec.inspection import Crossing, Inspection, Shortfall

MOST_NODES = 3  # names in a line of the table; JSON has all


@click.command("inspect")
@click.argument("model", type=FILE)
@click.option("--target", help="Tell what this target cannot run; a name, a folder, or host.")
@stack_option
@click.option("--policy", type=FILE, help="Names of parts, and what you want of them (TOML).")
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="NAME=1x3x224x224",
    help="Fix or bound an input's shape; a dimension may be a range: ids=1x1..128.",
)
@click.option(
    "--html", type=OUTPUT, help="Draw parts, and what crosses between them, into this file."
)
@click.option(
    "--save-node",
    type=FILE,
    metavar="DIR",
    help="Write a minimal model for each node that the target cannot run.",
)
@click.option("--every", is_flag=True, help="With --save-node: also of nodes that are alike.")
@click.option(
    "--ask/--no-ask",
    default=True,
    help="Ask the backend that is installed for every node, or trust the table.",
)
@kernels_option
@json_option
def command(
    model: Path,
    target: str | None,
    stack: str | None,
    policy: Path | None,
    shapes: tuple[str, ...],
    html: Path | None,
    save_node: Path | None,
    every: bool,
    ask: bool,
    kernels: Path | None,
    json_file: str | None,
) -> None:
    """Show the parts of MODEL.onnx: sizes, work, what crosses between them, what they are made of.

    MACs are multiply-accumulates for one run. With --target: the nodes that it cannot run, or not
    in INT8, with the reason and its evidence; with --policy: as it would have them. Nothing is
    built.
    """
    from edgec.inspection import inspect
    from edgec.kernels import find
    from edgec.load import load
    from edgec.outputs import check_new_folder
    from edgec.policy import load_policy
    from edgec.target import load_target

    if save_node is not None and target is None:
        raise InputError(
            "--save-node writes what a target cannot run, and there is no target",
            hint="give --target, with host for this machine",
        )
    if save_node is not None:
        check_new_folder(save_node)
    found_target = None if target is None else load_target(target, stack)
    wishes, graph = load_policy(policy), load(model, find(kernels))
    found = inspect(graph, parse_shapes(shapes), found_target, policy=wishes, ask=ask)
    out = Page(json_file)
    _show(out, found)
    if html is not None:
        from edgec.report.inspected import page
        from edgec.runtime.npz import write_bytes

        write_bytes(html, page(found).encode())
        out.line(f"{html}: the picture")
    if save_node is not None:
        saved = _save(found, save_node, every)
        out.line(f"{save_node}: {saved} minimal models of nodes that {target} cannot run")
    write_json(json_file, as_json(found))


def _show(out: Page, found: Inspection) -> None:
    from edgec.report.figures import bytes_text, macs_text, plain, shape_text
    from edgec.report.inspected import about, fixed_note

    out.line(f"{found.graph.source}: {about(found)}")
    for note in fixed_note(found):
        out.line(note)
    rows = [
        [
            view.part.name,
            str(view.part.kind),
            str(view.part.modality),
            str(len(view.part.nodes)),
            bytes_text(view.part.weight_bytes),
            macs_text(view),
            ", ".join(f"{plain(op)} {count}" for op, count in view.ops.items()),
        ]
        for view in found.parts
    ]
    out.table(["part", "kind", "modality", "nodes", "weights", "MACs", "ops"], rows)
    crossings = [
        [
            one.source or "input",
            one.sink or "output",
            plain(one.name),
            one.dtype,
            shape_text(one.shape),
            "unknown" if one.size is None else bytes_text(one.size),
        ]
        for one in found.crossings
    ]
    out.table(["from", "to", "value", "dtype", "shape", "bytes"], crossings)
    if found.target is not None:
        _show_shortfalls(out, found)
    for note in found.notes:
        out.line(f"note: {note}")
    sizes = [dim for one in found.graph.model.graph.inputs for dim in one.shape or (None,)]
    known = all(isinstance(dim, int) for dim in sizes)
    why = "its sizes do not fit together" if known else "say sizes with --shape"
    for view in found.parts:
        if view.unknown:
            names = ", ".join(plain(name) for name in view.unknown[:MOST_NODES])
            out.line(f"{view.part.name}: the work of {names} is not known: {why}")


def _show_shortfalls(out: Page, found: Inspection) -> None:
    from edgec.report.figures import amount_text, plain

    if not found.shortfalls:
        out.line("nothing is known that it cannot run, and what has weights has an INT8 form there")
        return
    rows = []
    for one in found.shortfalls:
        names = ", ".join(plain(name) for name in one.nodes[:MOST_NODES])
        more = f", and {len(one.nodes) - MOST_NODES} more" if len(one.nodes) > MOST_NODES else ""
        work = amount_text(one.work) if one.work else "-"
        rows.append(
            [
                str(one.level),
                one.part,
                plain(one.op_type),
                str(len(one.nodes)),
                work,
                plain(f"{one.reason} [{one.evidence}]"),
                names + more,
            ]
        )
    out.table(["", "part", "op", "nodes", "MACs", "reason [evidence]", "which"], rows)


def _save(found: Inspection, folder: Path, every: bool) -> int:
    """Write what cannot run into `folder`; of nodes that are alike the lightest, unless `every`.

    A node that cannot stand alone is named on stderr. Raises UnsupportedError where none can.
    """
    from edgec.errors import UnsupportedError
    from edgec.inspection import Level
    from edgec.minimal import distinct, file_name, save_minimal

    nodes = {str(node.name): node for node in found.graph.model.graph}
    lacking = [
        nodes[name] for one in found.shortfalls if one.level is Level.CANNOT for name in one.nodes
    ]
    chosen = lacking if every else [same[0] for same in distinct(lacking).values()]
    folder.mkdir(parents=True, exist_ok=True)
    failures: list[UnsupportedError] = []
    for index, node in enumerate(chosen):
        try:
            save_minimal(found.graph.model, node, folder / file_name(index, node))
        except UnsupportedError as error:
            failures.append(error)
            click.echo(f"not saved: {error.message}", err=True)
    if failures and len(failures) == len(chosen):
        raise failures[0]
    return len(chosen) - len(failures)


def as_json(found: Inspection) -> dict[str, Any]:
    """An inspection as JSON values. Amounts are lists of [factor, dimension, …], to be summed."""
    return {
        "model": found.graph.source,
        "sha256": found.graph.sha256,
        "target": None if found.target is None else found.target.name,
        "stack": None if found.target is None else found.target.stack,
        "batch_of_one": list(found.fixed),
        "parts": [
            {
                "name": view.part.name,
                "kind": str(view.part.kind),
                "modality": str(view.part.modality),
                "nodes": list(view.part.nodes),
                "weight_bytes": view.part.weight_bytes,
                "macs": _amount(view.work),
                "macs_unknown": list(view.unknown),
                "ops": dict(view.ops),
                "reason": view.part.reason,
            }
            for view in found.parts
        ],
        "crossings": [_crossing(one) for one in found.crossings],
        "shortfalls": [_shortfall(one) for one in found.shortfalls],
        "notes": list(found.notes),
    }


def _amount(amount: Any) -> list[list[int | str]]:
    return [[factor, *symbols] for symbols, factor in amount.terms.items()]


def _crossing(one: Crossing) -> dict[str, Any]:
    return {
        "value": one.name,
        "from": one.source or None,
        "to": one.sink or None,
        "dtype": one.dtype,
        "shape": None if one.shape is None else list(one.shape),
        "bytes": None if one.size is None else _amount(one.size),
    }


def _shortfall(one: Shortfall) -> dict[str, Any]:
    return {
        "level": str(one.level),
        "part": one.part,
        "op": one.op_type,
        "runtime": one.runtime,
        "nodes": list(one.nodes),
        "macs": _amount(one.work),
        "reason": one.reason,
        "evidence": one.evidence,
    }
