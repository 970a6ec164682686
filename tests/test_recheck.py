"""A finished bundle against its source model."""

from __future__ import annotations

from pathlib import Path

import graphs
import numpy as np
import pytest
import small

from edgec import runtime
from edgec.build import Job, build
from edgec.errors import InputError
from edgec.recheck import Recheck, recheck
from edgec.results import Comparison, Report
from edgec.types import Limits

NAME = "siamese"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("recheck")
    return build(
        Job(
            graphs.path(NAME),
            target="x86-vnni",
            data=graphs.write_samples(NAME, folder / "data", 6),
            output=folder / "m.edgec",
            measure=False,
            threads=1,
        )
    )


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples that the build did not see."""
    folder = tmp_path_factory.mktemp("fresh")
    for index in range(7):
        arrays = graphs.load_feeds(NAME, 500 + index, batch=1)
        np.savez(folder / f"s{index}.npz", **arrays)  # type: ignore[arg-type]
    return folder


def test_every_part_and_output_is_compared(report: Report, fresh: Path) -> None:
    found = recheck(report.bundle, graphs.path(NAME), fresh, (), None, 1)
    outputs = {(p.name, v) for p in report.plan.parts for v in p.outputs}
    assert {(c.part, c.value) for c in found.parts} == outputs
    assert [c.value for c in found.outputs] == [
        v.name for v in small.fixture(NAME).model.graph.outputs
    ]
    assert {c.samples for c in (*found.parts, *found.outputs)} == {7}
    assert found.figures == ()
    assert found.limits == Limits()
    kept = (
        min(c.sqnr_db for c in found.parts) >= 12 and min(c.cosine for c in found.outputs) >= 0.97
    )
    assert (found.missed is None) == kept


def test_the_figures_are_those_of_the_bundle(report: Report, fresh: Path) -> None:
    found = recheck(report.bundle, graphs.path(NAME), fresh, (), None, 1)
    exact, ours = [], []
    with runtime.load(report.bundle, 1) as model:
        for path in sorted(fresh.iterdir()):
            feeds = dict(np.load(path))
            exact.append(small.run(graphs.path(NAME), feeds, level="ORT_ENABLE_ALL")["classes"])
            ours.append(model.run(feeds)["classes"])
    x, y = np.stack(exact).astype(float), np.stack(ours).astype(float)
    (classes,) = [c for c in found.outputs if c.value == "classes"]
    assert classes.max_abs == pytest.approx(np.abs(x - y).max(), rel=1e-3)
    assert classes.sqnr_db == pytest.approx(small.sqnr(x, y), abs=0.05)
    cosine = (x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum())
    assert classes.cosine == pytest.approx(cosine, abs=1e-5)
    assert classes.agreement == np.mean(x.argmax(-1) == y.argmax(-1))
    assert classes.agreement_kind == "top-1"


def test_another_model_is_refused(report: Report, fresh: Path) -> None:
    with pytest.raises(InputError) as caught:
        recheck(report.bundle, graphs.path("cnn"), fresh, (), None, 1)
    assert "cnn.onnx is not the model that" in caught.value.message
    assert "siamese.onnx" in caught.value.hint


def test_data_of_another_model_is_refused(report: Report, tmp_path: Path) -> None:
    data = graphs.write_samples("cnn", tmp_path, 3)
    with pytest.raises(InputError, match=r"sample_0000\.npz: input 'left' is missing"):
        recheck(report.bundle, graphs.path(NAME), data, (), None, 1)


def test_a_metric_with_labels(report: Report, fresh: Path, tmp_path: Path) -> None:
    files = sorted(fresh.iterdir())
    scores = [
        small.run(graphs.path(NAME), dict(np.load(f)), level="ORT_ENABLE_ALL")["classes"]
        for f in files
    ]
    truth = [int(s.argmax()) if index % 2 else 0 for index, s in enumerate(scores)]
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(map(str, truth)))
    wanted = ("top1", "f1:average=micro")
    found = recheck(report.bundle, graphs.path(NAME), fresh, wanted, labels, 1)
    top, f1 = found.figures
    expected = np.mean([int(s.argmax()) == t for s, t in zip(scores, truth, strict=True)])
    assert (top.metric, f1.metric) == ("top1", "f1 micro")
    assert top.original == pytest.approx(expected)
    for figure in found.figures:
        assert figure.original == top.original
        assert figure.samples == 7
        assert figure.low <= figure.difference <= figure.high
    (classes,) = [c for c in found.outputs if c.value == "classes"]
    assert top.agreement == f1.agreement == classes.agreement


def test_metric_and_labels_are_known_before_the_work_begins(fresh: Path, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.edgec"
    with pytest.raises(InputError, match="unknown metric 'accuracy'"):
        recheck(nothing, graphs.path(NAME), fresh, ["accuracy"], None, 1)
    with pytest.raises(InputError, match="metric top1 needs labels"):
        recheck(nothing, graphs.path(NAME), fresh, ["top1"], None, 1)


def test_labels_are_read_before_the_models_run(
    report: Report, fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("s0,1\ns1,nan\n")
    monkeypatch.setattr("edgec.recheck.verify_parts", None)
    with pytest.raises(InputError, match=r"labels\.csv, line 2: 'nan' is not a whole number"):
        recheck(report.bundle, graphs.path(NAME), fresh, ["top1"], labels, 1)


def test_a_metric_that_the_outputs_do_not_serve(report: Report, fresh: Path) -> None:
    wanted = ["retrieval:query=classes,gallery=nothing"]
    with pytest.raises(InputError, match=r"s0\.npz: the model has no output 'nothing'") as caught:
        recheck(report.bundle, graphs.path(NAME), fresh, wanted, None, 1)
    assert "classes" in caught.value.hint


def test_a_file_that_is_no_bundle(fresh: Path) -> None:
    with pytest.raises(InputError, match=r"cnn\.onnx"):
        recheck(graphs.path("cnn"), graphs.path("cnn"), fresh, (), None, 1)


# limits


def _found(sqnr: float, cosine: float, limits: Limits) -> Recheck:
    part = Comparison("vision", "v", 0.1, 0.99, sqnr, 1.0, "none", 4)
    output = Comparison("", "classes", 0.1, cosine, 30.0, 1.0, "top-1", 4)
    return Recheck((part,), (output,), (), limits)


def test_a_bundle_that_misses_its_limits_on_this_data_fails() -> None:
    good = _found(12.0, 0.97, Limits())
    assert good.missed is None
    bad = _found(11.5, 0.5, Limits()).missed
    assert bad is not None
    assert (bad.goal, bad.value, bad.limit) == ("SQNR of part vision in dB", 11.5, 12.0)
    assert bad.exit_code == 7
    assert "policy" in bad.hint
    drifted = _found(20.0, 0.96, Limits()).missed
    assert drifted is not None
    assert (drifted.goal, drifted.value, drifted.limit) == ("cosine of output classes", 0.96, 0.97)
    assert _found(1.0, 0.1, Limits(part_sqnr_db=None, cosine=None)).missed is None
