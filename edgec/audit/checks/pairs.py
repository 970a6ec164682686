"""Partners: a picture or a text that comes again with a different partner.

Several captions for a picture are usual, so this is a note. A modality that is the same everywhere
is told of by `constant`, and small inputs may well repeat.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

from edgec.audit.context import Context, some
from edgec.audit.finding import Finding, note

NAME = "pairs"
LEAST = 8  # elements of an input, from which a repetition is no chance


def check(context: Context) -> Iterator[Finding]:
    """One note for each modality that repeats."""
    samples, modalities = context.survey.samples, context.modalities
    if len(modalities) < 2:
        return
    for part, inputs in modalities.items():
        size = max((math.prod(s.sights[n].shape) for s in samples for n in inputs), default=0)
        groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
        wholes: dict[tuple[str, ...], set[tuple[str, ...]]] = defaultdict(set)
        for sample in samples:
            key = tuple(sample.sights[name].digest for name in inputs)
            groups[key].append(sample.name)
            wholes[key].add(tuple(one.digest for _, one in sorted(sample.sights.items())))
        again = {key: names for key, names in groups.items() if len(wholes[key]) > 1}
        if size < LEAST or len(groups) < 2 or not again:
            continue
        names = tuple(name for found in again.values() for name in found)
        first = some(next(iter(again.values())))
        yield note(
            NAME,
            f"{len(samples)} samples have {len(groups)} different inputs of {part} "
            f"({', '.join(inputs)}): {first} share one, with different partners",
            names,
            hint="right for several captions of a picture; else the pairing went wrong. Different "
            "ones widen the ranges more",
        )
