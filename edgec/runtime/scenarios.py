"""MLPerf Inference's four scenarios, driven by a plain timer.

SingleStream: the next query follows the last one. MultiStream: a query holds several samples.
Offline: one query holds all of them. Server: queries arrive at random (Poisson), whether or not
those before are done, and latency counts from the arrival. Source: Reddi et al., "MLPerf Inference
Benchmark", 2020, arXiv:1911.02549, section IV. `loadgen` drives the same with LoadGen itself.
"""

import random
import time
from typing import Callable, List, NamedTuple

SCENARIOS = ("SingleStream", "MultiStream", "Offline", "Server")
HARNESSES = ("auto", "loadgen", "timer")  # auto: LoadGen where it is installed
SERVER_SHARE = 0.99  # of queries that Server answers within its bound
Call = Callable[[], object]


class Load(NamedTuple):
    """How a case is driven. `seconds`: that a round takes at least.

    `samples` in a query of MultiStream; `qps` and `bound_ms` (0: none) of Server; `seed` of its
    arrivals. `harness`: timer or loadgen.
    """

    scenario: str = SCENARIOS[0]
    harness: str = "timer"
    seconds: float = 0.0
    samples: int = 8
    qps: float = 0.0
    bound_ms: float = 0.0
    seed: int = 0


ONE_BY_ONE = Load()


class Round(NamedTuple):
    """What came of a round: milliseconds of each query, samples, and seconds spent on them.

    `invalid`: why the harness does not accept it; empty: it does.
    """

    ms: List[float]
    samples: int
    seconds: float
    invalid: str = ""


def run(call: Call, load: Load, calls: int) -> Round:
    """One round of at least `calls` queries; of as many samples where one query holds all."""
    if load.scenario == "Server":
        return _server(call, load, calls)
    if load.scenario == "Offline":
        done = _stream(call, 1, calls, load.seconds)
        return Round([1e3 * done.seconds], done.samples, done.seconds)
    return _stream(call, load.samples if load.scenario == "MultiStream" else 1, calls, load.seconds)


def _stream(call: Call, samples: int, calls: int, seconds: float) -> Round:
    times: List[float] = []
    end = time.perf_counter() + seconds
    while len(times) < calls or time.perf_counter() < end:
        begin = time.perf_counter()
        for _ in range(samples):
            call()
        times.append((time.perf_counter() - begin) * 1e3)
    return Round(times, samples * len(times), sum(times) / 1e3)


def _server(call: Call, load: Load, calls: int) -> Round:
    """One thread is enough: a query waits for those before it, and its latency counts that."""
    arrivals, due = random.Random(load.seed), 0.0
    times: List[float] = []
    begin = time.perf_counter()
    while len(times) < calls or due < load.seconds:
        due += arrivals.expovariate(load.qps)
        time.sleep(max(0.0, begin + due - time.perf_counter()))
        call()
        times.append((time.perf_counter() - begin - due) * 1e3)
    late = sum(one > load.bound_ms for one in times) if load.bound_ms else 0
    invalid = ""
    if late > (1 - SERVER_SHARE) * len(times):
        text = "{} of {} queries took longer than {:g} ms, at {:g} a second"
        invalid = text.format(late, len(times), load.bound_ms, load.qps)
    return Round(times, len(times), time.perf_counter() - begin, invalid)
