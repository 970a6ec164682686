"""Latency of several cases side by side, in a way that can be believed.

Sessions in one process fight over the cores, and a machine drifts; so each case has a process of
its own, and rounds alternate: A B, B A, A B, ... Ratios compare the medians of one round's pair.
"""

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import MappingProxyType
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from edgec.errors import EdgecError, InputError
from edgec.runtime import npz

_CHILD = "import sys; sys.path.insert(0, sys.argv.pop(1)); from edgec.runtime.case import main; "
_CHILD += "sys.exit(main(sys.argv[1:]))"
# The folder or the bundle's zip file that this very code was imported from.
_ROOT = str(Path(os.path.abspath(__file__)).parents[2])
Settings = Mapping[str, Any]
_NO_SETTINGS: Settings = MappingProxyType({})


class Case(NamedTuple):
    """What to measure: a bundle, or one engine's file (`.onnx`, `.xml`, `.ort`) with its backend.

    threads None: its own default. `native_code`: whether a bundle's native kernels may run.
    """

    label: str
    path: Path
    threads: Optional[int] = None
    settings: Settings = _NO_SETTINGS
    backend: str = "onnxruntime"
    native_code: bool = False


class Timing(NamedTuple):
    """One case over all rounds, milliseconds per call. `medians` holds one for each round.

    `peak_mb` is the process's largest resident memory, in 10**6 bytes, loading included.
    """

    label: str
    p50: float
    p95: float
    p99: float
    low: float
    high: float
    rounds: int
    per_second: float
    peak_mb: float
    threads: Optional[int]
    medians: Tuple[float, ...]


class Ratio(NamedTuple):
    """Median of the rounds' ratios, and the quartiles around it."""

    median: float
    low: float
    high: float


def measure(
    cases: Sequence[Case],
    inputs: Mapping[str, Any],
    *,
    rounds: int = 7,
    warmup: int = 3,
    calls_per_round: int = 10,
    timeout: float = 600.0,
) -> List[Timing]:
    """Time every case on the same inputs. `timeout`: seconds for loading, and for each round.

    Raises the case's own error (InputError, ToolchainError), or InputError where a case crashed
    or took too long. No process outlives the call.
    """
    if not cases or min(rounds, calls_per_round) < 1 or warmup < 0:
        raise InputError("nothing to measure", hint="Ask for at least 1 case, round and call.")
    children: List[_Child] = []
    times: List[List[List[float]]] = [[] for _ in cases]
    with tempfile.TemporaryDirectory(prefix="edgec-bench-") as folder:
        try:
            npz.write(Path(folder) / "inputs.npz", inputs)
            for index, case in enumerate(cases):
                children.append(_Child(case, Path(folder), index, timeout))
                children[-1].receive("ready")
            for child in children:
                if warmup:
                    child.ask(warmup)
            for turn in range(rounds):
                order = range(len(children))
                for index in order if turn % 2 == 0 else reversed(order):
                    times[index].append(children[index].ask(calls_per_round))
            peaks = [child.finish() for child in children]
        finally:
            for child in children:
                child.kill()
    return [_timing(case, t, peak) for case, t, peak in zip(cases, times, peaks)]


def ratio(case: Timing, base: Timing) -> Ratio:
    """How many times as long as `base` the case takes, round by round."""
    pairs = sorted(a / b for a, b in zip(case.medians, base.medians))
    return Ratio(statistics.median(pairs), _quantile(pairs, 0.25), _quantile(pairs, 0.75))


def _timing(case: Case, rounds: Sequence[Sequence[float]], peak: float) -> Timing:
    calls = sorted(ms for one in rounds for ms in one)
    return Timing(
        label=case.label,
        p50=statistics.median(calls),
        p95=_quantile(calls, 0.95),
        p99=_quantile(calls, 0.99),
        low=calls[0],
        high=calls[-1],
        rounds=len(rounds),
        per_second=1e3 * len(calls) / sum(calls),
        peak_mb=peak,
        threads=case.threads,
        medians=tuple(statistics.median(one) for one in rounds),
    )


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Linear between the neighbours, as numpy.quantile does."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


class _Child:
    """A case's process. It stops by itself when its stdin closes."""

    def __init__(self, case: Case, folder: Path, index: int, timeout: float) -> None:
        self._label, self._timeout = case.label, timeout
        self._errors = folder / "stderr-{}".format(index)
        path = os.path.abspath(str(case.path))
        what = {"path": path, "threads": case.threads, "settings": dict(case.settings)}
        what.update(backend=case.backend, native_code=case.native_code)
        inputs = str(folder / "inputs.npz")
        flags = ["-I"] if sys.flags.isolated else []
        with open(str(self._errors), "wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-B", *flags, "-c", _CHILD, _ROOT, json.dumps(what), inputs],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                universal_newlines=True,
                start_new_session=True,  # an interrupt is the parent's to handle
            )

    def ask(self, calls: int) -> List[float]:
        """Let the case run; milliseconds of each call."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `receive` finds out why
            self._process.stdin.write(json.dumps({"calls": calls}) + "\n")
            self._process.stdin.flush()
        times: List[float] = self.receive("ms")
        return times

    def finish(self) -> float:
        """End the case; its peak memory in MB."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        peak: float = self.receive("peak_mb")
        return peak

    def receive(self, key: str) -> Any:
        """The next answer's `key`. Raises what the child reports, or how it died."""
        assert self._process.stdout is not None
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            self._process.kill()

        timer = threading.Timer(self._timeout, expire)
        timer.daemon = True
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        answer: Dict[str, Any] = json.loads(line) if line.endswith("\n") else {}
        if key in answer:
            return answer[key]
        if "error" in answer:
            raise _reported(self._label, answer)
        raise self._death(expired.is_set())

    def _death(self, expired: bool) -> EdgecError:
        self.kill()
        tail = self._errors.read_bytes()[-2000:].decode("utf-8", "replace").strip()
        code = self._process.returncode
        how = "exit code {}".format(code)
        if expired:
            how = "no answer in {:g} s".format(self._timeout)
        elif code < 0:
            how = "signal {}".format(signal.Signals(-code).name)
        message = "case {!r} failed: {}".format(self._label, how) + ("\n" + tail if tail else "")
        return InputError(message, hint="Run the same case alone: edgec bench BUNDLE --rounds 1")

    def kill(self) -> None:
        """End the process and wait for it."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None and not stream.closed:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def _reported(label: str, answer: Mapping[str, Any]) -> EdgecError:
    message = "case {!r}: {}".format(label, answer["error"])
    for kind in EdgecError.__subclasses__():
        if kind.exit_code == answer["code"] and kind.__name__ != "GoalMissed":
            return kind(message, hint=answer["hint"])
    return InputError(message, hint=answer["hint"])
