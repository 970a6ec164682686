"""The committed pictures and captions, and how they are fed."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgec.demo import data, pictures
from edgec.demo.model import ASSETS

CONCEPTS, EVALUATION, CALIBRATION = 1497, 768, 128


def members(archive: str) -> dict[str, bytes]:
    with zipfile.ZipFile(ASSETS / archive) as file:
        return {Path(name).stem: file.read(name) for name in file.namelist()}


def captions() -> dict[str, str]:
    return json.loads((ASSETS / "captions.json").read_text("utf-8"))


@pytest.fixture
def no_tokenizer(monkeypatch):
    def tokenize(texts):
        lengths = np.array([len(text.split()) for text in texts])
        mask = (np.arange(data.TOKENS) < lengths[:, None]).astype(np.int64)
        return mask * 7, mask

    monkeypatch.setattr(data, "tokenize", tokenize)


def test_the_sizes_are_as_promised():
    assert len(captions()) == CONCEPTS
    assert len(members("evaluation.zip")) == EVALUATION
    assert len(members("calibration.zip")) == CALIBRATION
    assert sum(path.stat().st_size for path in ASSETS.iterdir()) < 6_000_000


def test_every_caption_is_its_own():
    texts = list(captions().values())
    assert len(set(texts)) == CONCEPTS
    assert all(text == text.strip() and ": " in text for text in texts)


def test_every_picture_has_a_caption():
    known = set(captions())
    assert set(members("evaluation.zip")) <= known
    assert set(members("calibration.zip")) <= known


def test_calibration_and_evaluation_share_no_concept_and_no_picture():
    judged, seen = members("evaluation.zip"), members("calibration.zip")
    assert not set(judged) & set(seen)
    assert not set(judged.values()) & set(seen.values())


def test_the_styles_differ():
    """Twemoji is flat: far fewer colours per picture than Noto's shaded drawings."""

    def colours(archive: str) -> float:
        drawings = [
            Image.open(io.BytesIO(png)).convert("RGBA") for png in members(archive).values()
        ]
        return float(np.median([len(drawing.getcolors(1 << 12)) for drawing in drawings]))

    assert colours("evaluation.zip") > 1.2 * colours("calibration.zip")


def test_evaluation_labels_name_the_right_caption(no_tokenizer):
    test = data.evaluation()
    texts = captions()
    assert test.images.shape == (EVALUATION, 64, 64, 3)
    assert test.images.dtype == np.uint8
    assert test.input_ids.shape == test.attention_mask.shape == (CONCEPTS, data.TOKENS)
    expected = [texts[concept] for concept in members("evaluation.zip")]
    assert [test.captions[label] for label in test.labels] == expected


def test_calibration_files_carry_the_input_names(no_tokenizer, tmp_path):
    folder = data.write_calibration(tmp_path / "calibration")
    files = sorted(folder.iterdir())
    assert len(files) == CALIBRATION
    with np.load(files[0], allow_pickle=False) as arrays:
        assert set(arrays) == {"image", "input_ids", "attention_mask"}
        assert arrays["image"].shape == (1, 3, 224, 224)
        assert arrays["image"].dtype == np.float32
        assert np.abs(arrays["image"]).max() <= 1.0
        for name in ("input_ids", "attention_mask"):
            assert arrays[name].shape == (1, data.TOKENS)
            assert arrays[name].dtype == np.int64


def test_calibration_is_the_same_every_time(no_tokenizer, tmp_path):
    one, two = (data.write_calibration(tmp_path / name) for name in ("one", "two"))
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes()


def test_pictures_are_laid_on_white_and_normalised():
    drawing = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    drawing.paste((255, 0, 0, 255), (0, 0, 32, 64))
    png = io.BytesIO()
    drawing.save(png, "PNG")
    image = pictures.normalise(pictures.decode(png.getvalue()))
    assert image.shape == (3, 224, 224)
    np.testing.assert_array_equal(image[:, 0, 0], [1.0, -127 / 128, -127 / 128])
    np.testing.assert_array_equal(image[:, 0, -1], [1.0, 1.0, 1.0])


@pytest.mark.parametrize(("images", "texts"), [(5, 9), (9, 5), (4, 4)])
@pytest.mark.parametrize("batch", [1, 4])
def test_embed_keeps_the_order(images, texts, batch):
    test = data.Evaluation(
        images=np.arange(images, dtype=np.uint8)[:, None, None, None]
        * np.ones((64, 64, 3), np.uint8),
        labels=np.zeros(images, np.int64),
        captions=tuple("abcdefghi"[:texts]),
        input_ids=np.arange(texts, dtype=np.int64)[:, None] * np.ones((1, 64), np.int64),
        attention_mask=np.ones((texts, 64), np.int64),
    )

    def run(feeds):
        assert set(feeds) == {"image", "input_ids", "attention_mask"}
        assert all(0 < len(array) <= batch for array in feeds.values())
        return {
            "image_embedding": feeds["image"][:, :1, 0, 0] * 128 + 127,
            "text_embedding": feeds["input_ids"][:, :1].astype(np.float32),
        }

    pictures_, captions_ = data.embed(run, test, batch)
    np.testing.assert_array_equal(pictures_[:, 0], np.arange(images))
    np.testing.assert_array_equal(captions_[:, 0], np.arange(texts))
