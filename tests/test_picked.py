"""Outputs behind a selection are compared by pairs, so that an order is no error."""

from __future__ import annotations

from pathlib import Path

import graphs
import numpy as np
import onnx_ir as ir
import pytest
import small

from edgec.build import Job, build
from edgec.picked import MATCHED, Paired, doubts, picked
from edgec.types import Scheme

BOXES = np.float32([[0, 0, 10, 10], [20, 20, 40, 40], [50, 0, 60, 30], [0, 50, 9, 90]])
SCORES = np.float32([0.9, 0.8, 0.7, 0.6])
LABELS = np.array([1, 2, 1, 3])


def outputs(
    boxes: np.ndarray = BOXES, scores: np.ndarray = SCORES, labels: np.ndarray = LABELS
) -> dict[str, np.ndarray]:
    return {"boxes": boxes, "scores": scores, "labels": labels}


def compared(built: dict[str, np.ndarray], given: dict[str, np.ndarray] | None = None) -> dict:
    found = Paired(["boxes", "scores", "labels"])
    found.add(given or outputs(), built)
    return found.results()


def test_another_order_is_no_error() -> None:
    turn = [2, 0, 3, 1]
    for one in compared(outputs(BOXES[turn], SCORES[turn], LABELS[turn])).values():
        assert (one.max_abs, one.cosine, one.agreement, one.agreement_kind) == (0, 1, 1, MATCHED)


def test_boxes_that_moved_a_little() -> None:
    found = compared(outputs(BOXES[::-1] + 0.5, SCORES[::-1] - 0.01, LABELS[::-1]))
    assert found["boxes"].max_abs == 0.5
    assert found["scores"].max_abs == pytest.approx(0.01)
    assert found["labels"].max_abs == 0
    assert 0.999 < found["boxes"].cosine < 1
    assert found["boxes"].agreement == 1


def test_a_box_that_is_not_found_costs_agreement() -> None:
    found = compared(outputs(BOXES[:3], SCORES[:3], LABELS[:3]))
    assert found["boxes"].agreement == pytest.approx(6 / 7)
    assert found["boxes"].cosine == pytest.approx(1)


@pytest.mark.parametrize("what", ["classes", "places", "nothing"])
def test_what_does_not_pair_up(what: str) -> None:
    built = {
        "classes": outputs(labels=LABELS + 5),
        "places": outputs(boxes=BOXES + 1000),
        "nothing": outputs(BOXES[:0], SCORES[:0], LABELS[:0]),
    }[what]
    for one in compared(built).values():
        assert (one.agreement, one.agreement_kind) == (0, MATCHED)
        assert one.cosine == -1


def test_few_pairs_are_said() -> None:
    found = compared(outputs(BOXES[:1], SCORES[:1], LABELS[:1]))
    (note,) = doubts(list(found.values()))
    assert note.startswith("40% of the rows of boxes, scores, labels pair up")
    assert doubts(list(compared(outputs()).values())) == []


def test_no_boxes_on_either_side_are_equal() -> None:
    empty = outputs(BOXES[:0], SCORES[:0], LABELS[:0])
    assert all(one.cosine == 1 for one in compared(empty, empty).values())


def test_no_two_boxes_take_one() -> None:
    twice = outputs(BOXES[[0, 0]], SCORES[:2], LABELS[[0, 0]])
    assert compared(outputs(BOXES[:1], SCORES[:1], LABELS[:1]), twice)["boxes"].agreement == 2 / 3


def test_centres_and_sizes() -> None:
    centred = np.float32([[5, 5, 2, 2], [30, 30, 20, 4]])
    found = compared(
        outputs(centred[::-1], SCORES[:2], LABELS[:2] * 0),
        outputs(centred, SCORES[:2], LABELS[:2] * 0),
    )
    assert found["boxes"].agreement == 1
    assert found["boxes"].max_abs == 0


def test_indices_alone() -> None:
    """What NonMaxSuppression gives, and what TopK does."""
    rows = np.array([[0, 0, 7], [0, 1, 3], [0, 0, 9]])
    found = Paired(["rows", "best"])
    found.add(
        {"rows": rows, "best": np.array([[3, 1], [2, 5]])},
        {"rows": rows[::-1], "best": np.array([[1, 3], [2, 4]])},
    )
    results = found.results()
    assert results["rows"].agreement == 1
    assert results["best"].agreement == 3 / 4


def test_which_outputs_are_picked() -> None:
    made = small.model(
        """g (float[1,8] x) => (float[1,2] v, int64[1,2] i, float[1,8] r) {
             r = Relu (x) v, i = TopK (r, k)
           }""",
        k=np.array([2]),
    )
    assert picked(made) == {"v", "i"}
    assert picked(ir.load(graphs.path("mlp"))) == set()
    detector = ir.load(graphs.path("library/retinanet"))
    assert picked(detector) == {value.name for value in detector.graph.outputs}


@pytest.mark.parametrize("name", ["retinanet"])
def test_the_backbone_of_a_detector_is_int8(name: str, tmp_path: Path) -> None:
    data = graphs.write_samples(f"library/{name}", tmp_path / "data", 8)
    job = Job(
        model=graphs.path(f"library/{name}"),
        target="x86-vnni",
        backend="onnxruntime",
        data=data,
        output=tmp_path / "made.edgec",
        measure=False,
    )
    report = build(job)
    assert report.plan.schemes["vision"] is Scheme.INT8_STATIC
    assert {one.agreement_kind for one in report.checks.outputs} == {MATCHED}
    assert all(one.sqnr_db >= 12 for one in report.checks.parts)
    assert any("of the rows of" in note for note in report.notes)
    (engine,) = report.artifacts
    assert engine.optimised.int8 > 10
