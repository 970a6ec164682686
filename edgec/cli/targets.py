"""`edgec targets`: the capability table, two rows compared, and this machine asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgec.cli.common import FILE, Page, json_option, stack_option, write_json


class Targets(click.Group):
    """A word that is no command is the name of a target."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """A command and its arguments."""
        if args and args[0] not in self.commands:
            args = ["show", *args]
        return super().resolve_command(ctx, args)


@click.group("targets", cls=Targets, invoke_without_command=True, subcommand_metavar="[NAME]")
@stack_option
@json_option
@click.pass_context
def command(ctx: click.Context, stack: str | None, json_file: str | None) -> None:
    """List the targets, or show what NAME can do and how that is known.

    NAME is a target, or a folder with a target.toml; --stack chooses its software.
    """
    ctx.obj = {"stack": stack, "json_file": json_file}
    if ctx.invoked_subcommand is not None:
        return
    from edgec.target import host, load_target, names, stacks
    from edgec.target_view import as_json

    say = _say(json_file)
    rows = [load_target(known) for known in names()]
    here = host()
    for one in rows:
        mark = "* " if one.name == here else "  "
        others = [stack for stack in stacks(one.name) if stack != one.stack]
        say(f"{mark}{one.name:<20} {one.stack:<20} {one.summary}")
        also = f"; also {', '.join(others)}" if others else ""
        say(f"  {'':<20} {one.verified}{also}")
    say("* this machine (--target host)")
    write_json(json_file, {"host": here, "targets": [as_json(one) for one in rows]})


@command.command("show", hidden=True)
@click.argument("name")
@stack_option
@json_option
@click.pass_obj
def show(given: dict[str, Any], name: str, stack: str | None, json_file: str | None) -> None:
    """Show what NAME can do with a stack, and how that is known."""
    from edgec.target import load_target, stacks
    from edgec.target_view import as_json, lines

    target = load_target(name, stack or given["stack"])
    json_file = json_file or given["json_file"]
    say = _say(json_file)
    for line in lines(target, stacks(name)):
        say(line)
    write_json(json_file, as_json(target))


@command.command("diff")
@click.argument("left", metavar="A[@STACK]")
@click.argument("right", metavar="B[@STACK]")
@json_option
def diff(left: str, right: str, json_file: str | None) -> None:
    """Tell what B can do that A cannot, and the other way round: jetson-orin@jp5 jetson-orin."""
    from edgec.target import load_target
    from edgec.target_view import difference

    one, other = (load_target(*_named(text)) for text in (left, right))
    found = difference(one, other)
    heads = [f"{target.name} ({target.stack})" for target in (one, other)]
    say = _say(json_file)
    for place, before, after in found:
        say(f"{place}\n  {heads[0]}: {before}\n  {heads[1]}: {after}")
    for head, target in zip(heads, (one, other), strict=True):
        say(f"{head}: {target.verified}")
    say(f"{len(found)} differences")
    rows = [{"place": place, "left": before, "right": after} for place, before, after in found]
    write_json(json_file, {"left": heads[0], "right": heads[1], "differences": rows})


@command.command("probe")
@click.option(
    "--target",
    default="host",
    show_default=True,
    help="The row that is checked: a name, or a folder, which -o may also be.",
)
@click.option("-o", "--output", type=FILE, help="Write a row of this machine into this folder.")
@click.option("--force", is_flag=True, help="Replace a row that is there.")
@json_option
def probe(target: str, output: Path | None, force: bool, json_file: str | None) -> None:
    """Look at this machine, and ask its toolchains op by op what they really do.

    Each op is tried alone in a process of its own, in float and in INT8. What differs from the
    table is told; with -o a row with all that was found is written, for --target FOLDER.
    """
    from edgec.probe import as_json, probe, write
    from edgec.probe_row import check
    from edgec.target import load_target

    row = load_target(target)
    if output is not None:
        check(output, force=force)
    found = probe(row, lambda text: click.echo(f"  {text}", err=True))
    page = Page(json_file)
    for line in found.lines():
        page.line(line)
    if output is not None:
        write(found, output, force=force)
        page.line(f"{output}: a row with the evidence; use it with --target {output}")
    write_json(json_file, as_json(found))


def _named(text: str) -> tuple[str, str | None]:
    name, _, stack = text.rpartition("@")
    return (name, stack) if name else (text, None)


def _say(json_file: str | None) -> Any:
    """Prints; nothing where stdout carries JSON."""
    return (lambda _: None) if json_file == "-" else click.echo
