"""`edgec farm up`: Dask's scheduler with a ledger, and what clients and devices ask of it.

    check, submit, jobs, cancel, devices, forget, info      for clients
    register, start, broke, deliver                  for devices
    blob_size, blob_read, blob_write                 the store `farm:`

Questions and answers are numbers, text and bytes; an EdgecError travels by its name.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distributed import Scheduler

from edgec import __version__
from edgec.errors import EdgecError, InternalError
from edgec.farm.dispatcher import Dispatcher
from edgec.farm.history import History
from edgec.farm.ledger import Ledger
from edgec.farm.link import Address, failure
from edgec.farm.store import Shelf
from edgec.farm.types import Device, Job, Outcome

NEVER = 10**9
DASHBOARD = 8787
Say = Callable[[str], None]


async def up(
    to: Address, folder: Path, store: str, attempts: int, history: History, say: Say
) -> None:
    """Schedule until interrupted. OSError: the port is taken."""
    ledger = Ledger(folder / "ledger.sqlite")
    security = to.security()
    page = importlib.util.find_spec("bokeh") is not None
    logging.getLogger("distributed").setLevel(logging.ERROR)
    scheduler = Scheduler(
        host=to.host,
        port=to.port,
        protocol=to.url.partition(":")[0] + "://",
        security=security or {},
        allowed_failures=NEVER,  # the dispatcher counts, and blames only what had begun
        dashboard=page,
        dashboard_address=f"127.0.0.1:{DASHBOARD if page else 0}",  # it has no password
    )
    dispatcher = Dispatcher(scheduler, ledger, attempts, history)
    scheduler.handlers.update(_handlers(dispatcher, ledger, Shelf(folder / "store"), store))
    async with scheduler:
        scheduler.add_plugin(dispatcher)
        await dispatcher.begin(security)
        say(f"farm at {to.url}; ledger and bundles in {folder}")
        if page:
            say(f"Dask's dashboard, for this machine: http://127.0.0.1:{DASHBOARD}/status")
        try:
            await scheduler.finished()
        finally:
            await dispatcher.finish()
            ledger.close()


def _handlers(
    dispatcher: Dispatcher, ledger: Ledger, shelf: Shelf, store: str
) -> dict[str, Callable[..., Any]]:
    def submit(jobs: list[dict[str, Any]]) -> None:
        dispatcher.submit([Job.from_json(job) for job in jobs])

    def check(jobs: list[dict[str, Any]]) -> None:
        dispatcher.check([Job.from_json(job) for job in jobs])

    def register(device: dict[str, Any], running: list[str]) -> None:
        dispatcher.register(Device.from_json(device), running)

    def deliver(outcome: dict[str, Any]) -> bool:
        return dispatcher.deliver(Outcome.from_json(outcome))

    def devices() -> list[dict[str, Any]]:
        return [
            {
                "device": asdict(one),
                "seen": seen,
                "gone": gone,
                "jobs": ledger.open_attempts(one.name),
            }
            for one, seen, gone in ledger.devices()
        ]

    async def blob_write(**arguments: Any) -> int:
        return await asyncio.to_thread(shelf.write, **arguments)

    found: dict[str, Callable[..., Any]] = {
        "info": lambda: {"version": __version__, "store": store},
        "check": check,
        "submit": submit,
        "jobs": ledger.rows,
        "cancel": dispatcher.cancel,
        "devices": devices,
        "forget": ledger.forget,
        "register": register,
        "start": ledger.start,
        "broke": dispatcher.broke,
        "deliver": deliver,
        "blob_size": shelf.size,
        "blob_read": shelf.read,
        "blob_write": blob_write,
    }
    return {f"farm_{name}": _answering(name, function) for name, function in found.items()}


def _answering(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    async def handler(**arguments: Any) -> dict[str, Any]:
        try:
            found = function(**arguments)
            return {"ok": await found if asyncio.iscoroutine(found) else found}
        except EdgecError as error:
            return failure(error)
        except Exception as error:  # told to who asked, and not raised: Dask would pickle it
            logging.getLogger(__name__).exception("farm_%s", name)
            return {"error": InternalError.__name__, "message": repr(error)[:500], "hint": ""}

    return handler
