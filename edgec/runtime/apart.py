"""A function of the runtime in a process of its own, with limits: native builders crash and hang.

    answer = run("edgec.runtime.tensorrt_build:build", request, seconds=3600, memory=4 << 30)

Request and answer are JSON. The process ends with this one, even if this one is killed. Where the
system allows it has the same addresses each time: TensorRT-RTX 1.7.1 orders some names of an engine
with dynamic shapes by address, so that no two builds were alike; without randomisation all are.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any, Dict, List, Mapping

from edgec.errors import EdgecError, EmitError, InternalError

_CHILD = "import sys; sys.path.insert(0, sys.argv[1]); from edgec.runtime.apart import main; "
_CHILD += "sys.exit(main(sys.argv[2:]))"
_ROOT = str(Path(os.path.abspath(__file__)).parents[2])  # a folder, or the bundle's zip file
_POLL = 0.05  # seconds
_ASK, _FIXED = 0xFFFFFFFF, 0x0040000  # of personality(2): tell the present one; no randomisation
_SMALLER = "Close other programs, or build for smaller shapes."


class OutOfMemory(EmitError):  # noqa: N818 - as the errors that users see
    """The process needed more memory than it was given, or than there is."""


def run(function: str, request: Mapping[str, Any], *, seconds: float, memory: int) -> Any:
    """The JSON answer of `module:function`. `memory`: bytes resident; 0: no limit.

    Raises the EdgecErrors that the function raises; EmitError: a crash or the time limit;
    OutOfMemory: the memory limit, or the system's own.
    """
    with tempfile.TemporaryDirectory(prefix="edgec-apart-") as folder:
        asked, answer, output = (Path(folder) / name for name in ("request", "answer", "output"))
        asked.write_text(json.dumps(dict(request)), encoding="utf-8")
        with output.open("wb") as stream:
            process = subprocess.Popen(
                _command([function, str(asked), str(answer), str(os.getpid())]),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        try:
            _watch(process, function, seconds, memory)
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if not answer.is_file():
            raise _death(function, process.returncode, output)
        found = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in found:
        raise _reported(found)
    return found["answer"]


def _command(arguments: "List[str]") -> "List[str]":
    flags = ["-I"] if sys.flags.isolated else []
    return [sys.executable, "-B", *flags, "-c", _CHILD, _ROOT, *arguments]


def _watch(process: "subprocess.Popen[bytes]", what: str, seconds: float, memory: int) -> None:
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_POLL)
            return
        if time.monotonic() > end:
            message = "{} did not end within {:.0f} s".format(what.partition(":")[2], seconds)
            raise EmitError(message, hint="Give it more time: finish --seconds N.")
        used = resident(process.pid)
        if memory and used > memory:
            message = "{} used {:.0f} MB, the limit is {:.0f} MB"
            message = message.format(what.partition(":")[2], used / 1e6, memory / 1e6)
            raise OutOfMemory(message, hint=_SMALLER)


def resident(pid: int) -> int:
    """The resident memory of a process in bytes; 0 where it cannot be known."""
    try:
        with open("/proc/{}/statm".format(pid), encoding="ascii") as stream:
            return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def available() -> int:
    """Memory that could be had without swapping, in bytes; 0 where it cannot be known."""
    try:
        with open("/proc/meminfo", encoding="ascii") as stream:
            for line in stream:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (OSError, IndexError, ValueError):
        pass
    return 0


def _death(what: str, code: int, output: Path) -> EmitError:
    tail = output.read_bytes()[-2000:].decode("utf-8", "replace").strip()
    label = what.partition(":")[2]
    if code == -signal.SIGKILL:  # nobody else kills it so: the kernel did, for memory
        message = "{} was killed by the system, which lacked memory".format(label)
        return OutOfMemory(message, hint=_SMALLER, log=tail)
    how = "exit code {}".format(code)
    if code < 0:
        how = "crashed ({})".format(signal.Signals(-code).name)
    message = "{}: {}".format(label, how) + (": " + tail.splitlines()[-1][:300] if tail else "")
    return EmitError(message, hint="Look at the builder's log.", log=tail)


def _reported(found: Mapping[str, Any]) -> Exception:
    kinds: "List[Any]" = [OutOfMemory, *EdgecError.__subclasses__()]
    for kind in kinds:
        if kind.__name__ == found["error"] and kind.__name__ != "GoalMissed":
            made: Exception = kind(found["message"], hint=found["hint"])
            if isinstance(made, EmitError):
                made.log = found["log"]
            return made
    return InternalError("{}: {}".format(found["error"], found["message"]))


def main(arguments: "List[str]") -> int:
    """The subprocess: function, request file, answer file, parent."""
    name, asked, answer, parent = arguments
    _end_with(int(parent))
    _fix_addresses(arguments)
    module, _, function = name.partition(":")
    with open(asked, encoding="utf-8") as stream:
        request = json.load(stream)
    found: Dict[str, Any]
    try:
        found = {"answer": getattr(import_module(module), function)(request)}
    except EdgecError as error:
        found = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
        found["log"] = getattr(error, "log", "")
    partial = answer + ".partial"
    with open(partial, "w", encoding="utf-8") as stream:
        json.dump(found, stream)
    os.replace(partial, answer)
    return 0


def _fix_addresses(arguments: "List[str]") -> None:
    """Start this program anew without address randomisation; containers may forbid that."""
    import ctypes

    if not sys.platform.startswith("linux"):
        return
    system = ctypes.CDLL(None, use_errno=True)
    now = system.personality(_ASK)
    if now != -1 and not now & _FIXED and system.personality(now | _FIXED) != -1:
        command = _command(arguments)
        os.execv(command[0], command)


def _end_with(parent: int) -> None:
    """Be killed with the parent: no one would read the answer."""
    import ctypes

    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)
