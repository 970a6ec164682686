"""One pass over the data: every sample is read or prepared, looked at, and let go.

Memory holds a sketch of each sample. What cannot be read becomes a finding instead of an end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgec import samples as data
from edgec import sources
from edgec.audit.finding import Finding, warning
from edgec.audit.sketch import Sight, look
from edgec.binding import Bound
from edgec.errors import InputError
from edgec.inputs import Input
from edgec.reference import RunError
from edgec.rows import spread
from edgec.runtime import npz
from edgec.runtime.recipe import Recipe
from edgec.types import Feeds

MASK = "mask"  # of an input's name
NUMBER = re.compile(r"(?<![\w./'-])-?\d+")  # no part of a name
Read = Callable[[], tuple[Feeds, Path | None]]


class MissingError(InputError):
    """A sample without an array for some input."""


@dataclass(frozen=True)
class Sample:
    """What is remembered of a sample: its name, and a sight of each input."""

    name: str
    sights: Mapping[str, Sight]


@dataclass(frozen=True)
class Survey:
    """The readable samples, in order, and the findings about the others.

    `files`: by the sample's name, `.npz` files of those that a build would read; the model runs on
    them. `total` counts the others too.
    """

    total: int
    samples: tuple[Sample, ...]
    files: tuple[tuple[str, Path], ...]
    refused: tuple[Finding, ...]


def is_mask(need: Input) -> bool:
    """Whether an input is a mask, by its name and rank."""
    return MASK in need.name.lower() and need.shape is not None and len(need.shape) == 2


def survey(source: Path, needs: Sequence[Input], most: int, recipe: Bound, into: Path) -> Survey:
    """Look at all samples in `source`; prepared ones go into the empty folder `into`, at most
    `most` of them, evenly.

    Raises InputError where `source` as a whole cannot be read.
    """
    complaints = Complaints()
    masks = {need.name for need in needs if is_mask(need)}
    seen, files, total = [], [], 0
    for name, read in _readers(source, needs, most, recipe, into, complaints):
        total += 1
        try:
            feeds, path = read()
        except InputError as error:
            complaints(name, error)
            continue
        seen.append(Sample(name, {n: look(a, mask=n in masks) for n, a in feeds.items()}))
        if path is not None:
            files.append((name, path))
    total += complaints.count - (total - len(seen))  # those that were refused unread
    return Survey(total, tuple(seen), tuple(files), complaints.findings())


def _readers(
    source: Path,
    needs: Sequence[Input],
    most: int,
    recipe: Bound,
    into: Path,
    complaints: Complaints,
) -> list[tuple[str, Read]]:
    """For each sample its name, and what reads it: its arrays, and the file if it is kept."""
    if recipe.readers:
        rows = sources.rows(source, recipe.readers, complaints)
        if rows or complaints.count:
            kept = {id(row) for row in spread(rows, most)}
            opened = recipe.open()
            places = [into / f"{i:06}" if id(row) in kept else None for i, row in enumerate(rows)]
            return [
                (_name(row, source), partial(_prepare, row, opened, needs, place))
                for row, place in zip(rows, places, strict=True)
            ]
    paths = data.arrays(source, needs)
    chosen = set(spread(paths, most))
    return [(path.name, partial(_load, path, needs, keep=path in chosen)) for path in paths]


def _name(row: sources.Row, source: Path) -> str:
    """A file by its path below the folder, because names may repeat in subfolders."""
    return Path(row.where).relative_to(source).as_posix() if source.is_dir() else row.name


def _prepare(
    row: sources.Row, recipe: Recipe, needs: Sequence[Input], place: Path | None
) -> tuple[Feeds, Path | None]:
    feeds = recipe.prepare(row.items, row.labels)
    data.check_all(row.where, feeds, needs)
    if place is None:
        return feeds, None
    place.mkdir(parents=True)
    npz.write(place / row.name, feeds)
    return feeds, place / row.name


def _load(path: Path, needs: Sequence[Input], *, keep: bool) -> tuple[Feeds, Path | None]:
    feeds = npz.read(path, str(path))
    absent = [need.name for need in needs if need.name not in feeds]
    if absent:
        raise MissingError(
            f"{path}: holds no {', '.join(absent)}",
            hint="write an array for every input of the model: "
            + ", ".join(need.name for need in needs),
        )
    data.check_all(str(path), feeds, needs)
    return feeds, path if keep else None


class Complaints:
    """Collects refused samples; those that are refused for one reason are one finding."""

    def __init__(self) -> None:
        self.count = 0
        self._found: dict[tuple[str, str, str], tuple[str, list[str]]] = {}

    def __call__(self, name: str, error: InputError) -> None:
        """Take note of a sample. Messages begin with its file or line, which the name repeats."""
        self.count += 1
        check = "unreadable"
        if isinstance(error, MissingError):
            check = "missing"
        elif isinstance(error, sources.UnpairedError):
            check = "unpaired"
        elif isinstance(error, RunError):
            check = "run"
        place = re.escape(re.sub(r":(\d+)$", r", line \1", name))
        message = re.sub(rf"^(.*?/)?{place}[:,] ", "", error.message, flags=re.DOTALL)
        if check == "unpaired":  # each message names the file that it misses: one finding for all
            message = "no file of the same name beside it for each reader of the recipe"
        # an index, say, differs from sample to sample: the first one's stands for all
        reason = NUMBER.sub("", message) if check == "run" else message
        self._found.setdefault((check, reason, error.hint), (message, []))[1].append(name)

    def findings(self) -> tuple[Finding, ...]:
        """One warning for each reason."""
        return tuple(
            warning(check, message, tuple(names), hint=hint)
            for (check, _, hint), (message, names) in self._found.items()
        )
