"""MLPerf's LoadGen drives a case, where the package `mlcommons-loadgen` is installed.

Latencies are LoadGen's own, query by query, from its trace; they are not computed a second time.
Nothing that comes of it is an MLPerf submission: rounds are short, and there is one sample.
Interface and logs: github.com/mlcommons/inference, loadgen/bindings/python_api.cc and results.cc.
"""

import importlib.util
import json
import queue
import re
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

from edgec.errors import ToolchainError
from edgec.runtime.scenarios import SERVER_SHARE, Call, Load, Round

LABEL = "measured with LoadGen, not an MLPerf submission"
_SAMPLE = re.compile(r'"ph":"b".*"query_seq":(\d+),.*"complete_ns":(\d+)')
_TRIES = 3  # calls that tell how long one takes
_SLACK = 5.0  # queries that LoadGen makes up ahead, over those that should do; it stops in time
_MORE = 1.2  # samples of its one query in Offline, which it does not stop
_NO_BOUND = 10**15  # nanoseconds


def installed() -> bool:
    """Whether this Python has LoadGen."""
    try:
        return importlib.util.find_spec("mlperf_loadgen") is not None
    except ImportError:
        return False


def run(call: Call, load: Load, calls: int) -> Round:
    """One test of LoadGen's, with at least `calls` queries (Offline: samples).

    Raises ToolchainError: it is not installed, or cannot be loaded; and what `call` raises.
    """
    try:
        import mlperf_loadgen as lg
    except ImportError as error:
        hint = "pip install mlcommons-loadgen (Linux on x86-64), or measure with --harness timer."
        raise ToolchainError("LoadGen cannot be used: {}".format(error), hint=hint) from error
    pace = _pace(call)
    worker = _Sut(lg, call, threaded=load.scenario == "Server")
    sut = lg.ConstructSUT(worker.issue, lambda: None)
    samples = lg.ConstructQSL(1, 1, lambda _: None, lambda _: None)
    try:
        with tempfile.TemporaryDirectory(prefix="edgec-loadgen-") as folder:
            logs = lg.LogSettings()
            logs.log_mode = lg.LoggingMode.EndOfTestOnly
            logs.enable_trace = True
            logs.log_output.outdir = folder
            logs.log_output.copy_summary_to_stdout = False
            lg.StartTestWithLogSettings(sut, samples, _settings(lg, load, calls, pace), logs, "")
            worker.close()
            return _read(Path(folder), load)
    finally:
        worker.close()
        lg.DestroyQSL(samples)
        lg.DestroySUT(sut)


def _settings(lg: Any, load: Load, calls: int, pace: float) -> Any:
    chosen = lg.TestSettings()
    chosen.scenario = getattr(lg.TestScenario, load.scenario)
    chosen.mode = lg.TestMode.PerformanceOnly
    chosen.min_query_count = calls
    chosen.min_duration_ms = int(1e3 * load.seconds)
    chosen.schedule_rng_seed = load.seed
    chosen.single_stream_expected_latency_ns = max(1, int(1e9 * pace / _SLACK))
    chosen.multi_stream_expected_latency_ns = max(1, int(1e9 * pace * load.samples / _SLACK))
    chosen.multi_stream_samples_per_query = load.samples
    chosen.offline_expected_qps = _MORE / max(pace, 1e-6)
    chosen.server_target_qps = load.qps or 1.0
    chosen.server_target_latency_ns = int(1e6 * load.bound_ms) or _NO_BOUND
    chosen.server_target_latency_percentile = SERVER_SHARE
    return chosen


def _pace(call: Call) -> float:
    times = []
    for _ in range(_TRIES):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)


class _Sut:
    """The system under test. A server answers in a thread of its own: LoadGen's must not wait."""

    def __init__(self, lg: Any, call: Call, threaded: bool) -> None:
        self._lg, self._call = lg, call
        self._waiting: "queue.Queue[Optional[List[int]]]" = queue.Queue()
        self._error: Optional[BaseException] = None
        self._thread = threading.Thread(target=self._serve, daemon=True) if threaded else None
        if self._thread is not None:
            self._thread.start()

    def issue(self, query: List[Any]) -> None:
        """LoadGen's callback."""
        names = [sample.id for sample in query]
        if self._thread is None:
            self._answer(names)
        else:
            self._waiting.put(names)

    def close(self) -> None:
        """Let the thread end; raises what a call raised."""
        self._waiting.put(None)
        if self._thread is not None:
            self._thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _serve(self) -> None:
        for names in iter(self._waiting.get, None):
            self._answer(names)

    def _answer(self, names: List[int]) -> None:
        try:
            for _ in names if self._error is None else ():
                self._call()
        except BaseException as error:  # LoadGen knows no failure: it is told that all is done
            self._error = error
        done = [self._lg.QuerySampleResponse(name, 0, 0) for name in names]
        self._lg.QuerySamplesComplete(done)


def _read(folder: Path, load: Load) -> Round:
    """Latencies from the trace, counted from the scheduled time; the verdict from the log."""
    queries: Dict[int, int] = {}
    samples = 0
    with open(str(folder / "mlperf_log_trace.json")) as trace:
        for sequence, done in (found.groups() for found in map(_SAMPLE.search, trace) if found):
            queries[int(sequence)] = max(int(done), queries.get(int(sequence), 0))
            samples += 1
    result: Dict[str, Any] = {}
    with open(str(folder / "mlperf_log_detail.txt")) as log:
        for line in log:
            entry = json.loads(line.partition("MLLOG")[2] or "{}")
            result[entry.get("key", "")] = entry.get("value")
    times = [one / 1e6 for _, one in sorted(queries.items())]
    seconds = sum(times) / 1e3
    if load.scenario == "Server":
        seconds = samples / max(float(result["result_completed_samples_per_sec"]), 1e-9)
    return Round(times, samples, seconds, _invalid(result))


def _invalid(result: Dict[str, Any]) -> str:
    if result["result_validity"] == "VALID":
        return ""
    reasons = (result.get("result_invalid_reason"), result.get("early_stopping_result"))
    text = " ".join(str(one) for one in reasons if one)
    return " ".join(text.replace("*", " ").split()) or "INVALID"
