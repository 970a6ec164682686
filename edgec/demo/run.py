"""The demonstration from end to end: compose, build, verify by retrieval, measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgec.build import Job, build
from edgec.demo import data, model
from edgec.metrics import Figure, paired
from edgec.metrics.retrieval import ranks, recall
from edgec.reference import Reference
from edgec.results import Report
from edgec.runtime import bench, load, npz

DEPTHS = (1, 5, 10)
ROUNDS = 15
CALLS = 10


@dataclass(frozen=True)
class Race:
    """One picture and one caption, timed side by side: FP32 ONNX Runtime and the bundle."""

    caption: str
    original: bench.Timing
    built: bench.Timing

    @property
    def gain(self) -> bench.Ratio:
        """How many times as fast as FP32, round by round."""
        return bench.ratio(self.original, self.built)


@dataclass(frozen=True)
class Demonstration:
    """What the demonstration found.

    `figures`: recall per direction, "image to text recall@1" and so on. `agreement`: for how many
    pictures the nearest caption is the one that FP32 finds. `races`: captions of full length,
    padded ones of the usual length, and the same without padding.
    """

    report: Report
    model: Path
    pictures: int
    captions: int
    figures: tuple[Figure, ...]
    agreement: float
    races: tuple[Race, ...]


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
    races = _races(report.bundle, source, samples, threads)
    held_out = data.evaluation()
    say("embedding pictures and captions in FP32")
    reference = Reference(source, threads)
    before = data.embed(reference.run, held_out)
    say("embedding pictures and captions with the bundle")
    with load(report.bundle, threads, native_code=True) as bundle:
        after = data.embed(bundle.run, held_out)
    nearest = [np.argmax(images @ texts.T, axis=1) for images, texts in (before, after)]
    return Demonstration(
        report=report,
        model=source,
        pictures=len(held_out.images),
        captions=len(held_out.captions),
        figures=_figures(before, after, held_out.labels),
        agreement=float(np.mean(nearest[0] == nearest[1])),
        races=races,
    )


def _races(bundle: Path, source: Path, samples: Path, threads: int) -> tuple[Race, ...]:
    """Three kinds of captions, the usual length being the median of the calibration data."""
    by_length = sorted(
        (npz.read(path, path.name) for path in sorted(samples.glob("*.npz"))),
        key=lambda feeds: int(feeds["attention_mask"].sum()),
    )
    usual = by_length[len(by_length) // 2]
    tokens, width = int(usual["attention_mask"].sum()), usual["attention_mask"].shape[1]
    repeated = np.resize(usual["input_ids"][:, :tokens], usual["input_ids"].shape)
    kinds = {
        f"{width} of {width} tokens": {
            **usual,
            "input_ids": repeated,
            "attention_mask": np.ones_like(usual["attention_mask"]),
        },
        f"{tokens} tokens, padded to {width}": usual,
        f"{tokens} tokens, not padded": {
            name: array[:, :tokens] if array.ndim == 2 else array for name, array in usual.items()
        },
    }
    found = []
    for caption, feeds in kinds.items():
        built, original = bench.measure(
            [
                bench.Case("bundle", bundle, threads, native_code=True),
                bench.Case("FP32", source, threads),
            ],
            feeds,
            rounds=ROUNDS,
            calls_per_round=CALLS,
        )
        found.append(Race(caption, original, built))
    return tuple(found)


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
            figure = paired(recall(depth), *places)
            found.append(replace(figure, metric=f"{direction} {figure.metric}"))
    return tuple(found)
