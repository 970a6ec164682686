"""Calibrations of small graphs, and what a placement asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import graphs
import numpy as np
import small

from edgec.calibrate import Calibration, Means
from edgec.needs import needs
from edgec.partition import partition
from edgec.rows import Row, rows
from edgec.types import Graph, Placement, Policy, Statistics

NUMPY, NATIVE = Means(native=False), Means(native=True)


def want(
    values: Iterable[str] = (), means: Iterable[str] = (), extents: Iterable[str] = ()
) -> Placement:
    """A placement that asks for these."""
    return Placement(frozenset(values), {}, frozenset(), frozenset(means), frozenset(extents))


def all_needs(found: Graph, target: str = "x86-vnni") -> Placement:
    return needs(found, partition(found), Policy(), small.target(target))


def written(folder: Path, samples: Sequence[Mapping[str, np.ndarray]]) -> list[Row]:
    """Samples in files of one each; nothing checks them, so that they may hold NaN."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for index, arrays in enumerate(samples):
        files.append(folder / f"s{index:03}.npz")
        np.savez(files[-1], **arrays)  # type: ignore[arg-type]
    return rows(files)


def of_fixture(name: str, folder: Path, count: int = 4) -> list[Row]:
    return rows(sorted(graphs.write_samples(name, folder, count).glob("*.npz")))


def observed(
    found: Graph, need: Placement, samples: Sequence[Row], means: Means = NUMPY
) -> Statistics:
    """What is seen without a file."""
    return Calibration(found, samples, means).observe(need)


def filed(
    found: Graph,
    need: Placement,
    samples: Sequence[Row],
    file: Path,
    means: Means = NUMPY,
) -> bytes:
    """The bytes of the statistics file after a calibration that makes or extends it."""
    Calibration(found, samples, means, file).observe(need)
    return file.read_bytes()


def plain() -> Graph:
    """y = x w (MatMul, K = 3) then |y|: x, y and z can be watched."""
    return small.graph(
        small.model(
            "g (float[n,3] x) => (float[n,2] z) { [p] y = MatMul (x, w)  [a] z = Abs (y) }",
            w=np.array([[1, 0], [0, 1], [1, -1]], np.float32),
        )
    )
