"""top1, top5 and f1 against naive loops and scikit-learn's figures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelled import by_file, figure, scored

from edgec.errors import InputError
from edgec.metrics import metric
from edgec.metrics.f1 import binary, macro, micro
from edgec.metrics.top import best

RNG = np.random.default_rng(0)
SCORES = RNG.normal(0, 1, (60, 12)).astype(np.float32)
LABELS = np.where(RNG.random(60) < 0.5, SCORES.argmax(axis=1), RNG.integers(0, 12, 60)).tolist()


def naive_top(scores: np.ndarray, values: list[int], k: int) -> list[float]:
    found = []
    for row, label in zip(scores, values, strict=True):
        order = sorted(range(len(row)), key=lambda index: -row[index])
        found.append(float(label in order[:k]))
    return found


@pytest.mark.parametrize(("name", "k"), [("top1", 1), ("top5", 5)])
def test_top_k(name: str, k: int) -> None:
    rows = scored(name, {"logits": SCORES}, LABELS).rows
    assert rows.tolist() == naive_top(SCORES, LABELS, k)
    assert figure(name, {"logits": SCORES}, LABELS) == pytest.approx(np.mean(rows))


def test_top_takes_the_first_output_with_classes_or_the_named() -> None:
    other = -SCORES
    outputs = {
        "count": np.arange(60),
        "score": RNG.normal(0, 1, 60),
        "map": RNG.normal(0, 1, (60, 4, 4)),
        "logits": SCORES[:, :, None, None],
        "other": other,
    }
    assert scored("top1", outputs, LABELS).rows.tolist() == naive_top(SCORES, LABELS, 1)
    assert scored("top1:output=other", outputs, LABELS).rows.tolist() == naive_top(other, LABELS, 1)
    classes = SCORES.argmax(axis=1)
    rows = scored("top1:output=best", {"best": classes}, LABELS).rows
    assert rows.tolist() == naive_top(SCORES, LABELS, 1)


def test_outputs_without_classes() -> None:
    with pytest.raises(InputError, match="no output looks like class scores") as caught:
        metric("top1").take({"ids": np.arange(60)}, 60)
    assert "module:function" in caught.value.hint


def test_what_is_no_number_is_no_answer() -> None:
    assert best(np.array([0.5, np.nan, 0.7]), 3).order == (2, 0)
    broken = np.full((2, 3), np.nan)
    assert figure("top1", {"y": broken}, [0, 1]) == 0
    assert figure("f1", {"y": broken}, [0, 1]) == 0


@pytest.mark.parametrize("name", ["top1", "top5", "f1"])
def test_a_label_beyond_the_classes_is_named(name: str) -> None:
    with pytest.raises(InputError, match=r"labels\.csv, line 2: class 12, .* has 12") as caught:
        scored(name, {"y": SCORES[:2]}, [11, 12])
    assert "number the classes" in caught.value.hint


def test_agreement_of_the_best_five_is_of_sets() -> None:
    first = [{"y": row[None]} for row in SCORES[:4]]
    turned = [{"y": row[None] ** 3} for row in SCORES[:4]]
    (found,) = by_file("top5", first, turned, LABELS[:4])
    assert (found.agreement, found.agreement_kind) == (1, "best 5")
    (found,) = by_file("top5", first, [{"y": -one["y"]} for one in first], LABELS[:4])
    assert found.agreement == 0


# f1: figures of sklearn.metrics.f1_score 1.9.1

TRUE = [0, 2, 1, 3, 1, 0, 2, 2, 3, 1, 0, 4]
SAID = [0, 1, 1, 3, 2, 0, 2, 5, 3, 1, 2, 0]
SURE = np.eye(6)[SAID]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", 0.4444444444444444),
        (":average=macro", 0.4444444444444444),
        (":average=micro", 0.5833333333333334),
        (":average=binary,positive=0", 0.6666666666666666),
        (":average=binary", 0.6666666666666666),
        (":average=binary,positive=2", 0.3333333333333333),
        (":average=binary,positive=4", 0),
    ],
)
def test_f1(options: str, expected: float) -> None:
    assert figure(f"f1{options}", {"y": SURE}, TRUE) == pytest.approx(expected)
    assert metric(f"f1{options}").measures[0].name.startswith("f1 ")


def test_f1_of_one_score_a_sample() -> None:
    chance = np.array([[0.9], [0.2], [0.6], [0.4], [np.nan]])
    truth = [1, 0, 0, 1, 1]  # one found, one false, two missed
    assert figure("f1:average=binary", {"p": chance}, truth) == pytest.approx(2 / 5)
    assert figure("f1:average=binary,threshold=0.3", {"p": chance}, truth) == pytest.approx(4 / 6)
    with pytest.raises(InputError, match="line 2: class 2, but the model has 2"):
        scored("f1", {"p": chance}, [1, 2, 0, 0, 0])


def test_f1_without_an_output_for_it() -> None:
    with pytest.raises(InputError, match="no output looks like class scores"):
        metric("f1").take({"map": np.zeros((2, 4, 4))}, 2)


PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 4)), min_size=1, max_size=30)


@given(PAIRS, st.permutations(range(5)))
def test_f1_does_not_depend_on_order_or_on_the_names_of_classes(
    pairs: list[tuple[int, int]], names: list[int]
) -> None:
    rows = np.array(pairs)
    renamed = np.array([[names[a], names[b] if b >= 0 else -1] for a, b in pairs])
    for reduce in (macro, micro):
        assert 0 <= reduce(rows) <= 1
        assert reduce(rows[::-1]) == pytest.approx(reduce(rows))
        assert reduce(renamed) == pytest.approx(reduce(rows))
    perfect = np.stack([rows[:, 0], rows[:, 0]], axis=1)
    assert macro(perfect) == micro(perfect) == 1
    assert binary(perfect, pairs[0][0]) == 1


@given(st.integers(1, 12), st.integers(0, 1000))
def test_more_depth_finds_more(k: int, seed: int) -> None:
    scores = np.random.default_rng(seed).normal(0, 1, 12)
    order = best(scores, 12).order
    assert best(scores, k).order == order[:k]
    assert sorted(order) == list(range(12))
    assert best(3 * scores + 1, k) == best(scores, k)
