"""The farm's memory: one SQLite file in WAL mode. Whatever is committed survives a kill.

    jobs       what was asked, in the order in which it came
    attempts   each time that a device began: when, where, how it ended
    results    at most one a job: its primary key is the job
    devices    who ever joined, and what it announced

All writes are small and synchronous (`synchronous=FULL`): what was acknowledged is on the disk.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from edgec.farm.types import Device, End, Job, Outcome, State

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, batch TEXT NOT NULL, submitted REAL NOT NULL, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS jobs_batch ON jobs(batch);
CREATE TABLE IF NOT EXISTS attempts (
    id INTEGER PRIMARY KEY, job TEXT NOT NULL REFERENCES jobs, device TEXT NOT NULL,
    started REAL NOT NULL, ended REAL, how TEXT, detail TEXT);
CREATE INDEX IF NOT EXISTS attempts_job ON attempts(job);
CREATE INDEX IF NOT EXISTS attempts_open ON attempts(device) WHERE ended IS NULL;
CREATE TABLE IF NOT EXISTS results (
    job TEXT PRIMARY KEY REFERENCES jobs, accepted REAL NOT NULL, verdict TEXT NOT NULL,
    device TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS devices (
    name TEXT PRIMARY KEY, seen REAL NOT NULL, gone TEXT NOT NULL, body TEXT NOT NULL);
"""


class Attempt(NamedTuple):
    """A try that came to nothing."""

    device: str
    how: End
    detail: str


class Ledger:
    """Used by one thread of one process; others may read the file meanwhile."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, timeout=30)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("PRAGMA foreign_keys=ON")
        self._db.executescript(SCHEMA)

    def close(self) -> None:
        """Release the file."""
        self._db.close()

    def add(self, jobs: Sequence[Job]) -> list[Job]:
        """Those that are new: who submits the same id again, after a broken line, gets nothing."""
        now, new = time.time(), []
        with self._together():
            for job in jobs:
                row = (job.id, job.batch, now, json.dumps(job.as_json()))
                if self._db.execute("INSERT OR IGNORE INTO jobs VALUES (?,?,?,?)", row).rowcount:
                    new.append(job)
        return new

    def job(self, name: str) -> Job | None:
        """A job by its id."""
        row = self._db.execute("SELECT body FROM jobs WHERE id = ?", (name,)).fetchone()
        return Job.from_json(json.loads(row["body"])) if row else None

    def unfinished(self) -> list[Job]:
        """Jobs without a verdict, in the order in which they came."""
        rows = self._db.execute(
            "SELECT body FROM jobs WHERE id NOT IN (SELECT job FROM results) ORDER BY rowid"
        )
        return [Job.from_json(json.loads(row["body"])) for row in rows]

    def is_open(self, job: str) -> bool:
        """Whether a job is known and has no verdict yet."""
        row = self._db.execute(
            "SELECT 1 FROM jobs WHERE id = ? AND id NOT IN (SELECT job FROM results)", (job,)
        )
        return row.fetchone() is not None

    def start(self, job: str, device: str) -> bool:
        """Note an attempt. False: nobody waits for this job any more."""
        if not self.is_open(job):
            return False
        if device not in self.running(job):
            self._db.execute(
                "INSERT INTO attempts (job, device, started) VALUES (?,?,?)",
                (job, device, time.time()),
            )
        return True

    def running(self, job: str) -> list[str]:
        """The devices with an open attempt at a job."""
        rows = self._db.execute(
            "SELECT device FROM attempts WHERE job = ? AND ended IS NULL", (job,)
        )
        return [row["device"] for row in rows]

    def open_attempts(self, device: str) -> list[str]:
        """The jobs that a device is at."""
        rows = self._db.execute(
            "SELECT job FROM attempts WHERE device = ? AND ended IS NULL", (device,)
        )
        return [row["job"] for row in rows]

    def end(self, job: str, device: str, how: End, detail: str = "") -> None:
        """Close an attempt, where one is open."""
        self._db.execute(
            "UPDATE attempts SET ended = ?, how = ?, detail = ? "
            "WHERE job = ? AND device = ? AND ended IS NULL",
            (time.time(), how, detail, job, device),
        )

    def failed(self, job: str) -> list[Attempt]:
        """The attempts that came to nothing."""
        rows = self._db.execute(
            "SELECT device, how, detail FROM attempts WHERE job = ? AND how IN (?,?) ORDER BY id",
            (job, End.LOST, End.BROKEN),
        )
        return [Attempt(row["device"], End(row["how"]), row["detail"]) for row in rows]

    def accept(self, outcome: Outcome) -> bool:
        """Keep the first outcome of a job. False: it had one, or nobody asked for it."""
        row = (
            outcome.job,
            time.time(),
            outcome.verdict,
            outcome.device,
            json.dumps(asdict(outcome)),
        )
        with self._together():
            if outcome.device:
                self.end(outcome.job, outcome.device, End.DELIVERED)
            if not self.is_open(outcome.job):
                return False
            self._db.execute("INSERT INTO results VALUES (?,?,?,?,?)", row)
        return True

    def seen(self, device: Device) -> None:
        """A device is here."""
        self._db.execute(
            "INSERT OR REPLACE INTO devices VALUES (?,?,'',?)",
            (device.name, time.time(), json.dumps(asdict(device))),
        )

    def gone(self, name: str, why: str) -> None:
        """A device is away."""
        self._db.execute(
            "UPDATE devices SET seen = ?, gone = ? WHERE name = ?", (time.time(), why, name)
        )

    def forget(self, name: str) -> None:
        """A device will not come back."""
        self._db.execute("DELETE FROM devices WHERE name = ?", (name,))

    def devices(self) -> list[tuple[Device, float, str]]:
        """Each device with when it was seen last, and why it is away, empty where it is not."""
        rows = self._db.execute("SELECT * FROM devices ORDER BY name")
        return [(Device.from_json(json.loads(r["body"])), r["seen"], r["gone"]) for r in rows]

    def rows(self, name: str = "", limit: int = 10**6) -> list[dict[str, Any]]:
        """Jobs for people, the newest first: all, those of a batch, or one."""
        found = self._db.execute(
            "SELECT jobs.*, results.verdict, results.device, results.accepted, results.body AS end "
            "FROM jobs LEFT JOIN results ON results.job = jobs.id "
            "WHERE ? IN ('', jobs.id, jobs.batch) ORDER BY jobs.rowid DESC LIMIT ?",
            (name, limit),
        )
        return [self._row(row) for row in found]

    def _row(self, row: sqlite3.Row) -> dict[str, Any]:
        running = self.running(row["id"])
        state = State.DONE if row["verdict"] else State.RUNNING if running else State.QUEUED
        return {
            "job": json.loads(row["body"]),
            "submitted": row["submitted"],
            "state": state,
            "device": row["device"] or ", ".join(running),
            "attempts": self.failed(row["id"]),
            "accepted": row["accepted"],
            "outcome": json.loads(row["end"]) if row["end"] else None,
        }

    def _together(self) -> _Transaction:
        return _Transaction(self._db)


class _Transaction:
    """All of it or nothing."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")
