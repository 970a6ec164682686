"""The compiled histogram counts as numpy does, and whatever fails of it leads to numpy."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import numpy as np
import pytest
from calibrations import NATIVE, plain, want, written

from edgec import native
from edgec.calibrate import Calibration
from edgec.errors import ToolchainError
from edgec.histogram import count, merge
from edgec.native import histogram_library
from edgec.rows import Row

NEED = want({"x", "y"}, {"x"})


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    return written(tmp_path / "s", [{"x": np.eye(3, dtype="f4") * k} for k in (1, 2)])


@pytest.mark.parametrize("compiler", ["cc", "cc -U__AVX512F__"])
def test_numbers_at_every_edge(
    compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bin edges, subnormals, both zeros, the largest numbers, blocks that are full and not."""
    monkeypatch.setenv("CC", compiler)
    rng = np.random.default_rng(1)
    edge = np.float32(2.0) ** np.arange(-149, 128, dtype=np.float32)
    edges = np.concatenate([edge, -edge, np.nextafter(edge, np.float32(0)), [0.0, -0.0]])
    largest = np.finfo(np.float32).max
    sizes = [1, 3, 4095, 4096, 4097, 70_000]
    arrays = [
        edges,
        np.array([largest, -largest, 1.0]),
        *(rng.normal(0, 10.0 ** (5 - k), size) for k, size in enumerate(sizes)),
        np.repeat([1.0, 1.0, 5.0], 5000),
        rng.normal(0, 1, 10_000) * (rng.random(10_000) < 0.1),
        np.where(rng.random(9000) < 0.3, np.nan, rng.normal(0, 1, 9000)),
    ]
    samples = [np.resize(a, (-(-a.size // 3), 3)).astype(np.float32) for a in arrays]
    work = Calibration(plain(), written(tmp_path, [{"x": x} for x in samples]), NATIVE)
    found = work.observe(want({"x"})).values["x"].histogram
    expected = count(np.zeros(0, np.float32))
    for x in samples:
        expected = merge(expected, count(x[np.isfinite(x)]))
    assert work.effort.counter == "native code"
    assert found is not None
    assert (found.exponent, found.first) == (expected.exponent, expected.first)
    np.testing.assert_array_equal(found.counts, expected.counts)


def script(path: Path, text: str) -> str:
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


# CC, and what the user is told
BROKEN = {
    "false": ("false", "false cannot compile histogram.c: no message"),
    "true": ("true", "true cannot compile histogram.c"),
    "no such compiler": ("no-such-compiler", r"there is no C compiler \(no-such-compiler\)"),
    "open quote": ("cc '", "CC is no command: No closing quotation"),
    "bad flag": ("cc --no-such-flag", "cannot compile histogram.c: .*no-such-flag"),
    "another machine": ("", "the compiled histogram.c does not load"),
    "empty library": ("cc -Dedgec_slots=another", "does not load: .*edgec_slots"),
    "no executable": ("", "there is no C compiler|does not run"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_without_a_compiler_numpy_counts_and_says_so(
    how: str, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, words = BROKEN[how]
    if how == "another machine":  # what a cross compiler makes cannot be loaded here
        other = 'while [ "$1" != -o ]; do shift; done; echo no library > "$2"'
        command = script(tmp_path / "other-cc", other)
    elif how == "no executable":
        (tmp_path / "text").write_text("nothing to run")
        (tmp_path / "text").chmod(0o755)
        command = str(tmp_path / "text")
    expected = Calibration(plain(), rows, NATIVE, tmp_path / "native")
    expected.observe(NEED)
    assert expected.effort.counter == "native code"
    monkeypatch.setenv("CC", command)
    work = Calibration(plain(), rows, NATIVE, tmp_path / "numpy")
    work.observe(NEED)
    assert work.effort.counter.startswith("numpy (")
    assert re.search(words, work.effort.counter), work.effort.counter
    assert (tmp_path / "numpy").read_bytes() == (tmp_path / "native").read_bytes()


def test_a_compiler_that_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "TIME_LIMIT", 0.2)
    monkeypatch.setenv("CC", script(tmp_path / "slow", "exec sleep 60"))
    with pytest.raises(ToolchainError, match="timed out"):
        histogram_library(tmp_path)


def test_the_library_lies_where_it_is_asked_for(tmp_path: Path) -> None:
    library = histogram_library(tmp_path)
    assert library.parent == tmp_path
    assert os.listdir(tmp_path) == [library.name]
