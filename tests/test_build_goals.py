"""Goals of a build: met, missed with exit code 7 and the bundle kept, or not judged and why."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import graphs
import pytest
import trials
from click.testing import CliRunner

from edgec.build import Job, build
from edgec.cli.build import command
from edgec.errors import GoalMissed, InputError
from edgec.goals import first_missed, judge, line, missed_of, of_target
from edgec.policy import load_policy
from edgec.report import report_path
from edgec.results import Comparison, Contender, Report, Speed
from edgec.runtime.goals import BUILT, Verdict, parse

BUSY = (1.0, 1.0, 1.0, 2.0, 3.0, 3.0, 3.0)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return graphs.write_samples("mlp", tmp_path_factory.mktemp("mlp"), 6)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, samples: Path) -> Report:
    """A build that was not measured; tests put the figures in that they judge."""
    output = tmp_path_factory.mktemp("out") / "mlp.edgec"
    job = Job(graphs.path("mlp"), backend="onnxruntime", data=samples, output=output, threads=1)
    return build(replace(job, measure=False))


def verdict(text: str, report: Report, *, with_data: bool = True, unmeasured: str = "") -> Verdict:
    (found,) = judge([parse(text, BUILT)], report, with_data=with_data, unmeasured=unmeasured)
    return found


def timed(report: Report, milliseconds: float, **more: Any) -> Report:
    """The report with a plan that was timed."""
    base = trials.speed("all", 2.0)
    steady = (milliseconds,) * 7
    built = base.built._replace(p95=milliseconds, medians=more.get("medians", steady), peak_mb=80.0)
    float_form = base.float_form._replace(medians=tuple(2 * x for x in steady))
    speed = Speed("all", float_form, built, base.gain)
    return replace(report, chosen="one", contenders=(Contender("one", {}, speed, 20.0, ""),))


def test_the_size_is_always_judged(report: Report) -> None:
    megabytes = report.bundle.stat().st_size / 1e6
    assert verdict("size<1GB", report, unmeasured="no").state == "met"
    missed = verdict("size<1KB", report, unmeasured="no")
    assert (missed.state, missed.value) == ("missed", pytest.approx(1e3 * megabytes))


def test_latency_is_judged_where_it_was_measured_of_the_target(report: Report) -> None:
    why = "this machine is not the target raspberry-pi-5: edgec bench tells, on the device"
    far = verdict("p95<20ms", timed(report, 30.0), unmeasured=why)
    assert (far.state, far.value, far.reason) == ("not judged", None, why)
    assert verdict("p95<20ms", report).reason == "the bundle was not timed"
    assert verdict("p95<20ms", timed(report, 10.0)).state == "met"
    assert verdict("p95<20ms", timed(report, 30.0))[1:5] == ("missed", 30.0, 20.0, "ms")
    assert verdict("memory<79MB", timed(report, 1.0)).state == "missed"
    speedup = verdict("speedup>1.5x", timed(report, 10.0))
    assert (speedup.state, speedup.reason) == ("met", "against FP32 ONNX Runtime")
    assert verdict("power<5W", timed(report, 1.0)).reason.startswith("a build measures no power")


def test_a_busy_machine_judges_no_latency(report: Report) -> None:
    found = verdict("p95<20ms", timed(report, 30.0, medians=BUSY))
    assert found.state == "not judged"
    assert "this machine was busy: rounds took 1 to 3 ms" in found.reason


def outputs(report: Report, *rows: tuple[float, float, str]) -> Report:
    made = [
        Comparison("", f"o{n}", 0.1, 0.99, sqnr, agreement, kind, 100)
        for n, (sqnr, agreement, kind) in enumerate(rows)
    ]
    return replace(report, checks=replace(report.checks, outputs=tuple(made)))


def test_fidelity_is_that_of_the_worst_output(report: Report) -> None:
    two = outputs(report, (25.0, 0.99, "top-1"), (18.0, 0.95, "neighbour"))
    assert verdict("sqnr>20dB", two)[1:3] == ("missed", 18.0)
    assert verdict("agreement>97%", two)[1:3] == ("missed", pytest.approx(95.0))
    assert verdict("sqnr>20dB", outputs(report, (float("inf"), 1.0, "none"))).state == "met"
    without = verdict("sqnr>20dB", two, with_data=False)
    assert (without.state, without.reason[:20]) == ("not judged", "built without --data")


def test_agreement_bounds_the_drop_of_accuracy(report: Report) -> None:
    two = outputs(report, (25.0, 0.99, "top-1"), (18.0, 0.5, "neighbour"))
    assert verdict("accuracy_drop<2%", two)[1:3] == ("met", pytest.approx(1.0))
    open_ = verdict("accuracy_drop<0.5%", two)
    assert (open_.state, open_.value) == ("not judged", None)
    assert "it is 1 % at most" in open_.reason
    nothing = verdict("accuracy_drop<1%", outputs(report, (25.0, 0.9, "neighbour")))
    assert nothing.reason == "no output of this model is a choice of one class"


def test_a_target_sets_goals_too() -> None:
    limits = {"memory_mb": 512, "latency_ms": 40.5, "bundle_mb": 30, "source": "a data sheet"}
    assert [str(goal) for goal in of_target(limits)] == [
        "memory<=512MB",
        "p95<=40.5ms",
        "size<=30MB",
    ]


def test_a_policy_sets_goals(tmp_path: Path) -> None:
    policy = tmp_path / "p.toml"
    policy.write_text('[goals]\nsize = "< 30MB"\np95 = "<=20ms"\n')
    assert [str(goal) for goal in load_policy(policy).goals] == ["size<30MB", "p95<=20ms"]
    for wrong, message in (
        ("[goals]\nsize = 30\n", "goals.size is not a setting"),
        ('[goals]\nsize = "30MB"\n', "goals: 'size30MB' is no goal"),
        ('[goals]\ncolour = "<3MB"\n', "there is no metric 'colour'"),
        ("goals = 3\n", "goals is not a setting"),
    ):
        policy.write_text(wrong)
        with pytest.raises(InputError, match=message):
            load_policy(policy)


def test_the_command_line(tmp_path: Path, samples: Path) -> None:
    output, policy = tmp_path / "m.edgec", tmp_path / "p.toml"
    policy.write_text('[goals]\nsqnr = ">1dB"\n')
    words = [graphs.path("mlp"), "--data", samples, "--backend", "onnxruntime", "-o", output]
    words += ["--no-measure", "--policy", policy, "--goal", "size<1KB", "--goal", "p95<1s"]
    done = CliRunner().invoke(command, [*map(str, words), "--json", str(tmp_path / "out.json")])
    assert isinstance(done.exception, GoalMissed)
    assert (done.exception.exit_code, done.exception.goal) == (7, "size<1KB")
    assert done.exception.limit == 1
    assert done.exception.value == pytest.approx(output.stat().st_size / 1e3)
    assert f"{output} is kept" in done.exception.hint
    for page in (report_path(output), tmp_path / "out.json"):
        states = {one["goal"]: one for one in json.loads(page.read_text())["goals"]}
        assert states["size<1KB"]["state"] == "missed"
        assert states["sqnr>1dB"]["state"] == "met"
        assert states["p95<1s"]["reason"] == "--no-measure was given"
    assert "goal size<1KB: missed, " in done.output
    assert "goal p95<1s: not judged (--no-measure was given)" in done.output
    again = missed_of(output)
    assert again is not None
    assert (again.goal, again.limit) == ("size<1KB", 1)
    wrong = CliRunner().invoke(command, [str(graphs.path("mlp")), "--goal", "size<30"])
    assert isinstance(wrong.exception, InputError)


def test_goals_that_are_met_or_open_miss_nothing(report: Report) -> None:
    found = [verdict("size<1GB", report), verdict("p95<1ms", report)]
    assert first_missed(replace(report, goals=tuple(found))) is None
    assert line(found[0]).startswith("goal size<1GB: met, ")
    equal = verdict("sqnr>20dB", outputs(report, (float("inf"), 1.0, "none")))
    assert line(equal) == "goal sqnr>20dB: met, equal"
    assert line(found[1]) == "goal p95<1ms: not judged (the bundle was not timed)"
