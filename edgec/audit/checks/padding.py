"""Texts without text: a mask of zeros, one token alone, and padding that outweighs the text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edgec.audit.context import Context
from edgec.audit.finding import Finding, note, warning
from edgec.audit.survey import Sample, is_mask
from edgec.inputs import Input

NAME = "padding"
USUAL = 5  # tokens of the median text, from which one or two are no text
ENDS = 2  # tokens that tokenizers put around a text
MUCH = 0.75  # of the columns


def sequences(inputs: Sequence[Input], samples: Sequence[Sample]) -> list[Input]:
    """What tells lengths: the masks, or where there are none the matrices of integers."""
    masks = [need for need in inputs if is_mask(need)]
    matrices = [
        need
        for need in inputs
        if need.dtype.kind in "iu" and need.shape is not None and len(need.shape) == 2
    ]
    found = masks or matrices
    return [n for n in found if any(sample.sights[n.name].tokens for sample in samples)] or masks


def check(context: Context) -> Iterator[Finding]:
    """At most three findings for each sequence."""
    samples = context.survey.samples
    if not samples:
        return
    for need in sequences(context.prepared.inputs, samples):
        if need.name in context.constants:
            continue
        tokens = np.array([sample.sights[need.name].tokens for sample in samples])
        widths = np.array([sample.sights[need.name].shape[1] for sample in samples])
        names = np.array([sample.name for sample in samples])
        empty = tuple(map(str, names[tokens == 0]))
        if empty:
            yield warning(
                NAME,
                f"{need.name} is 0 everywhere in {len(empty)} of {len(samples)} samples: "
                "they are padding alone",
                empty,
                hint="leave texts without a token out: a mean over none of them is no number",
            )
        usual = int(np.median(tokens))
        short = tuple(map(str, names[(tokens > 0) & (tokens <= ENDS)]))
        if short and usual >= USUAL:
            yield warning(
                NAME,
                f"{need.name}: {len(short)} of {len(samples)} samples have one or two tokens, "
                f"where {usual} are usual: empty texts, with what the tokenizer puts around them",
                short,
                hint="leave empty texts out",
            )
        share = 1 - tokens.sum() / widths.sum()
        if is_mask(need) and share > MUCH and len(empty) < len(samples):
            yield note(
                NAME,
                f"{need.name}: {share:.0%} of the columns are padding; {usual} of "
                f"{int(np.median(widths))} are in use in the median",
                hint="nothing to do where buckets cut it (edgec plan says so); else write shorter "
                "samples, or export the model with a shorter or a dynamic length",
            )
