"""The statistics file: what is written comes back, and nothing else is taken for it."""

from __future__ import annotations

import copy
import io
import json
import os
import threading
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import observed
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgec import statistics_file
from edgec.errors import InputError
from edgec.histogram import EMPTY
from edgec.runtime import npz
from edgec.types import Histogram, Statistics, ValueStatistics

NAMES = ["a", "b", "ü/0", "\udcff", "n" * 5000]
LINEAGES = {name: f"{index:064x}" for index, name in enumerate(NAMES)}
SAMPLES = tuple(f"{index:064x}" for index in range(9))


@st.composite
def values(draw: st.DrawFn) -> ValueStatistics:
    """What a calibration on at most nine samples can have seen."""
    one = ValueStatistics()
    if draw(st.booleans()):
        one = replace(one, histogram=EMPTY, nans=draw(st.integers(0, 2**40)))
        if arrays := draw(st.lists(observed.numbers(20), max_size=9)):
            one = replace(observed.seen(*arrays), infinities=draw(st.integers(0, 9)))
    channels, finite = draw(st.integers(0, 4)), st.floats(-3e38, 3e38)
    vector = st.lists(finite, min_size=channels, max_size=channels).map(np.array)
    if channels and draw(st.booleans()):
        times = draw(st.lists(st.integers(0, 9), min_size=channels, max_size=channels))
        one = replace(one, channel_mean=draw(vector), channel_seen=np.array(times, np.int64))
    if channels and draw(st.booleans()):
        one = replace(one, channel_low=draw(vector), channel_high=draw(vector))
    return one


statistics = st.builds(
    Statistics, st.dictionaries(st.sampled_from(NAMES), values()), st.just(SAMPLES)
)


def alike(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, ValueStatistics | Histogram):
        return type(one) is type(other) and all(
            alike(mine, vars(other)[key]) for key, mine in vars(one).items()
        )
    return bool(one == other)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(statistics)
def test_what_is_written_comes_back(tmp_path: Path, known: Statistics) -> None:
    path = tmp_path / "file"
    statistics_file.write(path, known, LINEAGES)
    first = path.read_bytes()
    found = statistics_file.read(path, LINEAGES)
    assert found.samples == known.samples == statistics_file.samples(path)
    assert found.values.keys() == known.values.keys()
    for name, one in known.values.items():
        assert alike(one, found.values[name]), name
    statistics_file.write(path, found, LINEAGES)
    assert path.read_bytes() == first


def usual() -> Statistics:
    rng = np.random.default_rng(0)
    one = observed.seen(*(rng.normal(0, 2, 50).astype(np.float32) for _ in range(3)))
    channels = {"channel_mean": np.ones(3), "channel_seen": np.array([3, 3, 0])}
    other = observed.seen(np.full(4, 7, np.float32))
    ends = {"channel_low": -np.ones(2), "channel_high": np.ones(2)}
    return Statistics(
        {"a": replace(one, **channels), "b": replace(other, **ends)},  # type: ignore[arg-type]
        SAMPLES[:3],
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    statistics_file.write(path, usual(), LINEAGES)
    return path


def test_values_go_by_lineage(file: Path) -> None:
    renamed = {"new": LINEAGES["a"], "b": "f" * 64, "twin": LINEAGES["a"]}
    found = statistics_file.read(file, renamed)
    assert set(found.values) == {"new", "twin"}
    assert alike(found.values["new"], usual().values["a"])
    both = statistics_file.read(file, {"a": LINEAGES["a"], "twin": LINEAGES["a"]})
    assert set(both.values) == {"a"}  # it knows its own name


def test_no_file_has_seen_nothing(tmp_path: Path) -> None:
    assert statistics_file.samples(tmp_path / "none") == ()


# what is refused


def rewritten(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> None:
    """The file with another header or other arrays, sound as an archive."""
    arrays = npz.read(path, "file")
    header = json.loads(arrays["header"].tobytes())
    text = change(header, arrays)
    if not isinstance(text, bytes):
        text = json.dumps(header).encode()
    arrays["header"] = np.frombuffer(text, np.uint8)
    npz.write(path, arrays)


def put(place: str, value: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    """Replace what is at a dotted place of the header."""

    def change(header: Any, _arrays: dict[str, Any]) -> None:
        *way, last = (int(key) if key.isdigit() else key for key in place.split("."))
        for key in way:
            header = header[key]
        header[last] = value

    return change


def array(name: str, value: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def change(_header: Any, arrays: dict[str, Any]) -> None:
        arrays[name] = value(arrays[name])

    return change


REFUSED = {
    "newer": (put("version", 2), "version 2 of the statistics file is not known"),
    "version list": (put("version", [1] * 999), "is not known here"),
    "format": (put("format", "another"), "header.format"),
    "sample": (put("samples.0", "x"), "is not allowed here"),
    "nan": (put("values.0.range.0", float("nan")), "its header is no JSON"),
    "infinity": (put("values.0.range.1", float("inf")), "its header is no JSON"),
    "1e999": (
        lambda header, _: json.dumps(header).replace('"seen": 3', '"seen": 1e999').encode(),
        "expected integer",
    ),
    "range 1e999": (
        lambda h, _: (
            json.dumps({**h, "values": [{**h["values"][0], "range": [0, 7]}]})
            .replace("[0, 7]", "[0, 1e999]")
            .encode()
        ),
        "out of range",
    ),
    "huge integer": (put("values.0.range.1", 10**400), "out of range"),
    "digits": (lambda h, _: b"1" * 5000, "its header is no JSON"),
    "deep": (lambda h, _: b"[" * 100_000, "its header is no JSON"),
    "no text": (lambda h, _: b"\xff\xfe", "its header is no JSON"),
    "no object": (lambda h, _: b"[]", "expected object"),
    "unknown key": (put("values.0.more", 1), "not known in this schema"),
    "exponent": (put("values.0.histogram.exponent", 118), "out of range"),
    "fewer bins": (put("values.1.histogram.bins", 0), "there is a range, and no histogram"),
    "more bins": (put("values.1.histogram.bins", 2), "its arrays do not fit its header"),
    "many channels": (put("values.0.mean_channels", 1 << 24), "do not fit its header"),
    "no channels": (put("values.0.mean_channels", 0), "do not fit its header"),
    "moved": (put("values.0.histogram.first", 0), "not sound|does not fit its range"),
    "past the end": (put("values.1.histogram.first", 2047), "does not fit its range"),
    "range": (put("values.1.range", [7.0, 8.0]), "does not fit its range"),
    "backwards": (put("values.0.range", [9.0, -9.0]), "does not fit the samples"),
    "average": (put("values.1.mean_range", [6.0, 7.0]), "does not lie in its range"),
    "never seen": (put("values.0.seen", 0), "does not fit the samples"),
    "seen too often": (put("values.0.seen", 4), "does not fit the samples"),
    "negative": (put("values.0.nans", -1), "out of range"),
    "counts cut": (array("counts", lambda a: a[:-1]), "do not fit its header"),
    "counts longer": (array("counts", lambda a: np.append(a, a[:1])), "do not fit its header"),
    "counts huge": (
        array("counts", lambda a: np.full(len(a), 2**63, np.uint64)),
        "no calibration gives",
    ),
    "counts zero": (array("counts", np.zeros_like), "its histogram is not sound"),
    "counts signed": (array("counts", lambda a: a.astype(np.int64)), "it holds other arrays"),
    "counts flat": (array("counts", lambda a: a[None]), "another rank than 1"),
    "channels nan": (array("channels", lambda a: a * np.nan), "no calibration gives"),
    "channels huge": (array("channels", lambda a: a * 1e300), "no calibration gives"),
    "channels seen": (array("channels", lambda a: a * 4), "in more samples than there are"),
    "another array": (lambda h, a: a.update(more=np.zeros(1)), "it holds other arrays"),
    "one array less": (lambda h, a: {}.get(len(a.pop("channels"))), "it holds other arrays"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.filterwarnings("error")
def test_it_is_refused(what: str, file: Path) -> None:
    change, words = REFUSED[what]
    statistics_file.read(file, LINEAGES)
    rewritten(file, change)
    with pytest.raises(InputError, match=words) as caught:
        statistics_file.read(file, LINEAGES)
    assert str(file) in caught.value.message
    assert "calibrate again" in caught.value.hint
    assert len(caught.value.message) < 1000


def test_pickles_are_refused(file: Path) -> None:
    arrays = npz.read(file, "file")
    np.savez(file, **{**arrays, "counts": np.array([{}], object)})
    file.with_name("file.npz").rename(file)
    with pytest.raises(InputError, match="unpickling runs code"):
        statistics_file.read(file, LINEAGES)


def test_a_zip_bomb_is_refused(file: Path) -> None:
    array = io.BytesIO()
    np.save(array, np.zeros(1 << 24, np.uint8))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.npy", array.getvalue())
    with pytest.raises(InputError, match="compressed arrays are not allowed"):
        statistics_file.samples(file)


@pytest.mark.parametrize("what", ["folder", "pipe", "endless", "large", "empty"])
def test_what_is_no_file(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "endless":
        path.symlink_to("/dev/zero")
    elif what == "large":
        monkeypatch.setattr(statistics_file, "MOST_BYTES", 1000)
        path.write_bytes(bytes(1001))
    else:
        path.touch()
    done = []

    def look() -> None:
        with pytest.raises(InputError):
            statistics_file.read(path, LINEAGES)
        done.append(True)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(20)
    assert done, "it did not end, or in another error"


@settings(
    deadline=None,
    max_examples=250,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
@pytest.mark.filterwarnings("error")
def test_damage_is_an_input_error_or_none(file: Path, data: st.DataObject) -> None:
    """Bytes changed, cut out, put in or cut off: refused, or nothing of it is in the content."""
    statistics_file.write(file, usual(), LINEAGES)
    whole = bytearray(file.read_bytes())
    # an archive keeps its own tables at its end: half of all damage is done there
    early = st.integers(0, len(whole) - 1)
    for place in data.draw(
        st.lists(early | st.integers(len(whole) - 300, len(whole) - 1), max_size=4)
    ):
        how = data.draw(st.sampled_from(["change", "cut", "more", "end"]))
        if how == "change":
            whole[place : place + 1] = bytes([data.draw(st.integers(0, 255))])
        elif how == "cut":
            del whole[place : place + data.draw(st.integers(1, 40))]
        elif how == "more":
            whole[place:place] = data.draw(st.binary(min_size=1, max_size=9))
        elif place:
            del whole[place:]
        if not whole:
            break
    file.write_bytes(whole)
    try:
        found = statistics_file.read(file, LINEAGES)
    except InputError:
        return
    assert found.samples == usual().samples
    for name, one in usual().values.items():
        assert alike(one, found.values[name])


JUNK = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
JUNK |= st.sampled_from([[], {}, 2**70, -1, 1e308, "0" * 64, [0.0, 0.0], 0, 1])


@settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
@pytest.mark.filterwarnings("error")
def test_a_header_of_junk_is_an_input_error_or_sound(file: Path, data: st.DataObject) -> None:
    """Any JSON value at any place: refused, or statistics that can be written again."""

    def change(header: Any, _arrays: Any) -> None:
        for _ in range(data.draw(st.integers(1, 3))):
            here: Any = header
            key: Any = data.draw(st.sampled_from(sorted(header)))
            while isinstance(here[key], dict | list) and here[key] and data.draw(st.booleans()):
                here = here[key]
                keys = sorted(here) if isinstance(here, dict) else range(len(here))
                key = data.draw(st.sampled_from(keys))
            here[key] = copy.deepcopy(data.draw(JUNK))

    statistics_file.write(file, usual(), LINEAGES)
    rewritten(file, change)
    try:
        found = statistics_file.read(file, LINEAGES)
    except InputError:
        return
    statistics_file.write(file, found, LINEAGES)
    assert statistics_file.read(file, LINEAGES).samples == found.samples
