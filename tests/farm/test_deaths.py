"""Devices and schedulers that die, freeze and come back; the large form is tools/farm-chaos."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chaos import run
from farmed import Acting
from farms import Farm, until

from edgec.farm import submit as module
from edgec.farm.link import Farm as Line
from edgec.farm.link import address
from edgec.farm.submit import Request
from edgec.farm.types import Verb


@pytest.fixture
def farm() -> Iterator[Farm]:
    """One device, whose jobs may end it: they run as its own user."""
    with Farm({"pi": "raspberry-pi-5"}, options=("--attempts", "3"), unprivileged=True) as found:
        found.all_up()
        yield found


def submit(farm: Farm, bundle: Path) -> str:
    async def work() -> str:
        async with Line(address(farm.url, None)) as line:
            return (await module.submit(line, [Request(Verb.VERIFY, bundle, ("pi",))]))[0]

    return asyncio.run(work())


def running(farm: Farm) -> list[str]:
    return [row["job"] for row in farm.query("SELECT job FROM attempts WHERE ended IS NULL")]


def waits_for(path: Path) -> str:
    """A program that notes each start, and answers when there is a file `go`."""
    return f"""
with open({str(path / "starts")!r}, "a") as stream:
    stream.write("start\\n")
while not os.path.exists({str(path / "go")!r}):
    time.sleep(0.05)
answer(went=True)
"""


def test_chaos(bundle: Path) -> None:
    figures = run(bundle, jobs=18, seed=5, pace=(1.0, 2.0), limit=300)
    assert figures.wrong == [], "\n".join(figures.lines())
    assert figures.faults["scheduler killed"] == 2
    assert sum(figures.faults.values()) > 2


def test_a_poison_bundle_gets_its_verdict(farm: Farm, acting: Acting, bundle: Path) -> None:
    poison = acting(f"os.kill(os.getppid(), {int(signal.SIGKILL)})", "poison")
    job = submit(farm, poison)
    innocent = submit(farm, bundle)  # it only waited while the device died
    for _ in range(3):
        farm.processes["pi"].wait(60)
        farm.join("pi")
    until(lambda: len(farm.outcomes()) == 2, "both have a verdict")
    outcome = farm.outcomes()[f"{job}.1"]
    assert outcome["verdict"] == "poison"
    assert outcome["reason"].startswith("3 attempts came to nothing: pi: the connection was closed")
    assert farm.outcomes()[f"{innocent}.1"]["verdict"] == "ok"


def test_what_was_measured_while_the_scheduler_was_dead_is_kept(farm: Farm, acting: Acting) -> None:
    place = farm.folder / "oracle" / "pi"
    job = submit(farm, acting(waits_for(place)))
    until(lambda: (place / "starts").exists(), "the job runs")
    farm.kill("scheduler")
    (place / "go").touch()
    outbox = farm.folder / "pi" / "outbox"
    until(lambda: list(outbox.glob("*.json")), "the outcome is in the outbox")
    farm.up()
    until(farm.outcomes, "the outcome was handed in")
    assert farm.outcomes()[f"{job}.1"]["result"] == {"went": True}
    until(lambda: not list(outbox.glob("*")), "the outbox is empty")
    assert (place / "starts").read_text() == "start\n", "it was not measured again"


def test_a_job_that_runs_goes_on_under_the_next_scheduler(farm: Farm, acting: Acting) -> None:
    place = farm.folder / "oracle" / "pi"
    job = submit(farm, acting(waits_for(place)))
    until(lambda: (place / "starts").exists(), "the job runs")
    farm.kill("scheduler")
    farm.up()
    until(lambda: "pi" in farm.here(), "the device is back")
    assert running(farm) == [f"{job}.1"]
    (place / "go").touch()
    until(farm.outcomes, "the job has an outcome")
    assert (place / "starts").read_text() == "start\n"
    (attempt,) = farm.query("SELECT how FROM attempts")
    assert attempt["how"] == "delivered"


def test_a_frozen_device_is_missed_and_its_job_is_not_lost(farm: Farm, acting: Acting) -> None:
    place = farm.folder / "oracle" / "pi"
    job = submit(farm, acting(waits_for(place)))
    until(lambda: (place / "starts").exists(), "the job runs")
    farm.freeze("pi")
    until(lambda: not farm.here(), "it is missed")
    (row,) = farm.query("SELECT gone FROM devices")
    assert row["gone"].startswith("no sign of life for ")
    assert running(farm) == []
    farm.thaw("pi")
    until(lambda: farm.here() == {"pi"}, "it is back")
    (place / "go").touch()
    until(farm.outcomes, "the job has an outcome")
    assert farm.outcomes()[f"{job}.1"]["result"] == {"went": True}
    assert (place / "starts").read_text() == "start\n"
    assert farm.told("OVERLAP") == []


def test_a_job_ends_with_its_agent(farm: Farm, acting: Acting) -> None:
    place = farm.folder / "oracle" / "pi"
    code = f"open({str(place / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"
    submit(farm, acting(code))
    pid = int(until(lambda: (place / "pid").exists() and (place / "pid").read_text(), "it runs"))
    farm.kill("pi")
    until(lambda: not alive(pid), "the job has ended")


def test_a_second_agent_in_the_same_folder(farm: Farm) -> None:
    first = farm.processes["pi"].pid
    farm.join("pi")
    assert farm.processes["pi"].wait(60) == 3
    assert f"another farm join, process {first}, uses" in farm.log("pi")
    os.kill(first, signal.SIGKILL)


def alive(pid: int) -> bool:
    try:
        state: Any = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_the_ledger_is_json_for_others(farm: Farm, bundle: Path) -> None:
    job = submit(farm, bundle)
    until(farm.outcomes, "the job has an outcome")
    (row,) = farm.query("SELECT body FROM results WHERE job = ?", f"{job}.1")
    assert json.loads(row["body"])["verdict"] == "ok"
