"""`edgec verify --metric` on built models: figures against the models' own outputs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import small
from labelled import coco, naive

from edgec import runtime
from edgec.build import Job, build
from edgec.metrics.boxes import Found
from edgec.metrics.coco import Picture
from edgec.types import Limits

LETTERS = "_ abcdefg"
FILES = 12


@dataclass(frozen=True)
class Case:
    """A model, its bundle, and samples that the build did not see."""

    model: Path
    bundle: Path
    fresh: Path

    def outputs(self) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
        """Of the original and of the bundle, for each file."""
        with runtime.load(self.bundle, 1) as opened:
            for path in sorted(self.fresh.iterdir()):
                feeds = dict(np.load(path))
                yield small.run(self.model, feeds, level="ORT_ENABLE_ALL"), opened.run(feeds)

    def verify(self, labels: Path, *wanted: str) -> tuple[list[dict[str, Any]], str]:
        """The figures as JSON, and what stands beside them for people."""
        command = [sys.executable, "-m", "edgec", "verify", self.bundle, "--against", self.model]
        command += ["--data", self.fresh, "--labels", labels, "--threads", "1", "--json", "-"]
        for one in wanted:
            command += ["--metric", one]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        figures: list[dict[str, Any]] = json.loads(done.stdout)["metrics"]
        return figures, done.stderr


def make(folder: Path, model: ir.Model, samples: list[Mapping[str, np.ndarray]]) -> Case:
    """Build on the first half of the samples; the others are fresh."""
    source = small.save(model, folder / "model.onnx")
    for index, feeds in enumerate(samples):
        place = folder / ("fresh" if index >= len(samples) - FILES else "data")
        place.mkdir(exist_ok=True)
        np.savez(place / f"s{index:02}.npz", **feeds)  # type: ignore[arg-type]
    report = build(
        Job(
            source,
            target="x86-vnni",
            data=folder / "data",
            output=folder / "m.edgec",
            measure=False,
            threads=1,
            limits=Limits(part_sqnr_db=None, cosine=None),
            policy=folder / "policy.toml" if (folder / "policy.toml").is_file() else None,
        )
    )
    return Case(source, report.bundle, folder / "fresh")


# a classifier


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Case:
    text = """g (float[n, 24] x) => (float[n, 10] logits)
    { h = MatMul (x, w)  r = Relu (h)  logits = MatMul (r, v) }"""
    model = small.model(text, w=small.normal(0, 24, 64), v=small.normal(1, 64, 10))
    samples = [{"x": small.normal(100 + index, 3, 24)} for index in range(2 * FILES)]
    return make(tmp_path_factory.mktemp("classifier"), model, samples)


def test_top1_with_several_samples_a_file(classifier: Case, tmp_path: Path) -> None:
    first, second = (
        np.concatenate([one["logits"].argmax(axis=1) for one in side])
        for side in zip(*classifier.outputs(), strict=True)
    )
    truth = np.where(np.arange(3 * FILES) % 3 > 0, first, (first + 1) % 10)
    (tmp_path / "labels.txt").write_text("".join(f"{label}\n" for label in truth))
    figures, page = classifier.verify(tmp_path / "labels.txt", "top1", "top5", "f1:average=micro")
    assert [one["metric"] for one in figures] == ["top1", "top5", "f1 micro"]
    top1, top5, _ = figures
    assert top1["original"] == pytest.approx(2 / 3)
    assert top1["built"] == pytest.approx(np.mean(second == truth))
    assert top1["difference"] == pytest.approx(top1["built"] - top1["original"])
    assert top1["low"] <= top1["difference"] <= top1["high"]
    assert top1["agreement"] == pytest.approx(np.mean(first == second))
    assert top1["samples"] == 3 * FILES
    assert top5["original"] >= top1["original"]
    for words in ("original", "bundle", "95 % interval, paired", "agreement", "f1 micro"):
        assert words in page


# a recogniser: words as noisy columns, of other lengths in each file


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, list[str]]:
    text = """g (float[1, t, 16] x) => (float[1, t, 9] logits)
    { h = MatMul (x, w)  r = Relu (h)  z = MatMul (r, v)  logits = Add (z, b) }"""
    rng = np.random.default_rng(0)
    columns = rng.normal(0, 1, (9, 16)).astype(np.float32)
    hidden = small.normal(2, 16, 128)
    # the readout that tells noisy columns apart best, by least squares
    seen = np.repeat(columns, 200, axis=0) + small.normal(3, 1800, 16, spread=0.4)
    told = np.repeat(np.eye(9), 200, axis=0)
    readout = np.linalg.lstsq(np.maximum(seen @ hidden, 0), told, rcond=None)[0]
    weights = {"w": hidden, "v": readout.astype(np.float32), "b": np.zeros(9, np.float32)}
    samples, texts = [], []
    for _ in range(2 * FILES):
        words = ["".join(rng.choice(list("abcdefg"), rng.integers(1, 5))) for _ in range(3)]
        texts.append(" ".join(words))
        path = [one for letter in texts[-1] for one in (LETTERS.index(letter), 0)]
        noisy = columns[path] + rng.normal(0, 0.9, (len(path), 16))
        samples.append({"x": noisy[None].astype(np.float32)})
    case = make(tmp_path_factory.mktemp("recogniser"), small.model(text, **weights), samples)
    return case, texts[FILES:]


def read_path(logits: np.ndarray) -> str:
    best = logits[0].argmax(axis=1).tolist()
    kept = [one for i, one in enumerate(best) if one and (i == 0 or best[i - 1] != one)]
    return "".join(LETTERS[one] for one in kept).strip()


def test_error_rates_of_texts(recogniser: tuple[Case, list[str]], tmp_path: Path) -> None:
    case, texts = recogniser
    assert len({feeds["x"].shape for feeds in map(np.load, case.fresh.iterdir())}) > 3
    vocabulary = tmp_path / "letters.txt"
    vocabulary.write_text("\n".join(LETTERS))
    names = sorted(path.stem for path in case.fresh.iterdir())
    lines = [
        json.dumps({"file": f"{name}.wav", "text": text})
        for name, text in zip(names, texts, strict=True)
    ]
    (tmp_path / "texts.jsonl").write_text("\n".join(reversed(lines)))
    options = f"decoder=ctc,vocabulary={vocabulary}"
    wanted = [f"{name}:{options}" for name in ("wer", "cer", "exact")]
    figures, _ = case.verify(tmp_path / "texts.jsonl", *wanted)
    wer, cer, exact = figures
    sides = [
        [read_path(one["logits"]) for one in side] for side in zip(*case.outputs(), strict=True)
    ]
    for key, read in zip(("original", "built"), sides, strict=True):
        words = [(true.split(), said.split()) for true, said in zip(texts, read, strict=True)]
        errors = sum(naive(true, said) for true, said in words)
        assert wer[key] == pytest.approx(errors / sum(len(true) for true, _ in words))
        errors = sum(naive(true, said) for true, said in zip(texts, read, strict=True))
        assert cer[key] == pytest.approx(errors / sum(map(len, texts)))
        assert exact[key] == np.mean([a == b for a, b in zip(texts, read, strict=True)])
    assert 0 < cer["original"] < 0.3  # a task that is neither lost nor trivial
    agreement = np.mean([a == b for a, b in zip(*sides, strict=True)])
    assert {one["agreement"] for one in figures} == {agreement}
    assert {one["samples"] for one in figures} == {FILES}


# a detector: sixteen cells, each with a box and its chances of being one of three classes

CELLS = """
    [stem] f = Conv <kernel_shape = [8, 8], strides = [8, 8]> (image, w)
    r = Relu (f)
    [head] p = Conv <kernel_shape = [1, 1]> (r, v)
    q = Reshape (p, rows)
    t = Transpose <perm = [0, 2, 1]> (q)
    s = Sigmoid (t)
    box, chance = Split <axis = 2> (s, parts)
"""
DENSE = f"""g (float[1, 3, 32, 32] image) => (float[1, 16, 4] box, float[1, 16, 3] chance)
{{ {CELLS} }}"""
SPARSE = f"""g (float[1, 3, 32, 32] image)
=> (float[n, 4] boxes, float[n] scores, int64[n] classes) {{ {CELLS}
    likely = Transpose <perm = [0, 2, 1]> (chance)
    kept = NonMaxSuppression <center_point_box = 1> (box, likely, most, iou, least)
    which = Gather <axis = 1> (kept, two)
    classes = Gather <axis = 1> (kept, one)
    all = Squeeze (box, first)
    boxes = Gather <axis = 0> (all, which)
    flat = Reshape (likely, minus)
    row = Mul (classes, cells)
    at = Add (row, which)
    scores = Gather <axis = 0> (flat, at)
}}"""
WIDTH, HEIGHT = 640, 480
CATEGORIES = np.array([2, 5, 6])


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


HEAD = {
    "w": small.normal(0, 32, 3, 8, 8, spread=0.1),
    "v": small.normal(1, 7, 32, 1, 1, spread=0.35),
    "rows": ints(1, 7, 16),
    "parts": ints(4, 3),
}
CHOICE = {
    "most": ints(20),
    "iou": np.array([0.5], np.float32),
    "least": np.array([0.3], np.float32),
    "two": np.array(2, np.int64),
    "one": np.array(1, np.int64),
    "first": ints(0),
    "minus": ints(-1),
    "cells": ints(16),
}


def detections(outputs: Mapping[str, np.ndarray]) -> Found:
    """In pixels, as x, y, width, height; classes 0, 1, 2 are the categories 2, 5, 6."""
    if "box" in outputs:
        chance = outputs["chance"][0]
        boxes, scores, classes = outputs["box"][0], chance.max(axis=1), chance.argmax(axis=1)
    else:
        boxes, scores, classes = outputs["boxes"], outputs["scores"], outputs["classes"]
    boxes = boxes.astype(np.float64) * [WIDTH, HEIGHT, WIDTH, HEIGHT]
    boxes[:, :2] -= boxes[:, 2:] / 2
    return Found(boxes, scores, CATEGORIES[classes])


def drawn(sides: list[Found], path: Path) -> list[Picture]:
    """What people saw: what the model is sure of, drawn by hand; and as COCO JSON in `path`."""
    rng = np.random.default_rng(0)
    pictures, images, annotations = [], [], []
    for index, one in enumerate(sides):
        keep = one.scores > 0.6
        boxes = one.boxes[keep] + rng.normal(0, 12, (keep.sum(), 4))
        boxes[:, 2:] = boxes[:, 2:].clip(10)
        crowd = np.zeros(keep.sum(), np.bool_)
        pictures.append(Picture(boxes, one.classes[keep], crowd, (0, 0), (2, 5, 6)))
        name = f"train/s{index + FILES:02}.jpg"
        images.append({"id": index, "file_name": name, "width": WIDTH, "height": HEIGHT})
        for box, category in zip(boxes.tolist(), one.classes[keep].tolist(), strict=True):
            annotations.append({"image_id": index, "category_id": category, "bbox": box})
    categories = [{"id": one} for one in (6, 2, 5)]
    page = {"images": images[::-1], "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(page))
    return pictures


@pytest.mark.parametrize(
    ("text", "more", "policy", "options"),
    [
        (DENSE, {}, "", "boxes=box,scores=chance"),
        (
            SPARSE,
            CHOICE,
            '[parts."*"]\nscheme = "float32"\n',
            "boxes=boxes,scores=scores,classes=classes",
        ),
    ],
    ids=["every cell, INT8", "chosen cells, float"],
)
def test_map_of_a_detector(
    text: str, more: Mapping[str, np.ndarray], policy: str, options: str, tmp_path: Path
) -> None:
    samples = [{"image": small.normal(50 + index, 1, 3, 32, 32)} for index in range(2 * FILES)]
    (tmp_path / "policy.toml").write_text(policy)
    case = make(tmp_path, small.model(text, **HEAD, **more), samples)
    sides = [[detections(one) for one in side] for side in zip(*case.outputs(), strict=True)]
    # cells are chosen in a number that differs between pictures
    assert (len({len(one.scores) for one in sides[0]}) > 1) == bool(more)
    pictures = drawn(sides[0], tmp_path / "truth.json")
    option = f"map:{options},format=cxcywh,size=1x1"
    (full, at_half), table = case.verify(tmp_path / "truth.json", option)
    assert (full["metric"], at_half["metric"]) == ("mAP", "AP50")
    for key, side in zip(("original", "built"), sides, strict=True):
        assert (full[key], at_half[key]) == pytest.approx(coco(side, pictures), abs=1e-6)
    assert 0.2 < full["original"] < at_half["original"] <= 1
    assert full["low"] <= full["difference"] <= full["high"]
    assert (full["difference"] == 0) == bool(policy)
    assert full["agreement"] == 1 if policy else 0 < full["agreement"] <= 1
    assert full["samples"] == FILES
    assert "AP50" in table
