"""The cache is what TensorRT reads: the very version in its head, the very bits of every scale."""

from __future__ import annotations

import math
import struct
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from observed import NEVER, seen

from edgec.backends.tensorrt.calibration_cache import GRID, dump, number, parse, scales
from edgec.calibrators import limits
from edgec.errors import InputError, InternalError, UnsupportedError
from edgec.masked import DEPTH
from edgec.quantize.static import affine
from edgec.types import Method, Statistics, ValueStatistics

SMALLEST = float(np.finfo(np.float32).smallest_subnormal)


def test_the_text_to_the_last_bit() -> None:
    found = {"input": 1 / 127, "a:0": 1.0, "after the gate": 0.1}
    assert dump(found, "8.6.1") == (
        "TRT-8601-EntropyCalibration2\ninput: 3c010204\na:0: 3f800000\nafter the gate: 3dcccccd\n"
    )
    for scale in found.values():
        assert f": {struct.pack('>f', scale).hex()}\n" in dump({"x": scale}, "8.6.1")


def test_without_values_there_is_a_head() -> None:
    assert dump({}, "10.3.0") == "TRT-100300-EntropyCalibration2\n"
    assert parse(dump({}, "10.3.0")) == (100300, {})


@pytest.mark.parametrize(
    ("version", "head"),
    [
        ("8.2.3", 8203),
        ("8.2.3.0", 8203),
        ("8.6.2", 8602),
        ("8.6.1.6", 8601),
        ("9.3.0", 9300),
        ("10.0.1", 100001),
        ("10.3.0", 100300),
        ("10.13.2", 101302),
    ],
)
def test_versions(version: str, head: int) -> None:
    assert number(version) == head
    assert dump({"x": 1.0}, version).startswith(f"TRT-{head}-EntropyCalibration2\n")


@pytest.mark.parametrize("version", ["11.0.0", "11.2.0.5", "7.2.3", "12.0.0"])
def test_versions_that_read_no_such_cache(version: str) -> None:
    with pytest.raises(UnsupportedError, match=f"TensorRT {version} reads no") as caught:
        dump({"x": 1.0}, version)
    assert "Q/DQ" in caught.value.hint


@pytest.mark.parametrize(
    "version",
    ["", "8", "8.6", "8.6.x", "v8.6.1", "8.6.1-rc1", "8.6.1\n", " 8.6.1", "8..1", "-8.6.1"],
)
def test_nonsense_is_no_version(version: str) -> None:
    with pytest.raises(InputError, match="is no version of TensorRT") as caught:
        number(version)
    assert "10.3.0" in caught.value.hint


NAMES = st.text(min_size=1, max_size=30).filter(lambda name: not {"\n", "\r"} & set(name))
SCALES = st.floats(SMALLEST, float(np.finfo(np.float32).max), width=32)


@given(st.dictionaries(NAMES, SCALES, max_size=20), st.sampled_from(["8.6.2", "10.3.0"]))
def test_every_scale_comes_back(found: dict[str, float], version: str) -> None:
    text = dump(found, version)
    assert len(text.split("\n")) == len(found) + 2
    assert parse(text) == (number(version), found)
    assert list(parse(text)[1]) == list(found)


@given(st.floats(1e-30, 1e30))
def test_a_scale_is_rounded_once(scale: float) -> None:
    (found,) = parse(dump({"x": scale}, "8.6.2"))[1].values()
    assert found == np.float32(scale)


@pytest.mark.parametrize(
    "name", ["a: b", "a: 3f800000", ": ", "x:0", " x ", "/a/b.1", "\u2028", "é"]
)
def test_names(name: str) -> None:
    assert parse(dump({name: 0.5, "y": 0.25}, "8.6.2"))[1] == {name: 0.5, "y": 0.25}


@pytest.mark.parametrize("name", ["", "a\nb", "a\r", "\n"])
def test_names_that_a_line_cannot_hold(name: str) -> None:
    with pytest.raises(InputError, match="cannot hold the name"):
        dump({name: 1.0}, "8.6.2")


@pytest.mark.parametrize(
    "scale",
    [0.0, -0.0, -1.0, math.nan, math.inf, -math.inf, 1e39, 1e300, SMALLEST / 4, 1e-60],
)
def test_a_scale_that_ruins_an_engine_is_refused_by_name(scale: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match="tensor 'bad: one'") as caught:
            dump({"fine": 1.0, "bad: one": scale}, "8.6.2")
    assert "calibrate" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "x: 3f800000\n",
        "TRT-8602-EntropyCalibration\nx: 3f800000\n",
        "TRT-8602-MinMaxCalibration\nx: 3f800000\n",
        "TRT--EntropyCalibration2\n",
        "TRT-8.6.2-EntropyCalibration2\n",
        "\ufeffTRT-8602-EntropyCalibration2\n",
        "\x00\x01\xff",
    ],
)
def test_what_does_not_begin_a_cache(text: str) -> None:
    with pytest.raises(InputError, match="does not begin a calibration cache") as caught:
        parse(text)
    assert "edgec calibrate" in caught.value.hint


@pytest.mark.parametrize(
    "line",
    [
        "x",
        "x:3f800000",
        "x: 3f8000",
        "x: 3f8000000",
        "x: 3f80000g",
        ": 3f800000",
        "x: 3F800000",
        "",
    ],
)
def test_a_damaged_line_is_named_by_its_number(line: str) -> None:
    head, *rest = dump({"a": 1.0, "b": 2.0}, "8.6.2").splitlines()
    text = "\n".join([head, rest[0], line, rest[1]]) + "\n"
    with pytest.raises(InputError, match="line 3 of the cache"):
        parse(text)


@given(st.data())
def test_a_cache_that_was_cut_off_is_refused_or_loses_whole_lines(data: st.DataObject) -> None:
    found = {f"value_{i}": float(i + 1) for i in range(4)}
    text = dump(found, "8.6.2")
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    try:
        _, left = parse(cut)
    except InputError:
        return
    assert left.items() <= found.items()
    assert cut.removesuffix("\n") in [text[:i] for i, c in enumerate(text) if c == "\n"]


# From statistics


def statistics(**values: ValueStatistics) -> Statistics:
    return Statistics(values, ("one",))


def test_min_max_is_the_largest_magnitude_over_127() -> None:
    found = scales(
        statistics(
            b=seen(np.array([-3.0, 1.0])),
            a=seen(np.array([0.5, 2.54])),
            c=seen(np.array([-1e-3, 0])),
        ),
        Method.MINMAX,
    )
    expected = {
        n: np.float32(np.float32(v) / 127.0) for n, v in (("a", 2.54), ("b", 3), ("c", 1e-3))
    }
    assert list(found) == ["a", "b", "c"]
    assert found == {name: pytest.approx(float(v), rel=1e-7) for name, v in expected.items()}


@pytest.mark.parametrize("method", list(Method))
def test_scales_are_those_of_q_dq(method: Method) -> None:
    known = statistics(x=seen(np.random.default_rng(0).standard_t(3, 20_000)))
    expected = affine(*limits(known, "x", method, GRID), GRID)
    assert expected.zero_point == 0
    assert scales(known, method) == {"x": float(expected.scale)}
    assert parse(dump(scales(known, method), "8.6.2"))[1]["x"] == expected.scale


def test_what_has_no_histogram_has_no_line() -> None:
    known = statistics(x=seen(np.ones(4)), means=ValueStatistics(channel_mean=np.ones(3)))
    assert list(scales(known, Method.ENTROPY)) == ["x"]


@pytest.mark.parametrize("method", list(Method))
def test_what_was_always_zero_has_a_harmless_scale_and_what_was_no_number_none(
    method: Method,
) -> None:
    known = statistics(zero=seen(np.zeros(4)), tiny=seen(np.full(4, 1e-39)), never=NEVER)
    assert scales(known, method) == {"tiny": 1.0, "zero": 1.0}
    text = "TRT-8602-EntropyCalibration2\ntiny: 3f800000\nzero: 3f800000\n"
    assert dump(scales(known, method), "8.6.2") == text


def test_masked_scores_have_the_scale_of_the_scores() -> None:
    scores = np.linspace(-4, 6, 100)
    known = statistics(s=seen(scores), m=seen(np.append(scores, -1e4)))
    plain = scales(known, Method.MINMAX)
    assert plain["m"] == pytest.approx(1e4 / 127, rel=1e-6)
    found = scales(known, Method.MINMAX, {"m": "s"})
    assert found["m"] == pytest.approx((4 + DEPTH) / 127, rel=1e-6)
    assert found["s"] == plain["s"]


def test_scores_that_were_not_observed_are_our_mistake() -> None:
    with pytest.raises(InternalError, match="'s'"):
        scales(statistics(m=seen(np.ones(3))), Method.MINMAX, {"m": "s"})
