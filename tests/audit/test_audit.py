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
from edgec.audit.survey import survey
from edgec.binding import Bound
from edgec.build import Job
from edgec.errors import InputError
from edgec.runtime import npz
from edgec.samples import inputs, open_samples

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


def test_the_model_runs_on_the_files_that_a_build_would_read(tmp_path: Path) -> None:
    needs = inputs(small.fixture(MODEL))
    found = survey(write(tmp_path, same), needs, 3, Bound(), tmp_path)
    assert len(found.samples) == COUNT
    assert [path for _, path in found.files] == list(open_samples(tmp_path, needs, 3).files)


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
    assert found.curve.samples == COUNT


def test_the_first_value_that_is_not_finite_and_the_others(tmp_path: Path) -> None:
    """One element of `z` is bad in every sample; `b` is large, and finite."""
    model = small.save(
        small.model(
            "g (float[n, 3, 8, 8] x) => (float[n, 4, 6, 6] y) {"
            " b = Mul (x, big)\n y1 = Conv (b, w)\n z = Sqrt (x)\n y2 = Conv (z, w)\n"
            " a = Log (x)\n y3 = Conv (a, w)\n y = Sum (y1, y2, y3) }",
            big=np.float32(3e37),
            w=small.normal(0, 4, 3, 3, 3, spread=0.01),
        ),
        tmp_path / "root.onnx",
    )
    for number in range(COUNT):
        x = np.abs(small.normal(number, 1, 3, 8, 8)) + np.float32(0.1)
        x[0, 1, 4, 4] *= -1
        npz.write(tmp_path / f"{number:02}.npz", {"x": x})
    found = look(model, tmp_path)
    (one,) = of(found, "finite")
    assert one.message.endswith("12 samples into NaN or infinity, first at 'z' and 5 more")
    assert (found.curve.samples, len(found.curve.points)) == (COUNT, 5)
    assert "too few" not in of(found, "enough")[0].message


@pytest.mark.parametrize("times", [6, 0])  # that something is found
def test_a_sample_in_which_nothing_is_found(times: int, tmp_path: Path) -> None:
    model = small.save(
        small.model(
            "g (float[1, 3, 8, 8] image) => (float[k, 4, 6, 6] y) {"
            " m = ReduceMax <axes = [1, 2, 3], keepdims = 0> (image)\n c = Greater (m, limit)\n"
            " s = Compress <axis = 0> (image, c)\n r = Relu (s)\n y = Conv (r, w) }",
            limit=np.float32(5),
            w=small.normal(0, 4, 3, 3, 3),
        ),
        tmp_path / "detector.onnx",
    )
    for number in range(COUNT):
        image = np.clip(small.normal(number, 1, 3, 8, 8), -3, 3)
        image[0, 0, 0, 0] = 9 if number < times else 3
        npz.write(tmp_path / f"{number:02}.npz", {"image": image})
    found = look(model, tmp_path)
    assert (found.run, found.curve.samples) == (COUNT, COUNT)
    if times:
        assert of(found, "finite") == []
        assert found.curve.values > 0
    else:
        (one,) = of(found, "finite")
        assert one.message == "no sample gave a number for 'r', 'y': nothing is known of the range"
        assert of(found, "enough") == []


def test_samples_that_the_model_does_not_run_on(tmp_path: Path) -> None:
    model = small.save(
        small.model(
            "g (int64[n, 4] ids) => (float[n, 4, 8] y) { e = Gather (t, ids)  y = MatMul (e, w) }",
            t=small.normal(0, 96, 64),
            w=small.normal(1, 64, 8),
        ),
        tmp_path / "table.onnx",
    )
    for number in range(COUNT):
        ids = np.random.default_rng(number).integers(2, 96, (1, 4))
        ids[0, 1] = {3: 5000, 7: -321}.get(number, 1)
        npz.write(tmp_path / f"{number:02}.npz", {"ids": ids})
    found = look(model, tmp_path)
    (one,) = of(found, "run")
    assert one.severity is Severity.WARNING
    assert one.samples == ("03.npz", "07.npz")
    assert one.message.startswith("the float model does not run on it: ")
    assert "idx=5000" in one.message
    assert "leave the sample out" in one.hint
    assert (found.readable, found.run, found.curve.samples) == (COUNT, COUNT - 2, COUNT - 2)


def test_a_convention_that_the_model_does_not_run_on(tmp_path: Path) -> None:
    """The largest number of a picture is looked up in a table, which ends at 1."""
    model = small.save(
        small.model(
            "g (float[n, 3, 8, 8] image) => (float[n, 4, 6, 6] y) {"
            " m = ReduceMax <axes = [1, 2, 3], keepdims = 1> (image)\n f = Mul (m, four)\n"
            " i = Cast <to = 7> (f)\n t = Gather (table, i)\n s = Add (image, t)\n"
            " c = Conv (s, w)\n y = Clip (c, low, high) }",
            four=np.float32(4),
            table=np.zeros(5, np.float32),
            w=small.normal(0, 4, 3, 3, 3),
            low=np.float32(0),
            high=np.float32(6),
        ),
        tmp_path / "table.onnx",
    )
    for number in range(COUNT):
        image = np.random.default_rng(number).uniform(0, 1, (1, 3, 8, 8)).astype(np.float32)
        npz.write(tmp_path / f"{number:02}.npz", {"image": image})
    found = look(model, tmp_path)
    assert found.run == COUNT
    assert {one.severity for one in of(found, "normalisation")} <= {Severity.NOTE}


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
