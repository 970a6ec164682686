"""Data is checked before it is used; every refusal names the file and the input."""

from __future__ import annotations

import io
import itertools
import shutil
from pathlib import Path

import graphs
import media
import numpy as np
import pytest
import small
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec import samples
from edgec.binding import Bound, bind
from edgec.canonicalise import canonicalise
from edgec.errors import InputError, InternalError
from edgec.recipe import load_recipe
from edgec.rows import spread
from edgec.types import Range

NEEDS = samples.inputs(small.fixture("clip_torchscript"))
GOOD = graphs.load_feeds("clip_torchscript", 3, images=1, texts=1)


def write(folder: Path, name: str = "bad.npz", **changed: np.ndarray | None) -> Path:
    """A good sample file with some arrays changed, added or (None) left out."""
    arrays = {k: v for k, v in {**GOOD, **changed}.items() if v is not None}
    path = folder / name
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def test_inputs() -> None:
    assert [(n.name, str(n.dtype)) for n in NEEDS] == [
        ("image", "float32"),
        ("ids", "int64"),
        ("mask", "int64"),
    ]
    assert NEEDS[0].shape == ("images", 3, "height", "width")


def test_initialisers_are_no_inputs() -> None:
    made = small.model(
        "g (float[2] x, float[2] w) => (float[2] y) { y = Add (x, w) }", w=np.ones(2)
    )
    assert [one.name for one in samples.inputs(small.graph(made))] == ["x"]


def test_a_good_file(tmp_path: Path) -> None:
    found = samples.read(write(tmp_path), NEEDS)
    assert list(found) == ["image", "ids", "mask"]
    for name, array in GOOD.items():
        np.testing.assert_array_equal(found[name], array)


INFINITE = np.where(np.arange(GOOD["image"].size) == 7, np.inf, 0).reshape(GOOD["image"].shape)


@pytest.mark.parametrize(
    ("changed", "name", "message", "hint"),
    [
        ({"mask": None}, "mask", "input 'mask' is missing", "the file holds ids, image"),
        (
            {"mask": None, "maks": GOOD["mask"]},
            "mask",
            "input 'mask' is missing",
            "the file holds ids, image, maks",
        ),
        (
            {"labels": np.zeros(1)},
            "labels",
            "'labels' is not an input of the model",
            "the inputs are image, ids, mask",
        ),
        (
            {"image": GOOD["image"].astype(np.float64)},
            "image",
            "input 'image' is float64, the model wants float32",
            "convert it with .astype('float32')",
        ),
        (
            {"ids": GOOD["ids"].astype(np.int32)},
            "ids",
            "input 'ids' is int32, the model wants int64",
            ".astype('int64')",
        ),
        (
            {"image": GOOD["image"][0]},
            "image",
            "has shape 3x32x32, the model wants imagesx3xheightxwidth",
            "a sample has the batch dimension too",
        ),
        (
            {"image": GOOD["image"].transpose(0, 2, 3, 1)},
            "image",
            "has shape 1x32x32x3, the model wants imagesx3xheightxwidth",
            "batch dimension",
        ),
        ({"image": GOOD["image"][:0]}, "image", "has shape 0x3x32x32", "batch dimension"),
        ({"ids": GOOD["ids"][0, 0]}, "ids", "has shape", "batch dimension"),
        (
            {"mask": GOOD["mask"][:, :-1]},
            "mask",
            "has sequence = 11, another input has 12",
            "dimensions of one name must agree",
        ),
        (
            {"image": np.full_like(GOOD["image"], np.nan)},
            "image",
            "holds NaN or infinity",
            "leave the file out",
        ),
        ({"image": INFINITE.astype(np.float32)}, "image", "holds NaN or infinity", "repair it"),
    ],
)
def test_a_bad_array(
    changed: dict[str, np.ndarray | None], name: str, message: str, hint: str, tmp_path: Path
) -> None:
    path = write(tmp_path, **changed)
    with pytest.raises(InputError) as caught:
        samples.read(path, NEEDS)
    assert caught.value.message.startswith(f"{path}: ")
    assert repr(name) in caught.value.message
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == 3


def test_a_size_outside_of_its_range(tmp_path: Path) -> None:
    ranges = {"ids": (Range(1, 1), Range(1, 8))}
    found = canonicalise(small.graph(small.fixture("clip_torchscript").model), ranges)
    path = write(tmp_path)
    with pytest.raises(InputError) as caught:
        samples.read(path, samples.inputs(found))
    assert caught.value.message == (
        f"{path}: input 'ids' has 12 in dimension 1, --shape allows 1 to 8"
    )


def test_a_pickled_array(tmp_path: Path) -> None:
    path = write(tmp_path, image=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError) as caught:
        samples.read(path, NEEDS)
    assert caught.value.message.startswith(f"{path}: image: a pickled (object) array is refused")
    assert "numpy.savez" in caught.value.hint


def _bytes() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **GOOD)  # type: ignore[arg-type]
    return stream.getvalue()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file(share: float, tmp_path: Path) -> None:
    data = _bytes()
    path = tmp_path / "short.npz"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match=r"short\.npz: no readable \.npz file"):
        samples.read(path, NEEDS)


@settings(max_examples=80, deadline=None)
@given(flips=st.lists(st.integers(0, 8 * len(_bytes()) - 1), min_size=1, max_size=5))
def test_damaged_bytes(flips: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    data = bytearray(_bytes())
    for bit in flips:
        data[bit // 8] ^= 1 << bit % 8
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    path.write_bytes(data)
    try:
        samples.read(path, NEEDS)
    except InputError as error:
        found = error
    else:
        return
    assert "damaged.npz" in found.message


@settings(max_examples=80, deadline=None)
@given(data=st.binary(max_size=300))
def test_any_bytes(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.npz"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"any\.npz"):
        samples.read(path, NEEDS)


def test_a_header_that_promises_too_much(tmp_path: Path) -> None:
    import zipfile

    path = tmp_path / "huge.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in GOOD.items():
            stream = io.BytesIO()
            shape = (1 << 20, 3, 1 << 10, 1 << 10) if name == "image" else array.shape
            header = {"descr": array.dtype.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, header)
            archive.writestr(f"{name}.npy", stream.getvalue() + array.tobytes())
    with pytest.raises(InputError, match=r"huge\.npz"):
        samples.read(path, NEEDS)


# folders


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such folder"):
        samples.open_samples(tmp_path / "nowhere", NEEDS, 100)
    path = write(tmp_path)
    with pytest.raises(InputError, match=r"bad\.npz: no such folder"):
        samples.open_samples(path, NEEDS, 100)


def test_an_empty_folder_says_what_to_write(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing")
    with pytest.raises(InputError, match=r"holds no \.npz files") as caught:
        samples.open_samples(tmp_path, NEEDS, 100)
    for need in NEEDS:
        assert f"{need.name} {need.dtype}" in caught.value.hint


def test_a_single_file_cannot_do_both(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(InputError, match="one sample cannot both calibrate and verify") as caught:
        samples.open_samples(tmp_path, NEEDS, 100)
    assert "at least two files" in caught.value.hint


def test_the_bad_file_of_many_is_named(tmp_path: Path) -> None:
    graphs.write_samples("clip_torchscript", tmp_path, 5)
    write(tmp_path, "sample_0003.npz", image=None)
    with pytest.raises(InputError, match=r"sample_0003\.npz: input 'image' is missing"):
        samples.open_samples(tmp_path, NEEDS, 100)


@pytest.mark.parametrize("count", [2, 3, 4, 7, 12])
def test_the_split(count: int, tmp_path: Path) -> None:
    graphs.write_samples("clip_torchscript", tmp_path, count)
    found = samples.open_samples(tmp_path, NEEDS, 100)
    calibration, verification = set(found.calibration), set(found.verification)
    assert calibration
    assert verification
    assert not calibration & verification
    assert calibration | verification == set(tmp_path.iterdir())
    assert found.files == tuple(sorted(tmp_path.iterdir()))
    assert found.origin == f"{count} files"
    assert abs(len(verification) - count / 3) <= 1


def test_the_split_and_fingerprint_do_not_depend_on_the_folder(tmp_path: Path) -> None:
    one = graphs.write_samples("clip_torchscript", tmp_path / "one", 6)
    (tmp_path / "two").mkdir()
    for path in sorted(one.iterdir(), reverse=True):
        shutil.copy(path, tmp_path / "two")
    (tmp_path / "two" / "notes.txt").write_text("not a sample")
    first = samples.open_samples(one, NEEDS, 100)
    second = samples.open_samples(tmp_path / "two", NEEDS, 100)
    assert first.fingerprint == second.fingerprint
    assert [p.name for p in first.calibration] == [p.name for p in second.calibration]
    assert [p.name for p in first.verification] == [p.name for p in second.verification]


def test_the_fingerprint_changes_with_the_data(tmp_path: Path) -> None:
    graphs.write_samples("clip_torchscript", tmp_path, 3)
    before = samples.open_samples(tmp_path, NEEDS, 100).fingerprint
    path = tmp_path / "sample_0001.npz"
    arrays = dict(np.load(path))
    arrays["image"] = arrays["image"].copy()
    arrays["image"].flat[0] += 1
    np.savez(path, **arrays)
    changed = samples.open_samples(tmp_path, NEEDS, 100).fingerprint
    assert changed != before
    path.rename(tmp_path / "sample_0009.npz")
    assert samples.open_samples(tmp_path, NEEDS, 100).fingerprint != changed


@pytest.mark.parametrize(("count", "most"), [(10, 3), (3, 10), (7, 7), (1000, 192), (0, 5), (1, 5)])
def test_spread(count: int, most: int) -> None:
    chosen = spread(range(count), most)
    assert len(chosen) == min(count, most)
    assert chosen == sorted(set(chosen))
    if chosen:
        steps = {b - a for a, b in itertools.pairwise(chosen)}
        assert max(steps, default=1) - min(steps, default=1) <= 1
        assert count - chosen[-1] <= count // len(chosen) + 1


def test_of_many_files_some_are_read_from_all_over(tmp_path: Path) -> None:
    graphs.write_samples("clip_torchscript", tmp_path, 6)
    assert samples.open_samples(tmp_path, NEEDS, 6).origin == "6 files"
    for left_out in ("sample_0001.npz", "sample_0003.npz", "sample_0005.npz"):
        (tmp_path / left_out).write_bytes(b"")
    found = samples.open_samples(tmp_path, NEEDS, 3)
    assert [path.stem for path in found.files] == ["sample_0000", "sample_0002", "sample_0004"]
    assert found.origin == "3 of 6 files"


# samples that a recipe prepares

MINE = 'extends = "image-text"\n[readers.image]\nsize = [32, 32]\n'


@pytest.fixture
def recipe(tmp_path: Path) -> Bound:
    media.write(tmp_path / "recipe" / "tokenizer.json", media.tokenizer_bytes())
    path = media.write(tmp_path / "recipe" / "mine.toml", MINE)
    return bind(load_recipe(str(path)), NEEDS, [path.parent])


def pairs(folder: Path, count: int, pictures: int = 99, text: str = "a cat") -> Path:
    """A table of captions, of which several may be of one picture."""
    lines = ["image,text"]
    for number in range(count):
        name = f"{number % pictures}.png"
        media.write(folder / name, media.picture(media.pixels(33, 34 + number % pictures)))
        lines.append(f"{name},{text}{' red' * number}")
    return media.write(folder / "pairs.csv", "\n".join(lines))


def test_prepared_samples_are_the_readers_arrays(recipe: Bound, tmp_path: Path) -> None:
    data = pairs(tmp_path / "data", 5)
    found = samples.open_samples(data, NEEDS, 100, recipe, tmp_path / "into")
    assert found.recipe is recipe
    assert found.origin == "5 samples"
    assert [path.name for path in found.files] == [f"pairs.csv:{n}" for n in range(2, 7)]
    assert (len(found.calibration), len(found.verification)) == (3, 2)
    readers = recipe.open()
    for number, feeds in enumerate(samples.stream(found.files, NEEDS)):
        item = data.parent / f"{number}.png"
        wanted = readers.prepare({"image": item, "text": "a cat" + " red" * number})
        assert set(feeds) == set(wanted)
        for name, array in wanted.items():
            np.testing.assert_array_equal(feeds[name], array, strict=True)
    lengths = [feeds["ids"].shape[1] for feeds in samples.stream(found.files, NEEDS)]
    assert lengths == [4, 5, 6, 7, 8]


def test_a_folder_of_pairs(recipe: Bound, tmp_path: Path) -> None:
    for number in range(4):
        media.write(tmp_path / "data" / f"{number}.png", media.picture(media.pixels(40, 40)))
        media.write(tmp_path / "data" / f"{number}.txt", "a dog")
    found = samples.open_samples(tmp_path / "data", NEEDS, 3, recipe, tmp_path / "into")
    assert found.origin == "3 of 4 samples"
    assert [path.name for path in found.files] == ["0.png", "1.png", "2.png"]


def test_captions_of_one_picture_are_on_one_side_of_the_split(
    recipe: Bound, tmp_path: Path
) -> None:
    data = pairs(tmp_path / "data", 12, pictures=4)
    found = samples.open_samples(data, NEEDS, 100, recipe, tmp_path / "into")
    numbers = [int(path.name.split(":")[1]) - 2 for path in found.verification]
    assert {number % 4 for number in numbers} == {1}
    assert len(numbers) == 3
    one = pairs(tmp_path / "one", 6, pictures=1)
    found = samples.open_samples(one, NEEDS, 100, recipe, tmp_path / "alike")
    assert (len(found.calibration), len(found.verification)) == (4, 2)


def test_the_fingerprint_covers_data_and_recipe(recipe: Bound, tmp_path: Path) -> None:
    def fingerprint(data: Path, chosen: Bound, into: str) -> str:
        return samples.open_samples(data, NEEDS, 100, chosen, tmp_path / into).fingerprint

    data = pairs(tmp_path / "data", 3)
    first = fingerprint(data, recipe, "1")
    assert fingerprint(data, recipe, "2") == first
    assert fingerprint(pairs(tmp_path / "more", 3, text="a dog"), recipe, "3") != first
    path = media.write(tmp_path / "recipe" / "mine.toml", MINE + "crop = 0.99\n")
    # another crop that cuts these pictures alike is another recipe still
    other = bind(load_recipe(str(path)), NEEDS, [path.parent])
    assert fingerprint(data, other, "4") != first
    arrays = graphs.write_samples("clip_torchscript", tmp_path / "arrays", 3)
    assert fingerprint(arrays, recipe, "5") != fingerprint(arrays, other, "6")
    plain = samples.open_samples(arrays, NEEDS, 100)
    assert plain.fingerprint == fingerprint(arrays, Bound(), "7")


def test_npz_files_are_taken_as_they_are_with_any_recipe(recipe: Bound, tmp_path: Path) -> None:
    folder = graphs.write_samples("clip_torchscript", tmp_path / "arrays", 3)
    found = samples.open_samples(folder, NEEDS, 100, recipe, tmp_path / "into")
    assert found.files == tuple(sorted(folder.iterdir()))
    assert found.recipe is recipe
    assert not (tmp_path / "into").exists()


def test_nothing_that_the_recipe_reads(recipe: Bound, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    media.write(tmp_path / "data" / "movie.mp4", "")
    with pytest.raises(InputError, match="holds nothing that recipe mine reads") as caught:
        samples.open_samples(tmp_path / "data", NEEDS, 100, recipe, tmp_path / "into")
    assert "image: .png .jpg .jpeg .webp .bmp; text: .txt" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("1.png", b"\x89PNG junk"), "{data}, line 3, column 'image': 1.png: n"),
        (("pairs.csv", b"image,text\n0.png,x\n1.png,\n"), "{data}, line 3, column 'text': the te"),
        (("pairs.csv", b"image,text\n0.png,x\n"), "{data}, line 2: one sample cannot both"),
    ],
)
def test_a_bad_sample_is_named_by_its_line(
    change: tuple[str, bytes], message: str, recipe: Bound, tmp_path: Path
) -> None:
    data = pairs(tmp_path / "data", 3)
    media.write(data.parent / change[0], change[1])
    with pytest.raises(InputError) as caught:
        samples.open_samples(data, NEEDS, 100, recipe, tmp_path / "into")
    assert caught.value.message.startswith(message.format(data=data))


def test_a_prepared_sample_outside_of_its_range_is_named(tmp_path: Path) -> None:
    found = canonicalise(
        small.graph(small.fixture("clip_torchscript").model),
        {"image": tuple(map(Range, (2, 3, 32, 32), (4, 3, 32, 32)))},
    )
    needs = samples.inputs(found)
    media.write(tmp_path / "recipe" / "tokenizer.json", media.tokenizer_bytes())
    bound = bind(load_recipe("image-text"), needs, [tmp_path / "recipe"])
    with pytest.raises(InputError, match="input 'image' has 1 in dimension 0") as caught:
        samples.open_samples(pairs(tmp_path / "d", 3), needs, 9, bound, tmp_path / "into")
    assert "pairs.csv, line 2" in caught.value.message


def test_a_recipe_needs_a_place(recipe: Bound, tmp_path: Path) -> None:
    with pytest.raises(InternalError):
        samples.open_samples(pairs(tmp_path / "data", 3), NEEDS, 9, recipe)


# made-up samples


@pytest.mark.parametrize("name", ["clip_torchscript", "clip_dynamo", "lstm", "siamese", "mlp"])
def test_made_up_samples_fit_the_model(name: str, tmp_path: Path) -> None:
    found = small.fixture(name)
    made = samples.synthetic(found, tmp_path)
    assert made.calibration == ()
    assert made.fingerprint == "synthetic"
    needs = samples.inputs(found)
    for path in made.verification:
        outputs = small.run(found.model, samples.read(path, needs))
        assert all(np.isfinite(array).all() for array in outputs.values())
    again = samples.synthetic(found, tmp_path)
    for one, other in zip(made.verification, again.verification, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_made_up_samples_keep_to_the_ranges(tmp_path: Path) -> None:
    ranges = {
        "ids": (Range(1, 1), Range(4, 9)),
        "image": tuple(map(Range, (1, 3, 32, 32), (1, 3, 48, 32))),
    }
    found = canonicalise(small.graph(small.fixture("clip_torchscript").model), ranges)
    made = samples.synthetic(found, tmp_path)
    feeds = samples.read(made.verification[0], samples.inputs(found))
    assert feeds["ids"].shape == (1, 9)
    assert feeds["image"].shape == (1, 3, 48, 32)
