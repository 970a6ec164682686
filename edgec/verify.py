"""Stage 11: what was built against the original: each part alone, and all of it end to end.

A part is taken out of the emitted engine and fed with the float model's values, so that its error
is its own. End to end, the engines run as the device runs them, against the untouched source file;
what NonMaxSuppression or TopK picked is paired before it is compared (see `edgec.picked`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgec.backends import backend
from edgec.compare import Running
from edgec.errors import EmitError, InputError
from edgec.graphs import extract, save
from edgec.isolate import call
from edgec.picked import Paired, picked
from edgec.reference import Reference
from edgec.results import Artifact, Comparison
from edgec.runtime.buckets import Buckets, mute, serve
from edgec.runtime.npz import write as write_npz
from edgec.runtime.openers import Session, opener
from edgec.samples import Input, stream
from edgec.types import Feeds, Graph, Part


@dataclass(frozen=True)
class PartFiles:
    """A part as two models, float and built, and the place for the inputs to time it with."""

    part: Part
    source: Path
    built: Path
    feeds: Path
    backend: str
    settings: Mapping[str, object]


@dataclass(frozen=True)
class PartResult:
    """How close a part is, per output, and about how long its float form takes, in ms."""

    comparisons: tuple[Comparison, ...]
    milliseconds: float


@dataclass(frozen=True)
class EndToEnd:
    """How close the outputs are, and one sample with its outputs, to be kept as golden data.

    `exact`: what the original makes of that sample.
    """

    comparisons: tuple[Comparison, ...]
    inputs: Feeds
    outputs: Feeds
    exact: Feeds = field(default_factory=dict)


def cut(graph: Graph, part: Part, artifact: Artifact, folder: Path) -> PartFiles:
    """Write a part, once from the float graph and once from the engine that was emitted."""
    source = folder / f"{part.name}.float.onnx"
    if not source.is_file():
        save(extract(graph.model, part.inputs, part.outputs), source)
    built = backend(artifact.backend).cut(artifact, part, folder)
    feeds = folder / f"{part.name}.npz"
    runs = artifact.opened
    return PartFiles(part, source, built, feeds, runs.backend, runs.settings)


def verify_parts(
    graph: Graph,
    files: Sequence[PartFiles],
    samples: Sequence[Path],
    inputs: Sequence[Input],
    folder: Path,
    threads: int,
    *,
    built: bool = True,
) -> dict[str, PartResult]:
    """Compare each part with its float form on the float model's own values.

    Raises EmitError where something crashes or fails. Where nothing `built` runs, the float forms
    are compared with themselves: what fails then is not the fault of a backend.
    """
    whole = folder / "boundaries.onnx"
    if not whole.is_file():
        model = graph.model.clone()
        weights = set(model.graph.initializers)
        fed = {str(value.name) for value in model.graph.inputs if value.name not in weights}
        given = {str(value.name) for value in model.graph.outputs}
        for value in [v for node in model.graph for v in node.outputs]:
            crossing = any(value.name in (*f.part.inputs, *f.part.outputs) for f in files)
            if crossing and value.name not in fed | given:
                model.graph.outputs.append(value)
        save(model, whole)
    found: dict[str, PartResult] = call(
        _compare_parts, whole, list(files), list(samples), list(inputs), threads, built
    )
    return found


def verify_outputs(
    original: Path,
    artifacts: Sequence[Artifact],
    samples: Sequence[Path],
    inputs: Sequence[Input],
    threads: int,
    buckets: Buckets | None = None,
) -> EndToEnd:
    """Compare the engines, one after the other, with the source file, which sees no buckets."""
    found: EndToEnd = call(
        _compare_outputs, original, list(artifacts), list(samples), list(inputs), threads, buckets
    )
    return found


def _compare_parts(
    whole: Path,
    files: Sequence[PartFiles],
    samples: Sequence[Path],
    inputs: Sequence[Input],
    threads: int,
    built: bool,
) -> dict[str, PartResult]:
    reference = Reference(whole, threads)
    sources = {f.part.name: Reference(f.source, threads) for f in files}
    sessions: dict[str, Reference | Session] = {**sources}
    for f in files if built else ():
        with _blaming(f.part.name):
            opened = opener(f.backend)(f.built, {**f.settings, "threads": threads})
            sessions[f.part.name] = opened
    running = {(f.part.name, v): Running(f.part.name, v) for f in files for v in f.part.outputs}
    times: dict[str, list[float]] = {f.part.name: [] for f in files}
    wanted = sorted({value for f in files for value in (*f.part.inputs, *f.part.outputs)})
    for index, feeds in enumerate(stream(samples, inputs)):
        values = reference.run(feeds, wanted)
        for f in files:
            given = {name: values[name] for name in f.part.inputs}
            if index == 0:
                write_npz(f.feeds, given)
            start = time.perf_counter()
            expected = sources[f.part.name].run(given)
            times[f.part.name].append(1e3 * (time.perf_counter() - start))
            with _blaming(f.part.name):
                made = sessions[f.part.name].run(given)
            for name, array in made.items():
                running[f.part.name, name].add(expected[name], np.asarray(array))
    return {
        f.part.name: PartResult(
            tuple(running[f.part.name, value].result() for value in f.part.outputs),
            float(np.median(times[f.part.name])),
        )
        for f in files
    }


def _compare_outputs(
    original: Path,
    artifacts: Sequence[Artifact],
    samples: Sequence[Path],
    inputs: Sequence[Input],
    threads: int,
    buckets: Buckets | None,
) -> EndToEnd:
    reference, chosen = Reference(original, threads), picked(ir.load(original))
    sessions = []
    for one in artifacts:
        with _blaming(one.engine):
            runs = one.opened
            opened = opener(runs.backend)(runs.path, {**runs.settings, "threads": threads})
        sessions.append((one, opened))
    rows = Paired([name for name in reference.outputs if name in chosen])
    running = {name: Running("", name) for name in reference.outputs if name not in chosen}
    golden: tuple[Feeds, Feeds, Feeds] = ({}, {}, {})

    def run(known: Feeds) -> Feeds:
        for artifact, session in sessions:
            with _blaming(artifact.engine):
                known.update(session.run({name: known[name] for name in artifact.inputs}))
        return {name: np.asarray(known[name]) for name in reference.outputs}

    for feeds in stream(samples, inputs):
        expected = mute(reference.run(feeds), feeds, buckets)
        got = serve(run, feeds, buckets)
        for name, comparison in running.items():
            comparison.add(expected[name], got[name])
        rows.add(expected, got)
        if not golden[1]:
            golden = (feeds, got, {name: expected[name] for name in got})
    found = {**{name: one.result() for name, one in running.items()}, **rows.results()}
    return EndToEnd(tuple(found[name] for name in reference.outputs), *golden)


@contextmanager
def _blaming(label: str) -> Iterator[None]:
    """What was built and cannot take what the float form takes is no input's fault."""
    try:
        yield
    except InputError as error:
        raise EmitError(f"{label}: {error.message}", hint=error.hint) from error
