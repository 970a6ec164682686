"""Folders, lists, CSV and JSONL become rows; what is wrong is named with file, line and column."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import media
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.errors import InputError
from edgec.sources import rows

IMAGE = {"kind": "image", "column": "image"}
TEXT = {"kind": "text", "column": "text"}
AUDIO = {"kind": "audio", "column": "audio"}
STATE = {"kind": "numbers", "column": "state"}
PAIR = {"image": IMAGE, "text": TEXT}


def refused(data: Path, readers: Any, *words: str) -> InputError:
    with pytest.raises(InputError) as caught:
        rows(data, readers)
    for word in words:
        assert word in caught.value.message
    assert caught.value.hint
    return caught.value


def table(folder: Path, text: str, name: str = "pairs.csv") -> Path:
    for picture in ("a.png", "sub/b.png"):
        media.write(folder / picture, "x")
    return media.write(folder / name, text)


# Folders


def test_a_folder_of_pictures_in_order_with_subfolders(tmp_path: Path) -> None:
    for name in (
        "b/2.JPEG",
        "a.png",
        "b/1.png",
        "z.webp",
        "b.bmp",
        "notes.txt",
        ".x.png",
        ".d/y.png",
    ):
        media.write(tmp_path / name, "x")
    found = rows(tmp_path, {"image": IMAGE})
    names = ["a.png", "b.bmp", "b/1.png", "b/2.JPEG", "z.webp"]
    assert [row.items["image"] for row in found] == [tmp_path / name for name in names]
    assert [row.name for row in found] == ["a.png", "b.bmp", "1.png", "2.JPEG", "z.webp"]
    assert [row.where for row in found] == [str(tmp_path / name) for name in names]
    assert len({row.group for row in found}) == 5


def test_a_folder_of_texts(tmp_path: Path) -> None:
    media.write(tmp_path / "a.txt", b"\xef\xbb\xbfa cat\r\non a mat\r\n")
    media.write(tmp_path / "b.txt", " kept \n\n")
    assert [row.items["text"] for row in rows(tmp_path, {"text": TEXT})] == [
        "a cat\non a mat",
        " kept ",
    ]


def test_files_of_one_name_go_together(tmp_path: Path) -> None:
    for name in ("x/cat", "dog", "x/ant.v2"):
        media.write(tmp_path / f"{name}.png", "")
        media.write(tmp_path / f"{name}.txt", f"a {name}")
    found = rows(tmp_path, PAIR)
    assert [row.name for row in found] == ["dog.png", "ant.v2.png", "cat.png"]
    assert [row.items["text"] for row in found] == ["a dog", "a x/ant.v2", "a x/cat"]
    assert found[0].labels == {
        k: str(tmp_path / f"dog.{e}") for k, e in [("image", "png"), ("text", "txt")]
    }


def test_one_reader_takes_files_of_one_name_as_two_samples(tmp_path: Path) -> None:
    for name in ("cat.png", "cat.jpg"):
        media.write(tmp_path / name, "")
    assert len(rows(tmp_path, {"image": IMAGE})) == 2
    media.write(tmp_path / "cat.txt", "a cat")
    refused(tmp_path, PAIR, "cat.png: cat.jpg has the same name")


def test_a_file_without_its_partner(tmp_path: Path) -> None:
    media.write(tmp_path / "cat.png", "")
    error = refused(tmp_path, PAIR, str(tmp_path / "cat.png"), "no file cat.txt", "reader 'text'")
    assert "of the same name" in error.hint


def test_a_folder_cannot_tell_two_pictures_apart(tmp_path: Path) -> None:
    media.write(tmp_path / "cat.png", "")
    two = {"left": IMAGE, "right": IMAGE}
    error = refused(tmp_path, two, "which file is for which of left (image), right (image)")
    assert ".csv or .jsonl" in error.hint
    refused(tmp_path, {"image": IMAGE, "state": STATE}, "state (numbers)")


def test_folders_of_npz_files_and_empty_ones_have_no_rows(tmp_path: Path) -> None:
    two = {"left": IMAGE, "right": IMAGE}
    assert rows(tmp_path, {"image": IMAGE}) == rows(tmp_path, two) == []
    media.write(tmp_path / "a.npz", "")
    assert rows(tmp_path, {"image": IMAGE}) == rows(tmp_path, two) == []


def test_constants_need_no_file(tmp_path: Path) -> None:
    media.write(tmp_path / "cat.png", "")
    readers = {"image": IMAGE, "state": {**STATE, "value": 0}}
    assert [list(row.items) for row in rows(tmp_path, readers)] == [["image"]]


def test_texts_that_are_not_utf8(tmp_path: Path) -> None:
    path = media.write(tmp_path / "a.txt", b"caf\xe9")
    refused(tmp_path, {"text": TEXT}, f"{path}: not UTF-8 at byte 3")


# Lists of texts


def test_a_text_a_line(tmp_path: Path) -> None:
    path = media.write(tmp_path / "texts.txt", "a cat\r\n\n  \na\u2028dog\n")
    found = rows(path, {"caption": TEXT})
    assert [row.items for row in found] == [{"caption": "a cat"}, {"caption": "a\u2028dog"}]
    assert [row.name for row in found] == ["texts.txt:1", "texts.txt:4"]
    assert found[1].labels == {"caption": f"{path}, line 4"}
    refused(path, PAIR, "lines of text, but the recipe reads image, text")


# CSV


def test_a_table(tmp_path: Path) -> None:
    path = table(
        tmp_path, 'id,image,text\n1,a.png,a cat\n\n2,sub/b.png,"a dog, ""big""\non it"\n3,a.png,x'
    )
    found = rows(path, PAIR)
    assert [row.items["image"] for row in found] == [
        tmp_path / name for name in ("a.png", "sub/b.png", "a.png")
    ]
    assert [row.items["text"] for row in found] == ["a cat", 'a dog, "big"\non it', "x"]
    assert [row.name for row in found] == ["pairs.csv:2", "pairs.csv:4", "pairs.csv:6"]
    assert found[1].labels["image"] == f"{path}, line 4, column 'image': sub/b.png"
    assert found[0].group == found[2].group != found[1].group


def test_tabs_columns_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = table(tmp_path, "\ufefffile\tcaption\na.png\ta cat, red\n", "pairs.tsv")
    readers = {"image": {**IMAGE, "column": "file"}, "text": {**TEXT, "column": "caption"}}
    assert rows(path, readers)[0].items == {"image": tmp_path / "a.png", "text": "a cat, red"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,text\na.png,a,b\n", ", line 2: 3 columns, the first line has 2"),
        ("image,text\na.png,x\n\na.png\n", ", line 4: 1 columns"),
        ('image,text\na.png,"a\nb"\na.png\n', ", line 4: 1 columns"),
        ('image,text\na.png,"open\n', ", line 2: unexpected end of data"),
        ('image,text\na.png,"a" b\n', ", line 2: "),
        ("image,image\na.png,x\n", ": two columns are called 'image'"),
        ("file,text\na.png,x\n", ", line 2, column 'image': missing; there are 'file', 'text'"),
        ("image,text\nno.png,x\n", ", line 2, column 'image': no file 'no.png'"),
        ("image,text\n,x\n", ", line 2, column 'image': '' is no path inside"),
        ("image,text\n\0,x\n", ", line 2"),
        (f"image,text\n{'a' * 5000},x\n", ", line 2, column 'image': no file"),
        (f"image,text\na.png,{'a' * 200_000}\n", ", line 2: field larger"),
        (b"image,text\n\xff,x\n", ": not UTF-8 at byte 11"),
    ],
)
def test_what_is_wrong_in_a_table(text: Any, words: str, tmp_path: Path) -> None:
    path = table(tmp_path, text)
    assert words in refused(path, PAIR).message
    assert refused(path, PAIR).message.startswith(str(path))


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/hostname", "sub/../../secret.png", "link.png", "links/x.png"]
)
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_no_file_outside_of_the_table_s_folder(name: str, form: str, tmp_path: Path) -> None:
    media.write(tmp_path / "secret.png", "x")
    media.write(tmp_path / "other" / "x.png", "x")
    folder = tmp_path / "data"
    table(folder, "")
    os.symlink(tmp_path / "secret.png", folder / "link.png")
    os.symlink(tmp_path / "other", folder / "links")
    text = f"image\n{name}\n" if form == "csv" else f'{{"image": "{name}"}}'
    path = media.write(folder / f"t.{form}", text)
    error = refused(path, {"image": IMAGE}, f"column 'image': {name!r} is no path inside {folder}")
    assert "below the table's folder" in error.hint


def test_a_link_that_stays_inside_is_fine(tmp_path: Path) -> None:
    path = table(tmp_path, "image\nlink.png\n")
    os.symlink(tmp_path / "a.png", tmp_path / "link.png")
    assert rows(path, {"image": IMAGE})[0].items["image"] == tmp_path / "a.png"


# JSONL


def test_json_lines(tmp_path: Path) -> None:
    text = '{"image": "a.png", "text": "a\\ncat", "state": [1, 2], "more": null}\n\n'
    text += '{"image": "sub/b.png", "text": "b", "state": 3}\n'
    path = table(tmp_path, text, "pairs.jsonl")
    found = rows(path, {**PAIR, "state": STATE})
    assert [row.items["state"] for row in found] == [[1, 2], 3]
    assert found[0].items["text"] == "a\ncat"
    assert [row.name for row in found] == ["pairs.jsonl:1", "pairs.jsonl:3"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"image": "a.png"', ", line 1: not JSON"),
        ('\n{"image": "a.png"}}', ", line 2: not JSON"),
        ("[1]", ", line 1: not an object"),
        ("[" * 100_000, ", line 1: not JSON"),
        ('{"image": 3, "text": "x"}', ", line 1, column 'image': not a text"),
        ('{"image": "a.png", "text": ["x"]}', ", line 1, column 'text': not a text"),
        ('{"image": "a.png"}', ", line 1, column 'text': missing; there are 'image'"),
        ("{}", ", line 1, column 'image': missing; there are none"),
        ('{"image": "\\ud800.png", "text": "x"}', ", line 1, column 'image': no file"),
    ],
)
def test_what_is_wrong_in_json_lines(text: str, words: str, tmp_path: Path) -> None:
    assert words in refused(table(tmp_path, text, "pairs.jsonl"), PAIR).message


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=200), form=st.sampled_from(["csv", "tsv", "jsonl", "txt"]))
def test_any_bytes(data: bytes, form: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / f"any.{form}"
    path.write_bytes(data)
    try:
        found = rows(path, {"text": TEXT})
    except InputError as error:
        told = error.message
    else:
        assert all(isinstance(row.items["text"], str) for row in found)
        return
    assert told.startswith(str(path))


def test_other_data(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", PAIR, "nowhere: no such file or folder")
    path = media.write(tmp_path / "data.parquet", "")
    assert ".csv" in refused(path, PAIR, "data.parquet: not a form of data").hint
    os.mkfifo(tmp_path / "pipe.csv")
    refused(tmp_path / "pipe.csv", PAIR, "no such file")
