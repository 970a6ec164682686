"""The verbs of a device, as every bundle has them: their options are the runtime's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from edgec.cli.farm_options import farm_options, need_farm, send

words = click.argument("arguments", nargs=-1, type=click.UNPROCESSED)


def forward(verb: str, about: str, *, farm: bool = False) -> click.Command:
    """A command that hands everything after its name to the runtime's command line.

    `farm`: it also takes `--farm`, and then hands it to devices.
    """
    settings = {"ignore_unknown_options": True, "help_option_names": []}

    def command(arguments: tuple[str, ...], **given: Any) -> int:
        if given.get("farm"):
            return send_words(verb, arguments, given)
        if farm:
            need_farm()
        from edgec.runtime.cli import main

        try:
            return main([verb, *arguments], program="edgec")
        finally:
            if farm and {"-h", "--help"} & set(arguments):
                click.echo("\n" + farm_help())

    made = words(farm_options(command) if farm else command)
    return click.command(verb, help=about, add_help_option=False, context_settings=settings)(made)


def send_words(verb: str, given_words: Sequence[str], given: dict[str, Any]) -> int:
    """Take out what is for this side, the bundle and `--json`; the rest goes to the devices."""
    from edgec.farm.types import FILES

    arguments, json_file = list(given_words), None
    if "--json" in arguments[:-1]:
        place = arguments.index("--json")
        json_file = arguments[place + 1]
        del arguments[place : place + 2]
    for place, word in enumerate(arguments):
        if word.endswith(".edgec") and (place == 0 or arguments[place - 1] not in FILES):
            del arguments[place]
            return send(verb, Path(word), arguments, json_file, given)
    raise click.UsageError(f"give the bundle that is to {verb}, a .edgec file")


def farm_help() -> str:
    """What the runtime's own help does not know."""
    command = click.command("farm", add_help_option=False)(farm_options(lambda **_: None))
    context = click.Context(command)
    formatter = context.make_formatter()
    with formatter.section("On devices of a farm, with --farm"):
        rows = [one.get_help_record(context) for one in command.params]
        formatter.write_dl([row for row in rows if row])
    return formatter.getvalue()
