"""The demonstration from end to end: compose, build, verify by retrieval, measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgec.build import Job, build
from edgec.demo import data, model
from edgec.metrics import Figure, paired
from edgec.metrics.retrieval import ranks, recall
from edgec.reference import Reference
from edgec.runtime import bench, load, npz
from edgec.types import Report

DEPTHS = (1, 5, 10)
ROUNDS = 15
CALLS = 10


@dataclass(frozen=True)
class Demonstration:
    """What the demonstration found.

    `figures`: recall per direction, "image to text recall@1" and so on. `agreement`: for how many
    pictures the nearest caption is the one that FP32 finds. Times: one picture of 224x224 and one
    caption of 64 tokens; `gain`: how many times as fast as FP32, round by round.
    """

    report: Report
    model: Path
    pictures: int
    captions: int
    figures: tuple[Figure, ...]
    agreement: float
    original: bench.Timing
    built: bench.Timing
    gain: bench.Ratio


def demonstrate(
    folder: Path, threads: int, measure: bool, say: Callable[[str], None]
) -> Demonstration:
    """Run it in `folder`, which afterwards holds the model, its samples and the bundle."""
    folder.mkdir(parents=True, exist_ok=True)
    say("composing the model from its pretrained towers")
    source = model.compose(folder / "emoji.onnx")
    samples = data.write_calibration(folder / "calibration")
    job = Job(
        model=source,
        data=samples,
        output=folder / "emoji.edgec",
        force=True,
        measure=measure,
        threads=threads,
        say=say,
    )
    report = build(job)
    say("timing the whole model against FP32")
    sample = npz.read(next(iter(sorted(samples.glob("*.npz")))), "sample")
    built, original = bench.measure(
        [bench.Case("bundle", report.bundle, threads), bench.Case("FP32", source, threads)],
        sample,
        rounds=ROUNDS,
        calls_per_round=CALLS,
    )
    held_out = data.evaluation()
    say("embedding pictures and captions in FP32")
    reference = Reference(source, threads)
    before = data.embed(reference.run, held_out)
    say("embedding pictures and captions with the bundle")
    with load(report.bundle, threads) as bundle:
        after = data.embed(bundle.run, held_out)
    nearest = [np.argmax(images @ texts.T, axis=1) for images, texts in (before, after)]
    return Demonstration(
        report=report,
        model=source,
        pictures=len(held_out.images),
        captions=len(held_out.captions),
        figures=_figures(before, after, held_out.labels),
        agreement=float(np.mean(nearest[0] == nearest[1])),
        original=original,
        built=built,
        gain=bench.ratio(original, built),
    )


def _figures(
    before: tuple[np.ndarray, np.ndarray],
    after: tuple[np.ndarray, np.ndarray],
    labels: np.ndarray,
) -> tuple[Figure, ...]:
    """Recall in both directions; a caption is asked for among the pictures if it has one."""
    own = np.arange(len(labels))
    sides = (before, after)
    directions = {
        "image to text": [ranks(images, texts, labels) for images, texts in sides],
        "text to image": [ranks(texts[labels], images, own) for images, texts in sides],
    }
    found = []
    for direction, places in directions.items():
        for depth in DEPTHS:
            metric = recall(depth)
            figure = paired(metric, *(metric.score({"ranks": one}, None) for one in places))
            found.append(Figure(**{**vars(figure), "metric": f"{direction} {metric.name}"}))
    return tuple(found)
