"""A finished bundle against its source model, on data of the user's choice."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from edgec import metrics
from edgec import samples as data
from edgec.binding import stored
from edgec.buckets import trim
from edgec.canonicalise import canonicalise
from edgec.errors import GoalMissed, InputError
from edgec.isolate import call
from edgec.kernels import find as find_kernels
from edgec.kernels.stage import runnable
from edgec.load import load
from edgec.metrics.labels import NO_LABELS, Sheet
from edgec.metrics.labels import read as read_labels
from edgec.metrics.outputs import count
from edgec.reference import Reference
from edgec.results import STAND_IN, Artifact, Comparison, Counts, StandIn
from edgec.revise import worst
from edgec.runtime import Bundle
from edgec.runtime import load as open_bundle
from edgec.runtime.buckets import Buckets, mute, parse
from edgec.runtime.built import spare
from edgec.runtime.model import refuse_native_code
from edgec.types import Graph, Kind, Limits, Modality, Part, Range
from edgec.verify import cut, verify_outputs, verify_parts

MOST_FILES = 100_000
Answers = list[list[Any]]  # by file, then by sample


@dataclass(frozen=True)
class Recheck:
    """Per part and end to end; and the figures of the task metrics that were asked for."""

    parts: tuple[Comparison, ...]
    outputs: tuple[Comparison, ...]
    figures: tuple[metrics.Figure, ...]
    limits: Limits

    @property
    def missed(self) -> GoalMissed | None:
        """The first of the build's limits that the bundle does not keep on this data."""
        hint = "build again with samples like these, or choose a safer scheme by a policy"
        for part, sqnr in worst(self.parts).items():
            least = self.limits.part_sqnr_db
            if least is not None and sqnr < least:
                return GoalMissed(f"SQNR of part {part} in dB", sqnr, least, hint=hint)
        for one in self.outputs:
            least = self.limits.cosine
            if least is not None and one.cosine < least:
                return GoalMissed(f"cosine of output {one.value}", one.cosine, least, hint=hint)
        return None


def recheck(
    bundle: Path,
    model: Path,
    folder: Path,
    wanted: Sequence[str],
    labels: Path | None,
    threads: int,
    kernels: Path | None = None,
    *,
    native_code: bool = False,
) -> Recheck:
    """Compare `bundle` with `model` on every file of `folder`, also by the `wanted` metrics.

    `kernels`: custom ops of the model; `native_code`: see `edgec.runtime.model.load`. Raises
    InputError where the bundle was built from another model, or data or labels do not fit.
    """
    chosen = [metrics.metric(text) for text in wanted]
    for one in chosen:
        if labels is None and not one.optional:
            raise InputError(f"metric {one.name} needs labels", hint="give --labels FILE")
    with tempfile.TemporaryDirectory(prefix="edgec-verify-") as temporary:
        place = Path(temporary)
        with Bundle(bundle) as opened:
            page, recipe = opened.manifest, stored(opened)
            if not native_code:
                refuse_native_code(page)
            for name in opened.manifest["files"]:
                if name.startswith("engines/"):
                    (place / Path(name).name).write_bytes(opened.read(name))
            for name in opened.manifest.get("spares", {}):
                spare(opened, name, place / Path(name).name)
        stay = {row["op"]: True for row in page.get("kernels", ()) if row["native"]}
        source = load(model, find_kernels(kernels), stay)
        if source.sha256 != page["source"]["sha256"]:
            raise InputError(
                f"{model} is not the model that {bundle} was built from",
                hint=f"it was built from a file called {page['source']['name']}",
            )
        graph = canonicalise(source, _ranges(page))
        model = runnable(model, kernels, graph, place)
        inputs = data.inputs(graph)
        samples = data.open_samples(folder, inputs, MOST_FILES, recipe, place / "samples")
        files = samples.files
        sheets = [read_labels(labels, one.labels, files) for one in chosen if labels is not None]
        artifacts = [_artifact(row, place) for row in page["engines"]]
        buckets = parse(page)
        seen = samples if buckets is None else trim(samples, buckets, inputs, place / "trimmed")
        parts = _parts(graph, page, artifacts, seen.files, inputs, place, threads)
        end = verify_outputs(model, artifacts, files, inputs, threads, buckets)
        figures: list[metrics.Figure] = []
        if chosen:
            takes = [one.take for one in chosen]
            answers = call(_answers, model, bundle, files, list(inputs), threads, buckets, takes)
            for one, sheet, (original, built) in zip_longest(chosen, sheets, answers):
                figures += _figures(one, sheet, original, built)
    return Recheck(parts, end.comparisons, tuple(figures), Limits(**page["limits"]))


def _figures(
    one: metrics.Metric, sheet: Sheet | None, original: Answers, built: Answers
) -> tuple[metrics.Figure, ...]:
    """A metric's figures, from the answers of both models by file."""
    counts = [len(answers) for answers in original]
    labels = NO_LABELS if sheet is None else sheet.spread(counts)
    return metrics.compare(
        one, list(chain.from_iterable(original)), list(chain.from_iterable(built)), labels
    )


def _parts(
    graph: Graph,
    page: Mapping[str, Any],
    artifacts: Sequence[Artifact],
    files: Sequence[Path],
    inputs: Sequence[data.Input],
    place: Path,
    threads: int,
) -> tuple[Comparison, ...]:
    wanted = [_part(row) for row in page["parts"] if _has(graph, row)]
    cuts = []
    for artifact in artifacts:
        if artifact.path.suffix == ".ort" or artifact.stand_in is not None:
            continue  # its graph is optimised already, or what runs here is not the artifact itself
        cuts += [
            cut(graph, part, artifact, place)
            for part in wanted
            if part.name in artifact.parts and part.outputs
        ]
    results = verify_parts(graph, cuts, files, inputs, place, threads) if cuts else {}
    return tuple(one for result in results.values() for one in result.comparisons)


def _part(row: Mapping[str, Any]) -> Part:
    """A part as the bundle knows it: the policy may have named it, the target's memory cut it."""
    return Part(
        name=row["name"],
        kind=Kind(row["kind"]),
        modality=Modality(row["modality"]),
        inputs=tuple(row["inputs"]),
        outputs=tuple(row["outputs"]),
        nodes=(),
        macs=row["macs"],
        weight_bytes=row["source_bytes"],
        reason=row["reason"],
    )


def _has(graph: Graph, row: Mapping[str, Any]) -> bool:
    """Whether this version's canonical graph has the values between which a part lies."""
    known = {v.name for v in graph.model.graph.inputs}
    known.update(v.name for node in graph.model.graph for v in node.outputs)
    return known.issuperset([*row["inputs"], *row["outputs"]])


def _artifact(row: Mapping[str, Any], place: Path) -> Artifact:
    stand_in = None
    if "build" in row:
        model = place / Path(row["build"]["steps"][-1]["model"]).name
        stand_in = StandIn("onnxruntime", model, STAND_IN)
    return Artifact(
        engine=row["name"],
        backend=row["backend"],
        device=row["device"],
        path=place / Path(row["artifact"]).name,
        data_files=tuple(place / Path(name).name for name in row["data_files"]),
        parts=tuple(row["parts"]),
        inputs=tuple(row["inputs"]),
        outputs=tuple(row["outputs"]),
        settings=row["settings"],
        planned=Counts(**row["planned"]),
        emitted=Counts(**row["emitted"]),
        optimised=Counts(**row["optimised"]),
        stand_in=stand_in,
    )


def _ranges(page: Mapping[str, Any]) -> dict[str, tuple[Range, ...]]:
    return {
        row["name"]: tuple(Range(low, high) for low, high in row["range"])
        for row in page["inputs"]
        if row.get("range")
    }


def _answers(
    model: Path,
    bundle: Path,
    files: Sequence[Path],
    inputs: Sequence[data.Input],
    threads: int,
    buckets: Buckets | None,
    takes: Sequence[metrics.Take],
) -> list[tuple[Answers, Answers]]:
    """For each metric what it takes of the original's and of the bundle's outputs, by file."""
    reference = Reference(model, threads)
    found: list[tuple[Answers, Answers]] = [([], []) for _ in takes]
    with open_bundle(bundle, threads, native_code=True) as opened:  # as was asked before
        for path, feeds in zip(files, data.stream(files, inputs), strict=True):
            both = mute(reference.run(feeds), feeds, buckets), opened.run(feeds)
            samples = count(feeds, both[0])
            for take, sides in zip(takes, found, strict=True):
                try:
                    for side, outputs in zip(sides, both, strict=True):
                        side.append(take(outputs, samples))
                except InputError as error:
                    raise InputError(f"{path}: {error.message}", hint=error.hint) from error
    return found
