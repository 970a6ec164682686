"""Which outputs are boxes, scores and classes, and what their numbers mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from labelled import ALL, FAR, SQUARE, by_file, labels, picture
from PIL import Image

from edgec.errors import InputError
from edgec.metrics import metric
from edgec.metrics.boxes import Found, make, overlap
from edgec.metrics.options import Options
from edgec.runtime.read_image import resize

CORNERS = np.array([[10, 20, 40, 60], [0, 0, 5, 5]], np.float32)
SCORES = np.array([0.5, 0.75], np.float32)
CLASSES = np.array([1, 0], np.int64)


def convention(text: str) -> Any:
    return make(Options("map", text))


def taken(text: str, **outputs: np.ndarray) -> Found:
    (one,) = convention(text).take(outputs, 1)
    assert isinstance(one, Found)
    return one


def same(one: Found) -> None:
    """The surest first."""
    assert one.scores.tolist() == [0.75, 0.5]
    assert one.classes.tolist() == [0, 1]
    assert one.boxes.tolist() == CORNERS[::-1].tolist()


@pytest.mark.parametrize("batch", [True, False])
def test_three_outputs(batch: bool) -> None:
    arrays = {"b": CORNERS, "s": SCORES, "c": CLASSES}
    if batch:
        arrays = {name: array[None] for name, array in arrays.items()}
    same(taken("boxes=b,scores=s,classes=c", **arrays))
    same(taken("boxes=b,scores=s,classes=c", **{**arrays, "c": arrays["c"].astype(np.float32)}))


@pytest.mark.parametrize("batch", [True, False])
def test_scores_by_class(batch: bool) -> None:
    table = np.array([[0.25, 0.5, 0.0], [0.75, 0.125, 0.5]], np.float32)
    arrays = {"b": CORNERS, "s": table}
    if batch:
        arrays = {name: array[None] for name, array in arrays.items()}
    same(taken("boxes=b,scores=s", **arrays))
    one_class = taken("boxes=b,scores=s", b=CORNERS, s=SCORES)
    assert one_class.classes.tolist() == [0, 0]


@pytest.mark.parametrize("batch", [True, False])
def test_one_output(batch: bool) -> None:
    table = np.concatenate([CORNERS, SCORES[:, None], CLASSES[:, None]], axis=1).astype(np.float32)
    same(taken("boxes=found", found=table[None] if batch else table))


@pytest.mark.parametrize("count", [0, 1])
def test_few_detections(count: int) -> None:
    for lead in ((), (1,)):
        arrays = {"b": CORNERS[:count], "s": SCORES[:count], "c": CLASSES[:count]}
        arrays = {name: a.reshape(*lead, *a.shape) for name, a in arrays.items()}
        one = taken("boxes=b,scores=s,classes=c", **arrays)
        assert one.boxes.shape == (count, 4)
        table = np.zeros((*lead, count, 3), np.float32) + 0.5
        assert taken("boxes=b,scores=s", b=arrays["b"], s=table).classes.tolist() == [0] * count


def test_padding_is_left_out() -> None:
    boxes = np.tile(CORNERS[:1], (6, 1))
    boxes[3] = np.nan
    scores = np.array([0.9, 0.0, np.nan, 0.8, 0.7, 0.6], np.float32)
    classes = np.array([2, 0, 0, 0, -1, 1])
    one = taken("boxes=b,scores=s,classes=c", b=boxes, s=scores, c=classes)
    assert one.classes.tolist() == [2, 1]
    table = np.array([[0.5, np.nan], [0.25, 0.5]])
    assert taken("boxes=b,scores=s", b=CORNERS, s=table).classes.tolist() == [1]


def test_only_the_surest_hundred_of_a_class_count() -> None:
    rng = np.random.default_rng(0)
    scores, classes = rng.random(300), rng.integers(0, 2, 300)
    one = taken("boxes=b,scores=s,classes=c", b=np.ones((300, 4)), s=scores, c=classes)
    for number in (0, 1):
        kept = one.scores[one.classes == number]
        assert kept.tolist() == sorted(scores[classes == number], reverse=True)[:100]


@pytest.mark.parametrize(
    ("text", "outputs", "message"),
    [
        ("boxes=x", {"b": CORNERS}, "no output 'x'"),
        ("boxes=b", {"b": CORNERS}, r"output b has the shape \[2, 4\], not \[boxes, 6\]"),
        ("boxes=b,scores=s", {"b": CORNERS.T, "s": SCORES}, r"b has the shape \[4, 2\]"),
        ("boxes=b,scores=s", {"b": CORNERS, "s": np.zeros((3, 2))}, r"s has the shape \[3, 2\]"),
        ("boxes=b,scores=s,classes=c", {"b": CORNERS, "s": SCORES, "c": np.zeros(3)}, "c has"),
        ("boxes=b,scores=s", {"b": CORNERS, "s": 4 * SCORES}, "from 2 to 3 are no probabilities"),
        ("boxes=b,scores=s", {"b": CORNERS, "s": -SCORES}, "are no probabilities"),
    ],
)
def test_outputs_that_are_otherwise(
    text: str, outputs: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        taken(text, **outputs)
    assert caught.value.hint


def test_one_picture_a_file() -> None:
    with pytest.raises(InputError, match="a file with 2 samples"):
        convention("boxes=b").take({"b": np.zeros((2, 5, 6))}, 2)


# places

BOX = [30.0, 10.0, 20.0, 40.0]  # x, y, width, height in a picture of 60 x 100


@pytest.mark.parametrize(
    ("form", "numbers"),
    [
        ("xyxy", [30, 10, 50, 50]),
        ("xywh", [30, 10, 20, 40]),
        ("cxcywh", [40, 30, 20, 40]),
        ("yxyx", [10, 30, 50, 50]),
    ],
)
def test_formats_and_sizes(form: str, numbers: list[float]) -> None:
    where = picture([], [], size=(60, 100))
    detection = Found(np.array([numbers], float), np.ones(1), np.zeros(1, int))
    own = convention(f"boxes=b,format={form}").place(detection, where)
    assert own.boxes.tolist() == [BOX]
    across = np.array([100, 60, 100, 60] if form != "yxyx" else [60, 100, 60, 100])
    shares = Found(detection.boxes / across, detection.scores, detection.classes)
    placed = convention(f"boxes=b,format={form},size=1x1").place(shares, where)
    assert placed.boxes == pytest.approx(np.array([BOX]))
    stretched = Found(shares.boxes * 320, detection.scores, detection.classes)
    placed = convention(f"boxes=b,format={form},size=320x320").place(stretched, where)
    assert placed.boxes == pytest.approx(np.array([BOX]))


@pytest.mark.parametrize("fit", ["exact", "center", "corner"])
@pytest.mark.parametrize("size", [(60, 100), (100, 60), (37, 91)])
def test_places_are_those_of_the_recipes_pictures(fit: str, size: tuple[int, int]) -> None:
    """A rectangle is drawn, the picture made into an input, and the rectangle found there."""
    height, width = size
    x, y, w, h = 12, 9, 20, 18
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[y : y + h, x : x + w] = 255
    spec = {
        "interpolation": "bilinear",
        "size": [320, 256],
        "resize": "exact" if fit == "exact" else "pad",
        "place": fit,
        "fill": [0, 0, 0],
    }
    seen = np.asarray(resize(Image.fromarray(pixels), spec, "picture"))[:, :, 0] > 127
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    edges = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    detection = Found(np.array([edges], float), np.ones(1), np.zeros(1, int))
    placed = convention(f"boxes=b,size=320x256,fit={fit}").place(
        detection, picture([], [], size=size)
    )
    assert placed.boxes[0] == pytest.approx([x, y, w, h], abs=0.6)


@pytest.mark.parametrize(
    ("first", "expected"), [("0", [3, 7, 9]), ("1", [3, 7, 9]), ("2", [3, 7]), ("id", [3])]
)
def test_numbers_of_classes(first: str, expected: list[int]) -> None:
    where = picture([], [], known=(3, 7, 9))
    detection = Found(np.ones((4, 4)), np.ones(4), np.array([0, 1, 2, 3]))
    placed = convention(f"boxes=b,first={first}").place(detection, where)
    assert placed.classes.tolist() == expected


def test_a_size_needs_the_pictures_own() -> None:
    made = metric("map:boxes=b,size=1x1")
    files = made.take({"b": np.zeros((1, 0, 6))}, 1)
    with pytest.raises(InputError, match=r"labels\.csv, line 1: no width and height"):
        made.score(files, labels([picture([SQUARE], [1])]))


def test_overlap() -> None:
    others = np.array([SQUARE, [15, 10, 10, 10], FAR, [10, 10, 0, 0], [12, 12, 2, 2]])
    assert overlap(np.array(SQUARE), others) == pytest.approx([1, 1 / 3, 0, 0, 0.04])


# through the metric


def outputs(*rows: tuple[list[float], float, int]) -> dict[str, np.ndarray]:
    """Detections as x, y, width, height; a model's outputs without a batch."""
    return {
        "b": np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        "s": np.array([row[1] for row in rows], np.float32),
        "c": np.array([row[2] for row in rows], np.float32),
    }


def test_figures_and_agreement() -> None:
    truth = [picture([SQUARE], [1]), picture([SQUARE, FAR], [2, 1]), picture([], [])]
    first = [
        outputs((SQUARE, 0.9, 0)),
        outputs((FAR, 0.9, 0), (SQUARE, 0.8, 1)),
        outputs((FAR, 0.3, 1)),
    ]
    near = [SQUARE[0] + 0.2, *SQUARE[1:]]
    second = [
        outputs((near, 0.8, 0)),  # the same object
        outputs((FAR, 0.9, 0), (SQUARE, 0.4, 1)),  # one is no longer sure
        outputs(),  # nothing sure in either
    ]
    figures = by_file(ALL + ",format=xywh", first, second, truth)
    assert [one.metric for one in figures] == ["mAP", "AP50"]
    assert [one.original for one in figures] == pytest.approx([1, 1])
    assert [one.built for one in figures] == pytest.approx([1, 1])
    for one in figures:
        assert one.samples == 3
        assert one.agreement == pytest.approx(2 / 3)
        assert one.agreement_kind == "objects"
        assert one.low <= one.difference <= one.high
    (bolder, _) = by_file(ALL + ",format=xywh,threshold=0.3", first, second, truth)
    assert bolder.agreement == pytest.approx(2 / 3)
    (bold, _) = by_file(ALL + ",format=xywh,threshold=0.35", first, second, truth)
    assert bold.agreement == 1
    other = [outputs((SQUARE, 0.9, 1)), *first[1:]]
    (third, _) = by_file(ALL + ",format=xywh", first, other, truth)
    assert third.agreement == pytest.approx(2 / 3)


def test_a_box_without_area_agrees_with_itself() -> None:
    one = [outputs(([5.0, 5.0, 0.0, 0.0], 0.9, 0))]
    figures = by_file(ALL + ",format=xywh", one, one, [picture([SQUARE], [1])])
    assert [found.agreement for found in figures] == [1, 1]
    assert figures[0].original == 0
