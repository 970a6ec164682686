"""2,048 samples from the 64 of `peers`: other views of its pictures, other orders of its texts.

The first 64 are the originals. Every sample is a file of its own with arrays of its own; only some
short texts, which have few orders, come twice.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
from peers_types import Arrays

from edgec.runtime import npz

COUNT = 2048
SHIFT = 32  # pixels, at most, in either direction


def make(calibration: Path, into: Path) -> None:
    """Write `COUNT` files, `0000.npz` and so on."""
    originals = [npz.read(path, path.name) for path in sorted(calibration.glob("*.npz"))]
    partial = into.with_name(into.name + ".partial")
    for folder in (into, partial):
        shutil.rmtree(folder, ignore_errors=True)
    partial.mkdir(parents=True)
    for number in range(COUNT):
        view, index = divmod(number, len(originals))
        npz.write(partial / f"{number:04}.npz", varied(originals[index], view))
    partial.rename(into)


def varied(feeds: Arrays, view: int) -> Arrays:
    """A view of a sample, always the same one; view 0 is the sample itself."""
    if view == 0:
        return feeds
    rng = np.random.default_rng(view)
    if "input_ids" in feeds:
        return _text(feeds, rng)
    return {name: _picture(array, view, rng) for name, array in feeds.items()}


def _picture(array: np.ndarray, view: int, rng: np.random.Generator) -> np.ndarray:
    """[1, channels, height, width], shifted over its own reflection; odd views are mirrored."""
    *_, height, width = array.shape
    padded = np.pad(array, [(0, 0), (0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)], mode="reflect")
    top, left = rng.integers(0, 2 * SHIFT + 1, 2)
    part = padded[..., top : top + height, left : left + width]
    return np.ascontiguousarray(part[..., ::-1] if view % 2 else part)


def _text(feeds: Arrays, rng: np.random.Generator) -> Arrays:
    """Half of a text's tokens or more, in another order, between its first and its last."""
    ids, mask = feeds["input_ids"], np.zeros_like(feeds["attention_mask"])
    length = int(feeds["attention_mask"].sum())
    inner = rng.permutation(ids[0, 1 : length - 1])
    kept = inner[: rng.integers((len(inner) + 1) // 2, len(inner) + 1)]
    row = np.full_like(ids, ids[0, -1] if length < ids.shape[1] else 0)
    row[0, : len(kept) + 2] = [ids[0, 0], *kept, ids[0, length - 1]]
    mask[0, : len(kept) + 2] = 1
    return {**feeds, "input_ids": row, "attention_mask": mask}


def first(samples: Path, count: int, into: Path) -> Path:
    """A folder with the first `count` samples, as links."""
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    for path in sorted(samples.glob("*.npz"))[:count]:
        os.link(path, into / path.name)
    return into
