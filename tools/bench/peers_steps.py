"""The four steps of a model: make it, build every case, evaluate, measure.

All but the last are kept in the model's folder under a hash of what they depend on.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import peers_build
import peers_cache as cache
import peers_cases
import peers_edgec
import peers_measure
from peers_types import Build, Built, Case, Fidelity, Folder, Model, Row, Speed

STEPS = ("make", "build", "evaluate", "measure")
THREADS = 2
HERE = Path(__file__).parent
SOURCE = Built(0.0, 0.0, 0)


class Bench:
    """One model's folder below the work folder; `seconds` adds up what each step took."""

    def __init__(self, model: Model, work: Path, packages: Path) -> None:
        self.model, self._packages = model, packages
        self._place = work / model.name
        self.folder = Folder(self._place / "made")
        self._made = cache.make_key(model)
        self.seconds = dict.fromkeys(STEPS, 0.0)

    def run(
        self, numbered: Sequence[tuple[int, Case]], rounds: int, until: str, fresh: Sequence[str]
    ) -> list[Row]:
        """Take the cases through all steps up to `until`; `fresh` names tools to build anew."""
        last = STEPS.index(until)
        self._clock("make", self.make)
        if last < 1:
            return []
        for tool in fresh:
            for path in (self._place / "builds").glob("*/record.json"):
                if json.loads(path.read_text(encoding="utf-8")).get("tool") == tool:
                    path.unlink()
        rows = []
        for number, case in numbered:
            built = self._clock("build", self.build, case.build) if case.build else self._source()
            rows.append(Row(number, case, built, None, None, built.problem))
        if last >= 2:
            rows = [self._clock("evaluate", self.evaluate, row) for row in rows]
            if rows[0].problem:
                raise SystemExit(f"{self.model.name}: {rows[0].case.label} {rows[0].problem}")
        if last >= 3:
            rows = self._clock("measure", self.measure, rows, rounds)
        return rows

    def _clock(self, step: str, function: Any, *arguments: Any) -> Any:
        begin = time.monotonic()
        try:
            return function(*arguments)
        finally:
            self.seconds[step] += time.monotonic() - begin

    def make(self) -> None:
        """Write model and data. Raises SystemExit: without them there is nothing to bench."""
        self._place.mkdir(parents=True, exist_ok=True)

        def work() -> dict[str, Any]:
            say(f"{self.model.name}: making model and data")
            program = [sys.executable, str(HERE / "peers_models.py"), self.model.name]
            places = [str(self.folder.path), str(self._packages)]
            shutil.rmtree(self.folder.path, ignore_errors=True)
            # run beside the folder, which appears only when it is complete
            made = peers_build.run([*program, *places], self._place / "made.run", {})
            if not self.folder.model.is_file():
                raise SystemExit(f"{self.model.name}: {made.problem}; see {self._place}/log.txt")
            return asdict(made)

        cache.recall(self._place / "made.json", self._made, work)

    def _source(self) -> Built:
        return replace(SOURCE, bytes=peers_build.size(self.folder.model))

    def build(self, build: Build) -> Built:
        """The artifact of a build, or the reason why there is none."""
        folder = self._place / "builds" / build.name
        artifact = folder / build.artifact

        def work() -> dict[str, Any]:
            say(f"{self.model.name}: building {build.name}")
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            line = peers_cases.command(build, self.folder, artifact)
            built = peers_build.run(line, artifact, {"PYTHONPATH": str(cache.ROOT)})
            if build.tool == "edgec" and not built.problem:
                size, note = peers_edgec.size(artifact), peers_edgec.choice(artifact)
                built = replace(built, bytes=size, note=note)
            elif (note := artifact.with_name("note.txt")).is_file():
                built = replace(built, note=note.read_text(encoding="utf-8"))
            return {"built": asdict(built), "tool": build.tool}

        record = cache.recall(folder / "record.json", self._key(build), work)
        return Built(**record["built"])

    def _key(self, build: Build | None) -> str:
        if build is None:
            return self._made
        return cache.digest(self._made, asdict(build), cache.tool_key(build.tool))

    def _opened(self, case: Case) -> dict[str, Any]:
        """The case as its process wants it."""
        path = self.folder.model
        if case.build is not None:
            path = self._place / "builds" / case.build.name / case.build.artifact
        graph = onnx.load(self.folder.model, load_external_data=False).graph
        return {
            "path": str(path),
            "runtime": case.runtime,
            "settings": dict(case.settings),
            "threads": THREADS,
            "outputs": [value.name for value in graph.output],
        }

    def evaluate(self, row: Row) -> Row:
        """Add fidelity and task to a row."""
        if row.problem:
            return row
        place = self._place / "outputs"
        place.mkdir(exist_ok=True)
        case, into = row.case, place / f"{row.case.name}.npz"
        first = case.name == peers_cases.BASE

        def work() -> dict[str, Any]:
            say(f"{self.model.name}: evaluating {case.name}")
            for path in (into, into.with_suffix(".json")):
                path.unlink(missing_ok=True)
            if first:
                shutil.rmtree(self._place / "reference", ignore_errors=True)
            program = [sys.executable, str(HERE / "peers_case.py"), json.dumps(self._opened(case))]
            heldout, reference = str(self.folder.heldout), str(self._place / "reference")
            line = [*program, "evaluate", self.model.name, heldout, reference, str(into)]
            done = peers_build.run(line, into, {"PYTHONPATH": str(cache.ROOT)})
            return {"problem": done.problem}

        # the file itself counts: what edgec builds depends on what it measures
        opened = Path(self._opened(case)["path"])
        tools = [cache.tool_key(tool) for tool in (case.runtime, "case")]
        key = cache.digest(self._made, cache.files_key(opened), case.settings, tools)
        record = cache.recall(place / f"{case.name}.record.json", key, work)
        if record["problem"]:
            return replace(row, problem=f"does not run: {record['problem']}")
        return replace(row, fidelity=self._fidelity(into, first))

    def _fidelity(self, outputs: Path, first: bool) -> Fidelity:
        base = outputs.with_name(f"{peers_cases.BASE}.npz")
        arrays = [dict(np.load(path)) for path in (base, outputs, self.folder.labels)]
        task = self.model.score(*arrays)
        if first:
            return Fidelity(1.0, float("inf"), task)
        found = json.loads(outputs.with_suffix(".json").read_text(encoding="utf-8"))
        cosine, sqnr = (min(one[key] for one in found.values()) for key in ("cosine", "sqnr_db"))
        return Fidelity(cosine, sqnr, task, found)

    def measure(self, rows: Sequence[Row], rounds: int) -> list[Row]:
        """Add speeds: all rows that run, side by side."""
        say(f"{self.model.name}: measuring {rounds} rounds")
        running = {row.case.name: self._opened(row.case) for row in rows if not row.problem}
        speeds, problems = peers_measure.measure(
            running, peers_cases.BASE, self.folder.sample, rounds
        )
        return [
            replace(
                row,
                speed=speeds.get(row.case.name),
                problem=row.problem or problems.get(row.case.name, ""),
            )
            for row in rows
        ]

    def keep(self, rows: Sequence[Row]) -> None:
        """Write the rows, for a table that is made later."""
        records = []
        for row in rows:
            record = {**vars(row), "case": row.case.name, "built": asdict(row.built)}
            for name in ("fidelity", "speed"):
                record[name] = asdict(found) if (found := getattr(row, name)) else None
            records.append(record)
        cache.store(self._place / "rows.json", records)


def kept(model: Model, work: Path) -> list[Row]:
    """The rows that `keep` wrote; empty if there are none."""
    path = work / model.name / "rows.json"
    if not path.is_file():
        return []
    known = {case.name: case for _, case in peers_cases.cases(model.kind)}
    return [_row(one, known[one["case"]]) for one in json.loads(path.read_text(encoding="utf-8"))]


def _row(record: dict[str, Any], case: Case) -> Row:
    fidelity, speed = record["fidelity"], record["speed"]
    if fidelity is not None:
        numbers = {key: float(fidelity[key]) for key in ("cosine", "sqnr_db")}
        fidelity = Fidelity(**{**fidelity, **numbers})
    if speed is not None:
        speed = Speed(**{**speed, "medians": tuple(speed["medians"])})
    return Row(record["number"], case, Built(**record["built"]), fidelity, speed, record["problem"])


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)
