"""The page of a benchmark; a disturbed run is neither hidden nor averaged."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bundles
import pytest

from edgec.errors import InputError, ToolchainError
from edgec.runtime import benchmark as module
from edgec.runtime import loadgen
from edgec.runtime.benchmark import Wish, benchmark
from edgec.runtime.cli import main
from edgec.runtime.conditions import Watch
from edgec.runtime.scenarios import SCENARIOS, Load

MARK = "throttled: 3 events of package cpu0"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return bundles.write(tmp_path / "m.edgec")


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether rounds differ is this machine's affair."""
    monkeypatch.setattr(module, "unsteady", lambda _: False)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, steady: None) -> list[list[str]]:
    """The marks of each attempt, put there by the test; what is measured is real."""
    script: list[list[str]] = []
    left: Iterator[list[str]] = iter(script)

    class Told(Watch):
        def __exit__(self, *error: Any) -> None:
            super().__exit__(*error)
            self.page["marks"] = next(left)

    monkeypatch.setattr(module, "Watch", Told)
    return script


def keys(value: Any) -> Any:
    """The form of JSON values, without the values."""
    if isinstance(value, dict):
        return {key: keys(item) for key, item in value.items() if key not in ("versions", "gauges")}
    return [keys(item) for item in value[:1]] if isinstance(value, list) and value else None


def test_the_page(bundle: Path, told: list[list[str]]) -> None:
    told.append([])
    model = bundle.with_suffix(".onnx")
    model.write_bytes(bundles.two_tower_models()["one"].SerializeToString())
    page = benchmark(Wish(bundle, against=model, threads=1, rounds=3, calls=4), lambda _: None)
    assert json.loads(json.dumps(page, allow_nan=False)) == page
    assert page["bundle"]["bytes"] == bundle.stat().st_size
    assert page["model"]["name"] == "m.onnx"
    assert len(page["model"]["signature"]) == 16
    assert page["target"]["name"] == "host"
    assert {"edgec", "python", "numpy", "onnxruntime"} <= set(page["versions"])
    assert page["machine"]["cores"] >= 1
    assert [case["label"] for case in page["cases"]] == ["bundle", "m.onnx"]
    for case in page["cases"]:
        assert 0 < case["low"] <= case["p50"] <= case["p90"] <= case["p95"] <= case["p99"]
        assert (case["rounds"], case["queries"], case["samples"]) == (3, 12, 12)
        assert len(case["medians"]) == 3
        assert math.isclose(case["per_second"], 1e3 / case["mean"], rel_tol=0.05)
    assert page["ratio"]["low"] <= page["ratio"]["median"] <= page["ratio"]["high"]
    assert page["conditions"]["readings"] >= 1
    assert "not an MLPerf submission" in page["label"]


@pytest.mark.skipif(not loadgen.installed(), reason="mlcommons-loadgen is for x86-64")
def test_both_harnesses_write_the_same_form(bundle: Path) -> None:
    forms = []
    for harness in ("timer", "loadgen"):
        load = Load("MultiStream", harness, samples=2)
        page = benchmark(Wish(bundle, threads=1, rounds=1, calls=3, load=load, repeat=0), print)
        assert page["harness"] == harness
        assert page["cases"][0]["samples"] == 6
        for part in (page, *page["attempts"]):
            part["cases"][0].pop("invalid", None)
        forms.append(keys({**page, "marks": [], "attempts": len(page["attempts"])}))
    assert forms[0] == forms[1]
    assert page["label"] == "measured with LoadGen, not an MLPerf submission"
    assert page["versions"]["mlcommons-loadgen"]


def test_a_marked_run_is_repeated_and_not_averaged(bundle: Path, told: list[list[str]]) -> None:
    told += [[MARK], [MARK], []]
    said: list[str] = []
    page = benchmark(Wish(bundle, rounds=1, calls=2, repeat=4, pause=0.0), said.append)
    assert [attempt["marks"] for attempt in page["attempts"]] == [[MARK], [MARK], []]
    assert page["marks"] == []
    assert page["cases"] == page["attempts"][2]["cases"] != page["attempts"][0]["cases"]
    assert len([line for line in said if line.startswith("marked: " + MARK)]) == 2


def test_what_stays_marked_says_so(
    bundle: Path, told: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    told += [[MARK]] * 2
    out = bundle.with_suffix(".json")
    line = ["bench", str(bundle), "--rounds", "1", "--calls", "1", "--repeat", "1", "--pause", "0"]
    line += ["--json", str(out), "--fail-if", "p95>1000s", "--fail-if", "size>1GB"]
    assert main(line) == 7
    shown = capsys.readouterr()
    assert "goal p95<=1000s on an undisturbed device" in shown.err
    assert MARK in shown.err
    assert "all 2 attempts were marked: these figures are the last one's" in shown.out
    page = json.loads(out.read_text())
    assert page["marks"] == [MARK]
    assert len(page["attempts"]) == 2


def test_the_gate_on_the_command_line(
    bundle: Path, told: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    out = bundle.with_suffix(".json")
    line = ["bench", str(bundle), "--rounds", "1", "--calls", "1", "--json", str(out)]
    told += [[], []]
    assert main([*line, "--fail-if", "p95>1000s", "--fail-if", "size>1GB"]) == 0
    met = json.loads(out.read_text())["goals"]
    assert [(one["goal"], one["state"]) for one in met] == [
        ("p95<=1000s", "met"),
        ("size<=1GB", "met"),
    ]
    assert main([*line, "--fail-if", "p95>0.1us"]) == 7
    assert "goal p95<=0.1us: reached" in capsys.readouterr().err
    for wrong in ("p95", "ratio>1x", "sqnr<1dB"):
        assert main([*line, "--fail-if", wrong]) == 3
    assert not told[2:]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenarios_on_the_command_line(bundle: Path, scenario: str) -> None:
    out = bundle.with_suffix(".json")
    line = ["bench", str(bundle), "--rounds", "1", "--calls", "4", "--repeat", "0", "--qps", "200"]
    assert main([*line, "--scenario", scenario.lower(), "--json", str(out)]) == 0
    page = json.loads(out.read_text())
    assert page["scenario"] == scenario
    assert page["harness"] == ("loadgen" if loadgen.installed() else "timer")


def test_what_cannot_be_asked(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="has no rate of its own"):
        benchmark(Wish(bundle, load=Load("Server")), print)
    with pytest.raises(InputError, match="nowhere does not exist"):
        benchmark(Wish(bundle, against=Path("nowhere")), print)
    monkeypatch.setattr(loadgen, "installed", lambda: False)
    with pytest.raises(ToolchainError, match="LoadGen is not installed") as caught:
        benchmark(Wish(bundle, load=Load(harness="loadgen")), print)
    assert "--harness timer" in caught.value.hint
