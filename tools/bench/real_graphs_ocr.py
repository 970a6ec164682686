"""Pictures of known text, and what the three PP-OCR models must find in them.

The preparation of pictures and the decoding follow RapidOCR 3.10 (Apache-2.0): pixels to [-1, 1],
lines 48 high, CTC with the blank as class 0 and the space as the last, thresholds of the detector.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Array = np.ndarray
Run = Callable[[Array], Array]
Box = tuple[float, float, float, float]  # left, top, right, bottom

FACES = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf")
CALIBRATE, VERIFY = "calibrate", "verify"
WORDS = {
    CALIBRATE: "anchor bridge candle desert engine forest garden harbor island jungle kettle "
    "ladder market needle orange pepper quiver rocket saddle temple urgent velvet window "
    "yellow acorn basket cinema dragon fabric guitar hammer insect jacket lemon mirror napkin",
    VERIFY: "almond butter copper dinner effort figure glider hollow impact jigsaw kernel lizard "
    "magnet nickel onion parrot quartz ribbon silver tunnel update valley walnut xenon "
    "bottle circle divide empire finger ground height invoice juice kitchen letter museum",
}
SEEDS = {CALIBRATE: 1, VERIFY: 2}
PAGES = ((480, 640), (640, 480), (512, 512))
PROBABILITY, BOX_SCORE, UNCLIP, OVERLAP = 0.3, 0.5, 1.6, 0.5


@dataclass(frozen=True)
class Line:
    """One line of text as a picture [height, width, 3] of uint8."""

    text: str
    picture: Array


@dataclass(frozen=True)
class Page:
    """A picture [height, width, 3] of uint8 and the boxes of the ink of its lines."""

    picture: Array
    boxes: tuple[Box, ...]


def fonts(folders: Sequence[Path]) -> list[Path]:
    """The DejaVu faces in the first folder that has them all."""
    for folder in folders:
        found = [folder / face for face in FACES]
        if all(path.is_file() for path in found):
            return found
    raise FileNotFoundError("no DejaVu fonts: install Debian's fonts-dejavu-core, or matplotlib")


def lines(split: str, count: int, faces: Sequence[Path]) -> Iterator[Line]:
    """Words and figures in different faces and colours; the splits share no word."""
    rng = np.random.default_rng(SEEDS[split])
    for _ in range(count):
        text = _text(split, rng)
        font = _font(faces, rng, 14, 44)
        paper, ink = _colours(rng)
        left, top, right, bottom = font.getbbox(text)
        edge = int(rng.integers(3, 8))
        size = (int(right - left) + 2 * edge, int(bottom - top) + 2 * edge)
        image = Image.new("RGB", size, paper)
        ImageDraw.Draw(image).text((edge - left, edge - top), text, fill=ink, font=font)
        yield Line(text, _noisy(image, rng))


def pages(split: str, count: int, faces: Sequence[Path]) -> Iterator[Page]:
    """Some lines of text below one another, on a paper with a slope of brightness."""
    rng = np.random.default_rng(SEEDS[split] + 10)
    for number in range(count):
        height, width = PAGES[number % len(PAGES)]
        paper, ink = _colours(rng)
        image = Image.new("RGB", (width, height), paper)
        draw, y, boxes = ImageDraw.Draw(image), int(rng.integers(10, 40)), []
        while True:
            font = _font(faces, rng, 16, 38)
            text, x = _text(split, rng), int(rng.integers(10, width // 4))
            box = draw.textbbox((x, y), text, font=font)
            if box[3] > height - 8:
                break
            if box[2] < width - 8:
                draw.text((x, y), text, fill=ink, font=font)
                boxes.append(box)
            y = int(box[3]) + int(rng.integers(12, 50))
        yield Page(_noisy(image, rng), tuple(boxes))


def _font(
    faces: Sequence[Path], rng: np.random.Generator, small: int, large: int
) -> ImageFont.FreeTypeFont:
    face = faces[int(rng.integers(len(faces)))]
    return ImageFont.truetype(os.fspath(face), int(rng.integers(small, large)))


def _text(split: str, rng: np.random.Generator) -> str:
    """Two words, or a word and a number, odd in one split and even in the other."""
    first, second = rng.choice(WORDS[split].split(), 2, replace=False)
    first = str(rng.choice([first, first.title(), first.upper()]))
    figures = 2 * rng.integers(50, 50000) + (split == VERIFY)
    return f"{first} {figures if rng.random() < 0.5 else second}"


def _colours(rng: np.random.Generator) -> tuple[tuple[int, ...], tuple[int, ...]]:
    paper, ink = rng.integers(190, 256, 3), rng.integers(0, 90, 3)
    if rng.random() < 0.25:
        paper, ink = ink, paper
    return tuple(paper.tolist()), tuple(ink.tolist())


def _noisy(image: Image.Image, rng: np.random.Generator) -> Array:
    pixels = np.asarray(image, np.float32)
    slope = np.linspace(0, rng.normal(0, 20), pixels.shape[1], dtype=np.float32)
    pixels = pixels + slope[None, :, None] + rng.normal(0, 4, pixels.shape).astype(np.float32)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def strip(picture: Array, width: int, wider: bool) -> Array:
    """[1, 3, 48, width]: 48 high, padded on the right; `wider` allows more, in steps of 32."""
    height, length = picture.shape[:2]
    length = int(np.ceil(48 * length / height))
    width = max(width, -(-length // 32) * 32) if wider else width
    length = min(length, width)
    small = Image.fromarray(picture).resize((length, 48), Image.Resampling.BILINEAR)
    padded = np.zeros((1, 3, 48, width), np.float32)
    padded[0, :, :, :length] = _scaled(np.asarray(small))
    return padded


def whole(page: Page) -> Array:
    """[1, 3, height, width]."""
    return _scaled(page.picture)[None]


def _scaled(picture: Array) -> Array:
    """Pixels to [-1, 1], channels first, in OpenCV's order."""
    return np.ascontiguousarray(picture[..., ::-1].transpose(2, 0, 1), np.float32) / 127.5 - 1.0


def decode(probabilities: Array, characters: Sequence[str]) -> str:
    """Greedy CTC over [1, steps, classes]: drop repeats, then blanks (class 0)."""
    best = probabilities[0].argmax(-1)
    kept = best[np.insert(best[1:] != best[:-1], 0, True) & (best != 0)]
    alphabet = ["", *characters, " "]
    return "".join(alphabet[index] for index in kept)


def boxes(probability: Array) -> list[Box]:
    """Text boxes of a map [height, width]: connected pixels, grown as DB's `unclip` grows them."""
    found = []
    for left, top, right, bottom, inside in _components(probability > PROBABILITY, probability):
        width, height = right - left, bottom - top
        if min(width, height) < 3 or inside < BOX_SCORE:
            continue
        grow = width * height * UNCLIP / (2 * (width + height))
        found.append((left - grow, top - grow, right + grow, bottom + grow))
    return found


def _components(mask: Array, weight: Array) -> Iterator[tuple[int, int, int, int, float]]:
    """Boxes and mean weights of 4-connected regions, by joining runs of neighbouring rows."""
    parent: list[int] = []
    runs: list[tuple[int, int, int]] = []

    def root(index: int) -> int:
        while parent[index] != index:
            index = parent[index]
        return index

    above: list[int] = []
    for row in range(mask.shape[0]):
        edges = np.flatnonzero(np.diff(mask[row].astype(np.int8), prepend=0, append=0))
        here = []
        for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            here.append(len(runs))
            parent.append(len(runs))
            runs.append((row, start, end))
            for other in above:
                if runs[other][1] < end and start < runs[other][2]:
                    parent[root(other)] = root(len(runs) - 1)
        above = here
    groups: dict[int, list[tuple[int, int, int]]] = {}
    for index, run in enumerate(runs):
        groups.setdefault(root(index), []).append(run)
    for group in groups.values():
        total = sum(float(weight[row, start:end].sum()) for row, start, end in group)
        area = sum(end - start for _, start, end in group)
        yield (
            min(run[1] for run in group),
            group[0][0],
            max(run[2] for run in group),
            group[-1][0] + 1,
            total / area,
        )


def matched(wanted: Sequence[Box], found: Sequence[Box]) -> int:
    """How many wanted boxes have a found one that overlaps by half (intersection over union)."""
    return sum(any(_overlap(box, other) >= OVERLAP for other in found) for box in wanted)


def _overlap(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0.0) * max(height, 0.0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return common / (areas - common)
