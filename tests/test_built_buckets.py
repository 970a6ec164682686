"""A build with buckets, from samples to a bundle that runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import encoders
import numpy as np
import pytest
import small

from edgec.build import Job, build
from edgec.errors import InputError
from edgec.recheck import recheck
from edgec.runtime import load
from edgec.runtime.buckets import as_json, parse
from edgec.types import Limits

LENGTHS = [5, 7, 6, 12, 14, 7, 5, 16, 6]
BOTH = f"(float[n, {encoders.WIDTH}] pooled, float[n, t, {encoders.WIDTH}] hidden)"


def job(tmp_path: Path, made: Any, **wish: str) -> Job:
    return Job(
        model=small.save(made, tmp_path / "text.onnx"),
        data=encoders.write_captions(tmp_path / "samples", LENGTHS),
        output=tmp_path / "text.edgec",
        backend="onnxruntime",
        measure=False,
        limits=Limits(None, None),
        threads=1,
        force=True,
        **wish,
    )


def test_a_bundle_with_buckets(tmp_path: Path) -> None:
    one = job(tmp_path, encoders.encoder(outputs=BOTH))
    report = build(one)
    assert any(note.startswith("buckets: mask keeps 5 to 12 of 24 t") for note in report.notes)
    (hidden,) = [check for check in report.checks.outputs if check.value == "hidden"]
    assert hidden.cosine > 0.99  # padding does not count, in either model
    with load(report.bundle) as model:
        found = parse(model.bundle.manifest)
        assert found is not None
        assert as_json(found)["sizes"] == [8, 16]
        assert model.golden_inputs()["ids"].shape == (1, 24)
        assert model.self_test().passed
        outputs = []
        for columns in (5, 8, 24, 60):
            feeds = {k: v[:, :columns] for k, v in encoders.captions([5], 60).items()}
            outputs.append(model.run(feeds))
    for one_more in outputs:
        np.testing.assert_array_equal(one_more["pooled"], outputs[0]["pooled"])
    again = recheck(report.bundle, one.model, tmp_path / "samples", [], None, 1)
    assert all(check.cosine > 0.99 for check in again.outputs)


def test_a_model_that_ignores_its_mask_is_built_without_and_says_so(tmp_path: Path) -> None:
    report = build(job(tmp_path, encoders.encoder(encoders.BLIND)))
    assert any("the model does not honour its mask" in note for note in report.notes)
    with load(report.bundle) as model:
        assert parse(model.bundle.manifest) is None


def test_wishes(tmp_path: Path) -> None:
    with load(build(job(tmp_path, encoders.encoder(), buckets="20,24")).bundle) as model:
        found = parse(model.bundle.manifest)
        assert found is not None
        assert found.sizes == (20, 24)
    with pytest.raises(InputError, match="--buckets: the model does not honour its mask"):
        build(job(tmp_path, encoders.encoder(encoders.BLIND), buckets="exact"))
