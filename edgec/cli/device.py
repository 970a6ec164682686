"""The verbs of a device, as every bundle has them: their options are the runtime's own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from edgec.cli.common import FILE
from edgec.cli.farm_options import farm_options, need_farm

history_option = click.option(
    "--history",
    type=FILE,
    help="Without a farm: keep the result; edgec farm history shows what is kept.",
)


def forward(verb: str, about: str, *, farm: bool = False, history: bool = False) -> click.Command:
    """A command that hands everything after its name to the runtime's command line.

    `farm`: it also takes `--farm`, and then hands it to devices. `history`: it also takes
    `--history`, and keeps what comes of it.
    """
    settings = {"ignore_unknown_options": True, "help_option_names": []}
    words = click.argument("arguments", nargs=-1, type=click.UNPROCESSED)

    def command(arguments: tuple[str, ...], **given: Any) -> int:
        if given.get("farm") and given.get("history"):
            raise click.UsageError("a farm keeps a history of its own: leave --history out")
        if given.get("farm"):
            return _send(verb, list(arguments), given)
        if farm:
            need_farm()
        from edgec.runtime.cli import main

        if farm and ("-h" in arguments or "--help" in arguments):
            click.echo(_more_help(made_options))
        keep = None if given.get("history") is None else partial(_keep, given["history"])
        return main([verb, *arguments], program="edgec", keep=keep)

    def made_options(function: Any) -> Any:
        function = history_option(function) if history else function
        return farm_options(function) if farm else function

    made = words(made_options(command))
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


def _keep(path: Path, page: dict[str, Any]) -> None:
    from edgec.farm.history import History, here

    with History(path) as file:
        click.echo(f"kept as #{file.add(here(page))} in {path}", err=True)


def _more_help(options: Callable[[Any], Any]) -> str:
    """What the runtime's own help does not know."""
    command = click.command("more", add_help_option=False)(options(lambda **_: None))
    context = click.Context(command)
    formatter = context.make_formatter()
    with formatter.section("On devices of a farm, with --farm"):
        rows = [one.get_help_record(context) for one in command.params]
        formatter.write_dl([row for row in rows if row])
    return formatter.getvalue()
