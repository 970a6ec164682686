"""The verbs of a device, as every bundle has them: their options are the runtime's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgec.cli.farm_options import farm_options, need_farm


def forward(verb: str, about: str, *, farm: bool = False) -> click.Command:
    """A command that hands everything after its name to the runtime's command line.

    `farm`: it also takes `--farm`, and then hands it to devices.
    """
    settings = {"ignore_unknown_options": True, "help_option_names": []}
    words = click.argument("arguments", nargs=-1, type=click.UNPROCESSED)

    def command(arguments: tuple[str, ...], **given: Any) -> int:
        if given.get("farm"):
            return _send(verb, list(arguments), given)
        if farm:
            need_farm()
        from edgec.runtime.cli import main

        if farm and ("-h" in arguments or "--help" in arguments):
            click.echo(_farm_help())
        return main([verb, *arguments], program="edgec")

    made = words(farm_options(command) if farm else command)
    return click.command(verb, help=about, add_help_option=False, context_settings=settings)(made)


def _send(verb: str, arguments: list[str], given: dict[str, Any]) -> int:
    """Take out what is for this side: the bundle, and `--json`."""
    from edgec.cli.farm_options import send
    from edgec.farm.types import FILES

    json_file = None
    if "--json" in arguments[:-1]:
        place = arguments.index("--json")
        json_file = arguments[place + 1]
        del arguments[place : place + 2]
    for place, word in enumerate(arguments):
        if word.endswith(".edgec") and (place == 0 or arguments[place - 1] not in FILES):
            del arguments[place]
            return send(verb, Path(word), arguments, json_file, given)
    raise click.UsageError(f"give the bundle that is to {verb}, a .edgec file")


def _farm_help() -> str:
    """What the runtime's own help does not know."""
    command = click.command("farm", add_help_option=False)(farm_options(lambda **_: None))
    context = click.Context(command)
    formatter = context.make_formatter()
    with formatter.section("On devices of a farm, with --farm"):
        rows = [one.get_help_record(context) for one in command.params]
        formatter.write_dl([row for row in rows if row])
    return formatter.getvalue()
