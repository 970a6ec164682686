"""How a verb goes to a farm instead of this machine: `--farm URL --on a,b`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from edgec.cli.common import FILE, Page, write_json

if TYPE_CHECKING:
    from edgec.farm.link import Address

Command = TypeVar("Command", bound=Callable[..., Any])
HERE = "tcp://127.0.0.1:8786"

certs_option = click.option(
    "--certs",
    type=FILE,
    envvar="EDGEC_FARM_CERTS",
    help="The folder of this machine's certificate, from `farm certs`. [env: EDGEC_FARM_CERTS]",
)
farm_option = click.option(
    "--farm",
    default=HERE,
    show_default=True,
    envvar="EDGEC_FARM",
    metavar="URL",
    help="The farm: tls://HOST:8786. [env: EDGEC_FARM]",
)


def farm_options(function: Command) -> Command:
    """The options of a verb that a farm can do."""
    options = [
        click.option(
            "--farm", metavar="URL", help="Do it on devices of this farm: tls://HOST:8786."
        ),
        certs_option,
        click.option(
            "--on",
            metavar="NAME,…",
            help="Targets or devices, one job each; default: the bundle's target.",
        ),
        click.option(
            "--priority", type=int, default=0, metavar="N", help="Higher goes first; default: 0."
        ),
        click.option(
            "--limit",
            type=click.FloatRange(1),
            metavar="SECONDS",
            help="Most that a job may run; default: 600, for finish 7200.",
        ),
        click.option(
            "--wait/--no-wait",
            default=True,
            help="Wait for the table, or tell the job's id and go. Interrupted, the job goes on.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def need_farm() -> None:
    """Options of a farm without one are a mistake: nothing is measured here instead."""
    context = click.get_current_context()
    for name in ("on", "priority", "limit", "wait"):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name} is for a farm: give --farm URL")


def reached(farm: str, certs: Path | None) -> Address:
    """A checked address; a certificate from the environment is of no use without TLS."""
    from edgec.farm.link import address

    return address(farm, certs)


def send(
    verb: str, bundle: Path, arguments: Sequence[str], json_file: str | None, given: dict[str, Any]
) -> int:
    """Submit, tell the id, and unless told otherwise wait and show the table."""
    from edgec.farm.link import Farm
    from edgec.farm.submit import Request, submit, wait
    from edgec.farm.types import Verb

    to = reached(given["farm"], given["certs"])
    on = tuple(name for name in (given["on"] or "").split(",") if name)
    request = Request(
        Verb(verb), bundle, on, tuple(arguments), given["priority"], given["limit"] or 0.0
    )

    async def work() -> str:
        async with Farm(to) as farm:
            return (await submit(farm, [request]))[0]

    batch = asyncio.run(work())
    if not given["wait"]:
        click.echo(batch)
        write_json(json_file, {"job": batch})
        return 0
    click.echo(f"job {batch}; edgec farm result {batch} --farm {to.url}", err=True)
    rows = asyncio.run(wait(to, batch, lambda line: click.echo(f"  {line}", err=True)))
    show(Page(json_file), rows)
    write_json(json_file, rows[::-1])
    return verdict_code(rows)


def show(page: Page, rows: Sequence[dict[str, Any]]) -> None:
    """One line a job, the first one first, and why where it is not ok."""
    heads = ["job", "on", "device", "verdict", "p50 ms", "p95 ms", "calls/s", "note"]
    table, logs = [], []
    for row in reversed(rows):
        job, outcome = row["job"], row["outcome"] or {}
        lost = f"{len(row['attempts'])} tries lost" if row["attempts"] else ""
        notes = [outcome.get("reason", ""), lost]
        table.append(
            [
                job["id"],
                job["on"],
                row["device"],
                outcome.get("verdict", row["state"]),
                *_figures(outcome.get("result", {})),
                "; ".join(note for note in notes if note),
            ]
        )
        if outcome.get("verdict") == "failed" and outcome.get("log"):
            logs.append(f"{job['id']}: {outcome['log'][-1000:]}")
    page.table(heads, table)
    for log in logs:
        page.line(log)


def _figures(result: dict[str, Any]) -> list[str]:
    cases = result.get("cases") or [{}]
    keys = (("p50", ".3f"), ("p95", ".3f"), ("per_second", ".1f"))
    return [format(cases[0][key], how) if key in cases[0] else "" for key, how in keys]


def verdict_code(rows: Sequence[dict[str, Any]]) -> int:
    """The exit code of some jobs: that of the worst one; 0 while they are not done."""
    codes = {"ok": 0, "failed": 6, "refused": 3, "timeout": 6, "poison": 6, "cancelled": 6}
    found = [0]
    for row in rows:
        outcome = row["outcome"]
        if outcome is not None:
            own = outcome["exit_code"] if outcome["verdict"] == "failed" else 0
            found.append(own if own > 0 else codes[outcome["verdict"]])
    return max(found)
