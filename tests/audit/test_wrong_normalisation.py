"""On the demonstration's real network: right pictures pass, wrongly normalised ones do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgec.audit import audit
from edgec.audit.finding import Finding, Severity
from edgec.build import Job
from edgec.demo import data, model
from edgec.runtime import npz

pytestmark = pytest.mark.network
COUNT = 16


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    model.compose(folder / "emoji.onnx")
    data.write_calibration(folder / "all")
    return folder


def found(place: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> list[Finding]:
    """The findings about 16 pictures, of which `change` gets the pixels, 0 to 255."""
    folder = place / name
    folder.mkdir()
    for path in sorted((place / "all").iterdir())[:: 128 // COUNT]:
        feeds = npz.read(path, path.name)
        image = change(np.rint(feeds["image"] * 128 + 127)).astype(np.float32)
        npz.write(folder / path.name, {**feeds, "image": image})
    job = Job(model=place / "emoji.onnx", target="x86-vnni", data=folder, threads=1)
    return list(audit(job).findings)


def test_right_data(place: Path) -> None:
    """The captions are short for their 64 columns, and that is all."""
    seen = found(place, "right", lambda x: (x - 127) / 128)
    assert {(one.check, one.severity) for one in seen} <= {
        ("padding", Severity.NOTE),
        ("enough", Severity.NOTE),
        ("enough", Severity.WARNING),
    }


@pytest.mark.parametrize(
    ("name", "change", "severity", "words"),
    [
        ("raw", lambda x: x, Severity.WARNING, "at their upper bound"),
        ("centred", lambda x: x - 127, Severity.WARNING, "at their upper bound"),
        ("twice", lambda x: x / 255 / 255, Severity.WARNING, "too weak for this model"),
        ("unit", lambda x: x / 255, Severity.NOTE, "is never negative"),
    ],
)
def test_wrong_data(
    place: Path,
    name: str,
    change: Callable[[np.ndarray], np.ndarray],
    severity: Severity,
    words: str,
) -> None:
    (one,) = [f for f in found(place, name, change) if f.check == "normalisation"]
    assert one.severity is severity
    assert words in one.message
