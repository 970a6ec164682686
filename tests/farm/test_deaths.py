"""Devices and schedulers that die, freeze and come back; the large form is tools/farm-chaos."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
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


@pytest.fixture(scope="module")
def shared() -> Iterator[Farm]:
    """One device, whose jobs may end it: they run as its own user."""
    options = ("--attempts", "3", "--store", "FOLDER/bundles")
    with Farm({"pi": "raspberry-pi-5"}, options=options, unprivileged=True) as found:
        found.all_up()
        yield found


@pytest.fixture
def farm(shared: Farm) -> Farm:
    """The same, whatever was done to it before."""
    with contextlib.suppress(KeyError):
        shared.thaw("pi")
    for name, start in (("scheduler", shared.up), ("pi", lambda: shared.join("pi"))):
        if name not in shared.processes or shared.processes[name].poll() is not None:
            start()
    until(lambda: shared.here() == {"pi"}, "the device is here")
    return shared


@pytest.fixture
def place(farm: Farm) -> Iterator[Path]:
    """Where a job may write, empty."""
    found = farm.folder / "oracle" / "pi" / "place"
    found.mkdir()
    found.chmod(0o777)
    yield found
    shutil.rmtree(found)


def submit(farm: Farm, bundle: Path) -> str:
    async def work() -> str:
        async with Line(address(farm.url, None)) as line:
            return (await module.submit(line, [Request(Verb.VERIFY, bundle, ("pi",))]))[0]

    return asyncio.run(work())


def outcome(farm: Farm, job: str) -> dict[str, Any]:
    """What came of a job, when something has."""
    found: dict[str, Any] = until(lambda: farm.outcomes().get(f"{job}.1"), "the job has an outcome")
    return found


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
    figures = run(bundle, jobs=18, seed=5, pace=(1.0, 2.0), limit=600, most=8)
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
    found = outcome(farm, job)
    assert found["verdict"] == "poison"
    assert found["reason"].startswith("3 attempts came to nothing: pi: the connection was closed")
    assert outcome(farm, innocent)["verdict"] == "ok"


def test_what_was_measured_while_the_scheduler_was_dead_is_kept(
    farm: Farm, acting: Acting, place: Path
) -> None:
    job = submit(farm, acting(waits_for(place)))
    until(lambda: (place / "starts").exists(), "the job runs")
    farm.kill("scheduler")
    (place / "go").touch()
    outbox = farm.folder / "pi" / "outbox"
    until(lambda: list(outbox.glob("*.json")), "the outcome is in the outbox")
    farm.up()
    assert outcome(farm, job)["result"] == {"went": True}
    until(lambda: not list(outbox.glob("*")), "the outbox is empty")
    assert (place / "starts").read_text() == "start\n", "it was not measured again"


def test_a_job_that_runs_goes_on_under_the_next_scheduler(
    farm: Farm, acting: Acting, place: Path
) -> None:
    job = submit(farm, acting(waits_for(place)))
    until(lambda: (place / "starts").exists(), "the job runs")
    farm.kill("scheduler")
    farm.up()
    until(lambda: "pi" in farm.here(), "the device is back")
    assert running(farm) == [f"{job}.1"]
    (place / "go").touch()
    assert outcome(farm, job)["result"] == {"went": True}
    assert (place / "starts").read_text() == "start\n"
    (attempt,) = farm.query("SELECT how FROM attempts WHERE job = ?", f"{job}.1")
    assert attempt["how"] == "delivered"


def test_a_frozen_device_is_missed_and_its_job_is_not_lost(
    farm: Farm, acting: Acting, place: Path
) -> None:
    job = submit(farm, acting(waits_for(place)))
    until(lambda: (place / "starts").exists(), "the job runs")
    farm.freeze("pi")
    until(lambda: not farm.here(), "it is missed")
    (row,) = farm.query("SELECT gone FROM devices")
    assert row["gone"].startswith("no sign of life for ")
    until(lambda: running(farm) == [], "its attempt has ended")
    farm.thaw("pi")
    until(lambda: farm.here() == {"pi"}, "it is back")
    (place / "go").touch()
    assert outcome(farm, job)["result"] == {"went": True}
    assert (place / "starts").read_text() == "start\n"
    assert farm.told("OVERLAP") == []


def test_a_job_ends_with_its_agent(farm: Farm, acting: Acting, place: Path) -> None:
    code = f"open({str(place / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"
    job = submit(farm, acting(code))
    pid = int(until(lambda: (place / "pid").exists() and (place / "pid").read_text(), "it runs"))
    farm.kill("pi")
    until(lambda: not alive(pid), "the job has ended")
    asyncio.run(cancel(farm, job))


async def cancel(farm: Farm, job: str) -> None:
    async with Line(address(farm.url, None)) as line:
        await line.call("cancel", name=job)


def test_a_second_agent_in_the_same_folder(farm: Farm) -> None:
    first = farm.processes["pi"]
    farm.join("pi")
    second = farm.processes["pi"]
    farm.processes["pi"] = first
    assert second.wait(180) == 3
    assert f"another farm join, process {first.pid}, uses" in farm.log("pi")


def alive(pid: int) -> bool:
    try:
        state: Any = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
