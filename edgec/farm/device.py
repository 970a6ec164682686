"""What a device does with a job: fetch, check, wait until it is alone, run, keep, hand in.

    fetch     the bundle and what its arguments name, by content (cache.py)
    check     the bundle as a whole, and that it was built for what this device is
    run       in a process of its own (sandbox.py), while the device is held (lock.py)
    keep      the outcome as a file in outbox/, before anybody is told
    hand in   to the ledger; the file goes when the scheduler has committed it

A job goes on when the line to the scheduler breaks; its outcome is handed in when it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgec.errors import EdgecError, InputError, InternalError
from edgec.farm import types
from edgec.farm.cache import Cache
from edgec.farm.lock import alone
from edgec.farm.sandbox import Sandbox
from edgec.farm.store import Store
from edgec.farm.types import Job, Outcome, Verdict
from edgec.runtime.bundle import Bundle

Call = Callable[..., Awaitable[Any]]  # to the scheduler; OSError: the line is broken
BUNDLE, SPARES = "model.edgec", "model.spares"


class Agent:
    """A device's side of the farm. It outlives the Dask worker that connects it."""

    def __init__(
        self, device: types.Device, folder: Path, sandbox: Sandbox, cache: Cache, lock: Path
    ) -> None:
        self.device = device
        self._sandbox, self._cache, self._lock = sandbox, cache, lock
        self._outbox = folder / "outbox"
        self._outbox.mkdir(parents=True, exist_ok=True)
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._cancelled: dict[str, asyncio.Event] = {}
        self._ready = asyncio.Event()  # the scheduler knows who is here and what runs
        self._call: Call | None = None
        self._store: Store | None = None

    async def connected(self, call: Call, store: Store) -> None:
        """A line to a scheduler: say who is here and what runs, hand in what was kept."""
        self._call, self._store = call, store
        kept = [path.stem for path in self._outbox.glob("*.json")]
        await call("register", device=asdict(self.device), running=[*self._jobs, *kept])
        self._ready.set()
        await self.hand_in()

    def disconnected(self) -> None:
        """The line is broken; what runs goes on."""
        self._call = None
        self._ready.clear()

    async def perform(self, job: Job) -> None:
        """Do a job; where it is being done already, wait for that."""
        await self._ready.wait()
        if job.id not in self._jobs:
            self._cancelled[job.id] = asyncio.Event()
            self._jobs[job.id] = asyncio.ensure_future(self._perform(job))
            self._jobs[job.id].add_done_callback(lambda _: self._forget(job.id))
        await asyncio.shield(self._jobs[job.id])

    def _forget(self, job: str) -> None:
        del self._jobs[job], self._cancelled[job]

    def cancel(self, job: str) -> None:
        """End a job that is running here."""
        if job in self._cancelled:
            self._cancelled[job].set()

    async def hand_in(self) -> None:
        """Bring every kept outcome to the ledger."""
        for path in sorted(self._outbox.glob("*.json")):
            if self._call is None:
                return
            with contextlib.suppress(OSError, EdgecError, InternalError):  # it is kept, for later
                await self._call("deliver", outcome=json.loads(path.read_text(encoding="utf-8")))
                path.unlink(missing_ok=True)

    async def _perform(self, job: Job) -> None:
        if self._call is None or not await self._call("start", job=job.id, device=self.device.name):
            return
        try:
            try:
                outcome = await self._outcome(job)
            except InputError as error:  # the job's fault, wherever it runs
                told = (self.device.name, error.message, error.exit_code)
                outcome = Outcome(job.id, Verdict.REFUSED, *told)
            self._keep(outcome)
        except Exception as error:  # this device's fault, whatever it is: another may do better
            detail = getattr(error, "message", f"{type(error).__name__}: {error}")
            if self._call is not None:
                await self._call("broke", job=job.id, device=self.device.name, detail=detail)
            return
        await self.hand_in()

    async def _outcome(self, job: Job) -> Outcome:
        _check_name(job.id)
        assert self._store is not None
        place = self._sandbox.make(job.id)
        try:
            bundle, words = await asyncio.to_thread(self._prepare, job, self._store, place)
            async with alone(self._lock) as lock:
                began = time.clock_gettime(time.CLOCK_BOOTTIME)
                ended = await self._sandbox.run(
                    bundle,
                    [job.verb, *words],
                    place,
                    seconds=job.seconds,
                    cancel=self._cancelled[job.id],
                    lock=lock,
                )
                end = time.clock_gettime(time.CLOCK_BOOTTIME)
        finally:
            shutil.rmtree(place, ignore_errors=True)
        verdict, reason = Verdict.OK, ""
        if ended.stopped:
            verdict = Verdict(ended.stopped)
            reason = f"did not end within {job.seconds:g} s" if verdict is Verdict.TIMEOUT else ""
        elif ended.code != 0:
            verdict, reason = Verdict.FAILED, _why(ended.code, ended.log)
        elif not ended.result:
            verdict, reason = Verdict.FAILED, "it wrote no result"
        return Outcome(
            job.id,
            verdict,
            self.device.name,
            reason,
            ended.code,
            ended.result,
            ended.log,
            began,
            end,
        )

    def _prepare(self, job: Job, store: Store, place: Path) -> tuple[Path, list[str]]:
        """The bundle, checked, and the arguments with the paths of this device."""
        folder = self._cache.folder(job.bundle, self._sandbox.ids)
        bundle = self._cache.fetch(job.bundle, folder / BUNDLE, store)
        if job.spares is not None:
            self._cache.fetch(job.spares, folder / SPARES, store)
        with Bundle(bundle) as opened:
            target = opened.manifest["target"]["name"]
        if target not in self.device.runs:
            raise InputError(
                f"{job.bundle.name} is for {target}; {self.device.name} is {self.device.target}",
                hint=f"build it for one of {', '.join(self.device.runs)}",
            )
        words = list(job.arguments)
        for number, blob in job.files.items():
            own = place / str(number)
            own.mkdir()
            name = re.sub(r"[^A-Za-z0-9._-]", "_", blob.name)[-80:].lstrip(".") or "file"
            source = self._cache.fetch(
                blob, self._cache.folder(blob, self._sandbox.ids) / "file", store
            )
            shutil.copyfile(source, own / name)
            own.chmod(0o755)
            words[number] = str(own / name)
        return bundle, words

    def _keep(self, outcome: Outcome) -> None:
        path = self._outbox / f"{outcome.job}.json"
        partial = path.with_name(path.name + ".partial")
        with partial.open("w", encoding="utf-8") as stream:
            json.dump(asdict(outcome), stream)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)


def _check_name(job: str) -> None:
    """A job's id becomes a folder."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", job):
        raise InputError(f"{job[:80]!r} is no id of a job", hint="submit with edgec")


def _why(code: int, log: str) -> str:
    lines = [line for line in log.splitlines() if line.startswith("error: ")]
    if lines:
        return lines[-1][len("error: ") :][:500]
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    last = log.splitlines()[-1:] or [""]
    return f"{how}: {last[0][:300]}".rstrip(": ")


AGENT: Agent | None = None  # of this process; a task finds it here


async def perform(job: dict[str, Any]) -> None:
    """The Dask task: only a job's number and settings travel, the agent does the rest."""
    assert AGENT is not None
    await AGENT.perform(Job.from_json(job))
