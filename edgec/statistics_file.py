"""Statistics as a file: what calibration saw, to be used for other targets and on other days.

An uncompressed `.npz` archive of three arrays, written byte for byte alike, read without pickle:

    header    uint8    UTF-8 JSON, see HEADER below
    counts    uint     the bins of all histograms, one after the other
    channels  float64  means, lows and highs per channel, one after the other

A value is found by its lineage (`edgec.lineage`), not by its name, which is there for people.
`samples` are the hashes of the samples that all values have seen. A bin i of a histogram holds the
numbers x with first + i <= x / 2**exponent < first + i + 1 (`edgec.histogram`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgec.errors import InputError
from edgec.histogram import BINS, COARSEST, FINEST
from edgec.runtime import npz
from edgec.runtime.reading import integer, number, several, table
from edgec.runtime.schema import first_error
from edgec.types import Histogram, Statistics, ValueStatistics

VERSION = 1
MOST_BYTES = 1 << 30
_COUNT = integer(0, 1 << 53)
_HASH = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_PAIR = several({"type": "number"}, 2, 2)
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
        "id": {"type": "string", "maxLength": 4096},
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
            "id": name,
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
            for array in (one.channel_mean, one.channel_low, one.channel_high)
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
    values = dict(_values(path, header, arrays["counts"], arrays["channels"]))
    return Statistics(
        {name: values[digest] for name, digest in lineages.items() if digest in values},
        tuple(header["samples"]),
    )


def by_name(path: Path) -> Statistics:
    """All statistics in `path`, by the names that values had when it was written."""
    arrays = _arrays(path)
    header = _header(path, arrays["header"])
    return read(path, {row["id"]: row["lineage"] for row in header["values"]})


def samples(path: Path) -> tuple[str, ...]:
    """The digests of the samples that the statistics in `path` have seen; none without the file."""
    return tuple(_header(path, _arrays(path)["header"])["samples"]) if path.exists() else ()


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MOST_BYTES else b""
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}", hint="give a file of edgec calibrate"
        ) from error
    if size > MOST_BYTES:
        raise _damaged(path, f"{size} bytes are too many")
    arrays = npz.read(data, str(path))
    kinds = {"header": "u", "counts": "u", "channels": "f"}
    if {n: a.dtype.kind for n, a in arrays.items()} != kinds:
        raise _damaged(path, "it holds other arrays")
    if any(array.ndim != 1 for array in arrays.values()):
        raise _damaged(path, "an array has another rank than 1")
    return arrays


def _header(path: Path, text: np.ndarray) -> dict[str, Any]:
    try:
        header = json.loads(text.astype(np.uint8).tobytes().decode(), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "its header is no JSON") from error
    if isinstance(header, dict) and header.get("version", VERSION) != VERSION:
        raise InputError(
            f"{path}: version {header['version']} of the statistics file is not known here",
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
) -> Iterator[tuple[str, ValueStatistics]]:
    bins = places = 0
    for row in header["values"]:
        histogram, low, high = None, np.inf, -np.inf
        means = (0.0, 0.0)
        if "range" in row:
            (low, high), means = row["range"], row.get("mean_range", means)
        if "histogram" in row:
            own = row["histogram"]
            part = counts[bins : bins + own["bins"]].astype(np.int64)
            bins += own["bins"]
            histogram = Histogram(own["exponent"], own["first"], part)
            if own["first"] + own["bins"] > BINS or (part < 0).any():
                raise _damaged(path, f"the histogram of {row['id']!r} is not sound")
        vectors: list[np.ndarray | None] = []
        for size in (row["mean_channels"], row["extreme_channels"], row["extreme_channels"]):
            vectors.append(channels[places : places + size].astype(np.float64) if size else None)
            places += size
        if not low <= high and "range" in row:
            raise _damaged(path, f"the range of {row['id']!r} ends before it begins")
        yield (
            row["lineage"],
            ValueStatistics(
                low=float(low),
                high=float(high),
                seen=row["seen"],
                mean_low=float(means[0]),
                mean_high=float(means[1]),
                nans=row["nans"],
                infinities=row["infinities"],
                histogram=histogram,
                channel_mean=vectors[0],
                channel_low=vectors[1],
                channel_high=vectors[2],
            ),
        )
    if bins != len(counts) or places != len(channels) or not np.isfinite(channels).all():
        raise _damaged(path, "its arrays do not fit its header")


def _damaged(path: Path, why: str) -> InputError:
    return InputError(
        f"{path} is no statistics file of edgec: {why}", hint="calibrate again, or copy it again"
    )
