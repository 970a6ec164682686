"""Statistics as a file: what calibration saw, to be used for other targets and on other days.

An uncompressed `.npz` archive of three arrays, written byte for byte alike, read without pickle:

    header    uint8    UTF-8 JSON, see HEADER below
    counts    uint     the bins of all histograms, one after the other
    channels  float64  per channel means, how many samples they are of, lows, highs, in this order

A value is found by its lineage (`edgec.lineage`); its name is there for people, and tells values
of one lineage apart. `samples` are the hashes of the samples that all values have seen. The bins
of a histogram are `first`, `first` + 1, …; `edgec.types.Histogram` says which numbers they hold.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgec.errors import InputError
from edgec.histogram import BINS, COARSEST, FINEST, bin_of
from edgec.runtime import npz
from edgec.runtime.reading import content, integer, number, several, table
from edgec.runtime.schema import first_error
from edgec.types import Histogram, Statistics, ValueStatistics

VERSION = 1
MOST_BYTES = 1 << 30
LONGEST = 4096  # characters of a name
_MOST = 1 << 53
_COUNT = integer(0, _MOST)
_HASH = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_LARGEST = float(np.finfo(np.float32).max)
_PAIR = several({"type": "number", "minimum": -_LARGEST, "maximum": _LARGEST}, 2, 2)
_HISTOGRAM = table(
    {
        "exponent": integer(FINEST, COARSEST),
        "first": integer(-BINS, BINS - 1),
        "bins": integer(0, 2 * BINS),
    }
)
# A value's range, histogram and averages; 0 channels: not asked for.
_VALUE = table(
    {
        "id": {"type": "string", "maxLength": LONGEST},
        "lineage": _HASH,
        "seen": _COUNT,
        "range": _PAIR,
        "mean_range": _PAIR,
        "nans": _COUNT,
        "infinities": _COUNT,
        "histogram": _HISTOGRAM,
        "mean_channels": integer(0, 1 << 24),
        "extreme_channels": integer(0, 1 << 24),
    },
    optional=["range", "mean_range", "histogram"],
)
HEADER = {
    **table(
        {
            "format": {"const": "edgec statistics"},
            "version": number(minimum=1),
            "samples": several(_HASH, 0, 1 << 24),
            "values": several(_VALUE, 0, 1 << 20),
        }
    ),
    "$defs": {},
}


def write(path: Path, statistics: Statistics, lineages: Mapping[str, str]) -> None:
    """Write statistics, complete or not at all. `lineages`: by value name."""
    rows, counts, channels = [], [], []
    for name, one in sorted(statistics.values.items()):
        row: dict[str, Any] = {
            "id": name[:LONGEST],
            "lineage": lineages[name],
            "seen": one.seen,
            "nans": one.nans,
            "infinities": one.infinities,
            "mean_channels": 0 if one.channel_mean is None else len(one.channel_mean),
            "extreme_channels": 0 if one.channel_low is None else len(one.channel_low),
        }
        if one.low <= one.high:
            row["range"] = [one.low, one.high]
            row["mean_range"] = [one.mean_low, one.mean_high]
        if one.histogram is not None:
            own = one.histogram
            row["histogram"] = {
                "exponent": own.exponent,
                "first": own.first,
                "bins": len(own.counts),
            }
            counts.append(own.counts)
        channels += [
            array
            for array in (one.channel_mean, one.channel_seen, one.channel_low, one.channel_high)
            if array is not None
        ]
        rows.append(row)
    header = {
        "format": "edgec statistics",
        "version": VERSION,
        "samples": list(statistics.samples),
        "values": rows,
    }
    bins = np.concatenate(counts) if counts else np.zeros(0, np.int64)
    arrays = {
        "header": np.frombuffer(json.dumps(header, allow_nan=False).encode(), np.uint8),
        "counts": bins.astype(np.min_scalar_type(int(bins.max(initial=0)))),
        "channels": np.concatenate([np.zeros(0), *channels]),
    }
    npz.write(path, arrays)


def read(path: Path, lineages: Mapping[str, str]) -> Statistics:
    """The statistics in `path` of those values that a graph has, by its own names.

    Raises InputError: not such a file, damaged, or of a newer version.
    """
    arrays = _arrays(path)
    header = _header(path, arrays["header"])
    values = list(_values(path, header, arrays["counts"], arrays["channels"]))
    own = {name: one for name, digest, one in values if lineages.get(name) == digest}
    renamed = {digest: one for name, digest, one in values if name not in own}
    others = {name: renamed[digest] for name, digest in lineages.items() if digest in renamed}
    return Statistics({**others, **own}, tuple(header["samples"]))


def strangers(path: Path, lineages: Mapping[str, str]) -> tuple[int, int]:
    """How many values of `path` the graph does not have, and how many there are."""
    known = frozenset(lineages.values())
    rows = _header(path, _arrays(path)["header"])["values"]
    return sum(row["lineage"] not in known for row in rows), len(rows)


def by_name(path: Path) -> Statistics:
    """All statistics in `path`, by the names that values had when it was written."""
    arrays = _arrays(path)
    header = _header(path, arrays["header"])
    return read(path, {row["id"]: row["lineage"] for row in header["values"]})


def samples(path: Path) -> tuple[str, ...]:
    """The digests of the samples that the statistics in `path` have seen; none without the file."""
    return tuple(_header(path, _arrays(path)["header"])["samples"]) if path.exists() else ()


def _arrays(path: Path) -> dict[str, np.ndarray]:
    arrays = npz.read(content(path, str(path), MOST_BYTES), str(path))
    kinds = {"header": "u", "counts": "u", "channels": "f"}
    if {n: a.dtype.kind for n, a in arrays.items()} != kinds or arrays["header"].itemsize != 1:
        raise _damaged(path, "it holds other arrays")
    if any(array.ndim != 1 for array in arrays.values()):
        raise _damaged(path, "an array has another rank than 1")
    return arrays


def _header(path: Path, text: np.ndarray) -> dict[str, Any]:
    try:
        header = json.loads(text.tobytes().decode(), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "its header is no JSON") from error
    if isinstance(header, dict) and header.get("version", VERSION) != VERSION:
        version = str(header["version"])[:40]
        raise InputError(
            f"{path}: version {version} of the statistics file is not known here",
            hint="calibrate again, or use the edgec that wrote it",
        )
    wrong = first_error(header, HEADER, "header")
    if wrong:
        raise _damaged(path, wrong)
    return dict(header)


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no number")


def _values(
    path: Path, header: Mapping[str, Any], counts: np.ndarray, channels: np.ndarray
) -> Iterator[tuple[str, str, ValueStatistics]]:
    """The name, lineage and statistics of each value."""
    if int(counts.max(initial=0)) > _MOST or not (np.abs(channels) <= 2 * _LARGEST).all():
        raise _damaged(path, "it holds a number that no calibration gives")
    bins = places = 0

    def vector(size: int) -> np.ndarray | None:
        nonlocal places
        places += size
        return channels[places - size : places].astype(np.float64) if size else None

    for row in header["values"]:
        histogram, (low, high), means = None, (np.inf, -np.inf), (0.0, 0.0)
        if "range" in row and "mean_range" in row:
            (low, high), means = map(float, row["range"]), row["mean_range"]
        if "histogram" in row:
            own = row["histogram"]
            part = counts[bins : bins + own["bins"]].astype(np.int64)
            bins += own["bins"]
            histogram = Histogram(own["exponent"], own["first"], part)
        mean, times = vector(row["mean_channels"]), vector(row["mean_channels"])
        one = ValueStatistics(
            low=low,
            high=high,
            seen=row["seen"],
            mean_low=float(means[0]),
            mean_high=float(means[1]),
            nans=row["nans"],
            infinities=row["infinities"],
            histogram=histogram,
            channel_mean=mean,
            channel_seen=None if times is None else np.clip(times, -1, _MOST).astype(np.int64),
            channel_low=vector(row["extreme_channels"]),
            channel_high=vector(row["extreme_channels"]),
        )
        if bins > len(counts) or places > len(channels):
            break
        wrong = _wrong(one, len(header["samples"]))
        if wrong:
            raise _damaged(path, f"{row['id']!r}: {wrong}")
        yield row["id"], row["lineage"], one
    if bins != len(counts) or places != len(channels):
        raise _damaged(path, "its arrays do not fit its header")


def _wrong(one: ValueStatistics, samples: int) -> str:
    """What of a value's statistics no calibration can have seen, or an empty text."""
    times = one.channel_seen
    if times is not None and not ((times >= 0) & (times <= samples)).all():
        return "a channel was seen in more samples than there are"
    if one.seen > samples or (one.seen > 0) != (one.low <= one.high):
        return "its range does not fit the samples that it was seen in"
    if one.histogram is None or not len(one.histogram.counts):
        return "there is a range, and no histogram" if one.seen else ""
    counts, first = one.histogram.counts, one.histogram.first
    if not (one.seen and counts[0] and counts[-1] and first + len(counts) <= BINS):
        return "its histogram is not sound"
    ends = ((one.low, first), (one.high, first + len(counts) - 1))
    if any(bin_of(x, one.histogram) != i and (x, i) != (0.0, -1) for x, i in ends):
        return "its histogram does not fit its range"
    if not all(one.low <= average <= one.high for average in (one.mean_low, one.mean_high)):
        return "its average range does not lie in its range"
    return ""


def _damaged(path: Path, why: str) -> InputError:
    return InputError(
        f"{path} is no statistics file of edgec: {why}", hint="calibrate again, or copy it again"
    )
