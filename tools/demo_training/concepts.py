"""Which concepts, captions and pictures the demonstration uses."""

import io
import json
import random
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgec.demo.pictures import decode

SEED = 2026
EVALUATION_PICTURES = 768
CALIBRATION_PICTURES = 128
SIDE = 64
FLAGS = 9

STYLES = {
    "google": ("emoji-datasource-google", "img/google/64", ".png"),
    "twitter": ("emoji-datasource-twitter", "img/twitter/64", ".png"),
    "fluent": ("fluent-emoji-3d", "assets", ".webp"),
}


@dataclass(frozen=True)
class Concept:
    """One emoji: its code points in hex, what it shows, and its picture in each style."""

    name: str
    caption: str
    pictures: dict[str, Path]


def read(packages: Path) -> list[Concept]:
    """The 1,497 concepts drawn in all three styles, sorted by name.

    Flags (their captions are names of places) and gendered variants (near doubles of a neutral
    concept) are left out.
    """
    styles = {
        style: {_plain(path.stem): path for path in (packages / package / folder).glob(f"*{ext}")}
        for style, (package, folder, ext) in STYLES.items()
    }
    entries = json.loads((packages / "emojibase-data" / "en" / "data.json").read_text("utf-8"))
    concepts = [
        Concept(name, _caption(entry), {style: found[name] for style, found in styles.items()})
        for entry in entries
        if all((name := _plain(entry["hexcode"])) in found for found in styles.values())
        and entry.get("group") != FLAGS
        and "gender" not in entry
    ]
    return sorted(concepts, key=lambda concept: concept.name)


def write(concepts: list[Concept], assets: Path) -> None:
    """Write the captions and both picture archives. Their concepts are disjoint."""
    captions = {concept.name: concept.caption for concept in concepts}
    text = json.dumps(captions, ensure_ascii=False, indent=0)
    (assets / "captions.json").write_text(text + "\n", "utf-8")
    order = list(concepts)
    random.Random(SEED).shuffle(order)
    rest = order[EVALUATION_PICTURES:]
    _archive(order[:EVALUATION_PICTURES], "google", assets / "evaluation.zip")
    _archive(rest[:CALIBRATION_PICTURES], "twitter", assets / "calibration.zip")


def picture(concept: Concept, style: str) -> npt.NDArray[np.uint8]:
    """A drawing on white at 64 x 64, the size in which the evaluation pictures come."""
    pixels = decode(concept.pictures[style].read_bytes())
    if pixels.shape[:2] == (SIDE, SIDE):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def _plain(code_points: str) -> str:
    return code_points.lower().replace("-fe0f", "")


def _caption(entry: dict[str, Any]) -> str:
    return f"{entry['label']}: {', '.join(entry['tags'])}"


def _archive(concepts: list[Concept], style: str, path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for concept in concepts:
            png = concept.pictures[style].read_bytes()
            with Image.open(io.BytesIO(png)) as drawing:
                assert drawing.format == "PNG"
                assert drawing.size == (SIDE, SIDE)
            archive.writestr(zipfile.ZipInfo(f"{concept.name}.png"), png)
