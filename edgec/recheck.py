"""A finished bundle against its source model, on data of the user's choice."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec import metrics
from edgec import samples as data
from edgec.canonicalise import canonicalise
from edgec.errors import GoalMissed, InputError
from edgec.isolate import call
from edgec.load import load
from edgec.partition import partition
from edgec.reference import Reference
from edgec.revise import worst
from edgec.runtime import Bundle
from edgec.runtime import load as open_bundle
from edgec.types import Artifact, Comparison, Counts, Engine, Graph, Limits, Part, Range
from edgec.verify import cut, verify_outputs, verify_parts

MOST_FILES = 100_000


@dataclass(frozen=True)
class Recheck:
    """Per part and end to end; and the task metric, if one was asked for (else an empty tuple)."""

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
    metric: str | None,
    labels: Path | None,
    threads: int,
) -> Recheck:
    """Compare `bundle` with `model` on every file of `folder`.

    Raises InputError where the bundle was built from another model, or data or labels do not fit.
    """
    chosen = None if metric is None else metrics.metric(metric)
    with tempfile.TemporaryDirectory(prefix="edgec-verify-") as temporary:
        place = Path(temporary)
        with Bundle(bundle) as opened:
            page = opened.manifest
            for name in opened.manifest["files"]:
                if name.startswith("engines/"):
                    (place / Path(name).name).write_bytes(opened.read(name))
        source = load(model)
        if source.sha256 != page["source"]["sha256"]:
            raise InputError(
                f"{model} is not the model that {bundle} was built from",
                hint=f"it was built from a file called {page['source']['name']}",
            )
        graph = canonicalise(source, _ranges(page))
        inputs = data.inputs(graph)
        samples = data.open_samples(folder, inputs, MOST_FILES)
        files = samples.files
        artifacts = [_artifact(row, place) for row in page["engines"]]
        parts = _parts(graph, page, artifacts, files, inputs, place, threads)
        end = verify_outputs(model, artifacts, files, inputs, threads)
        figures: tuple[metrics.Figure, ...] = ()
        if chosen is not None:
            original, built = call(_outputs, model, bundle, files, list(inputs), threads)
            rows = max((len(array) for array in original.values()), default=0)
            known = None if labels is None else read_labels(labels, files, rows)
            figures = (metrics.compare(chosen, original, built, known),)
    return Recheck(parts, end.comparisons, figures, Limits(**page["limits"]))


def read_labels(path: Path, files: Sequence[Path], samples: int = 0) -> np.ndarray:
    """One number per sample: a .npy array, or text lines `number` or `file,number`.

    `samples`: how many there are, if files hold several each; 0: one per file.
    """
    try:
        if path.suffix == ".npy":
            array = np.load(path, allow_pickle=False)
        else:
            rows = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()]
            rows = [row for row in rows if row != [""]]
            if rows and len(rows[0]) == 2:
                by_file = {name.strip(): float(x) for name, x in rows if name != "file"}
                array = np.array([by_file[file.name] for file in files])
            else:
                array = np.array([float(row[0]) for row in rows])
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(
            f"{path}: not readable as labels: {error}",
            hint="one number per line in order of file names, or lines of file,number",
        ) from error
    if array.shape != (samples or len(files),):
        raise InputError(
            f"{path}: labels of shape {array.shape} for {samples or len(files)} samples",
            hint="give one number per sample file, in order of the files' names",
        )
    return np.asarray(array)


def _parts(
    graph: Graph,
    page: Mapping[str, Any],
    artifacts: Sequence[Artifact],
    files: Sequence[Path],
    inputs: Sequence[data.Input],
    place: Path,
    threads: int,
) -> tuple[Comparison, ...]:
    known = {part.name: part for part in partition(graph)}
    wanted: list[Part] = [known[row["name"]] for row in page["parts"] if row["name"] in known]
    cuts = []
    for artifact in artifacts:
        model = ir.load(artifact.path)
        engine = Engine(
            name=artifact.engine,
            backend=artifact.backend,
            device=artifact.device,
            parts=artifact.parts,
            inputs=artifact.inputs,
            outputs=artifact.outputs,
            source=model,
            model=model,
        )
        cuts += [
            cut(graph, engine, part, artifact, place)
            for part in wanted
            if part.name in artifact.parts and part.outputs
        ]
    results = verify_parts(graph, cuts, files, inputs, place, threads)
    return tuple(one for result in results.values() for one in result.comparisons)


def _artifact(row: Mapping[str, Any], place: Path) -> Artifact:
    return Artifact(
        engine=row["name"],
        backend=row["backend"],
        device=row["device"],
        path=place / Path(row["artifact"]).name,
        parts=tuple(row["parts"]),
        inputs=tuple(row["inputs"]),
        outputs=tuple(row["outputs"]),
        settings=row["settings"],
        planned=Counts(**row["planned"]),
        emitted=Counts(**row["emitted"]),
        optimised=Counts(**row["optimised"]),
    )


def _ranges(page: Mapping[str, Any]) -> dict[str, tuple[Range, ...]]:
    return {
        row["name"]: tuple(Range(low, high) for low, high in row["range"])
        for row in page["inputs"]
        if row.get("range")
    }


def _outputs(
    model: Path, bundle: Path, files: Sequence[Path], inputs: Sequence[data.Input], threads: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """All outputs of both, stacked along the first axis."""
    reference = Reference(model, threads)
    original: dict[str, list[np.ndarray]] = {name: [] for name in reference.outputs}
    built: dict[str, list[np.ndarray]] = {name: [] for name in reference.outputs}
    with open_bundle(bundle, threads) as opened:
        for feeds in data.stream(files, inputs):
            for name, array in reference.run(feeds).items():
                original[name].append(array)
            for name, array in opened.run(feeds).items():
                built[name].append(array)
    return _stack(original), _stack(built)


def _stack(arrays: Mapping[str, list[np.ndarray]]) -> dict[str, np.ndarray]:
    """Outputs whose shapes agree between samples; others cannot serve a metric."""
    return {
        name: np.concatenate(rows)
        for name, rows in arrays.items()
        if rows[0].ndim and len({row.shape[1:] for row in rows}) == 1
    }
