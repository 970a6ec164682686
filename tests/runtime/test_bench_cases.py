"""One case, one process, interleaved; and no process is left behind. Nothing here asserts speed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import bundles
import pytest

from edgec.errors import InputError, ToolchainError
from edgec.runtime import bench
from edgec.runtime.bench import Case, measure, ratio
from edgec.runtime.scenarios import Load, Round


@pytest.fixture
def two_cases(tmp_path: Path) -> list[Case]:
    whole = tmp_path / "m.onnx"
    whole.write_bytes(bundles.two_tower_models()["one"].SerializeToString())
    path = bundles.write(tmp_path / "m.edgec")
    return [Case("bundle", path, 1), Case("original", whole, 1)]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    processes: list[Any] = []

    class Recorded(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more)
            processes.append(self)

    monkeypatch.setattr(bench.subprocess, "Popen", Recorded)
    return processes


def gone(processes: list[Any]) -> bool:
    return all(process.returncode is not None for process in processes)


def test_two_cases(
    two_cases: list[Case], started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[tuple[str, int]] = []
    ask = bench._Child.ask

    def spy(self: Any, calls: int, load: Load) -> Round:
        assert not any(process.returncode is not None for process in started)
        order.append((self._label, calls))
        return ask(self, calls, load)

    monkeypatch.setattr(bench._Child, "ask", spy)
    timings = measure(two_cases, bundles.feeds(), rounds=3, warmup=2, calls_per_round=4)
    assert len({process.pid for process in started} | {os.getpid()}) == 3
    assert gone(started)
    a, b = ("bundle", 4), ("original", 4)
    assert order == [("bundle", 2), ("original", 2), a, b, b, a, a, b]
    for timing, case in zip(timings, two_cases, strict=True):
        assert (timing.label, timing.rounds, timing.threads) == (case.label, 3, 1)
        assert 0 < timing.low <= timing.p50 <= timing.p95 <= timing.p99 <= timing.high
        assert timing.low <= min(timing.medians) <= max(timing.medians) <= timing.high
        assert len(timing.medians) == 3
        assert timing.per_second >= 1e3 / timing.high
        assert timing.peak_mb > 20
    compared = ratio(*timings)
    assert compared.low <= compared.median <= compared.high


def test_the_childs_own_peak_is_reported(two_cases: list[Case]) -> None:
    ballast = bytearray(os.urandom(1 << 20)) * 400
    timings = measure(two_cases, bundles.feeds(), rounds=1, calls_per_round=1)
    assert len(ballast) > 400e6
    assert all(timing.peak_mb < 400 for timing in timings)


def test_ratio_pairs_rounds() -> None:
    def timing(*medians: float) -> bench.Timing:
        named = dict.fromkeys(bench.Timing._fields, 0)
        return bench.Timing(**{**named, "medians": medians})  # type: ignore[arg-type]

    compared = ratio(timing(2, 20, 200, 2000, 30000), timing(1, 10, 100, 1000, 10000))
    assert (compared.median, compared.low, compared.high) == (2, 2, 2)


def test_percentiles() -> None:
    import numpy as np

    values = sorted(np.random.default_rng(0).random(37).tolist())
    for share in (0.0, 0.25, 0.5, 0.95, 0.99, 1.0):
        assert bench._quantile(values, share) == pytest.approx(np.quantile(values, share))


def test_a_killed_case_is_reported(
    two_cases: list[Case], started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = bench._Child.ask

    def kill_the_second(self: Any, calls: int, load: Load) -> Round:
        if calls == 5:
            os.kill(started[1].pid, signal.SIGKILL)
        return ask(self, calls, load)

    monkeypatch.setattr(bench._Child, "ask", kill_the_second)
    with pytest.raises(InputError, match="case 'original' failed: signal SIGKILL"):
        measure(two_cases, bundles.feeds(), rounds=2, calls_per_round=5)
    assert len(started) == 2
    assert gone(started)


def test_a_crash_brings_its_stderr(two_cases: list[Case], monkeypatch: pytest.MonkeyPatch) -> None:
    crash = "import os, sys; print('the last words', file=sys.stderr, flush=True); os.abort()"
    monkeypatch.setattr(bench, "_CHILD", crash)
    with pytest.raises(InputError, match=r"(?s)'bundle' failed: signal SIGABRT.*the last words"):
        measure(two_cases, bundles.feeds())


def test_output_of_the_case_does_not_disturb(
    two_cases: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = "import os; os.write(1, b''); import edgec.runtime.case as c; send = c._send\n"
    noise += "c._send = lambda *a: (os.write(1, b'noise\\n'), print('noise'), send(*a)); "
    start, run = bench._CHILD.split("; from edgec", 1)
    monkeypatch.setattr(bench, "_CHILD", start + "; " + noise + "from edgec" + run)
    assert len(measure(two_cases, bundles.feeds(), rounds=1, calls_per_round=1)) == 2


def test_a_case_that_takes_too_long(two_cases: list[Case], started: list[Any]) -> None:
    with pytest.raises(InputError, match=r"case 'bundle' failed: no answer in 0.01 s"):
        measure(two_cases, bundles.feeds(), timeout=0.01)
    assert gone(started)


def test_an_interrupt_ends_the_cases(
    two_cases: list[Case], started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Any, calls: int, load: Load) -> Round:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench._Child, "ask", interrupt)
    with pytest.raises(KeyboardInterrupt):
        measure(two_cases, bundles.feeds())
    assert len(started) == 2
    assert gone(started)


def test_cases_end_with_a_parent_that_was_killed(two_cases: list[Case], tmp_path: Path) -> None:
    inputs = tmp_path / "in.npz"
    inputs.write_bytes(bundles.pack.npz_bytes(bundles.feeds()))
    script = (
        "import sys; from pathlib import Path; from edgec.runtime import bench, npz\n"
        "init = bench._Child.__init__\n"
        "def tell(self, *a):\n"
        "    init(self, *a); print(self._process.pid, flush=True)\n"
        "bench._Child.__init__ = tell\n"
        f"cases = [bench.Case(str(p), Path(p), 1) for p in {[str(c.path) for c in two_cases]!r}]\n"
        f"feeds = npz.read(Path({str(inputs)!r}), 'x')\n"
        "bench.measure(cases, feeds, rounds=10**9, calls_per_round=1)\n"
    )
    root = str(Path(bench.__file__).parents[2])
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert parent.stdout is not None
    children = [int(parent.stdout.readline()) for _ in range(2)]
    assert all(_alive(pid) for pid in children)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 60
    while any(_alive(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in children)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_cases_own_error_is_passed_on(two_cases: list[Case], tmp_path: Path) -> None:
    feeds = bundles.feeds()
    del feeds["tokens"]
    with pytest.raises(InputError, match="case 'bundle': missing input tokens") as caught:
        measure(two_cases, feeds)
    assert caught.value.hint.startswith("The model takes image")
    model = bundles.two_tower_models()["one"]
    model.ir_version = 999
    (tmp_path / "new.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ToolchainError, match=r"case 'new': onnxruntime .* is too old"):
        measure([Case("new", tmp_path / "new.onnx")], bundles.feeds())


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"calls_per_round": 0}, {"warmup": -1}])
def test_nothing_to_measure(two_cases: list[Case], wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="nothing to measure"):
        measure(two_cases, bundles.feeds(), **wrong)


def test_peak_memory_is_resident_memory() -> None:
    code = "from edgec.runtime.case import peak_mb; import mmap; x = b'x' * 50_000_000; "
    code += "reserved = mmap.mmap(-1, 1 << 30); print(peak_mb())"
    root = str(Path(bench.__file__).parents[2])
    line = [sys.executable, "-c", code]
    done = subprocess.run(
        line, env={"PYTHONPATH": root}, capture_output=True, text=True, check=True
    )
    assert 50 < float(done.stdout) < 150
