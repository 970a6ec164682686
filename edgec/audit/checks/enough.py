"""Whether the samples are enough for ranges to settle; see `edgec.audit.convergence`."""

from __future__ import annotations

from collections.abc import Iterator

from edgec.audit.context import Context
from edgec.audit.convergence import LEAST, STILL, WORST, Curve
from edgec.audit.finding import Finding, note, warning
from edgec.samples import VERIFY_EVERY

NAME = "enough"
TWICE = 2  # the gap at half of the samples, in times of what counts as settled, that is a warning


def sentence(curve: Curve) -> str:
    """What the curve says."""
    if curve.samples < LEAST:
        return f"{curve.samples} samples are too few to say whether ranges have settled"
    if not curve.values:
        return "nothing to settle: the plan for this target calibrates no range that varies"
    if curve.enough:
        return f"{curve.enough} of {curve.samples} samples are enough"
    return f"ranges still move at {curve.samples} samples: add more"


def check(context: Context) -> Iterator[Finding]:
    """At most one finding: a warning where ranges still move by much."""
    curve = context.curve
    if not context.ran:
        return
    if curve.enough:
        files = -(-curve.enough * VERIFY_EVERY // (VERIFY_EVERY - 1))
        yield note(
            NAME,
            f"{sentence(curve)}: with them {WORST:.0%} of {curve.values} ranges are within "
            f"{STILL:.0%} of what all samples give",
            hint=f"give at least {files} to a build, which verifies on a third of them",
        )
    elif curve.samples >= LEAST and curve.values:
        half = curve.worst[curve.samples // 2 - 1]
        make = warning if half >= TWICE * STILL else note
        yield make(
            NAME,
            f"{sentence(curve)}; with half of them the worst tenth of {curve.values} ranges is "
            f"{half:.0%} or more too narrow",
            hint="add samples that differ from these, or let a percentile choose the ranges "
            '(method = "percentile" in a policy), which a few extremes do not move',
        )
    elif curve.values or curve.samples < LEAST:
        yield warning(NAME, sentence(curve), hint="give more: 32 to 128 are usual")
    elif context.extremes.seen.all():  # else `finite` says why there is nothing
        yield note(NAME, sentence(curve), hint="see edgec plan for what it does instead")
