"""Stage 6: what values of the float graph look like on samples, once for every target.

Statistics grow: what is known is kept, new samples are added to it, and values that a plan needs
and nobody has watched yet are watched on all samples. An interrupted calibration goes on from its
last checkpoint and ends with the same numbers. See `edgec.observe` for how a pass watches, and
`edgec.statistics_file` for the file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from edgec import statistics_file
from edgec.errors import InputError, InternalError, ToolchainError, UnsupportedError
from edgec.graphs import save
from edgec.instrument import instrument, measure, rank
from edgec.isolate import OverLimit, call
from edgec.lineage import lineages
from edgec.native import histogram_library
from edgec.observe import Checkpoint, Pass, Watch, run, tensor_bytes
from edgec.outputs import check_file
from edgec.rows import Row, without
from edgec.types import Effort, Graph, Placement, Statistics, ValueStatistics

AT_ONCE = 64 << 20  # bytes of tensors that numpy counts at once, where there is no native code
LIMIT = 12 * 3600.0  # seconds of one pass
CHECKPOINT = 2.0  # seconds


@dataclass(frozen=True)
class Means:
    """How a calibration works. `max_ram`: bytes that its process may take; 0: most of what is here.

    `native`: whether histograms may be counted by compiled code. `checkpoint`: seconds between two.
    """

    threads: int = 1
    max_ram: int = 0
    native: bool = True
    checkpoint: float = CHECKPOINT


class Calibration:
    """The statistics of one graph, which grow by samples and as plans ask for values.

    `file`: where they are kept, with a checkpoint beside it while a pass runs; None: nowhere.
    """

    def __init__(
        self,
        graph: Graph,
        samples: Sequence[Row],
        means: Means,
        file: Path | None = None,
    ) -> None:
        """Raises InputError for a file that cannot be used, that belongs to another model, or
        whose folder cannot be written. `dropped` says which values of it this graph does not have.
        """
        self.graph, self._means = graph, means
        self._rows, self._file = list(samples), file
        self._lineages: dict[str, str] = {}
        self.statistics = Statistics()
        self.efforts: list[Effort] = []
        self.dropped = ""
        if file is not None:
            check_file(file)
            self._lineages = lineages(graph)
            if file.exists():
                self.statistics = statistics_file.read(file, self._lineages)
                self.dropped = _dropped(file, self._lineages)

    @property
    def effort(self) -> Effort:
        """What all passes took together."""
        if not self.efforts:
            return Effort()
        return Effort(
            runs=sum(one.runs for one in self.efforts),
            seconds=sum(one.seconds for one in self.efforts),
            cpu_seconds=sum(one.cpu_seconds for one in self.efforts),
            peak_bytes=max(one.peak_bytes for one in self.efforts),
            counter=self.efforts[-1].counter,
        )

    def observe(self, need: Placement) -> Statistics:
        """Statistics of at least the values of `need`, on all samples.

        Raises InputError where samples that the file has seen are gone; UnsupportedError where
        `max_ram` does not suffice.
        """
        if not self._rows and not self.statistics.samples:
            return self.statistics
        known = self.statistics
        new = without(self._rows, known.samples)
        missing = _missing(self.graph, need, known)
        order = self._in_order(missing) if missing.names else []
        if new and known.values:
            self._extend(known, _all(known), new)
        if order:
            self._extend(Statistics(), missing, order)
        return self.statistics

    def _in_order(self, missing: Watch) -> list[Row]:
        """The samples in the order in which the known values saw them."""
        seen = self.statistics.samples
        new = without(self._rows, seen)
        old = {row.digest: row for row in self._rows}
        lost = [digest for digest in seen if digest not in old]
        if lost and (self.statistics.values or not self._rows):
            raise InputError(
                f"{self._file}: {len(lost)} of its {len(seen)} samples are not among the data, and "
                f"{len(missing.names)} values, such as {missing.names[0]!r}, have not seen them",
                hint="give the same data, or let edgec write a new file",
            )
        return [old[digest] for digest in seen if digest in old] + new

    def _extend(self, start: Statistics, watch: Watch, todo: Sequence[Row]) -> None:
        """Run a pass that watches `watch` on `todo`, and keep what it sees."""
        own = {name: start.values[name] for name in watch.names if name in start.values}
        begin = Statistics(own, start.samples)
        with tempfile.TemporaryDirectory(prefix="edgec-calibrate-") as temporary:
            folder = Path(temporary)
            try:
                library = histogram_library(folder, wanted=self._means.native)
                seen, effort = self._passed(watch, library, begin, todo, folder)
            except ToolchainError as error:
                seen, effort = self._passed(watch, None, begin, todo, folder)
                effort = replace(effort, counter=f"numpy ({error.message})")
        self.efforts.append(effort)
        values = dict(self.statistics.values)
        for name, one in seen.values.items():
            values[name] = _merged(values.get(name, ValueStatistics()), one)
        self.statistics = Statistics(values, seen.samples)
        if self._file is not None:
            statistics_file.write(self._file, self.statistics, self._lineages)
            self._partial.unlink(missing_ok=True)

    def _passed(
        self,
        watch: Watch,
        library: Path | None,
        start: Statistics,
        todo: Sequence[Row],
        folder: Path,
    ) -> tuple[Statistics, Effort]:
        """A pass. Raises ToolchainError where the library is of no use here."""
        parts = [watch] if library else self._portions(watch, todo[0], folder)
        models = tuple(
            (self._instrumented(part, watch, folder / f"watched_{i}.onnx", library), part)
            for i, part in enumerate(parts)
        )
        return self._within_limit(models, watch, library, start, todo)

    def _instrumented(self, part: Watch, watch: Watch, path: Path, library: Path | None) -> Path:
        model = self.graph.model.clone()
        instrument(model, part, watch, native=library is not None)
        save(model, path, external=True)
        return path

    def _within_limit(
        self,
        models: tuple[tuple[Path, Watch], ...],
        watch: Watch,
        library: Path | None,
        start: Statistics,
        todo: Sequence[Row],
    ) -> tuple[Statistics, Effort]:
        """Run a pass, with fewer samples at once where memory does not suffice."""
        limit, streams = self._means.max_ram, max(1, min(self._means.threads, len(todo)))
        checkpoint = None
        if self._file is not None:
            checkpoint = Checkpoint(self._partial, self._lineages, self._means.checkpoint)
        while True:
            begin, left = self._resume(start, watch, todo)
            one = Pass(models, watch, library, tuple(left), streams, checkpoint)
            try:
                found: tuple[Statistics, Effort] = call(
                    run, one, begin, seconds=LIMIT, memory=limit, fresh=True
                )
                if limit and found[1].peak_bytes > limit:
                    raise OverLimit(f"it took {found[1].peak_bytes / 1e6:.0f} MB", hint="")
            except OverLimit as error:
                if streams == 1:
                    raise self._too_little(error) from error
                streams = 1
            else:
                return found

    def _too_little(self, error: OverLimit) -> UnsupportedError:
        limit = self._means.max_ram
        given = f"--max-ram {limit / 1e6:.0f} MB" if limit else "the memory of this machine"
        return UnsupportedError(
            f"{given} does not suffice: {error.message}",
            hint="allow more, or calibrate smaller samples",
        )

    @property
    def _partial(self) -> Path:
        if self._file is None:
            raise InternalError("statistics without a file have no checkpoint")
        return self._file.with_name(self._file.name + ".partial")

    def _resume(
        self, start: Statistics, watch: Watch, todo: Sequence[Row]
    ) -> tuple[Statistics, Sequence[Row]]:
        """The state of an interrupted pass that was just this one, and what is left of it."""
        if self._file is None or not self._partial.is_file():
            return start, todo
        try:
            found = statistics_file.read(self._partial, self._lineages)
        except InputError:  # of another version, say: a pass from its start is right as well
            return start, todo
        order = (*start.samples, *(row.digest for row in todo))
        done = len(found.samples)
        fits = found.samples == order[:done] and done > len(start.samples)
        if not fits or _all(found) != watch:
            return start, todo
        return found, todo[done - len(start.samples) :]

    def _portions(self, watch: Watch, row: Row, folder: Path) -> list[Watch]:
        """What numpy watches, in portions whose tensors do not take too much memory at once."""
        path = folder / "sizes.onnx"
        model = self.graph.model.clone()
        measure(model, watch)
        save(model, path)
        try:
            sizes = call(tensor_bytes, path, watch, row, memory=self._means.max_ram, fresh=True)
        except OverLimit as error:
            raise self._too_little(error) from error
        most = min(AT_ONCE, self._means.max_ram // 4 or AT_ONCE) / max(1, self._means.threads)
        portions: list[list[str]] = [[]]
        filled = 0
        for name in watch.values:
            if portions[-1] and filled + sizes[name] > most:
                portions.append([])
                filled = 0
            portions[-1].append(name)
            filled += sizes[name]
        first, *others = (Watch(tuple(names), (), ()) for names in portions)
        return [replace(first, means=watch.means, extents=watch.extents), *others]


def _dropped(file: Path, known: Mapping[str, str]) -> str:
    """What is lost of a file's values when it is extended, in words; InputError if it is all."""
    lost, every = statistics_file.strangers(file, known)
    if every and lost == every:
        raise InputError(
            f"{file}: none of its {every} values is one of this model's, as it is now",
            hint="choose another file, or remove this one if the model has changed",
        )
    return f"{file}: {lost} of {every} values depend on what has changed in the model" * bool(lost)


def _missing(graph: Graph, need: Placement, known: Statistics) -> Watch:
    """What `need` asks for and `known` does not have."""
    values = ir.convenience.create_value_mapping(graph.model.graph, include_subgraphs=False)
    nothing = ValueStatistics()

    def lacking(names: Iterable[str], have: Callable[[ValueStatistics], object]) -> tuple[str, ...]:
        return tuple(n for n in sorted(names) if have(known.values.get(n, nothing)) is None)

    ranked = (
        frozenset(n for n in names if rank(values[n])) for names in (need.means, need.extents)
    )
    means, extents = ranked
    return Watch(
        lacking(need.values, lambda one: one.histogram),
        lacking(means, lambda one: one.channel_mean),
        lacking(extents, lambda one: one.channel_low),
    )


def _all(known: Statistics) -> Watch:
    """All that is known, to be watched on further samples."""
    rows = sorted(known.values.items())
    return Watch(
        tuple(name for name, one in rows if one.histogram is not None),
        tuple(name for name, one in rows if one.channel_mean is not None),
        tuple(name for name, one in rows if one.channel_low is not None),
    )


def _merged(old: ValueStatistics, new: ValueStatistics) -> ValueStatistics:
    """What is known of a value after another pass, which may have watched something else of it."""
    base = old if new.histogram is None else new
    return replace(
        base,
        channel_mean=old.channel_mean if new.channel_mean is None else new.channel_mean,
        channel_seen=old.channel_seen if new.channel_seen is None else new.channel_seen,
        channel_low=old.channel_low if new.channel_low is None else new.channel_low,
        channel_high=old.channel_high if new.channel_high is None else new.channel_high,
    )
