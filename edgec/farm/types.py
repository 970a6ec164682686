"""The nouns of the farm. All of them travel as JSON, between versions of edgec and of Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self

FILES = ("--inputs", "--against")  # arguments that name a file of the user's, which travels


class Verb(StrEnum):
    """What a bundle is asked to do on a device."""

    BENCH = "bench"
    VERIFY = "verify"
    FINISH = "finish"


class State(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"


class Verdict(StrEnum):
    """How a job ended; each job gets exactly one."""

    OK = "ok"  # the bundle did what it was asked
    FAILED = "failed"  # it ended with an exit code of its own
    REFUSED = "refused"  # it was not started: changed on the way, or for another device
    TIMEOUT = "timeout"
    POISON = "poison"  # device after device died or failed under it
    CANCELLED = "cancelled"


class End(StrEnum):
    """How an attempt ended."""

    DELIVERED = "delivered"
    LOST = "lost"  # its device died, froze or forgot it
    BROKEN = "broken"  # the device could not try: no bundle, no disk


@dataclass(frozen=True)
class Blob:
    """A file by its content: sha256 in hex, bytes, and the name that people know it by."""

    sha256: str
    size: int
    name: str


@dataclass(frozen=True)
class Job:
    """One bundle, one verb, one device. `batch` is what the user got as id; `id` is `batch.N`.

    `on`: the target or the device that was asked for. `target`: what the bundle was built for.
    `files`: what arguments name, by their place in `arguments`. `seconds`: for the run alone.
    A higher `priority` goes first.
    """

    id: str
    batch: str
    verb: Verb
    bundle: Blob
    target: str
    on: str
    arguments: tuple[str, ...] = ()
    files: Mapping[int, Blob] = field(default_factory=dict)
    spares: Blob | None = None
    priority: int = 0
    seconds: float = 600.0

    def as_json(self) -> dict[str, Any]:
        """For the wire and for the ledger."""
        found = asdict(self)
        found["files"] = {str(place): blob for place, blob in found["files"].items()}
        return found

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """The inverse of `as_json`."""
        spares = row.get("spares")
        return cls(
            **{
                **row,
                "verb": Verb(row["verb"]),
                "bundle": Blob(**row["bundle"]),
                "arguments": tuple(map(str, row["arguments"])),
                "files": {int(place): Blob(**blob) for place, blob in row["files"].items()},
                "spares": Blob(**spares) if spares else None,
            }
        )


@dataclass(frozen=True)
class Device:
    """What a device announces. `runs`: the targets whose bundles it takes, its own among them.

    `here`: whether the machine fits the row that it announces; `facts`: arch, CPU, memory, clocks
    and the packages of the Python that runs the jobs.
    """

    name: str
    target: str
    stack: str
    runs: tuple[str, ...]
    here: bool
    version: str
    facts: Mapping[str, Any]

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict`."""
        return cls(**{**row, "runs": tuple(row["runs"])})


@dataclass(frozen=True)
class Outcome:
    """What became of a job. `result` is what the bundle wrote as JSON, empty where it wrote none.

    `began`, `ended`: seconds of the device's own clock since its start (CLOCK_BOOTTIME), while it
    was held for this job alone. `log`: the end of what the run printed.
    """

    job: str
    verdict: Verdict
    device: str = ""
    reason: str = ""
    exit_code: int = 0
    result: Mapping[str, Any] = field(default_factory=dict)
    log: str = ""
    began: float = 0.0
    ended: float = 0.0

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict`."""
        return cls(**{**row, "verdict": Verdict(row["verdict"])})


def target_key(target: str) -> str:
    """The Dask resource of a target's queue."""
    return f"target {target}"


def device_key(name: str) -> str:
    """The Dask resource of one device."""
    return f"device {name}"


ALONE = "alone"  # the Dask resource that each device has once, and each job takes
