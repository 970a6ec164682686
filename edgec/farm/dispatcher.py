"""Between the ledger and Dask: submits, hears what devices report, and gives every job a verdict.

Dask holds the queue and chooses the device. Three things it leaves open:
- who killed a device is the job that had begun there, and not those that only waited for it, so
  attempts are counted here and not by Dask's `allowed-failures`;
- a device that froze is given up after SILENCE, where Dask's `worker-ttl` waits for ten heartbeats,
  which are 20 s with more than fifty devices;
- when the scheduler was killed, a device may still be at a job of the one before, or have its
  outcome at hand: such a job is only submitted again when the device says otherwise, or is silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from typing import Any

from distributed import Client, Future, Scheduler, SchedulerPlugin
from tornado.ioloop import PeriodicCallback

from edgec.errors import InputError
from edgec.farm.device import perform
from edgec.farm.history import History
from edgec.farm.ledger import Ledger
from edgec.farm.types import ALONE, Device, End, Job, Outcome, Verb, Verdict, device_key, target_key

SILENCE = 6.0  # seconds without a heartbeat; they come each 0.5 to 2 s
LOOK = 1.0  # seconds between two looks
RETURN = 10.0  # seconds that devices have to come back after a restart of the scheduler
PAUSE = 1.0  # seconds before a job that failed on a device is tried again


class Dispatcher(SchedulerPlugin):  # type: ignore[misc]  # Dask's classes have no types
    """One for each scheduler, in its process and its thread. `attempts`: at one job, at most;
    `history`: for benchmarks that were accepted."""

    name = "edgec"

    def __init__(
        self, scheduler: Scheduler, ledger: Ledger, attempts: int, history: History
    ) -> None:
        self._scheduler, self._ledger, self._attempts = scheduler, ledger, attempts
        self._history = history
        self._names: dict[str, str] = {}  # of connected devices, by address
        self._why: dict[str, str] = {}  # why a device was removed, by address
        self._targets = {device.target for device, _, _ in ledger.devices()}
        self._futures: dict[str, Future] = {}
        self._tries: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._looked = time.monotonic()
        self._watch = PeriodicCallback(self._look, LOOK * 1000)

    async def begin(self, security: Any) -> None:
        """Submit what the ledger has open, and begin to watch."""
        self._client = await Client(
            self._scheduler.address, security=security, asynchronous=True, set_as_default=False
        )
        for device, _, gone in self._ledger.devices():
            if not gone:
                self._ledger.gone(device.name, "the scheduler was started anew")
        for job in self._ledger.unfinished():
            if not self._ledger.running(job.id):
                self._enqueue(job)
        self._watch.start()
        self._background(self._after_restart())

    async def finish(self) -> None:
        """Let go; the ledger has all of it."""
        self._watch.stop()
        for task in self._tasks:
            task.cancel()
        await self._client.close()

    def check(self, jobs: Sequence[Job]) -> None:
        """InputError: no device is, or would take, what is asked for."""
        known = [device for device, _, _ in self._ledger.devices()]
        for job in jobs:
            _check(job, known)

    def submit(self, jobs: Sequence[Job]) -> None:
        """Take jobs, all of them or none. InputError: as `check`."""
        self.check(jobs)
        for job in self._ledger.add(jobs):
            self._enqueue(job)

    def cancel(self, name: str) -> list[str]:
        """End a job or a batch; those that had no verdict yet."""
        ended = []
        for row in self._ledger.rows(name) if name else ():  # "" stands for all of them
            job = row["job"]["id"]
            if self._ledger.accept(Outcome(job, Verdict.CANCELLED, reason="cancelled")):
                ended.append(job)
                self._stop(job)
        return ended

    def register(self, device: Device, running: Sequence[str]) -> None:
        """A device is here, and at work on these jobs, or has their outcomes."""
        self._ledger.seen(device)
        self._targets.add(device.target)
        for job in running:
            self._ledger.start(job, device.name)
        for job in self._ledger.open_attempts(device.name):
            if job not in running:
                self._lost(job, device.name, "it came back without the job")

    def broke(self, job: str, device: str, detail: str) -> None:
        """A device could not try; the task ends at once, and the job is tried elsewhere."""
        self._ledger.end(job, device, End.BROKEN, detail)
        self._give_up(job)

    def deliver(self, outcome: Outcome) -> bool:
        """Keep an outcome, unless the job has one. Others that are at the same job are stopped."""
        self._remember(outcome)
        accepted = self._ledger.accept(outcome)
        if accepted and self._ledger.running(outcome.job):
            self._stop(outcome.job)
        return accepted

    def _remember(self, outcome: Outcome) -> None:
        """Before it is accepted, so that a kill in between loses nothing: it keeps one a job."""
        job = self._ledger.job(outcome.job)
        if job is None or job.verb is not Verb.BENCH or not outcome.result:
            return
        if not self._ledger.is_open(job.id):
            return
        try:
            self._history.add({**outcome.result, "job": job.id, "device": outcome.device})
        except InputError as error:  # of a bundle that was built by an older edgec
            logging.getLogger(__name__).warning("%s: not for the history: %s", job.id, error)

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Dask's hook."""
        self._names[worker] = str(scheduler.workers[worker].name)

    def remove_worker(self, scheduler: Scheduler, worker: str, **_: Any) -> None:
        """Dask's hook: what a device had begun is lost, and Dask gives it to another one."""
        device = self._names.pop(worker, "")
        why = self._why.pop(worker, "the connection was closed")
        if device not in self._names.values():
            self._gone(device, why)

    def _gone(self, device: str, why: str) -> None:
        self._ledger.gone(device, why)
        for job in self._ledger.open_attempts(device):
            self._lost(job, device, why)

    def _lost(self, job: str, device: str, why: str) -> None:
        self._ledger.end(job, device, End.LOST, why)
        if not self._give_up(job) and job not in self._futures:
            found = self._ledger.job(job)
            if found is not None and self._ledger.is_open(job):
                self._enqueue(found)

    def _give_up(self, job: str) -> bool:
        """Whether enough devices tried; the job then gets its verdict."""
        failed = self._ledger.failed(job)
        if len(failed) < self._attempts:
            return False
        told = "; ".join(f"{one.device}: {one.detail}" for one in failed)
        dead = any(one.how is End.LOST for one in failed)
        verdict = Verdict.POISON if dead else Verdict.FAILED
        reason = f"{len(failed)} attempts came to nothing: {told}"
        if self._ledger.accept(Outcome(job, verdict, reason=reason)):
            self._stop(job)
        return True

    def _enqueue(self, job: Job) -> None:
        number = self._tries[job.id] = self._tries.get(job.id, 0) + 1
        key = target_key(job.on) if job.on in self._targets else device_key(job.on)
        future = self._client.submit(
            perform,
            job.as_json(),
            key=f"{job.id}#{number}",
            pure=False,
            resources={ALONE: 1, key: 1},
            priority=job.priority,
        )
        self._futures[job.id] = future
        self._background(self._follow(job, future))

    async def _follow(self, job: Job, future: Future) -> None:
        """Until Dask's task has ended; the outcome itself came from the device, by `deliver`."""
        error = await future.exception()  # not its value: that would be fetched from the device
        if future.status == "error":  # whatever a device of another version raises
            self._ledger.start(job.id, "?")
            self.broke(job.id, "?", f"{type(error).__name__}: {error}"[:300])
        if self._futures.get(job.id) is future:
            del self._futures[job.id]
        if not self._ledger.is_open(job.id):
            self._tries.pop(job.id, None)
        elif not self._ledger.running(job.id):
            await asyncio.sleep(PAUSE)
            if self._ledger.is_open(job.id) and job.id not in self._futures:
                self._enqueue(job)

    def _stop(self, job: str) -> None:
        """Take a job out of the queue, and end it where it runs."""
        future = self._futures.get(job)
        if future is not None:
            self._background(future.cancel())
        at = self._ledger.running(job)
        for address in [address for address, name in self._names.items() if name in at]:
            self._background(self._tell(address, job))

    async def _tell(self, address: str, job: str) -> None:
        with contextlib.suppress(OSError):
            await self._scheduler.rpc(address).farm_cancel(job=job)

    async def _look(self) -> None:
        now, before = time.monotonic(), self._looked
        self._looked = now
        if now - before > SILENCE / 2:  # this very process stood still: nobody could be heard
            return
        for state in list(self._scheduler.workers.values()):
            silent = time.time() - state.last_seen
            if silent > SILENCE:
                self._why[state.address] = f"no sign of life for {silent:.0f} s"
                await self._scheduler.remove_worker(
                    state.address, stimulus_id=f"edgec-silent-{time.time()}"
                )

    async def _after_restart(self) -> None:
        await asyncio.sleep(RETURN)
        for device, _, gone in self._ledger.devices():
            if gone and device.name not in self._names.values():
                for job in self._ledger.open_attempts(device.name):
                    self._lost(job, device.name, "it did not come back after a restart")

    def _background(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _check(job: Job, known: Sequence[Device]) -> None:
    able = [device for device in known if job.on in (device.target, device.name)]
    if not able:
        targets = ", ".join(sorted({device.target for device in known})) or "none"
        names = ", ".join(device.name for device in known) or "none"
        raise InputError(
            f"no device of this farm is or offers {job.on!r}",
            hint=f"targets that it has: {targets}; devices: {names}",
        )
    if not any(job.target in device.runs for device in able):
        runs = ", ".join(dict.fromkeys(name for device in able for name in device.runs))
        raise InputError(
            f"{job.bundle.name} is for {job.target}, which {job.on} does not run",
            hint=f"build it for one of {runs}",
        )
