"""A calibration that is killed goes on where it was, and ends with the same bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import calibrations
import graphs
import numpy as np
import pytest
import small
from calibrations import NUMPY, filed, of_fixture, plain, want, written

from edgec import statistics_file
from edgec.calibrate import Calibration, Means
from edgec.lineage import lineages

NAME, SAMPLES, SECONDS = "cnn", 400, 60.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures that take some milliseconds each, so that there is a time between checkpoints."""
    size = {"height": 256, "width": 256}
    return graphs.write_samples(NAME, tmp_path_factory.mktemp("data"), SAMPLES, **size)


def command(data: Path, output: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "edgec", "calibrate", str(graphs.path(NAME)), "--all"),
        *("--target", "x86-vnni", "--backend", "onnxruntime", "--data", str(data)),
        *("-o", str(output), "--no-native", "--threads", "1", "--checkpoint", "0.3"),
        *("--samples", str(SAMPLES)),
    ]


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    output = tmp_path_factory.mktemp("whole") / "statistics.npz"
    subprocess.run(command(data, output), check=True, capture_output=True)
    return output.read_bytes()


def workers(parent: int) -> Iterator[int]:
    """The children of a process: here, the one that watches."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent and fields[0] != "Z":
                yield int(entry.name)


def samples_in(partial: Path) -> int:
    return len(statistics_file.samples(partial))


def killed(data: Path, output: Path, more: int, *, group: bool, wait: float) -> int:
    """Kill a calibration once a checkpoint holds `more` samples; how many it then holds."""
    partial = output.with_name(output.name + ".partial")
    process = subprocess.Popen(
        command(data, output), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    end = time.monotonic() + SECONDS
    before = samples_in(partial)
    try:
        while samples_in(partial) < before + more:
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < end
            time.sleep(0.01)
        time.sleep(wait)  # somewhere between this checkpoint and the next, or in its writing
        own = list(workers(process.pid))
        if group:
            for pid in own:
                os.kill(pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert own, "the pass was over"
    while any(Path(f"/proc/{pid}/status").exists() for pid in own):  # the parent alone was killed
        assert time.monotonic() < end
        time.sleep(0.01)
    assert not output.exists()
    return samples_in(partial)


def test_killed_again_and_again(data: Path, uninterrupted: bytes, tmp_path: Path) -> None:
    output, chance = tmp_path / "statistics.npz", random.Random(7)
    reached = [0]
    for attempt in range(3):
        wait = chance.uniform(0.02, 0.25)
        reached.append(killed(data, output, 1, group=attempt % 2 == 0, wait=wait))
    assert reached == sorted(set(reached))  # each went on from the last checkpoint
    assert reached[-1] < SAMPLES
    done = subprocess.run(command(data, output), check=True, capture_output=True, text=True)
    assert f"{SAMPLES - reached[-1]} runs now" in done.stdout
    assert output.read_bytes() == uninterrupted
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".partial"] == []


# what a checkpoint is good for


def stopped(file: Path, seen: int, need_of: str = "xy") -> None:
    """A checkpoint beside `file` after some samples of its pass, as a killed process leaves it."""
    rows = written(file.parent / "s", [{"x": np.eye(3, dtype="f4") * k} for k in range(1, 5)])
    state = Calibration(plain(), rows[:seen], NUMPY).observe(want(set(need_of)))
    partial = file.with_name(file.name + ".partial")
    statistics_file.write(partial, state, lineages(plain()))


@pytest.mark.parametrize("seen", [1, 3, 4])
def test_a_checkpoint_is_gone_on_from(seen: int, tmp_path: Path) -> None:
    file = tmp_path / "file"
    stopped(file, seen)
    rows = written(tmp_path / "s", [{"x": np.eye(3, dtype="f4") * k} for k in range(1, 5)])
    work = Calibration(plain(), rows, NUMPY, file)
    work.observe(want({"x", "y"}))
    assert work.effort.runs == 4 - seen
    assert file.read_bytes() == filed(plain(), want({"x", "y"}), rows, tmp_path / "once")
    assert not file.with_name("file.partial").exists()


@pytest.mark.parametrize("how", ["order", "need", "sample", "damaged"])
def test_a_checkpoint_of_another_pass_is_not(how: str, tmp_path: Path) -> None:
    file, need = tmp_path / "file", want({"x", "y"})
    stopped(file, 2, "x" if how == "need" else "xy")
    rows = written(tmp_path / "s", [{"x": np.eye(3, dtype="f4") * k} for k in range(1, 5)])
    partial = tmp_path / "file.partial"
    if how == "order":
        rows = rows[::-1]
    elif how == "sample":
        rows = rows[1:]
    elif how == "damaged":
        partial.write_bytes(partial.read_bytes()[:-30])
    work = Calibration(plain(), rows, NUMPY, file)
    work.observe(need)
    assert work.effort.runs == len(rows)
    assert file.read_bytes() == filed(plain(), need, rows, tmp_path / "once")


def test_checkpoints_are_written_and_taken_away(tmp_path: Path) -> None:
    """With a checkpoint after each chunk the result is what it is without."""
    found, rows = small.fixture("mlp"), of_fixture("mlp", tmp_path / "s", 5)
    need = calibrations.all_needs(found)
    often = filed(found, need, rows, tmp_path / "often", Means(checkpoint=0.0))
    assert often == filed(found, need, rows, tmp_path / "never", Means(checkpoint=1e9))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["never", "often", "s"]
