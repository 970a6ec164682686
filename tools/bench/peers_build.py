"""Running one build in a process of its own: time, peak memory of the process tree, outcome.

A crash, a time limit or an error is an outcome with a reason, never an exception.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from peers_types import Built

SECONDS, POLL = 900.0, 0.1


def run(
    command: Sequence[str],
    artifact: Path,
    environment: Mapping[str, str],
    seconds: float = SECONDS,
    most_mb: float = math.inf,
) -> Built:
    """Run a command that writes `artifact`; what it prints goes to `log.txt` beside it.

    It is ended after `seconds`, or when its processes hold more than `most_mb` together. Nothing
    else of this program may be waiting for a process meanwhile: CPU time is that of all who ended.
    """
    log, begin, stopped = artifact.parent / "log.txt", time.monotonic(), ""
    peak, largest, used = 0, 0, _cpu_seconds()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env={**os.environ, **environment},
            cwd=artifact.parent,
            start_new_session=True,
        )
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(POLL)
                    break
                sizes = [_resident(pid) for pid in _tree(process.pid)]
                peak = max(peak, sum(now for now, _ in sizes))
                largest = max(largest, *(most for _, most in sizes))
                if time.monotonic() - begin > seconds:
                    stopped = f"did not end within {seconds:.0f} s"
                elif peak > most_mb * 1e6:
                    stopped = f"failed at {peak / 1e9:.1f} GB"
                if stopped:
                    break
        finally:
            _end(process)
    spent = time.monotonic() - begin
    problem = stopped or _problem(process.returncode, log, artifact)
    written = 0 if problem else size(artifact)
    cpu = _cpu_seconds() - used
    return Built(spent, peak / 1e6, written, problem, "", cpu, largest / 1e6)


def size(artifact: Path) -> int:
    """Bytes of a model file; an OpenVINO file's weights stand in a `.bin` beside it."""
    weights = artifact.with_suffix(".bin")
    more = weights.stat().st_size if artifact.suffix == ".xml" and weights.is_file() else 0
    return artifact.stat().st_size + more


def last_line(log: Path) -> str:
    """What a program said last that looks like a reason, on one line, without folders."""
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines()]
    lines = [line for line in lines if line and not line.startswith(("hint:", "^"))]
    errors = [i for i, line in enumerate(lines) if "rror" in line or "not installed" in line]
    text = " ".join(lines[errors[-1] if errors else -1 :])
    return re.sub(r"(?<![\w.])/(?:[^\s/:]+/)+", "", text)[:300]


def ending(code: int) -> str:
    """How a process ended."""
    return f"crashed ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"


def _problem(code: int, log: Path, artifact: Path) -> str:
    if code < 0:
        return ending(code)
    if code:
        return f"{ending(code)}: {last_line(log)}"
    return "" if artifact.is_file() else "reported success and wrote nothing"


def _end(process: subprocess.Popen[bytes]) -> None:
    for pid in reversed(list(_tree(process.pid))):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait()


def _tree(root: int) -> Iterator[int]:
    """A process and all that it started, also in sessions of their own, the oldest first."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(entry))
    waiting = [root]
    while waiting:
        pid = waiting.pop(0)
        yield pid
        waiting += children.get(pid, ())


def _resident(pid: int) -> tuple[int, int]:
    """Bytes that a process holds, and the most that it ever held."""
    with contextlib.suppress(OSError, KeyError, ValueError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines if line.startswith("Vm"))
        now, most = (int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
        return now, most
    return 0, 0


def _cpu_seconds() -> float:
    """Of all processes that this one, or one of them, has waited for."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime
