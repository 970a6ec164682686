"""Results as JSON, whole, or as CSV, a row a result."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from edgec.errors import InputError
from edgec.farm.history import COLUMNS, Result
from edgec.runtime.goals import MEASURED
from edgec.runtime.npz import write_bytes

FORMULA = ("=", "+", "-", "@", "\t")  # a cell that begins so is run by spreadsheets


def export(results: Sequence[Result], path: Path) -> None:
    """Write a `.json` or a `.csv` file, complete or not at all."""
    writers = {".json": as_json, ".csv": as_csv}
    if path.suffix not in writers:
        raise InputError(f"{path}: neither .json nor .csv", hint="end its name in one of them")
    write_bytes(path, writers[path.suffix](results).encode())


def as_json(results: Sequence[Result]) -> str:
    """The documents with their numbers."""
    return json.dumps([{"id": one.id, **one.page} for one in results], indent=1) + "\n"


def as_csv(results: Sequence[Result]) -> str:
    """What can be searched for, the metrics, the marks and the versions; RFC 4180."""
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(["id", "job", *COLUMNS, *MEASURED, "marks", "versions"])
    for one in results:
        figures = [one.value(metric) for metric in MEASURED]
        versions = " ".join(f"{name} {text}" for name, text in one.page["versions"].items())
        texts = [one.job, *(str(getattr(one, name)) for name in COLUMNS)]
        marks = "; ".join(one.page["marks"])
        numbers = ["" if x is None else x for x in figures]
        rows.writerow([one.id, *map(_cell, texts), *numbers, _cell(marks), _cell(versions)])
    return out.getvalue()


def _cell(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) else text
