"""Run a function in a process of its own: native toolchains crash, hang and eat memory.

`call(function, …)` returns what the function returns and raises the EdgecErrors that it raises. A
crash, a time limit or a memory limit becomes an EmitError that says which. The function must be
importable by name and its arguments picklable; both sides are this program, nothing else is read.
"""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgec.errors import EdgecError, EmitError
from edgec.lazy import defer
from edgec.template import Forked, Template, serve

TIME_LIMIT = 1800.0  # seconds
MEMORY_SHARE = 0.8  # of this machine's memory, resident
POLL = 0.05  # seconds
MEMORY = "memory"
PR_SET_PDEATHSIG = 1  # of prctl, see man 2 prctl

_templates: dict[int, Template] = {}  # by process: a fork of this one must not use its


class OverLimit(EmitError):  # noqa: N818 - as the errors that users see
    """The process needed more memory than it was given."""


def call(
    function: Callable[..., Any],
    *arguments: Any,
    seconds: float = TIME_LIMIT,
    memory: int = 0,
    fresh: bool = False,
) -> Any:
    """Call a module-level function in a subprocess, within limits of time and resident memory.

    `memory`: bytes; 0 stands for most of this machine's. `fresh`: in a new interpreter, whose
    memory is that of the function alone. Raises OverLimit where the peak was seen above the limit.
    The subprocess ends with this one, even if this one is killed.
    """
    name = f"{function.__module__}:{function.__qualname__}"
    with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
        request, answer = Path(folder) / "request", Path(folder) / "answer"
        log = Path(folder) / "log"
        request.write_bytes(pickle.dumps((name, arguments)))
        forked = None if fresh else _template().fork(function.__module__, request, answer, log)
        process = forked or _spawn(request, answer, log)
        try:
            stopped = _watch(process, seconds, memory or most_memory())
        finally:
            _end(process)
        text = log.read_text(encoding="utf-8", errors="replace")[-4000:]
        if stopped or not answer.is_file():
            why = stopped or _how(process.returncode or 0)
            kind = OverLimit if MEMORY in stopped else EmitError
            raise kind(
                f"{name.split(':')[1].strip('_')}: the backend's process {why}",
                hint="keep the part in float by a policy, or report the log to the backend",
                log=text,
            )
        succeeded, result = pickle.loads(answer.read_bytes())
    if succeeded:
        return result
    if isinstance(result, EdgecError):
        raise result
    raise EmitError(
        f"{name.split(':')[1].strip('_')}: {result}",
        hint="keep the part in float by a policy, or report the log to the backend",
        log=text,
    )


def _spawn(request: Path, answer: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as stream:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "edgec.isolate", request, answer, str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env={**os.environ, "PYTHONPATH": _search_path()},
            start_new_session=True,
        )


def _template() -> Template:
    """The template of this process, for its present PYTHONPATH."""
    path = _search_path()
    known = _templates.get(os.getpid())
    if known is None or known.search_path != path or (known.usable and not known.alive):
        if known is not None:
            known.close()
        known = _templates[os.getpid()] = Template(path)
    return known


@atexit.register
def _close() -> None:
    """End the template with this process, whose times then include those of all that ran."""
    known = _templates.pop(os.getpid(), None)
    if known is not None:
        known.close()


def _search_path() -> str:
    """Where this very package lies, before the user's own path; never the current folder."""
    own = str(Path(__file__).resolve().parents[1])
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join([own, *(path for path in given if os.path.isabs(path))])


def most_memory() -> int:
    """What a subprocess may take where nothing else is said: most of this machine's memory."""
    return int(MEMORY_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _watch(process: subprocess.Popen[bytes] | Forked, seconds: float, limit: int) -> str:
    """Wait for the end; a reason where a limit was passed, else an empty text."""
    end = time.monotonic() + seconds
    while True:
        try:
            process.wait(POLL)
            return ""
        except subprocess.TimeoutExpired:
            if time.monotonic() > end:
                return f"did not end within {seconds:.0f} s"
            used = peak(process.pid)
            if used > limit:
                return f"used {used / 1e6:.0f} MB of {MEMORY}, the limit is {limit / 1e6:.0f}"


def peak(pid: int) -> int:
    """The most memory that a process had resident since it began its program, in bytes; 0 unknown.

    `ru_maxrss` of getrusage also counts what the process was before: a copy of its parent.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        return 0


def _end(process: subprocess.Popen[bytes] | Forked) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _how(code: int) -> str:
    if code < 0:
        return f"crashed ({signal.Signals(-code).name})"
    return f"ended with exit code {code} and no answer"


def end_with(parent: int) -> None:
    """Be killed with the parent, which may be killed itself: no one would read the answer."""
    import ctypes

    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before that
            os._exit(1)


def answer_request(request: str, answer: str) -> None:
    """Call what a request names, and write its answer; in the subprocess."""
    from importlib import import_module

    name, arguments = pickle.loads(Path(request).read_bytes())
    module, _, function = name.partition(":")
    try:
        outcome = (True, getattr(import_module(module), function)(*arguments))
    except EdgecError as error:
        outcome = (False, error)
    except Exception as error:  # a backend's own type, which this side may not know
        import traceback

        traceback.print_exc()
        outcome = (False, f"{type(error).__name__}: {error}"[:2000])
    partial = Path(answer + ".partial")
    partial.write_bytes(pickle.dumps(outcome))
    partial.rename(answer)


if __name__ == "__main__":
    end_with(int(sys.argv[-1]))
    defer()
    if sys.argv[1] == "--template":
        serve()
    else:
        answer_request(*sys.argv[1:-1])
