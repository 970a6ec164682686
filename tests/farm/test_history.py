"""The history keeps what is true, once, and gives it back whole; from several processes at once."""

from __future__ import annotations

import csv
import json
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pages import page

from edgec.errors import InputError
from edgec.farm.compare import compare
from edgec.farm.export import export
from edgec.farm.history import History, default_path, here, opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.sqlite"


def test_a_result_comes_back_as_it_was(path: Path) -> None:
    made = page(12.5, job="j.0", device="pi-1")
    with History(path) as history:
        number = history.add(made)
    with History(path) as history:
        (found,) = history.results()
    assert (found.id, found.job, found.device, found.model) == (number, "j.0", "pi-1", "m.onnx")
    assert found.page == made
    assert (found.value("p50"), found.value("size"), found.value("ratio")) == (12.5, 5.0, None)
    assert not found.marked
    assert sqlite3.connect(path).execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_job_has_one_result(path: Path) -> None:
    with History(path) as history:
        first = history.add(page(10, job="j.0", device="a"))
        assert history.add(page(99, job="j.0", device="b")) == first
        assert history.add(page(20)) != history.add(page(20))  # without a farm: two runs
        assert [one.value("p50") for one in history.results()] == [10, 20, 20]


def test_results_come_in_the_order_of_time(path: Path) -> None:
    with History(path) as history:
        for day in (3, 1, 2):
            history.add(page(day, started=f"2026-11-0{day}T00:00:00Z", device=f"d{day}"))
        assert [one.value("p50") for one in history.results()] == [1, 2, 3]
        assert [one.device for one in history.results(device="d2")] == ["d2"]
        with pytest.raises(InputError, match="has no colour"):
            history.results(colour="red")


def test_what_is_driven_otherwise_is_another_series(path: Path) -> None:
    base = page()
    others = [
        {"device": "other"},
        {"scenario": "Offline"},
        {"harness": "loadgen"},
        {"settings": {**base["settings"], "threads": 4}},
        {"model": {**base["model"], "name": "other.onnx"}},
        {"model": {**base["model"], "signature": "6" * 16}},
    ]
    same = [
        {"model": {**base["model"], "sha256": "e" * 64}},
        {"bundle": {**base["bundle"], "sha256": "d" * 64}},
        {"versions": {"edgec": "9"}},
    ]
    with History(path) as history:
        for more in ({}, *same, *others):
            history.add(page(**{"device": "pi", **more}))
        assert len({one.series for one in history.results()}) == 1 + len(others)


@pytest.mark.parametrize(
    "wrong",
    [
        {"verb": "verify"},
        {"schema": 2},
        {"cases": []},
        {"cases": [{"p50": "fast"}]},
        {"cases": [{**page()["cases"][0], "p50": float("nan")}]},
        {"cases": [{**page()["cases"][0], "p95": -1.0}]},
        {"bundle": "m.edgec"},
        {"model": {"name": "x" * 600, "sha256": "", "signature": ""}},
        {"target": {"name": None, "stack": "", "arch": ""}},
        {"settings": []},
        {"device": 7},
        {"job": ["a"]},
        {"marks": "none"},
        {"marks": [7]},
        {"label": "x" * (17 << 20)},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_what_is_no_result_is_refused(path: Path, wrong: dict[str, Any]) -> None:
    with History(path) as history:
        with pytest.raises(InputError, match="this is no result of edgec bench"):
            history.add({**page(), **wrong})
        assert history.results() == []


def test_other_files_are_refused(path: Path, tmp_path: Path) -> None:
    path.write_bytes(b"not a database, but long enough to look like something" * 40)
    with pytest.raises(InputError, match="not a database"):
        History(path)
    newer = tmp_path / "newer.sqlite"
    sqlite3.connect(newer).execute("PRAGMA user_version=9")
    with pytest.raises(InputError, match="newer edgec"):
        History(newer)
    with pytest.raises(InputError, match="unable to open"):
        History(tmp_path / "no" / "such" / "folder")


def test_several_write_at_once(path: Path) -> None:
    def write(worker: int) -> None:
        with History(path) as history:
            for number in range(20):
                history.add(page(1 + number, job=f"j.{number}", device=f"w{worker}"))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    with History(path) as history:
        assert sorted(one.job for one in history.results()) == sorted(f"j.{n}" for n in range(20))


def test_what_was_added_survives_a_kill(path: Path) -> None:
    script = (
        "import os, signal, json, sys; from pathlib import Path\n"
        "from edgec.farm.history import History\n"
        "history = History(Path(sys.argv[1]))\n"
        "print(history.add(json.loads(sys.argv[2])), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    line = [sys.executable, "-c", script, str(path), json.dumps(page(3.5, job="j.1"))]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    with History(path) as history:
        assert [one.value("p50") for one in history.results()] == [3.5]


def test_where_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert default_path() == tmp_path / "state" / "edgec" / "farm" / "history.sqlite"
    opened(None).close()
    assert default_path().is_file()
    assert here(page())["device"]


def test_export(path: Path, tmp_path: Path) -> None:
    with History(path) as history:
        history.add(page(10, device="=cmd|' /C calc'!A0", job="j.0"))
        history.add(page(20, marks=["busy: a, b", "unsteady"], device="pi"))
        results = history.results()
    export(results, tmp_path / "all.json")
    pages = json.loads((tmp_path / "all.json").read_text())
    assert [one["cases"][0]["p50"] for one in pages] == [10, 20]
    assert [one["id"] for one in pages] == [1, 2]
    export(results, tmp_path / "all.csv")
    with open(tmp_path / "all.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["p50"] for row in rows] == ["10.0", "20.0"]
    assert rows[0]["device"].startswith("'=")  # a spreadsheet would run it
    assert rows[1]["marks"] == "busy: a, b; unsteady"
    assert rows[0]["ratio"] == ""
    with pytest.raises(InputError, match=r"neither \.json nor \.csv"):
        export(results, tmp_path / "all.txt")
    assert not list(tmp_path.glob("*.partial"))


def test_bundles_are_compared_over_clean_runs(path: Path) -> None:
    with History(path) as history:
        for n in range(5):
            history.add(page(10 + n / 10, device="pi"))
            history.add(page(8 + n / 10, device="pi"))
            history.add(page(5 + n, device="nuc"))
        history.add(page(99, device="pi", marks=["busy: x"]))
        results = history.results()
    old = [one for one in results if (one.value("p50") or 0) > 9 or one.device == "nuc"]
    new = [one for one in results if one not in old or one.id == 3]
    pi, nuc = compare(old, new, "p50")
    assert (pi.base, pi.new, pi.base_runs, pi.new_runs, pi.left_out) == (10.2, 8.2, 5, 5, 1)
    assert pi.ratio == pytest.approx(8.2 / 10.2)
    assert pi.p == pytest.approx(2 / 252)
    assert pi.judgement.startswith("different: p = 0.00794 (Mann-Whitney U, exact)")
    assert nuc.p is None
    assert "not judged: 5 and 1 clean runs" in nuc.judgement
