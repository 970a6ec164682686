"""Which samples are calibrated on and which verify: they never mix, whatever was seen before."""

from __future__ import annotations

from pathlib import Path

import graphs
import numpy as np
import pytest
import small
from calibrations import filed, want

from edgec import samples as data
from edgec.buckets import parse_wish
from edgec.errors import InputError
from edgec.gather import Gathered, gather
from edgec.rows import rows
from edgec.runtime import npz


def gathered(
    name: str,
    samples: Path,
    folder: Path,
    seen: tuple[str, ...] = (),
    wish: str = "none",
    *,
    everything: bool = False,
) -> Gathered:
    found = small.fixture(name)
    inputs = data.inputs(found)
    folder.mkdir()
    return gather(
        graphs.path(name),
        found,
        data.open_samples(samples, inputs, 100),
        inputs,
        parse_wish(wish),
        seen,
        1,
        folder,
        everything=everything,
    )


def digests(one: Gathered) -> tuple[str, ...]:
    return tuple(row.digest for row in one.rows)


def of(files: tuple[Path, ...]) -> tuple[str, ...]:
    return tuple(row.digest for row in rows(files))


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    return graphs.write_samples("clip_torchscript", tmp_path / "samples", 6)


def test_at_first_every_third_verifies(samples: Path, tmp_path: Path) -> None:
    one = gathered("clip_torchscript", samples, tmp_path / "a")
    assert digests(one) == of(one.samples.calibration)
    assert len(one.rows) == 4
    assert len(one.samples.verification) == 2
    assert one.trimmed is one.samples


def test_everything(samples: Path, tmp_path: Path) -> None:
    one = gathered("clip_torchscript", samples, tmp_path / "a", everything=True)
    assert len(one.rows) == 6
    assert one.samples.verification == ()


def test_what_was_seen_never_verifies(samples: Path, tmp_path: Path) -> None:
    """And what was not is not calibrated on, whatever the usual split says."""
    files = tuple(sorted(samples.iterdir()))
    seen = of(files[1:3])  # the first of them would verify
    one = gathered("clip_torchscript", samples, tmp_path / "a", seen)
    assert digests(one) == seen
    assert one.samples.verification == (files[0], *files[3:])
    assert one.trimmed.verification == one.samples.verification


def test_nothing_is_left_to_verify(samples: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none is left to verify on"):
        gathered("clip_torchscript", samples, tmp_path / "a", of(tuple(samples.iterdir())))


def test_a_file_of_which_one_row_was_seen_does_not_verify(tmp_path: Path) -> None:
    batch = {"batch": 3}
    samples = graphs.write_samples("mlp", tmp_path / "s", 4, **batch)
    whole = gathered("mlp", samples, tmp_path / "a", everything=True)
    assert len(whole.rows) == 12
    one = gathered("mlp", samples, tmp_path / "b", (whole.rows[4].digest,))
    assert digests(one) == (whole.rows[4].digest,)
    assert [path.name for path in one.samples.verification] == [
        f"sample_{number:04}.npz" for number in (0, 2, 3)
    ]


def test_batches_are_taken_apart(tmp_path: Path) -> None:
    """Files of four give the rows that files of one give, in order."""
    many = graphs.write_samples("mlp", tmp_path / "many", 3, batch=4)
    single = tmp_path / "single"
    single.mkdir()
    for index, path in enumerate(sorted(many.iterdir())):
        for place in range(4):
            arrays = {k: a[place : place + 1] for k, a in npz.read(path, "").items()}
            np.savez(single / f"s{index}{place}.npz", **arrays)  # type: ignore[arg-type]
    one = gathered("mlp", many, tmp_path / "a", everything=True)
    other = gathered("mlp", single, tmp_path / "b", everything=True)
    assert len(one.rows) == 12
    assert digests(one) == digests(other)
    found, need = (
        small.fixture("mlp"),
        want(v.name for v in small.fixture("mlp").model.graph.inputs),
    )
    assert filed(found, need, one.rows, tmp_path / "1") == filed(
        found, need, other.rows, tmp_path / "2"
    )


def test_calibration_sees_the_buckets_and_knows_samples_without_them(tmp_path: Path) -> None:
    """INT8 meets the padding of a bucket on the device; what a sample is does not depend on it."""
    samples = graphs.write_samples("clip_torchscript", tmp_path / "s", 6, sequence=24)
    one = gathered("clip_torchscript", samples, tmp_path / "a", wish="8,16,24")
    assert one.proposal.buckets is not None, one.proposal.reason
    for row in one.rows:
        mask = npz.read(row.path, "")["mask"]
        assert mask.shape[1] == min(size for size in (8, 16, 24) if size >= mask.sum())
    plain = gathered("clip_torchscript", samples, tmp_path / "b")
    assert {npz.read(row.path, "")["mask"].shape[1] for row in plain.rows} == {24}
    again = gathered("clip_torchscript", samples, tmp_path / "c", digests(one), "8,24")
    assert digests(again) == digests(one)  # whatever the buckets are
    assert len(again.samples.verification) == 2
