"""Timing all cases of a model side by side: one process each, rounds alternate A B C, C B A, ...

A machine drifts, so a ratio pairs a case with FP32 ONNX Runtime of the same round. Every turn
begins with calls that do not count: they bring weights and code back into the caches.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import peers_build
from peers_types import Speed

SECONDS = 300.0  # for opening, and for each turn
WARM, TURN_MS, FEWEST, MOST = 2, 300.0, 3, 20
PROGRAM = Path(__file__).with_name("peers_case.py")


class DiedError(Exception):
    """A case's process ended before its time; the text says how."""


def speed(case: Sequence[float], base: Sequence[float], peak_mb: float) -> Speed:
    """How many times as fast as the base: the median over rounds, and the quartiles."""
    ratios = sorted(b / a for a, b in zip(case, base, strict=True))
    low, middle, high = quartiles(ratios)
    return Speed(middle, low, high, statistics.median(case), peak_mb, tuple(case))


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The quartiles, linear between neighbours as numpy.quantile has them."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def measure(
    cases: Mapping[str, dict[str, Any]], base: str, sample: Path, rounds: int
) -> tuple[dict[str, Speed], dict[str, str]]:
    """Time `cases` (by name; see `peers_case`); who died is left out, and named with the reason."""
    problems: dict[str, str] = {}
    while True:
        alive = {name: case for name, case in cases.items() if name not in problems}
        times: dict[str, list[float]] = {name: [] for name in alive}
        peaks: dict[str, float] = {}
        with tempfile.TemporaryDirectory() as folder:
            died = _rounds(alive, base, sample, rounds, Path(folder), times, peaks)
        if died is None:
            found = {name: speed(times[name], times[base], peaks[name]) for name in alive}
            return found, problems
        if died[0] == base:
            raise RuntimeError(f"{base}: {died[1]}")
        problems[died[0]] = died[1]


def _rounds(
    cases: Mapping[str, dict[str, Any]],
    base: str,
    sample: Path,
    rounds: int,
    folder: Path,
    times: dict[str, list[float]],
    peaks: dict[str, float],
) -> tuple[str, str] | None:
    """All rounds; fills `times` with a median a round. Returns who died, and how."""
    children: dict[str, _Child] = {}
    name = ""
    try:
        for name, case in cases.items():
            children[name] = _Child(case, sample, folder / f"{name}.log")
            children[name].receive("ready")
        calls = {}
        for name, child in children.items():
            once = statistics.median(child.ask(WARM, FEWEST))
            calls[name] = max(FEWEST, min(MOST, round(TURN_MS / once)))
        for turn in range(rounds):
            order = list(children)
            for name in order if turn % 2 == 0 else reversed(order):
                times[name].append(statistics.median(children[name].ask(WARM, calls[name])))
        for name, child in children.items():
            peaks[name] = child.finish()
    except DiedError as error:
        return name, str(error)
    finally:
        for child in children.values():
            child.kill()
    return None


class _Child:
    """The process of a case; it stops by itself when its stdin closes."""

    def __init__(self, case: dict[str, Any], sample: Path, log: Path) -> None:
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(PROGRAM), json.dumps(case), "time", str(sample)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )

    def ask(self, warm: int, calls: int) -> list[float]:
        """Milliseconds of each call."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"warm": warm, "calls": calls}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise DiedError(self._how()) from None
        found: list[float] = self.receive("ms")
        return found

    def finish(self) -> float:
        """End the process; its largest resident memory in MB."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        peak: float = self.receive("peak_mb")
        return peak

    def receive(self, key: str) -> Any:
        """The value of the next answer. DiedError: there was none."""
        assert self._process.stdout is not None
        timer = threading.Timer(SECONDS, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if not line.endswith("\n"):
            raise DiedError(self._how())
        return json.loads(line)[key]

    def _how(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)  # it may still be on its way out
        self.kill()
        return f"{peers_build.ending(self._process.returncode)}: {peers_build.last_line(self._log)}"

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
