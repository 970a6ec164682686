"""A recipe says how data is read; by name or from a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgec.errors import InputError
from edgec.recipe import load_recipe, names
from edgec.types import Method

TEXT = 'summary = "s"\nreader = "npz"\nmethod = "percentile"\nfiles = 12\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_default() -> None:
    assert "tensors" in names()
    found = load_recipe("tensors")
    assert (found.name, found.reader, found.method) == ("tensors", "npz", Method.MINMAX)
    assert found.files >= 128


def test_a_file(tmp_path: Path) -> None:
    found = load_recipe(str(write(tmp_path, TEXT)))
    assert (found.name, found.method, found.files) == ("mine", Method.PERCENTILE, 12)


@pytest.mark.parametrize("name", ["pictures", "nothing.toml"])
def test_an_unknown_recipe_lists_the_choices(name: str) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(name)
    assert caught.value.message == f"unknown recipe {name!r}"
    assert "tensors" in caught.value.hint
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TEXT + "seed = 1\n", "the keys must be files, method, reader, summary"),
        (TEXT.replace("files = 12", ""), "the keys must be files, method, reader, summary"),
        (TEXT.replace("npz", "jpeg"), "there is no reader 'jpeg', only 'npz'"),
        (TEXT.replace("percentile", "best"), "'best' is not a valid Method"),
        (TEXT.replace("12", "1"), "files must be a number from 2"),
        (TEXT.replace("12", "'all'"), "files must be a number from 2"),
        (TEXT.replace("12", "true"), "files must be a number from 2"),
        ("summary", "Expected '='"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(text: str, words: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        load_recipe(str(path))
    assert caught.value.message.startswith(f"{path}: ")
    assert words in caught.value.message
