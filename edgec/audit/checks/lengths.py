"""Lengths of sequences: the histogram, and a note where a free length never varies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from edgec.audit.checks.padding import sequences
from edgec.audit.context import Context
from edgec.audit.finding import Finding, note

NAME = "lengths"
LEAST = 4  # samples
UNNAMED = "?"  # what `samples.inputs` calls a dimension without a name


def histogram(context: Context) -> Mapping[str, Counter[int]]:
    """By input: how many samples have which length.

    By mask, or by the ids without their trailing padding; of sounds and other floats of rank 3, by
    the one dimension that the model leaves free, if it is no batch.
    """
    samples = context.survey.samples
    found = {
        need.name: Counter(sample.sights[need.name].tokens for sample in samples)
        for need in sequences(context.prepared.inputs, samples)
    }
    batch = {need.shape[0] for need in context.prepared.inputs if need.shape}
    for need in context.prepared.inputs:
        free = [
            axis
            for axis, dim in enumerate(need.shape or ())
            if axis and isinstance(dim, str) and dim not in batch - {UNNAMED}
        ]
        if len(need.shape or ()) == 3 and need.dtype.kind == "f" and len(free) == 1:
            found[need.name] = Counter(s.sights[need.name].shape[free[0]] for s in samples)
    return {name: counts for name, counts in found.items() if counts}


def check(context: Context) -> Iterator[Finding]:
    """One note for each sequence whose length is free and the same in all samples."""
    samples = context.survey.samples
    dynamic = {
        need.name
        for need in context.prepared.inputs
        if need.shape is not None and any(isinstance(dim, str) for dim in need.shape[1:])
    }
    for name, counts in histogram(context).items():
        if name in dynamic and len(counts) == 1 and len(samples) >= LEAST:
            (length,) = counts
            yield note(
                NAME,
                f"{name} has the length {length} in all {len(samples)} samples, and the model "
                "takes others",
                hint="take texts or sounds as long as those in use; or fix the length by --shape",
            )
