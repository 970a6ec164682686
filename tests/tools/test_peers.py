"""The arithmetic of `tools/bench/peers`: ratios, the Pareto front, the table, the plot."""

import dataclasses
import math
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "bench"))

import peers_cases
import peers_front
import peers_measure
import peers_plot
import peers_steps
import peers_table
from peers_models import MODELS
from peers_types import Built, Case, Fidelity, Row, Speed

INF = math.inf


def row(number: int, ratio: float, sqnr: float, family: str = "ort", cosine: float = 0.99) -> Row:
    case = Case(f"case-{number}", f"Case {number}", family, "onnxruntime")
    speed = Speed(ratio, ratio - 0.1, ratio + 0.1, 10 / ratio, 99.0, (10 / ratio,) * 7)
    fidelity = Fidelity(cosine, sqnr, {"top-1": 0.5})
    return Row(number, case, Built(1.0, 2.0, 3_000_000), fidelity, speed)


def failed(number: int, family: str = "ort") -> Row:
    case = Case(f"case-{number}", f"Case {number}", family, "onnxruntime")
    built = Built(1.0, 2.0, 0, "crashed (SIGSEGV)")
    return Row(number, case, built, None, None, built.problem)


def test_speed_pairs_the_rounds() -> None:
    # the machine slows down fourfold from round to round; the ratios stay
    base, case = [10.0, 20.0, 40.0, 80.0], [5.0, 5.0, 20.0, 20.0]
    speed = peers_measure.speed(case, base, 12.0)
    low, middle, high = np.quantile([2.0, 4.0, 2.0, 4.0], [0.25, 0.5, 0.75])
    assert (speed.low, speed.ratio, speed.high) == (low, middle, high)
    assert speed.p50_ms == 12.5
    assert speed.medians == tuple(case)


def test_speed_of_a_slower_case_is_below_one() -> None:
    assert peers_measure.speed([40.0] * 7, [10.0] * 7, 0.0).ratio == 0.25


def test_rounds_must_pair() -> None:
    with pytest.raises(ValueError, match="longer"):
        peers_measure.speed([1.0], [1.0, 2.0], 0.0)


@pytest.mark.parametrize("values", [[3.0], [1.0, 2.0], [5.0, 1.0, 4.0, 2.0, 9.0, 7.0, 3.0]])
def test_quartiles_are_numpys(values: list[float]) -> None:
    expected = np.quantile(values, [0.25, 0.5, 0.75])
    np.testing.assert_allclose(peers_measure.quartiles(values), expected)


def test_front_keeps_what_nothing_beats() -> None:
    rows = [row(1, 1.0, INF), row(2, 2.0, 20.0), row(3, 1.5, 15.0), row(4, 3.0, 5.0)]
    assert peers_front.front(rows) == {1, 2, 4}


def test_front_keeps_equals_and_drops_the_slower_of_equal_fidelity() -> None:
    rows = [row(1, 2.0, 20.0), row(2, 2.0, 20.0), row(3, 1.9, 20.0)]
    assert peers_front.front(rows) == {1, 2}


def test_front_leaves_out_what_has_no_result_or_a_broken_one() -> None:
    rows = [failed(1), row(2, 9.0, -INF), row(3, 1.0, INF)]
    assert peers_front.front(rows) == {3}


def test_verdict_names_edgecs_rows_on_the_front() -> None:
    rows = [row(1, 1.0, INF), row(4, 2.0, 10.0), row(16, 1.9, 25.0, "edgec")]
    assert peers_front.verdict(rows) == "edgec is on the front (row 16)."


def test_verdict_names_who_beats_edgec_and_by_what() -> None:
    rows = [row(4, 2.5, 21.0), row(5, 1.0, 99.0), row(16, 2.1, 20.0, "edgec"), failed(17, "edgec")]
    text = peers_front.verdict(rows)
    assert text.startswith("edgec is not on the front: ")
    assert "row 16 is beaten by 4 (2.50x and 21.0 dB against 2.10x and 20.0 dB)" in text
    assert "row 17 has no result" in text
    assert "5 (" not in text


def test_verdict_without_edgec() -> None:
    assert peers_front.verdict([row(1, 1.0, INF)]) == "edgec is not on the front: it was not run."


def test_faults_are_listed_by_side() -> None:
    rows = [
        row(1, 1.0, INF, "float", 1.0),
        row(4, 0.5, -1.0, cosine=0.3),
        row(16, 2.0, 25.0, "edgec"),
    ]
    assert peers_front.faults(rows[1]) == ["slower than FP32", "far off"]
    text = peers_front.spoiled(rows)
    assert "peers: 4 (slower than FP32 and far off); edgec: none." in text
    rows.append(row(17, 0.5, 25.0, "edgec"))
    assert "edgec: 17 (slower than FP32)." in peers_front.spoiled(rows)


def test_a_quartile_beyond_one_is_not_called_slower() -> None:
    assert peers_front.faults(row(1, 0.95, 30.0)) == []


def test_table_marks_the_front_and_shows_failures() -> None:
    build = peers_cases.cases("cnn", ["nncf"])[-1][1].build
    broken = failed(3)
    broken = dataclasses.replace(
        broken, case=dataclasses.replace(broken.case, build=build), problem="a|b\nc"
    )
    lines = peers_table.table([row(1, 1.0, INF), row(2, 0.9, 30.0), broken]).splitlines()
    assert [line.count(" | ") for line in lines[:3]] == [9, 9, 9]
    assert "**1**" in lines[2]
    assert "**equal**" in lines[2]
    assert "**" not in lines[3]
    assert "0.90x (0.80 to 1.00)" in lines[3]
    assert "a\\|b c" in lines[4]
    assert "| 1.0 | 2 |" in lines[4]  # its build took time and memory all the same


def test_block_has_every_model() -> None:
    found = {model.name: [row(1, 1.0, INF), row(18, 2.0, 22.0, "edgec")] for model in MODELS}
    about = {"rounds": "11", "bf16": "does", "machine": "a machine", "versions": "some 1.0"}
    text = peers_table.block(found, MODELS, about, "plot.svg")
    for model in MODELS:
        assert f"<summary>{model.title}: " in text
    assert "{" not in text


def test_plot_is_the_same_twice_and_shows_each_result_once() -> None:
    rows = [row(1, 1.0, INF), row(4, 3.0, -40.0), row(16, 2.0, 25.0, "edgec"), failed(17)]
    panels = [("A & B", rows), ("C", rows[:2])]
    drawn = peers_plot.draw(panels)
    assert drawn == peers_plot.draw(panels)
    root = ElementTree.fromstring(drawn)
    space = "{http://www.w3.org/2000/svg}"
    first, second, _ = root.findall(f"{space}g")
    texts = [one.text for one in first.findall(f"{space}text")]
    assert texts[0] == "A & B"
    labels = [one.text for one in first.findall(f"{space}text") if one.get("font-size") == "10"]
    assert labels[-3:] == ["1", "4", "16"]
    assert len(second.findall(f"{space}circle")) == 2
    for mark in first.findall(f"{space}circle"):
        assert peers_plot.LEFT < float(mark.get("cx", "nan")) < peers_plot.WIDTH
        assert 0 < float(mark.get("cy", "nan")) < peers_plot.HEIGHT


def test_cases_keep_their_numbers() -> None:
    numbers = {kind: dict(peers_cases.cases(kind)) for kind in {one.kind for one in MODELS}}
    for kind, cases in numbers.items():
        assert cases[1].name == peers_cases.BASE, kind
        assert [case.name for case in cases.values()][-3:] == list(peers_cases.names()[-3:])
        for number, case in cases.items():
            assert peers_cases.names()[number - 1] == case.name
    chosen = peers_cases.cases("cnn", ["nncf"])
    assert [case.name for _, case in chosen] == [peers_cases.BASE, "nncf"]


def test_rows_come_back_as_they_were_kept(tmp_path: Path) -> None:
    model = MODELS[0]
    (one, case), (two, other) = peers_cases.cases(model.kind)[:2]
    rows = [
        dataclasses.replace(row(one, 1.0, INF), case=case),
        dataclasses.replace(failed(two), case=other),
    ]
    (tmp_path / model.name).mkdir()
    peers_steps.Bench(model, tmp_path, tmp_path).keep(rows)
    assert peers_steps.kept(model, tmp_path) == rows
    assert peers_steps.kept(MODELS[1], tmp_path) == []
