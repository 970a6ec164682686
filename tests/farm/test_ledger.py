"""The ledger: one result a job, whatever happens, and nothing forgotten."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from edgec.farm.ledger import Ledger
from edgec.farm.types import Blob, Device, End, Job, Outcome, State, Verb, Verdict

BLOB = Blob("0" * 64, 5, "model.edgec")
JOB = Job(
    id="a.1",
    batch="a",
    verb=Verb.BENCH,
    bundle=BLOB,
    target="generic",
    on="rk3588",
    arguments=("--inputs", "x.npz"),
    files={1: Blob("1" * 64, 7, "x.npz")},
    spares=BLOB,
    priority=3,
)
OK = Outcome("a.1", Verdict.OK, "rock", result={"cases": [1]}, began=1.0, ended=2.5)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


def test_a_job_comes_back_as_it_was(ledger: Ledger) -> None:
    assert ledger.add([JOB]) == [JOB]
    assert ledger.job("a.1") == JOB
    assert ledger.unfinished() == [JOB]
    assert ledger.job("a.2") is None


def test_who_submits_twice_gets_one_job(ledger: Ledger) -> None:
    other = replace(JOB, id="a.2")
    assert ledger.add([JOB]) == [JOB]
    assert ledger.add([JOB, other]) == [other]
    assert [job.id for job in ledger.unfinished()] == ["a.1", "a.2"]


def test_the_first_outcome_is_the_result(ledger: Ledger) -> None:
    ledger.add([JOB])
    assert ledger.start("a.1", "rock")
    assert ledger.start("a.1", "other")
    assert ledger.accept(OK)
    assert not ledger.accept(replace(OK, device="other", verdict=Verdict.FAILED))
    (row,) = ledger.rows("a")
    assert row["state"] is State.DONE
    assert Outcome.from_json(row["outcome"]) == OK
    assert ledger.unfinished() == []
    assert not ledger.start("a.1", "rock"), "nobody waits for it any more"
    assert ledger.running("a.1") == []


def test_the_file_itself_allows_one_result_a_job(ledger: Ledger, tmp_path: Path) -> None:
    ledger.add([JOB])
    ledger.accept(OK)
    with sqlite3.connect(tmp_path / "ledger.sqlite") as db, pytest.raises(sqlite3.IntegrityError):
        db.execute("INSERT INTO results SELECT * FROM results")


def test_an_outcome_that_nobody_asked_for_is_none(ledger: Ledger) -> None:
    assert not ledger.accept(OK)
    assert ledger.rows() == []


def test_attempts_are_counted_by_how_they_ended(ledger: Ledger) -> None:
    ledger.add([JOB])
    for device, how in (("rock", End.LOST), ("pi", End.BROKEN), ("pi", End.DELIVERED)):
        ledger.start("a.1", device)
        assert ledger.open_attempts(device) == ["a.1"]
        ledger.end("a.1", device, how, f"{device} went")
    failed = ledger.failed("a.1")
    assert [(one.device, one.how) for one in failed] == [("rock", End.LOST), ("pi", End.BROKEN)]
    assert failed[0].detail == "rock went"


def test_an_attempt_that_goes_on_is_not_counted_twice(ledger: Ledger) -> None:
    ledger.add([JOB])
    ledger.start("a.1", "rock")
    ledger.start("a.1", "rock")
    assert ledger.running("a.1") == ["rock"]
    (row,) = ledger.rows("a.1")
    assert (row["state"], row["device"]) == (State.RUNNING, "rock")


def test_all_of_it_is_there_after_a_restart(ledger: Ledger, tmp_path: Path) -> None:
    device = Device("rock", "rk3588", "s", ("rk3588", "generic"), False, "0.1", {"clocks": []})
    ledger.add([JOB, replace(JOB, id="a.2")])
    ledger.start("a.1", "rock")
    ledger.seen(device)
    ledger.accept(replace(OK, job="a.2"))
    again = Ledger(tmp_path / "ledger.sqlite")  # as after a kill: the first one was never closed
    assert again.unfinished() == [JOB]
    assert again.open_attempts("rock") == ["a.1"]
    ((found, _, gone),) = again.devices()
    assert (found, gone) == (device, "")
    again.gone("rock", "frozen")
    assert again.devices()[0][2] == "frozen"
    again.forget("rock")
    assert again.devices() == []


def test_a_batch_of_jobs_is_taken_as_a_whole(ledger: Ledger) -> None:
    broken = replace(JOB, id="a.2", arguments=(b"no text",))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        ledger.add([JOB, broken])
    assert ledger.unfinished() == []
