"""`edgec farm join`: this machine becomes a device of a farm, and stays one.

A Dask worker with one thread and no nanny connects it: `dask worker --nthreads 1 --no-nanny`, in
this process. When the scheduler goes, the worker ends; the agent stays and connects anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dask.config
from distributed import Worker

from edgec import __version__
from edgec.errors import ToolchainError
from edgec.farm import device as devices
from edgec.farm.link import Address, ask, is_loopback, knock
from edgec.farm.sandbox import adopt
from edgec.farm.store import Store
from edgec.farm.types import ALONE, Device, device_key, target_key
from edgec.machine import machine
from edgec.target import fitting, load_target

AGAIN = 0.5  # seconds between two tries to reach the scheduler
HAND_IN = 5.0  # seconds between two tries to hand in what could not be
Say = Callable[[str], None]
# Nothing that samples the process while a job is measured.
SETTINGS = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.comm.timeouts.connect": "10s",
}


def probe(name: str, target: str, stack: str | None, versions: dict[str, Any]) -> Device:
    """What this machine announces: a row of the table, and what it is. `versions`: of the Python
    that runs the jobs."""
    row = load_target(target, stack)
    facts = {**asdict(machine()), **versions, "clocks": clocks()}
    runs = dict.fromkeys([row.name, *fitting()])
    return Device(name, row.name, row.stack, tuple(runs), row.here, __version__, facts)


def clocks(root: Path = Path("/sys/devices/system/cpu")) -> list[dict[str, Any]]:
    """Frequency in MHz and governor of each kind of core, where the kernel tells."""
    found = []
    for folder in sorted(root.glob("cpufreq/policy*")):
        with contextlib.suppress(OSError, ValueError):
            read = {
                key: (folder / name).read_text(encoding="ascii").strip()
                for key, name in (
                    ("cores", "related_cpus"),
                    ("max_mhz", "cpuinfo_max_freq"),
                    ("limit_mhz", "scaling_max_freq"),
                    ("governor", "scaling_governor"),
                )
            }
            mhz = {key: int(read[key]) // 1000 for key in ("max_mhz", "limit_mhz")}
            found.append({**read, **mhz})
    return found


async def join(to: Address, agent: devices.Agent, folder: Path, say: Say) -> None:
    """Be a device until interrupted. InputError: the certificate is refused, by either side."""
    devices.AGENT = agent
    adopt()
    logging.getLogger("distributed").setLevel(logging.ERROR)
    told = ""
    with dask.config.set(SETTINGS):
        while True:
            try:
                await asyncio.to_thread(knock, to)
            except ToolchainError as error:
                why = error.message
            else:
                why = await _until_it_breaks(to, agent, folder, say)
            if why != told:
                say(f"{why}; trying again")
            told = why
            await asyncio.sleep(AGAIN)


async def _until_it_breaks(to: Address, agent: devices.Agent, folder: Path, say: Say) -> str:
    """Why there is no connection any more."""
    try:
        await _connected(to, agent, folder, say)
        return f"the line to {to.url} is broken"
    except Exception as error:  # Dask's workers fail in many ways, and this device goes on
        return getattr(error, "message", f"{type(error).__name__}: {error}")


async def _connected(to: Address, agent: devices.Agent, folder: Path, say: Say) -> None:
    """From one connection to its end."""
    device = agent.device
    worker = Worker(
        to.url,
        nthreads=1,
        name=device.name,
        resources={ALONE: 1, target_key(device.target): 1, device_key(device.name): 1},
        security=to.security() or {},
        host="127.0.0.1" if is_loopback(to.host) else None,
        memory_limit=0,
        local_directory=str(folder / "dask"),
        dashboard=False,
        dashboard_address="127.0.0.1:0",  # Dask's own page of a worker, which has no password
    )
    loop = asyncio.get_running_loop()

    async def call(what: str, **arguments: Any) -> Any:
        return await ask(worker.scheduler, what, arguments)

    def wait_for(what: str, **arguments: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(call(what, **arguments), loop).result(60)

    worker.handlers["farm_cancel"] = agent.cancel
    try:
        async with worker:
            store = Store((await call("info"))["store"], wait_for)
            await agent.connected(call, store)
            say(f"{device.name} is {device.target} ({device.stack}) at {to.url}")
            ended = asyncio.ensure_future(worker.finished())
            while not ended.done():
                await asyncio.wait({ended}, timeout=HAND_IN)
                await agent.hand_in()
    finally:
        agent.disconnected()
