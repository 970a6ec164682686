"""COCO JSON as labels, and what is none."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec.errors import InputError
from edgec.metrics.labels import Wants, read

FILES = [Path("a/street.npz"), Path("a/house.npz")]
PAGE: dict[str, Any] = {
    "info": {"year": 2026},
    "images": [
        {"id": 7, "file_name": "val/house.jpg", "width": 640, "height": 480},
        {"id": 0, "file_name": "street.npz"},
        {"id": 9, "file_name": "other.jpg", "width": 1, "height": 1},
    ],
    "categories": [{"id": 3, "name": "cat"}, {"id": 1, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2.5, 3, 4], "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 1, "bbox": [5, 6, 7, 8], "iscrowd": 1},
        {"id": 3, "image_id": 9, "category_id": 1, "bbox": [0, 0, 1, 1]},
    ],
}


def write(tmp_path: Path, page: Any) -> Path:
    path = tmp_path / "instances.json"
    path.write_text(page if isinstance(page, str) else json.dumps(page))
    return path


def test_pictures(tmp_path: Path) -> None:
    found = read(write(tmp_path, PAGE), Wants.PICTURES, FILES).spread([1, 1])
    street, house = found.values
    assert street.boxes.shape == (0, 4)
    assert street.size == (0, 0)
    assert house.boxes.tolist() == [[1, 2.5, 3, 4], [5, 6, 7, 8]]
    assert house.categories.tolist() == [3, 1]
    assert house.crowd.tolist() == [False, True]
    assert house.size == (480, 640)
    assert street.known == house.known == (1, 3)
    assert "images[0]" in found.given[1].where


def changed(place: str, value: Any) -> Any:
    """PAGE with another value at images.0.id, or without it where the value is `...`."""
    page: Any = copy.deepcopy(PAGE)
    *path, last = place.split(".")
    inner = page
    for key in path:
        inner = inner[int(key) if key.isdigit() else key]
    if value is ...:
        del inner[last]
    else:
        inner[int(last) if last.isdigit() else last] = value
    return page


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("images", ..., "there is no list 'images'"),
        ("categories", {}, "there is no list 'categories'"),
        ("categories", [], "categories is empty"),
        ("annotations", ..., "there is no list 'annotations'"),
        ("images.1", 3, r"images\[1\] is no object"),
        ("images.1.id", ..., r"images\[1\]\.id: None is no whole number"),
        ("images.1.id", True, r"images\[1\]\.id: True is no whole number"),
        ("images.1.id", "0", r"images\[1\]\.id: 0 is no whole number"),
        ("images.1.id", 10**300, r"images\[1\]\.id: 10+ is no whole number"),
        ("images.1.id", 7, r"images\[1\]\.id is missing or stands there twice"),
        ("images.1.file_name", ..., r"images\[1\]\.file_name is missing"),
        ("images.1.file_name", "other.jpg", r"images\[2\]\.file_name is missing or stands there"),
        ("images.0.width", -1, r"images\[0\]\.width: -1 is no whole number"),
        ("images.0.height", 10**9, r"images\[0\]\.height: 10+ pixels"),
        ("images.0.file_name", "barn.jpg", r"no label for house\.npz; .*'barn.jpg' is no sample"),
        ("annotations.0.image_id", 8, r"annotations\[0\]: images has no id 8"),
        ("annotations.1.category_id", 2, r"annotations\[1\]: categories has no id 2"),
        ("annotations.2.bbox", ..., r"annotations\[2\]\.bbox: None is no box"),
        ("annotations.2.bbox", [1, 2, 3], r"annotations\[2\]\.bbox: \[1, 2, 3\] is no box"),
        ("annotations.2.bbox", [1, 2, -3, 4], r"annotations\[2\]\.bbox"),
        ("annotations.2.bbox", [1, 2, 3, float("nan")], r"annotations\[2\]\.bbox: .*nan"),
        ("annotations.2.bbox", [1, 2, 3, float("inf")], r"annotations\[2\]\.bbox: .*inf"),
        ("annotations.2.bbox", [1, 2, 3, 10**300], r"annotations\[2\]\.bbox"),
        ("annotations.2.bbox", [1, 2, 3, "4"], r"annotations\[2\]\.bbox"),
        ("annotations.2.bbox", "box", r"annotations\[2\]\.bbox: box is no box"),
    ],
)
def test_what_is_no_coco_json(place: str, value: Any, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, changed(place, value))
    with pytest.raises(InputError, match=message) as caught:
        read(path, Wants.PICTURES, FILES)
    assert caught.value.message.startswith(str(path))
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100_000, '{"images": 1' + "0" * 5000])
def test_broken_json(text: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=r"not JSON|there is no list") as caught:
        read(path, Wants.PICTURES, FILES)
    assert caught.value.message.startswith(str(path))


def test_boxes_keep_their_precision(tmp_path: Path) -> None:
    page = changed("annotations.0.bbox", [0.1, 1 / 3, 2.0, 0])
    house = read(write(tmp_path, page), Wants.PICTURES, FILES).spread([1, 1]).values[1]
    assert house.boxes[0].tolist() == [0.1, 1 / 3, 2.0, 0.0]
    assert house.boxes.dtype == np.float64
