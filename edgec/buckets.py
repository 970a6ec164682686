"""Shape buckets: at which lengths a sequence runs, from the lengths that the data really have.

Captions of 5 to 20 tokens that come padded to 64 make a text tower work for nothing. The mask says
what is padding, so the runtime can cut it (`edgec.runtime.buckets`). Which inputs to cut follows
from `edgec.masks`, the sizes from a histogram of lengths, and `edgec.bucket_proof` shows on the
float model that cutting changes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import accumulate
from pathlib import Path

import onnx_ir as ir

from edgec import masks
from edgec.errors import InputError
from edgec.masks import Mask
from edgec.runtime import npz
from edgec.runtime.buckets import Axis, Buckets, as_json, fit
from edgec.samples import Input, Samples, read
from edgec.types import Graph

STEP = 8  # sizes are its multiples
MOST = 4  # sizes, where nobody asks for others
WORTH = 50  # one more size has to save a fiftieth of the tokens in use
LEAST = 0.02  # of the fed tokens: what buckets have to save
MOST_CANDIDATES = 256
MOST_GIVEN, LARGEST = 16, 1 << 20  # what a manifest may hold

_Plan = tuple[int, tuple[int, ...]]  # tokens that run, sizes


class Mode(StrEnum):
    """How sizes are chosen. EXACT: none, every length runs as it is, without its padding."""

    AUTO = "auto"
    NONE = "none"
    EXACT = "exact"
    GIVEN = "given"


@dataclass(frozen=True)
class Wish:
    """What the user wants; `sizes` where the mode is GIVEN."""

    mode: Mode = Mode.AUTO
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Proposal:
    """Buckets, or none, and a line for the user that says why.

    `saved`: the share of the fed tokens (columns times rows of the mask) that no longer run;
    negative where unpadded data are padded up. `wanted`: the user asked, so that "no" is an error.
    `notable`: the reason belongs into the report; a model without a mask needs none.
    """

    buckets: Buckets | None
    reason: str
    saved: float = 0.0
    wanted: bool = False
    notable: bool = True

    def refuse(self, reason: str, *, notable: bool = True) -> Proposal:
        """No buckets, for this reason. Raises InputError where the user asked for them."""
        if self.wanted:
            raise InputError(f"--buckets: {reason}", hint="leave it out, or give --buckets none")
        reason = f"no buckets: {reason}"
        return replace(self, buckets=None, reason=reason, saved=0.0, notable=notable)


def parse_wish(text: str) -> Wish:
    """`auto`, `none`, `exact`, or ascending sizes as in `16,32,64`. Raises InputError."""
    if text in (Mode.AUTO, Mode.NONE, Mode.EXACT):
        return Wish(Mode(text))
    words = text.split(",")
    sizes = [int(word) for word in words if word.isascii() and word.isdigit() and len(word) < 9]
    sound = len(sizes) == len(words) <= MOST_GIVEN and sizes == sorted(set(sizes))
    if not sound or not 1 <= sizes[0] <= sizes[-1] <= LARGEST:
        raise InputError(
            f"--buckets {text}: not sizes",
            hint=f"write auto, none, exact, or up to {MOST_GIVEN} ascending sizes: 16,32,64",
        )
    return Wish(Mode.GIVEN, tuple(sizes))


def find(
    graph: Graph,
    samples: Samples,
    inputs: Sequence[Input],
    wish: Wish | None = None,
    *,
    few: bool = True,
) -> Proposal:
    """Propose buckets from the lengths of the calibration samples; not proven yet.

    `few`: each new shape costs this target something, so that sizes are few; else every length runs
    as it is. Raises InputError where the user asked for what the model or the data forbid.
    """
    wish = wish or Wish()
    none = Proposal(None, "", wanted=wish.mode in (Mode.EXACT, Mode.GIVEN))
    if wish.mode is Mode.NONE:
        return none.refuse("switched off by --buckets none", notable=False)
    if not samples.calibration:
        return none.refuse("without --data FOLDER the lengths are not known", notable=False)
    seen = masks.read(samples.calibration, inputs)
    mask = masks.find_mask(inputs, seen)
    if isinstance(mask, str):
        return none.refuse(mask, notable=mask != masks.NONE)
    places = masks.companions(mask, inputs, seen)
    if isinstance(places, str):
        return none.refuse(places)
    outputs = _outputs(graph, mask, _names(inputs, places))
    if isinstance(outputs, str):
        return none.refuse(outputs)
    low, high = _bounds(inputs, places)
    match wish.mode:
        case Mode.GIVEN:
            sizes = wish.sizes
        case Mode.AUTO if few:
            # the model is known to take what was fed; a table of positions may end there
            sizes = choose(mask.counts, low, max(mask.widths))
        case _:
            sizes = ()
    for size in sizes:
        if size < low or (high and size > high):
            return none.refuse(f"{mask.dimension} = {size} is out of the range that --shape gives")
    found = Buckets(mask.dimension, mask.need.name, tuple(places), tuple(outputs), sizes, low, high)
    return _weigh(none, found, mask)


def choose(
    counts: Mapping[int, int], low: int = 1, high: int = 0, most: int = MOST, step: int = STEP
) -> tuple[int, ...]:
    """At most `most` ascending sizes for rows of these lengths (length -> rows), at least cost.

    The cost is the tokens that run, sum(rows * size), where a length runs at the smallest size that
    holds it, and for each size a price, sum(rows * length) / WORTH. Sizes are multiples of `step`,
    or `low` (1: none), or `high` (0: none), and within these; the largest holds all lengths.

    Exact, by dynamic programming over the last size, in whole numbers. Only the next of these
    after a length needs to be tried: any other could be smaller and still hold the same lengths.
    """
    while max(counts) > step * MOST_CANDIDATES:
        step *= 2

    def up(length: int) -> int:
        if 1 < low >= length:
            return low
        size = -(-length // step) * step
        return min(size, high) if high else size

    rows = Counter[int]()
    for length, count in counts.items():
        rows[up(length)] += count
    price = sum(length * count for length, count in counts.items())
    ends = sorted(rows)
    upto = list(accumulate(rows[end] for end in ends))
    # plans[i]: the tokens that run for all that ends[i] holds, and the sizes, of which it is one
    plans: list[_Plan] = [(end * upto[i], (end,)) for i, end in enumerate(ends)]
    found = [plans[-1]]
    for _ in range(min(most, len(ends)) - 1):
        plans = _with_one_more(plans, ends, upto)
        found.append(plans[-1])
    return min(found, key=lambda plan: plan[0] * WORTH + len(plan[1]) * price)[1]


def trim(samples: Samples, buckets: Buckets, inputs: Sequence[Input], folder: Path) -> Samples:
    """The samples as the engines will see them, written below `folder`, split as before.

    Calibration and the checks of the parts use these, so that padding neither widens a range nor
    counts in a comparison. End to end the samples stay as they were fed. A file keeps its name, in
    a numbered folder, because names may repeat.
    """
    places = {}
    for index, path in enumerate(samples.files):
        places[path] = folder / f"{index:06}" / path.name
        places[path].parent.mkdir(parents=True)
        npz.write(places[path], fit(read(path, inputs), buckets))
    text = json.dumps([samples.fingerprint, as_json(buckets)], sort_keys=True)
    return replace(
        samples,
        calibration=tuple(places[path] for path in samples.calibration),
        verification=tuple(places[path] for path in samples.verification),
        fingerprint=hashlib.sha256(text.encode()).hexdigest(),
    )


def _with_one_more(plans: list[_Plan], ends: list[int], upto: list[int]) -> list[_Plan]:
    """The best plans with one more size, or without it where it does not help."""
    return [
        min(
            plans[i],
            *(
                (tokens + end * (upto[i] - upto[j]), (*sizes, end))
                for j, (tokens, sizes) in enumerate(plans[:i])
            ),
            key=lambda plan: (plan[0], len(plan[1])),
        )
        if i
        else plans[i]
        for i, end in enumerate(ends)
    ]


def _names(inputs: Sequence[Input], places: Sequence[Axis]) -> set[int | str]:
    """What the inputs call the dimension."""
    axes = {one.name: one.axis for one in places}
    return {n.shape[axes[n.name]] for n in inputs if n.name in axes and n.shape is not None}


def _outputs(graph: Graph, mask: Mask, names: set[int | str]) -> list[Axis] | str:
    """The outputs that name the dimension; the proof finds those that do not name it."""
    found = []
    for value in graph.model.graph.outputs:
        axes = [
            axis
            for axis, dim in enumerate(value.shape or ())
            if isinstance(dim, ir.SymbolicDim) and dim.value in names
        ]
        if len(axes) > 1:
            return f"output {value.name!r} has {mask.dimension} twice"
        found += [Axis(str(value.name), axis) for axis in axes]
    return found


def _bounds(inputs: Sequence[Input], places: Sequence[Axis]) -> tuple[int, int]:
    """The sizes that --shape allows; 0 stands for any."""
    axes = {one.name: one.axis for one in places}
    ranges = [n.ranges[axes[n.name]] for n in inputs if n.name in axes and n.ranges]
    low = max((bounds.low for bounds in ranges), default=1)
    return low, min((bounds.high for bounds in ranges), default=0)


def _weigh(none: Proposal, buckets: Buckets, mask: Mask) -> Proposal:
    """The proposal, told with what it saves; refused where nobody asked and it saves too little."""
    counts = mask.counts
    run = sum(buckets.size(length) * rows for length, rows in counts.items())
    saved = 1 - run / mask.fed
    how = f"padded to {_choice(buckets.sizes)}" if buckets.sizes else "cut"
    if mask.kept == mask.fed:
        text = f"the samples come unpadded, with {buckets.dimension} = {_span(mask.lengths)}"
        if not none.wanted and len(counts) <= max(1, len(buckets.sizes)):
            return none.refuse(text)
        if not none.wanted and not buckets.sizes:
            return none.refuse(f"{text}, and every length may run as it is")
    else:
        kept = f"{_span(mask.lengths)} of {_span(mask.widths)} {buckets.dimension}"
        text = f"{mask.need.name} keeps {kept}"
        if not none.wanted and saved < LEAST:
            return none.refuse(f"{text}; {how}: {_change(saved)} run")
    reason = f"buckets: {text}; {how}: {_change(saved)} run"
    return replace(none, buckets=buckets, reason=reason, saved=saved)


def _choice(sizes: Sequence[int]) -> str:
    """8, 16 or 24."""
    *others, last = map(str, sizes)
    return f"{', '.join(others)} or {last}" if others else last


def _change(saved: float) -> str:
    return f"{abs(saved):.0%} {'fewer' if saved >= 0 else 'more'} tokens"


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"
