"""The user's side: check a bundle, bring it to the store, ask for jobs, fetch what came of them.

batch = submit(farm, Request(Verb.BENCH, Path("model.edgec"), on=("raspberry-pi-5",)))
rows = wait(farm, batch)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from edgec.errors import InputError, ToolchainError
from edgec.farm.link import Address, Farm
from edgec.farm.store import Store, blob
from edgec.farm.types import FILES, Blob, Job, State, Verb
from edgec.runtime.built import spares_of
from edgec.runtime.bundle import Bundle

FOLDERS = ("--calibrate",)
POLL = 0.5
SECONDS = {Verb.BENCH: 600.0, Verb.VERIFY: 600.0, Verb.FINISH: 7200.0}


@dataclass(frozen=True)
class Request:
    """What a user wants. `on`: targets or devices, one job each; none: the bundle's own target.

    `arguments` are those of the bundle's verb; `seconds` 0: the usual limit of the verb.
    """

    verb: Verb
    bundle: Path
    on: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    priority: int = 0
    seconds: float = 0.0


async def submit(farm: Farm, requests: Sequence[Request]) -> list[str]:
    """The ids of the batches, one for each request. InputError: the farm says why not."""
    loop = asyncio.get_running_loop()

    def call(what: str, **arguments: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(farm.call(what, **arguments), loop).result(60)

    store = Store(await farm.store(), call)
    known: dict[Path, tuple[Blob, Blob | None, str]] = {}
    jobs: list[Job] = []
    blobs: dict[str, tuple[Path, Blob]] = {}
    batches = []
    for request in requests:
        if request.bundle not in known:
            known[request.bundle] = await asyncio.to_thread(_read, request.bundle)
        what, spares, target = known[request.bundle]
        files = _files(request.arguments)
        travelling = [(request.bundle, what), *files.values()]
        if spares is not None:
            travelling.append((spares_of(request.bundle), spares))
        blobs.update({one.sha256: (path, one) for path, one in travelling})
        batch = uuid4().hex[:10]
        batches.append(batch)
        jobs += [
            Job(
                id=f"{batch}.{number}",
                batch=batch,
                verb=request.verb,
                bundle=what,
                target=target,
                on=on,
                arguments=request.arguments,
                files={place: one for place, (_, one) in files.items()},
                spares=spares,
                priority=request.priority,
                seconds=request.seconds or SECONDS[request.verb],
            )
            for number, on in enumerate(request.on or (target,), 1)
        ]
    rows = [job.as_json() for job in jobs]
    absent = [pair for pair in blobs.values() if not await asyncio.to_thread(store.has, pair[1])]
    if absent:  # nothing is sent in vain
        await farm.call("check", jobs=rows)
    for path, one in absent:
        await asyncio.to_thread(store.put, path, one)
    await farm.call("submit", jobs=rows)
    return batches


async def wait(to: Address, batch: str, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """The rows of a batch when all have a verdict; a scheduler that is away is waited for."""
    told: dict[str, str] = {}
    away = 0.0
    while True:
        try:
            async with Farm(to) as farm:
                while True:
                    rows: list[dict[str, Any]] = await farm.call("jobs", name=batch)
                    away = 0.0
                    if not rows:
                        raise InputError(
                            f"the farm knows no job {batch!r}", hint="edgec farm jobs lists them"
                        )
                    for row in rows:
                        now = f"{row['job']['id']} on {row['job']['on']}: {_state(row)}"
                        if told.get(row["job"]["id"]) != now:
                            say(now)
                        told[row["job"]["id"]] = now
                    if all(row["state"] == State.DONE for row in rows):
                        return rows
                    await asyncio.sleep(POLL)
        except ToolchainError as error:
            if not away:
                say(f"{error.message}; waiting, the job is kept")
            away = away or time.monotonic()
            await asyncio.sleep(POLL)


def _state(row: dict[str, Any]) -> str:
    if row["state"] == State.DONE:
        return str(row["outcome"]["verdict"])
    return f"{row['state']}{' at ' + row['device'] if row['device'] else ''}"


def _read(path: Path) -> tuple[Blob, Blob | None, str]:
    """The bundle's content, that of its spares, and its target. InputError: not sound."""
    if path.is_dir():
        raise InputError(
            f"{path} is a folder", hint="give the bundle as one .edgec file: it travels by its hash"
        )
    found = blob(path)
    with Bundle(path) as bundle:
        target = str(bundle.manifest["target"]["name"])
    spares = spares_of(path)
    return found, blob(spares) if spares.is_file() else None, target


def _files(arguments: Sequence[str]) -> dict[int, tuple[Path, Blob]]:
    """By place in the arguments, the files that travel with the job."""
    found = {}
    for place, word in enumerate(arguments):
        if word.partition("=")[0] in FOLDERS or any(word.startswith(f"{one}=") for one in FILES):
            raise InputError(
                f"{word} does not travel to a device", hint="give --inputs FILE, with a space"
            )
        if word in FILES and place + 1 < len(arguments):
            path = Path(arguments[place + 1])
            found[place + 1] = (path, blob(path))
    return found
