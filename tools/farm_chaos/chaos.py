"""Jobs on four devices of three kinds, while devices are killed, frozen and restarted at random and
the scheduler is killed twice: tools/farm-chaos [--jobs 200] [--seed N].

Then: every job has one accepted result, from a device that was asked for; no two jobs were alive at
once on a device, by a lock that edgec does not know and by the intervals of the results; nothing
waits in an outbox. Ends with exit code 1 where one of these is not so.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farms import Farm, until, waiting

from edgec.farm.link import Farm as Line
from edgec.farm.link import address
from edgec.farm.submit import Request, submit
from edgec.farm.types import Verb

DEVICES = {
    "pi-a": "raspberry-pi-5",
    "pi-b": "raspberry-pi-5",
    "orin": "jetson-orin-cpu",
    "rock": "rk3588",
}
NOTICED = 10.0  # seconds in which a frozen device has to be missed
BENCH = ("--rounds", "1", "--calls", "3", "--warmup", "1")


@dataclass
class Figures:
    """What happened."""

    jobs: int
    submitted: float = 0.0
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    noticed: list[float] = field(default_factory=list)
    attempts: int = 0
    begun: int = 0
    by_device: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """For people."""
        faults = ", ".join(f"{count} {what}" for what, count in sorted(self.faults.items()))
        devices = ", ".join(f"{name} {count}" for name, count in sorted(self.by_device.items()))
        slowest = f"{max(self.noticed):.1f} s at most" if self.noticed else "none was long enough"
        return [
            f"jobs: {self.jobs}, submitted in {self.submitted:.2f} s, done in {self.seconds:.0f} s",
            f"faults injected: {sum(self.faults.values())} ({faults})",
            f"frozen devices noticed: {len(self.noticed)}, after {slowest}",
            f"attempts: {self.attempts}, retries: {self.attempts - self.jobs}; "
            f"processes begun: {self.begun}",
            f"accepted results: {devices}",
            *(f"WRONG: {line}" for line in self.wrong),
            f"losses: {len([line for line in self.wrong if 'result' in line])}",
        ]


def run(
    bundle: Path,
    jobs: int,
    seed: int,
    pace: tuple[float, float],
    limit: float,
    most: float = math.inf,
) -> Figures:
    """All of it. `pace`: seconds between faults, from and to; `limit`: seconds for the whole;
    `most`: so many faults of devices, so that a slow machine comes to an end too."""
    luck, figures = random.Random(seed), Figures(jobs)
    with Farm(DEVICES, options=("--attempts", "1000")) as farm:
        farm.all_up()
        targets = sorted(set(DEVICES.values()))
        wanted = [
            Request(Verb.BENCH, bundle, (targets[n % len(targets)],), BENCH)
            if n % 4 == 0
            else Request(Verb.VERIFY, bundle, (targets[n % len(targets)],))
            for n in range(jobs)
        ]
        begin = time.monotonic()
        batches = asyncio.run(_submit(farm.url, wanted))
        figures.submitted = time.monotonic() - begin
        _torment(farm, luck, figures, pace, limit, most)
        until(lambda: len(farm.outcomes()) == jobs, "every job has a result", limit)
        figures.seconds = time.monotonic() - begin
        until(lambda: not _outboxes(farm), "every outbox is empty")
        _judge(farm, dict(zip(batches, wanted, strict=True)), figures)
    return figures


async def _submit(url: str, wanted: list[Request]) -> list[str]:
    async with Line(address(url, None)) as line:
        return await submit(line, wanted)


def _torment(
    farm: Farm,
    luck: random.Random,
    figures: Figures,
    pace: tuple[float, float],
    limit: float,
    most: float,
) -> None:
    """Faults until the jobs are done. The scheduler dies at a third and at two thirds of them."""
    deaths = [figures.jobs // 3, 2 * figures.jobs // 3]
    frozen: dict[str, tuple[float, float, bool]] = {}  # end, begin, noticed or not to be
    back: dict[str, float] = {}
    following = time.monotonic() + luck.uniform(*pace)
    for _ in waiting(limit):
        now = time.monotonic()
        done = len(farm.outcomes())
        if done >= figures.jobs:
            break
        if deaths and done >= deaths[0] and "scheduler" in farm.processes:
            deaths.pop(0)
            farm.kill("scheduler")
            figures.faults["scheduler killed"] += 1
            frozen = {name: (end, since, True) for name, (end, since, _) in frozen.items()}
            back["scheduler"] = now + luck.uniform(0.5, 3)
        for name in [name for name, when in back.items() if when <= now]:
            del back[name]
            farm.up() if name == "scheduler" else farm.join(name)
        _watch(farm, frozen, figures, now)
        if now >= following and sum(figures.faults.values()) < most:
            following = now + luck.uniform(*pace)
            name = luck.choice([*DEVICES])
            if name in frozen or name in back:
                continue
            if luck.random() < 0.5:
                how = luck.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
                farm.kill(name, how)
                figures.faults["killed" if how is signal.SIGKILL else "ended"] += 1
                back[name] = now + luck.uniform(0, 2)
            else:
                farm.freeze(name)
                figures.faults["frozen"] += 1
                frozen[name] = (now + luck.choice([1.0, 3.0, 12.0]), now, False)
    for name in frozen:
        farm.thaw(name)
    for name in back:
        farm.up() if name == "scheduler" else farm.join(name)


def _watch(
    farm: Farm, frozen: dict[str, tuple[float, float, bool]], figures: Figures, now: float
) -> None:
    """Thaw whose time has come; note when a frozen device was missed."""
    here = farm.here()
    for name, (end, since, noticed) in list(frozen.items()):
        if not noticed and name not in here and "scheduler" in farm.processes:
            figures.noticed.append(now - since)
            frozen[name] = (end, since, True)
        if now >= end:
            farm.thaw(name)
            del frozen[name]


def _outboxes(farm: Farm) -> list[Path]:
    return [path for name in DEVICES for path in (farm.folder / name / "outbox").glob("*.json")]


def _judge(farm: Farm, wanted: dict[str, Request], figures: Figures) -> None:
    outcomes, wrong = farm.outcomes(), figures.wrong
    known = {row["id"] for row in farm.query("SELECT id FROM jobs")}
    if known != {f"{batch}.1" for batch in wanted} or len(known) != figures.jobs:
        wrong.append(f"the ledger has {len(known)} jobs")
    counted = Counter(row["job"] for row in farm.query("SELECT job FROM results"))
    wrong += [f"{job} has {counted[job]} results" for job in known if counted[job] != 1]
    for batch, request in wanted.items():
        outcome = outcomes.get(f"{batch}.1", {})
        wrong += [f"{batch}: {text}" for text in _faults_of(outcome, request)]
    figures.by_device = Counter(outcome["device"] for outcome in outcomes.values())
    figures.attempts = len(farm.query("SELECT id FROM attempts"))
    figures.begun = len(farm.told("begin"))
    wrong += farm.told("OVERLAP")
    for name in DEVICES:
        own = sorted(
            (outcome["began"], outcome["ended"])
            for outcome in outcomes.values()
            if outcome["device"] == name
        )
        for before, after in itertools.pairwise(own):
            if after[0] < before[1]:
                wrong.append(f"{name}: {before} and {after} overlap")
    wrong += [f"noticed only after {one:.1f} s" for one in figures.noticed if one > NOTICED]
    if figures.faults["scheduler killed"] != 2:
        wrong.append("the scheduler was not killed twice")


def _faults_of(outcome: dict[str, Any], request: Request) -> list[str]:
    """What is wrong with the result of one job."""
    if outcome.get("verdict") != "ok":
        return [f"its result is {outcome.get('verdict')}: {outcome.get('reason')}"]
    found = []
    if DEVICES[outcome["device"]] != request.on[0]:
        found.append(f"its result is from {outcome['device']}, not of {request.on[0]}")
    key = "cases" if request.verb is Verb.BENCH else "passed"
    if not outcome["result"].get(key):
        found.append(f"its result has no {key}")
    return found


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path, help="a bundle that every machine takes: generic")
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--limit", type=float, default=3600.0, metavar="SECONDS")
    parser.add_argument(
        "--pace", type=float, default=1.5, metavar="SECONDS", help="between faults, up to thrice it"
    )
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    figures = run(
        options.bundle, options.jobs, options.seed, (options.pace, 3 * options.pace), options.limit
    )
    print("\n".join(figures.lines()))
    return 1 if figures.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
