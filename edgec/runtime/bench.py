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
from edgec.runtime.scenarios import ONE_BY_ONE, Load, Round

_CHILD = "import sys; sys.path.insert(0, sys.argv.pop(1)); from edgec.runtime.case import main; "
_CHILD += "sys.exit(main(sys.argv[1:]))"
# The folder or the bundle's zip file that this very code was imported from.
_ROOT = str(Path(os.path.abspath(__file__)).parents[2])
Settings = Mapping[str, Any]
_NO_SETTINGS: Settings = MappingProxyType({})
UNSTEADY = 0.25  # interquartile range of the rounds' medians, over their median


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
    """One case over all rounds, milliseconds per query. `medians` holds one for each round.

    `per_second`: samples; `peak_mb`: the process's largest resident memory, in 10**6 bytes, loading
    included; `invalid`: why rounds are not accepted by what drove them, one text for each.
    """

    label: str
    p50: float
    p90: float
    p95: float
    p99: float
    mean: float
    low: float
    high: float
    rounds: int
    queries: int
    samples: int
    per_second: float
    peak_mb: float
    threads: Optional[int]
    medians: Tuple[float, ...]
    invalid: Tuple[str, ...] = ()


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
    load: Load = ONE_BY_ONE,
) -> List[Timing]:
    """Time every case on the same inputs. `timeout`: seconds for loading, and for each round.

    `load`: the scenario of a round; `warmup` calls come one after the other before the first.

    Raises the case's own error (InputError, ToolchainError), or InputError where a case crashed
    or took too long. No process outlives the call.
    """
    if not cases or min(rounds, calls_per_round) < 1 or warmup < 0:
        raise InputError("nothing to measure", hint="Ask for at least 1 case, round and call.")
    children: List[_Child] = []
    done: List[List[Round]] = [[] for _ in cases]
    with tempfile.TemporaryDirectory(prefix="edgec-bench-") as folder:
        try:
            npz.write(Path(folder) / "inputs.npz", inputs)
            for index, case in enumerate(cases):
                children.append(_Child(case, Path(folder), index, timeout))
                children[-1].receive("ready")
            for child in children:
                if warmup:
                    child.ask(warmup, ONE_BY_ONE)
            for turn in range(rounds):
                order = range(len(children))
                for index in order if turn % 2 == 0 else reversed(order):
                    done[index].append(children[index].ask(calls_per_round, load))
            peaks = [child.finish() for child in children]
        finally:
            for child in children:
                child.kill()
    return [_timing(case, one, peak) for case, one, peak in zip(cases, done, peaks)]


def ratio(case: Timing, base: Timing) -> Ratio:
    """How many times as long as `base` the case takes, round by round."""
    pairs = sorted(a / b for a, b in zip(case.medians, base.medians))
    return Ratio(statistics.median(pairs), _quantile(pairs, 0.25), _quantile(pairs, 0.75))


def unsteady(timing: Timing) -> bool:
    """Whether the case took now longer, now shorter: other work ran beside it, or clocks moved."""
    rounds = sorted(timing.medians)
    half, quarter = len(rounds) // 2, len(rounds) // 4
    return rounds[-1 - quarter] - rounds[quarter] > UNSTEADY * rounds[half]


def _timing(case: Case, rounds: Sequence[Round], peak: float) -> Timing:
    calls = sorted(ms for one in rounds for ms in one.ms)
    samples = sum(one.samples for one in rounds)
    return Timing(
        label=case.label,
        p50=statistics.median(calls),
        p90=_quantile(calls, 0.9),
        p95=_quantile(calls, 0.95),
        p99=_quantile(calls, 0.99),
        mean=sum(calls) / len(calls),
        low=calls[0],
        high=calls[-1],
        rounds=len(rounds),
        queries=len(calls),
        samples=samples,
        per_second=samples / sum(one.seconds for one in rounds),
        peak_mb=peak,
        threads=case.threads,
        medians=tuple(statistics.median(one.ms) for one in rounds),
        invalid=tuple(one.invalid for one in rounds if one.invalid),
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

    def ask(self, calls: int, load: Load) -> Round:
        """Let the case run: a round of at least so many calls."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `receive` finds out why
            self._process.stdin.write(json.dumps({"calls": calls, "load": load}) + "\n")
            self._process.stdin.flush()
        return Round(*self.receive("round"))

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
