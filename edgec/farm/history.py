"""Every benchmark that was accepted, for ever: one SQLite file in WAL mode.

A result is what `bench --json` writes, with `job` and `device` where a farm ran it. It is kept as
it came; the columns beside it are there to be searched. It comes from a device, and is checked
before it is kept.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edgec.errors import InputError
from edgec.runtime.goals import measured

VERSION = 1  # of the file
FILE = "history.sqlite"  # in the folder of a farm
MOST_BYTES = 16 << 20  # of one result
COLUMNS = {
    "device": "TEXT NOT NULL",
    "target": "TEXT NOT NULL",
    "stack": "TEXT NOT NULL",
    "model": "TEXT NOT NULL",
    "model_sha256": "TEXT NOT NULL",
    "signature": "TEXT NOT NULL",
    "bundle": "TEXT NOT NULL",
    "bundle_sha256": "TEXT NOT NULL",
    "scenario": "TEXT NOT NULL",
    "harness": "TEXT NOT NULL",
    "setting": "TEXT NOT NULL",
    "started": "TEXT NOT NULL",
    "marked": "INTEGER NOT NULL",
}
SETTINGS = ("threads", "samples", "qps", "inputs")  # that make another measurement


@dataclass(frozen=True)
class Result:
    """A row: `setting` is how it was driven, `page` the document; `job` is empty without a farm."""

    id: int
    job: str
    device: str
    target: str
    stack: str
    model: str
    model_sha256: str
    signature: str
    bundle: str
    bundle_sha256: str
    scenario: str
    harness: str
    setting: str
    started: str
    marked: bool
    page: Mapping[str, Any]

    @property
    def driven(self) -> tuple[str, ...]:
        """What results must share to be compared: the device, and how it was driven."""
        return (self.device, self.scenario, self.harness, self.setting)

    @property
    def series(self) -> tuple[str, ...]:
        """What results must share to be one trend: besides, the model's form, target and stack.

        The weights, the bundle and the versions may differ: a trend is there to show what they did.
        """
        return (self.model, *self.driven, self.target, self.stack, self.signature)

    def value(self, metric: str) -> float | None:
        """A metric of `edgec.runtime.goals`, in its own unit; None: it was not measured."""
        return measured(self.page, metric)


class History:
    """Safe to use from several processes; each thread opens its own."""

    def __init__(self, path: Path) -> None:
        """Open or make the file. Raises InputError: not a history, or a newer one."""
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=30)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode=WAL")
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            if found > VERSION:
                raise InputError(
                    f"{path} is of a newer edgec", hint="update edgec, or use another file"
                )
            columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
            self._db.executescript(
                "BEGIN IMMEDIATE;"
                f"CREATE TABLE IF NOT EXISTS benchmarks (id INTEGER PRIMARY KEY, job TEXT UNIQUE, "
                f"{columns}, page TEXT NOT NULL);"
                f"PRAGMA user_version={VERSION}; COMMIT;"
            )
        except sqlite3.Error as error:
            hint = "give --history FILE: a history of edgec's, or a file that does not exist yet"
            raise InputError(f"{path}: {error}", hint=hint) from error

    def add(self, result: Mapping[str, Any]) -> int:
        """Keep a result; its number. A job's second result is not kept: the first one's number.

        Raises InputError: not a result of `bench`.
        """
        page = checked(result)
        row = {"job": page.get("job") or None, **_columns(page)}
        row["page"] = json.dumps(page, sort_keys=True, allow_nan=False)
        names = ", ".join(row)
        marks = ", ".join("?" * len(row))
        with self._db:
            made = self._db.execute(
                f"INSERT OR IGNORE INTO benchmarks ({names}) VALUES ({marks})", list(row.values())
            )
            if made.rowcount:
                return int(made.lastrowid or 0)
            known = "SELECT id FROM benchmarks WHERE job = ?"
            return int(self._db.execute(known, (row["job"],)).fetchone()["id"])

    def results(self, **wanted: str) -> list[Result]:
        """In the order in which they were measured; `wanted`: columns with their values."""
        unknown = sorted(set(wanted) - set(COLUMNS))
        if unknown:
            raise InputError(
                f"a result has no {unknown[0]}", hint=f"there are {', '.join(COLUMNS)}"
            )
        where = " AND ".join(f"{name} = ?" for name in wanted) or "1"
        query = f"SELECT * FROM benchmarks WHERE {where} ORDER BY started, id"
        return [_result(row) for row in self._db.execute(query, list(wanted.values()))]

    def close(self) -> None:
        """Release the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def default_path() -> Path:
    """Where a history is kept unless somebody says otherwise (XDG Base Directory: state)."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "edgec" / "farm" / FILE


def opened(path: Path | None) -> History:
    """The history at a path, or at the default one, whose folder is made."""
    if path is None:
        path = default_path()
        path.parent.mkdir(parents=True, exist_ok=True)
    return History(path)


def here(page: Mapping[str, Any]) -> dict[str, Any]:
    """A result of this machine, with the name that this machine has."""
    return {**page, "device": platform.node() or "this machine"}


def checked(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result as plain JSON values. Raises InputError where it is not one of `bench`."""
    try:
        text = json.dumps(dict(result), allow_nan=False)
        page: dict[str, Any] = json.loads(text)
        if len(text) > MOST_BYTES:
            raise ValueError(f"it has {len(text)} characters")
        if page["verb"] != "bench" or page["schema"] != 1:
            raise ValueError("it is not of the verb bench, or of a newer edgec")
        for key in ("job", "device"):
            if not isinstance(page.get(key, ""), str):
                raise TypeError(f"{key} is no text")
        if not isinstance(page["marks"], list) or not all(
            isinstance(m, str) for m in page["marks"]
        ):
            raise TypeError("marks are no texts")
        _columns(page)
        numbers = [measured(page, metric) for metric in ("p50", "p95", "p99", "memory", "size")]
        if not all(one is not None and math.isfinite(one) and one >= 0 for one in numbers):
            raise ValueError("a figure is no number")
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise InputError(
            f"this is no result of edgec bench: {type(error).__name__}: {error}",
            hint="keep what edgec bench --json wrote",
        ) from error
    return page


def _columns(page: Mapping[str, Any]) -> dict[str, Any]:
    settings = page["settings"]
    found = {
        "device": page.get("device") or page["machine"]["board"] or "unknown",
        "target": page["target"]["name"],
        "stack": page["target"]["stack"],
        "model": page["model"]["name"],
        "model_sha256": page["model"]["sha256"],
        "signature": page["model"]["signature"],
        "bundle": page["bundle"]["name"],
        "bundle_sha256": page["bundle"]["sha256"],
        "scenario": page["scenario"],
        "harness": page["harness"],
        "setting": ", ".join(f"{key} {settings[key]}" for key in SETTINGS if settings[key]),
        "started": page["started"],
    }
    for key, value in found.items():
        if not isinstance(value, str) or len(value) > 500:
            raise TypeError(f"{key} is no text of 500 characters at most")
    return {**found, "marked": int(bool(page["marks"]))}


def _result(row: sqlite3.Row) -> Result:
    values = {name: row[name] for name in COLUMNS}
    page = json.loads(row["page"])
    return Result(
        **{**values, "marked": bool(row["marked"])}, id=row["id"], job=row["job"] or "", page=page
    )
