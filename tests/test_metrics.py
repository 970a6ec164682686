"""Task metrics against naive loops; intervals against the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgec import metrics
from edgec.errors import InputError
from edgec.metrics import Metric, compare, mean, metric, paired
from edgec.metrics.retrieval import ranks, recall
from edgec.metrics.top import hits

RNG = np.random.default_rng(0)
SCORES = RNG.normal(0, 1, (60, 12)).astype(np.float32)
LABELS = np.where(RNG.random(60) < 0.5, SCORES.argmax(axis=1), RNG.integers(0, 12, 60))


def naive_top(scores: np.ndarray, labels: np.ndarray, k: int) -> list[float]:
    found = []
    for row, label in zip(scores, labels, strict=True):
        order = sorted(range(len(row)), key=lambda index: -row[index])
        found.append(float(label in order[:k]))
    return found


@pytest.mark.parametrize("k", [1, 5, 12, 40])
def test_top_k(k: int) -> None:
    assert hits(SCORES, LABELS, k).tolist() == naive_top(SCORES, LABELS, k)


@pytest.mark.parametrize(("name", "k"), [("top1", 1), ("top5", 5)])
def test_top_metrics_take_the_first_output_with_classes(name: str, k: int) -> None:
    outputs = {"count": np.arange(60), "score": RNG.normal(0, 1, 60), "logits": SCORES}
    rows = metric(name).score(outputs, LABELS.astype(np.float64))
    assert rows.tolist() == naive_top(SCORES, LABELS, k)
    assert metric(name).reduce(rows) == pytest.approx(np.mean(rows))


@pytest.mark.parametrize("name", ["top1", "top5", "pearson"])
def test_labels_are_needed(name: str) -> None:
    with pytest.raises(InputError, match="this metric needs labels") as caught:
        metric(name).score({"logits": SCORES}, None)
    assert "--labels" in caught.value.hint


def test_outputs_without_classes() -> None:
    with pytest.raises(InputError, match="no output looks like class scores") as caught:
        metric("top1").score({"ids": np.arange(60)}, LABELS)
    assert "module:function" in caught.value.hint


# retrieval

IMAGES = RNG.normal(0, 1, (40, 16))
TEXTS = IMAGES + RNG.normal(0, 1.2, (40, 16))


def naive_ranks(queries: np.ndarray, gallery: np.ndarray, right: np.ndarray) -> list[int]:
    found = []
    for query, own in zip(queries, right, strict=True):
        cosine = [
            float(query @ item / np.linalg.norm(query) / np.linalg.norm(item)) for item in gallery
        ]
        found.append(sum(value > cosine[own] for value in cosine))
    return found


def test_ranks() -> None:
    right = np.arange(40)
    expected = naive_ranks(IMAGES, TEXTS, right)
    assert 0 < sum(rank == 0 for rank in expected) < 40
    assert ranks(IMAGES, TEXTS, right).tolist() == expected
    assert ranks(7 * IMAGES, TEXTS / 3, right).tolist() == expected
    turned = right[::-1]
    assert ranks(IMAGES, TEXTS, turned).tolist() == naive_ranks(IMAGES, TEXTS, turned)


def test_retrieval_takes_two_outputs_of_one_size() -> None:
    outputs = {
        "score": RNG.normal(0, 1, (40, 40, 2)),
        "image": IMAGES,
        "scale": np.ones((40, 1)),
        "text": TEXTS,
    }
    rows = metric("retrieval").score(outputs, None)
    assert rows.tolist() == [float(r == 0) for r in naive_ranks(IMAGES, TEXTS, np.arange(40))]
    shuffled = RNG.permutation(40)
    rows = metric("retrieval").score(
        {"image": IMAGES, "text": TEXTS[shuffled]}, np.argsort(shuffled)
    )
    assert rows.tolist() == [float(r == 0) for r in naive_ranks(IMAGES, TEXTS, np.arange(40))]


def test_retrieval_needs_two_embeddings() -> None:
    with pytest.raises(InputError, match="two outputs that are embeddings of one size"):
        metric("retrieval").score({"image": IMAGES, "text": TEXTS[:, :8]}, None)


@pytest.mark.parametrize("k", [1, 5, 10])
def test_recall_at_k(k: int) -> None:
    found = np.array(naive_ranks(IMAGES, TEXTS, np.arange(40)))
    chosen = recall(k)
    assert chosen.reduce(chosen.score({"ranks": found}, None)) == (found < k).mean()


# pearson


def test_pearson() -> None:
    score = RNG.normal(0, 1, (50, 1))
    labels = score[:, 0] + RNG.normal(0, 1, 50)
    chosen = metric("pearson")
    found = chosen.reduce(chosen.score({"logits": SCORES[:50], "y": score}, labels))
    x, y = score[:, 0] - score.mean(), labels - labels.mean()
    assert found == pytest.approx(float(x @ y / np.sqrt((x @ x) * (y @ y))))
    assert chosen.reduce(chosen.score({"y": 3 - 2 * labels}, labels)) == pytest.approx(-1)


def test_pearson_of_a_constant_is_no_number() -> None:
    chosen = metric("pearson")
    assert np.isnan(chosen.reduce(chosen.score({"y": np.ones(5)}, np.arange(5.0))))


def test_pearson_needs_one_number_a_sample() -> None:
    with pytest.raises(InputError, match="no output is one number a sample"):
        metric("pearson").score({"logits": SCORES}, LABELS)


# a metric of one's own

OWN = """
import numpy as np
def distance(outputs, labels):
    return -np.abs(outputs["y"][:, 0] - labels)
def single(outputs, labels):
    return np.zeros(1)
number = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "edgec_own_metric.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "edgec_own_metric", raising=False)
    return tmp_path


@pytest.mark.usefixtures("own")
def test_a_module_and_function() -> None:
    chosen = metric("edgec_own_metric:distance")
    outputs = {"y": np.array([[1.0], [4.0]])}
    assert chosen.name == "edgec_own_metric:distance"
    assert chosen.score(outputs, np.array([1.0, 2.0])).tolist() == [0, -2]
    figure = compare(chosen, outputs, {"y": outputs["y"] + 1}, np.array([1.0, 2.0]))
    assert (figure.original, figure.built, figure.difference) == (-1, -2, -1)


@pytest.mark.usefixtures("own")
def test_a_score_per_sample_is_needed() -> None:
    chosen = metric("edgec_own_metric:single")
    with pytest.raises(InputError, match="do not pair"):
        paired(chosen, np.zeros(3), np.zeros(1))


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("edgec_no_such_module:f", "edgec_no_such_module"),
        ("edgec_own_metric:nothing", "nothing"),
    ],
)
def test_what_cannot_be_imported(name: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        metric(name)
    assert caught.value.message.startswith(f"metric {name!r}: ")
    assert words in caught.value.message


def test_an_unknown_metric_lists_the_choices() -> None:
    with pytest.raises(InputError, match="unknown metric 'accuracy'") as caught:
        metric("accuracy")
    for name in ("top1", "top5", "retrieval", "pearson", "module:function"):
        assert name in caught.value.hint


# intervals

MEAN = Metric("mean", lambda outputs, _: outputs["y"], mean)


def test_the_interval_contains_the_truth_about_as_often_as_it_says() -> None:
    truth, inside, trials = -0.05, 0, 60
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        original = rng.normal(0.5, 1, 80)
        built = original + rng.normal(truth, 0.2, 80)
        figure = paired(MEAN, original, built)
        assert figure.low <= figure.difference <= figure.high
        inside += figure.low <= truth <= figure.high
    assert 0.85 * trials <= inside <= trials


def test_pairing_is_what_makes_the_interval_narrow() -> None:
    rng = np.random.default_rng(1)
    original = rng.normal(0, 5, 100)
    built = original + rng.normal(0.1, 0.05, 100)
    figure = paired(MEAN, original, built)
    assert figure.low > 0
    assert figure.high - figure.low < 0.05
    unpaired = paired(MEAN, original, rng.permutation(built))
    assert unpaired.high - unpaired.low > 1


def test_equal_models_have_no_difference() -> None:
    figure = compare(metric("top1"), {"y": SCORES}, {"y": SCORES.copy()}, LABELS)
    assert (figure.difference, figure.low, figure.high) == (0, 0, 0)
    assert figure.samples == 60


def test_the_interval_is_the_same_every_time() -> None:
    assert paired(MEAN, SCORES[:, 0], SCORES[:, 1]) == paired(MEAN, SCORES[:, 0], SCORES[:, 1])


@pytest.mark.parametrize(("first", "second"), [(3, 4), (0, 0)])
def test_scores_that_do_not_pair(first: int, second: int) -> None:
    with pytest.raises(InputError, match=f"{first} and {second} scores do not pair"):
        paired(MEAN, np.zeros(first), np.zeros(second))
    assert metrics.RESAMPLES >= 1000
