"""Where samples come from: folders of pictures, texts and sounds, lists of texts, CSV and JSONL.

Each becomes rows: for one sample, an item for each of the recipe's readers, and names for errors.
Nothing is decoded here.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgec.errors import InputError
from edgec.runtime.recipe import KINDS

MOST_BYTES = 1 << 30
TABLES = {".csv": ",", ".tsv": "\t"}
Readers = Mapping[str, Mapping[str, Any]]


class UnpairedError(InputError):
    """A sample that lacks the file of a reader."""


Complain = Callable[[str, InputError], None]  # takes a sample's name and what is wrong with it


def refuse(_: str, error: InputError) -> None:
    """Stop at the first sample that is not usable."""
    raise error


@dataclass(frozen=True)
class Row:
    """One sample: `items` and `labels` by reader; `name` is short, `where` the full place.

    Rows of one `group` share a file or a text, and must not be told apart by a split.
    """

    name: str
    where: str
    group: str
    items: Mapping[str, Any]
    labels: Mapping[str, str]


def rows(data: Path, readers: Readers, complain: Complain = refuse) -> list[Row]:
    """The samples in `data`, in order; empty for a folder without any of the readers' files.

    A folder: one file a sample, in subfolders too, or files of one name for several readers. A
    `.txt` file: a text a line. `.csv`, `.tsv`, `.jsonl`: a sample a line, a column for each reader.
    Raises InputError naming file, line and column; what concerns one sample alone goes to
    `complain`, and where that returns, the sample is left out.
    """
    taking = {name: spec for name, spec in readers.items() if "value" not in spec}
    if data.is_dir():
        return list(_folder(data, taking, complain))
    if not data.is_file():
        raise InputError(f"{data}: no such file or folder", hint="give a folder, or a .csv file")
    if data.suffix == ".txt":
        return list(_lines(data, taking))
    if data.suffix in TABLES or data.suffix == ".jsonl":
        read = _jsonl if data.suffix == ".jsonl" else _csv
        found = []
        for line, cells in read(data):
            try:
                found.append(_row(data, line, cells, taking))
            except InputError as error:
                complain(f"{data.name}:{line}", error)
        return found
    raise InputError(
        f"{data}: not a form of data that is known",
        hint="give a folder, or a file that ends in .csv, .tsv, .jsonl or .txt",
    )


def _folder(folder: Path, readers: Readers, complain: Complain) -> Iterator[Row]:
    kinds = [str(spec["kind"]) for spec in readers.values()]
    files = sorted(
        (path for path in folder.rglob("*") if path.is_file() and not _hidden(path, folder)),
        key=lambda path: path.relative_to(folder).as_posix(),
    )
    if len(set(kinds)) < len(kinds) or not all(KINDS[kind].suffixes for kind in kinds):
        takes = ", ".join(f"{name} ({spec['kind']})" for name, spec in readers.items())
        if all(path.suffix == ".npz" for path in files):
            return
        raise InputError(
            f"{folder}: a folder does not tell which file is for which of {takes}",
            hint="name them in a .csv or .jsonl file with a column for each",
        )
    together: dict[str, dict[str, Path]] = {}
    for path in files:
        for name, spec in readers.items():
            if path.suffix.lower() in KINDS[spec["kind"]].suffixes:
                stem = path.relative_to(folder).with_suffix("").as_posix()
                if len(readers) == 1:  # cat.png and cat.jpg are two samples
                    stem = path.relative_to(folder).as_posix()
                if name in together.setdefault(stem, {}):
                    error = InputError(
                        f"{path}: {together[stem][name].name} has the same name",
                        hint="one file of a kind for each sample",
                    )
                    complain(path.relative_to(folder).as_posix(), error)
                    continue
                together[stem][name] = path
    for stem, paths in together.items():
        first = next(iter(paths.values()))
        missing = [name for name in readers if name not in paths]
        if missing:
            lonely = UnpairedError(
                f"{first}: no file {Path(stem).name}"
                f"{KINDS[readers[missing[0]]['kind']].suffixes[0]} beside it for reader "
                f"{missing[0]!r}",
                hint="each sample needs a file for every reader, of the same name",
            )
            complain(first.relative_to(folder).as_posix(), lonely)
            continue
        yield Row(
            name=first.name,
            where=str(first),
            group=str(first),
            items={
                name: _text(path) if readers[name]["kind"] == "text" else path
                for name, path in paths.items()
            },
            labels={name: str(path) for name, path in paths.items()},
        )


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _lines(data: Path, readers: Readers) -> Iterator[Row]:
    if [spec["kind"] for spec in readers.values()] != ["text"]:
        raise InputError(
            f"{data}: lines of text, but the recipe reads {', '.join(readers)}",
            hint="give a folder, or a .csv or .jsonl file with a column for each",
        )
    (reader,) = readers
    for number, line in enumerate(_text(data).split("\n"), 1):
        if line.strip():
            where = f"{data}, line {number}"
            yield Row(f"{data.name}:{number}", where, line, {reader: line}, {reader: where})


def _text(path: Path) -> str:
    """A file's text without the line end at its end."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path}: more than {MOST_BYTES >> 20} MB", hint="split it")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not UTF-8 at byte {error.start}", hint="save the text as UTF-8"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", hint="check the permissions") from error
    return text.rstrip("\r\n")


def _csv(data: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = io.StringIO(_text(data), newline="")
    table = csv.reader(lines, delimiter=TABLES[data.suffix], strict=True)
    try:
        heads = next(table, [])
        if len(set(heads)) < len(heads):
            raise InputError(
                f"{data}: two columns are called {next(h for h in heads if heads.count(h) > 1)!r}",
                hint="rename one",
            )
        last = table.line_num
        for cells in table:  # a text in quotes may have several lines
            line, last = last + 1, table.line_num
            if cells and len(cells) != len(heads):
                raise InputError(
                    f"{data}, line {line}: {len(cells)} columns, the first line has {len(heads)}",
                    hint='put texts that contain the separator or a line end into "quotes"',
                )
            if cells:
                yield line, dict(zip(heads, cells, strict=True))
    except csv.Error as error:
        raise InputError(
            f"{data}, line {table.line_num}: {error}", hint="is every quote closed?"
        ) from error


def _jsonl(data: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(_text(data).split("\n"), 1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{data}, line {number}: not JSON: {error}", hint="one object a line"
            ) from error
        if not isinstance(cells, dict):
            raise InputError(f"{data}, line {number}: not an object", hint="one object a line")
        yield number, cells


def _row(data: Path, line: int, cells: Mapping[str, Any], readers: Readers) -> Row:
    items: dict[str, Any] = {}
    labels = {}
    for name, spec in readers.items():
        column = spec["column"]
        where = f"{data}, line {line}, column {column!r}"
        if column not in cells:
            raise InputError(
                f"{where}: missing; there are {', '.join(map(repr, cells)) or 'none'}",
                hint=f'rename it, or set column = "…" under [readers.{name}]',
            )
        items[name], labels[name] = cells[column], where
        if KINDS[spec["kind"]].suffixes and not isinstance(cells[column], str):
            raise InputError(f"{where}: not a text", hint="give a file's name, or a text")
        if KINDS[spec["kind"]].suffixes and spec["kind"] != "text":
            items[name] = _inside(data, cells[column], where)
            labels[name] = f"{where}: {cells[column]}"
    files = [str(item) for item in items.values() if isinstance(item, Path)]
    return Row(
        name=f"{data.name}:{line}",
        where=f"{data}, line {line}",
        group=files[0] if files else str(next(iter(items.values()), line)),
        items=items,
        labels=labels,
    )


def _inside(data: Path, name: str, where: str) -> Path:
    """A file that a table names; none outside of the table's own folder."""
    folder = data.parent.resolve()
    try:
        path = (folder / name).resolve()
        inside = name.strip() != "" and path.is_relative_to(folder)
        there = inside and path.is_file()
    except (OSError, ValueError, RuntimeError):  # a zero byte, a name too long, a loop of links
        inside, there = True, False
    if not inside:
        raise InputError(
            f"{where}: {name!r} is no path inside {data.parent}",
            hint="put the files below the table's folder, and give paths relative to it",
        )
    if not there:
        raise InputError(f"{where}: no file {name!r}", hint="paths are relative to the table")
    return path
