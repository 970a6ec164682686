"""Texts: against the tokenizers library itself, and tokenizers and texts that cannot be used."""

from __future__ import annotations

import sys
from typing import Any

import media
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from edgec.errors import InputError, ToolchainError
from edgec.runtime.read_text import TextReader, open_tokenizer

ROLES = ("ids", "mask", "types")


def spec(layout: str = "nt", dtype: str = "int64", **changed: Any) -> dict[str, Any]:
    return {
        "kind": "text",
        "column": "text",
        "tokenizer": "t.json",
        "tokens": [1, 16],
        "pad_id": 0,
        "special": True,
        "inputs": {role: {"name": role, "dtype": dtype, "layout": layout} for role in ROLES},
        **changed,
    }


def reader(*, data: bytes = b"", **changed: Any) -> TextReader:
    return TextReader(spec(**changed), lambda _: data or media.tokenizer_bytes())


def test_ids_mask_and_types() -> None:
    found = reader().read("The cat, on a MAT", "it")
    np.testing.assert_array_equal(found["ids"], [[2, 5, 6, 1, 8, 4, 9, 3]])
    np.testing.assert_array_equal(found["mask"], np.ones((1, 8)))
    np.testing.assert_array_equal(found["types"], np.zeros((1, 8)))
    assert {array.dtype for array in found.values()} == {np.dtype(np.int64)}


@settings(max_examples=100, deadline=None)
@given(
    words=st.lists(
        st.sampled_from([*media.WORDS[4:], "zebra", "é", "猫"]), min_size=1, max_size=30
    ),
    low=st.integers(1, 12),
    more=st.integers(3, 12),
    special=st.booleans(),
)
def test_cut_and_padded_as_the_library_does(
    words: list[str], low: int, more: int, special: bool
) -> None:
    text, high = " ".join(words), low + more
    found = reader(tokens=[low, high], special=special, pad_id=7).read(text, "it")
    library = Tokenizer.from_str(media.tokenizer_bytes().decode())
    library.enable_truncation(high)
    library.enable_padding(pad_id=7, length=low)
    wanted = library.encode(text, add_special_tokens=special)
    np.testing.assert_array_equal(found["ids"], [wanted.ids])
    np.testing.assert_array_equal(found["mask"], [wanted.attention_mask])
    assert low <= found["ids"].shape[1] <= high


def test_lengths_differ_without_padding() -> None:
    found = [reader().read(text, "it")["ids"].shape for text in ("a cat", "a cat on the red mat")]
    assert found == [(1, 4), (1, 8)]


def test_a_long_text_keeps_its_end_token() -> None:
    found = reader(tokens=[1, 5]).read("cat " * 100, "it")["ids"]
    np.testing.assert_array_equal(found, [[2, 6, 6, 6, 3]])


def test_padding_of_the_file_is_the_recipe_s() -> None:
    own = {"truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst"}}
    own["truncation"]["stride"] = 0  # type: ignore[assignment]
    padding: dict[str, Any] = {"strategy": {"Fixed": 9}, "direction": "Left"}
    padding |= {"pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
    data = media.tokenizer_bytes(**own, padding=padding)
    found = reader(data=data).read("a cat on the mat", "it")
    np.testing.assert_array_equal(found["ids"], [[2, 4, 6, 8, 5, 9, 3]])


@pytest.mark.parametrize("dtype", ["int64", "int32", "float32", "bool"])
@pytest.mark.parametrize("layout", ["nt", "t"])
def test_dtypes_and_layouts(dtype: str, layout: str) -> None:
    inputs = {"ids": {"name": "i", "dtype": "int32", "layout": layout}}
    inputs["mask"] = {"name": "m", "dtype": dtype, "layout": layout}
    found = reader(inputs=inputs, tokens=[6, 6]).read("a cat", "it")
    assert set(found) == {"i", "m"}
    assert found["i"].dtype == np.int32
    assert found["m"].dtype == dtype
    wanted = [1, 1, 1, 1, 0, 0]
    np.testing.assert_array_equal(found["m"], [wanted] if layout == "nt" else wanted)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("", "the text is empty"),
        (" \n\t ", "the text is empty"),
        (b"a cat", "expected a text, got bytes"),
        (None, "expected a text, got NoneType"),
        ("\ud800", "the tokenizer fails"),
    ],
)
def test_texts_that_are_none(item: Any, words: str) -> None:
    with pytest.raises(InputError, match=r"^it: ") as caught:
        reader().read(item, "it")
    assert words in caught.value.message


def test_a_text_without_tokens() -> None:
    data = media.tokenizer_bytes(
        normalizer={"type": "Replace", "pattern": {"Regex": "."}, "content": ""}
    )
    with pytest.raises(InputError, match="it: the text has no tokens"):
        reader(data=data, special=False).read("cat", "it")


@pytest.mark.parametrize("tokens", [[1, 2], [1, 1], [9, 8]])
def test_no_room_for_the_text(tokens: list[int]) -> None:
    """With less room than special tokens the library would not cut at all."""
    with pytest.raises(InputError, match="leaves none for the text"):
        reader(tokens=tokens)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff\xfe",
        b"null",
        b"[" * 100_000,
        media.tokenizer_bytes()[:-40],
        media.tokenizer_bytes(model={"type": "WordLevel", "vocab": {"a": -1}, "unk_token": "a"}),
        media.tokenizer_bytes(model={"type": "BPE", "vocab": {}, "merges": [["a", "b"]]}),
        media.tokenizer_bytes(model={"type": "Unigram", "vocab": [], "unk_id": 5}),
        media.tokenizer_bytes(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
        media.tokenizer_bytes(pre_tokenizer={"type": "Split", "pattern": {"Regex": "("}}),
    ],
)
def test_files_that_are_no_tokenizers(data: bytes) -> None:
    with pytest.raises(InputError, match=r"^t\.json: not readable as a tokenizer\.json"):
        open_tokenizer(data, "t.json")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ToolchainError, match="needs the package tokenizers") as caught:
        reader()
    assert caught.value.hint == "pip install tokenizers"
