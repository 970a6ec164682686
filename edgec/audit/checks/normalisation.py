"""Pictures that are not normalised as the model wants, judged by the model's own reaction.

Behind the first Relu or Clip that a picture reaches, two things are lost: channels that never vary
(dead), and values at a Clip's upper bound (saturated). The same pictures are scaled to the usual
conventions, from the darkest and the lightest value of each channel, and lose again. A warning
needs both: much is lost, and far less under another convention. What a network loses anyway (a
trained one has dead channels of its own) is lost under all of them.

Measured: EfficientNet-Lite0, trained on (x - 127) / 128, loses 15 % on right data, 77 % on 0..255 and
51 % on 0..255 less 127; PP-OCR's classifier 3 %, 49 % and 47 %. Divided by 255 twice, 20 % of
EfficientNet's channels are dead instead of 3 %. But 0..1 in the place of -1..1 loses 22 %, worth a
note; ImageNet's mean and standard deviation lose 26 %, and blue for red 16 %, and are not noticed.
PP-OCR's detector and recogniser begin with a Relu, which has no upper bound: on 0..255 they lose
nothing, so that whole numbers get a note there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgec.audit.context import Context
from edgec.audit.finding import Finding, note, warning
from edgec.graphs import constant, extract, save
from edgec.inputs import Input
from edgec.isolate import call
from edgec.reference import Reference
from edgec.samples import read

NAME = "normalisation"
SITES = 12  # activations that are looked at, the nearest first
SAMPLES = 16  # evenly spread
LEAST = 4  # samples, from which a channel counts as dead
FLAT = 1e-3  # of the layer's widest channel
LOST, GAIN = 0.35, 0.25  # lost in the first activation, and by how much less elsewhere
COLLAPSED, TIMES = 0.15, 3.0  # dead in the mean of all, and how many times as many as elsewhere
SLIGHT = 0.05  # more dead channels than where pictures have both signs, for a note
RAW = 32  # whole numbers beyond it are pixels, not classes or flags
AS_IT_IS, BOTH = "as it is", "-1..1"
IMAGENET = "ImageNet's mean and standard deviation"
SIGNED = (BOTH, IMAGENET)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


@dataclass(frozen=True)
class Loss:
    """In the first activation: the shares of dead channels and of saturated values.

    `collapsed`: the share of dead channels, in the mean over all activations.
    """

    dead: float
    saturated: float
    collapsed: float

    @property
    def first(self) -> float:
        """What the first activation loses."""
        return self.dead + self.saturated


@dataclass(frozen=True)
class Site:
    """The output of a Relu or Clip; `bound`: where it saturates, or infinity."""

    value: str
    bound: float


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
    files = [path for _, path in context.survey.files]
    if len(files) < LEAST or not found:
        return
    count = min(SAMPLES, len(files))
    chosen = [files[index * len(files) // count] for index in range(count)]
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


def sites(model: ir.Model, name: str) -> list[Site]:
    """The Relu and Clip outputs that depend on an input, in the order of the graph."""
    reached = {value for value in model.graph.inputs if value.name == name}
    found: list[Site] = []
    for node in model.graph:
        if reached.isdisjoint(value for value in node.inputs if value is not None):
            continue
        if node.op_type == "Shape":
            continue
        reached.update(node.outputs)
        if node.op_type in ("Relu", "Clip") and len(found) < SITES:
            high = constant(node.inputs[2]) if len(node.inputs) > 2 else None
            bound = np.inf if high is None else float(high)
            found.append(Site(str(node.outputs[0].name), bound))
    return found


def react(
    path: Path,
    files: Sequence[Path],
    inputs: Sequence[Input],
    name: str,
    axis: int,
    found: Sequence[Site],
    threads: int,
) -> dict[str, Loss]:
    """What is lost under each convention; `axis` is that of the colours."""
    reference = Reference(path, threads)
    takes = set(map(str, (value.name for value in ir.load(path).graph.inputs)))
    low, high = _extremes(files, inputs, name, axis)
    forms = {AS_IT_IS: lambda x: x, **_conventions(low, high)}
    return {
        form: _lose(reference, takes, files, inputs, name, change, found)
        for form, change in forms.items()
    }


Change = Callable[[np.ndarray], np.ndarray]


def _extremes(
    files: Sequence[Path], inputs: Sequence[Input], name: str, axis: int
) -> tuple[np.ndarray, np.ndarray]:
    """Per colour, over all files; they broadcast to the input."""
    lows, highs = [], []
    for file in files:
        array = read(file, inputs)[name]
        rest = tuple(other for other in range(array.ndim) if other != axis)
        lows.append(array.min(axis=rest, keepdims=True))
        highs.append(array.max(axis=rest, keepdims=True))
    return np.min(lows, axis=0), np.max(highs, axis=0)


def _conventions(low: np.ndarray, high: np.ndarray) -> dict[str, Change]:
    width = np.where(high > low, high - low, 1)
    shape = low.shape
    mean = np.resize(MEAN, low.size).reshape(shape)
    std = np.resize(STD, low.size).reshape(shape)

    def unit(x: np.ndarray) -> np.ndarray:
        return np.asarray((x - low) / width, np.float32)

    return {
        "0..1": unit,
        BOTH: lambda x: unit(x) * 2 - 1,
        IMAGENET: lambda x: (unit(x) - mean) / std,
        "0..255": lambda x: unit(x) * 255,
        "0..255 less 127": lambda x: unit(x) * 255 - 127,
    }


def _lose(
    reference: Reference,
    takes: set[str],
    files: Sequence[Path],
    inputs: Sequence[Input],
    name: str,
    change: Change,
    found: Sequence[Site],
) -> Loss:
    lows: dict[str, np.ndarray] = {}
    highs: dict[str, np.ndarray] = {}
    saturated = []
    values = [site.value for site in found]
    for file in files:
        feeds = {key: array for key, array in read(file, inputs).items() if key in takes}
        feeds[name] = np.asarray(change(feeds[name]), feeds[name].dtype)
        made = reference.run(feeds, values)
        saturated.append(float((made[values[0]] >= found[0].bound * (1 - 1e-6)).mean()))
        for value, array in made.items():
            rest = tuple(axis for axis in range(array.ndim) if axis != 1)
            low, high = array.min(axis=rest), array.max(axis=rest)
            lows[value] = np.minimum(lows.get(value, low), low)
            highs[value] = np.maximum(highs.get(value, high), high)
    dead = []
    for value in values:
        width = highs[value] - lows[value]
        dead.append(float((width <= FLAT * max(float(width.max()), 1e-30)).mean()))
    return Loss(dead[0], float(np.mean(saturated)), float(np.mean(dead)))
