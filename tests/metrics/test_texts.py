"""Decoders on hand-made outputs; wer, cer and exact against jiwer's figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelled import by_file, figure, labels, naive, scored
from tokenizers import Tokenizer
from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.models import WordPiece

from edgec.errors import InputError, ToolchainError
from edgec.metrics import metric
from edgec.metrics.texts import levenshtein

LETTERS = " abcdefghijklmnopqrstuvwxyzïé"
SAID = ["the cat sit on mat", "hello  big world", "naive café", "a x c d e"]
TRUE = ["the cat sat on the mat", "hello world", "naïve café", "a b c d"]
RATES = {"wer": 0.42857142857142855, "cer": 0.28, "exact": 0.0}  # jiwer 4.0.0


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.txt"
    path.write_text("\n".join(LETTERS) + "\n", encoding="utf-8")
    return path


def steps(ids: Sequence[int], classes: int) -> np.ndarray:
    """Logits [1, steps, classes] whose best are these ids."""
    return np.eye(classes, dtype=np.float32)[list(ids)][None] * 3 - 1


def ctc(text: str, blank: int = 0) -> list[int]:
    """A path of CTC: each letter twice, a blank between equal ones; the blank is class `blank`."""
    path = [blank]
    for letter in text:
        one = LETTERS.index(letter)
        one += one >= blank
        path += [blank, one, one]
    return path


def spoken(name: str, texts: Sequence[str], vocabulary: Path, **options: object) -> float:
    """The figure of texts that a model writes, one a file, all of different lengths."""
    more = "".join(f",{key}={value}" for key, value in options.items())
    made = metric(f"{name}:decoder=ctc,vocabulary={vocabulary}{more}")
    files = [{"y": steps(ctc(text), len(LETTERS) + 1)} for text in texts]
    taken = [one for outputs in files for one in made.take(outputs, 1)]
    return made.measures[0].reduce(made.score(taken, labels(TRUE)).rows)


@pytest.mark.parametrize("name", list(RATES))
def test_error_rates(name: str, vocabulary: Path) -> None:
    assert spoken(name, SAID, vocabulary) == pytest.approx(RATES[name])
    assert spoken(name, TRUE, vocabulary) == (name == "exact")


@pytest.mark.parametrize("name", list(RATES))
def test_white_space_at_the_ends_does_not_count(name: str, vocabulary: Path) -> None:
    assert spoken(name, [f"  {text} " for text in TRUE], vocabulary) == (name == "exact")


def decoded(ids: Sequence[int], classes: int, options: str, tmp_path: Path, text: str) -> str:
    path = tmp_path / "some.txt"
    path.write_text(text, encoding="utf-8")
    made = metric(f"exact:{options},vocabulary={path}")
    scores = made.score(made.take({"y": steps(ids, classes)}, 1), labels([""]))
    return str(scores.answers[0])


@pytest.mark.parametrize(
    ("ids", "classes", "options", "tokens", "expected"),
    [
        ([0, 1, 1, 0, 1, 2, 2, 0], 3, "decoder=ctc", "_\na\nb\n", "aab"),
        ([0, 1, 1, 0, 1, 2, 2, 0], 3, "decoder=ctc", "a\nb\n", "aab"),  # the blank is left out
        ([2, 0, 0, 2, 0, 1, 1], 3, "decoder=ctc,blank=2", "a\nb\n", "aab"),
        ([2, 0, 0, 2, 0, 1, 1], 3, "decoder=ctc,blank=-1", "a\nb\n_\n", "aab"),
        ([0, 0, 2, 1, 0], 3, "decoder=ctc,blank=1", "a\nb\n", "aba"),
        ([0, 0, 0], 3, "decoder=ctc", "a\nb\n", ""),
        ([1, 3, 2, 2], 4, "decoder=ctc,space=|", "_\na\nb\n|", "a b"),
        ([1, 2, 2], 3, "decoder=argmax", "x\na\nb", "abb"),
        ([1, 2, 0, 2], 3, "decoder=argmax,end=0", "x\na\nb", "ab"),
        ([0, 1, 2], 3, "decoder=argmax", "\u2581x\n\u2581a\nb", "\u2581x\u2581ab"),
        ([0, 1, 2], 3, "decoder=argmax,space=\u2581", "\u2581x\n\u2581a\nb", "x ab"),
        ([1, 0, 1], 3, "decoder=argmax", "\na\nb", "aa"),  # an empty line writes nothing
        ([1, 2, 0], 3, "decoder=argmax", "\u2028\r\na\r\n,", "a,"),  # Windows; odd characters
    ],
)
def test_decoders(
    ids: list[int], classes: int, options: str, tokens: str, expected: str, tmp_path: Path
) -> None:
    assert decoded(ids, classes, options, tmp_path, tokens) == expected


@pytest.mark.parametrize(
    "page", [["_", "a", "b"], {"b": 2, "_": 0, "a": 1}, {"b": 2, "a": 1}], ids=str
)
def test_vocabularies_of_json(page: object, tmp_path: Path) -> None:
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps(page))
    made = metric(f"exact:decoder=ctc,vocabulary={path}")
    (taken,) = made.take({"y": steps([0, 1, 2, 2], 3)}, 1)
    assert made.score([taken], labels(["ab"])).answers == ["ab"]


def test_a_tokenizer_json(tmp_path: Path) -> None:
    words = {"[PAD]": 0, "[SEP]": 1, "run": 2, "##ning": 3, "fast": 4}
    tokenizer = Tokenizer(WordPiece(words, unk_token="[PAD]"))
    tokenizer.add_special_tokens(["[PAD]", "[SEP]"])
    tokenizer.decoder = WordPieceDecoder()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    made = metric(f"wer:decoder=argmax,end=1,vocabulary={tmp_path / 'tokenizer.json'}")
    taken = made.take({"y": steps([0, 2, 3, 4, 1, 2], 8)}, 1)  # a table rounded up to 8
    found = made.score(taken, labels(["running slow"]))
    assert found.answers == ["running fast"]
    assert found.rows.tolist() == [[1, 2]]


def test_named_outputs_of_other_kinds(vocabulary: Path) -> None:
    made = metric(f"exact:decoder=ctc,axes=tbv,output=y,vocabulary={vocabulary}")
    several = np.concatenate([steps(ctc(t), 30) for t in ("ab", "ba")]).swapaxes(0, 1)
    taken = made.take({"y": several}, several.shape[0])  # time first in the inputs as well
    assert made.score(taken, labels(["ab", "b"])).rows.tolist() == [[1], [0]]
    ids = np.array([[1, 2, 2], [2, 2, 1]])
    made = metric(f"exact:decoder=argmax,output=y,vocabulary={vocabulary}")
    assert made.score(made.take({"y": ids}, 2), labels(["abb", "ab"])).answers == ["abb", "bba"]
    made = metric(f"exact:decoder=ctc,output=y,vocabulary={vocabulary}")
    padded = np.array([[1, 1, 0, 2, -1, -1]])  # the blank has to be in this vocabulary
    assert made.score(made.take({"y": padded}, 1), labels(["ab"])).answers == ["ab"]
    made = metric(f"exact:decoder=ctc,output=y,blank=-1,vocabulary={vocabulary}")
    with pytest.raises(InputError, match="blank=-1 counts from the last class"):
        made.score(made.take({"y": padded}, 1), labels(["ab"]))


def test_an_output_fits_its_vocabulary(vocabulary: Path) -> None:
    made = metric(f"cer:decoder=ctc,vocabulary={vocabulary}")
    outputs = {"features": np.zeros((1, 4, 512), np.float32), "y": steps(ctc("abc"), 30)}
    assert made.score(made.take(outputs, 1), labels(["abc"])).answers == ["abc"]
    with pytest.raises(InputError, match="of 29 or 30 classes for a vocabulary of 29 tokens"):
        made.take({"y": steps([1], 31)}, 1)
    with pytest.raises(InputError, match=r"output y float32\[1, 1, 31\].* is not scores"):
        metric(f"cer:decoder=argmax,output=y,vocabulary={vocabulary}").take(
            {"y": steps([1], 31)}, 1
        )
    with pytest.raises(InputError, match="tbv says where one output"):
        metric(f"cer:decoder=ctc,axes=tbv,vocabulary={vocabulary}")


def test_what_is_no_number_is_not_read(vocabulary: Path) -> None:
    logits = steps(ctc("abc"), 30)
    logits[:, :, 0] = np.where(np.arange(logits.shape[1]) < 3, np.nan, logits[:, :, 0])
    assert np.isnan(logits).any()
    name = f"exact:decoder=ctc,vocabulary={vocabulary}"
    assert scored(name, {"y": np.full_like(logits, np.nan)}, ["abc"]).answers == [""]
    assert scored(name, {"y": logits}, ["abc"]).answers[0].endswith("bc")


def test_figures_and_agreement(vocabulary: Path) -> None:
    sides = [
        [{"y": steps(ctc(text), 30)} for text in texts]
        for texts in (["ab", "abc", "a"], ["ab", "abd", "a"])
    ]
    made = metric(f"cer:decoder=ctc,vocabulary={vocabulary}")
    (found,) = by_file(made, sides[0], sides[1], ["ab", "abc", "b"])
    assert (found.original, found.built) == (pytest.approx(1 / 6), pytest.approx(2 / 6))
    assert (found.agreement, found.agreement_kind) == (pytest.approx(2 / 3), "text")


def test_empty_labels(vocabulary: Path) -> None:
    outputs = {"y": steps(ctc("ab"), 30)}
    assert np.isnan(figure(f"wer:decoder=ctc,vocabulary={vocabulary}", outputs, [""]))
    assert figure(f"exact:decoder=ctc,vocabulary={vocabulary}", outputs, [""]) == 0


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("v.json", "{", "not JSON"),
        ("v.json", "[" * 100_000, "not JSON"),
        ("v.json", "[]", "not a vocabulary"),
        ("v.json", '["a", 3]', "not a vocabulary"),
        ("v.json", '{"a": "b"}', "'a' has the class b"),
        ("v.json", '{"a": true}', "'a' has the class True"),
        ("v.json", '{"a": 0, "b": 0}', "'b' has the class 0"),
        ("v.json", '{"a": 99999999999}', "'a' has the class 99999999999"),
        ("v.json", '{"model": {"type": "nothing"}}', "not readable as a tokenizer.json"),
    ],
)
def test_vocabularies_that_are_none(name: str, text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        metric(f"wer:decoder=ctc,vocabulary={path}")
    assert caught.value.message.startswith(str(path))


def test_a_vocabulary_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_bytes(b"a\n\xff\n")
    with pytest.raises(InputError, match="not UTF-8 at byte 2"):
        metric(f"wer:decoder=ctc,vocabulary={tmp_path / 'v.txt'}")
    (tmp_path / "w.txt").write_text("a\nb")
    for blank in (-3, 3):
        with pytest.raises(InputError, match=f"blank: {blank} of 2 tokens"):
            metric(f"wer:decoder=ctc,blank={blank},vocabulary={tmp_path / 'w.txt'}")


def test_the_package_that_is_missing(vocabulary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidfuzz.distance", None)
    for name in ("wer", "cer"):
        with pytest.raises(ToolchainError, match="rapidfuzz") as caught:
            metric(f"{name}:decoder=ctc,vocabulary={vocabulary}")
        assert "pip install rapidfuzz" in caught.value.hint
    assert metric(f"exact:decoder=ctc,vocabulary={vocabulary}").name == "exact"


WORDS = st.lists(st.sampled_from(["a", "b", "ab", "é", "😀"]), max_size=8)


@given(WORDS, WORDS, WORDS)
def test_distance(one: list[str], other: list[str], third: list[str]) -> None:
    distance = levenshtein()
    assert distance(one, other) == naive(one, other) == distance(other, one)
    assert distance("".join(one), "".join(other)) == naive("".join(one), "".join(other))
    assert distance(one, one) == 0
    assert distance(one, third) <= distance(one, other) + distance(other, third)
    assert distance(one, other) <= max(len(one), len(other))


@given(st.text(alphabet=LETTERS, max_size=20))
def test_ctc_reads_what_was_written(text: str) -> None:
    from edgec.metrics.texts import Decoder, Steps
    from edgec.metrics.vocabulary import Tokens

    tokens = Tokens(tuple(LETTERS), "")
    for blank in (0, 5, 29, -1):
        decoder = Decoder(True, blank, -1, 29, tokens)
        path = np.array(ctc(text, blank if blank >= 0 else 29))
        assert decoder.text(Steps(path, 30)) == text.strip()
