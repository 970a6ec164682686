"""`tools/bench/calibration`: figures from runs, samples, tables, and the processes of its cases."""

import dataclasses
import json
import math
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import graphs
import numpy as np
import onnx
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "bench"))

import calibration_accuracy
import calibration_bench as bench
import calibration_cases as cases
import calibration_cost as cost
import calibration_figures as figures
import calibration_samples as samples
import calibration_table as table
import calibration_work as work
from calibration_accuracy import Judged
from calibration_cost import Results, Run
from peers_models import MODELS
from peers_types import Built, Folder

from edgec.policy import load_policy
from edgec.runtime import npz

MLP = graphs.FIXTURES / "mlp.onnx"
ROUNDS = 3
SEARCHES = {"minmax": {"values": 2, "mean": 0.1, "most": 0.2}}


def run(case: str, count: int, turn: int, seconds: float, megabytes: float = 300.0) -> Run:
    built = Built(seconds, megabytes, 10, cpu_seconds=seconds, largest_mb=megabytes)
    return Run(case, count, turn, built, {"values": 7})


def runs(each: Mapping[str, float], setup: float = 1.0) -> list[Run]:
    """Runs in which a sample costs so many milliseconds; the machine slows down by the round."""
    found = []
    for turn in range(ROUNDS):
        for case, count in cost.order(turn):
            spent = setup + each.get(case.name, 100.0) * 1e-3 * count
            found.append(run(case.name, count, turn, spent * (1 + turn)))
    return found


def found(results: Results) -> dict[str, figures.Found]:
    return {figure.label: figure.find(results) for figure in figures.FIGURES}


def test_a_sample_costs_what_is_left_without_the_setup() -> None:
    results = Results(tuple(runs({"edgec-1": 12.0, "plain-1": 10.0}, setup=50.0)), {})
    marginal = figures.marginal(results, "edgec-1")
    assert marginal == {turn: pytest.approx(0.012 * (1 + turn)) for turn in range(ROUNDS)}
    assert found(results)[figures.FIGURES[0].label] == figures.Found("1.20x", True)


def test_ratios_pair_the_rounds_and_leave_out_what_has_no_partner() -> None:
    low, middle, high = np.quantile([2.0, 3.0, 4.0], [0.25, 0.5, 0.75])
    tops, bottoms = {0: 20.0, 1: 3.0, 2: 400.0, 3: 1.0}, {0: 10.0, 1: 1.0, 2: 100.0, 4: 1.0}
    assert figures.ratio(tops, bottoms) == (low, middle, high)
    assert figures.ratio({0: 1.0}, {1: 1.0}) is None


def test_every_figure_is_judged_from_complete_runs() -> None:
    slow_peers = {"edgec": 10.0, "edgec-1": 10.0, "plain": 9.0, "plain-1": 9.0, "plain-still": 9.0}
    good = Results(tuple(runs(slow_peers, setup=0.0)), SEARCHES)
    assert [one.met for one in found(good).values()] == [True] * len(figures.FIGURES)
    slow = dict.fromkeys(("edgec", "edgec-1"), 1000.0)
    heavy = [
        dataclasses.replace(one, built=dataclasses.replace(one.built, largest_mb=420.0))
        if one.case == "edgec" and one.samples != cases.FEW
        else one
        for one in runs(slow)
    ]
    bad = found(Results(tuple(heavy), {"entropy": {"values": 1, "mean": 2.0, "most": 10.5}}))
    met = [label for label, one in bad.items() if one.met]
    assert met == ["peak memory above inference alone, 32 samples"]


def test_no_figure_without_its_runs() -> None:
    assert {one.text for one in found(Results((), {})).values()} == {"not measured"}
    assert {one.met for one in found(Results((), {})).values()} == {None}


def test_a_peer_that_failed_says_why_and_counts_as_done() -> None:
    whole = runs({})
    failed = Built(9.0, 12_100.0, 0, "failed at 12.1 GB")
    kept = [one for one in whole if (one.case, one.samples) != ("ort-entropy", cases.FEW)]
    results = Results((*kept, Run("ort-entropy", cases.FEW, 0, failed)), {})
    assert figures.problem(results, "ort-entropy", cases.FEW) == "failed at 12.1 GB"
    entropy = next(one for one in figures.FIGURES if "Entropy over edgec" in one.label)
    assert entropy.find(results) == figures.Found("failed at 12.1 GB")
    assert "| failed at 12.1 GB |" in table.costs(results)
    assert bench.complete(results, ROUNDS)
    assert not bench.complete(Results(tuple(kept), {}), ROUNDS)


def test_rounds_alternate_and_the_longest_runs_come_once() -> None:
    first, second, third = (cost.order(turn) for turn in range(3))
    assert second == third[::-1]
    once = [(case.name, count) for case in cases.COSTS for count in case.once]
    assert [(case.name, count) for case, count in first if count in case.once] == once
    assert {name for name, count in once if count == cases.MOST} == {"plain", "edgec"}
    assert [pair for pair in first if pair[1] not in pair[0].once] == third
    assert len({(one.name, count) for one, count in first}) == len(first)
    assert {one.name for one, _ in cost.order(0, ["nncf"])} == {"nncf"}


def test_table_has_every_case_and_marks_what_is_missed(tmp_path: Path) -> None:
    results = Results(tuple(runs({"edgec": 200.0})), SEARCHES)
    models = [one for one in MODELS if one.name in bench.MODELS_OF_COST]
    judged = [
        Judged("fp32", {}, math.inf, {"exact": 1.0}, 0.0),
        Judged("mse", {"vision": 21.04, "text": -math.inf}, 17.0, {"exact": 0.9}, 12.0),
        Judged("auto", {}, 0.0, {}, 1.0, "exit code 3: no such method"),
    ]
    about = {"rounds": "3", "machine": "a machine", "versions": "some 1.0"}
    measured = {one.name: results for one in models}
    text = table.block(measured, {models[0].name: judged}, MODELS, about)
    assert "2.00x, missed" in text
    assert "{" not in text
    for case in cases.COSTS:
        for count in (*case.samples, *case.once):
            assert text.count(f"| {case.label} | {count:,} |") == len(models)
    assert "| mse | vision 21.0, text broken | 17.0 | exact 0.900 | 12 |   |" in text
    assert "| auto | - | - | - | 1 | exit code 3: no such method |" in text


def test_pictures_are_shifted_within_what_they_show() -> None:
    picture = np.random.default_rng(0).normal(size=(1, 2, 48, 64)).astype(np.float32)
    feeds = {"image": picture}
    views = [samples.varied(feeds, view)["image"] for view in range(32)]
    assert views[0] is picture
    for one in views:
        assert (one.shape, one.dtype) == (picture.shape, picture.dtype)
        assert np.isin(one, picture).all()
    assert len({one.tobytes() for one in views}) == 32
    np.testing.assert_array_equal(samples.varied(feeds, 5)["image"], views[5])


def test_texts_keep_their_ends_and_a_mask_that_fits() -> None:
    ids = np.zeros((1, 128), np.int64)
    ids[0, :40] = [101, *range(1000, 1038), 102]
    feeds = {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64)}
    for view in range(1, 32):
        made = samples.varied(feeds, view)
        row, mask = made["input_ids"][0], made["attention_mask"][0]
        length = int(mask.sum())
        assert 21 <= length <= 40
        assert (mask[:length] == 1).all()
        assert (row[0], row[length - 1]) == (101, 102)
        assert not row[length:].any()
        inner = row[1 : length - 1].tolist()
        assert len(set(inner)) == len(inner)
        assert set(inner) <= set(range(1000, 1038))
        assert made["input_ids"].dtype == made["attention_mask"].dtype == np.int64


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "samples"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(6):
        x = rng.standard_cauchy(size=(1, 20)).clip(-50, 50).astype(np.float32)
        npz.write(folder / f"{number:04}.npz", {"x": x})
    return folder


def test_the_first_samples_are_linked(data: Path, tmp_path: Path) -> None:
    for count in (4, 2):
        folder = samples.first(data, count, tmp_path / "data")
        assert [path.name for path in sorted(folder.iterdir())] == [
            f"{number:04}.npz" for number in range(count)
        ]
    assert (folder / "0001.npz").samefile(data / "0001.npz")


def test_entropy_has_something_to_search_with_2048_bins_alone(data: Path, tmp_path: Path) -> None:
    x, y = (onnx.helper.make_tensor_value_info(name, 1, [1, 20]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "one", [x], [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, tmp_path / "one.onnx")
    found = {}
    for case in cases.COSTS:
        if case.tool == "ort":
            settings = {**case.settings, "ops": ["Relu"]}
            found[case.name] = work.ranges(tmp_path / "one.onnx", data, settings)["ranges"]
    plain = found["ort-minmax"]
    assert plain
    assert all(one.keys() == plain.keys() for one in found.values())
    inside = {
        name: sum(high < plain[value][1] for value, (_, high) in one.items())
        for name, one in found.items()
    }
    assert inside["ort-entropy"] == 0
    assert inside["ort-entropy-2048"] > 0


def test_search_is_timed_for_every_histogram() -> None:
    @dataclasses.dataclass
    class Value:
        histogram: object

    @dataclasses.dataclass
    class Seen:
        values: dict[str, Value]

    asked = []

    def limits(seen: Seen, name: str, method: str) -> None:
        asked.append((name, method))

    seen = Seen({"a": Value(1), "b": Value(None), "c": Value(2)})
    found = work.times(seen, {"one": "ONE", "two": "TWO"}, limits)
    assert {name: one["values"] for name, one in found.items()} == {"one": 2, "two": 2}
    assert set(asked) == {(name, method) for name in "ac" for method in ("ONE", "TWO")}
    assert all(0 <= one["mean"] <= one["most"] for one in found.values())


def test_cases_of_a_model_are_processes_that_end_well(data: Path, tmp_path: Path) -> None:
    """Every case but edgec's, as the bench runs it."""
    source = tmp_path / "model.onnx"
    source.write_bytes(MLP.read_bytes())
    folder, prepared = Folder(tmp_path), tmp_path / "preprocessed.onnx"
    work.preprocess(source, prepared)
    for name in ("plain", "plain-still", "ort-percentile"):
        case = next(one for one in cases.COSTS if one.name == name)
        output = tmp_path / name / "output.json"
        output.parent.mkdir()
        line = cases.command(case, MODELS[0], folder, prepared, data, output)
        built = cost.peers_build.run(line, output, {"PYTHONPATH": str(cost.cache.ROOT)})
        assert built.problem == ""
        assert built.cpu_seconds > 0
        assert built.largest_mb > 10
        assert ("values" in json.loads(output.read_text())) == (name == "ort-percentile")


def test_commands_take_all_samples_and_the_advice_for_transformers(data: Path) -> None:
    places = (Folder(Path("made")), Path("prepared.onnx"), data, Path("out/output.x"))
    text = next(one for one in MODELS if one.kind == "transformer")
    lines = {one.name: cases.command(one, text, *places) for one in cases.COSTS}
    own = lines["edgec"]
    assert own[own.index("--samples") + 1] == "6"
    assert own[own.index("--json") + 1] == "out/output.json"
    assert "--all" in own
    assert json.loads(lines["nncf"][-1])["advice"] == "transformer"
    assert json.loads(lines["ort-entropy"][-1])["ops"] == ["MatMul"]
    pictures = cases.command(cases.COSTS[-1], MODELS[0], *places)
    assert "advice" not in json.loads(pictures[-1])


def test_policies_are_what_edgec_reads(tmp_path: Path) -> None:
    assert len({method.name for method in cases.METHODS}) == len(cases.METHODS)
    for method in cases.METHODS:
        assert tomllib.loads(method.policy)["parts"]["*"]
    options = calibration_accuracy.options(cases.METHODS[0], tmp_path)
    policy = load_policy(Path(options[options.index("--policy") + 1]))
    assert policy.limits.part_sqnr_db is policy.limits.cosine is None
    assert [(one.pattern, one.methods) for one in policy.parts] == [("*", ("minmax",))]


def test_a_bundle_that_used_another_method_does_not_stand_for_one() -> None:
    assert calibration_accuracy.unlike("mse", {"vision": "mse", "text": "mse"}) == ""
    assert calibration_accuracy.unlike("auto", {"vision": "mse", "text": "entropy"}) == ""
    used = {"vision": "mse", "text": "minmax"}
    assert calibration_accuracy.unlike("mse", used) == "calibrated by minmax"


def test_runs_of_another_key_are_not_kept(tmp_path: Path) -> None:
    path, results = tmp_path / "runs.json", Results((run("edgec", 32, 1, 2.5),), SEARCHES)
    cost._store(path, "one", results)
    assert cost._kept(path, "one") == results
    assert cost._kept(path, "two") == Results((), {})


def test_judged_methods_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS[0]
    judged = [Judged("mse", {"vision": math.inf}, -math.inf, {"exact": 0.5}, 3.0)]
    (tmp_path / model.name).mkdir()
    calibration_accuracy.keep(judged, model, tmp_path)
    assert calibration_accuracy.kept(model, tmp_path) == judged
    assert calibration_accuracy.kept(MODELS[1], tmp_path) == []
    monkeypatch.setattr(calibration_accuracy, "METHODS", cases.METHODS[1:])
    assert calibration_accuracy.kept(model, tmp_path) == []
