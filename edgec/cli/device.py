"""The verbs of a device, as every bundle has them: their options are the runtime's own."""

from __future__ import annotations

import click


def forward(verb: str, about: str) -> click.Command:
    """A command that hands everything after its name to the runtime's command line."""

    @click.command(
        verb,
        help=about,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "help_option_names": []},
    )
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def command(arguments: tuple[str, ...]) -> int:
        from edgec.runtime.cli import main

        return main([verb, *arguments], program="edgec")

    return command
