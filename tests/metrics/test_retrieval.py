"""Recall against naive loops."""

from __future__ import annotations

import numpy as np
import pytest
from labelled import by_file, figure, labels, scored

from edgec.errors import InputError
from edgec.metrics import metric, retrieval
from edgec.metrics.retrieval import ranks, recall

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(0, 1, (40, 16))
TEXTS = IMAGES + RNG.normal(0, 1.2, (40, 16))
OWN = np.arange(40)


def naive_ranks(queries: np.ndarray, gallery: np.ndarray, right: np.ndarray) -> list[int]:
    found = []
    for query, own in zip(queries, right, strict=True):
        cosine = [
            float(query @ item / np.linalg.norm(query) / np.linalg.norm(item)) for item in gallery
        ]
        found.append(sum(value > cosine[own] for value in cosine))
    return found


def test_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = naive_ranks(IMAGES, TEXTS, OWN)
    assert 0 < sum(rank == 0 for rank in expected) < 40
    assert ranks(IMAGES, TEXTS, OWN).tolist() == expected
    assert ranks(7 * IMAGES, TEXTS / 3, OWN).tolist() == expected
    assert ranks(IMAGES, TEXTS, OWN[::-1]).tolist() == naive_ranks(IMAGES, TEXTS, OWN[::-1])
    monkeypatch.setattr(retrieval, "BLOCK", 7)
    assert ranks(IMAGES, TEXTS, OWN).tolist() == expected


def test_a_collapsed_or_broken_embedding_finds_nothing() -> None:
    assert ranks(IMAGES, np.ones_like(TEXTS), OWN).min() == 39
    broken = TEXTS.copy()
    broken[3] = np.nan
    assert ranks(IMAGES, broken, OWN)[3] == 39


def test_retrieval_takes_two_outputs_of_one_size() -> None:
    outputs = {
        "score": RNG.normal(0, 1, (40, 40, 2)),
        "logits": RNG.normal(0, 1, (40, 3)),
        "image": IMAGES,
        "scale": np.ones((40, 1)),
        "text": TEXTS,
    }
    expected = naive_ranks(IMAGES, TEXTS, OWN)
    assert scored("retrieval", outputs).rows.tolist() == expected
    turned = scored("retrieval:query=text,gallery=image", outputs).rows
    assert turned.tolist() == naive_ranks(TEXTS, IMAGES, OWN)
    shuffled = RNG.permutation(40)
    rows = scored("retrieval", {"i": IMAGES, "t": TEXTS[shuffled]}, np.argsort(shuffled)).rows
    assert rows.tolist() == expected


def test_retrieval_needs_two_embeddings() -> None:
    with pytest.raises(InputError, match="two outputs that are embeddings of one size") as caught:
        metric("retrieval").take({"image": IMAGES, "text": TEXTS[:, :8]}, 40)
    assert "query=NAME,gallery=NAME" in caught.value.hint
    with pytest.raises(InputError, match="no output 'caption'"):
        metric("retrieval:query=image,gallery=caption").take({"image": IMAGES}, 40)


def test_a_label_is_a_sample() -> None:
    made = metric("retrieval")
    taken = made.take({"i": IMAGES[:2], "t": TEXTS[:2]}, 2)
    with pytest.raises(InputError, match=r"line 2: sample 2 of 2"):
        made.score(taken, labels([1, 2]))


@pytest.mark.parametrize("k", [1, 5, 10])
def test_recall_at_k(k: int) -> None:
    found = np.array(naive_ranks(IMAGES, TEXTS, OWN))
    assert recall(k).reduce(found) == (found < k).mean()
    assert figure(f"retrieval:k={k}", {"i": IMAGES, "t": TEXTS}) == (found < k).mean()


def test_figures_and_agreement() -> None:
    first = [{"i": i[None], "t": t[None]} for i, t in zip(IMAGES, TEXTS, strict=True)]
    second = [{"i": one["i"], "t": one["i"]} for one in first]
    figures = by_file("retrieval", first, second)
    assert [one.metric for one in figures] == ["recall@1", "recall@5", "recall@10"]
    assert [one.built for one in figures] == [1, 1, 1]
    # the second finds the own item always, so they agree where the first does
    assert figures[0].agreement == figures[0].original
    assert {one.agreement_kind for one in figures} == {"nearest"}
    assert figures[0].original < figures[1].original < figures[2].original
