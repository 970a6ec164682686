"""Labels of a detector: COCO JSON, https://cocodataset.org/#format-data, "Object Detection".

{"images": [{"id", "file_name", "width", "height"}], "categories": [{"id"}],
 "annotations": [{"image_id", "category_id", "bbox": [x, y, width, height], "iscrowd"}]}

Boxes are in pixels from the upper left corner. Other keys are not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgec.errors import InputError
from edgec.metrics.labels import Row, decoded, parsed

HINT = "give COCO JSON of object detection: images, annotations and categories"
MOST_PIXELS = 1 << 24  # of a side
MOST_ID = 1 << 53  # pycocotools holds ids in float64


@dataclass(frozen=True)
class Picture:
    """The objects of a picture: boxes [n, 4] as x, y, width, height, category and crowd [n].

    `size`: height and width, 0 where the file does not tell; `known`: all categories, ascending.
    """

    boxes: np.ndarray
    categories: np.ndarray
    crowd: np.ndarray
    size: tuple[int, int]
    known: tuple[int, ...]


def read(path: Path) -> list[Row]:
    """A `Picture` for each entry of images. Raises InputError naming file and entry."""
    page = parsed(decoded(path), str(path), HINT)
    known = {_whole(path, where, row, "id") for where, row in _entries(path, page, "categories")}
    if not known:
        raise InputError(f"{path}: categories is empty", hint=HINT)
    objects: dict[int, list[tuple[list[float], int, bool]]] = {}
    images: dict[int, tuple[str, str, tuple[int, int]]] = {}
    names = set()
    for where, row in _entries(path, page, "images"):
        key, name = _whole(path, where, row, "id"), row.get("file_name")
        if not isinstance(name, str) or not name or key in images or name in names:
            what = "id" if key in images else "file_name"
            raise InputError(f"{path}: {where}.{what} is missing or stands there twice", hint=HINT)
        names.add(name)
        height, width = (_side(path, where, row, side) for side in ("height", "width"))
        images[key], objects[key] = (name, f"{path}, {where}", (height, width)), []
    for where, row in _entries(path, page, "annotations"):
        key, category = (_whole(path, where, row, one) for one in ("image_id", "category_id"))
        for one, among, table in ((key, images, "images"), (category, known, "categories")):
            if one not in among:
                raise InputError(f"{path}: {where}: {table} has no id {one}", hint=HINT)
        objects[key].append((_box(path, where, row), category, row.get("iscrowd") in (1, True)))
    return [
        Row(name, _picture(objects[key], size, tuple(sorted(known))), where)
        for key, (name, where, size) in images.items()
    ]


def _picture(
    objects: list[tuple[list[float], int, bool]], size: tuple[int, int], known: tuple[int, ...]
) -> Picture:
    return Picture(
        np.array([one[0] for one in objects], np.float64).reshape(-1, 4),
        np.array([one[1] for one in objects], np.int64),
        np.array([one[2] for one in objects], np.bool_),
        size,
        known,
    )


def _entries(path: Path, page: Any, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The objects of a list, each with its place."""
    rows = page.get(name) if isinstance(page, dict) else None
    if not isinstance(rows, list):
        raise InputError(f"{path}: there is no list {name!r}", hint=HINT)
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InputError(f"{path}: {name}[{index}] is no object", hint=HINT)
        yield f"{name}[{index}]", row


def _whole(path: Path, where: str, row: Mapping[str, Any], key: str) -> int:
    value = row.get(key)
    if type(value) is not int or not 0 <= value < MOST_ID:
        raise InputError(
            f"{path}: {where}.{key}: {str(value)[:80]} is no whole number from 0", hint=HINT
        )
    return value


def _side(path: Path, where: str, row: Mapping[str, Any], key: str) -> int:
    """A picture's height or width, 0 where the file does not tell."""
    found = _whole(path, where, row, key) if key in row else 0
    if found > MOST_PIXELS:
        raise InputError(f"{path}: {where}.{key}: {found} pixels", hint=HINT)
    return found


def _box(path: Path, where: str, row: Mapping[str, Any]) -> list[float]:
    box: Any = row.get("bbox")
    usable = isinstance(box, list) and len(box) == 4
    # a comparison with NaN is false
    usable = usable and all(type(x) in (int, float) and abs(x) <= MOST_PIXELS for x in box)
    if not usable or min(box[2:]) < 0:
        raise InputError(
            f"{path}: {where}.bbox: {str(box)[:80]} is no box",
            hint="a box is [x, y, width, height] in pixels",
        )
    return [float(x) for x in box]
