"""`edgec bench`: the runtime's own verb, here, with results that can be kept, or on a farm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgec.cli import VERBS
from edgec.cli.common import FILE
from edgec.cli.device import farm_help, send_words, words
from edgec.cli.farm_options import farm_options, need_farm

MORE = "\nAnd --history FILE: keep the result; edgec farm history shows what is kept."


@click.command(
    "bench",
    help=VERBS["bench"],
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
)
@farm_options
@click.option("--history", type=FILE)
@words
def command(history: Path | None, arguments: tuple[str, ...], **given: Any) -> int:
    """Hand everything to the runtime's command line; --history FILE keeps what comes of it."""
    if given["farm"]:
        if history is not None:
            raise click.UsageError("a farm keeps its own history: edgec farm up --history FILE")
        return send_words("bench", arguments, given)
    need_farm()
    from edgec.runtime.cli import main

    if history is None:
        try:
            return main(["bench", *arguments], program="edgec")
        finally:
            if {"-h", "--help"} & set(arguments):
                click.echo(MORE + "\n\n" + farm_help())
    from edgec.farm.history import History, here

    with History(history) as file:

        def keep(page: dict[str, Any]) -> None:
            click.echo(f"kept as #{file.add(here(page))} in {history}", err=True)

        return main(["bench", *arguments], program="edgec", keep=keep)
