"""Labels from a file: one a sample, by the samples' file names or in the order of these.

Lines, CSV, TSV, JSON lines, a `.npy` array, or COCO JSON. All of it comes from outside: what does
not fit is refused with its file, line and sample.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from edgec.errors import InputError
from edgec.runtime.reading import content

MOST_BYTES = 1 << 30
MOST_CLASSES = 1 << 31
TABLES = {".csv": ",", ".tsv": "\t"}
HINT = "one label a line in the order of the files' names, or file,label, or JSON lines (.jsonl)"


class Wants(Enum):
    """What a metric takes as the label of one sample."""

    CLASSES = "a whole number from 0"
    NUMBERS = "a number"
    TEXTS = "a text"
    PICTURES = "the objects of a picture"
    ANY = "a number or a text"


@dataclass(frozen=True)
class Label:
    """A label, and where it stands, for errors."""

    value: Any
    where: str


@dataclass(frozen=True)
class Labels:
    """One label a sample, in the order of the samples."""

    given: tuple[Label, ...]

    @property
    def values(self) -> list[Any]:
        """The labels alone."""
        return [one.value for one in self.given]

    def wrong(self, index: int, why: str, hint: str) -> InputError:
        """The error of one sample's label."""
        return InputError(f"{self.given[index].where}: {why}", hint=hint)


NO_LABELS = Labels(())


@dataclass(frozen=True)
class Row:
    """A label as a file has it; `name`: of the sample's file, empty where the file names none."""

    name: str
    value: Any
    where: str


@dataclass(frozen=True)
class Sheet:
    """The labels of one file: `by_file`, as the samples' files stand, or else `in_order`."""

    path: Path
    files: tuple[str, ...]
    by_file: tuple[tuple[Label, ...], ...]
    in_order: tuple[Label, ...]

    def spread(self, counts: Sequence[int]) -> Labels:
        """One label a sample; `counts`: how many samples each file holds."""
        if not self.by_file:
            if len(self.in_order) != sum(counts):
                raise InputError(
                    f"{self.path}: {len(self.in_order)} labels for {sum(counts)} samples",
                    hint="give one label a sample, or name the samples' files: file,label",
                )
            return Labels(self.in_order)
        for name, labels, count in zip(self.files, self.by_file, counts, strict=True):
            if len(labels) != count:
                raise InputError(
                    f"{labels[-1].where}: {len(labels)} labels for {name}, which holds {count} "
                    f"sample{'s' * (count > 1)}",
                    hint="name a file once for each of its samples, in their order",
                )
        return Labels(tuple(label for labels in self.by_file for label in labels))


def read(path: Path, wants: Wants, files: Sequence[Path]) -> Sheet:
    """The labels in `path` for the samples in `files`; labels of other files are left out.

    Raises InputError naming file and line: not readable, not what the metric wants, a sample
    without a label.
    """
    if wants is Wants.PICTURES:
        from edgec.metrics import coco

        return match(path, coco.read(path), files)
    if path.suffix == ".json":
        raise InputError(f"{path}: JSON as a whole is COCO's, for the metric map", hint=HINT)
    rows = _array(path) if path.suffix == ".npy" else _rows(path, wants)
    if wants is Wants.ANY:
        wants = Wants.NUMBERS if _all_numbers(rows) else Wants.TEXTS
    return match(path, [Row(r.name, _value(r, wants), r.where) for r in rows], files)


def match(path: Path, rows: Sequence[Row], files: Sequence[Path]) -> Sheet:
    """Rows to files, by the whole name or by the name without its ending, if none has the whole."""
    named = [row for row in rows if row.name]
    if not named:
        return Sheet(path, (), (), tuple(Label(row.value, row.where) for row in rows))
    if len(named) < len(rows):
        row = next(row for row in rows if not row.name)
        raise InputError(f"{row.where}: names no file, others do", hint=HINT)
    twice = [name for name, often in Counter(file.name for file in files).items() if often > 1]
    if twice:
        raise InputError(
            f"{path}: two samples are called {twice[0]}",
            hint="give labels without names, in the order of the samples",
        )
    whole: dict[str, list[Row]] = {}
    stems: dict[str, list[Row]] = {}
    for row in rows:
        base = _base(row.name)
        whole.setdefault(base, []).append(row)
        stems.setdefault(Path(base).stem, []).append(row)
    alike = Counter(file.stem for file in files)
    found = []
    for file in files:
        own = whole.get(file.name) or (stems.get(file.stem, []) if alike[file.stem] == 1 else [])
        if not own:
            raise _missing(path, file, rows, files)
        if len({row.name for row in own}) > 1:
            raise InputError(
                f"{own[1].where}: {own[0].name!r} and {own[1].name!r} may both mean {file.name}",
                hint="write the samples' file names as they are",
            )
        found.append(tuple(Label(row.value, row.where) for row in own))
    return Sheet(path, tuple(file.name for file in files), tuple(found), ())


def _base(name: str) -> str:
    """A file's name without its folders, as either system writes them."""
    return name.replace("\\", "/").rpartition("/")[2]


def _missing(path: Path, file: Path, rows: Sequence[Row], files: Sequence[Path]) -> InputError:
    known = {name for one in files for name in (one.name, one.stem)}
    strange = next((r for r in rows if not known & {_base(r.name), Path(_base(r.name)).stem}), None)
    more = f"; {strange.where}: {strange.name!r} is no sample" if strange else ""
    return InputError(f"{path}: no label for {file.name}{more}", hint=HINT)


def _array(path: Path) -> list[Row]:
    """A `.npy` array, mapped: so its header cannot promise more than the file holds."""
    hint = "write it with numpy.save: one number or text a sample"
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, OverflowError, BadZipFile) as error:
        raise InputError(f"{path}: not readable as labels: {error}", hint=hint) from error
    if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype.kind not in "biufU":
        shape = f"{array.dtype}{list(array.shape)}" if isinstance(array, np.ndarray) else "a zip"
        raise InputError(f"{path}: {shape} is not one label a sample", hint=hint)
    return [Row("", value, f"{path}, row {i}") for i, value in enumerate(array.tolist())]


def _rows(path: Path, wants: Wants) -> list[Row]:
    text = decoded(path).removesuffix("\n")
    if path.suffix == ".jsonl":
        return list(_json_lines(path, text))
    if path.suffix in TABLES:
        return list(_table(path, text, TABLES[path.suffix]))
    lines = [Row("", line, f"{path}, line {i}") for i, line in enumerate(text.split("\n"), 1)]
    if wants is Wants.TEXTS:  # in which a comma is a comma
        return lines
    try:
        rows = list(_table(path, text, ","))
    except InputError:
        if wants is not Wants.ANY:
            raise
        return lines
    return lines if wants is Wants.ANY and not _all_numbers(rows) else rows


def decoded(path: Path) -> str:
    """The text of a file. Raises InputError: not readable, too large, not UTF-8."""
    data = content(path, str(path), MOST_BYTES)
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not UTF-8 at byte {error.start}", hint="save the text as UTF-8"
        ) from error


def _table(path: Path, text: str, separator: str) -> Iterable[Row]:
    """One cell a line, or two: file and label. A first line that begins with `file` is a head."""
    table = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        for index, cells in enumerate(table):
            where = f"{path}, line {table.line_num}"
            if not cells or (index == 0 and cells[0].strip().lower() == "file"):
                continue
            if len(cells) > 2:
                raise InputError(
                    f"{where}: {len(cells)} columns",
                    hint="write file and label; a text with the separator goes into quotes",
                )
            yield Row(cells[0].strip() if len(cells) == 2 else "", cells[-1], where)
    except csv.Error as error:
        raise InputError(
            f"{path}, line {table.line_num}: {error}", hint="is every quote closed?"
        ) from error


def _json_lines(path: Path, text: str) -> Iterable[Row]:
    """Objects {"file": …, "label": …}; `text` serves where there is no label."""
    hint = 'write {"file": "a.npz", "label": …}, an object a line'
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        page = parsed(line, where, hint)
        keys = [key for key in ("label", "text") if isinstance(page, dict) and key in page]
        if not keys or not isinstance(page.get("file", ""), str):
            raise InputError(f"{where}: no object with a label", hint=hint)
        yield Row(page.get("file", ""), page[keys[0]], where)


def parsed(text: str, where: str, hint: str) -> Any:
    """JSON. Raises InputError with `where` and what is wrong."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON: {str(error)[:200]}", hint=hint) from error


def _all_numbers(rows: Sequence[Row]) -> bool:
    return all(_number(row.value) is not None for row in rows)


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _value(row: Row, wants: Wants) -> Any:
    """A cell as what a metric wants. Raises InputError with its place."""
    if wants is Wants.TEXTS:
        if isinstance(row.value, str):
            return row.value
    else:
        number = _number(row.value)
        if number is not None and math.isfinite(number):
            if wants is Wants.NUMBERS:
                return number
            if number.is_integer() and 0 <= number < MOST_CLASSES:
                return int(number)
    raise InputError(f"{row.where}: {repr(row.value)[:80]} is not {wants.value}", hint=HINT)
