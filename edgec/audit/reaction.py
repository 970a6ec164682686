"""What a network's first activations lose of pictures that are scaled in different ways.

A channel is dead if it varies by less than a thousandth of its layer's widest one, over all samples
and positions; a value is saturated if it stands at its Clip's upper bound. For a convention, each
colour is first brought to 0..1 by its least and its largest value in all samples. A convention that
the model does not run on loses everything; a value that is empty in all samples, nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgec.graphs import constant
from edgec.inputs import Input
from edgec.reference import Reference, RunError
from edgec.samples import read

SITES = 12  # activations that are looked at, the nearest first
FLAT = 1e-3  # of the layer's widest channel
AS_IT_IS, BOTH = "as it is", "-1..1"
IMAGENET = "ImageNet's mean and standard deviation"
SIGNED = (BOTH, IMAGENET)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
Change = Callable[[np.ndarray], np.ndarray]


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
        try:
            made = reference.run_sample(feeds, values)
        except RunError:
            return Loss(1.0, 1.0, 1.0)
        made = {value: array for value, array in made.items() if array.size}
        if values[0] in made:
            saturated.append(float((made[values[0]] >= found[0].bound * (1 - 1e-6)).mean()))
        for value, array in made.items():
            rest = tuple(axis for axis in range(array.ndim) if axis != 1)
            low, high = array.min(axis=rest), array.max(axis=rest)
            lows[value] = np.minimum(lows.get(value, low), low)
            highs[value] = np.maximum(highs.get(value, high), high)
    dead = []
    for value in values:
        width = highs.get(value, np.ones(1)) - lows.get(value, np.zeros(1))
        dead.append(float((width <= FLAT * max(float(width.max()), 1e-30)).mean()))
    return Loss(dead[0], float(np.mean(saturated or [0.0])), float(np.mean(dead)))
