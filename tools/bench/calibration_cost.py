"""Running the cases of the cost table: interleaved rounds, one process each, kept run by run."""

from __future__ import annotations

import compileall
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import calibration_samples
import peers_build
import peers_cache as cache
from calibration_cases import COSTS, SOME, SUFFIXES, Cost, command, told
from peers_steps import Bench, say
from peers_types import Built, Model

MOST_MB, SECONDS = 12_000.0, 3600.0  # a case that passes either is ended, and says so
KEEP = ("values", "native", "seconds", "cpu_seconds", "peak_bytes")  # of what a case tells
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Run:
    """One process: the case by name, its samples, its round, how it went, and what it told."""

    case: str
    samples: int
    turn: int
    built: Built
    told: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Results:
    """All runs of a model, and per method the milliseconds of a threshold search."""

    runs: tuple[Run, ...]
    searches: Mapping[str, Mapping[str, float]]


class Costs:
    """One model's runs, in a folder beside what `peers` keeps of the model."""

    def __init__(self, model: Model, work: Path, packages: Path) -> None:
        self._model, self._bench = model, Bench(model, work, packages)
        self._place = work / model.name / "calibration"
        self._samples = self._place / "samples"
        self._prepared = self._place / "preprocessed.onnx"
        self._environment = {"PYTHONPATH": str(cache.ROOT)}

    def run(self, rounds: int, only: Sequence[str] = ()) -> Results:
        """Make what is missing and run all rounds; a second call goes on where the first ended.

        Nothing of another edgec, package or model is kept: rounds would not be side by side.
        """
        self._make()
        path = self._place / "runs.json"
        key = self._key()
        runs = list(_kept(path, key).runs)
        for turn in range(rounds):
            for case, samples in order(turn, only):
                mine = [one for one in runs if (one.case, one.samples) == (case.name, samples)]
                if any(one.turn == turn or one.built.problem for one in mine):
                    continue
                runs.append(self._run(case, samples, turn))
                _store(path, key, Results(tuple(runs), {}))
        results = Results(tuple(runs), self._search())
        _store(path, key, results)
        return results

    def results(self) -> Results:
        """What has been kept."""
        return _kept(self._place / "runs.json", self._key())

    def _key(self) -> str:
        sources = [HERE / f"calibration_{name}.py" for name in ("samples", "work")]
        keys = [cache.files_key(path) for path in sources]
        keys += [cache.tool_key(tool) for tool in ("edgec", "ort", "nncf")]
        return cache.digest(cache.make_key(self._model), keys, list(map(asdict, COSTS)))

    def _make(self) -> None:
        compileall.compile_dir(cache.ROOT / "edgec", quiet=1)  # as pip does, for every other tool
        self._bench.make()
        self._place.mkdir(exist_ok=True)
        folder, made = self._bench.folder, cache.make_key(self._model)

        def work() -> dict[str, Any]:
            say(f"{self._model.name}: making {calibration_samples.COUNT} samples")
            calibration_samples.make(folder.calibration, self._samples)
            program = [str(HERE / "calibration_work.py"), "preprocess"]
            line = [str(folder.model), "-", str(self._prepared), "{}"]
            done = peers_build.run(
                [sys.executable, *program, *line], self._prepared, self._environment
            )
            if done.problem:
                raise SystemExit(f"{self._model.name}: preprocessing: {done.problem}")
            return {}

        source = cache.files_key(HERE / "calibration_samples.py")
        cache.recall(self._place / "made.json", cache.digest(made, source), work)

    def _run(self, case: Cost, samples: int, turn: int) -> Run:
        say(f"{self._model.name}: round {turn + 1}, {case.name}, {samples} samples")
        output = self._output(case.name, samples)
        shutil.rmtree(output.parent, ignore_errors=True)
        output.parent.mkdir(parents=True)
        data = calibration_samples.first(self._samples, samples, self._place / "data")
        line = command(case, self._model, self._bench.folder, self._prepared, data, output)
        built = peers_build.run(line, output, self._environment, SECONDS, MOST_MB)
        page = told(output)
        found = json.loads(page.read_text(encoding="utf-8")) if page.is_file() else {}
        return Run(
            case.name, samples, turn, built, {key: found[key] for key in KEEP if key in found}
        )

    def _output(self, case: str, samples: int) -> Path:
        tool = next(one.tool for one in COSTS if one.name == case)
        return self._place / f"{case}-{samples}" / f"output{SUFFIXES[tool]}"

    def _search(self) -> dict[str, dict[str, float]]:
        """Threshold searches over the statistics that edgec wrote last, if it wrote any."""
        statistics = self._output("edgec", SOME)
        if not statistics.is_file():
            return {}
        say(f"{self._model.name}: searching thresholds")
        output = self._place / "search" / "output.json"
        output.parent.mkdir(exist_ok=True)
        line = [str(HERE / "calibration_work.py"), "search", str(statistics), "-", str(output)]
        done = peers_build.run([sys.executable, *line, "{}"], output, self._environment)
        if done.problem:
            say(f"{self._model.name}: threshold search: {done.problem}")
            return {}
        found: dict[str, dict[str, float]] = json.loads(output.read_text(encoding="utf-8"))
        return found


def order(turn: int, only: Sequence[str] = ()) -> list[tuple[Cost, int]]:
    """The runs of a round: every second one goes backwards, so that drift hits all cases alike."""
    found = [
        (case, samples)
        for case in COSTS
        if not only or case.name in only
        for samples in (*case.samples, *(case.once if turn == 0 else ()))
    ]
    return found[:: -1 if turn % 2 else 1]


def _kept(path: Path, key: str) -> Results:
    if not path.is_file():
        return Results((), {})
    record = json.loads(path.read_text(encoding="utf-8"))
    if record["key"] != key:
        return Results((), {})
    runs = tuple(Run(**{**one, "built": Built(**one["built"])}) for one in record["runs"])
    return Results(runs, record["searches"])


def _store(path: Path, key: str, results: Results) -> None:
    runs = [asdict(one) for one in results.runs]
    cache.store(path, {"key": key, "runs": runs, "searches": results.searches})
