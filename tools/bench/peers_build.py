"""Running one build in a process of its own: wall time, peak memory of the process tree, outcome.

A crash, a time limit or an error is an outcome with a reason, never an exception.
"""

from __future__ import annotations

import contextlib
import os
import re
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
) -> Built:
    """Run a command that writes `artifact`; what it prints goes to `log.txt` beside it."""
    log, begin, peak, expired = artifact.parent / "log.txt", time.monotonic(), 0, False
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
                peak = max(peak, sum(map(_resident, _tree(process.pid))))
                expired = time.monotonic() - begin > seconds
                if expired:
                    break
        finally:
            _end(process)
    spent = time.monotonic() - begin
    problem = _problem(process.returncode, expired, seconds, log, artifact)
    return Built(spent, peak / 1e6, 0 if problem else size(artifact), problem)


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


def _problem(code: int, expired: bool, seconds: float, log: Path, artifact: Path) -> str:
    if expired:
        return f"did not end within {seconds:.0f} s"
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


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError, ValueError):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return 0
