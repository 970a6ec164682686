"""Labels in every form, and those that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.errors import InputError
from edgec.metrics.labels import Wants, read

FILES = [Path("a/s1.npz"), Path("a/s2.npz"), Path("a/s3.npz")]
ONE_EACH = [1, 1, 1]


def write(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plain.txt", "3\n1\n2\n"),
        ("plain.txt", "3\r\n1.0\r\n\r\n2\r\n"),
        ("plain.csv", "3\n1\n2\n"),
        ("plain.jsonl", '{"label": 3}\n{"label": 1.0}\n\n{"label": 2}\n'),
        ("named.txt", "s3.npz,2\ns1.npz,3\ns2.npz,1\n"),
        ("named.csv", "s3.npz,2\ns1.npz,3\ns2.npz,1\n"),
        ("headed.csv", "\ufefffile,class\ns2.npz, 1\ns1.npz,3\ns3.npz,2\n"),
        ("named.tsv", "File\tclass\ns2.npz\t1\ns1.npz\t3\ns3.npz\t2\n"),
        ("folders.csv", "test/s2.npz,1\ntest\\s1.npz,3\ns3.npz,2\n"),
        ("stems.csv", "s2.png,1\ns1.png,3\ns3,2\n"),
        ("more.csv", "s2.npz,1\ns1.npz,3\ns3.npz,2\nother.npz,9\n"),
        (
            "n.jsonl",
            '{"file": "s3", "label": 2}\n{"file": "s1", "label": 3, "by": "me"}\n'
            '{"file": "s2", "label": true}\n',
        ),
    ],
)
def test_classes(name: str, text: str, tmp_path: Path) -> None:
    found = read(write(tmp_path, name, text), Wants.CLASSES, FILES).spread(ONE_EACH)
    assert found.values == [3, 1, 2]
    assert all(isinstance(value, int) for value in found.values)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plain.txt", "a, b\n\n s1.npz,c\n"),
        ("named.csv", 's2.npz,\n"s3.npz"," s1.npz,c"\ns1.npz,"a, b"\n'),
        ("named.tsv", "s2.npz\t\ns3.npz\t s1.npz,c\ns1.npz\ta, b\n"),
        (
            "n.jsonl",
            '{"file": "s1", "text": "a, b"}\n{"file": "s3", "text": " s1.npz,c"}\n'
            '{"file": "s2", "label": ""}\n',
        ),
    ],
)
def test_texts(name: str, text: str, tmp_path: Path) -> None:
    found = read(write(tmp_path, name, text), Wants.TEXTS, FILES).spread(ONE_EACH)
    assert found.values == ["a, b", "", " s1.npz,c"]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("n.txt", "3\n1\n2.5\n", [3, 1, 2.5]),
        ("n.csv", "s1,3\ns2,1\ns3,2.5\n", [3, 1, 2.5]),
        ("t.csv", "s1,3\ns2,cat\ns3,2.5\n", ["3", "cat", "2.5"]),
        ("t.txt", "3\na, b\n2.5\n", ["3", "a, b", "2.5"]),
        ("t.txt", 'a "\n"b\nc\n', ['a "', '"b', "c"]),
    ],
)
def test_labels_of_ones_own_metric(
    name: str, text: str, expected: list[object], tmp_path: Path
) -> None:
    found = read(write(tmp_path, name, text), Wants.ANY, FILES).spread(ONE_EACH)
    assert found.values == expected


def test_arrays(tmp_path: Path) -> None:
    path = tmp_path / "labels.npy"
    np.save(path, np.array([3, 1, 2.5]))
    assert read(path, Wants.NUMBERS, FILES).spread(ONE_EACH).values == [3, 1, 2.5]
    with pytest.raises(InputError, match=r"labels\.npy, row 2: 2\.5 is not a whole number"):
        read(path, Wants.CLASSES, FILES)
    np.save(path, np.array(["a", "b", "c"]))
    assert read(path, Wants.TEXTS, FILES).spread(ONE_EACH).values == ["a", "b", "c"]


def test_files_with_several_samples(tmp_path: Path) -> None:
    path = write(tmp_path, "labels.txt", "1\n2\n3\n4\n5\n6\n")
    assert read(path, Wants.CLASSES, FILES).spread([2, 1, 3]).values == [1, 2, 3, 4, 5, 6]
    with pytest.raises(InputError, match=r"labels\.txt: 6 labels for 3 samples") as caught:
        read(path, Wants.CLASSES, FILES).spread(ONE_EACH)
    assert "one label a sample" in caught.value.hint
    path = write(tmp_path, "labels.csv", "s2,1\ns1,5\ns1,6\ns3,7\n")
    assert read(path, Wants.CLASSES, FILES).spread([2, 1, 1]).values == [5, 6, 1, 7]
    with pytest.raises(InputError, match=r"line 3: 2 labels for s1\.npz, which holds 1 sample"):
        read(path, Wants.CLASSES, FILES).spread(ONE_EACH)


@pytest.mark.parametrize(
    ("name", "text", "message", "hint"),
    [
        ("l.csv", "1\ncat\n2\n", r"line 2: 'cat' is not a whole number from 0", "file,label"),
        ("l.csv", "1\n-1\n2\n", r"line 2: '-1' is not a whole number", "file,label"),
        ("l.csv", "1\n1.5\n2\n", r"line 2: '1\.5' is not a whole number", "file,label"),
        ("l.csv", "1\nnan\n2\n", r"line 2: 'nan' is not a whole number", "file,label"),
        ("l.csv", "s1,1\ns2,inf\ns3,2\n", r"line 2: 'inf' is not a whole number", "file,label"),
        ("l.csv", "s1,1\ns2,2\n", r"l\.csv: no label for s3\.npz", "file,label"),
        ("l.csv", "s1,1\ns2,2\ns33,2\n", r"no label for s3.npz; .*line 3: 's33' is no sample", ""),
        ("l.csv", "s1,1\n2\ns3,3\n", r"line 2: names no file, others do", "file,label"),
        ("l.csv", "s1,1,2\n", r"line 1: 3 columns", "quotes"),
        ("l.csv", 's1,"1\ns2,2\n', r"l\.csv, line \d: ", "quote"),
        ("l.csv", "s1.a,1\ns1.b,2\ns2,1\ns3,1\n", r"line 2: 's1.a' and 's1.b' may both", "as they"),
        ("l.jsonl", '{"file": "s1"}\n', r"line 1: no object with a label", '"label"'),
        ("l.jsonl", '{"file": 3, "label": 1}\n', r"line 1: no object with a label", '"label"'),
        ("l.json", "[1, 2, 3]", r"l\.json: JSON as a whole is COCO's", ".jsonl"),
        ("l.jsonl", "3\n", r"line 1: no object with a label", '"label"'),
        ("l.jsonl", '{"label": 1}\n{"label": \n', r"line 2: not JSON", '"label"'),
        ("l.jsonl", '{"label": NaN}\n', r"line 1: nan is not a whole number", ""),
        ("l.jsonl", '{"label": [1]}\n', r"line 1: \[1\] is not a whole number", ""),
        ("l.jsonl", '{"label": 1' + "0" * 400 + "}\n", r"line 1: 10+ is not a whole number", ""),
        ("l.jsonl", "[" * 100_000, r"line 1: not JSON", ""),
    ],
)
def test_labels_that_do_not_fit(
    name: str, text: str, message: str, hint: str, tmp_path: Path
) -> None:
    path = write(tmp_path, name, text)
    with pytest.raises(InputError, match=message) as caught:
        read(path, Wants.CLASSES, FILES)
    assert caught.value.message.startswith(str(path))
    assert hint in caught.value.hint


def test_no_labels_at_all(tmp_path: Path) -> None:
    path = write(tmp_path, "labels.csv", "")
    with pytest.raises(InputError, match="0 labels for 3 samples"):
        read(path, Wants.CLASSES, FILES).spread(ONE_EACH)


def test_samples_of_one_name_need_labels_in_order(tmp_path: Path) -> None:
    twice = [Path("a/s1.npz"), Path("b/s1.npz")]
    path = write(tmp_path, "labels.csv", "s1,1\ns1,2\n")
    with pytest.raises(InputError, match=r"two samples are called s1\.npz"):
        read(path, Wants.CLASSES, twice)
    path = write(tmp_path, "labels.csv", "1\n2\n")
    assert read(path, Wants.CLASSES, twice).spread([1, 1]).values == [1, 2]


def test_a_name_without_ending_means_one_sample(tmp_path: Path) -> None:
    files = [Path("s1.png"), Path("s1.jpg")]
    path = write(tmp_path, "labels.csv", "s1.jpg,1\n")
    with pytest.raises(InputError, match=r"no label for s1\.png"):
        read(path, Wants.CLASSES, files)
    path = write(tmp_path, "labels.csv", "s1.jpg,1\ns1.png,2\n")
    assert read(path, Wants.CLASSES, files).spread([1, 1]).values == [2, 1]


def test_files_that_are_no_labels(tmp_path: Path) -> None:
    def refused(path: Path, message: str, wants: Wants = Wants.CLASSES) -> None:
        with pytest.raises(InputError, match=message) as caught:
            read(path, wants, FILES)
        assert str(path) in caught.value.message
        assert caught.value.hint

    refused(tmp_path / "nothing.txt", "cannot be read")
    refused(tmp_path / "nothing.npy", "not readable as labels")
    refused(tmp_path, "not a file")
    (tmp_path / "latin.txt").write_bytes(b"1\n\xe9\n")
    refused(tmp_path / "latin.txt", "not UTF-8 at byte 2")
    path = tmp_path / "bad.npy"
    np.save(path, np.array([{}, {}, {}], dtype=object), allow_pickle=True)
    refused(path, "not readable as labels")
    path.write_bytes(b"")
    refused(path, "not readable as labels")
    np.save(path, np.zeros((3, 2)))
    refused(path, r"float64\[3, 2\] is not one label a sample")
    np.save(path, np.zeros(3, np.complex64))
    refused(path, "complex64")
    np.save(path, np.array(["a", "b", "c"]))
    refused(path, "'a' is not a whole number")
    np.save(path, np.array([1, 2, 3]))
    refused(path, "1 is not a text", Wants.TEXTS)
    np.savez(tmp_path / "zip.npz", a=np.zeros(3))
    (tmp_path / "zip.npz").rename(path)
    refused(path, "a zip is not one label a sample")
    head = np.lib.format.magic(1, 0)
    promise = b"{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999999,), }"
    path.write_bytes(head + len(promise).to_bytes(2, "little") + promise)
    refused(path, "not readable as labels")


@settings(max_examples=200)
@given(st.binary(max_size=60), st.sampled_from(["l.txt", "l.csv", "l.tsv", "l.jsonl", "l.npy"]))
def test_no_bytes_break_the_reader(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str
) -> None:
    path = tmp_path_factory.mktemp("bytes") / name
    path.write_bytes(data)
    for wants in Wants:
        try:
            values = read(path, wants, FILES).spread(ONE_EACH).values
        except InputError:
            continue
        assert len(values) == 3
