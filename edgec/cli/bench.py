"""`edgec bench`: the runtime's own verb, whose results can be kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgec.cli import VERBS
from edgec.cli.common import FILE

MORE = "\nAnd --history FILE: keep the result; edgec farm history shows what is kept."


@click.command(
    "bench",
    help=VERBS["bench"],
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
)
@click.option("--history", type=FILE)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(history: Path | None, arguments: tuple[str, ...]) -> int:
    """Hand everything to the runtime's command line; --history FILE keeps what comes of it."""
    from edgec.runtime.cli import main

    if history is None:
        try:
            return main(["bench", *arguments], program="edgec")
        finally:
            if {"-h", "--help"} & set(arguments):
                click.echo(MORE)
    from edgec.farm.history import History, here

    with History(history) as file:

        def keep(page: dict[str, Any]) -> None:
            click.echo(f"kept as #{file.add(here(page))} in {history}", err=True)

        return main(["bench", *arguments], program="edgec", keep=keep)
