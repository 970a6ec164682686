"""Stage 5: which samples are calibrated on, which verify, and how either sees them.

Calibration and the checks of parts run them as the engines will see them, calibration one by one;
the comparison from end to end as they were given. What an earlier calibration has seen never
verifies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgec.bucket_proof import prove
from edgec.buckets import Proposal, Wish, find, trim
from edgec.errors import InputError
from edgec.masks import UNNAMED
from edgec.rows import Row, digest, rows
from edgec.runtime import npz
from edgec.runtime.buckets import Buckets, fit
from edgec.samples import Input, Samples, Seen, read
from edgec.types import Graph


@dataclass(frozen=True)
class Gathered:
    """Samples as they were given, shape buckets for them, and the samples in these buckets.

    `rows`: what calibration runs.
    """

    samples: Samples
    proposal: Proposal
    trimmed: Samples
    rows: tuple[Row, ...]


def gather(
    model: Path,
    graph: Graph,
    samples: Samples,
    inputs: Sequence[Input],
    wish: Wish,
    seen: Sequence[str],
    threads: int,
    folder: Path,
    *,
    everything: bool = False,
) -> Gathered:
    """`seen`: digests of samples that were calibrated on; where there are any, no other is.

    `everything`: calibrate on all samples, verify on none. `model` is the untouched source. Raises
    InputError where nothing is left to verify on.
    """
    proposal = prove(model, find(graph, samples, inputs, wish), samples, inputs, threads)
    buckets, known = proposal.buckets, frozenset(seen)
    if everything:
        samples = replace(samples, calibration=samples.files, verification=())
    single = {
        path: _single(path, inputs, buckets, folder / f"single_{index:06}", samples.seen.get(path))
        for index, path in enumerate(samples.files if known else samples.calibration)
    }
    calibration = [row for path in samples.calibration for row in single[path]]
    if known:
        calibration = [row for own in single.values() for row in own if row.digest in known]
        fresh = [p for p, own in single.items() if not any(row.digest in known for row in own)]
        samples = replace(samples, verification=tuple(fresh))
        if not fresh:
            raise InputError(
                "the statistics have seen all of these samples, and none is left to verify on",
                hint="give samples that were not calibrated on, or calibrate on fewer",
            )
    trimmed = samples if buckets is None else trim(samples, buckets, inputs, folder / "trimmed")
    return Gathered(samples, proposal, trimmed, tuple(calibration))


def _single(
    path: Path,
    inputs: Sequence[Input],
    buckets: Buckets | None,
    folder: Path,
    seen: Seen | None,
) -> list[Row]:
    """The samples in a file as the engines will see them, known by what they are unpadded.

    Padding up to a bucket is calibrated on, since INT8 meets it on the device. What identifies a
    sample does not depend on how it was padded, nor on the buckets that further data may change.
    """
    if buckets is None and seen is not None and _batch(seen.shapes, inputs) == 1:
        return [Row(path, seen.digest)]
    files = apart(path, inputs, folder / "rows")
    if buckets is None:
        return rows(files)
    exact, found = buckets._replace(sizes=()), []
    for index, file in enumerate(files):
        feeds, place = read(file, inputs), folder / f"{index:06}" / file.name
        place.parent.mkdir(parents=True)
        npz.write(place, fit(feeds, buckets))
        found.append(Row(place, digest(fit(feeds, exact))))
    return found


def apart(path: Path, inputs: Sequence[Input], folder: Path) -> list[Path]:
    """A file for each sample in a file, below `folder`; the file itself where it holds one.

    A file whose inputs all share one symbolic first dimension is taken apart along it, so that the
    batch size changes neither a range nor an average. Anything else is one sample as it is.
    """
    feeds = read(path, inputs)
    count = _batch({name: array.shape for name, array in feeds.items()}, inputs)
    if count == 1:
        return [path]
    found = []
    for index in range(count):
        found.append(folder / f"{index:06}" / path.name)
        found[-1].parent.mkdir(parents=True)
        npz.write(found[-1], {name: array[index : index + 1] for name, array in feeds.items()})
    return found


def _batch(shapes: Mapping[str, tuple[int, ...]], inputs: Sequence[Input]) -> int:
    """How many samples lie in the first dimension, or 1 where it is not one batch of all inputs."""
    names = {one.shape[0] if one.shape else None for one in inputs}
    sizes = {shape[0] if shape else 1 for shape in shapes.values()}
    shared = len(names) == len(sizes) == 1 and isinstance(next(iter(names)), str)
    told_apart = len(inputs) == 1 or names != {UNNAMED}
    bounded = any(one.ranges and one.ranges[0].low > 1 for one in inputs)
    return sizes.pop() if shared and told_apart and not bounded else 1
