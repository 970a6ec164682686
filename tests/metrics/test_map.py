"""mAP by hand, against COCOeval's own sums, and under what must leave it alone."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from labelled import ALL, FAR, SQUARE, Box, coco, picture

from edgec.errors import ToolchainError
from edgec.metrics import metric
from edgec.metrics.boxes import Found
from edgec.metrics.coco import Picture
from edgec.metrics.map import average_precision, match


def found(boxes: Sequence[Box], scores: Sequence[float], classes: Sequence[int]) -> Found:
    return Found(
        np.array(boxes, np.float64).reshape(-1, 4), np.array(scores, float), np.array(classes, int)
    )


def both(detections: Sequence[Found], pictures: Sequence[Picture]) -> tuple[float, float]:
    matches = match(detections, pictures)
    return average_precision(matches), average_precision(matches, 1)


# by hand: x, y, width, height; the IoU of two equal boxes shifted by d of their width w
# is (w - d) / (w + d): 0.72… for 10 and 1.6, that is, above 0.50 to 0.70 but not 0.75 and on.

SHIFTED = [11.6, 10.0, 10.0, 10.0]


def test_all_found() -> None:
    pictures = [picture([SQUARE], [1]), picture([FAR, SQUARE], [1, 2])]
    right = [found([SQUARE], [0.9], [1]), found([FAR, SQUARE], [0.3, 0.6], [1, 2])]
    assert both(right, pictures) == pytest.approx((1, 1))


def test_nothing_found_and_nothing_to_find() -> None:
    empty = found([], [], [])
    assert both([empty], [picture([SQUARE], [1])]) == (0, 0)
    assert np.isnan(both([empty], [picture([], [])])).all()
    assert np.isnan(both([found([SQUARE], [0.9], [1])], [picture([], [])])).all()


def test_a_false_detection_between_two_right_ones() -> None:
    pictures = [picture([SQUARE, FAR], [1, 1]), picture([], [])]
    detections = [found([SQUARE, FAR], [0.9, 0.7], [1, 1]), found([SQUARE], [0.8], [1])]
    # precision 1 to a recall of 0.5, which 51 of 101 thresholds do not exceed, then 2/3
    expected = (51 + 50 * 2 / 3) / 101
    assert both(detections, pictures) == pytest.approx((expected, expected))
    # surer than all, it spoils the whole: 0, 1/2, 2/3
    first = [detections[0], found([SQUARE], [0.95], [1])]
    assert both(first, pictures)[1] == pytest.approx(2 / 3)
    # less sure than all, it costs nothing
    last = [detections[0], found([SQUARE], [0.1], [1])]
    assert both(last, pictures)[1] == pytest.approx(1)


def test_a_box_that_is_a_little_off() -> None:
    pictures = [picture([SQUARE, FAR], [1, 1])]
    detections = [found([SHIFTED, FAR], [0.9, 0.8], [1, 1])]
    # five IoUs match both; at the other five the first is false: recall ends at 1/2, precision 1/2
    assert both(detections, pictures) == pytest.approx(((1 + 51 / 101 / 2) / 2, 1))


def test_an_object_is_found_once_and_by_its_own_class() -> None:
    pictures = [picture([SQUARE], [1])]
    twice = [found([SQUARE, SQUARE], [0.9, 0.8], [1, 1])]
    assert both(twice, pictures) == pytest.approx((1, 1))
    assert both([found([SQUARE], [0.9], [2])], pictures) == (0, 0)


def test_a_crowd_is_neither_found_nor_missed() -> None:
    pictures = [picture([SQUARE, FAR], [1, 1], crowd=[True, False])]
    assert both([found([SQUARE, FAR], [0.9, 0.8], [1, 1])], pictures) == pytest.approx((1, 1))
    assert both([found([FAR], [0.8], [1])], pictures) == pytest.approx((1, 1))


def test_a_class_without_objects_has_no_say() -> None:
    pictures = [picture([SQUARE], [1])]
    assert both([found([SQUARE, FAR], [0.5, 0.9], [1, 2])], pictures) == pytest.approx((1, 1))


# against COCOeval


def scene(seed: int, count: int = 30) -> tuple[list[Found], list[Picture]]:
    """Pictures of three classes, crowds among them, and detections that are about right."""
    rng = np.random.default_rng(seed)
    detections, pictures = [], []
    for _ in range(count):
        n, more = int(rng.integers(0, 6)), int(rng.integers(0, 5))
        boxes = np.concatenate([rng.uniform(0, 80, (n, 2)), rng.uniform(10, 40, (n, 2))], axis=1)
        classes = rng.integers(1, 4, n)
        crowd = (rng.random(n) < 0.1).tolist()
        pictures.append(picture(boxes, classes, crowd=crowd, known=(1, 2, 3)))
        false = np.concatenate([rng.uniform(0, 80, (more, 2)), np.full((more, 2), 20)], axis=1)
        shaken = np.concatenate([boxes + rng.normal(0, 2, boxes.shape), false])
        scores = rng.random(n + more) * np.where(np.arange(n + more) < n, 1, 0.8)
        detections.append(found(shaken, scores, [*classes, *rng.integers(1, 4, more)]))
    return detections, pictures


@pytest.mark.parametrize("seed", range(4))
def test_the_sums_are_those_of_cocoeval(seed: int) -> None:
    detections, pictures = scene(seed)
    expected = coco(detections, pictures)
    assert 0.1 < expected[0] < expected[1] < 0.95
    assert both(detections, pictures) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_a_resample_is_as_good_as_its_pictures_again(seed: int) -> None:
    detections, pictures = scene(seed)
    pick = np.random.default_rng(seed).integers(0, len(pictures), len(pictures))
    resampled = match(detections, pictures)[pick]
    assert len(resampled) == len(pictures)
    again = [detections[i] for i in pick], [pictures[i] for i in pick]
    assert average_precision(resampled) == pytest.approx(coco(*again)[0])
    assert average_precision(resampled, 1) == pytest.approx(coco(*again)[1])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_bounds_and_what_leaves_it_alone(seed: int) -> None:
    detections, pictures = scene(seed, 6)
    first = both(detections, pictures)
    assume(not np.isnan(first[0]))
    assert 0 <= first[0] <= first[1] <= 1
    squeezed = [Found(one.boxes, one.scores**3, one.classes) for one in detections]
    assert both(squeezed, pictures) == pytest.approx(first)
    order = np.random.default_rng(seed).permutation(6)
    turned = [detections[i] for i in order], [pictures[i] for i in order]
    assert both(*turned) == pytest.approx(first)
    perfect = [Found(p.boxes, np.ones(len(p.boxes)), p.categories) for p in pictures]
    assert both(perfect, pictures) == pytest.approx((1, 1))


def test_the_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.cocoeval", None)
    with pytest.raises(ToolchainError, match="the metric map needs the package pycocotools") as one:
        metric(ALL)
    assert "pip install pycocotools" in one.value.hint
