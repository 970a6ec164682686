"""One pass over samples, in a process of its own that holds little else: what is kept of each run.

The graph watches itself (`edgec.instrument`): extremes and means are reduced inside it, histograms
are counted where the tensors are, by the custom op of `edgec.native`; or the tensors come out and
numpy counts, with the same result. So a sample costs little more than its inference, and memory
does not depend on how many there are.
Several samples run at once, each on one thread: so no core waits for a reduction, and the numbers
do not depend on how many threads there are. Averages are taken in the order of the samples.
"""

from __future__ import annotations

import ctypes
import os
import resource
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from threading import Lock

import numpy as np

from edgec import statistics_file
from edgec.errors import ToolchainError
from edgec.histogram import BINS, EMPTY, FINEST, count, merge, trimmed
from edgec.isolate import peak
from edgec.reference import Reference, RunError
from edgec.rows import Row, stream
from edgec.types import Effort, Feeds, Histogram, Statistics, ValueStatistics

AHEAD = 2  # samples per stream between two barriers
BROKEN = ("FastGeluFusion",)  # it removes values that the custom op still reads
SEEN, MEAN, SIZE = "/edgec_seen", "/edgec_mean", "/edgec_size"
LOWS, HIGHS, NANS = "/edgec_lows", "/edgec_highs", "/edgec_nans"


@dataclass(frozen=True)
class Watch:
    """What is to be seen of the values of a graph, by name: see `Placement`."""

    values: tuple[str, ...]
    means: tuple[str, ...]
    extents: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All values of which something is to be seen, in order."""
        return tuple(sorted({*self.values, *self.means, *self.extents}))


@dataclass(frozen=True)
class Checkpoint:
    """Where the state of a pass is written every so many seconds; `lineages` by value name."""

    path: Path
    lineages: Mapping[str, str]
    seconds: float


@dataclass(frozen=True)
class Pass:
    """Graphs with observers (see `instrument`), and the samples that are still to run.

    `models`: files with what they watch, each run on every sample; together they watch all of
    `watch`. `custom_op`: its shared library, or None where numpy counts. `streams`: samples at
    once.
    """

    models: tuple[tuple[Path, Watch], ...]
    watch: Watch
    custom_op: Path | None
    rows: tuple[Row, ...]
    streams: int
    checkpoint: Checkpoint | None


def run(one: Pass, start: Statistics) -> tuple[Statistics, Effort]:
    """The statistics in `start` and of the samples of a pass. Runs in a process of its own.

    Raises ToolchainError where the library does not load, RunError for a sample that the model
    does not run on.
    """
    begin = time.monotonic()
    _share_one_heap()
    counter = Slots(one, start, one.custom_op) if one.custom_op else Arrays(one, start)
    sessions = [(Reference(path, 1, one.custom_op, BROKEN), watch) for path, watch in one.models]
    values = dict(start.values)
    done, saved = list(start.samples), time.monotonic()

    def state() -> Statistics:
        known = {
            name: replace(values[name], histogram=counter.histogram(name))
            if name in one.watch.values
            else values[name]
            for name in sorted(values)
        }
        return Statistics(known, tuple(done))

    def look(sample: tuple[Row, Feeds]) -> tuple[str, Feeds]:
        row, feeds = sample
        found: Feeds = {}
        for session, watch in sessions:
            found |= counter.look(watch, {**feeds, **_outputs(session, row, feeds)})
        return row.digest, found

    with ThreadPoolExecutor(one.streams) as pool:
        for chunk in _chunks(stream(one.rows), AHEAD * one.streams):
            for digest, found in pool.map(look, chunk):
                done.append(digest)
                _add(values, one.watch, found)
            if one.checkpoint and time.monotonic() - saved >= one.checkpoint.seconds:
                statistics_file.write(one.checkpoint.path, state(), one.checkpoint.lineages)
                saved = time.monotonic()
    return state(), _effort(one, time.monotonic() - begin)


def _share_one_heap() -> None:
    """Let glibc's threads reuse what loading the model has freed: 70 MB less on ResNet-50."""
    limit_arenas = getattr(ctypes.CDLL(None), "mallopt", None)
    if limit_arenas is not None:
        limit_arenas(-8, 1)  # M_ARENA_MAX


def _outputs(session: Reference, row: Row, feeds: Feeds) -> Feeds:
    try:
        return session.run_sample(feeds)
    except RunError as error:
        raise RunError(f"{row.path.name}: {error.message}", hint=error.hint) from error


class Slots:
    """Histograms that the native op counts, in arrays that it is given."""

    def __init__(self, one: Pass, start: Statistics, library: Path) -> None:
        self._slots = {name: slot for slot, name in enumerate(one.watch.values)}
        size = max(1, len(self._slots))
        self._counts = np.zeros((size, 2 * BINS), np.int64)
        self._exponents = np.full(size, FINEST, np.int32)
        for name, slot in self._slots.items():
            known = start.values[name].histogram if name in start.values else None
            if known is not None and len(known.counts):
                first = known.first + BINS
                self._counts[slot, first : first + len(known.counts)] = known.counts
                self._exponents[slot] = known.exponent
        try:
            slots = ctypes.CDLL(str(library)).edgec_slots
        except (OSError, AttributeError) as error:  # for another machine, or a folder without exec
            raise ToolchainError(
                f"the compiled histogram.c does not load: {error}",
                hint="histograms are counted by numpy, more slowly; see CC",
            ) from error
        slots.restype = None
        slots.argtypes = [ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p]
        slots(size, self._counts.ctypes.data, self._exponents.ctypes.data)

    def look(self, watch: Watch, outputs: Feeds) -> Feeds:
        """What a run gave, as it is: the rest is in the arrays by now."""
        return outputs

    def histogram(self, name: str) -> Histogram:
        """What was counted so far; no run may be under way."""
        slot = self._slots[name]
        return trimmed(int(self._exponents[slot]), self._counts[slot])


class Arrays:
    """Histograms counted by numpy, from whole tensors."""

    def __init__(self, one: Pass, start: Statistics) -> None:
        self._merging = Lock()
        self._histograms = {
            name: start.values[name].histogram or EMPTY if name in start.values else EMPTY
            for name in one.watch.values
        }

    def look(self, watch: Watch, outputs: Feeds) -> Feeds:
        """What the native op would have given."""
        found = {name: outputs[name] for name in _vectors(watch)}
        for name in watch.extents:
            found[name + LOWS] = np.where(outputs[name + NANS] > 0, np.nan, found[name + LOWS])
        for name in watch.values:
            array = np.asarray(outputs[name], np.float32)
            finite = array[np.isfinite(array)] if not np.isfinite(array).all() else array
            nans = int(np.isnan(array).sum()) if finite is not array else 0
            own = count(finite)
            with self._merging:
                self._histograms[name] = merge(self._histograms[name], own)
            low, high = (finite.min(), finite.max()) if finite.size else (np.inf, -np.inf)
            others = array.size - finite.size - nans
            # + 0.0: no negative zero
            found[name + SEEN] = np.array([low + 0.0, high + 0.0, nans, others], np.float32)
        return found

    def histogram(self, name: str) -> Histogram:
        """What was counted so far."""
        return self._histograms[name]


def _add(values: dict[str, ValueStatistics], watch: Watch, found: Feeds) -> None:
    """One sample more: m' = m + (x - m) / n for averages, n with this sample."""
    for name in watch.values:
        old = values.get(name, ValueStatistics())
        low, high, nans, infinities = found[name + SEEN].astype(np.float64).tolist()
        old = replace(old, nans=old.nans + int(nans), infinities=old.infinities + int(infinities))
        if low <= high:
            seen = old.seen + 1
            old = replace(
                old,
                seen=seen,
                low=min(old.low, low),
                high=max(old.high, high),
                mean_low=old.mean_low + (low - old.mean_low) / seen,
                mean_high=old.mean_high + (high - old.mean_high) / seen,
            )
        values[name] = old
    for name in watch.means:
        old = values.get(name, ValueStatistics())
        mean = found[name + MEAN].astype(np.float64)
        sound = np.isfinite(mean) & (found[name + SIZE] > 0)  # of no numbers, it would be zero
        before, times = old.channel_mean, old.channel_seen
        if before is None or times is None:
            before, times = np.zeros(len(mean)), np.zeros(len(mean), np.int64)
        times = times + sound
        change = np.where(sound, mean - before, 0.0) / np.maximum(times, 1)
        values[name] = replace(old, channel_mean=before + change, channel_seen=times)
    for name in watch.extents:
        old = values.get(name, ValueStatistics())
        low, high = (found[name + what].astype(np.float64) for what in (LOWS, HIGHS))
        sound = np.isfinite(low) & np.isfinite(high)
        # + 0.0: no negative zero
        low, high = np.where(sound, low, 0.0) + 0.0, np.where(sound, high, 0.0) + 0.0
        if old.channel_low is not None and old.channel_high is not None:
            low, high = np.minimum(low, old.channel_low), np.maximum(high, old.channel_high)
        values[name] = replace(old, channel_low=low, channel_high=high)


def _effort(one: Pass, seconds: float) -> Effort:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return Effort(
        runs=len(one.rows),
        seconds=seconds,
        cpu_seconds=used.ru_utime + used.ru_stime,
        peak_bytes=peak(os.getpid()),
        counter="native code" if one.custom_op else "numpy",
    )


def _chunks(samples: Iterable[tuple[Row, Feeds]], size: int) -> Iterator[list[tuple[Row, Feeds]]]:
    source = iter(samples)
    while chunk := list(islice(source, size)):
        yield chunk


def _vectors(watch: Watch) -> list[str]:
    return [name + what for name in watch.means for what in (MEAN, SIZE)] + [
        name + what for name in watch.extents for what in (LOWS, HIGHS)
    ]


def tensor_bytes(path: Path, watch: Watch, row: Row) -> dict[str, int]:
    """Bytes of the watched values on one sample."""
    ((_, feeds),) = stream([row])
    found = Reference(path, 1).run(feeds)
    return {name: 4 * int(found[name + SIZE]) for name in watch.values}
