"""Mean average precision of a detector, as COCO defines it.

AP of a class at an IoU: the mean, over the recalls 0, 0.01, … 1, of the highest precision at that
recall or beyond. mAP: the mean over classes that have objects and over the IoUs 0.50, 0.55, … 0.95;
AP50: at IoU 0.50 alone. https://cocodataset.org/#detection-eval. pycocotools matches detections
with objects, a picture at a time; resampled pictures are summed up here, from these same matches.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from edgec.metrics import Measure, Metric, Scored
from edgec.metrics.boxes import MOST, Convention, Found, overlap
from edgec.metrics.boxes import make as convention
from edgec.metrics.coco import Picture
from edgec.metrics.labels import Labels, Wants
from edgec.metrics.options import Options
from edgec.runtime.reading import require

RESAMPLES = 500
IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
SAME_IOU = 0.5


@dataclass(frozen=True)
class ClassMatches:
    """A class's detections in all pictures, the surest first, and how many objects it has.

    `picture` [d]: which one; `hit` and `counts` [ious, d]: whether a detection matches an object,
    and whether it counts (one of a crowd does not); `objects` [pictures].
    """

    picture: np.ndarray
    hit: np.ndarray
    counts: np.ndarray
    objects: np.ndarray


@dataclass(frozen=True)
class Matches:
    """All classes; `weights` [pictures]: how often each picture counts.

    Indexed with an array of pictures, each counts as often as it stands there.
    """

    classes: tuple[ClassMatches, ...]
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, pick: np.ndarray) -> Matches:
        return replace(self, weights=np.bincount(pick, minlength=len(self)).astype(np.float64))


def make(options: Options) -> Metric:
    """mAP and AP50. Raises ToolchainError without pycocotools."""
    require("pycocotools.cocoeval", "pycocotools", "the metric map")
    reading = convention(options)
    threshold = options.number("threshold", 0.5)
    return Metric(
        name=options.metric,
        labels=Wants.PICTURES,
        take=reading.take,
        score=partial(_score, reading=reading, threshold=threshold),
        measures=(
            Measure("mAP", average_precision, RESAMPLES),
            Measure("AP50", partial(average_precision, ious=1), RESAMPLES),
        ),
        answer="objects",
        agreement=same_objects,
    )


def average_precision(matches: Matches, ious: int = len(IOUS)) -> float:
    """The mean over classes that have objects, and over the first IoUs; NaN without any object."""
    found = []
    for one in matches.classes:
        objects = float(matches.weights @ one.objects)
        if objects:
            weights = matches.weights[one.picture] * one.counts[:ious]
            hits = np.cumsum(weights * one.hit[:ious], axis=1)
            all_counted = np.cumsum(weights, axis=1)
            precision = hits / (all_counted + np.spacing(1))
            best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            found += [_interpolated(h / objects, p) for h, p in zip(hits, best, strict=True)]
    return float(np.mean(found)) if found else float("nan")


def _interpolated(recall: np.ndarray, precision: np.ndarray) -> float:
    """The mean precision at RECALLS; 0 at those that are not reached."""
    place = np.searchsorted(recall, RECALLS, side="left")
    return float(precision[place[place < len(recall)]].sum() / len(RECALLS))


def match(found: Sequence[Found], pictures: Sequence[Picture]) -> Matches:
    """Detections with objects, by pycocotools."""
    evaluation = evaluate(found, pictures)
    count = len(pictures)
    cells = evaluation.evalImgs  # classes by pictures, None where there is nothing of a class
    rows = [cells[start : start + count] for start in range(0, len(cells), count)]
    classes = tuple(_gathered(row) for row in rows if any(row))
    return Matches(classes, np.ones(count))


def evaluate(found: Sequence[Found], pictures: Sequence[Picture]) -> Any:
    """A `COCOeval` that has matched but not yet summed up, for objects of any size."""
    coco = require("pycocotools.coco", "pycocotools", "the metric map").COCO
    objects: list[Any] = []
    detections: list[Any] = []
    for number, (one, picture) in enumerate(zip(found, pictures, strict=True), 1):
        columns = (picture.boxes, picture.categories, picture.crowd)
        for box, category, crowd in zip(*(c.tolist() for c in columns), strict=True):
            objects.append(_annotation(objects, number, box, category, iscrowd=int(crowd)))
        columns = (one.boxes, one.classes, one.scores)
        for box, category, score in zip(*(c.tolist() for c in columns), strict=True):
            detections.append(_annotation(detections, number, box, category, score=score))
    sides = []
    with contextlib.redirect_stdout(io.StringIO()):  # it reports its steps
        for annotations in (objects, detections):
            side = coco()
            side.dataset = {
                "images": [{"id": number} for number in range(1, len(pictures) + 1)],
                "categories": [{"id": category} for category in pictures[0].known],
                "annotations": annotations,
            }
            side.createIndex()
            sides.append(side)
        module = require("pycocotools.cocoeval", "pycocotools", "the metric map")
        evaluation = module.COCOeval(*sides, "bbox")
        evaluation.params.iouThrs = IOUS
        evaluation.params.recThrs = RECALLS
        evaluation.params.maxDets = [MOST]
        evaluation.params.areaRng = [[0, 1e10]]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.evaluate()
    return evaluation


def _annotation(
    others: Sequence[Any], picture: int, box: Sequence[float], category: int, **more: Any
) -> Mapping[str, Any]:
    """Ids count from 1, because a match with id 0 reads as none; no size is too large to count."""
    return {
        "id": len(others) + 1,
        "image_id": picture,
        "category_id": category,
        "bbox": box,
        "area": 1.0,
        "iscrowd": 0,
        **more,
    }


def _gathered(cells: Sequence[Any]) -> ClassMatches:
    """One class's results in the order of falling scores; of equal ones, in order of pictures."""
    filled = [(place, cell) for place, cell in enumerate(cells) if cell]
    picture = np.concatenate([np.full(len(cell["dtScores"]), place) for place, cell in filled])
    scores = np.concatenate([cell["dtScores"] for _, cell in filled])
    order = np.argsort(-scores, kind="stable")
    objects = np.zeros(len(cells))
    for place, cell in filled:
        objects[place] = np.count_nonzero(cell["gtIgnore"] == 0)
    return ClassMatches(
        picture=picture[order].astype(np.int64),
        hit=np.concatenate([cell["dtMatches"] != 0 for _, cell in filled], axis=1)[:, order],
        counts=np.concatenate([cell["dtIgnore"] == 0 for _, cell in filled], axis=1)[:, order],
        objects=objects,
    )


def _score(taken: Sequence[Found], labels: Labels, reading: Convention, threshold: float) -> Scored:
    pictures: list[Picture] = labels.values
    for index, picture in enumerate(pictures):
        if reading.size != (0, 0) and not all(picture.size):
            raise labels.wrong(
                index,
                "no width and height, which size= scales boxes to",
                "add them to the entry of images",
            )
    placed = [reading.place(one, picture) for one, picture in zip(taken, pictures, strict=True)]
    return Scored(match(placed, pictures), [one.above(threshold) for one in placed])


def same_objects(one: Scored, other: Scored) -> float:
    """The share of pictures whose sure detections pair up: equal class, IoU of 0.5 or more."""
    return float(np.mean([_paired(x, y) for x, y in zip(one.answers, other.answers, strict=True)]))


def _paired(one: Found, other: Found) -> bool:
    """Each box, the surest first, takes the nearest that is left.

    Equal boxes are as near as can be, also where they have no area.
    """
    if sorted(one.classes) != sorted(other.classes):
        return False
    left = np.ones(len(other.classes), np.bool_)
    for box, category in zip(one.boxes, one.classes, strict=True):
        near = np.where((other.boxes == box).all(axis=1), 1.0, overlap(box, other.boxes))
        near = near * left * (other.classes == category)
        if near.max() < SAME_IOU:
            return False
        left[near.argmax()] = False
    return True
