"""`edgec farm`: many real devices, one ledger."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click

from edgec.cli.common import FILE, Page, json_option, size, stack_option, write_json
from edgec.cli.farm_compare import command as compare
from edgec.cli.farm_history import command as history
from edgec.cli.farm_options import certs_option, farm_option, reached, show, verdict_code

Found = TypeVar("Found")
STATE = Path(os.environ.get("XDG_STATE_HOME", "~/.local/state")).expanduser() / "edgec"


python_option = click.option(
    "--python",
    default=sys.executable,
    metavar="FILE",
    help="The device's own Python, which runs the jobs; on a Jetson /usr/bin/python3.",
)


@click.group("farm")
def command() -> None:
    """Benchmark, verify and finish bundles on many devices.

    `up` starts a farm, `join` makes a machine a device of it; then bench, verify and finish take
    --farm and --on. Off this machine a farm needs certificates: `certs`.
    """


command.add_command(history)
command.add_command(compare)


@command.command("up")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=click.IntRange(1, 65535), default=8786, show_default=True)
@certs_option
@click.option("--folder", type=FILE, default=STATE / "farm", help="For the ledger and bundles.")
@click.option(
    "--store",
    default="farm:",
    show_default=True,
    metavar="URL",
    help="Where bundles wait: here, or a path, http, s3 or ssh that all reach.",
)
@click.option(
    "--attempts",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="A job under which so many devices died is given up.",
)
@click.option("--device/--no-device", default=None, help="This machine as a device; on loopback.")
@click.option("--history", "past", type=FILE, help="Where benchmarks are kept; see farm history.")
@python_option
def up(
    host: str,
    port: int,
    certs: Path | None,
    folder: Path,
    store: str,
    attempts: int,
    device: bool | None,
    past: Path | None,
    python: str,
) -> None:
    """Start a farm: its scheduler and, on loopback, this machine as its first device."""
    from edgec.farm.history import opened
    from edgec.farm.link import address, is_loopback
    from edgec.farm.lock import only_one
    from edgec.farm.scheduler import up

    to = address(
        f"{'tls' if certs else 'tcp'}://{f'[{host}]' if ':' in host else host}:{port}", certs
    )
    folder.mkdir(parents=True, exist_ok=True)
    with only_one(folder / "scheduler.lock", "farm up"):
        joined = None
        if device if device is not None else is_loopback(host):
            line = [sys.executable, "-m", "edgec", "farm", "join", to.url, "--python", python]
            joined = subprocess.Popen([*line, *(("--certs", str(certs)) if certs else ())])
        try:
            with opened(past) as kept:
                _run(up(to, folder, store, attempts, kept, _tell))
        except OSError as error:
            from edgec.errors import ToolchainError

            raise ToolchainError(
                f"cannot listen at {to.url}: {error}", hint="give another --port, or end who does"
            ) from error
        finally:
            if joined is not None:
                joined.terminate()


@command.command("join")
@click.argument("url", default="tcp://127.0.0.1:8786")
@click.option("--target", default="host", show_default=True, help="Announce this row.")
@stack_option
@click.option("--name", help="The device's name; default: the host's, and the target's if given.")
@certs_option
@click.option("--folder", type=FILE, help="For bundles and outcomes, one for each device.")
@click.option("--cache", default="8G", metavar="SIZE", help="Most that bundles take; default: 8G.")
@python_option
@click.option("--user", default="", help="Who runs the jobs, if root joins; default: nobody.")
@click.option("--lock", type=FILE, help="The file that is locked while a job runs.")
def join(
    url: str,
    target: str,
    stack: str | None,
    name: str | None,
    certs: Path | None,
    folder: Path | None,
    cache: str,
    python: str,
    user: str,
    lock: Path | None,
) -> None:
    """Make this machine a device of the farm at URL, until it is interrupted.

    It looks at itself, announces the row of `edgec targets` that it fits, and does one job at a
    time. Without --target nothing is announced that this machine is not.
    """
    from edgec.farm.cache import Cache
    from edgec.farm.device import Agent
    from edgec.farm.join import join, probe
    from edgec.farm.link import address
    from edgec.farm.lock import default_lock, only_one
    from edgec.farm.sandbox import Sandbox

    to = address(url, certs)
    label = name or socket.gethostname() + ("" if target == "host" else f"-{target}")
    place = folder or STATE / "device" / label
    place.mkdir(parents=True, exist_ok=True)
    with only_one(place / "agent.lock", "farm join"):
        sandbox = Sandbox(python, place / "jobs", user)
        device = probe(label, target, stack, sandbox.versions())
        if not device.here:
            _tell(f"{label} announces {device.target}, which is not this machine's row")
        bundles = Cache(place / "cache", size(cache))
        agent = Agent(device, place, sandbox, bundles, lock or default_lock())
        _run(join(to, agent, place, _tell))


@command.command("certs")
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@click.option("-o", "--output", type=FILE, default=Path("certs"), show_default=True)
@click.option("--force", is_flag=True, help="Replace certificates that are there.")
def certs(names: tuple[str, ...], output: Path, force: bool) -> None:
    """Make an authority, and a certificate for each machine: scheduler, devices, users.

    Copy the folder of a machine to it, and give it there with --certs. The authority's key stays.
    """
    from edgec.farm.certs import make

    for place in make(output, names, force=force):
        click.echo(f"{place}: for {place.name} alone; --certs {place}")


@command.command("devices")
@farm_option
@certs_option
@click.option("--forget", metavar="NAME", help="A device that will not come back.")
@json_option
def devices(farm: str, certs: Path | None, forget: str | None, json_file: str | None) -> None:
    """List the devices: what they are, and what they are at."""

    async def ask(line: Any) -> list[dict[str, Any]]:
        if forget:
            await line.call("forget", name=forget)
        found: list[dict[str, Any]] = await line.call("devices")
        return found

    rows = _asked(farm, certs, ask)
    heads = ["device", "target", "stack", "state", "CPU", "GB", "max MHz", "packages"]
    table = []
    for row in rows:
        device, facts = row["device"], row["device"]["facts"]
        mhz = "/".join(str(one["max_mhz"]) for one in facts["clocks"])
        packages = ", ".join(f"{name} {found}" for name, found in facts["packages"].items())
        target = device["target"] + ("" if device["here"] else " (announced)")
        cells = [
            device["name"],
            target,
            device["stack"],
            _state(row),
            facts["cpu"] or facts["arch"],
        ]
        table.append([*cells, f"{facts['memory_gb']:g}", mhz, packages])
    Page(json_file).table(heads, table)
    write_json(json_file, rows)


@command.command("jobs")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@farm_option
@certs_option
@json_option
def jobs(limit: int, farm: str, certs: Path | None, json_file: str | None) -> None:
    """List the jobs, the newest first."""
    rows = _asked(farm, certs, lambda line: line.call("jobs", limit=limit))
    heads = ["job", "verb", "bundle", "on", "state", "device", "tries lost", "since"]
    table = [
        [
            row["job"]["id"],
            row["job"]["verb"],
            row["job"]["bundle"]["name"],
            row["job"]["on"],
            row["outcome"]["verdict"] if row["outcome"] else row["state"],
            row["device"],
            str(len(row["attempts"])),
            _ago(row["submitted"]),
        ]
        for row in rows
    ]
    Page(json_file).table(heads, table)
    write_json(json_file, rows)


@command.command("result")
@click.argument("job")
@click.option("--wait", is_flag=True, help="Wait for jobs that are not done.")
@farm_option
@certs_option
@json_option
def result(job: str, wait: bool, farm: str, certs: Path | None, json_file: str | None) -> int:
    """Show what came of JOB: an id as bench, verify or finish told it, or one row of it."""
    from edgec.errors import InputError
    from edgec.farm.submit import wait as until

    if wait:
        rows = asyncio.run(until(reached(farm, certs), job, _tell))
    else:
        rows = _asked(farm, certs, lambda line: line.call("jobs", name=job))
    if not rows:
        raise InputError(f"the farm knows no job {job!r}", hint="edgec farm jobs lists them")
    show(Page(json_file), rows)
    write_json(json_file, rows[::-1])
    return verdict_code(rows)


@command.command("cancel")
@click.argument("job")
@farm_option
@certs_option
def cancel(job: str, farm: str, certs: Path | None) -> None:
    """End JOB, waiting or running: an id, or one row of it."""
    ended = _asked(farm, certs, lambda line: line.call("cancel", name=job))
    click.echo(f"cancelled: {', '.join(ended) or 'nothing, all of it is done or unknown'}")


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Until interrupted; SIGTERM, as a service manager sends it, ends it in order too."""

    async def ended() -> bool:
        task = asyncio.ensure_future(work)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()
        return task.cancelled()

    if asyncio.run(ended()):
        sys.exit(128 + signal.SIGTERM)


def _asked(
    farm: str, certs: Path | None, ask: Callable[[Any], Coroutine[Any, Any, Found]]
) -> Found:
    from edgec.farm.link import Farm

    async def work() -> Found:
        async with Farm(reached(farm, certs)) as line:
            return await ask(line)

    return asyncio.run(work())


def _state(row: dict[str, Any]) -> str:
    if row["gone"]:
        return f"away since {_ago(row['seen'])}: {row['gone']}"
    return f"at {', '.join(row['jobs'])}" if row["jobs"] else "idle"


def _ago(then: float) -> str:
    seconds = max(time.time() - then, 0)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _tell(line: str) -> None:
    click.echo(line, err=True)
