"""The child of `bench`: one case in its own process, told what to do over stdin.

Protocol, JSON lines. The parent sends {"calls": n, "timed": bool}; the child answers with
{"ms": [..]}. The first answer, after loading, is {"ready": true, "threads": ..}. At the end of
stdin the child sends {"peak_mb": ..} and leaves; so it never outlives its parent.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

from edgec.errors import EdgecError

ENGINES = (".onnx", ".xml", ".ort")


def main(arguments: List[str]) -> int:
    """Arguments: the case as JSON (path, threads, settings, backend), and an `.npz` with inputs."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else prints must not disturb the protocol
    case, inputs = json.loads(arguments[0]), Path(arguments[1])
    try:
        call = _open(case, inputs)
        _send(answers, {"ready": True})
        for line in iter(sys.stdin.readline, ""):
            _send(answers, {"ms": _measure(call, json.loads(line)["calls"])})
        _send(answers, {"peak_mb": peak_mb()})
    except EdgecError as error:
        _send(answers, {"error": error.message, "hint": error.hint, "code": error.exit_code})
        return error.exit_code
    return 0


def _open(case: Dict[str, Any], inputs: Path) -> Callable[[], object]:
    from edgec.runtime import npz
    from edgec.runtime.model import load
    from edgec.runtime.openers import opener

    feeds = npz.read(inputs, "inputs")
    path, threads, settings = Path(case["path"]), case["threads"], dict(case["settings"])
    if path.suffix in ENGINES:
        if threads is not None:
            settings["threads"] = threads
        session = opener(case["backend"])(path, settings)
        return lambda: session.run(feeds)
    model = load(path, threads, settings, case["native_code"])
    return lambda: model.run(feeds)


def _measure(call: Callable[[], object], calls: int) -> List[float]:
    times = []
    for _ in range(calls):
        begin = time.perf_counter()
        call()
        times.append((time.perf_counter() - begin) * 1e3)
    return times


def peak_mb() -> float:
    """The largest resident memory of this process so far, in MB (10**6 bytes)."""
    try:
        with open("/proc/self/status") as status:
            kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        kib = used // 1024 if sys.platform == "darwin" else used
    return kib * 1024 / 1e6


def _send(stream: Any, message: Dict[str, Any]) -> None:
    stream.write(json.dumps(message) + "\n")
    stream.flush()


__all__: Tuple[str, ...] = ("main", "peak_mb")
