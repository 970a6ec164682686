"""Results of a bundle in arrays of the caller's, whatever the backend and the cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bundles
import numpy as np
import pytest

from edgec.errors import InputError
from edgec.runtime import load
from edgec.runtime.onnxruntime_session import OnnxRuntimeSession


def empty(results: dict[str, Any]) -> dict[str, Any]:
    return {name: np.full_like(array, -7) for name, array in results.items()}


@pytest.mark.parametrize("able", [True, False])
@pytest.mark.parametrize("count", [1, 2])
def test_results_lie_where_the_caller_wants_them(
    tmp_path: Path, count: int, able: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`able`: whether the backend can write there itself."""
    if not able:
        monkeypatch.delattr(OnnxRuntimeSession, "run_into")
    with load(bundles.write(tmp_path / "m.edgec", count)) as model:
        feeds = bundles.feeds(3)
        expected = model.run(feeds)
        for names in (["score"], ["image_vector"], ["score", "image_vector"]):
            out = {name: array for name, array in empty(expected).items() if name in names}
            got = model.run(feeds, out)
            assert all(got[name] is array for name, array in out.items())
            for name, array in expected.items():
                np.testing.assert_array_equal(got[name], array, strict=True)
        model.run(bundles.feeds(4), empty(expected))
        for name, array in expected.items():  # the others were new
            np.testing.assert_array_equal(got[name], array, strict=True)


@pytest.mark.parametrize("able", [True, False])
def test_arrays_that_cannot_take_their_output(
    tmp_path: Path, able: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not able:
        monkeypatch.delattr(OnnxRuntimeSession, "run_into")
    with load(bundles.write(tmp_path / "m.edgec")) as model:
        feeds = bundles.feeds()
        good = model.run(feeds)
        wrong = {
            "unknown output ghost": {"ghost": good["score"].copy()},
            "output 'score'.*float64": {"score": good["score"].astype(np.float64)},
            "output 'score'.*C-contiguous": {"score": np.zeros((5, 2), np.float32).T},
            "may share memory with input 'image'": {"score": feeds["image"].reshape(-1)[:10]},
        }
        for message, out in wrong.items():
            with pytest.raises(InputError, match=message):
                model.run(feeds, out)
        with pytest.raises(InputError):
            model.run(feeds, {"score": np.zeros((3, 5), np.float32)})
        for name, array in model.run(feeds).items():
            np.testing.assert_array_equal(array, good[name])
