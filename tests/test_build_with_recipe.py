"""From pictures and captions to a bundle that takes pictures and captions."""

from __future__ import annotations

from pathlib import Path

import graphs
import media
import numpy as np
import pytest

import edgec
from edgec.binding import stored
from edgec.errors import InputError
from edgec.recheck import recheck
from edgec.runtime import load
from edgec.runtime.npz import dump
from edgec.runtime.recipe import prepare
from edgec.types import Limits

MINE = 'extends = "image-text"\n[readers.image]\nsize = [32, 32]\n'


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    lines = ["image,text"]
    for number in range(6):
        picture = media.picture(media.pixels(40 + number, 50))
        media.write(folder / "data" / f"{number}.png", picture)
        lines.append(f"{number}.png,a cat on the mat{' red' * number}")
    media.write(folder / "data" / "pairs.csv", "\n".join(lines))
    media.write(folder / "mine.toml", MINE)
    media.write(folder / "tokenizer.json", media.tokenizer_bytes())  # beside the model
    (folder / "model.onnx").write_bytes(graphs.path("clip_torchscript").read_bytes())
    return folder


def build(place: Path, name: str, data: str | None) -> Path:
    job = edgec.Job(
        model=place / "model.onnx",
        target="generic",
        data=None if data is None else place / "data" / data,
        recipe=str(place / "mine.toml"),
        output=place / name,
        measure=False,
        limits=Limits(part_sqnr_db=None, cosine=None),
    )
    return edgec.build(job).bundle


def test_a_bundle_of_pairs(place: Path) -> None:
    path = build(place, "pairs.edgec", "pairs.csv")
    items = {"image": place / "data" / "3.png", "text": "a cat on the mat red red red"}
    with load(path) as model:
        assert model.bundle.manifest["recipe"] == "recipe.json"
        assert model.bundle.manifest["check_data"] == "6 samples"
        recipe = stored(model.bundle)
        feeds = prepare(model.bundle, items)
        outputs = model.run(feeds)
        assert dump(model.golden_inputs()) == dump(
            recipe.open().prepare({"image": place / "data/1.png", "text": "a cat on the mat red"})
        )
    assert set(feeds) == {"image", "ids", "mask"}
    assert all(np.isfinite(array).all() for array in outputs.values())
    # the bundle knows how its data is read
    found = recheck(path, place / "model.onnx", place / "data" / "pairs.csv", [], None, 1)
    assert {one.samples for one in found.outputs} == {6}
    assert build(place, "again.edgec", "pairs.csv").read_bytes() == path.read_bytes()


def test_without_data_the_recipe_is_stored_too(place: Path) -> None:
    with load(build(place, "none.edgec", None)) as model:
        assert set(prepare(model.bundle, {"image": media.pixels(9, 9), "text": "a cat"})) == {
            "image",
            "ids",
            "mask",
        }


def test_a_bad_row_is_named(place: Path) -> None:
    media.write(place / "data" / "bad.csv", "image,text\n0.png,a\nno.png,b\n")
    with pytest.raises(InputError, match=r"bad\.csv, line 3, column 'image': no file 'no\.png'"):
        build(place, "bad.edgec", "bad.csv")
    assert not (place / "bad.edgec").exists()
