"""pearson and spearman against SciPy's figures and by what leaves them alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from labelled import by_file, figure

from edgec.errors import InputError
from edgec.metrics import Scored, metric
from edgec.metrics.pearson import concordance, correlation
from edgec.metrics.spearman import rank_correlation, ranks

# scipy.stats 1.17.1: pearsonr, spearmanr, rankdata
SCORES = [0.1, 0.4, 0.4, 2.5, -1.0, 0.4, 7.25, 3.0]
LABELS = [1, 2, 2, 5, 1, 4, 4, 3.5]
EXPECTED = {"pearson": 0.6354963123748347, "spearman": 0.7826237921249264}


@pytest.mark.parametrize("name", list(EXPECTED))
def test_correlation(name: str) -> None:
    outputs = {"logits": np.zeros((8, 5)), "y": np.array(SCORES)[:, None]}
    assert figure(name, outputs, LABELS) == pytest.approx(EXPECTED[name])
    assert figure(f"{name}:output=y", outputs, LABELS) == pytest.approx(EXPECTED[name])
    falling = {"y": 3 - 2 * np.array(LABELS)}
    assert figure(name, falling, LABELS) == pytest.approx(-1)


def test_ranks_of_equal_values_are_shared() -> None:
    assert ranks(np.array(SCORES)).tolist() == [2, 4, 4, 6, 1, 4, 8, 7]


@pytest.mark.parametrize("name", list(EXPECTED))
@pytest.mark.parametrize("scores", [[0.1] * 3, [np.nan, 1.0, 2.0]])
def test_a_constant_or_broken_score_has_no_correlation(name: str, scores: list[float]) -> None:
    assert np.isnan(figure(name, {"y": np.array(scores)}, [1.0, 2.0, 3.0]))


@pytest.mark.parametrize("name", list(EXPECTED))
def test_one_number_a_sample_is_needed(name: str) -> None:
    with pytest.raises(InputError, match="no output looks like one number a sample"):
        metric(name).take({"logits": np.zeros((6, 12))}, 6)


def test_agreement_is_the_order_of_two_samples() -> None:
    first = [{"y": np.array([x])} for x in (1.0, 2.0, 3.0, 4.0)]
    turned = [{"y": np.array([x])} for x in (10.0, 30.0, 20.0, 40.0)]
    (found,) = by_file("spearman", first, turned, [1.0, 2.0, 3.0, 4.0])
    assert (found.agreement, found.agreement_kind) == (pytest.approx(5 / 6), "order of two")
    assert found.original == 1
    assert found.built == pytest.approx(0.8)
    assert np.isnan(concordance(Scored(None, [1.0]), Scored(None, [2.0])))


def test_agreement_of_many_samples_is_drawn() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, 3000)
    noisy = values + rng.normal(0, 0.2, 3000)
    drawn = concordance(Scored(None, values), Scored(None, noisy))
    part = concordance(Scored(None, values[:1400]), Scored(None, noisy[:1400]))  # all pairs
    assert drawn == pytest.approx(part, abs=0.01)
    assert concordance(Scored(None, values), Scored(None, values)) == 1
    assert concordance(Scored(None, values), Scored(None, -values)) == 0


ROWS = st.lists(
    st.tuples(*[st.integers(-50, 50).map(float)] * 2), min_size=2, max_size=30, unique=True
)


@given(ROWS)
def test_bounds_and_what_leaves_a_correlation_alone(pairs: list[tuple[float, float]]) -> None:
    rows = np.array(pairs)
    assume(np.ptp(rows, axis=0).all())
    for reduce in (correlation, rank_correlation):
        found = reduce(rows)
        assert -1 <= found <= 1
        assert reduce(rows[:, ::-1]) == pytest.approx(found)
        assert reduce(rows[::-1] * [2, 5] + [7, -3]) == pytest.approx(found)
        assert reduce(rows * [-1, 1]) == pytest.approx(-found)
    curved = rows.copy()
    curved[:, 0] **= 3
    assert rank_correlation(curved) == pytest.approx(rank_correlation(rows))
