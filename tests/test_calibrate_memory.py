"""`--max-ram` is kept, or refused with what was used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from calibrations import plain, want, written

from edgec.calibrate import Calibration, Means
from edgec.errors import UnsupportedError
from edgec.rows import Row

NEED = want({"x", "y", "z"}, (), {"x"})


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Samples of 36 MB each."""
    rng = np.random.default_rng(0)
    arrays = [{"x": rng.random((3_000_000, 3), np.float32)} for _ in range(6)]
    return written(tmp_path_factory.mktemp("large"), arrays)


def test_a_limit_for_one_stream_leads_to_one(rows: list[Row], tmp_path: Path) -> None:
    """And the result is what it is with more."""
    one = Calibration(plain(), rows, Means(1), tmp_path / "one")
    three = Calibration(plain(), rows, Means(3), tmp_path / "three")
    one.observe(NEED)
    three.observe(NEED)
    least, most = one.effort.peak_bytes, three.effort.peak_bytes
    assert least > 100e6
    assert most > least + 100e6  # there is something to choose
    limit = (least + most) // 2
    held = Calibration(plain(), rows, Means(3, limit), tmp_path / "held")
    held.observe(NEED)
    assert held.effort.peak_bytes <= limit
    assert held.effort.runs == len(rows)
    names = ("one", "three", "held")
    assert len({(tmp_path / name).read_bytes() for name in names}) == 1


@pytest.mark.parametrize("means", [Means(2, 20_000_000), Means(2, 20_000_000, native=False)])
def test_too_small_a_limit_is_refused(means: Means, rows: list[Row], tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"--max-ram 20 MB does not suffice: .* MB") as error:
        Calibration(plain(), rows, means, tmp_path / "file").observe(NEED)
    assert error.value.exit_code == 4
    assert "allow more" in error.value.hint
    assert not (tmp_path / "file").exists()


def test_a_limit_just_below_the_peak_is_refused(rows: list[Row]) -> None:
    """However short the peak is: the process looks at its own in the end."""
    free = Calibration(plain(), rows[:1], Means())
    free.observe(NEED)
    limit = free.effort.peak_bytes - 20_000_000
    with pytest.raises(UnsupportedError, match="does not suffice"):
        Calibration(plain(), rows[:1], Means(max_ram=limit)).observe(NEED)
