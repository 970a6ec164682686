"""A recipe says how data is read; by name or from a file, on top of others."""

from __future__ import annotations

from pathlib import Path

import media
import pytest

from edgec.data import folder
from edgec.errors import InputError
from edgec.recipe import OPTIONS, load_recipe, names
from edgec.types import Method

TEXT = 'summary = "s"\nmethod = "percentile"\nfiles = 12\n'
IMAGE = TEXT + '[readers.image]\nkind = "image"\n'


def write(place: Path, text: str, name: str = "mine.toml") -> Path:
    return media.write(place / name, text)


def test_the_default() -> None:
    found = load_recipe("tensors")
    assert (found.name, dict(found.readers), found.methods) == ("tensors", {}, tuple(Method))
    assert found.files >= 128


def test_the_recipes_of_edgec() -> None:
    kinds = {name: [r["kind"] for r in load_recipe(name).readers.values()] for name in names()}
    assert kinds == {
        "audio": ["audio"],
        "image-text": ["image", "text"],
        "images": ["image"],
        "tensors": [],
        "text": ["text"],
    }
    for name in names():
        assert load_recipe(name).summary


@pytest.mark.parametrize(
    ("name", "kind"), [("images", "image"), ("text", "text"), ("audio", "audio")]
)
def test_a_recipe_shows_every_option_of_its_kind(name: str, kind: str) -> None:
    text = (folder("calibration") / f"{name}.toml").read_text(encoding="utf-8")
    shown = {line.lstrip("# ").partition(" =")[0] for line in text.splitlines() if " = " in line}
    assert set(OPTIONS[kind]) <= shown


def test_a_file(tmp_path: Path) -> None:
    found = load_recipe(str(write(tmp_path, TEXT)))
    assert (found.name, found.methods, found.files) == ("mine", (Method.PERCENTILE,), 12)


def test_extends_overrides_key_by_key(tmp_path: Path) -> None:
    path = write(tmp_path, 'extends = "images"\nfiles = 7\n[readers.image]\nsize = [8, 9]\n')
    found, base = load_recipe(str(path)), load_recipe("images")
    assert found.readers["image"] == {**base.readers["image"], "size": [8, 9]}
    assert (found.files, found.methods, found.summary) == (7, base.methods, base.summary)


def test_extends_several_and_files_beside(tmp_path: Path) -> None:
    write(tmp_path / "sub", 'extends = "audio"\n[readers.audio]\nn_mels = 5\n', "mine.toml")
    path = write(tmp_path, 'extends = ["images", "sub/mine.toml"]\n[readers.audio]\nfmin = 9\n')
    found = load_recipe(str(path))
    assert list(found.readers) == ["image", "audio"]
    assert (found.readers["audio"]["n_mels"], found.readers["audio"]["fmin"]) == (5, 9)


def test_a_tokenizer_lies_beside_the_recipe_that_names_it(tmp_path: Path) -> None:
    kept = media.write(tmp_path / "sub" / "t.json", "{}")
    write(tmp_path / "sub", 'extends = "text"\n[readers.text]\ntokenizer = "t.json"\n', "base.toml")
    path = write(tmp_path, 'extends = "sub/base.toml"\n[readers.text]\nmax_tokens = 9\n')
    assert load_recipe(str(path)).readers["text"]["tokenizer"] == str(kept)
    assert load_recipe("text").readers["text"]["tokenizer"] == "tokenizer.json"


@pytest.mark.parametrize("name", ["pictures", "nothing.toml"])
def test_an_unknown_recipe_lists_the_choices(name: str) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(name)
    assert caught.value.message == f"unknown recipe {name!r}"
    assert "images, tensors" in caught.value.hint
    assert caught.value.exit_code == 3


def test_an_unknown_base(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown recipe 'pictures'"):
        load_recipe(str(write(tmp_path, 'extends = "pictures"\n')))


def test_circles(tmp_path: Path) -> None:
    path = write(tmp_path, 'extends = "mine.toml"\n')
    with pytest.raises(InputError, match=r"extends mine\.toml, which extends it"):
        load_recipe(str(path))
    for number in range(12):
        write(tmp_path, f'extends = "{number + 1}.toml"\n', f"{number}.toml")
    write(tmp_path, TEXT, "12.toml")
    with pytest.raises(InputError, match="extends"):
        load_recipe(str(tmp_path / "0.toml"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TEXT + "seed = 1\n", "unknown key 'seed'; the keys are summary, method, files, extends"),
        (TEXT.replace("files = 12", ""), "files missing"),
        ("", "summary, method, files missing"),
        (TEXT.replace("percentile", "best"), "'best' is not a valid Method"),
        (TEXT.replace("12", "1"), "files must be a number from 2"),
        (TEXT.replace("12", "'all'"), "files must be a number from 2"),
        (TEXT.replace("12", "true"), "files must be a number from 2"),
        ("summary", "Expected '='"),
        ("extends = 3\n" + TEXT, "extends must be a recipe, or a list of recipes"),
        (TEXT + "readers = 3\n", "readers must be tables"),
        (TEXT + "[readers]\nimage = 3\n", "readers must be tables"),
        (TEXT + "[readers.x]\ninput = 'x'\n", "readers.x.kind must be one of image, text, audio"),
        (TEXT + "[readers.x]\nkind = 'video'\n", "readers.x.kind must be one of image"),
        (TEXT + "[readers.x]\nkind = ['image']\n", "readers.x.kind must be one of image"),
        (TEXT + "[readers.'a b']\nkind = 'image'\n", "'a b' is not allowed here"),
        (IMAGE + "sise = [1, 2]\n", "readers.image.sise: unknown; image has background, color"),
        (IMAGE + "n_fft = 512\n", "readers.image.n_fft: unknown"),
        (IMAGE + "size = 224\n", "readers.image.size: expected array, got 224"),
        (IMAGE + "size = [224]\n", "readers.image.size: 1 items are too few"),
        (IMAGE + "size = [0, 224]\n", "readers.image.size[0]: 0 is out of range"),
        (IMAGE + "size = [1.5, 224]\n", "readers.image.size[0]: expected integer, got 1.5"),
        (IMAGE + "resize = 'cover'\n", "expected one of shortest, exact, pad, got 'cover'"),
        (IMAGE + "crop = 0\n", "readers.image.crop: 0 is out of range"),
        (IMAGE + "crop = 1.5\n", "readers.image.crop: 1.5 is out of range"),
        (IMAGE + "scale = nan\n", "readers.image.scale: nan is out of range"),
        (IMAGE + "mean = [inf]\n", "readers.image.mean[0]: inf is out of range"),
        (IMAGE + "std = [0.0]\n", "readers.image.std[0]: 0.0 is out of range"),
        (IMAGE + "input = 2024-01-01\n", "readers.image.input: expected string"),
        (TEXT + "[readers.a]\nkind = 'audio'\nlength = [1, 2]\n", "readers.a.length: unknown"),
        (TEXT + "[readers.t]\nkind = 'text'\nmax_tokens = 0\n", "max_tokens: 0 is out of range"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(text: str, words: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        load_recipe(str(path))
    assert caught.value.message.startswith(f"{path}: ")
    assert words in caught.value.message


def test_a_base_that_is_broken_is_named(tmp_path: Path) -> None:
    base = write(tmp_path, "summary", "base.toml")
    with pytest.raises(InputError, match="Expected '='") as caught:
        load_recipe(str(write(tmp_path, 'extends = "base.toml"\n')))
    assert str(base) in caught.value.message
    media.write(base, b"\xff\xfe")
    with pytest.raises(InputError, match="decode"):
        load_recipe(str(base))
