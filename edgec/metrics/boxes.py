"""What a detector found: from its outputs to boxes in the labelled picture's own pixels."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from edgec.errors import InputError
from edgec.metrics import Outputs
from edgec.metrics.coco import Picture
from edgec.metrics.labels import MOST_CLASSES
from edgec.metrics.options import Options
from edgec.metrics.outputs import pick

FORMATS = ("xyxy", "xywh", "cxcywh", "yxyx")
FITS = ("exact", "center", "corner")
MOST = 100  # a class and picture, COCO's own limit
SLACK = 0.01  # how far beyond 0 to 1 rounding may carry a probability


@dataclass(frozen=True)
class Found:
    """The detections of a picture, the surest first: boxes [n, 4], scores [n], classes [n]."""

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray

    def above(self, threshold: float) -> Found:
        """Those with at least this score."""
        keep = self.scores >= threshold
        return Found(self.boxes[keep], self.scores[keep], self.classes[keep])


@dataclass(frozen=True)
class Convention:
    """Which outputs hold detections, and what their numbers mean.

    `boxes` alone is [n, 6]: box, score, class. `scores` is [n], with `classes` [n], or without
    [n, classes]. `size`: height and width of the picture in whose pixels boxes are, (1, 1) for
    shares and (0, 0) for the labelled picture itself; `fit`: how that was made of the labelled one.
    `first`: the class of the first category in order of their ids; negative: classes are the ids.
    """

    boxes: str
    scores: str
    classes: str
    format: str
    size: tuple[int, int]
    fit: str
    first: int

    def take(self, outputs: Outputs, count: int) -> list[Found]:
        """The detections of one picture, as the model numbers them.

        What is no number, or has a score of 0 or a class below 0, is padding. Raises InputError
        where outputs are not as the convention says.
        """
        if count != 1:
            raise InputError(
                f"a file with {count} samples: detections are read of one picture a file",
                hint="write one picture into each .npz file",
            )
        boxes, scores, classes = self._columns(outputs)
        known = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
        known &= (classes >= 0) & (classes < MOST_CLASSES)
        boxes, scores, classes = boxes[known], scores[known], classes[known]
        if len(scores) and not -SLACK <= scores.min() <= scores.max() <= 1 + SLACK:
            raise InputError(
                f"scores from {scores.min():.3g} to {scores.max():.3g} are no probabilities",
                hint="end the graph with Sigmoid or Softmax, and with NonMaxSuppression",
            )
        order = np.argsort(-scores, kind="stable")
        order = order[(scores[order] > 0) & (_place_in_class(classes[order]) < MOST)]
        return [Found(boxes[order], scores[order], classes[order].astype(np.int64))]

    def place(self, found: Found, picture: Picture) -> Found:
        """Boxes as x, y, width, height in the picture's pixels, and classes as its categories.

        A class that the labels do not know is left out.
        """
        categories = found.classes
        if self.first >= 0:
            place = found.classes - self.first
            inside = (place >= 0) & (place < len(picture.known))
            categories = np.where(inside, np.array(picture.known)[place * inside], -1)
        known = np.isin(categories, picture.known)
        x, y, right, bottom = _corners(found.boxes[known], self.format)
        (left, x_scale), (top, y_scale) = self._window(picture)
        sides = [(x - left) * x_scale, (y - top) * y_scale]
        sides += [(right - x).clip(0) * x_scale, (bottom - y).clip(0) * y_scale]
        return Found(np.stack(sides, axis=1), found.scores[known], categories[known])

    def _columns(self, outputs: Outputs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes [n, 4], scores [n] and classes [n], float64."""
        if not self.scores:
            rows = _rows(outputs, self.boxes, 6)
            return rows[:, :4], rows[:, 4], rows[:, 5]
        boxes = _rows(outputs, self.boxes, 4)
        if self.classes:
            surest = _column(outputs, self.scores, len(boxes))
            return boxes, surest, _column(outputs, self.classes, len(boxes))
        scores = _by_class(outputs, self.scores, len(boxes))
        if not scores.size:
            return boxes, np.zeros(0), np.zeros(0)
        return boxes, scores.max(axis=1), scores.argmax(axis=1).astype(np.float64)

    def _window(self, picture: Picture) -> tuple[tuple[float, float], tuple[float, float]]:
        """Offset and scale to the labelled picture's pixels, of x and of y."""
        if self.size == (0, 0):
            return (0.0, 1.0), (0.0, 1.0)
        (height, width), (high, wide) = self.size, picture.size
        inner_width, inner_height = width, height
        if self.fit != "exact":  # whole pixels, as the recipes' resize = "pad" has them
            if wide * height >= width * high:
                inner_height = max(1, (2 * high * width + wide) // (2 * wide))
            else:
                inner_width = max(1, (2 * wide * height + high) // (2 * high))
        centre = self.fit == "center"
        left, top = (width - inner_width) // 2 * centre, (height - inner_height) // 2 * centre
        return (left, wide / inner_width), (top, high / inner_height)


def make(options: Options) -> Convention:
    """The convention that a metric's options state."""
    boxes = options.required("boxes", "the output with the boxes")
    scores, classes = options.text("scores"), options.text("classes")
    if classes and not scores:
        raise options.wrong("classes", "without scores", "add scores=NAME")
    form = options.choice("format", *FORMATS, default="xyxy")
    size, fit = _size(options), options.choice("fit", *FITS, default="exact")
    if fit != "exact" and max(size) < 2:
        raise options.wrong("fit", f"{fit} needs the input's size", "add size=HEIGHTxWIDTH")
    first = options.text("first", "0")
    number = -1 if first == "id" else options.integer("first", 0, 0, 1 << 20)
    return Convention(boxes, scores, classes, form, size, fit, number)


def overlap(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of a box with others [n, 4], as x, y, width, height."""
    low = np.maximum(one[:2], others[:, :2])
    high = np.minimum(one[:2] + one[2:], others[:, :2] + others[:, 2:])
    shared = np.prod((high - low).clip(0), axis=1)
    area = one[2] * one[3] + others[:, 2] * others[:, 3] - shared
    return np.asarray(shared / np.maximum(area, 1e-30))


def _size(options: Options) -> tuple[int, int]:
    text = options.text("size")
    if not text:
        return 0, 0
    found = re.fullmatch(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", text)
    if not found:
        raise options.wrong("size", f"{text!r} is no size", "write HEIGHTxWIDTH, as in 640x640")
    return int(found[1]), int(found[2])


def _corners(boxes: np.ndarray, form: str) -> np.ndarray:
    """Boxes [n, 4] in one of FORMATS as left, top, right, bottom: [4, n]."""
    a, b, c, d = boxes.T
    if form == "cxcywh":
        return np.stack([a - c / 2, b - d / 2, a + c / 2, b + d / 2])
    if form == "xywh":
        return np.stack([a, b, a + c, b + d])
    return np.stack([b, a, d, c] if form == "yxyx" else [a, b, c, d])


def _place_in_class(classes: np.ndarray) -> np.ndarray:
    """How many of the same class stand before each."""
    _, inverse, often = np.unique(classes, return_inverse=True, return_counts=True)
    place = np.empty(len(classes), np.int64)
    starts = np.repeat(np.cumsum(often) - often, often)
    place[np.argsort(inverse, kind="stable")] = np.arange(len(classes)) - starts
    return place


def _number(outputs: Outputs, name: str) -> np.ndarray:
    (found,) = pick(outputs, 1, name, lambda a: a.dtype.kind in "fiu", "numbers")
    return found.astype(np.float64)


def _rows(outputs: Outputs, name: str, columns: int) -> np.ndarray:
    array = _number(outputs, name)
    if array.size and array.shape[-1:] != (columns,):
        raise _misshapen(outputs, name, f"[boxes, {columns}]")
    return array.reshape(-1, columns)


def _column(outputs: Outputs, name: str, boxes: int) -> np.ndarray:
    array = _number(outputs, name)
    if array.size != boxes:
        raise _misshapen(outputs, name, f"[boxes], of which there are {boxes}")
    return array.reshape(-1)


def _by_class(outputs: Outputs, name: str, boxes: int) -> np.ndarray:
    array = _number(outputs, name)
    if array.size == boxes or boxes == 1:
        return array.reshape(boxes, -1) if boxes else array.reshape(0, 1)
    if array.ndim < 2 or array.shape[-2] != boxes or array.size != boxes * array.shape[-1]:
        raise _misshapen(outputs, name, f"[boxes, classes], with {boxes} boxes")
    return array.reshape(boxes, -1)


def _misshapen(outputs: Outputs, name: str, shape: str) -> InputError:
    return InputError(
        f"output {name} has the shape {list(outputs[name].shape)}, not {shape}",
        hint="a detector's graph ends with its boxes, chosen by NonMaxSuppression",
    )
