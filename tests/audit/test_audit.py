"""Good data is left alone; each flaw is found by its check, with the samples that have it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import graphs
import media
import numpy as np
import pytest
import small

from edgec.audit import Audit, audit
from edgec.audit.finding import Finding, Severity
from edgec.build import Job
from edgec.errors import InputError
from edgec.runtime import npz

Array = np.ndarray
COUNT = 12
MODEL = "clip_torchscript"
Change = Callable[[int, dict[str, Array]], Mapping[str, Array]]


def look(model: Path, folder: Path, recipe: str = "tensors") -> Audit:
    return audit(Job(model=model, target="x86-vnni", data=folder, recipe=recipe, threads=1))


def write(folder: Path, change: Change, model: str = MODEL) -> Path:
    """Good samples 00.npz, 01.npz, …, each through `change`; captions of 3 to 12 tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(COUNT):
        feeds = graphs.load_feeds(model, 1000 + number, images=1, texts=1, batch=1)
        npz.write(folder / f"{number:02}.npz", change(number, feeds))
    return folder


def same(_: int, feeds: dict[str, Array]) -> Mapping[str, Array]:
    return feeds


def of(found: Audit, check: str) -> list[Finding]:
    return [one for one in found.findings if one.check == check]


def told(found: Audit) -> set[str]:
    """The checks that found something, apart from the number of samples."""
    return {one.check for one in found.findings} - {"enough"}


@pytest.mark.parametrize("name", [MODEL, "cnn_tf", "trimodal_dynamo"])
def test_good_data_is_left_alone(name: str, tmp_path: Path) -> None:
    graphs.write_samples(name, tmp_path, COUNT)
    found = look(graphs.path(name), tmp_path)
    assert told(found) == set()
    assert (found.total, found.readable, found.run) == (COUNT, COUNT, COUNT)


def test_first_states_may_be_zero_and_have_no_length(tmp_path: Path) -> None:
    def zero(_: int, feeds: dict[str, Array]) -> Mapping[str, Array]:
        return {n: np.zeros_like(a) if n in ("h0", "c0") else a for n, a in feeds.items()}

    found = look(graphs.path("lstm"), write(tmp_path, zero, "lstm"))
    assert {one.severity for one in of(found, "constant")} == {Severity.NOTE}
    assert set(found.lengths) == {"x"}


@pytest.fixture(scope="module")
def flawed(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    """One flaw a sample, as far as they do not hide each other."""
    good = [graphs.load_feeds(MODEL, 1000 + n, images=1, texts=1) for n in range(COUNT)]

    def spoil(number: int, feeds: dict[str, Array]) -> Mapping[str, Array]:
        match number:
            case 1:
                return {n: a for n, a in feeds.items() if n != "mask"}
            case 2:
                return {**feeds, "image": feeds["image"].astype(np.float64)}
            case 3:
                return {**feeds, "image": np.where(feeds["image"] > 2, np.nan, np.float32(0))}
            case 4:
                return good[0]
            case 5:
                return {**feeds, "image": np.full_like(feeds["image"], 0.5)}
            case 6:
                return {**feeds, "mask": np.zeros_like(feeds["mask"])}
            case 7:
                return {**feeds, "image": feeds["image"] * np.float32(127)}
            case 8:
                return {**feeds, "ids": good[9]["ids"], "mask": good[9]["mask"]}
            case 10:
                noise = small.normal(0, *feeds["image"].shape, spread=1e-3)
                return {**good[11], "image": good[11]["image"] + noise}
        return feeds

    folder = write(tmp_path_factory.mktemp("flawed"), spoil)
    (folder / "12.npz").write_bytes(b"PK")
    return look(graphs.path(MODEL), folder)


@pytest.mark.parametrize(
    ("check", "severity", "samples", "words"),
    [
        ("missing", "warning", {"01.npz"}, "holds no mask"),
        ("unreadable", "warning", {"02.npz"}, "input 'image' is float64, the model wants float32"),
        ("unreadable", "warning", {"12.npz"}, "no readable .npz file"),
        ("duplicate", "warning", {"00.npz", "04.npz"}, "00.npz, 04.npz are equal"),
        ("near-duplicate", "note", {"10.npz", "11.npz"}, "are nearly equal"),
        ("constant", "warning", {"05.npz"}, "image holds one number alone in 1 of"),
        ("padding", "warning", {"06.npz"}, "mask is 0 everywhere in 1 of"),
        ("scale", "warning", {"07.npz"}, "image is on another scale in 1 of"),
        (
            "pairs",
            "note",
            {f"{n:02}.npz" for n in (8, 9, 10, 11)},
            "share one, with different partners",
        ),
    ],
)
def test_a_flaw(flawed: Audit, check: str, severity: str, samples: set[str], words: str) -> None:
    (one,) = [f for f in of(flawed, check) if samples & set(f.samples) and words in f.message]
    assert one.severity == severity
    assert samples == set(one.samples)
    assert one.hint


def test_nothing_else_is_told_of_flawed_data(flawed: Audit) -> None:
    expected = {"missing", "unreadable", "duplicate", "near-duplicate", "constant", "padding"}
    assert told(flawed) - {"finite"} == expected | {"scale", "pairs"}
    assert flawed.total == COUNT + 1
    assert flawed.readable == flawed.total - sum(
        len(one.samples) for one in flawed.findings if one.check in ("missing", "unreadable")
    )


def test_all_without_an_input(tmp_path: Path) -> None:
    found = look(graphs.path(MODEL), write(tmp_path, lambda _, feeds: {"image": feeds["image"]}))
    (one,) = of(found, "missing")
    assert len(one.samples) == COUNT
    assert "holds no ids, mask" in one.message
    assert (found.readable, found.run) == (0, 0)
    assert found.curve.points == ()


def test_an_input_that_never_changes(tmp_path: Path) -> None:
    one = graphs.load_feeds(MODEL, 5, images=1, texts=1)
    found = look(graphs.path(MODEL), write(tmp_path, lambda _, feeds: {**feeds, "ids": one["ids"]}))
    (constant,) = of(found, "constant")
    assert constant.message == f"ids is equal in all {COUNT} samples"
    assert constant.severity is Severity.WARNING
    assert of(found, "near-duplicate") == []


def test_empty_texts_and_much_padding(tmp_path: Path) -> None:
    def pad(number: int, feeds: dict[str, Array]) -> Mapping[str, Array]:
        ids = np.zeros((1, 30), np.int64)
        kept = 2 if number == 3 else 5 + number % 3
        ids[0, :kept] = np.random.default_rng(number).integers(2, 90, kept)
        return {**feeds, "ids": ids, "mask": (np.arange(30) < kept)[None].astype(np.int64)}

    found = look(graphs.path(MODEL), write(tmp_path, pad))
    short, much = of(found, "padding")
    assert short.samples == ("03.npz",)
    assert "one or two tokens, where 6 are usual" in short.message
    assert much.severity is Severity.NOTE
    assert "% of the columns are padding; 6 of 30 are in use" in much.message
    assert found.lengths == {"mask": {2: 1, 5: 3, 6: 4, 7: 4}}


def test_one_length_where_the_model_takes_others(tmp_path: Path) -> None:
    def full(_: int, feeds: dict[str, Array]) -> Mapping[str, Array]:
        return {**feeds, "mask": np.ones_like(feeds["mask"])}

    (one,) = of(look(graphs.path(MODEL), write(tmp_path, full)), "lengths")
    assert "mask has the length 12 in all 12 samples" in one.message


def test_what_the_model_cannot_compute(tmp_path: Path) -> None:
    model = small.save(
        small.model(
            "g (float[n, 3, 8, 8] x) => (float[n, 4, 6, 6] y) { r = Sqrt (x)\n y = Conv (r, w) }",
            w=small.normal(0, 4, 3, 3, 3),
        ),
        tmp_path / "root.onnx",
    )
    for number in range(COUNT):
        x = np.abs(small.normal(number, 1, 3, 8, 8))
        x[0, 1, 4, 4] *= -1 if number == 7 else 1  # one among many: a maximum would miss it
        npz.write(tmp_path / f"{number:02}.npz", {"x": x})
    found = look(model, tmp_path)
    (one,) = of(found, "finite")
    assert one.samples == ("07.npz",)
    assert "NaN or infinity" in one.message
    assert found.curve.samples == COUNT - 1


def test_one_picture_on_another_scale_makes_the_others_no_duplicates(tmp_path: Path) -> None:
    twin = graphs.load_feeds("cnn", 1003, images=1, texts=1, batch=1)["image"]

    def scale(number: int, feeds: dict[str, Array]) -> Mapping[str, Array]:
        match number:
            case 4:
                return {"image": twin + small.normal(0, *twin.shape, spread=1e-3)}
            case 7:
                return {"image": np.clip(feeds["image"] * np.float32(58) + np.float32(110), 0, 255)}
        return feeds

    found = look(graphs.path("cnn"), write(tmp_path, scale, "cnn"))
    (near,) = of(found, "near-duplicate")
    assert near.samples == ("03.npz", "04.npz")
    assert [one.samples for one in of(found, "scale")] == [("07.npz",)]


def test_files_that_are_damaged_alike_are_one_finding(tmp_path: Path) -> None:
    folder = write(tmp_path / "data: new", same)
    for name in ("01.npz", "04.npz", "09.npz"):
        (folder / name).write_bytes(b"")
    (one,) = of(look(graphs.path(MODEL), folder), "unreadable")
    assert one.samples == ("01.npz", "04.npz", "09.npz")
    assert one.message == "no readable .npz file: File is not a zip file"


PICTURES: Mapping[str, Callable[[Array], Array]] = {
    "standardised": lambda x: x,
    "raw": lambda x: np.rint((x + 2.5) * 51),
    "centred": lambda x: (x + 2.5) * 51 - 127,
}


@pytest.mark.parametrize("form", PICTURES)
def test_normalisation_by_the_models_reaction(form: str, tmp_path: Path) -> None:
    """A convolution whose outputs have unit variance on standardised pictures, then ReLU6."""
    model = small.save(
        small.model(
            "g (float[n, 3, 32, 32] image) => (float[n, 16, 30, 30] y) {"
            " c = Conv (image, w, b)\n y = Clip (c, low, high) }",
            w=small.normal(1, 16, 3, 3, 3, spread=0.25),
            b=small.normal(2, 16, spread=0.5),
            low=np.float32(0),
            high=np.float32(6),
        ),
        tmp_path / "relu6.onnx",
    )
    for number in range(COUNT):
        rng_feeds = graphs.feeds(
            [graphs.Input("image", np.dtype(np.float32), (1, 3, 32, 32))], number
        )
        image = PICTURES[form](rng_feeds["image"]).astype(np.float32)
        npz.write(tmp_path / f"{number:02}.npz", {"image": image})
    found = of(look(model, tmp_path), "normalisation")
    if form == "standardised":
        assert found == []
    else:
        (one,) = found
        assert one.severity is Severity.WARNING
        assert "at their upper bound; the same pictures scaled to" in one.message


def test_raw_pixels_where_the_model_cannot_tell(tmp_path: Path) -> None:
    """A Relu has no upper bound: nothing saturates."""

    def raw(_: int, feeds: dict[str, Array]) -> Mapping[str, Array]:
        return {"image": np.rint((feeds["image"] + 2.5) * 51)}

    found = look(graphs.path("cnn"), write(tmp_path, raw, "cnn"))
    (one,) = of(found, "normalisation")
    assert one.severity is Severity.NOTE
    assert "raw pixels" in one.message


def test_pictures_and_texts_without_a_partner(tmp_path: Path) -> None:
    """What the readers refuse is told, sample by sample, and the rest is looked at."""
    data = tmp_path / "data"
    for number in range(9):
        picture = media.picture(media.pixels(40 + number, 50))
        media.write(data / "photos" / f"{number}.png", picture)
        if number != 4:
            media.write(data / "photos" / f"{number}.txt", "a cat on the mat" + " red" * number)
    media.write(data / "photos" / "5.png", b"\x89PNG broken")
    media.write(data / "photos" / "lonely.txt", "a dog")
    media.write(tmp_path / "tokenizer.json", media.tokenizer_bytes())
    media.write(
        tmp_path / "mine.toml", 'extends = "image-text"\n[readers.image]\nsize = [32, 32]\n'
    )
    model = tmp_path / "model.onnx"
    model.write_bytes(graphs.path(MODEL).read_bytes())
    found = look(model, data, str(tmp_path / "mine.toml"))
    (lonely,) = of(found, "unpaired")
    assert set(lonely.samples) == {"photos/4.png", "photos/lonely.txt"}
    (broken,) = of(found, "unreadable")
    assert broken.samples == ("photos/5.png",)
    assert (found.total, found.readable) == (10, 7)
    table = ["image,text", *(f"photos/{n}.png,a cat{' red' * n}" for n in range(4))]
    media.write(data / "pairs.csv", "\n".join([*table, *["photos/no.png,a dog"] * 2]))
    found = look(model, data / "pairs.csv", str(tmp_path / "mine.toml"))
    (absent,) = of(found, "unreadable")
    assert absent.samples == ("pairs.csv:6", "pairs.csv:7")
    assert "no file 'photos/no.png'" in absent.message
    assert found.readable == 4


def test_data_that_is_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no \.npz files"):
        look(graphs.path(MODEL), tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        look(graphs.path(MODEL), tmp_path / "nowhere")
