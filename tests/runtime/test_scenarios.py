"""Four scenarios, two harnesses, one form of result. Nothing here asserts speed."""

from __future__ import annotations

import builtins
import time
from types import ModuleType
from typing import Any

import pytest

from edgec.errors import ToolchainError
from edgec.runtime import loadgen, scenarios
from edgec.runtime.scenarios import SCENARIOS, Load

HARNESSES = [
    scenarios,
    pytest.param(
        loadgen,
        marks=pytest.mark.skipif(not loadgen.installed(), reason="mlcommons-loadgen is for x86-64"),
    ),
]


class Counted:
    """A call that takes a moment."""

    def __init__(self, seconds: float = 0.001) -> None:
        self.calls, self.seconds = 0, seconds

    def __call__(self) -> None:
        self.calls += 1
        time.sleep(self.seconds)


@pytest.mark.parametrize("harness", HARNESSES, ids=["timer", "loadgen"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_round(harness: ModuleType, scenario: str) -> None:
    call = Counted()
    done = harness.run(call, Load(scenario, qps=200.0, samples=4), 20)
    queries, samples = {
        "SingleStream": (20, 20),
        "MultiStream": (20, 80),
        "Offline": (1, 20),
        "Server": (20, 20),
    }[scenario]
    extra = 3 if harness is loadgen else 0  # which tell LoadGen how long a call takes
    assert len(done.ms) == queries
    assert done.samples == samples == call.calls - extra
    assert min(done.ms) >= 1.0 * samples / queries
    assert done.seconds >= 0.001 * samples


@pytest.mark.parametrize("harness", HARNESSES, ids=["timer", "loadgen"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_round_lasts_as_long_as_is_asked(harness: ModuleType, scenario: str) -> None:
    begin = time.perf_counter()
    done = harness.run(Counted(0.01), Load(scenario, seconds=0.3, qps=100.0, samples=2), 1)
    took = time.perf_counter() - begin
    assert done.samples > 5
    assert took >= 0.25 or "min" in done.invalid.lower() or "expected" in done.invalid.lower()


@pytest.mark.parametrize("harness", HARNESSES, ids=["timer", "loadgen"])
def test_a_server_that_cannot_keep_up_is_late(harness: ModuleType) -> None:
    """Latency counts from the arrival, so that waiting for others is part of it."""
    done = harness.run(Counted(0.01), Load("Server", qps=500.0, bound_ms=20.0), 30)
    assert max(done.ms) > 100
    assert done.invalid
    if harness is scenarios:
        assert "queries took longer than 20 ms, at 500 a second" in done.invalid


def test_arrivals_follow_from_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[list[float]] = []
    for seed in (1, 1, 2):
        slept: list[float] = []
        monkeypatch.setattr(scenarios.time, "perf_counter", lambda: 0.0)
        monkeypatch.setattr(scenarios.time, "sleep", slept.append)
        with pytest.raises(ZeroDivisionError):  # no time passes here, and so no rate comes of it
            _ = 1 / scenarios.run(lambda: None, Load("Server", qps=10.0, seed=seed), 50).seconds
        waits.append(slept)
    assert waits[0] == waits[1] != waits[2]
    assert len(waits[0]) == 50
    assert waits[0] == sorted(waits[0])


@pytest.mark.skipif(not loadgen.installed(), reason="mlcommons-loadgen is for x86-64")
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_error_of_the_model_ends_loadgens_test(scenario: str) -> None:
    calls = 0

    def fail() -> None:
        nonlocal calls
        calls += 1
        if calls > 5:
            raise ValueError("the model failed")

    with pytest.raises(ValueError, match="the model failed"):
        loadgen.run(fail, Load(scenario, qps=1000.0), 10)


@pytest.mark.skipif(not loadgen.installed(), reason="mlcommons-loadgen is for x86-64")
def test_loadgens_own_verdict_is_kept() -> None:
    few = loadgen.run(Counted(0.0001), Load(), 10)
    assert "Need to process at least 64 queries" in few.invalid
    assert loadgen.run(Counted(0.0001), Load(), 100).invalid == ""


def test_without_loadgen(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def lacking(name: str, *rest: Any) -> Any:
        if name == "mlperf_loadgen":
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", lacking)
    with pytest.raises(ToolchainError, match="LoadGen cannot be used") as caught:
        loadgen.run(lambda: None, Load(), 1)
    assert "--harness timer" in caught.value.hint
