"""The demonstration's promises that do not depend on the clock, on the real model."""

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.network

TRAINED = {
    "image to text recall@1": 0.453,
    "image to text recall@5": 0.725,
    "image to text recall@10": 0.807,
    "text to image recall@1": 0.555,
    "text to image recall@5": 0.811,
    "text to image recall@10": 0.883,
}
ROUNDING = 0.01  # recall moves by single pictures (1/768) where processors round differently


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "edgec", "demo", "--no-measure", "--folder", str(folder)]
    done = subprocess.run(
        [*command, "--json", str(folder / "demo.json")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "image to text recall@1" in done.stdout
    result: dict[str, Any] = json.loads((folder / "demo.json").read_text(encoding="utf-8"))
    return result


def test_towers_are_found(found: dict[str, Any]) -> None:
    kinds = {part["name"]: part["kind"] for part in found["report"]["parts"]}
    assert kinds == {"vision": "cnn", "text": "transformer", "fusion": "fusion"}
    assert len(found["report"]["engines"]) == 1


def test_small_enough(found: dict[str, Any]) -> None:
    assert found["smaller"] >= 0.70


def test_retrieval_holds(found: dict[str, Any]) -> None:
    assert found["pictures"] >= 500
    figures = {one["metric"]: one for one in found["retrieval"]}
    assert len(figures) == 6
    for direction in ("image to text", "text to image"):
        first = figures[f"{direction} recall@1"]
        assert abs(first["difference"]) <= 0.02
        assert first["low"] <= first["difference"] <= first["high"]


def test_float_is_as_good_as_when_its_heads_were_trained(found: dict[str, Any]) -> None:
    for one in found["retrieval"]:
        assert abs(one["original"] - TRAINED[one["metric"]]) <= ROUNDING, one["metric"]


def test_answers_agree_with_float(found: dict[str, Any]) -> None:
    assert found["top1_agreement"] >= 0.84


def test_every_weighted_op_runs_as_planned(found: dict[str, Any]) -> None:
    for engine in found["report"]["engines"]:
        assert engine["planned"] == engine["emitted"] == engine["optimised"]
        assert engine["planned"]["int8"] > 0
