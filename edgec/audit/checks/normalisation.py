"""Pictures that are not normalised as the model wants, judged by the model's own reaction.

Behind the first Relu or Clip that a picture reaches, two things are lost: channels that never vary
(dead), and values at a Clip's upper bound (saturated). The same pictures are scaled to the usual
conventions, from the darkest and the lightest value of each channel, and lose again. A warning
needs both: much is lost, and far less under another convention. What a network loses anyway (a
trained one has dead channels of its own) is lost under all of them.

Measured: EfficientNet-Lite0, trained on (x - 127) / 128, loses 15 % on right data, 77 % on 0..255
and 51 % on 0..255 less 127; PP-OCR's classifier 3 %, 49 % and 47 %. Divided by 255 twice, 20 % of
EfficientNet's channels are dead instead of 3 %. But 0..1 in the place of -1..1 loses 22 %, worth a
note; ImageNet's mean and standard deviation lose 26 %, and blue for red 16 %, and are not noticed.
PP-OCR's detector and recogniser begin with a Relu, which has no upper bound: on 0..255 they lose
nothing, so that whole numbers get a note there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from edgec.audit.context import Context
from edgec.audit.finding import Finding, note, warning
from edgec.audit.reaction import AS_IT_IS, SIGNED, Loss, Site, react, sites
from edgec.graphs import extract, save
from edgec.inputs import Input
from edgec.isolate import call
from edgec.rows import spread

NAME = "normalisation"
SAMPLES = 16  # evenly spread
LEAST = 4  # samples, from which a channel counts as dead
LOST, GAIN = 0.35, 0.25  # lost in the first activation, and by how much less elsewhere
COLLAPSED, TIMES = 0.15, 3.0  # dead in the mean of all, and how many times as many as elsewhere
SLIGHT = 0.05  # more dead channels than where pictures have both signs, for a note
RAW = 32  # whole numbers beyond it are pixels, not classes or flags


def check(context: Context) -> Iterator[Finding]:
    """One finding for each input of pictures."""
    for need in context.prepared.inputs:
        axis = channels(need)
        if axis is None or not context.survey.samples:
            continue
        sights = [sample.sights[need.name] for sample in context.survey.samples]
        span = min(one.low for one in sights), max(one.high for one in sights)
        found = sites(context.prepared.graph.model, need.name)
        said = list(_judged(context, need, axis, found, span))
        yield from said
        whole = all(one.whole for one in sights)
        bounded = bool(found) and np.isfinite(found[0].bound)
        if not said and not bounded and whole and span[0] >= 0 and RAW < span[1] <= 255:
            yield note(
                NAME,
                f"{need.name} holds whole numbers from {span[0]:g} to {span[1]:g}: raw pixels, as "
                "it seems; this model has no bounded activation to judge that by",
                hint="right if the model normalises by itself; else subtract the mean and divide "
                "by the standard deviation of its training",
            )


def _judged(
    context: Context,
    need: Input,
    axis: int,
    found: Sequence[Site],
    span: tuple[float, float],
) -> Iterator[Finding]:
    files = [path for _, path in context.ran]
    if len(files) < LEAST or not found:
        return
    chosen = spread(files, SAMPLES)
    inputs = context.prepared.inputs
    piece = extract(
        context.prepared.graph.model.clone(),
        [one.name for one in inputs],
        [site.value for site in found],
    )
    with tempfile.TemporaryDirectory(prefix="edgec-audit-") as folder:
        path = Path(folder) / "first.onnx"
        save(piece, path)
        arguments = (path, chosen, inputs, need.name, axis, found, context.threads)
        losses: dict[str, Loss] = call(react, *arguments)
    yield from judge(need.name, found[0].value, losses, span)


def judge(
    name: str, site: str, losses: Mapping[str, Loss], span: tuple[float, float]
) -> Iterator[Finding]:
    """A warning, if another convention loses far less."""
    own = losses[AS_IT_IS]
    hint = (
        f"{name} spans {span[0]:.3g} to {span[1]:.3g}: normalise it as the model was trained "
        "(mean and std in a recipe), for the device too"
    )
    best = min(losses, key=lambda one: losses[one].first)
    if own.first >= LOST and own.first - losses[best].first >= GAIN:
        yield warning(
            NAME,
            f"{name} does not look normalised for this model: {own.dead:.0%} of the channels of "
            f"{site!r} never vary and {own.saturated:.0%} of its values are at their upper bound; "
            f"the same pictures scaled to {best} give {losses[best].dead:.0%} and "
            f"{losses[best].saturated:.0%}",
            hint=hint,
        )
        return
    best = min(losses, key=lambda one: losses[one].collapsed)
    if own.collapsed >= max(COLLAPSED, TIMES * losses[best].collapsed):
        yield warning(
            NAME,
            f"{name} is too weak for this model: in its first activations {own.collapsed:.0%} of "
            f"the channels never vary; the same pictures scaled to {best} give "
            f"{losses[best].collapsed:.0%}",
            hint=hint,
        )
        return
    best = min(SIGNED, key=lambda one: losses[one].first)
    other = losses[best]
    if (
        span[0] >= 0
        and own.dead >= other.dead + SLIGHT
        and own.collapsed >= (1 + SLIGHT) * other.collapsed
    ):
        yield note(
            NAME,
            f"{name} is never negative, and {own.dead:.0%} of the channels of {site!r} never vary; "
            f"the same pictures scaled to {best} give {other.dead:.0%}",
            hint="right if the model was trained on such pictures; else subtract the mean and "
            "divide by the standard deviation of its training, on the device too",
        )


def channels(need: Input) -> int | None:
    """The axis of one or three colours of a float picture, or None where it is none."""
    if need.dtype.kind != "f" or need.shape is None or len(need.shape) != 4:
        return None
    return next((axis for axis in (1, 3) if need.shape[axis] in (1, 3)), None)
