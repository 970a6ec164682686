"""Recipes are bound to a graph by what it says of its inputs, and never by a guess."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import media
import numpy as np
import pytest

from edgec.binding import NAME, Bound, bind, near
from edgec.errors import InputError
from edgec.inputs import Input
from edgec.recipe import Recipe, load_recipe
from edgec.types import Method, Range

Shape = tuple[int | str, ...]


def need(name: str, *shape: int | str, dtype: str = "float32", ranges: Any = ()) -> Input:
    return Input(name, np.dtype(dtype), shape, tuple(Range(*pair) for pair in ranges))


def ints(name: str, *shape: int | str, ranges: Any = ()) -> Input:
    return need(name, *shape, dtype="int64", ranges=ranges)


def recipe(**readers: Any) -> Recipe:
    return Recipe("mine", "", (Method.MINMAX,), 9, readers)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    media.write(tmp_path / "tokenizer.json", media.tokenizer_bytes())
    return tmp_path


def bound(needs: list[Input], place: Path = Path(), **readers: Any) -> dict[str, Any]:
    page: dict[str, Any] = dict(bind(recipe(**readers), needs, [place]).page["readers"])
    return page


def refused(needs: list[Input], place: Path = Path(), **readers: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        bound(needs, place, **readers)
    assert caught.value.message.startswith("recipe mine: ")
    assert caught.value.hint
    return caught.value


def fed(page: dict[str, Any]) -> dict[str, str]:
    return {role: feed["name"] for role, feed in page["inputs"].items()}


IMAGE = {"kind": "image"}
TEXTS = {"kind": "text"}
MEL = {"kind": "audio", "form": "mel"}
PICTURE = need("pixels", "n", 3, 32, 48)


# Pictures


@pytest.mark.parametrize(
    ("shape", "layout", "size", "color"),
    [
        (("n", 3, 32, 48), "nchw", [32, 48], "rgb"),
        (("n", 32, 48, 3), "nhwc", [32, 48], "rgb"),
        ((1, 1, 28, 28), "nchw", [28, 28], "grey"),
        ((1, 28, 28, 1), "nhwc", [28, 28], "grey"),
        ((1, "c", 28, 28), "nchw", [28, 28], "rgb"),
    ],
)
def test_an_image_s_layout_size_and_colour(
    shape: Shape, layout: str, size: list[int], color: str
) -> None:
    page = bound([need("x", *shape)], image=IMAGE)["image"]
    assert page["inputs"]["pixels"] == {"name": "x", "dtype": "float32", "layout": layout}
    assert (page["size"], page["color"]) == (size, color)


def test_an_image_of_three_dimensions_is_named() -> None:
    needs = [need("x", 3, 32, 48)]
    assert "no input fits; there are x float32 3x32x48" in refused(needs, image=IMAGE).message
    page = bound(needs, image={**IMAGE, "input": "x"})["image"]
    assert page["inputs"]["pixels"]["layout"] == "chw"
    page = bound([need("x", 32, 48, 1)], image={**IMAGE, "input": "x"})["image"]
    assert (page["inputs"]["pixels"]["layout"], page["color"]) == ("hwc", "grey")


def test_a_size_fixed_by_shape() -> None:
    ranges = [(1, 1), (3, 3), (32, 32), (40, 40)]
    page = bound([need("x", "n", 3, "h", "w", ranges=ranges)], image=IMAGE)["image"]
    assert page["size"] == [32, 40]


@pytest.mark.parametrize(
    ("needs", "options", "words", "hint"),
    [
        ([need("x", 1, 3, "h", "w")], {}, "no fixed height and width", "size = [height, width]"),
        ([PICTURE], {"size": [32, 32]}, "size = 32, but input pixels", "leave size out"),
        ([PICTURE], {"color": "grey"}, "color grey: channels = 1, but input", "leave"),
        ([need("x", 1, 4, 8, 8)], {}, "which dimension is the 1 or 3 channels", "nchw"),
        ([need("x", 1, 3, 8, 3)], {}, "which dimension is the 1 or 3 channels", "nhwc"),
        ([need("x", 8, 3, 8, 8)], {}, "has a batch of 8", "batch of one"),
        ([PICTURE], {"input": "y"}, "input = 'y' is not an input", "the inputs are pixels"),
        ([PICTURE], {"layout": "chw"}, "does not have the dimensions chw", "set layout"),
        (
            [need("x", 1, 3, 8, 8), need("y", 1, 3, 8, 8)],
            {},
            "several inputs fit: x float32 1x3x8x8; y float32 1x3x8x8",
            'input = "…" under [readers.image]',
        ),
        ([need("x", 9)], {}, "no input fits; there are x float32 9", "name it"),
        ([need("x", 1, 3, 8, 8, dtype="uint8")], {}, "do not fit uint8", "scale = 1.0"),
        ([PICTURE, need("gain", 1, 4)], {}, "no reader feeds input 'gain'", "[readers.NAME]"),
    ],
)
def test_an_image_that_cannot_be(
    needs: list[Input], options: dict[str, Any], words: str, hint: str
) -> None:
    error = refused(needs, image={**IMAGE, **options})
    assert words in error.message
    assert hint in error.hint


def test_whole_numbers_only_where_no_float_is() -> None:
    both = [need("a", 1, 3, 8, 8, dtype="uint8"), need("b", 1, 3, 8, 8)]
    raw = {"kind": "image", "scale": 1.0}
    error = refused(both, image=raw)
    assert "no reader feeds input 'a'" in error.message
    assert fed(bound(both[:1], image=raw)["image"]) == {"pixels": "a"}


def test_names_decide_between_a_picture_and_a_spectrogram() -> None:
    needs = [need("mel", "n", 1, 64, "t"), need("image", "n", 3, 32, 32)]
    found = bound(needs, audio=MEL, image=IMAGE)
    assert (fed(found["image"]), fed(found["audio"])) == ({"pixels": "image"}, {"audio": "mel"})
    assert list(found) == ["audio", "image"]


def test_two_pictures() -> None:
    needs = [need("left", 1, 3, 8, 8), need("right", 1, 3, 8, 8)]
    found = bound(needs, a={**IMAGE, "input": "right"}, b=IMAGE)
    assert (fed(found["a"]), fed(found["b"])) == ({"pixels": "right"}, {"pixels": "left"})
    both = {**IMAGE, "input": "left"}
    assert "input 'left' is named twice" in refused(needs, a=both, b=both).message


def test_an_input_without_a_shape() -> None:
    needs = [Input("x", np.dtype("float32"), None, ())]
    assert "of unknown shape" in refused(needs, image=IMAGE).message
    assert "of unknown shape" in refused(needs, image={**IMAGE, "input": "x"}).message
    assert "of unknown shape" in refused(needs, x={"kind": "numbers"}).message


# Texts


def test_ids_mask_and_types(place: Path) -> None:
    needs = [ints(f"{n}", "n", "t") for n in ("token_type_ids", "attention_mask", "input_ids")]
    page = bound(needs, place, text=TEXTS)["text"]
    names = {"ids": "input_ids", "mask": "attention_mask", "types": "token_type_ids"}
    assert fed(page) == names
    assert (page["tokens"], page["pad_id"], page["special"]) == ([1, 128], 0, True)


def test_a_float_mask_and_ids_of_any_name(place: Path) -> None:
    page = bound([ints("x", "n", "t"), need("mask", "n", "t")], place, text=TEXTS)["text"]
    assert fed(page) == {"ids": "x", "mask": "mask"}
    assert page["inputs"]["mask"]["dtype"] == "float32"


@pytest.mark.parametrize(
    ("shape", "ranges", "options", "tokens"),
    [
        (("n", "t"), (), {}, [1, 128]),
        (("n", "t"), (), {"max_tokens": 20}, [1, 20]),
        (("n", "t"), (), {"max_tokens": 20, "padding": "max"}, [20, 20]),
        (("n", "t"), (), {"padding": "max"}, [128, 128]),
        ((1, 77), (), {}, [77, 77]),
        ((1, 77), (), {"max_tokens": 77, "padding": "max"}, [77, 77]),
        (("n", "t"), [(1, 1), (8, 64)], {}, [8, 64]),
        (("n", "t"), [(1, 1), (8, 64)], {"max_tokens": 32}, [8, 32]),
        (("n", "t"), [(1, 1), (64, 64)], {}, [64, 64]),
        ((77,), (), {}, [77, 77]),
    ],
)
def test_tokens(shape: Shape, ranges: Any, options: Any, tokens: list[int], place: Path) -> None:
    page = bound([ints("ids", *shape, ranges=ranges)], place, text={**TEXTS, **options})["text"]
    assert page["tokens"] == tokens
    assert page["inputs"]["ids"]["layout"] == ("nt" if len(shape) == 2 else "t")


def test_the_tokenizer_s_own_length(place: Path) -> None:
    own = {"direction": "Right", "max_length": 40, "strategy": "LongestFirst", "stride": 0}
    media.write(place / "tokenizer.json", media.tokenizer_bytes(truncation=own))
    assert bound([ints("ids", "n", "t")], place, text=TEXTS)["text"]["tokens"] == [1, 40]


def _no_pads() -> bytes:
    words = {word: number for number, word in enumerate(media.WORDS) if word != "[PAD]"}
    model = {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"}
    return media.tokenizer_bytes(model=model, added_tokens=[])


def test_padding_tokens(place: Path) -> None:
    media.write(place / "tokenizer.json", _no_pads())
    error = refused([ints("ids", 1, 9)], place, text=TEXTS)
    assert "the tokenizer has no padding token" in error.message
    assert bound([ints("ids", 1, 9)], place, text={**TEXTS, "pad_id": 5})["text"]["pad_id"] == 5
    masked = [ints("ids", 1, 9), ints("mask", 1, 9)]
    assert bound(masked, place, text=TEXTS)["text"]["pad_id"] == 0
    assert bound([ints("ids", 1, "t")], place, text=TEXTS)["text"]["pad_id"] == 0


@pytest.mark.parametrize(
    ("needs", "options", "words"),
    [
        ([ints("ids", 1, 77)], {"max_tokens": 20}, "max_tokens = 20, but input ids int64 1x77"),
        ([ints("ids", 1, 77)], {"padding": "none"}, "always takes 77"),
        ([ints("ids", 1, 2)], {}, "leaves none for the text"),
        ([ints("query_ids", 1, "t"), ints("doc_ids", 1, "t")], {}, "several inputs fit"),
        ([ints("ids", 1, "t"), ints("a_mask", 1, "t"), ints("b_mask", 1, "t")], {}, "several"),
        ([ints("ids", 1, "t"), ints("position_ids", 1, "t")], {}, "feeds input 'position_ids'"),
        ([ints("ids", 4, "t")], {}, "has a batch of 4"),
        ([need("ids", 1, "t")], {}, "no input fits"),
    ],
)
def test_a_text_that_cannot_be(
    needs: list[Input], options: dict[str, Any], words: str, place: Path
) -> None:
    assert words in refused(needs, place, text={**TEXTS, **options}).message


def test_two_texts(place: Path) -> None:
    needs = [ints(f"{a}_{b}", 1, "t") for a in ("query", "doc") for b in ("ids", "mask")]
    query = {**TEXTS, "ids": "query_ids", "mask": "query_mask"}
    bound_ = bind(recipe(query=query, doc=TEXTS), needs, [place])
    assert fed(bound_.page["readers"]["doc"]) == {"ids": "doc_ids", "mask": "doc_mask"}
    assert set(bound_.assets) == {"recipe/query.tokenizer.json", "recipe/doc.tokenizer.json"}


def test_where_the_tokenizer_is_sought(tmp_path: Path) -> None:
    needs = [ints("ids", 1, "t")]
    (tmp_path / "data").mkdir()
    model = media.write(tmp_path / "hub" / "onnx" / "model.onnx", "")
    places = near(tmp_path / "data", model)
    assert places == [tmp_path / "data", tmp_path / "hub" / "onnx", tmp_path / "hub"]
    assert near(None, model) == places[1:]
    assert near(tmp_path / "data" / "pairs.csv", model) == places
    with pytest.raises(InputError, match=r"there is no tokenizer\.json in ") as caught:
        bind(recipe(text=TEXTS), needs, places)
    for one in places:
        assert str(one) in caught.value.message
    for one, word in zip(reversed(places), ("[UNK]", "a", "cat"), strict=True):
        changed = {"type": "WordLevel", "vocab": {"[UNK]": 1, word: 9}, "unk_token": "[UNK]"}
        data = media.tokenizer_bytes(model=changed)
        media.write(one / "tokenizer.json", data)
        assert list(bind(recipe(text=TEXTS), needs, places).assets.values()) == [data]
    other = media.write(tmp_path / "other.json", media.tokenizer_bytes())
    chosen = {**TEXTS, "tokenizer": str(other)}
    assert list(bind(recipe(text=chosen), needs, []).assets.values()) == [other.read_bytes()]


def test_a_tokenizer_that_is_none_is_named(place: Path) -> None:
    path = media.write(place / "tokenizer.json", "{}")
    with pytest.raises(InputError) as caught:
        bound([ints("ids", 1, "t")], place, text=TEXTS)
    assert caught.value.message.startswith(f"{path}: not readable as a tokenizer.json")


# Sounds


@pytest.mark.parametrize(
    ("shape", "options", "layout", "bands", "length"),
    [
        (("n", 80, "t"), MEL, "nmt", 80, [None, None]),
        (("n", "t", 80), MEL, "ntm", 80, [None, None]),
        (("n", 1, 64, "t"), MEL, "ncmt", 64, [None, None]),
        ((1, 1, "t", 64), MEL, "nctm", 64, [None, None]),
        ((1, 80, 300), {**MEL, "n_mels": 80}, "nmt", 80, [300, 300]),
        ((1, 300, 80), {**MEL, "n_mels": 80}, "ntm", 80, [300, 300]),
        ((1, 80, 80), {**MEL, "layout": "ntm"}, "ntm", 80, [80, 80]),
        (("n", "m", "t"), {**MEL, "n_mels": 40}, "nmt", 40, [None, None]),
        (("n", "m", "t"), {**MEL, "n_mels": 40, "max_seconds": 2}, "nmt", 40, [None, 200]),
        (
            ("n", 40, "t"),
            {**MEL, "max_seconds": 2, "padding": "max", "edges": "none"},
            "nmt",
            40,
            [198, 198],
        ),
    ],
)
def test_mels(shape: Shape, options: Any, layout: str, bands: int, length: list[Any]) -> None:
    page = bound([need("mel", *shape)], audio=options)["audio"]
    assert page["inputs"]["audio"]["layout"] == layout
    assert (page["n_mels"], page["length"]) == (bands, length)
    assert (page["fmax"], page["win_length"]) == (8000.0, 400)


@pytest.mark.parametrize(
    ("shape", "options", "layout", "length"),
    [
        (("n", "t"), {}, "nt", [None, None]),
        (("n", 1, "t"), {}, "nct", [None, None]),
        ((1, 16000), {}, "nt", [16000, 16000]),
        (("n", "t"), {"max_seconds": 0.5, "sample_rate": 8000}, "nt", [None, 4000]),
        (("n", "t", 400), {"form": "frames", "hop_length": 160}, "ntw", [None, None]),
        (("n", 98, 400), {"form": "frames", "hop_length": 160}, "ntw", [98, 98]),
        (("n", 2, "t"), {"channels": 2}, "nct", [None, None]),
    ],
)
def test_waveforms_and_frames(shape: Shape, options: Any, layout: str, length: list[Any]) -> None:
    page = bound([need("x", *shape)], audio={"kind": "audio", **options})["audio"]
    assert (page["inputs"]["audio"]["layout"], page["length"]) == (layout, length)
    assert not {"n_fft", "n_mels", "log", "mean"} & set(page)


def test_a_form_leaves_out_what_only_another_has() -> None:
    base = load_recipe("audio").readers["audio"]
    page = bound([need("x", "n", "t")], audio={**base, "form": "waveform"})["audio"]
    assert set(page) == {
        *("kind", "column", "inputs", "form", "sample_rate", "channels", "normalise", "length")
    }


@pytest.mark.parametrize(
    ("shape", "options", "words"),
    [
        ((1, 80, 3000), MEL, "which dimension is the mel bands?"),
        (("n", "m", "t"), MEL, "which dimension is the mel bands?"),
        ((1, 80, 3000), {**MEL, "n_mels": 40}, "which dimension is the mel bands?"),
        (("n", 80, "t"), {**MEL, "n_mels": 40}, "n_mels = 40, but input x"),
        (("n", 80, "t"), {**MEL, "layout": "ntm"}, "does not fix n_mels"),
        (("n", 2, 80, "t"), MEL, "channels = 1, but input x"),
        (("n", 200, "t"), MEL, "some of 200 mel bands are empty"),
        (("n", "t"), {"kind": "audio", "channels": 2}, "does not fit form waveform"),
        (("n", "t", "w"), {"kind": "audio", "form": "frames"}, "does not fix win_length"),
        (("n", 80, "t"), {**MEL, "max_seconds": 0.001}, "frames = 0"),
        ((1, 16000), {"kind": "audio", "max_seconds": 2}, "samples = 32000, but input x"),
        ((1, 16000), {"kind": "audio", "padding": "none"}, "always takes 16000"),
        (("n", "t"), {"kind": "audio", "padding": "max"}, "no length to pad to"),
        ((2, 16000), {"kind": "audio"}, "has a batch of 2"),
        ((1,), {"kind": "audio"}, "no input fits"),
    ],
)
def test_a_sound_that_cannot_be(shape: Shape, options: Any, words: str) -> None:
    assert words in refused([need("x", *shape)], audio=options).message


# Numbers, and the whole


def test_numbers_and_constants() -> None:
    needs = [PICTURE, need("gain", "n", 4), need("h0", 1, 2)]
    found = bound(
        needs,
        state={"kind": "numbers", "input": "h0", "value": 0},
        gain={"kind": "numbers"},
        image=IMAGE,
    )
    assert (found["gain"]["shape"], found["state"]["shape"]) == ([None, 4], [1, 2])
    assert ("value" in found["gain"], found["state"]["value"]) == (False, 0)
    several = {"a": {"kind": "numbers"}, "image": IMAGE}
    assert "several inputs fit: gain" in refused(needs, **several).message


def test_without_readers_nothing_is_bound_or_stored() -> None:
    found = bind(load_recipe("tensors"), [PICTURE], [])
    assert found == Bound()
    assert (found.files, found.fingerprint, dict(found.readers)) == ({}, "", {})


def test_what_a_bundle_stores(place: Path) -> None:
    needs = [need("image", "n", 3, 8, 8), ints("ids", "n", "t"), ints("mask", "n", "t")]
    found = bind(load_recipe("image-text"), needs, [place])
    assert set(found.files) == {NAME, "recipe/text.tokenizer.json"}
    assert json.loads(found.files[NAME]) == found.page
    assert found.page["name"] == "image-text"
    assert found.page["readers"]["image"]["interpolation"] == "bicubic"
    again = bind(load_recipe("image-text"), needs, [place])
    assert again.files == found.files
    assert again.fingerprint == found.fingerprint
    media.write(place / "tokenizer.json", media.tokenizer_bytes(normalizer=None))
    assert bind(load_recipe("image-text"), needs, [place]).fingerprint != found.fingerprint


def test_the_fingerprint_changes_with_every_option(place: Path) -> None:
    changes = [{}, {"size": [8, 8]}, {"crop": 0.5}, {"std": [2.0]}, {"interpolation": "box"}]
    needs = [need("x", "n", 3, "h", "w")]
    base = {**IMAGE, "size": [9, 9]}
    prints = {bind(recipe(i={**base, **c}), needs, []).fingerprint for c in changes}
    assert len(prints) == len(changes)


def test_columns() -> None:
    assert bound([PICTURE], image=IMAGE)["image"]["column"] == "image"
    assert bound([PICTURE], image={**IMAGE, "column": "file"})["image"]["column"] == "file"
