"""`edgec farm history`, `edgec farm compare` and `edgec bench --history`, from the command line."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from pages import page

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))
import bundles

from edgec.cli import bench, farm_compare, farm_history
from edgec.errors import GoalMissed, InputError
from edgec.farm.history import History


def run(command: Any, *words: object) -> Result:
    return CliRunner().invoke(command, [str(word) for word in words])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Twelve nights of one bundle and twelve of the next, which is slower; one night was busy."""
    place = tmp_path / "history.sqlite"
    rng = np.random.default_rng(0)
    base = page()["bundle"]
    with History(place) as history:
        for night in range(24):
            slow = night >= 12
            marks = ["busy: other work took 1.00 of 4 CPUs"] if night == 5 else []
            made = page(
                float((12.0 if slow else 10.0) * np.exp(rng.normal(0, 0.01))) * (3 if marks else 1),
                marks=marks,
                device="pi-1",
                started=f"2026-11-{night + 1:02}T02:00:00Z",
                bundle={**base, "sha256": ("f" if slow else "a") * 64},
            )
            history.add(made)
        history.add(page(5.0, device="<nuc>"))
    return place


def test_a_regression_is_told_with_its_reason(path: Path, tmp_path: Path) -> None:
    plot, table = tmp_path / "trend.svg", tmp_path / "all.csv"
    done = run(
        farm_history.command, "--history", path, "--plot", plot, "--export", table, "--json", "-"
    )
    assert done.exit_code == 0, done.output
    series = {one["title"]: one for one in json.loads(done.stdout)}
    (pi,) = [one for title, one in series.items() if "pi-1" in title]
    (change,) = pi["changes"]
    assert change["since"] == 13
    assert change["after"] / change["before"] == pytest.approx(1.2, rel=0.02)
    assert "regression: p50 of m.onnx" in done.stderr
    assert "since run #13 of 2026-11-13T02:00:00Z, bundle ffffffffffff: E-divisive" in done.stderr
    assert "not judged: 1 clean runs, 10 are needed" in done.stderr
    assert len(table.read_text().splitlines()) == 26
    picture = ET.fromstring(plot.read_text())
    circles = picture.findall("{*}circle")
    assert len(circles) == 25
    assert [one.get("fill") for one in circles].count("#fff") == 1
    assert "<nuc>" in "".join(picture.itertext())


def test_strict_is_a_gate(path: Path) -> None:
    done = run(farm_history.command, "--history", path, "--strict")
    assert isinstance(done.exception, GoalMissed)
    assert "no regression of p50" in done.exception.goal
    rate = run(farm_history.command, "--history", path, "--strict", "--metric", "size")
    assert rate.exit_code == 0, rate.output
    other = run(farm_history.command, "--history", path, "--strict", "--device", "<nuc>")
    assert other.exit_code == 0, other.output


def test_an_empty_history(tmp_path: Path) -> None:
    plot = tmp_path / "t.svg"
    done = run(farm_history.command, "--history", tmp_path / "new.sqlite", "--plot", plot)
    assert done.exit_code == 0, done.output
    assert "there are no results" in plot.read_text()


def test_two_bundles(path: Path) -> None:
    words = ("--history", path, "--json", "-")
    done = run(farm_compare.command, "aaaaaa", "ffffff", *words)
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)
    assert row["ratio"] == pytest.approx(1.2, rel=0.02)
    assert (row["base_runs"], row["new_runs"], row["left_out"]) == (11, 12, 1)
    assert row["p"] < 0.001
    few = run(farm_compare.command, "1,2", "13,14", *words)
    assert "not judged: 2 and 2 clean runs" in json.loads(few.stdout)[0]["judgement"]


def test_all_devices(path: Path) -> None:
    done = run(farm_compare.command, "--history", path, "--json", "-")
    rows = json.loads(done.stdout)
    assert {(one["device"], one["bundle"]["sha256"][0]) for one in rows} == {
        ("pi-1", "a"),
        ("pi-1", "f"),
        ("<nuc>", "a"),
    }
    assert all(one["marks"] == [] for one in rows)
    wrong = run(farm_compare.command, "nothing.edgec", "--history", path)
    assert isinstance(wrong.exception, InputError)


def test_bench_keeps_its_result(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bundle = bundles.write(tmp_path / "m.edgec")
    place, out = tmp_path / "h.sqlite", tmp_path / "out.json"
    words = [bundle, "--rounds", 1, "--calls", 2, "--repeat", 0, "--json", out, "--history", place]
    assert bench.command.main([*map(str, words)], standalone_mode=False) == 0
    assert "kept as #1" in capfd.readouterr().err
    gate = [*map(str, words), "--fail-if", "p50>0.001us"]
    assert bench.command.main(gate, standalone_mode=False) == 7
    with History(place) as history:
        first, second = history.results()
    assert {**first.page, "device": ""} == {**json.loads(out.read_text()), "device": ""} or second
    assert first.device == second.device != ""
    chosen = run(farm_compare.command, bundle, "--history", place, "--json", "-")
    assert len(json.loads(chosen.stdout)) == 1
